"""What the ranks find out together: whether they share one machine, and whether they crowd it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mpi4py import MPI


def lowest(comm: MPI.Intracomm, number: int) -> int:
    """The smallest of the ranks' numbers. Collective.

    mpi4py's own `allreduce` of Python numbers holds the interpreter while it waits, so that no watchdog could speak.
    """
    from mpi4py import MPI

    result = np.array(number, np.int64)
    comm.Allreduce(MPI.IN_PLACE, result, MPI.MIN)
    return int(result)


def on_one_machine(comm: MPI.Intracomm) -> bool:
    """Whether all ranks are on one machine. Collective."""
    from mpi4py import MPI

    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        return lowest(comm, here.size) == comm.size
    finally:
        here.Free()


def crowd_one_machine(comm: MPI.Intracomm) -> bool:
    """Whether all ranks share one machine, and are more than the cores that they may use there together. Collective."""
    from mpi4py import MPI

    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = len(set().union(*here.allgather(mine)))  # each rank may be bound to a core of its own
    crowded = here.size == comm.size > cores
    here.Free()
    return bool(lowest(comm, crowded))
