"""The steps of `batch_norm`, fast: the same equations, arranged for the memory of the machine. Layers use these.

Read `batch_norm` first. Here, for float32 and float64 without position weights (anything else takes the readable way):

- Sums over the batch are dot products with a vector of ones: BLAS keeps several partial sums in registers, `np.sum` does not.
  Partial sums are short (a few thousand terms) in x's dtype and are added up in float64, so no digits are lost.
- x_hat is never formed. y = a x + b and dx = A (dy + K x + Q), with a, b, A, K, Q one number a channel.
- Work goes block by block, a block being what a core's cache can hold. The passes that apply the coefficients start with the
  last block, which the sums have just left in the cache.
- Where a channel's mean is large against its spread, x - shift stands for x in all of this, the shift being the mean as x's dtype
  has it: the difference is exact, or nearly so, and the digits that x^2 and dy x would lose are never at stake.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..arrays import Array
from ..stats.moments import Moments
from ..workspace import Workspace
from . import batch_norm as readable
from . import few
from .batch_norm import BackwardSums
from .layouts import Layout, layout_of

READABLE, FEW, FAST = "readable", "few", "fast"
FAR = 4.0  # shift where mean^2 > FAR variance; below, x^2 costs no more than a factor 1 + FAR of precision


class Normalised(NamedTuple):
    """What normalising leaves for the backward pass.

    Attributes:
        x: the input as it lies in memory, contiguous; of few numbers x_hat as rows, on the readable way x_hat.
        mean, inv_std: (C,) float64, with which it was normalised.
        shift: (C,) in x's dtype, or None where x may be used as it is.
        weights: of positions, None on the fast way.
        shape: of the input, channels on axis 1.
        dtype: of the input.
        way: which functions did it.
        layout: how x lies; on the fast way only.
        last: whether x is kept with its channels last.
    """

    x: Array
    mean: Array
    inv_std: Array
    shift: Array | None
    weights: Array | None
    shape: tuple[int, ...]
    dtype: np.dtype[np.floating]
    way: str
    layout: Layout | None
    last: bool

    def x_hat(self) -> Array:
        """(x - mean) inv_std in float64, 0 at masked positions; channels on axis 1."""
        if self.way == READABLE:
            return self.x
        if self.way == FEW:
            return few.restored(self.x, self.shape)
        x = _restored(self.x, self.last).astype(np.float64)
        return (x - readable.per_channel(self.mean, x)) * readable.per_channel(self.inv_std, x)

    @property
    def offset(self) -> Array:
        """What is left of the mean when x has been shifted."""
        return self.mean if self.shift is None else self.mean - self.shift


def local_moments(x: Array, weights: Array | None, space: Workspace) -> Moments:
    """As the readable one. A batch whose mean is far from 0 is measured again, around that mean."""
    way = _way(x, weights)
    if way == FEW:
        return few.local_moments(few.rows(x))
    if way == READABLE:
        return readable.local_moments(x, weights)
    memory, last = _memory(x)
    layout, count = _layout(memory, last), x.size // x.shape[1]
    total, total_sq = layout.sums(memory, memory, None, space)
    mean = total / count
    mean_sq = total * mean  # n mean^2
    deviation_sq = total_sq - mean_sq
    if np.count_nonzero(mean_sq > FAR * deviation_sq):
        shift = mean.astype(x.dtype)
        rest, rest_sq = layout.sums(memory, memory, shift, space)
        deviation_sq = rest_sq - rest * rest / count
        mean = shift + rest / count
        total = count * mean
        total_sq = deviation_sq + total * mean
    if not math.isfinite(deviation_sq.dot(deviation_sq)):  # perhaps only float32 has no room for the squares
        return readable.local_moments(x)
    return Moments(float(count), total, total_sq, deviation_sq)


def normalise(
    x: Array,
    mean: Array,
    var: Array,
    eps: float,
    weight: Array | None,
    bias: Array | None,
    weights: Array | None,
    space: Workspace,
) -> tuple[Array, Normalised]:
    """y = weight (x - mean) / sqrt(var + eps) + bias = a (x - shift) + b, and what the backward pass needs."""
    way = _way(x, weights)
    if way == READABLE:
        x_hat, inv_std = readable.standardize(x, mean, var, eps, weights)
        y = readable.scale_and_shift(x_hat, weight, bias, weights).astype(x.dtype)
        return y, Normalised(x_hat, mean, inv_std, None, weights, x.shape, x.dtype, way, None, False)
    mean = mean.astype(np.float64, copy=False)
    inv_std = 1.0 / np.sqrt(var.astype(np.float64, copy=False) + eps)
    if way == FEW:
        y, x_hat = few.normalise(few.rows(x), mean, inv_std, weight, bias)
        y = few.restored(y, x.shape).astype(x.dtype, order="C")
        return y, Normalised(x_hat, mean, inv_std, None, None, x.shape, x.dtype, way, None, False)
    memory, last = _memory(x)
    layout, z = _layout(memory, last), mean * inv_std
    # The mean that counts here may be that of other ranks, or of earlier batches.
    shift = mean.astype(x.dtype) if np.count_nonzero(z * z > FAR) else None
    normalised = Normalised(memory, mean, inv_std, shift, None, x.shape, x.dtype, way, layout, last)
    a = inv_std if weight is None else weight * inv_std
    b = (0.0 if bias is None else bias) - a * normalised.offset
    y = space.take(memory.shape, x.dtype)
    layout.affine(memory, shift, a, b, y, space)
    return _restored(y, last), normalised


def local_backward_sums(dy: Array, normalised: Normalised, space: Workspace) -> BackwardSums:
    """As the readable one: sum(dy x_hat) = inv_std (sum(dy (x - shift)) - (mean - shift) sum(dy))."""
    x, layout = normalised.x, normalised.layout
    if normalised.way == FEW:
        return few.local_backward_sums(few.rows(dy), x)
    if layout is None:
        return readable.local_backward_sums(dy, x)
    total, products = layout.sums(_memory_like(dy, normalised), x, normalised.shift, space)
    return BackwardSums(total, normalised.inv_std * (products - normalised.offset * total))


def input_gradient(
    dy: Array, normalised: Normalised, weight: Array | None, sums: BackwardSums, count: float, space: Workspace
) -> Array:
    """As the readable one: dx = a (dy + k (x - shift) + q)."""
    x, inv_std, layout = normalised.x, normalised.inv_std, normalised.layout
    if normalised.way == FEW:
        dx = few.input_gradient(few.rows(dy), x, inv_std, weight, sums, count)
        return few.restored(dx, dy.shape).astype(normalised.dtype, order="C")
    if layout is None:
        dy = dy.astype(np.float64)
        return readable.input_gradient(dy, x, inv_std, weight, sums, count, normalised.weights).astype(normalised.dtype)
    k = inv_std * sums.dy_x_hat / -count
    q = sums.dy / -count - k * normalised.offset
    dx = space.take(x.shape, normalised.dtype)
    a = inv_std if weight is None else weight * inv_std
    layout.gradient(_memory_like(dy, normalised), x, normalised.shift, a, k, q, dx, space)
    return _restored(dx, normalised.last)


def frozen_input_gradient(dy: Array, normalised: Normalised, weight: Array | None, space: Workspace) -> Array:
    """As the readable one: dx = a dy."""
    inv_std, layout = normalised.inv_std, normalised.layout
    if layout is None:
        return readable.frozen_input_gradient(dy, inv_std, weight).astype(normalised.dtype)
    dx = space.take(normalised.x.shape, normalised.dtype)
    a = inv_std if weight is None else weight * inv_std
    layout.affine(_memory_like(dy, normalised), None, a, None, dx, space)
    return _restored(dx, normalised.last)


def _way(x: Array, weights: Array | None) -> str:
    if weights is not None or x.dtype.char not in "fd" or x.size == 0:
        return READABLE
    return FEW if x.size <= few.FEW else FAST


def _memory(x: Array) -> tuple[Array, bool]:
    """`x` as it lies in memory, and whether its channels, on axis 1 of x, lie last. Copied if it is not contiguous either way."""
    if x.flags.c_contiguous:
        return x, False
    turned = np.moveaxis(x, 1, -1)
    return (turned, True) if turned.flags.c_contiguous else (np.ascontiguousarray(x), False)


def _memory_like(dy: Array, normalised: Normalised) -> Array:
    """`dy` in the order and dtype of the input."""
    turned = np.moveaxis(dy, 1, -1) if normalised.last else dy
    return np.ascontiguousarray(turned, normalised.dtype)


def _restored(memory: Array, last: bool) -> Array:
    """Channels back on axis 1."""
    return np.moveaxis(memory, -1, 1) if last else memory


def _layout(memory: Array, last: bool) -> Layout:
    shape = memory.shape
    if last:
        return layout_of(memory.size // shape[-1], shape[-1], 1, memory.dtype)
    return layout_of(shape[0], shape[1], math.prod(shape[2:]), memory.dtype)
