"""The steps of `batch_norm`, fast: the same equations, arranged for the memory of the machine. Layers use these.

Read `batch_norm` first. Here, for float32 and float64 without frequency weights (anything else takes the readable way):

- Sums over the batch are dot products with a vector of ones: BLAS keeps several partial sums in registers, `np.sum` does not.
  Partial sums are short (a few thousand terms) in x's dtype and are added up in float64, so no digits are lost.
- x_hat is never formed. y = a x + b and dx = A (dy + K x + Q), with a, b, A, K, Q one number per channel.
- Work goes block by block, a block being what a core's cache can hold (`layouts`; an array that is no larger goes as a whole, see
  `whole`). The passes that apply the coefficients start with the last block, which the sums have just left in the cache.
- Where a channel's mean is large against its spread, x - shift stands for x in all of this, the shift being the mean as x's dtype
  has it: the difference is exact, or nearly so, and the digits that x^2 and dy x would lose are never at stake.
- Where float32 has no room for squares or products (x or dy of 1e19, or of 1e-22), the batch goes on in the readable way.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..arrays import Array
from ..stats.moments import Moments
from ..workspace import Workspace
from . import batch_norm as readable
from .batch import Batch
from .batch_norm import BackwardSums
from .few import FEW, Few
from .layouts import PLANES, Layout, Planes, Rows
from .whole import Whole

# Shift where mean^2 > FAR variance; below, x^2 costs no more than a factor 1 + FAR of precision.
FAR = 4.0
# Factor between x - mean and x_hat, either way, up to which float32 has digits to spare.
ROOM = 1e10

# Least square with all its digits.
LEAST = {kind: float(np.finfo(kind).tiny / np.finfo(kind).eps) for kind in "fd"}


def batch_of(x: Array, counts: Array | None, space: Workspace) -> Batch:
    """A batch that takes its steps in the quickest way that is right for it."""
    if counts is not None or x.dtype.char not in "fd" or x.size == 0:
        return Batch(x, counts, space)
    return Few(x, space) if x.size <= FEW else Many(x, space)


class Many(Batch):
    """A batch of many numbers, as they lie in memory.

    Attributes:
        shift: (C,) in x's dtype, or None where x may be used as it is.
        offset: (C,) float64, what is left of the mean when x has been shifted.
        last: whether x has its channels last in memory.
        layout: how it lies.
    """

    shift: Array | None
    offset: Array

    def __init__(self, x: Array, space: Workspace) -> None:
        super().__init__(x, None, space)
        self._x, self.last = _memory(x)
        c = x.shape[1]
        n, length = (x.size // c, 1) if self.last else (len(x), x.size // (len(x) * c))
        self.layout = layout_of(n, c, length, x.dtype)
        self.n = float(n * length)

    def local_moments(self) -> Moments:
        """A batch whose mean is far from 0 is measured again, around that mean."""
        x, n, sums = self._x, self.n, self.layout.sums
        total, total_sq = sums(None, x, None, self.space)
        mean = total / n
        mean_sq = total * mean  # n mean^2
        deviation_sq = total_sq - mean_sq
        moments = Moments(n, total, total_sq, deviation_sq, mean)
        if np.count_nonzero(mean_sq > FAR * deviation_sq):
            shift = mean.astype(x.dtype)
            total, total_sq = sums(None, x, shift, self.space)
            deviation_sq = total_sq - total * total / n
            moments = Moments.about(shift + total / n, deviation_sq, n)
        if not math.isfinite(deviation_sq.dot(deviation_sq)) or self._vanished(total, total_sq):
            return readable.local_moments(_channels_second(x, self.last))
        return moments

    def _vanished(self, total: Array, total_sq: Array) -> bool:
        """Whether numbers that are not 0 have squares that are, or that have lost digits on the way there."""
        small = total_sq < self.n * LEAST[self.dtype.char]
        return bool(np.count_nonzero(small) and np.any(small & ((total != 0) | (total_sq != 0))))

    def normalise(self, mean: Array, var: Array, eps: float, weight: Array | None, bias: Array | None) -> Array:
        """Computes y = a (x - shift) + b with a = weight inv_std."""
        x = self._x
        # A copy: the running mean may be written into before the backward pass.
        mean = mean.astype(np.float64)
        var = var.astype(np.float64, copy=False)
        spread = np.sqrt(var + eps)
        self.inv_std = 1.0 / spread
        # Sums of squares, being quicker to have than the largest and the smallest.
        if self.dtype.char == "f" and not max(spread.dot(spread), self.inv_std.dot(self.inv_std)) < ROOM * ROOM:
            return self._as_readable(_channels_second(x, self.last)).normalise(mean, var, eps, weight, bias)
        # The mean that counts here may be that of other ranks, or of earlier batches.
        self.shift = mean.astype(x.dtype) if np.count_nonzero(mean * mean > FAR * var) else None
        self.offset = mean if self.shift is None else mean - self.shift
        a = self.inv_std if weight is None else weight * self.inv_std
        b = (0.0 if bias is None else bias) - a * self.offset
        y = self.space.take(x.shape, x.dtype)
        self.layout.affine(x, self.shift, a, b, y, self.space)
        return _channels_second(y, self.last)

    def x_hat(self) -> Array:
        """Computes (x - mean) / sqrt(var + eps) in float64, anew each time: it is not kept."""
        x = _channels_second(self._x, self.last).astype(np.float64)
        if self.shift is not None:
            x -= readable.per_channel(self.shift, x)
        return (x - readable.per_channel(self.offset, x)) * readable.per_channel(self.inv_std, x)

    def local_backward_sums(self, dy: Array) -> BackwardSums:
        """Computes sum(dy) and, from it, sum(dy x_hat) = inv_std (sum(dy (x - shift)) - (mean - shift) sum(dy))."""
        turned = np.moveaxis(dy, 1, -1) if self.last else dy
        self._dy = np.ascontiguousarray(turned, self.dtype)
        total, products = self.layout.sums(self._dy, self._x, self.shift, self.space)
        if not math.isfinite(total.dot(total) + products.dot(products)):
            return self._as_readable(self.x_hat()).local_backward_sums(dy)
        return BackwardSums(total, self.inv_std * (products - self.offset * total))

    def _as_readable(self, x: Array) -> Batch:
        """This batch from now on one that takes the readable functions, in float64. `x` is what they start from: x, or x_hat."""
        self._x = x
        self.__class__ = Batch  # type: ignore[assignment]
        return self

    def input_gradient(self, weight: Array | None, sums: BackwardSums, n: float) -> Array:
        """Computes dx = a (dy + k (x - shift) + q)."""
        k = self.inv_std * sums.dy_x_hat / -n
        q = sums.dy / -n - k * self.offset
        a = self.inv_std if weight is None else weight * self.inv_std
        dx = self.space.take(self._x.shape, self.dtype)
        self.layout.gradient(self._dy, self._x, self.shift, a, k, q, dx, self.space)
        return _channels_second(dx, self.last)

    def frozen_input_gradient(self, weight: Array | None) -> Array:
        """Computes dx = a dy."""
        a = self.inv_std if weight is None else weight * self.inv_std
        dx = self.space.take(self._x.shape, self.dtype)
        self.layout.affine(self._dy, None, a, None, dx, self.space)
        return _channels_second(dx, self.last)


def _memory(x: Array) -> tuple[Array, bool]:
    """Returns x as it lies in memory, and whether its channels, on axis 1 of x, lie last. Copied if it is not contiguous either way."""
    if x.flags.c_contiguous:
        return x, False
    turned = np.moveaxis(x, 1, -1)
    return (turned, True) if turned.flags.c_contiguous else (np.ascontiguousarray(x), False)


def _channels_second(memory: Array, last: bool) -> Array:
    """Channels back on axis 1."""
    return np.moveaxis(memory, -1, 1) if last else memory


@lru_cache(maxsize=256)
def layout_of(n: int, c: int, length: int, dtype: np.dtype[Any]) -> Layout:
    """The layout for contiguous (N, C, L); channels last is L = 1."""
    if Whole.suits(n, c, length):
        return Whole(n, c, length, dtype)
    return (Planes if length >= PLANES else Rows)(n, c, length, dtype)
