"""Solutions of lesson 07."""

import numpy as np


def design_effect(entity, rho):
    _, counts = np.unique(entity, return_counts=True)
    S = (counts**2).sum() / counts.sum()
    return 1 + (S - 1) * rho


def effective_rows(rows, ranks, deff):
    return rows * ranks / deff


def ranks_needed(S, rho):
    return int(np.ceil(1 + (S - 1) * rho))


def expected_unbiased_variance(variance, rows, deff):
    biased = variance * (1 - deff / rows)
    return biased * rows / (rows - 1)


def estimate_design_effect(means, variance, rows):
    between_ranks = means.var(axis=1, ddof=1).mean()
    return between_ranks / (variance / rows)
