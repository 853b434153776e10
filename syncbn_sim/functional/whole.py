"""The passes over an array of a block's size or less: all of it at once, coefficients broadcast as they are.

Here a pass takes microseconds, so what counts is how little stands between two of them. Larger arrays are for `layouts`, and so are
short runs of a channel and very long ones, and rows that are many or do not fall into equal groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..workspace import Workspace
from .layouts import GROUP, PLANES, RUN, Layout, affine_pass, gradient_pass

LARGEST = 64 * 1024  # numbers; above, blocks pay
TALLEST = 2048  # rows; above, NumPy's inner loops, a row each, are too many
FEWEST = 16  # rows in a group; below, there are too many partial sums


class Whole(Layout):
    """Arrays (N, C, L) with long runs of L, or with L = 1 as (groups, rows, C)."""

    def __init__(self, n: int, c: int, length: int, dtype: np.dtype[Any]) -> None:
        self.dtype, self.rows = dtype, length == 1
        group = _group(n)
        self.shape = (n // group, group, c) if self.rows else (n, c, length)
        self.column = (c,) if self.rows else (c, 1)
        self.partial = (2, self.shape[0], c)
        self.ones = np.ones(self.shape[1 if self.rows else 2], dtype)

    @staticmethod
    def suits(n: int, c: int, length: int) -> bool:
        """Whether arrays of this shape are small and even enough."""
        even = PLANES <= length <= RUN or (length == 1 and n <= TALLEST and _group(n) >= min(n, FEWEST))
        return even and n * c * length <= LARGEST

    def sums(self, a: Array | None, x: Array, shift: Array | None, space: Workspace) -> Array:
        """See `Layout`."""
        x = x.reshape(self.shape)
        partial, scratch = space.take(self.partial, self.dtype), space.take(self.shape, self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            if shift is not None:
                x = np.subtract(x, self.spread(shift), scratch)
            self.add_up(x if a is None else a.reshape(self.shape), x, partial, scratch)
            return np.add.reduce(partial, 1, np.float64)

    def add_up(self, a: Array, x: Array, partial: Array, scratch: Array) -> None:
        """Partial sums of a and a x: of a run each, or of a group of rows each."""
        if self.rows:
            np.matmul(self.ones, a, partial[0])
            np.matmul(self.ones, np.multiply(a, x, scratch), partial[1])
        else:
            np.vecdot(a, self.ones, partial[0])
            np.vecdot(a, x, partial[1])

    def affine(self, x: Array, shift: Array | None, a: Array, b: Array | None, y: Array, space: Workspace) -> None:
        """See `Layout`."""
        x, y = x.reshape(self.shape), y.reshape(self.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            affine_pass(x, self.spread(shift), self.spread(a), self.spread(b), y)

    def gradient(
        self, dy: Array, x: Array, shift: Array | None, a: Array, k: Array, q: Array, dx: Array, space: Workspace
    ) -> None:
        """See `Layout`."""
        dy, x, dx = (each.reshape(self.shape) for each in (dy, x, dx))
        with np.errstate(over="ignore", invalid="ignore"):
            s, a, k, q = (self.spread(each) for each in (shift, a, k, q))
            gradient_pass(dy, x, s, a, k, q, dx)

    def spread(self, values: Array | None) -> Any:
        """Turns (C,) into an array of the data's dtype that broadcasts; None as it is."""
        return None if values is None else values.astype(self.dtype).reshape(self.column)


def _group(rows: int) -> int:
    """The largest number, up to GROUP, into which `rows` falls evenly."""
    return next(size for size in range(min(rows, GROUP), 0, -1) if rows % size == 0)
