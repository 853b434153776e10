"""Buffers that one layer owns and uses again, so that a training step need not ask the system for memory."""

from __future__ import annotations

import math
import sys
from bisect import insort
from typing import Any

import numpy as np

from .arrays import Array

SMALL = 32 * 1024  # bytes; below, the C library's own cache of freed blocks is quicker than ours
UNUSED = 2  # references to a buffer's base: the buffer's, and the one that getrefcount is given
ALIGNMENT = 64  # bytes of a cache line, and of the widest vector registers; np.empty aligns to 16


class Workspace:
    """Hands out arrays with undefined content, and hands memory out again once nobody refers to it.

    Nobody means nobody: an output that the caller still holds, a view of it, a context that waits for its backward pass all
    count, because NumPy views keep the memory they show alive. So `y1 = bn(x1); y2 = bn(x2)` are two buffers, and
    `y = bn(x)` in a loop is one.

    A workspace belongs to one layer on one rank. A copy of the layer starts with an empty one.
    """

    def __init__(self) -> None:
        self._pool: list[Array] = []  # the smallest first

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Returns an array of this shape and dtype; its content is whatever was there before."""
        size = math.prod(shape) * dtype.itemsize
        if size <= SMALL:
            return np.empty(shape, dtype)
        # A new array object each time: NumPy gives it, and each view of it, the buffer's base as its own, where they can be counted.
        return np.ndarray(shape, dtype, self._free(size))

    def _free(self, size: int) -> Array:
        """The smallest buffer that is large enough and that nobody uses, or a new one."""
        for buffer in self._pool:
            if buffer.size >= size and sys.getrefcount(buffer.base) == UNUSED:
                return buffer
        # Those that are free are too small for what this layer does now: let them go, so that nothing piles up.
        self._pool = [buffer for buffer in self._pool if sys.getrefcount(buffer.base) != UNUSED]
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        buffer = memory[start : start + size]
        insort(self._pool, buffer, key=len)
        return buffer

    def __deepcopy__(self, memo: dict[int, Any]) -> Workspace:
        return Workspace()

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()
