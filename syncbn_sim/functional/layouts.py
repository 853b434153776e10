"""How an array lies in memory, and the passes over it that suit: sums over the batch, and coefficients applied to it.

`Planes`: a channel's numbers come in long runs. `Rows`: the channel changes with every number, or every few. Both walk in
blocks of 512 KiB, so that what one pass has touched is still in the second-level cache when the next one comes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..arrays import Array
from ..workspace import Workspace

BLOCK = 512 * 1024  # bytes
RUN = 4096  # longest run of numbers that is summed in the data's own dtype
LONG_RUN, LARGE = 400, 16 * 1024  # numbers in a row, and in all, from which on `lean` pays
PLANES = 32  # numbers of one channel in a row from which on Planes are quicker than Rows
WIDTH = 4096  # numbers that Rows take as one row


class Layout:
    """The passes over arrays of one shape, order and dtype. It has no scratch of its own, so ranks may share it.

    A subclass says how to cut an array into blocks, and what a block's sums and coefficients look like.

    NumPy copies a broadcast operand into a buffer of 8192 numbers first, although nothing needs converting. With a tiny buffer
    its loops take it from where it lies: twice as fast if they are long, slower if they are short. The size of the buffer
    belongs to this thread or task, and leaving `np.errstate` restores it.
    """

    lean: bool  # whether to shrink NumPy's buffer
    largest: int  # numbers in the largest block
    partial: tuple[int, ...]  # shape of the partial sums of one quantity
    dtype: np.dtype[Any]

    def blocks(self, memory: Array) -> list[Array]:
        """Views of an array, one a block."""
        raise NotImplementedError

    def spread(self, values: Array) -> Array:
        """(C,) as an array of the data's dtype that broadcasts against a block, or `[..., :width]` of it against a narrow one."""
        raise NotImplementedError

    def add_up(self, a: Array, x: Array, partial: Array, at: int, scratch: Array) -> int:
        """Writes the partial sums of a and a x into `partial[:, at:]`; returns where the next block's go. a or x may be `scratch`."""
        raise NotImplementedError

    def fold(self, partial: Array) -> Array:
        """Partial sums as sums, (2, C) float64."""
        raise NotImplementedError

    def sums(self, a: Array, x: Array, shift: Array | None, space: Workspace) -> Array:
        """sum(a) and sum(a (x - shift)) of each channel, (2, C) float64. If `a` is x, then x - shift stands for it too."""
        partial = space.take((2, *self.partial), self.dtype)
        scratch = space.take((self.largest,), self.dtype)
        at = 0
        with np.errstate(over="ignore", invalid="ignore"):
            if self.lean:
                np.setbufsize(16)
            s = None if shift is None else self.spread(shift)
            for ab, xb in zip(self.blocks(a), self.blocks(x), strict=True):
                free = scratch[: xb.size].reshape(xb.shape)
                if s is not None:
                    xb = np.subtract(xb, s[..., : xb.shape[-1]], free)
                at = self.add_up(xb if a is x else ab, xb, partial, at, free)
        return self.fold(partial)  # with NumPy's own buffer, since it converts

    def affine(self, x: Array, shift: Array | None, a: Array, b: Array | None, y: Array) -> None:
        """Y = a (x - shift) + b."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.lean:
                np.setbufsize(16)
            s = None if shift is None else self.spread(shift)
            a, b = self.spread(a), None if b is None else self.spread(b)
            for xb, yb in zip(reversed(self.blocks(x)), reversed(self.blocks(y)), strict=True):
                n = xb.shape[-1]
                if s is not None:
                    xb = np.subtract(xb, s[..., :n], yb)
                np.multiply(xb, a[..., :n], yb)
                if b is not None:
                    np.add(yb, b[..., :n], yb)

    def gradient(self, dy: Array, x: Array, shift: Array | None, a: Array, k: Array, q: Array, dx: Array) -> None:
        """Dx = a (dy + k (x - shift) + q)."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.lean:
                np.setbufsize(16)
            s = None if shift is None else self.spread(shift)
            a, k, q = self.spread(a), self.spread(k), self.spread(q)
            blocks = zip(*(reversed(self.blocks(each)) for each in (dy, x, dx)), strict=True)
            for dyb, xb, dxb in blocks:
                n = xb.shape[-1]
                if s is not None:
                    xb = np.subtract(xb, s[..., :n], dxb)
                np.multiply(xb, k[..., :n], dxb)
                np.add(dxb, dyb, dxb)
                np.add(dxb, q[..., :n], dxb)
                np.multiply(dxb, a[..., :n], dxb)


