"""How an array lies in memory, and the passes over it that suit: sums over the batch, and coefficients applied to it.

`Planes`: a channel's numbers come in long runs. `Rows`: the channel changes with every number, or every few. Both walk in
blocks of about 512 KiB, so that what one pass has touched is still in the second-level cache when the next one comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ..arrays import Array
from ..workspace import Workspace

BLOCK = 512 * 1024  # bytes
RUN = 4096  # longest run of numbers that is summed in the data's own dtype
LONG_RUN, LARGE = 400, 16 * 1024  # numbers in a row, and in all, from which on `lean` pays
PLANES = 32  # numbers of one channel in a row from which on Planes are quicker than Rows
WIDTH = 4096  # numbers that Rows take as one row to apply coefficients
NARROW = 256  # numbers that Rows take as one row to sum
GROUP = 128  # at most so many rows are added up one after the other, in the data's own dtype


class Layout:
    """The passes over arrays of one shape, order and dtype. It has no scratch of its own, so ranks may share it."""

    dtype: np.dtype[Any]

    def sums(self, a: Array | None, x: Array, shift: Array | None, space: Workspace) -> Array:
        """Computes sum(a) and sum(a (x - shift)) of each channel, (2, C) float64. If `a` is None, x - shift stands for it too."""
        raise NotImplementedError

    def affine(self, x: Array, shift: Array | None, a: Array, b: Array | None, y: Array, space: Workspace) -> None:
        """Computes y = a (x - shift) + b."""
        raise NotImplementedError

    def gradient(
        self, dy: Array, x: Array, shift: Array | None, a: Array, k: Array, q: Array, dx: Array, space: Workspace
    ) -> None:
        """Computes dx = a (dy + k (x - shift) + q)."""
        raise NotImplementedError


def affine_pass(x: Array, s: Array | None, a: Array, b: Array | None, y: Array) -> None:
    """Computes y = a (x - s) + b, of arrays that broadcast."""
    if s is not None:
        x = np.subtract(x, s, y)
    np.multiply(x, a, y)
    if b is not None:
        np.add(y, b, y)


def gradient_pass(dy: Array, x: Array, s: Array | None, a: Array, k: Array, q: Array, dx: Array) -> None:
    """Computes dx = a (dy + k (x - s) + q), of arrays that broadcast."""
    if s is not None:
        x = np.subtract(x, s, dx)
    np.multiply(x, k, dx)
    np.add(dx, dy, dx)
    np.add(dx, q, dx)
    np.multiply(dx, a, dx)


class Blocks(Layout):
    """The passes block by block. A subclass says how to cut an array, and what a block's sums and coefficients look like.

    NumPy copies a broadcast operand into a buffer of 8192 numbers first, although nothing needs converting. With a tiny buffer
    its loops take it from where it lies: twice as fast if they are long, slower if they are short. The size of the buffer
    belongs to this thread or task, and leaving `np.errstate` restores it.
    """

    lean: bool  # whether to shrink NumPy's buffer
    largest: int  # numbers in the largest block
    partial: tuple[int, ...]  # shape of the partial sums of one quantity

    def blocks(self, memory: Array) -> list[Array]:
        """Views of an array, one per block: what coefficients are applied to."""
        raise NotImplementedError

    def summed_blocks(self, memory: Array) -> list[Array]:
        """Views of an array, one per block: what is summed."""
        return self.blocks(memory)

    def spread(self, values: list[Array], space: Workspace) -> Iterable[Array]:
        """Each (C,) as an array of the data's dtype that broadcasts against a block, or `[..., :width]` of it against a narrow one."""
        raise NotImplementedError

    def spread_given(self, space: Workspace, *values: Array | None) -> list[Any]:
        """Spreads what is given, and returns None where None came."""
        given = [each for each in values if each is not None]
        spread = iter(self.spread(given, space) if given else ())
        return [None if each is None else next(spread) for each in values]

    def add_up(self, a: Array, x: Array, partial: Array, at: int, scratch: Array) -> int:
        """Writes the partial sums of a and a x into `partial[:, at:]`; returns where the next block's go. a or x may be `scratch`."""
        raise NotImplementedError

    def fold(self, partial: Array) -> Array:
        """Partial sums as sums, (2, C) float64."""
        raise NotImplementedError

    def sums(self, a: Array | None, x: Array, shift: Array | None, space: Workspace) -> Array:
        """See `Layout`."""
        partial = space.take((2, *self.partial), self.dtype)
        scratch = space.take((self.largest,), self.dtype)
        at = 0
        with np.errstate(over="ignore", invalid="ignore"):
            if self.lean:
                np.setbufsize(16)
            (s,) = self.spread_given(space, shift)
            xs = self.summed_blocks(x)
            for ab, xb in zip(xs if a is None else self.summed_blocks(a), xs, strict=True):
                free = scratch[: xb.size].reshape(xb.shape)
                if s is not None:
                    xb = np.subtract(xb, s[..., : xb.shape[-1]], free)
                at = self.add_up(xb if a is None else ab, xb, partial, at, free)
        with np.errstate(invalid="ignore"):  # with NumPy's own buffer, since it converts
            return self.fold(partial)

    def affine(self, x: Array, shift: Array | None, a: Array, b: Array | None, y: Array, space: Workspace) -> None:
        """See `Layout`."""
        with np.errstate(over="ignore", invalid="ignore"):
            coefficients = self.spread_given(space, shift, a, b)
            if self.lean:
                np.setbufsize(16)
            for xb, yb in zip(reversed(self.blocks(x)), reversed(self.blocks(y)), strict=True):
                s, each_a, each_b = fitting(coefficients, xb)
                affine_pass(xb, s, each_a, each_b, yb)

    def gradient(
        self, dy: Array, x: Array, shift: Array | None, a: Array, k: Array, q: Array, dx: Array, space: Workspace
    ) -> None:
        """See `Layout`."""
        with np.errstate(over="ignore", invalid="ignore"):
            coefficients = self.spread_given(space, shift, a, k, q)
            if self.lean:
                np.setbufsize(16)
            blocks = zip(*(reversed(self.blocks(each)) for each in (dy, x, dx)), strict=True)
            for dyb, xb, dxb in blocks:
                s, each_a, each_k, each_q = fitting(coefficients, xb)
                gradient_pass(dyb, xb, s, each_a, each_k, each_q, dxb)


