"""Hello ranks: one function, run by many. Each rank knows its number; everything else it has to be told.

mpirun -n 4 python mpi_examples/hello_ranks.py     # four processes
python mpi_examples/hello_ranks.py                 # four threads, no MPI needed
"""

from __future__ import annotations

import numpy as np

from syncbn_sim.comm import Communicator, launch
from syncbn_sim.comm.mpi.start import world_size


def hello(comm: Communicator) -> str:
    """What each rank does."""
    # 1. A rank is told two numbers: which one it is, and how many there are.
    line = f"rank {comm.rank} of {comm.size}"

    # 2. It holds data that nobody else can see.
    mine = np.array([10.0 * (comm.rank + 1)])

    # 3. An all-reduce is the one conversation this project is about: everyone brings an array of the same shape,
    #    everyone leaves with the sum of all of them.
    everybody = comm.allreduce(mine)

    # 4. All ranks must take part in every such call. (What happens otherwise: mismatch.py.)
    return f"{line}: I brought {mine[0]:g}, together we have {everybody[0]:g}"


def main() -> None:
    """Starts the ranks; rank 0 prints for all, in rank order."""
    lines = launch(hello, world_size() or 4)
    if lines is not None:  # over MPI the results arrive on rank 0 only
        print("\n".join(lines))
        print("Look at the last number: it is the same on every rank, though no rank could see the others' data.")


if __name__ == "__main__":
    main()
