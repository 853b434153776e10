"""Batch normalisation in steps: local moments -> normalise -> local backward sums -> input gradient.

Between the first two steps, and between the last two, stands a *sum over the batch*. Synchronised batch
normalisation is these same functions with that sum taken over all ranks; nothing else changes.

Shapes: x is (N, C, ...) with channels on axis 1, statistics are (C,). `counts` are the frequency weights of positions
(`weight` is gamma): how many times each one counts, in the shape of x without axis 1, or one per row; 0 masks.
The steps compute in float64 and return x's dtype. Equations: Ioffe & Szegedy (2015), section 3, algorithm 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arrays import Array, position_weights
from ..stats.moments import Moments


def local_moments(x: Array, counts: object | None = None) -> Moments:
    """Count, sum(x) and sum(x^2) of each channel of this rank's batch: the forward half of what is summed over ranks."""
    return Moments.of(x, axes=(0, *range(2, x.ndim)), weights=counts)


def standardize(x: Array, mean: Array, var: Array, eps: float, counts: object | None = None) -> tuple[Array, Array]:
    """Computes x_hat = (x - mean) / sqrt(var + eps), with 0 where the count is 0.

    Returns:
        x_hat (float64, shape of x) and inv_std = 1 / sqrt(var + eps) (float64, (C,)).
    """
    inv_std = 1.0 / np.sqrt(var.astype(np.float64) + eps)
    x = x.astype(np.float64)
    if counts is not None:
        x = np.where(over_channels(counts, x) > 0, x, per_channel(mean, x))
    return (x - per_channel(mean, x)) * per_channel(inv_std, x), inv_std


def scale_and_shift(x_hat: Array, weight: Array | None, bias: Array | None, counts: object | None = None) -> Array:
    """Computes y = weight x_hat + bias, with 0 where a position's count is 0."""
    y = x_hat
    if weight is not None:
        y = y * per_channel(weight, x_hat)
    if bias is not None:
        y = y + per_channel(bias, x_hat)
    return y if counts is None else np.where(over_channels(counts, x_hat) > 0, y, 0.0)


class BackwardSums(NamedTuple):
    """Bias and weight gradient, sum(dy) and sum(dy x_hat) of each channel: the backward half of what is summed over ranks."""

    dy: Array
    dy_x_hat: Array

    def pack(self) -> Array:
        """The wire format: one float64 vector of 2 C numbers."""
        return np.concatenate(self)

    @classmethod
    def unpack(cls, packed: Array) -> BackwardSums:
        """Reads what `pack` wrote."""
        half = packed.size // 2
        return cls(packed[:half], packed[half:])


def local_backward_sums(dy: Array, x_hat: Array) -> BackwardSums:
    """Computes sum(dy) and sum(dy x_hat) over this rank's batch. dy must already be 0 at masked positions."""
    axes = (0, *range(2, dy.ndim))
    dy = dy.astype(np.float64)
    return BackwardSums(dy.sum(axis=axes), (dy * x_hat).sum(axis=axes))


def input_gradient(
    dy: Array,
    x_hat: Array,
    inv_std: Array,
    weight: Array | None,
    sums: BackwardSums,
    n: float,
    counts: object | None = None,
) -> Array:
    """Computes dx = weight inv_std (dy - c (sum(dy) + x_hat sum(dy x_hat)) / n).

    Three terms: the direct one; the path through the mean; the path through the variance. The sums and the total count n are
    those of the batch whose statistics normalised x (over all ranks, if they were synchronised); c is
    how many times the position counts, 1 without `counts`.
    """
    through_statistics = (per_channel(sums.dy, dy) + x_hat * per_channel(sums.dy_x_hat, dy)) / n
    if counts is not None:
        through_statistics = over_channels(counts, dy) * through_statistics
    scale = inv_std if weight is None else weight * inv_std
    return per_channel(scale, dy) * (dy - through_statistics)


def frozen_input_gradient(dy: Array, inv_std: Array, weight: Array | None) -> Array:
    """Computes dx = weight inv_std dy: in eval mode the statistics are constants, so only the direct term is left."""
    return per_channel(inv_std if weight is None else weight * inv_std, dy) * dy


def per_channel(values: Array, like: Array) -> Array:
    """Turns (C,) into (1, C, 1, ...), ready to broadcast against `like`."""
    return values.reshape(1, -1, *[1] * (like.ndim - 2))


def over_channels(counts: object, like: Array) -> Array:
    """Counts of positions as (N, 1, ...), ready to broadcast against `like`."""
    return np.expand_dims(position_weights(counts, (like.shape[0], *like.shape[2:])), 1)
