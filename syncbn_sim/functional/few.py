"""The steps of `batch_norm` for a few thousand numbers, where the number of NumPy calls is what takes the time.

Everything is small enough for float64 throughout, so nothing needs watching; a sum over rows is a product with a row of ones.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..arrays import Array
from ..stats.moments import Moments
from .batch_norm import BackwardSums

FEW = 8 * 1024  # numbers; above, `kernels` is quicker


def rows(x: Array) -> Array:
    """(N, C, ...) as (M, C) in float64, a row for each position. A copy."""
    if x.ndim == 2:
        return x.astype(np.float64, order="C")
    return x.transpose(0, *range(2, x.ndim), 1).astype(np.float64, order="C").reshape(-1, x.shape[1])


def restored(rows: Array, shape: tuple[int, ...]) -> Array:
    """(M, C) as (N, C, ...) of this shape: a view with channels on axis 1."""
    if len(shape) == 2:
        return rows
    n, c, *rest = shape
    return rows.reshape(n, *rest, c).transpose(0, len(shape) - 1, *range(1, len(shape) - 1))


def local_moments(x: Array) -> Moments:
    """Two passes: the mean, then the squares around it."""
    count = len(x)
    total = _ones(count).dot(x)
    mean = total / count
    deviation = x - mean
    deviation_sq = _ones(count).dot(deviation * deviation)
    return Moments(float(count), total, deviation_sq + total * mean, deviation_sq)


def normalise(x: Array, mean: Array, inv_std: Array, weight: Array | None, bias: Array | None) -> tuple[Array, Array]:
    """Returns y and x_hat; the latter takes x's place."""
    x -= mean
    x *= inv_std
    y = x if weight is None else x * weight
    return y if bias is None else y + bias, x


def local_backward_sums(dy: Array, x_hat: Array) -> BackwardSums:
    """sum(dy) and sum(dy x_hat)."""
    ones = _ones(len(dy))
    return BackwardSums(ones.dot(dy), ones.dot(dy * x_hat))


def input_gradient(
    dy: Array, x_hat: Array, inv_std: Array, weight: Array | None, sums: BackwardSums, count: float
) -> Array:
    """Dx = weight inv_std (dy - (sum(dy) + x_hat sum(dy x_hat)) / n)."""
    dx = x_hat * (sums.dy_x_hat / -count)
    dx += sums.dy / -count
    dx += dy
    dx *= inv_std if weight is None else weight * inv_std
    return dx


@lru_cache(maxsize=256)
def _ones(count: int) -> Array:
    return np.ones(count)
