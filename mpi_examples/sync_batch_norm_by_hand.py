"""SyncBN by hand: forward and backward from their steps, on ranks, against one big batch.

mpirun -n 4 python mpi_examples/sync_batch_norm_by_hand.py
python mpi_examples/sync_batch_norm_by_hand.py
"""

from __future__ import annotations

import numpy as np

from syncbn_sim import nn
from syncbn_sim.comm import Communicator, launch
from syncbn_sim.comm.mpi.start import world_size
from syncbn_sim.functional import batch_norm as F
from syncbn_sim.stats import Moments

CHANNELS, EPS = 3, 1e-5


def deal(ranks: int) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Rows x and output gradients dy of every rank (4 rows each), and a weight for each channel."""
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(4, CHANNELS)) * 2 + r for r in range(ranks)]
    dy = [rng.normal(size=(4, CHANNELS)) for _ in range(ranks)]
    return x, dy, rng.uniform(0.5, 2.0, CHANNELS)


def by_hand(comm: Communicator) -> str:
    """What each rank does: four steps, and two conversations between them."""
    xs, dys, weight = deal(comm.size)
    x, dy = xs[comm.rank], dys[comm.rank]

    # Forward: local sums, ONE ALL-REDUCE, normalise.
    moments = Moments.unpack(comm.allreduce(F.local_moments(x).pack()))
    x_hat, inv_std = F.standardize(x, moments.mean, moments.var(), EPS)
    y = F.scale_and_shift(x_hat, weight, None)

    # Backward: local sums, ONE ALL-REDUCE, dx with the sums and the count of all ranks.
    sums = F.BackwardSums.unpack(comm.allreduce(F.local_backward_sums(dy, x_hat).pack()))
    dx = F.input_gradient(dy, x_hat, inv_std, weight, sums, moments.count)

    # The same from one process that sees everything.
    big = nn.BatchNorm(CHANNELS, eps=EPS, dtype=np.float64)
    assert big.weight is not None
    big.weight.data = weight
    big_y = big(np.concatenate(xs))
    big_dx = big.backward(np.concatenate(dys))
    mine = slice(4 * comm.rank, 4 * comm.rank + 4)
    error_y, error_dx = np.abs(y - big_y[mine]).max(), np.abs(dx - big_dx[mine]).max()
    equal = "equal to the big batch" if max(error_y, error_dx) < 1e-12 else "WRONG"
    return f"rank {comm.rank}: y[0] = {np.round(y[0], 4)}, dx[0] = {np.round(dx[0], 4)}: {equal}"


def main() -> None:
    """Starts the ranks; rank 0 prints for all, in rank order."""
    lines = launch(by_hand, world_size() or 4)
    if lines is not None:
        print("\n".join(lines))
        print(
            "Look at the code: between local steps there are two all-reduces, one forward and one backward. That is all."
        )


if __name__ == "__main__":
    main()
