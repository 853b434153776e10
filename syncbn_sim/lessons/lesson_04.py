"""Exercises of lesson 04: moments and merging."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..stats.moments import Moments
from ..stats.variance import Part, chan_merge
from .exercise import Exercise, Mistake


def _sums(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    found = [Moments.of(rng.normal(size=(n, 3)) * [1, 3, 0.5] + 2) for n in (5, 12)]
    return [(m.count, m.total, m.total_sq) for m in found]


FROM_SUMS = Exercise(
    number="4.1",
    name="mean_and_variance",
    start="nothing comes back yet. The mean is the first sum over the count; what does the second sum over the count say?",
    right=lambda count, total, total_sq: (Moments(count, total, total_sq).mean, Moments(count, total, total_sq).var()),
    cases=_sums,
    mistakes=(
        Mistake(
            lambda n, s, q: (s / n, q / n),
            "that is the mean of the squares. It is the variance only where the mean is 0: a term is missing.",
        ),
        Mistake(
            lambda n, s, q: (s / n, (q - s * s / n) / (n - 1)),
            "this is the unbiased variance (n - 1). The one that normalises a batch divides by something else.",
        ),
        Mistake(
            lambda n, s, q: (s / n, q / n - s * s / n),
            "the mean is squared after it has been divided: how many times must the squared sum be divided by n?",
        ),
        Mistake(lambda n, s, q: (s / n, q / n - s / n), "the mean is subtracted, but not its square."),
        Mistake(
            lambda n, s, q: (s / n, np.sqrt(q / n - (s / n) ** 2)),
            "so close: this is the standard deviation, the variance's root.",
        ),
    ),
    done="three numbers per channel are enough, and they add. That is the whole idea of synchronising.",
)


def _ranks(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    counts = np.array([2.0, 7.0, 0.0, 1.0])
    return [
        (counts, np.array([1.0, -2.0, 0.0, 6.0]), np.array([0.25, 3.0, 0.0, 0.0])),
        (np.array([3.0, 9.0]), rng.normal(size=2), rng.uniform(0.5, 2, 2)),
    ]


def _union(counts: Array, means: Array, variances: Array) -> tuple[Array, Array]:
    moments = Moments(counts.sum(), (counts * means).sum(), (counts * (variances + means**2)).sum())
    return moments.mean, moments.var()


def _weighted(counts: Array, values: Array) -> Any:
    return (counts * values).sum() / counts.sum()


def _spread(counts: Array, means: Array) -> Array:
    return (means - _weighted(counts, means)) ** 2


UNION = Exercise(
    number="4.2",
    name="union",
    start="nothing comes back yet. The mean first: how much does each rank have to say? Then within plus between.",
    right=_union,
    cases=_ranks,
    mistakes=(
        Mistake(
            lambda n, m, v: (m.mean(), v.mean()),
            "a mean of means: a rank with 1 row speaks as loudly as one with 7, and even the empty one has a say.",
        ),
        Mistake(
            lambda n, m, v: (m[n > 0].mean(), v[n > 0].mean()),
            "the empty rank is left out, well. But the others all count the same, however many rows they have.",
        ),
        Mistake(
            lambda n, m, v: (_weighted(n, m), _weighted(n, v)),
            "the mean is right. Your variance is what lies within the ranks; what lies between their means is lost.",
        ),
        Mistake(
            lambda n, m, v: (_weighted(n, m), _weighted(n, v) + m[n > 0].var()),
            "within and between are both there, but the means' variance treats all ranks alike: weight it by rows too.",
        ),
        Mistake(
            lambda n, m, v: (_weighted(n, m), _weighted(n, _spread(n, m))),
            "this is the variance between the ranks. What of the spread inside each one?",
        ),
        Mistake(
            lambda n, m, v: (_weighted(n, m), _weighted(n, v + m**2)),
            "this is the mean of the squares: the squared mean has still to be taken off.",
        ),
    ),
    done="within + between. Note that the empty rank took care of itself: its weight is 0.",
)


def _parts(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    cases = [(2, 1.5, 0.5, 1, 6.0, 0.0)]
    for n_a, n_b in ((3, 20), (8, 5)):
        a, b = rng.normal(size=n_a), rng.normal(3, 2, size=n_b)
        cases.append((n_a, a.mean(), n_a * a.var(), n_b, b.mean(), n_b * b.var()))
    return cases


def _merge(n_a: int, mean_a: float, m2_a: float, n_b: int, mean_b: float, m2_b: float) -> tuple[Any, ...]:
    a = Part(n_a, np.float64(mean_a), np.float64(m2_a))
    merged = chan_merge(a, Part(n_b, np.float64(mean_b), np.float64(m2_b)))
    return merged.count, merged.mean, merged.m2


def _merged(between: Any, mean: Any = None) -> Any:
    """A merge whose third term is `between(d, n_a, n_b)`, and perhaps another mean."""

    def answer(n_a: int, mean_a: float, m2_a: float, n_b: int, mean_b: float, m2_b: float) -> tuple[Any, ...]:
        n, middle, _ = _merge(n_a, mean_a, m2_a, n_b, mean_b, m2_b)
        middle = middle if mean is None else mean(n_a, mean_a, n_b, mean_b)
        return n, middle, m2_a + m2_b + between(mean_b - mean_a, n_a, n_b)

    return answer


MERGE = Exercise(
    number="4.3",
    name="merge",
    start="nothing comes back yet. n and the mean first; then try [1, 2] and [6] on paper: M2 must come out as 14.",
    right=_merge,
    cases=_parts,
    mistakes=(
        Mistake(
            _merged(lambda d, n_a, n_b: 0.0),
            "n and the mean are right. Your M2 would be right if both parts had the same mean: their distance d is forgotten.",
        ),
        Mistake(
            _merged(lambda d, n_a, n_b: d * d * n_a * n_b / (n_a + n_b), lambda n_a, a, n_b, b: (a + b) / 2),
            "M2 is right, but the mean is an unweighted mean of means: who has more rows has more to say.",
        ),
        Mistake(
            _merged(lambda d, n_a, n_b: 0.0, lambda n_a, a, n_b, b: (a + b) / 2),
            "two things: the mean gives both parts the same weight, and M2 does not know how far apart they are.",
        ),
        Mistake(
            _merged(
                lambda d, n_a, n_b: d * d * n_a * n_b / (n_a + n_b),
                lambda n_a, a, n_b, b: a + (b - a) * n_a / (n_a + n_b),
            ),
            "the mean moves from a towards b, but by the wrong share: it should hardly move if b is tiny.",
        ),
        Mistake(
            _merged(lambda d, n_a, n_b: d * d * n_a * n_b),
            "the third term of M2 is too large: with n_a = n_b = 1 it must be d^2 / 2.",
        ),
        Mistake(
            _merged(lambda d, n_a, n_b: d * d),
            "d^2 alone: it must count for more when both parts are large, and for nothing when one is empty.",
        ),
        Mistake(
            _merged(lambda d, n_a, n_b: d * n_a * n_b / (n_a + n_b)),
            "the distance of the means enters squared; yours can even make M2 negative.",
        ),
    ),
    done="merge the merged, and any tree of ranks works. The third term is the law of total variance once more.",
)


def _masked(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    junk = rng.normal(size=(5, 2)) + 1
    junk[3] = 99.0, np.inf
    lost = rng.normal(size=(4, 3))
    lost[1] = np.nan
    wrong = lost.copy()
    wrong[2, 1] = np.nan  # in a row that counts: the sums must say so
    weights = np.array([1.0, 0.0, 2.0, 1.0])
    return [(junk, np.array([1.0, 2.0, 0.5, 0.0, 3.0])), (lost, weights), (wrong, weights)]


def _counted(x: Array, weights: Array) -> tuple[Any, ...]:
    moments = Moments.of(x, weights=weights)
    return moments.count, moments.total, moments.total_sq


def _multiplied(x: Array, weights: Array) -> tuple[Any, ...]:
    with np.errstate(invalid="ignore"):
        return weights.sum(), weights @ x, weights @ x**2


def _rows_kept(x: Array, weights: Array) -> tuple[Any, ...]:
    return _counted(x, (weights > 0).astype(np.float64))


WEIGHTED = Exercise(
    number="4.4",
    name="weighted_moments",
    start="nothing comes back yet. A row of weight 3 is there three times; what is the count then?",
    right=_counted,
    cases=_masked,
    mistakes=(
        Mistake(
            lambda x, w: (len(x), *_counted(x, w)[1:]),
            "the sums are right, the count is not: it counts rows, masked ones too, where it should add their weights.",
        ),
        Mistake(
            lambda x, w: ((w > 0).sum(), *_counted(x, w)[1:]),
            "the sums are right. Your count says how many rows have a weight, not how much weight they have.",
        ),
        Mistake(
            _rows_kept,
            "the mask works: rows of weight 0 are out. But the others all count once, whatever their weight.",
        ),
        Mistake(
            lambda x, w: _counted(np.nan_to_num(x), w),
            "a NaN in a row that *counts* vanishes: nobody would learn that the data are broken. Leave out the rows of weight 0, no more.",
        ),
        Mistake(
            _multiplied, "the masked rows are in the sums: 0 times NaN is NaN. Leave them out before you multiply."
        ),
        Mistake(
            lambda x, w: _multiplied(np.where(np.isnan(x) & (w[:, None] == 0), 0.0, x), w),
            "NaN is kept out, but a masked row may hold anything, and 0 times infinity is NaN too: leave the whole row out.",
        ),
        Mistake(
            lambda x, w: (*_counted(x, w)[:2], _counted(x, w * w)[2]),
            "count and sum are right. In the sum of squares the weight is squared as well: three copies of x give 3 x^2.",
        ),
    ),
    done="masks and repeated rows are the same thing, and on the wire nobody can tell them from ordinary rows.",
)


def _welford(count: int, mean: float, m2: float, value: float) -> tuple[Any, ...]:
    return _merge(count, mean, m2, 1, value, 0.0)


def _stepped(m2_of: Any, mean_of: Any = lambda n, mean, x: mean + (x - mean) / (n + 1)) -> Any:
    """A step whose M2 is `m2_of(M2, value, old mean, new mean)`."""
    return lambda n, mean, m2, x: (n + 1, mean_of(n, mean, x), m2_of(m2, x, mean, mean_of(n, mean, x)))


STEP = Exercise(
    number="4.5",
    name="welford_step",
    start="nothing comes back yet. In this order: the count, the distance from the old mean, the new mean, M2.",
    right=_welford,
    cases=lambda rng: [(2, 1.5, 0.5, 6.0), (5, *rng.uniform(1, 3, 3)), (0, 0.0, 0.0, 4.0)],
    mistakes=(
        Mistake(
            _stepped(lambda m2, x, old, new: m2 + (x - old) ** 2),
            "the mean is right, M2 grows too fast: both of its factors are distances from the old mean.",
        ),
        Mistake(
            _stepped(lambda m2, x, old, new: m2 + (x - new) ** 2),
            "the mean is right, M2 grows too slowly: both of its factors are distances from the new mean.",
        ),
        Mistake(
            lambda n, mean, m2, x: (n, *_welford(n, mean, m2, x)[1:]),
            "mean and M2 are right, but the count has not heard of the new number.",
        ),
        Mistake(
            _stepped(lambda m2, x, old, new: m2 + (x - old) * (x - new), lambda n, mean, x: (mean + x) / 2),
            "the new number gets half of the say in the mean; after a thousand numbers it should get a thousandth.",
        ),
        Mistake(
            _stepped(lambda m2, x, old, new: m2),
            "the mean moves, but M2 stays: the new number adds to the spread, too.",
        ),
    ),
    done="one number at a time, and never a large square: this is Chan's merge with a part of one row.",
)

EXERCISES = (FROM_SUMS, UNION, MERGE, WEIGHTED, STEP)
