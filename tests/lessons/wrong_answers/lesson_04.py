"""What learners get wrong in lesson 04, and a word that the hint must contain (and no other hint of that exercise)."""

import numpy as np


def means_of_all(counts, means, variances):
    return sum(means) / len(means), sum(variances) / len(variances)


def means_of_the_filled(counts, means, variances):
    some = [i for i, n in enumerate(counts) if n]
    return np.mean([means[i] for i in some]), np.mean([variances[i] for i in some])


def within_alone(counts, means, variances):
    return np.average(means, weights=counts), np.average(variances, weights=counts)


def between_unweighted(counts, means, variances):
    mean, within = within_alone(counts, means, variances)
    return mean, within + np.var(means[counts > 0])


def between_alone(counts, means, variances):
    mean = np.average(means, weights=counts)
    return mean, np.dot(counts, (means - mean) ** 2) / sum(counts)


def mean_of_squares(counts, means, variances):
    return np.average(means, weights=counts), np.average(means**2 + variances, weights=counts)


def chan(n_a, mean_a, m2_a, n_b, mean_b, m2_b):
    n, d = n_a + n_b, mean_a - mean_b
    return n, (n_a * mean_a + n_b * mean_b) / n, m2_a + m2_b, d, n_a * n_b


def no_between(*parts):
    return chan(*parts)[:3]


def with_term(term, mean=lambda a, b, n_a, n_b: (n_a * a + n_b * b) / (n_a + n_b)):
    def merged(n_a, mean_a, m2_a, n_b, mean_b, m2_b):
        return n_a + n_b, mean(mean_a, mean_b, n_a, n_b), m2_a + m2_b + term(mean_b - mean_a, n_a, n_b)

    return merged


def full(d, n_a, n_b):
    return d**2 / (1 / n_a + 1 / n_b)


def moments(x, weights, count):
    keep = weights > 0
    w = weights[keep]
    return count, w @ x[keep], w @ x[keep] ** 2


def nan_alone_is_masked(x, weights):
    x = np.where(np.isnan(x) & (weights[:, None] == 0), 0, x)
    with np.errstate(invalid="ignore"):
        return weights.sum(), weights @ x, weights @ x**2


def weight_squared(x, weights):
    keep = weights > 0
    w = weights[keep, None]
    return weights.sum(), (w * x[keep]).sum(0), ((w * x[keep]) ** 2).sum(0)


def nan_times_zero(x, weights):
    w = weights[:, None]
    return weights.sum(), (w * x).sum(0), (w * x**2).sum(0)


def nansum(x, weights):
    w = weights[:, None]
    return weights.sum(), np.nansum(w * x, axis=0), np.nansum(w * x**2, axis=0)


def only_masked(x, weights):
    kept = x[weights > 0]
    return len(kept), kept.sum(0), (kept**2).sum(0)


def step(factors, mean=lambda k, mean, x: (mean * (k - 1) + x) / k, more=1):
    def stepped(count, old, m2, x):
        new = mean(count + 1, old, x)
        return count + more, new, m2 + factors(x - old, x - new)

    return stepped


WRONG = {
    "4.1": [
        (lambda n, s, q: (s / n, q / n), "mean of the squares"),
        (lambda n, s, q: (s / n, (q / n - (s / n) ** 2) * n / (n - 1)), "unbiased"),
        (lambda n, s, q: (s / n, (q - s**2) / n), "how many times"),
        (lambda n, s, q: (s / n, (q - s) / n), "not its square"),
        (lambda n, s, q: (s / n, (q / n - (s / n) ** 2) ** 0.5), "standard deviation"),
        (lambda n, s, q: s / n, "expected 2"),
        (lambda n, s, q: (q / n - (s / n) ** 2, s / n), "in another order"),
        (lambda n, s, q: (s, q), "off by"),
    ],
    "4.2": [
        (means_of_all, "even the empty one"),
        (means_of_the_filled, "is left out"),
        (within_alone, "is lost"),
        (between_unweighted, "weight it by rows"),
        (between_alone, "inside each one"),
        (mean_of_squares, "taken off"),
        (lambda n, m, v: (m, v), "shape"),
    ],
    "4.3": [
        (no_between, "forgotten"),
        (with_term(full, lambda a, b, n_a, n_b: (a + b) / 2), "unweighted"),
        (with_term(lambda d, n_a, n_b: 0, lambda a, b, n_a, n_b: (a + b) / 2), "two things"),
        (with_term(full, lambda a, b, n_a, n_b: (n_b * a + n_a * b) / (n_a + n_b)), "wrong share"),
        (with_term(lambda d, n_a, n_b: d**2 * n_a * n_b), "too large"),
        (with_term(lambda d, n_a, n_b: d**2), "d^2 alone"),
        (with_term(lambda d, n_a, n_b: d * n_a * n_b / (n_a + n_b)), "squared"),
        (with_term(lambda d, n_a, n_b: full(d, n_a, n_b) / (n_a + n_b)), "off by"),
    ],
    "4.4": [
        (lambda x, w: moments(x, w, x.shape[0]), "counts rows"),
        (lambda x, w: moments(x, w, np.count_nonzero(w)), "how many rows"),
        (only_masked, "the mask works"),
        (weight_squared, "squared as well"),
        (nan_times_zero, "0 times NaN"),
        (lambda x, w: (w.sum(), np.nansum(x, 0), np.nansum(x**2, 0)), "infinite numbers"),
        (nansum, "that *counts* vanishes"),
        (nan_alone_is_masked, "infinity"),
    ],
    "4.5": [
        (step(lambda old, new: old * old), "too fast"),
        (step(lambda old, new: new * new), "too slowly"),
        (step(lambda old, new: old * new, more=0), "has not heard"),
        (step(lambda old, new: old * new, lambda k, mean, x: (mean + x) / 2), "half of the say"),
        (step(lambda old, new: 0), "stays"),
        (lambda n, mean, m2, x: (n + 1, mean + (x - mean) / n, m2), "ZeroDivisionError"),
    ],
}
