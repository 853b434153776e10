"""An array as a box of rows, channels and positions, cut into cells: every norm is a choice of cells::

                          stretches of rows     groups of channels
    BatchNorm             one: all rows         one channel each
    GhostBatchNorm        several rows each     one channel each
    InstanceNorm          one row each          one channel each
    GroupNorm             one row each          several channels each
    LayerNorm, RMSNorm    one row each          one: all channels (of a sequence: of each position)

The steps on cells are `functional.steps`, and compiled `kernels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ..arrays import Array, position_weights
from ..errors import ShapeError

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
PART = 1 << 17  # numbers; three arrays of that size, x, dy and dx, find room in a cache of 2 MiB
RUNS, GROUPS, COLUMNS = "runs", "groups", "columns"


@dataclass(frozen=True, eq=False)
class Box:
    """How arrays of one shape lie in memory, and where their cells are.

    Attributes:
        shape: of the arrays.
        axis: of their channels.
        last: whether channels change fastest in memory; then each position is a row of the box.
        view: how the steps see them: (N, C, L) for `RUNS` of L positions side by side; without such, (N, groups, C / groups) for `GROUPS`
            of several channels, and (N, 1, C) where each of the `COLUMNS` is by itself.
        walk: which of these.
        channels: C.
        length: L, positions side by side.
        offsets: (stretches + 1,) int64: where each stretch of rows of the box begins, and the last one ends.
        cells: (stretches, groups), the shape of statistics.
        straight: whether the order of axes in memory is that of the array.
    """

    shape: tuple[int, ...]
    axis: int
    last: bool
    view: tuple[int, int, int]
    walk: str
    channels: int
    length: int
    offsets: Array
    cells: tuple[int, int]
    straight: bool

    def cut(self, offsets: Array) -> Box:
        """The same with stretches that begin at these rows of the array; the last number is where they end.

        Raises:
            ShapeError: they do not rise from 0 to the number of rows.
        """
        rows = self.shape[0]
        if offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
            raise ShapeError(
                "offsets",
                got=f"{np.array2string(offsets, threshold=8)} of an array of {rows} rows",
                expected=f"numbers that begin with 0, do not fall, and end with {rows}",
                do="They are where each stretch of rows begins, and where the last one ends.",
            )
        cells = (len(offsets) - 1, self.cells[1])
        return replace(self, offsets=np.multiply(offsets, self.view[0] // max(rows, 1), dtype=np.int64), cells=cells)

    def by_row(self) -> Box:
        """The same with a stretch for each row of the array."""
        return _by_row(self.shape, self.axis, self.last, self.cells[1])

    def by_position(self) -> Box:
        """The same with a stretch for each position of an array whose channels are last."""
        return _by_position(self.shape, self.axis, self.last, self.cells[1])

    @cached_property
    def parts(self) -> list[tuple[slice, slice, Box]]:
        """Of a box by row or by position: stretches, rows of `view`, and their own box, such that a part stays in the processor's cache."""
        stretches, (rows, *rest) = self.cells[0], self.view
        each, many = rows // max(stretches, 1), max(1, PART * stretches // max(math.prod(self.view), 1))
        found = []
        for start in range(0, max(stretches, 1), many):
            end = min(start + many, stretches)
            view, cells = ((end - start) * each, rest[0], rest[1]), (end - start, self.cells[1])
            box = replace(self, view=view, offsets=self.offsets[: end - start + 1], cells=cells)
            found.append((slice(start, end), slice(start * each, end * each), box))
        return found

    def flat(self, x: Array, dtype: np.dtype[Any] | None = None) -> Array:
        """An array of the box's shape as the steps see it, of this dtype or else float32 or float64; a copy if it lies otherwise.

        Steps are compiled for plain arrays: one that is read-only, not aligned, or of another machine's byte order is copied too.
        """
        kind = dtype or (SINGLE if x.dtype.itemsize <= 4 else DOUBLE)
        if self.straight and x.dtype is kind and x.flags.carray:
            return x.reshape(self.view)
        return np.require(np.moveaxis(x, self.axis, -1 if self.last else 1), kind, ["C", "A", "W"]).reshape(self.view)

    def restored(self, flat: Array) -> Array:
        """The way back: a view with the box's shape."""
        if self.straight:
            return flat.reshape(self.shape)
        axis = self.axis
        if self.last:
            return np.moveaxis(flat.reshape(*self.shape[:axis], *self.shape[axis + 1 :], self.channels), -1, axis)
        rest = (*self.shape[1:axis], *self.shape[axis + 1 :])
        return np.moveaxis(flat.reshape(self.shape[0], self.channels, *rest), 1, axis)

    def counts(self, weights: object) -> Array:
        """Frequency weights, one per position or one per row of the array, as (N, L)."""
        positions = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return np.array(position_weights(weights, positions)).reshape(self.view[0], self.length)


def box_of(x: Array, axis: int, groups: int) -> Box:
    """The box of an array with channels on `axis`, all rows one stretch, its channels in so many groups."""
    axis %= x.ndim
    last = x.ndim > 2 and (
        axis == x.ndim - 1 or (not x.flags.c_contiguous and np.moveaxis(x, axis, -1).flags.c_contiguous)
    )
    return _whole(x.shape, axis, last, groups)


@lru_cache(maxsize=256)
def ones(count: int) -> Array:
    """The weight of a norm without one; nobody writes into it."""
    return np.ones(count)


@lru_cache(maxsize=256)
def _whole(shape: tuple[int, ...], axis: int, last: bool, groups: int) -> Box:
    channels = shape[axis]
    positions = math.prod(shape[1:]) // max(channels, 1)
    rows, length = (shape[0] * positions, 1) if last else (shape[0], positions)
    width = channels // groups
    view, walk = (rows, channels, length), RUNS
    if length == 1:
        view, walk = ((rows, groups, width), GROUPS) if width > 1 else ((rows, 1, channels), COLUMNS)
    straight = axis == (len(shape) - 1 if last else 1)
    return Box(shape, axis, last, view, walk, channels, length, np.array([0, rows]), (1, groups), straight)


@lru_cache(maxsize=256)
def _by_row(shape: tuple[int, ...], axis: int, last: bool, groups: int) -> Box:
    return _whole(shape, axis, last, groups).cut(np.arange(shape[0] + 1))


@lru_cache(maxsize=256)
def _by_position(shape: tuple[int, ...], axis: int, last: bool, groups: int) -> Box:
    box = _whole(shape, axis, last, groups)
    return replace(box, offsets=np.arange(box.view[0] + 1), cells=(box.view[0], groups))
