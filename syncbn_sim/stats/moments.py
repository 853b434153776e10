"""Moments: count, sum and sum of squares of a batch. They add, so they are what ranks exchange."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array, as_float_array, position_weights
from ..errors import CountError, ShapeError

SHARES = "Weights are counts: if yours are shares that sum to 1, multiply them by the number of rows."
# Weights that sum to 1 may miss it by rounding, float16 ones by half as much; n / (n - 1) would make 1e15 of that.
ONE = 1.001


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Count n, total sum(x) and total of squares sum(x^2), in float64.

    The moments of a union of batches are the sum of their moments, whatever the partition:
    uneven parts, empty parts and weights are all exact. Means do not have that property.

    Attributes:
        count: n, the number of positions, or the sum of their weights.
        total: sum(w x), shape of the axes that were kept (the channels).
        total_sq: sum(w x^2), same shape.
        deviation_sq: sum(w (x - mean)^2), known of a batch that was measured as a whole; it stays accurate where
            total_sq - n mean^2 no longer is. It does not add, so it does not travel.
        centre: the mean as measured, known with it: total / n may miss it by the last digit.
    """

    count: float
    total: Array
    total_sq: Array
    deviation_sq: Array | None = None
    centre: Array | None = None

    @classmethod
    def of(cls, x: object, axes: int | tuple[int, ...] | None = None, weights: object | None = None) -> Moments:
        """Computes the moments of `x` over `axes`.

        The local mean and M2 = sum((x - mean)^2) come from two passes in float64; only then
        total = n mean and total_sq = M2 + n mean^2 are formed (`about`). Adding raw squares in the data's
        own precision would lose the variance as soon as |mean| is far above the spread.

        Args:
            x: floats of any shape.
            axes: the axes to sum over; default: all but axis 1 (the channels).
            weights: frequency weights >= 0, shape of `x` along `axes` (or one per row). Positions of
                weight 0 are never read, NaN or not.

        Raises:
            DtypeError: `x` is not floating point.
            ArgumentError: a weight is negative or not finite.
            ShapeError: axes or weights do not fit.

        Source: Chan, Golub & LeVeque (1983), corrected two-pass algorithm.
        """
        x = as_float_array(x)
        axes = _reduced_axes(x, axes)
        x = x.astype(np.float64)
        kept = tuple(n for axis, n in enumerate(x.shape) if axis not in axes)
        if weights is None:
            count, w = float(x.size // max(math.prod(kept), 1)), None
        else:
            w = position_weights(weights, tuple(x.shape[axis] for axis in axes))
            count = float(w.sum())
            w = np.expand_dims(w, tuple(axis for axis in range(x.ndim) if axis not in axes))
            x = np.where(w > 0, x, 0.0)
        if count == 0:
            return cls(0.0, np.zeros(kept), np.zeros(kept))

        def weighted_sum(values: Array) -> Array:
            return np.add.reduce(values if w is None else w * values, axis=axes, keepdims=True)

        mean = weighted_sum(x) / count
        deviation = x - mean
        slip = weighted_sum(deviation)  # 0 in exact arithmetic: what rounding of the mean left over
        m2 = np.maximum(weighted_sum(deviation * deviation) - slip * (slip / count), 0.0)
        return cls.about((mean + slip / count).reshape(kept), m2.reshape(kept), count)

    @classmethod
    def about(cls, mean: Array, deviation_sq: Array, count: float) -> Moments:
        """The moments of a batch of this mean: total = n mean, total_sq = sum((x - mean)^2) + n mean^2."""
        total = count * mean
        return cls(count, total, deviation_sq + total * mean, deviation_sq, mean)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both batches together."""
        return Moments(self.count + other.count, self.total + other.total, self.total_sq + other.total_sq)

    def around(self, shift: Array) -> Moments:
        """The moments of x - shift.

        They add up like any, as long as all are around one shift; where it is near the mean of the union, the digits that
        total_sq - n mean^2 would lose are never at stake. `around(-shift)` leads back.
        """
        return Moments.about(self.mean - shift, self.count * self.var(), self.count) if self.count else self

    @property
    def mean(self) -> Array:
        """Total / count, or as it was measured.

        Raises:
            CountError: the batch is empty.
        """
        if self.count <= 0:
            raise CountError(
                "Moments.mean",
                got="count 0",
                expected="at least one position",
                do="An empty batch has no mean: check .count first.",
            )
        return self.total / self.count if self.centre is None else self.centre

    def var(self, unbiased: bool = False) -> Array:
        """The variance: total_sq / n - mean^2, times n / (n - 1) if `unbiased`.

        The relative error of a sum of moments is a small multiple of (mean / sd)^2 * 1e-16; that of a batch measured as a
        whole does not depend on the mean.

        Raises:
            CountError: the count is 0, or not above 1 (beyond rounding) for the unbiased variance.
        """
        if self.deviation_sq is not None and self.count > 0:
            biased = self.deviation_sq / self.count
        else:
            mean = self.mean
            biased = np.maximum(self.total_sq / self.count - mean * mean, 0.0)
        if not unbiased:
            return biased
        if self.count <= ONE:
            raise CountError(
                "Moments.var(unbiased=True)",
                got=f"count {self.count:g}",
                expected="a count above 1",
                do="One position has no spread to estimate: use more rows, or the biased variance. " + SHARES,
            )
        return biased * (self.count / (self.count - 1))

    def pack(self) -> Array:
        """The wire format: one float64 vector [total..., total_sq..., count] of 2 C + 1 numbers."""
        return np.concatenate([self.total.ravel(), self.total_sq.ravel(), [self.count]])

    @classmethod
    def unpack(cls, packed: Array, shape: tuple[int, ...] | None = None) -> Moments:
        """Reads what `pack` wrote; `shape` is that of `total` (default: one axis of channels).

        Raises:
            ShapeError: the vector does not have 2 C + 1 entries.
        """
        size = packed.size // 2 if shape is None else int(np.prod(shape))
        if packed.shape != (2 * size + 1,):
            raise ShapeError(
                "packed moments",
                got=packed.shape,
                expected=f"({2 * size + 1},)",
                do="Pass the vector that Moments.pack() returned, or a sum of such vectors.",
            )
        shape = (size,) if shape is None else shape
        return cls(float(packed[-1]), packed[:size].reshape(shape), packed[size:-1].reshape(shape))


@dataclass(frozen=True, eq=False, slots=True)
class Stretches(Moments):
    """The moments of S batches, each by itself, that lie in one array: count (S, 1), all else (S, C); 0 where there are no rows."""

    count: Any  # an array

    @property
    def mean(self) -> Array:
        """The means as measured, (S, C)."""
        assert self.centre is not None
        return self.centre

    def var(self, unbiased: bool = False) -> Array:
        """The variances, (S, C)."""
        assert self.deviation_sq is not None
        return self.deviation_sq / np.maximum(self.count - unbiased, np.finfo(np.float64).tiny)


def _reduced_axes(x: Array, axes: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if axes is None:
        if x.ndim < 2:
            raise ShapeError(
                "x",
                got=x.shape,
                expected="rank 2 or more, channels on axis 1",
                do="Pass axes= to reduce something else.",
            )
        return (0, *range(2, x.ndim))
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if any(not -x.ndim <= a < x.ndim for a in axes):
        raise ShapeError("axes", got=axes, expected=f"axes of an array of rank {x.ndim}", do="Count them from 0.")
    return tuple(sorted(a % x.ndim for a in axes))
