"""An all-reduce through memory that the ranks of one machine share, in which whoever waits long is asleep."""

from __future__ import annotations

import math
from contextvars import Context
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...arrays import Array
from ..base import REDUCTIONS
from .gate import Gate
from .messages import apart
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
        self._rows = lru_cache(maxsize=64)(self._make_rows)
        self._gate = Gate(comm, pipes)
        # As in MPI: an error raised while the first rank combines would leave the others asleep. `np.errstate` takes longer than a sum.
        quiet = Context()
        quiet.run(np.seterr, all="ignore")
        self._quietly = quiet.run

    def meet(self) -> None:
        """Returns once every rank has called it."""
        self._gate.assemble()
        self._gate.release()

    def allreduce(self, array: Array, op: str, out: Array) -> None:
        """Combines contiguous arrays of one shape and dtype; `out` may be `array`, or share memory with it."""
        if array.nbytes <= SLOT:
            self._reduce(array, op, out)
            return
        flat, result = apart(array, out).reshape(-1), out.reshape(-1)
        step = SLOT // array.itemsize
        for start in range(0, flat.size, step):
            self._reduce(flat[start : start + step], op, result[start : start + step])

    def close(self) -> None:
        """Frees memory and pipes. Collective."""
        self._window.Free()
        self._gate.close()

    def _reduce(self, part: Array, op: str, out: Array) -> None:
        result, *parts = self._rows(part.shape, part.dtype)
        parts[self.rank][...] = part
        self._gate.assemble()
        if self.rank == 0:
            self._quietly(_combine, REDUCTIONS[op], parts, result)
        self._gate.release()
        # Nobody writes the next result before all have come to the next call, and so are done with this one.
        out[...] = result

    def _make_rows(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[Array]:
        rows = self._memory[:, : math.prod(shape) * dtype.itemsize].view(dtype)
        return [row.reshape(shape) for row in rows]


def _combine(op: np.ufunc, parts: list[Array], result: Array) -> None:
    op(parts[0], parts[1], result)
    for part in parts[2:]:
        op(result, part, result)
