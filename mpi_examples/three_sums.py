"""Three sums are enough: count, sum and sum of squares add up over ranks, and give mean and variance of everything.

mpirun -n 3 python mpi_examples/three_sums.py
python mpi_examples/three_sums.py
"""

from __future__ import annotations

import numpy as np

from syncbn_sim.comm import Communicator, launch
from syncbn_sim.comm.mpi.start import world_size
from syncbn_sim.stats import Moments


def rows_of(rank: int) -> np.ndarray:
    """One channel; rank r holds r + 2 numbers around 10 r."""
    return np.arange(rank + 2.0)[:, None] + 10 * rank


def three_sums(comm: Communicator) -> str:
    """What each rank does."""
    # Step by step, each sum by itself.
    x = rows_of(comm.rank)
    n, total, total_sq = float(len(x)), x.sum(), (x * x).sum()
    lines = [f"rank {comm.rank} has n={n:g}, sum={total:g}, sum of squares={total_sq:g}"]
    n, total, total_sq = (float(comm.allreduce(np.array([part]))[0]) for part in (n, total, total_sq))
    mean = total / n
    variance = total_sq / n - mean**2

    # In one go: the three sums packed into one vector, one all-reduce. This is what travels in SyncBatchNorm.
    packed = comm.allreduce(Moments.of(x).pack())
    together = Moments.unpack(packed)
    assert np.allclose([mean, variance], [together.mean[0], together.var()[0]])

    if comm.rank == comm.size - 1:
        everything = np.concatenate([rows_of(r) for r in range(comm.size)])
        lines += [
            f"all together: n={n:g}, mean={mean:.6f}, variance={variance:.6f}",
            f"one big batch:     mean={everything.mean():.6f}, variance={everything.var():.6f}",
            f"mean of the ranks' means: {np.mean([rows_of(r).mean() for r in range(comm.size)]):.6f} (not the mean!)",
        ]
    return "\n".join(lines)


def main() -> None:
    """Starts the ranks; rank 0 prints for all, in rank order."""
    lines = launch(three_sums, world_size() or 3)
    if lines is not None:
        print("\n".join(lines))
        print("Look at the last three lines: sums over ranks give the big batch exactly; means over ranks do not.")


if __name__ == "__main__":
    main()
