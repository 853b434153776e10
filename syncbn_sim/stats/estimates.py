"""Estimates over seeds: means and ratios of means with their 95 % confidence intervals, by Student's t."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Array


@dataclass(frozen=True)
class Estimate:
    """What is known of a quantity from some seeds.

    Attributes:
        mean: the estimate.
        low, high: its 95 % interval; both None where one seed leaves nothing to estimate a spread from.
        values: one per seed, whose mean it is; empty for a ratio, which is no mean of ratios.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...] = ()

    @property
    def interval(self) -> tuple[float, float] | None:
        """The two ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def t_quantile(degrees: int) -> float:
    """The 97.5 % point of Student's t with `degrees` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def mean_interval(values: Sequence[float], least: float = -np.inf, most: float = np.inf) -> Estimate:
    """Mean +- t sd / sqrt(k) over k seeds, cut off at what the quantity can be at all (which takes nothing from its coverage).

    Args:
        values: one per seed.
        least: the smallest possible value, such as 0 for an accuracy.
        most: the largest.
    """
    return _estimate(float(np.mean(values)), values, least, most, tuple(float(value) for value in values))


def ratio_interval(
    parts: Sequence[float], wholes: Sequence[float], least: float = -np.inf, most: float = np.inf
) -> Estimate | None:
    """Ratio of means over paired seeds, R = mean(parts) / mean(wholes), with residual variance of parts - R wholes.

    A mean of per-seed ratios would be ruled by the one seed whose whole is near zero.

    Args:
        parts: one per seed.
        wholes: one per seed.
        least: the smallest value that the mean of the parts can have; the interval ends there.
        most: the largest.

    Returns:
        None where the whole is not clearly above zero (its own 95 % interval reaches 0): there is nothing to take a share of.

    Source: Cochran (1977), Sampling Techniques, section 6.3, the ratio estimator.
    """
    whole = mean_interval(wholes)
    if whole.mean <= 0 or (whole.low is not None and whole.low <= 0):
        return None
    ratio = float(np.mean(parts)) / whole.mean
    residuals = np.asarray(parts) - ratio * np.asarray(wholes)
    return _estimate(ratio, residuals / whole.mean, least / whole.mean, most / whole.mean)


def _estimate(
    mean: float, scattered: Sequence[float] | Array, least: float, most: float, values: tuple[float, ...] = ()
) -> Estimate:
    """Mean +- t sd / sqrt(k), with the sd of k scattered numbers."""
    k = len(scattered)
    if k < 2:
        return Estimate(mean, None, None, values)
    half = t_quantile(k - 1) * float(np.std(scattered, ddof=1)) / k**0.5
    return Estimate(mean, max(mean - half, least), min(mean + half, most), values)
