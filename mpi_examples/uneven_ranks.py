"""Uneven and empty ranks: averaging goes wrong, sums do not.

mpirun -n 3 python mpi_examples/uneven_ranks.py
python mpi_examples/uneven_ranks.py
"""

from __future__ import annotations

import numpy as np

from syncbn_sim import nn
from syncbn_sim.comm import Communicator, launch
from syncbn_sim.comm.mpi.start import world_size


def rows_of(rank: int, ranks: int) -> np.ndarray:
    """Rank 0 has 12 rows around 0, the last rank none, those between 2 rows around 5."""
    count, place = (12, 0.0) if rank == 0 else (0, 0.0) if rank == ranks - 1 else (2, 5.0)
    return np.random.default_rng(rank).normal(size=(count, 1)) + place


def uneven(comm: Communicator) -> str:
    """What each rank does."""
    x = rows_of(comm.rank, comm.size)

    # momentum 1: the running statistics are those of this batch, so we can read them off.
    sums = nn.SyncBatchNorm(1, momentum=1.0, comm=comm, dtype=np.float64)
    averages = nn.AveragedBatchNorm(1, momentum=1.0, comm=comm, dtype=np.float64)
    sums(x)  # every rank calls it, the one without rows too
    averages(x)
    line = f"rank {comm.rank}: {len(x)} rows"
    if comm.rank < comm.size - 1:
        return line

    everything = np.concatenate([rows_of(r, comm.size) for r in range(comm.size)])
    rows = [("the truth", everything.mean(), everything.var(ddof=1))]
    for name, layer in (("sums (SyncBN)", sums), ("averages", averages)):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        rows.append((name, layer.running_mean[0], layer.running_var[0]))
    return "\n".join([line, *(f"{name:14s} mean {mean:8.4f}  variance {var:8.4f}" for name, mean, var in rows)])


def main() -> None:
    """Starts the ranks; rank 0 prints for all, in rank order."""
    lines = launch(uneven, world_size() or 3)
    if lines is not None:
        print("\n".join(lines))
        print(
            "Look at the mean: averaging lets 2 rows speak as loudly as 12. Look at the variance: averaging loses what lies"
        )
        print("between the ranks. The empty rank adds nothing to the sums, and must still be there.")


if __name__ == "__main__":
    main()
