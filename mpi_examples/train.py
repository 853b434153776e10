"""What does sorting the data cost a net with local batch norm, and how much of it does SyncBN win back?

    mpirun -n 8 python mpi_examples/train.py            # 8 MPI processes, both tasks
    python mpi_examples/train.py --ranks 8              # the same ranks in one process, without MPI: as one array, much faster
    python mpi_examples/train.py --task digits --arms iid+local,sorted+local,sorted+sync

The experiment is syncbn_sim/experiments/sorted_batches.py; `syncbn-sim run sorted_batches` is the same.
"""

import sys

from syncbn_sim.cli import errors_told, run_experiment
from syncbn_sim.experiments.sorted_batches import EXPERIMENT


def main() -> None:
    """Reads the options, runs the ranks, and reports."""
    with errors_told("train.py"):
        run_experiment(EXPERIMENT, sys.argv[1:], "python mpi_examples/train.py")


if __name__ == "__main__":
    main()