class Planes(Blocks):
    """Arrays (N, C, L) with long runs of L. A block is some samples, or a piece of each run of one sample."""

    def __init__(self, n: int, c: int, length: int, dtype: np.dtype[Any]) -> None:
        room = BLOCK // dtype.itemsize
        self.shape, self.dtype = (n, c, length), dtype
        parts = max(-(-length // RUN), -(-c * length // (2 * room)))
        self.piece = -(-length // parts)
        self.samples = min(n, max(1, room // (c * self.piece)))
        self.cuts = equal_shapes((samples, c, length) for samples in pieces(n, self.samples))
        self.ones = np.ones(self.piece, dtype)
        self.partial = (-(-length // self.piece) * n, c)
        self.largest = self.samples * c * self.piece
        self.written_out = self.piece < LONG_RUN and n > 1 and c * length <= room
        self.lean = n * c * length >= LARGE and (self.written_out or self.piece >= LONG_RUN)

    def blocks(self, memory: Array) -> list[Array]:
        """Blocks (samples, C, piece of a run)."""
        _, _, length = self.shape
        whole = cut(memory, self.cuts)
        return (
            [b[:, :, j : j + self.piece] for b in whole for j in range(0, length, self.piece)]
            if self.piece < length
            else whole
        )

    def spread(self, values: list[Array], space: Workspace) -> Iterable[Array]:
        """Each as (C, 1); written out as (C, L) where that makes one long loop of many short ones."""
        columns = [each.astype(self.dtype)[:, None] for each in values]
        if not self.written_out:
            return columns
        wide = space.take((len(values), *self.shape[1:]), self.dtype)
        for plane, column in zip(wide, columns, strict=True):
            plane[...] = column
        return wide

    def add_up(self, a: Array, x: Array, partial: Array, at: int, scratch: Array) -> int:
        """A sum per run."""
        end = at + len(a)
        np.vecdot(a, self.ones[: a.shape[-1]], partial[0, at:end])
        np.vecdot(a, x, partial[1, at:end])
        return end

    def fold(self, partial: Array) -> Array:
        """Over the runs."""
        return np.add.reduce(partial, 1, np.float64)


class Rows(Blocks):
    """Arrays (M, C, L) with short runs of L, or with channels last and L = 1: rows of C L numbers, several of them taken as one wide row.

    Rows to which coefficients are applied are wide, to keep NumPy's inner loops long, and the coefficients are written out for a
    whole one. Rows that are summed are narrow: the fewer partial sums, the fewer are left to add up in float64. At the end of the
    array there may be a block of fewer rows, and a row that is shorter.
    """

    def __init__(self, m: int, c: int, length: int, dtype: np.dtype[Any]) -> None:
        self.period, self.dtype = (c, length), dtype
        self.copies = max(1, min(WIDTH // (c * length), m // 16))
        self.width = self.copies * c * length
        self.lean = m * c * length >= LARGE and self.width >= LONG_RUN
        size, room = m * c * length, BLOCK // dtype.itemsize
        height, less = divmod(size, self.width)
        applied = [(rows, self.width) for rows in pieces(height, room // self.width)] + [(1, less)] * (less > 0)
        narrow = c * length * max(1, min(NARROW // (c * length), self.copies))
        height, less = divmod(size, narrow)
        group = max(16, min(GROUP, room // narrow))
        groups, left = divmod(height, group)
        summed = [(each, group, narrow) for each in pieces(groups, room // (group * narrow))]
        summed += [(1, left, narrow)] * (left > 0) + [(1, 1, less)] * (less > 0)
        self.applied, self.summed = equal_shapes(applied), equal_shapes(summed)
        self.ones = np.ones(group, dtype)
        self.partial = (sum(shape[0] for shape in summed), narrow)
        self.largest = max(map(math.prod, summed))

    def blocks(self, memory: Array) -> list[Array]:
        """Blocks (rows, width), and the rest as (1, less)."""
        return cut(memory, self.applied)

    def summed_blocks(self, memory: Array) -> list[Array]:
        """Blocks (groups, group, narrow), (1, fewer, narrow) and (1, 1, less)."""
        return cut(memory, self.summed)

    def spread(self, values: list[Array], space: Workspace) -> Iterable[Array]:
        """Each written out as (width,)."""
        wide = space.take((len(values), self.copies, *self.period), self.dtype)
        for row, each in zip(wide, values, strict=True):
            # Cast before it is spread: once per channel.
            row[...] = each.astype(self.dtype)[:, None]
        return wide.reshape(len(values), -1)

    def add_up(self, a: Array, x: Array, partial: Array, at: int, scratch: Array) -> int:
        """A sum per column and group."""
        groups, rows, width = a.shape
        ones, end = self.ones[:rows], at + groups
        # The product first: it reads straight through memory; the sum's several rows at a time then find them in the cache.
        # But if a is in `scratch` itself, it will be gone.
        if a is scratch:
            np.matmul(ones, a, partial[0, at:end, :width])
        np.multiply(a, x, scratch)
        if a is not scratch:
            np.matmul(ones, a, partial[0, at:end, :width])
        np.matmul(ones, scratch, partial[1, at:end, :width])
        partial[:, at:end, width:] = 0
        return end

    def fold(self, partial: Array) -> Array:
        """Over the groups, and over a channel's columns."""
        return np.add.reduce(partial.reshape(2, -1, *self.period), (1, 3), np.float64)


def fitting(coefficients: list[Any], block: Array) -> list[Any]:
    """Coefficients cut to the width of a block: the last one may be narrower."""
    return [None if each is None else each[..., : block.shape[-1]] for each in coefficients]


def pieces(whole: int, largest: int) -> list[int]:
    """Cuts `whole` into pieces of at most this size, or of 1."""
    step = max(1, largest)
    return [min(step, whole - i) for i in range(0, whole, step)]


def equal_shapes(shapes: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Shapes as (how many of the same, *shape), in their order."""
    return [(len(list(same)), *shape) for shape, same in groupby(shapes)]


def cut(memory: Array, cuts: Sequence[tuple[int, ...]]) -> list[Array]:
    """Views of contiguous memory, one after the other, in these shapes."""
    if len(cuts) == 1:
        return list(memory.reshape(cuts[0]))  # by its first axis
    flat, start, views = memory.reshape(-1), 0, []
    for shape in cuts:
        end = start + math.prod(shape)
        views += list(flat[start:end].reshape(shape))
        start = end
    return views