class Planes(Layout):
    """(N, C, L) with long runs of L. A block is some samples, or a piece of each run of one sample."""

    def __init__(self, n: int, c: int, length: int, dtype: np.dtype[Any]) -> None:
        room = BLOCK // dtype.itemsize
        self.shape, self.dtype = (n, c, length), dtype
        pieces = max(-(-length // RUN), -(-c * length // (2 * room)))
        self.piece = -(-length // pieces)
        self.samples = min(n, max(1, room // (c * self.piece)))
        self.ones = np.ones(self.piece, dtype)
        self.partial = (-(-length // self.piece) * n, c)
        self.largest = self.samples * c * self.piece
        self.written_out = self.piece < LONG_RUN and n > 1 and c * length <= room
        self.lean = n * c * length >= LARGE and (self.written_out or self.piece >= LONG_RUN)

    def blocks(self, memory: Array) -> list[Array]:
        """(samples, C, piece of a run)."""
        n, _, length = self.shape
        array = memory.reshape(self.shape)
        return [
            array[i : i + self.samples, :, j : j + self.piece]
            for i in range(0, n, self.samples)
            for j in range(0, length, self.piece)
        ]

    def spread(self, values: Array) -> Array:
        """(C, 1); written out as (C, L) where that makes one long loop of many short ones."""
        values = values.astype(self.dtype)[:, None]
        return np.repeat(values, self.shape[2], 1) if self.written_out else values

    def add_up(self, a: Array, x: Array, partial: Array, at: int, scratch: Array) -> int:
        """A sum a run."""
        end = at + len(a)
        np.vecdot(a, self.ones[: a.shape[-1]], partial[0, at:end])
        np.vecdot(a, x, partial[1, at:end])
        return end

    def fold(self, partial: Array) -> Array:
        """Over the runs."""
        return np.add.reduce(partial, 1, np.float64)


class Rows(Layout):
    """(M, C, L) with short runs of L, or with channels last and L = 1: taken as fewer, wider rows of several times C L numbers.

    Wide rows keep NumPy's inner loops long; the coefficients are written out for a whole one. A last row may be shorter.
    """

    def __init__(self, m: int, c: int, length: int, dtype: np.dtype[Any]) -> None:
        self.period, self.dtype = (c, length), dtype
        self.copies = max(1, min(WIDTH // (c * length), m // 16))
        self.width = width = self.copies * c * length
        self.lean = m * c * length >= LARGE and width >= LONG_RUN
        self.height, self.rest = m // self.copies, m % self.copies * c * length
        # Few rows a block, since BLAS adds them up one after the other in the data's own dtype.
        self.rows = max(1, min(128, BLOCK // (width * dtype.itemsize), self.height))
        self.ones = np.ones(self.rows, dtype)
        self.partial = (-(-self.height // self.rows) + bool(self.rest), width)
        self.largest = self.rows * width

    def blocks(self, memory: Array) -> list[Array]:
        """(rows, width), and the rest as (1, less)."""
        end = self.height * self.width
        flat = memory.reshape(-1)
        wide = flat[:end].reshape(self.height, self.width)
        found = [wide[i : i + self.rows] for i in range(0, self.height, self.rows)]
        return [*found, flat[end:].reshape(1, -1)] if self.rest else found

    def spread(self, values: Array) -> Array:
        """(width,)."""
        if self.width == len(values):
            return values.astype(self.dtype)
        wide = np.empty((self.copies, *self.period), self.dtype)
        wide[...] = values[:, None]
        return wide.reshape(-1)

    def add_up(self, a: Array, x: Array, partial: Array, at: int, scratch: Array) -> int:
        """A sum a column."""
        ones, width = self.ones[: len(a)], a.shape[-1]
        # The product first: it reads straight through memory; the sum's several rows at a time then find them in the cache.
        # But if a is in `scratch` itself, it will be gone.
        if a is scratch:
            np.matmul(ones, a, partial[0, at, :width])
        np.multiply(a, x, scratch)
        if a is not scratch:
            np.matmul(ones, a, partial[0, at, :width])
        np.matmul(ones, scratch, partial[1, at, :width])
        if width < self.width:
            partial[:, at, width:] = 0
        return at + 1

    def fold(self, partial: Array) -> Array:
        """Over the blocks, and over a channel's columns."""
        return np.add.reduce(partial.reshape(2, -1, *self.period), (1, 3), np.float64)


@lru_cache(maxsize=256)
def layout_of(n: int, c: int, length: int, dtype: np.dtype[Any]) -> Layout:
    """The layout for contiguous (N, C, L); channels last is L = 1."""
    return (Planes if length >= PLANES else Rows)(n, c, length, dtype)
