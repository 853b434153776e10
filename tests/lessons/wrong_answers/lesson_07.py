"""What learners get wrong in lesson 07, and a word that the hint must contain (and no other hint of that exercise)."""

from collections import Counter
from itertools import groupby

import numpy as np


def by_user(entity, rho):
    return 1 + (len(entity) / len(set(entity.tolist())) - 1) * rho


def by_the_largest(entity, rho):
    return 1 + (max(Counter(entity.tolist()).values()) - 1) * rho


def row_mates(entity):
    """Computes S the slow way: for each row, how many rows of its user there are."""
    return float(np.mean([(entity == e).sum() for e in entity]))


def by_runs(entity, rho):
    runs = np.array([len(list(rows)) for _, rows in groupby(entity.tolist())])
    return deff((runs**2).sum() / len(entity), rho)


def squares(entity):
    return np.array(list(Counter(entity.tolist()).values())) ** 2


def deff(S, rho):
    return 1 + (S - 1) * rho


def bessel(rows):
    return rows / (rows - 1)


def between(means, ddof=1):
    deviations = means - means.mean(axis=1, keepdims=True)
    return float(((deviations**2).sum(axis=1) / (means.shape[1] - ddof)).mean())


def over_steps(means, variance, rows):
    return np.mean([rank.var(ddof=1) for rank in means.T]) * rows / variance


WRONG = {
    "7.1": [
        (by_user, "average over rows"),
        (by_the_largest, "as large as the largest"),
        (lambda entity, rho: 1 + row_mates(entity) * rho, "its own neighbour"),
        (lambda entity, rho: 1 + (np.mean(squares(entity)) - 1) * rho, "averaged over users"),
        (lambda entity, rho: 1 + (np.sum(squares(entity)) - 1) * rho, "divides it by something"),
        (lambda entity, rho: row_mates(entity), "that is S"),
        (lambda entity, rho: (row_mates(entity) - 1) * rho, "off by"),
        (lambda entity, rho: squares(entity) * rho, "shape"),
        (by_runs, "need not stand together"),
    ],
    "7.2": [
        (lambda rows, ranks, deff: rows / deff, "*one* rank"),
        (lambda rows, ranks, deff: rows * ranks, "these are the rows"),
        (lambda rows, ranks, deff: ranks * rows * deff, "does not add"),
        (lambda rows, ranks, deff: ranks * rows / deff**0.5, "square root"),
        (lambda rows, ranks, deff: ranks**0.5 * rows / deff, "for one rank it would be right"),
        (lambda rows, ranks, deff: rows / deff / ranks, "wrong side"),
        (lambda rows, ranks, deff: rows - deff, "off by"),
        (lambda rows, ranks, deff: min(rows, rows * ranks / deff), "off by"),
    ],
    "7.3": [
        (deff, "whole numbers"),
        (lambda S, rho: int(deff(S, rho)), "rounded down"),
        (lambda S, rho: int(np.round(deff(S, rho))), "rounded to the nearest"),
        (lambda S, rho: int(deff(S, rho)) + 1, "one too many where"),
        (lambda S, rho: np.ceil(deff(S, rho) ** 0.5), "the root"),
        (lambda S, rho: np.ceil(S), "rho = 1"),
        (lambda S, rho: np.ceil(rho * S), "nearly the design effect"),
        (lambda S, rho: 8, "off by"),
    ],
    "7.4": [
        (lambda variance, rows, deff: variance, "*independent* rows only"),
        (lambda variance, rows, deff: variance - variance * deff / rows, "Now with Bessel"),
        (lambda variance, rows, deff: variance * (rows - 1) / rows, "not in it"),
        (lambda variance, rows, deff: variance * (1 - deff / rows) / bessel(rows), "upside down"),
        (lambda variance, rows, deff: variance / deff, "not so much"),
        (lambda variance, rows, deff: variance - variance * deff / (rows - 1), "multiplies the whole"),
        (lambda variance, rows, deff: variance * bessel(rows), "off by"),
    ],
    "7.5": [
        (lambda means, variance, rows: between(means, 0) * rows / variance, "Divide by W - 1"),
        (over_steps, "compare ranks within a step"),
        (lambda means, variance, rows: np.var(means.ravel(), ddof=1) * rows / variance, "in one pot"),
        (lambda means, variance, rows: np.var(means.ravel()) * rows / variance, "for all steps and ranks together"),
        (lambda means, variance, rows: np.var(means.T, axis=1).mean() * rows / variance, "over the ranks of a step"),
        (lambda means, variance, rows: between(means), "How large would it be"),
        (lambda means, variance, rows: between(means) / variance, "a single row"),
        (
            lambda means, variance, rows: np.mean(means.std(axis=1, ddof=1)) * rows**0.5 / variance**0.5,
            "a ratio of variances",
        ),
        (lambda means, variance, rows: variance / rows, "off by"),
        (lambda means, variance, rows: means.var(axis=1, ddof=1) * rows / variance, "shape"),
    ],
}
