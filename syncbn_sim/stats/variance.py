"""Six ways to compute a variance, written side by side so that their errors can be measured.

All take a one-dimensional array and work in *its* precision, rounding after every operation, as
an accelerator kernel would. None of them is what the layers use (that is `Moments.of`): they are here
to show why it is written as it is. With k = sqrt(1 + mean^2 / var), n numbers and unit round-off u the
relative errors grow like: one-pass n u k^2, Welford n u k, two-pass n u, Chan's tree log2(n) u k
(Chan, Golub & LeVeque 1983).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..arrays import Array, as_float_array
from ..errors import ShapeError

Algorithm = Callable[[Array], float]


def _running_sum(x: Array) -> Array:
    """Adds x_1 + x_2 + ... one after the other in x's own dtype (`np.sum` would add pairwise)."""
    return np.asarray(np.cumsum(x, dtype=x.dtype)[-1])


def one_pass(x: Array) -> float:
    """Computes sum(x^2) / n - (sum(x) / n)^2: cancels once |mean| is far above sd. The classic bug."""
    n = x.dtype.type(x.size)
    mean = _running_sum(x) / n
    return float(_running_sum(x * x) / n - mean * mean)


def shifted(x: Array) -> float:
    """One pass over x - x[0]: cured as far as the first number is close to the mean."""
    return one_pass(x - x[0])


def two_pass(x: Array) -> float:
    """First the mean, then sum((x - mean)^2) / n."""
    n = x.dtype.type(x.size)
    deviation = x - _running_sum(x) / n
    return float(_running_sum(deviation * deviation) / n)


def corrected_two_pass(x: Array) -> float:
    """Two passes, then minus (sum(x - mean))^2 / n^2, which removes the rounding of the mean."""
    n = x.dtype.type(x.size)
    deviation = x - _running_sum(x) / n
    slip = _running_sum(deviation) / n
    return float(_running_sum(deviation * deviation) / n - slip * slip)


def welford(x: Array) -> float:
    """One number at a time: mean += d / k, M2 += d (x - mean). Welford (1962)."""
    kind = x.dtype.type
    mean, m2 = kind(0), kind(0)
    for k, value in enumerate(x, start=1):
        d = value - mean
        mean = mean + d / kind(k)
        m2 = m2 + d * (value - mean)
    return float(m2 / kind(x.size))


@dataclass(frozen=True)
class Part:
    """What Chan's merge combines: count, mean and M2 = sum((x - mean)^2)."""

    count: int
    mean: np.floating
    m2: np.floating


def chan_merge(a: Part, b: Part) -> Part:
    """Joins two parts: M2 = M2_a + M2_b + d^2 n_a n_b / n, with d the difference of the means. Chan et al. (1979)."""
    kind = type(a.mean)
    n = a.count + b.count
    d = b.mean - a.mean
    mean = a.mean + d * kind(b.count / n)
    return Part(n, mean, a.m2 + b.m2 + d * d * kind(a.count * (b.count / n)))


def chan_tree(x: Array) -> float:
    """Chan's merge applied pairwise, as a tree of ranks would."""
    parts = [Part(1, value, x.dtype.type(0)) for value in x]
    while len(parts) > 1:
        pairs = [chan_merge(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[2 * len(pairs) :]
    return float(parts[0].m2 / x.dtype.type(x.size))


ALGORITHMS: dict[str, Algorithm] = {
    "one-pass": one_pass,
    "shifted": shifted,
    "two-pass": two_pass,
    "corrected two-pass": corrected_two_pass,
    "Welford": welford,
    "Chan tree": chan_tree,
}


def exact_variance(x: Array) -> float:
    """The biased variance of the given numbers in rational arithmetic: no rounding until the end."""
    numbers = [Fraction(float(value)) for value in x]
    mean = sum(numbers, Fraction(0)) / len(numbers)
    return float(sum(((value - mean) ** 2 for value in numbers), Fraction(0)) / len(numbers))


def relative_error(algorithm: Algorithm, x: Array) -> float:
    """Computes (computed - exact) / exact for the variance of the one-dimensional float array `x`.

    Raises:
        ShapeError: `x` is not one-dimensional or has fewer than two numbers.
    """
    x = as_float_array(x)
    if x.ndim != 1 or x.size < 2:
        raise ShapeError("x", got=x.shape, expected="one axis with at least two numbers", do="Use x.ravel().")
    exact = exact_variance(x)
    return (algorithm(x) - exact) / exact
