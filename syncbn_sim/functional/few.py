"""The steps of `batch_norm` for a few thousand numbers, where the number of NumPy calls is what takes the time.

Everything is small enough for float64 throughout, so nothing needs watching; a sum over rows is a product with a row of ones.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..arrays import Array
from ..stats.moments import Moments
from ..workspace import Workspace
from .batch import Batch
from .batch_norm import BackwardSums

FEW = 8 * 1024  # numbers; above, `Many` is quicker


class Few(Batch):
    """A batch of a few numbers, as rows: (M, C) in float64, one for each position."""

    def __init__(self, x: Array, space: Workspace) -> None:
        super().__init__(x, None, space)
        self._x = _rows(x)
        self.ones = _ones(len(self._x))

    def local_moments(self) -> Moments:
        """Two passes: the mean, then the squares around it; the sum of float64 numbers, unlike that of others, may need correcting."""
        n = float(len(self._x))
        mean = self.ones.dot(self._x) / n
        deviation = self._x - mean
        if self.dtype.char == "d":
            slip = self.ones.dot(deviation) / n
            mean += slip
            deviation -= slip
        deviation *= deviation
        return Moments.about(mean, self.ones.dot(deviation), n)

    def normalise(self, mean: Array, var: Array, eps: float, weight: Array | None, bias: Array | None) -> Array:
        """Does what the readable one does; x_hat takes the place of x."""
        self.inv_std = 1.0 / np.sqrt(var.astype(np.float64, copy=False) + eps)
        x_hat = self._x
        x_hat -= mean
        x_hat *= self.inv_std
        y = x_hat if weight is None else x_hat * weight
        return self._restored(y if bias is None else y + bias)

    def local_backward_sums(self, dy: Array) -> BackwardSums:
        """Computes both sums as products with a row of ones."""
        self._dy = _rows(dy)
        return BackwardSums(self.ones.dot(self._dy), self.ones.dot(self._dy * self._x))

    def input_gradient(self, weight: Array | None, sums: BackwardSums, n: float) -> Array:
        """Computes dx = weight inv_std (dy - (sum(dy) + x_hat sum(dy x_hat)) / n)."""
        dx = self._x * (sums.dy_x_hat / -n)
        dx += sums.dy / -n
        dx += self._dy
        dx *= self.inv_std if weight is None else weight * self.inv_std
        return self._restored(dx)

    def frozen_input_gradient(self, weight: Array | None) -> Array:
        """Computes dx = weight inv_std dy."""
        return self._restored(self._dy * (self.inv_std if weight is None else weight * self.inv_std))

    def _restored(self, rows: Array) -> Array:
        return _as_second(rows, self.shape).astype(self.dtype, order="C")


def _rows(x: Array) -> Array:
    """Copies (N, C, ...) into (M, C)."""
    if x.ndim == 2:
        return x.astype(np.float64, order="C")
    return x.transpose(0, *range(2, x.ndim), 1).astype(np.float64, order="C").reshape(-1, x.shape[1])


def _as_second(rows: Array, shape: tuple[int, ...]) -> Array:
    """Shows (M, C) as (N, C, ...) of this shape: a view with channels on axis 1."""
    if len(shape) == 2:
        return rows
    n, c, *rest = shape
    return rows.reshape(n, *rest, c).transpose(0, len(shape) - 1, *range(1, len(shape) - 1))


@lru_cache(maxsize=256)
def _ones(count: int) -> Array:
    return np.ones(count)
