"""Solutions of lesson 04."""

import numpy as np


def mean_and_variance(count, total, total_sq):
    mean = total / count
    return mean, total_sq / count - mean**2


def union(counts, means, variances):
    share = counts / counts.sum()
    mean = (share * means).sum()
    within = (share * variances).sum()
    between = (share * (means - mean) ** 2).sum()
    return mean, within + between


def merge(n_a, mean_a, m2_a, n_b, mean_b, m2_b):
    n = n_a + n_b
    d = mean_b - mean_a
    return n, mean_a + d * n_b / n, m2_a + m2_b + d**2 * n_a * n_b / n


def weighted_moments(x, weights):
    keep = weights > 0  # before multiplying: 0 * nan is nan
    x, w = x[keep], weights[keep][:, None]
    return np.sum(w), np.sum(w * x, axis=0), np.sum(w * x**2, axis=0)


def welford_step(count, mean, m2, value):
    count = count + 1
    d = value - mean
    mean = mean + d / count
    return count, mean, m2 + d * (value - mean)
