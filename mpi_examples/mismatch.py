"""A mismatch on purpose: one rank skips a layer. Elsewhere such a job hangs for ever; here every rank's call is named.

mpirun -n 3 python mpi_examples/mismatch.py     # ends with an error: that is the lesson
python mpi_examples/mismatch.py
"""

from __future__ import annotations

import numpy as np

from syncbn_sim import nn
from syncbn_sim.comm import Communicator, launch
from syncbn_sim.comm.mpi.start import world_rank, world_size


def forgetful(comm: Communicator) -> None:
    """What each rank does; rank 1 has no large objects in its images, and skips their head."""
    rng = np.random.default_rng(comm.rank)
    backbone = nn.SyncBatchNorm(8, comm=comm, dtype=np.float64)
    head = nn.SyncBatchNorm(4, comm=comm, dtype=np.float64)

    features = backbone(rng.normal(size=(6, 8)))  # everyone: an all-reduce of 2 x 8 + 1 = 17 sums

    if comm.rank != 1:  # the bug: a branch on what this rank happens to hold
        head(features[:, :4])  # all but rank 1: an all-reduce of 2 x 4 + 1 = 9 sums

    backbone.backward(features)  # rank 1 is here already: an all-reduce of 2 x 8 = 16 sums


def main() -> None:
    """Starts the ranks. The cure is to call the layer with an empty batch: head(features[:0, :4])."""
    if world_rank() == 0:
        print(
            "Look at the message below: each rank's call, the one that differs, and the code lines it came from.",
            flush=True,
        )
    launch(forgetful, world_size() or 3)


if __name__ == "__main__":
    main()
