"""An all-reduce through memory that the ranks of one machine share, in which whoever waits is asleep."""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array
from .base import REDUCTIONS

if TYPE_CHECKING:
    from mpi4py import MPI

SLOT = 256 * 1024  # bytes of memory a rank; a larger array goes through it in parts
RING = b"!"


class SharedReduction:
    """Each rank writes its array into its slot; the first one combines them in rank order; all read the result.

    A rank waits by reading from a pipe, its bell, into which somebody else will write one byte. The kernel puts it to sleep and
    wakes it. MPI waits by looking again and again: a little quicker if every rank has a core for itself, but where it has not, the
    waiting ranks keep the cores from those that they wait for.

    Results are the same bits as those of ranks that are threads.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        """Collective over `comm`, whose ranks must be on one machine."""
        from mpi4py import MPI

        self.rank, self.size = comm.rank, comm.size
        rows = self.size + 1  # the first one is for the result
        self._window = MPI.Win.Allocate_shared(rows * SLOT if self.rank == 0 else 0, 1, comm=comm)
        memory: Any = self._window.Shared_query(0)[0]
        self._memory = np.frombuffer(memory, np.uint8).reshape(rows, SLOT)
        self._bells = _hang_bells(comm)
        self._take_down = weakref.finalize(self, _close, list(self._bells.values()))

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
        """Frees the memory. Collective."""
        self._take_down()
        self._window.Free()

    def _reduce(self, part: Array, op: str, out: Array) -> None:
        result, *parts = self._memory[:, : part.nbytes].view(part.dtype)
        parts[self.rank][...] = part
        if self.rank == 0:
            self._hear_all()
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
        os.read(self._bells[self.rank], 1)

    def _hear_all(self) -> None:
        missing = self.size - 1
        while missing:
            missing -= len(os.read(self._bells[0], missing))

    def _wake_all(self) -> None:
        for rank in range(1, self.size):
            os.write(self._bells[rank], RING)


def _hang_bells(comm: MPI.Intracomm) -> dict[int, int]:
    """Opens a named pipe a rank and takes the names away again. Rank 0 rings all bells, the others its own one. Collective."""
    folder = comm.bcast(tempfile.mkdtemp(prefix="syncbn-sim-") if comm.rank == 0 else None)
    names = [os.path.join(folder, str(rank)) for rank in range(comm.size)]
    os.mkfifo(names[comm.rank], 0o600)
    comm.Barrier()
    ringing = range(comm.size) if comm.rank == 0 else (0, comm.rank)
    bells = {rank: os.open(names[rank], os.O_RDWR) for rank in ringing}  # for both, so that opening waits for nobody
    comm.Barrier()
    os.unlink(names[comm.rank])
    comm.Barrier()
    if comm.rank == 0:
        os.rmdir(folder)
    return bells


def _close(bells: list[int]) -> None:
    for bell in bells:
        os.close(bell)
