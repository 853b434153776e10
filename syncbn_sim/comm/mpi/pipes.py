"""Pipes between the ranks of one machine, by which they sleep and wake one another."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .machines import lowest

if TYPE_CHECKING:
    from mpi4py import MPI

NAP = 1e-4  # seconds between looks after messages that have not left yet


class Pipes:
    """One pipe per rank. A rank sleeps by reading from its own; a byte that another rank writes into it wakes it.

    The kernel puts a reader to sleep and wakes it. MPI waits by looking again and again: a little quicker if every rank has a core for
    itself, but where it has not, the ranks that wait keep the cores from those that they wait for.
    """

    def __init__(self, rank: int, ends: dict[int, int], push: Callable[[], bool]) -> None:
        """See `open_pipes`.

        Args:
            rank: whose they are.
            ends: descriptors of the pipes by rank: rank 0 has all, the others rank 0's and their own.
            push: does something for messages that this rank has sent and that have not left yet; whether there are any. MPI moves them
                only while somebody calls it, and a rank that is asleep does not.
        """
        self._rank, self._ends, self._push = rank, ends, push

    def wake(self, rank: int) -> None:
        """Wakes a rank, or, if it is not asleep yet, keeps it from its next sleep."""
        os.write(self._ends[rank], b"!")

    def sleep(self) -> None:
        """Returns once this rank has been woken, since its last sleep."""
        mine = self._ends[self._rank]
        while self._push() and not select.select([mine], [], [], NAP)[0]:
            pass
        os.read(mine, 4096)

    def close(self) -> None:
        """Gives the descriptors back."""
        for end in self._ends.values():
            os.close(end)


def open_pipes(comm: MPI.Intracomm, push: Callable[[], bool]) -> Pipes | None:
    """Makes a pipe per rank, which the others open by way of /proc; None on every rank if one of them cannot. Collective.

    Such a pipe has no name in any folder: whenever the job ends, nothing of it is left behind.
    """
    made: list[int] = []
    opened: dict[int, int] = {}
    pipes = np.zeros((comm.size, 3), np.int64)

    def open_them() -> None:
        for rank in range(comm.size) if comm.rank == 0 else (0, comm.rank):
            process, number, inode = pipes[rank]
            # For reading and writing, so that neither end is ever closed.
            opened[rank] = os.open(f"/proc/{process}/fd/{number}", os.O_RDWR)
            if os.fstat(opened[rank]).st_ino != inode:
                raise OSError("the process of that number here is another one than in its own container")

    all_can = _all_can(comm, lambda: made.extend(os.pipe()))
    if all_can:
        comm.Allgather(np.array([os.getpid(), made[0], os.fstat(made[0]).st_ino]), pipes)
        all_can = _all_can(comm, open_them)
    for end in [*made, *([] if all_can else opened.values())]:
        os.close(end)
    return Pipes(comm.rank, opened, push) if all_can else None


def _all_can(comm: MPI.Intracomm, step: Callable[[], None]) -> bool:
    """Whether every rank could take this step. Collective."""
    try:
        step()
        done = 1
    except OSError:
        done = 0
    return bool(lowest(comm, done))
