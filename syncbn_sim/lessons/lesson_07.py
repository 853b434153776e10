"""Exercises of lesson 07: correlated batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import stats
from ..arrays import Array
from .exercise import Exercise, Mistake


def _sizes(entity: Array) -> Array:
    """Rows of each entity of the batch."""
    return np.unique(entity, return_counts=True)[1].astype(np.float64)


def _deff(entity: Array, rho: float) -> float:
    return stats.design_effect(stats.cluster_size([entity]), rho)


DESIGN_EFFECT = Exercise(
    number="7.1",
    name="design_effect",
    start="nothing comes back yet. np.unique(entity, return_counts=True) gives the rows of each user; S is made of them.",
    right=_deff,
    cases=lambda rng: [
        (np.array([7, 7, 7, 2]), 0.5),
        (np.repeat([0, 1, 2, 3, 4], [12, 5, 2, 1, 1]), 0.3),
        (np.arange(9) // 3, 0.9),
        (np.array([4, 1, 4, 0, 1, 4, 4]), 0.5),  # shuffled
    ],
    mistakes=(
        Mistake(
            lambda entity, rho: 1 + (_sizes(entity).mean() - 1) * rho,
            "this uses the mean number of rows a *user*. Most rows belong to the big users: average over rows.",
        ),
        Mistake(
            lambda entity, rho: 1 + (_sizes(entity).max() - 1) * rho,
            "this takes every user to be as large as the largest.",
        ),
        Mistake(
            lambda entity, rho: 1 + stats.cluster_size([entity]) * rho,
            "S is right, but a row is not its own neighbour: with one row per user the design effect must be 1.",
        ),
        Mistake(
            lambda entity, rho: 1 + ((_sizes(entity) ** 2).mean() - 1) * rho,
            "the squares are averaged over users. S divides their sum by the number of rows.",
        ),
        Mistake(
            lambda entity, rho: 1 + ((_sizes(entity) ** 2).sum() - 1) * rho,
            "the sum of squares is there; S divides it by something.",
        ),
        Mistake(
            lambda entity, rho: _deff(np.cumsum(np.diff(entity, prepend=entity[0]) != 0), rho),
            "this counts rows that follow one another. Rows of one user need not stand together in a batch.",
        ),
        Mistake(
            lambda entity, rho: stats.cluster_size([entity]),
            "that is S. How alike the rows of a user are (rho) must matter too.",
        ),
    ),
    done="rows that share a user carry less news, and most rows share a big one.",
)

EFFECTIVE_ROWS = Exercise(
    number="7.2",
    name="effective_rows",
    start="nothing comes back yet. How many rows are behind the mean, and how many rows does one independent row outweigh?",
    right=lambda rows, ranks, deff: stats.effective_rows(rows * ranks, deff),
    cases=lambda rng: [(32, 8, 10.7), (256, 16, 19.9), (64, 2, 3.0), (32, 16, 4.0)],
    mistakes=(
        Mistake(
            lambda rows, ranks, deff: rows / deff,
            "that is what *one* rank's mean is worth. The ranks do not share users, so their means are independent.",
        ),
        Mistake(
            lambda rows, ranks, deff: float(rows * ranks),
            "these are the rows. Rows that are alike are worth less than they count.",
        ),
        Mistake(
            lambda rows, ranks, deff: rows * ranks * deff, "more than there are: likeness takes away, it does not add."
        ),
        Mistake(
            lambda rows, ranks, deff: rows * ranks / math.sqrt(deff),
            "the square root belongs to the standard deviation; rows go with the variance.",
        ),
        Mistake(
            lambda rows, ranks, deff: rows * math.sqrt(ranks) / deff,
            "for one rank it would be right. How does a *variance* fall with the number of ranks?",
        ),
        Mistake(
            lambda rows, ranks, deff: rows / (ranks * deff), "more ranks make it less: the ranks are on the wrong side."
        ),
    ),
    done="the design effect stays that of one rank, since no user is on two.",
)


def _ranks(cluster: float, rho: float) -> int:
    return math.ceil(stats.design_effect(cluster, rho))


RANKS_NEEDED = Exercise(
    number="7.3",
    name="ranks_needed",
    start="nothing comes back yet. Set the variance of the mean over W ranks equal to that of n independent rows. What is W?",
    right=_ranks,
    cases=lambda rng: [(17.0, 0.3), (14.0, 0.26), (9.0, 0.5), (3.0, 0.7), (1.0, 0.7)],
    mistakes=(
        Mistake(
            lambda cluster, rho: stats.design_effect(cluster, rho),
            "that is where the two are equal. Ranks come in whole numbers, and there must be enough.",
        ),
        Mistake(
            lambda cluster, rho: math.floor(stats.design_effect(cluster, rho)),
            "rounded down: that many ranks fall just short.",
        ),
        Mistake(
            lambda cluster, rho: round(stats.design_effect(cluster, rho)),
            "rounded to the nearest: in some cases that many ranks fall just short.",
        ),
        Mistake(
            lambda cluster, rho: math.floor(stats.design_effect(cluster, rho)) + 1,
            "one too many where the design effect is a whole number: `at least as steady` includes equal.",
        ),
        Mistake(
            lambda cluster, rho: math.ceil(math.sqrt(stats.design_effect(cluster, rho))),
            "the root is one too many: both variances are to be equal, and W divides the variance.",
        ),
        Mistake(
            lambda cluster, rho: math.ceil(cluster),
            "that would be right for rho = 1. Rows that are less alike need fewer ranks.",
        ),
        Mistake(
            lambda cluster, rho: math.ceil(cluster * rho),
            "nearly the design effect: with one row per user, or rho = 0, one rank must do.",
        ),
    ),
    done="it does not depend on the rows per rank, but S does, and grows with them.",
)


def _unbiased(variance: float, rows: int, deff: float) -> float:
    return stats.expected_local_variance(variance, rows, deff) * rows / (rows - 1)


EXPECTED_VARIANCE = Exercise(
    number="7.4",
    name="expected_unbiased_variance",
    start="nothing comes back yet. First what the biased variance is on average, then the factor that makes it `unbiased`.",
    right=_unbiased,
    cases=lambda rng: [(1.0, 32, 10.7), (4.0, 8, 1.0), (2.5, 64, 20.0)],
    mistakes=(
        Mistake(
            lambda variance, rows, deff: float(variance),
            "Bessel's factor makes it unbiased for *independent* rows only. For alike rows something is still missing.",
        ),
        Mistake(
            lambda variance, rows, deff: stats.expected_local_variance(variance, rows, deff),
            "that is the biased variance. Now with Bessel's factor, n / (n - 1).",
        ),
        Mistake(
            lambda variance, rows, deff: stats.expected_local_variance(variance, rows, 1.0),
            "that is the biased variance of independent rows: the design effect is not in it.",
        ),
        Mistake(
            lambda variance, rows, deff: stats.expected_local_variance(variance, rows, deff) * (rows - 1) / rows,
            "Bessel's factor is upside down: it makes a variance larger.",
        ),
        Mistake(
            lambda variance, rows, deff: variance / deff,
            "not so much: the batch loses what its mean has wandered off, which is the variance of the *mean*.",
        ),
        Mistake(
            lambda variance, rows, deff: variance * (1 - deff / (rows - 1)),
            "n - 1 takes the place of n in the variance of the mean; Bessel's factor multiplies the whole.",
        ),
    ),
    done="(n - deff) / (n - 1): right for deff = 1 and too small for alike rows. A factor that knows n alone cannot see it.",
)


def _estimate(means: Array, variance: float, rows: int) -> float:
    return float(means.var(axis=1, ddof=1).mean() * rows / variance)


def _means(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    # All ranks move together, as activations do while a net learns.
    drift = np.linspace(0, 2, 30)[:, None]
    return [(rng.normal(size=(30, 4)) * 0.5 + drift, 1.0, 32), (rng.normal(size=(30, 8)) + 3, 4.0, 16)]


ESTIMATE = Exercise(
    number="7.5",
    name="estimate_design_effect",
    start="nothing comes back yet. For each step: the variance between the ranks. Then how many times that of independent rows is it?",
    right=_estimate,
    cases=_means,
    mistakes=(
        Mistake(
            lambda means, variance, rows: means.var(axis=1).mean() * rows / variance,
            "a little too small: the ranks scatter around *their* mean, and there are few of them. Divide by W - 1.",
        ),
        Mistake(
            lambda means, variance, rows: means.var(axis=0, ddof=1).mean() * rows / variance,
            "this follows each rank over the steps. Where activations drift while the net learns, that is not noise: compare ranks "
            "within a step.",
        ),
        Mistake(
            lambda means, variance, rows: means.var(ddof=1) * rows / variance,
            "steps and ranks are in one pot. What all ranks do together from step to step is not noise between ranks.",
        ),
        Mistake(
            lambda means, variance, rows: means.var() * rows / variance,
            "one variance for all steps and ranks together, divided by their number. Two things: within a step, and W - 1.",
        ),
        Mistake(
            lambda means, variance, rows: means.var(axis=0).mean() * rows / variance,
            "the variance over steps, divided by their number. Two things: over the ranks of a step, and W - 1.",
        ),
        Mistake(
            lambda means, variance, rows: means.var(axis=1, ddof=1).mean(),
            "that is the variance between ranks. How large would it be for independent rows?",
        ),
        Mistake(
            lambda means, variance, rows: means.var(axis=1, ddof=1).mean() / variance,
            "the variance between the ranks' *means* is compared with that of a single row.",
        ),
        Mistake(
            lambda means, variance, rows: means.std(axis=1, ddof=1).mean() * math.sqrt(rows / variance),
            "standard deviations: the design effect is a ratio of variances.",
        ),
    ),
    done="a monitor that needs no user ids: the ranks' means know how many independent rows are behind them.",
)

EXERCISES = (DESIGN_EFFECT, EFFECTIVE_ROWS, RANKS_NEEDED, EXPECTED_VARIANCE, ESTIMATE)
