"""An all-reduce through memory that the ranks of one machine share, in which whoever waits is asleep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...arrays import Array
from ..base import REDUCTIONS
from .pipes import Pipes

if TYPE_CHECKING:
    from mpi4py import MPI

SLOT = 256 * 1024  # bytes of memory per rank; a larger array goes through it in parts
# 4K aliasing: whether what it reads is still being written, a processor asks by the lowest 12 bits of the address alone. A copy
# between two places that are near to each other *within* their pages so waits for itself, and takes twice as long. Large arrays begin
# 16 bytes into a page; the slots begin half a page into one, far from that.
PAGE, APART = 4096, 2048


class SharedReduction:
    """Each rank writes its array into its slot; the first one combines them in rank order; all read the result.

    Results are the same bits as those of ranks that are threads.
    """

    def __init__(self, comm: MPI.Intracomm, pipes: Pipes) -> None:
        """Collective over `comm`, whose ranks must be on one machine; they sleep by these pipes."""
        from mpi4py import MPI

        self.rank, self.size = comm.rank, comm.size
        rows = self.size + 1  # the first one is for the result
        self._window = MPI.Win.Allocate_shared(rows * SLOT + PAGE if self.rank == 0 else 0, 1, comm=comm)
        shared: Any = self._window.Shared_query(0)[0]
        memory = np.frombuffer(shared, np.uint8)
        # The same on every rank, since memory is shared in whole pages.
        start = (APART - memory.ctypes.data) % PAGE
        self._memory = memory[start : start + rows * SLOT].reshape(rows, SLOT)
        self._pipes = pipes

    def meet(self) -> None:
        """Returns once every rank has called it."""
        if self.rank == 0:
            self._sleep_until_all_have_come()
            self._wake_all()
        else:
            self._come_and_sleep()

    def allreduce(self, array: Array, op: str, out: Array) -> None:
        """Combines contiguous arrays of one shape and dtype; `out` may be `array`."""
        flat, result = array.reshape(-1), out.reshape(-1)
        step = SLOT // array.itemsize
        for start in range(0, max(flat.size, 1), step):
            self._reduce(flat[start : start + step], op, result[start : start + step])

    def close(self) -> None:
        """Frees memory and pipes. Collective."""
        self._window.Free()
        self._pipes.close()

    def _reduce(self, part: Array, op: str, out: Array) -> None:
        result, *parts = self._memory[:, : part.nbytes].view(part.dtype)
        parts[self.rank][...] = part
        if self.rank == 0:
            self._sleep_until_all_have_come()
            # As in MPI: an error raised here would leave the others asleep.
            with np.errstate(all="ignore"):
                result[...] = parts[0]
                for each in parts[1:]:
                    REDUCTIONS[op](result, each, out=result)
            self._wake_all()
        else:
            self._come_and_sleep()
        # Nobody writes the next result before all have come to the next call, and so are done with this one.
        out[...] = result

    def _come_and_sleep(self) -> None:
        self._pipes.wake(0)
        self._pipes.sleep()

    def _sleep_until_all_have_come(self) -> None:
        self._pipes.sleep(self.size - 1)

    def _wake_all(self) -> None:
        for rank in range(1, self.size):
            self._pipes.wake(rank)
