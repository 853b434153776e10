"""What learners get wrong in lesson 06, and a word that the hint must contain (and no other hint of that exercise)."""

import numpy as np


def total(comm, value):
    return comm.allreduce(np.atleast_1d(np.asarray(value, dtype=np.float64)))


def right_mean_var(comm, x):
    n = total(comm, len(x))
    mean = total(comm, x.sum(axis=0)) / n
    return mean, total(comm, ((x - mean) ** 2).sum(axis=0)) / n


def alone(comm, x):
    return np.mean(x, axis=0), np.var(x, axis=0)


def mean_of_means(comm, x):
    return total(comm, np.mean(x, axis=0)) / comm.size, total(comm, np.var(x, axis=0)) / comm.size


def within_only(comm, x):
    n = total(comm, len(x))
    mean, var = x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).mean(axis=0)
    return total(comm, mean * len(x)) / n, total(comm, var * len(x)) / n


def my_count(comm, x):
    mean = total(comm, x.sum(axis=0)) / len(x)
    return mean, total(comm, (x * x).sum(axis=0)) / len(x) - mean**2


def as_many_as_i(comm, x):
    n = len(x) * comm.size
    mean = total(comm, x.sum(axis=0)) / n
    return mean, total(comm, (x * x).sum(axis=0)) / n - mean**2


def bessel(comm, x):
    n = total(comm, len(x))
    mean, var = right_mean_var(comm, x)
    return mean, var * n / (n - 1)


def normalised_by(statistics):
    def forward(comm, x, weight, bias, eps):
        mean, var = statistics(comm, x)
        return weight * (x - mean) / np.sqrt(var + eps) + bias

    return forward


def mean_alone(comm, x):
    return right_mean_var(comm, x)[0], np.var(x, axis=0)


def without_eps(comm, x, weight, bias, eps):
    mean, var = right_mean_var(comm, x)
    return weight * (x - mean) / var**0.5 + bias


def without_affine(comm, x, weight, bias, eps):
    mean, var = right_mean_var(comm, x)
    return (x - mean) / np.sqrt(var + eps)


def dx_of(sum_dy, sum_dy_x_hat, n, dy, x_hat, scale):
    return scale * (dy - sum_dy / n - x_hat * sum_dy_x_hat / n)


def dx_alone(comm, dy, x_hat, inv_std, weight):
    return dx_of(dy.sum(0), (dy * x_hat).sum(0), len(dy), dy, x_hat, weight * inv_std)


def dx_lost(comm, dy, x_hat, inv_std, weight):
    return dx_of(dy.sum(0), (dy * x_hat).sum(0), total(comm, len(dy)), dy, x_hat, weight * inv_std)


def dx_local_n(comm, dy, x_hat, inv_std, weight):
    return dx_of(total(comm, dy.sum(0)), total(comm, (dy * x_hat).sum(0)), len(dy), dy, x_hat, weight * inv_std)


def dx_times(factor):
    def dx(comm, dy, x_hat, inv_std, weight):
        n = total(comm, len(dy)) / factor(comm)
        return dx_of(total(comm, dy.sum(0)), total(comm, (dy * x_hat).sum(0)), n, dy, x_hat, weight * inv_std)

    return dx


def dx_no_mean(comm, dy, x_hat, inv_std, weight):
    return weight * inv_std * (dy - x_hat * total(comm, (dy * x_hat).sum(0)) / total(comm, len(dy)))


def dx_no_variance(comm, dy, x_hat, inv_std, weight):
    return weight * inv_std * (dy - total(comm, dy.sum(0)) / total(comm, len(dy)))


def dx_no_weight(comm, dy, x_hat, inv_std, weight):
    return dx_of(total(comm, dy.sum(0)), total(comm, (dy * x_hat).sum(0)), total(comm, len(dy)), dy, x_hat, inv_std)


def sums(comm, dy, x_hat):
    return total(comm, (dy * x_hat).sum(0)), total(comm, dy.sum(0))


def reduced_twice(comm, dy, x_hat):
    n = total(comm, len(dy))
    return [total(comm, s) / n for s in sums(comm, dy, x_hat)]


def over_size(comm, dy, x_hat):
    return [s / comm.size for s in sums(comm, dy, x_hat)]


def mean_of_mean_gradients(comm, dy, x_hat):
    return total(comm, np.mean(dy * x_hat, axis=0)) / comm.size, total(comm, np.mean(dy, axis=0)) / comm.size


def other_order(comm, dy, x_hat):
    return [s / total(comm, len(dy)) for s in reversed(sums(comm, dy, x_hat))]


def one_rank_stays_away(comm, x):
    return right_mean_var(comm, x) if comm.rank else alone(comm, x)


WRONG = {
    "6.1": [
        (alone, "A lost all-reduce"),
        (mean_of_means, "mean of means"),
        (within_only, "*within* ranks"),
        (my_count, "a local count"),
        (as_many_as_i, "let it be counted"),
        (bessel, "unbiased"),
        (one_rank_stays_away, "could not finish"),
        (lambda comm, x: right_mean_var(comm, x)[0], "case 1"),
        (lambda comm, x: right_mean_var(comm, x)[::-1], "off by"),
    ],
    "6.2": [
        (normalised_by(alone), "on this rank alone"),
        (normalised_by(mean_of_means), "Does your 6.1 pass"),
        (normalised_by(mean_alone), "the variance is this rank's"),
        (normalised_by(bessel), "unbiased"),
        (without_eps, "where is eps"),
        (without_affine, "weight and bias are missing"),
        (lambda comm, x, weight, bias, eps: x, "off by"),
        (lambda comm, x, weight, bias, eps: np.concatenate(comm.allgather(x)), "shape"),
    ],
    "6.3": [
        (dx_alone, "on this rank alone"),
        (dx_lost, "a lost all-reduce"),
        (dx_local_n, "the local count"),
        (dx_times(lambda comm: comm.size), "all-reduced twice"),
        (dx_times(lambda comm: 1 / comm.size), "averaged over ranks"),
        (dx_no_mean, "path through the mean"),
        (dx_no_variance, "path through the variance"),
        (dx_no_weight, "through weight"),
        (lambda comm, dy, x_hat, inv_std, weight: weight * inv_std * dy, "off by"),
    ],
    "6.4": [
        (lambda comm, dy, x_hat: ((dy * x_hat).sum(0) / len(dy), dy.sum(0) / len(dy)), "different nets"),
        (sums, "the *sum* of the losses"),
        (reduced_twice, "reduced twice"),
        (over_size, "which are not rows"),
        (mean_of_mean_gradients, "weighs more"),
        (lambda comm, dy, x_hat: [s / len(dy) for s in sums(comm, dy, x_hat)], "the count of this rank alone"),
        (other_order, "in the other order"),
        (lambda comm, dy, x_hat: [0 * s for s in sums(comm, dy, x_hat)], "off by"),
        (lambda comm, dy, x_hat: sums(comm, dy, x_hat)[0], "expected 2"),
    ],
}
