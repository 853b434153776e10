"""An all-reduce through memory that the ranks of one machine share, in which whoever waits is asleep."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array
from .base import REDUCTIONS

if TYPE_CHECKING:
    from mpi4py import MPI

SLOT = 256 * 1024  # bytes of memory a rank; a larger array goes through it in parts
# Large arrays begin 16 bytes into a page. A copy between two places that are so near to each other *within* their pages took twice
# as long (the processor seems to take what it reads for what it has just written); half a page apart it does not.
PAGE, APART = 4096, 2048
RING = b"!"
NAP = 1e-4  # seconds between looks after messages that have not left yet


class SharedReduction:
    """Each rank writes its array into its slot; the first one combines them in rank order; all read the result.

    A rank waits by reading from a pipe, its bell, into which somebody else will write one byte. The kernel puts it to sleep and
    wakes it. MPI waits by looking again and again: a little quicker if every rank has a core for itself, but where it has not, the
    waiting ranks keep the cores from those that they wait for.

    Results are the same bits as those of ranks that are threads.
    """

    def __init__(self, comm: MPI.Intracomm, bells: dict[int, int], push: Callable[[], bool]) -> None:
        """Collective over `comm`, whose ranks must be on one machine. See `open_shared`.

        Args:
            comm: the ranks.
            bells: descriptors of the pipes, from `_hang_bells`.
            push: does something for messages that this rank has sent and that have not left yet; whether there are any. MPI moves them
                only while somebody calls it, and a rank that is asleep does not.
        """
        from mpi4py import MPI

        self.rank, self.size = comm.rank, comm.size
        rows = self.size + 1  # the first one is for the result
        self._window = MPI.Win.Allocate_shared(rows * SLOT + PAGE if self.rank == 0 else 0, 1, comm=comm)
        shared: Any = self._window.Shared_query(0)[0]
        memory = np.frombuffer(shared, np.uint8)
        start = (APART - memory.ctypes.data) % PAGE  # the same on every rank, since memory is shared in whole pages
        self._memory = memory[start : start + rows * SLOT].reshape(rows, SLOT)
        self._bells, self._push = bells, push

    def meet(self) -> None:
        """Returns once every rank has called it."""
        if self.rank == 0:
            self._hear_all()
            self._wake_all()
        else:
            self._arrive_and_sleep()

    def allreduce(self, array: Array, op: str, out: Array) -> None:
        """Combines contiguous arrays of one shape and dtype; `out` may be `array`."""
        flat, result = array.reshape(-1), out.reshape(-1)
        step = SLOT // array.itemsize
        for start in range(0, max(flat.size, 1), step):
            self._reduce(flat[start : start + step], op, result[start : start + step])

    def close(self) -> None:
        """Frees memory and pipes. Collective."""
        self._window.Free()
        for bell in self._bells.values():
            os.close(bell)

    def _reduce(self, part: Array, op: str, out: Array) -> None:
        result, *parts = self._memory[:, : part.nbytes].view(part.dtype)
        parts[self.rank][...] = part
        if self.rank == 0:
            self._hear_all()
            with np.errstate(all="ignore"):  # as in MPI: an error raised here would leave the others asleep
                result[...] = parts[0]
                for each in parts[1:]:
                    REDUCTIONS[op](result, each, out=result)
            self._wake_all()
        else:
            self._arrive_and_sleep()
        # Nobody writes the next result before all have arrived at the next call, and so are done with this one.
        out[...] = result

    def _arrive_and_sleep(self) -> None:
        os.write(self._bells[0], RING)
        self._listen(1)

    def _hear_all(self) -> None:
        missing = self.size - 1
        while missing:
            missing -= self._listen(missing)

    def _listen(self, most: int) -> int:
        """Sleeps until this rank's bell has rung; returns how often, at most `most` times."""
        bell = self._bells[self.rank]
        while self._push() and not select.select([bell], [], [], NAP)[0]:
            pass
        return len(os.read(bell, most))

    def _wake_all(self) -> None:
        for rank in range(1, self.size):
            os.write(self._bells[rank], RING)


def open_shared(comm: MPI.Intracomm, push: Callable[[], bool]) -> SharedReduction | None:
    """A `SharedReduction`, or None on every rank if one of them can't have a pipe. Collective."""
    bells = _hang_bells(comm)
    return None if bells is None else SharedReduction(comm, bells, push)


def _hang_bells(comm: MPI.Intracomm) -> dict[int, int] | None:
    """Makes a pipe a rank, which the others open by way of /proc. Rank 0 rings all bells, the others its own one. Collective.

    Such a pipe has no name in any folder: whenever the job ends, nothing of it is left behind.
    """
    ends: list[int] = []
    bells: dict[int, int] = {}
    pipes = np.zeros((comm.size, 3), np.int64)

    def open_them() -> None:
        for rank in range(comm.size) if comm.rank == 0 else (0, comm.rank):
            process, number, inode = pipes[rank]
            bells[rank] = os.open(
                f"/proc/{process}/fd/{number}", os.O_RDWR
            )  # for both, so that neither end is ever closed
            if os.fstat(bells[rank]).st_ino != inode:
                raise OSError("the process of that number here is another one than in its own container")

    all_can = _all_can(comm, lambda: ends.extend(os.pipe()))
    if all_can:
        comm.Allgather(np.array([os.getpid(), ends[0], os.fstat(ends[0]).st_ino]), pipes)
        all_can = _all_can(comm, open_them)
    for end in [*ends, *([] if all_can else bells.values())]:
        os.close(end)
    return bells if all_can else None


def _all_can(comm: MPI.Intracomm, step: Callable[[], None]) -> bool:
    """Whether every rank could take this step. Collective."""
    try:
        step()
        done = 1
    except OSError:
        done = 0
    return bool(lowest(comm, done))


def lowest(comm: MPI.Intracomm, number: int) -> int:
    """The smallest of the ranks' numbers. Collective.

    mpi4py's own `allreduce` of Python numbers holds the interpreter while it waits, so that no watchdog could speak.
    """
    from mpi4py import MPI

    result = np.array(number, np.int64)
    comm.Allreduce(MPI.IN_PLACE, result, MPI.MIN)
    return int(result)
