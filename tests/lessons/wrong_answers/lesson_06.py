"""What learners get wrong in lesson 06, and a word that the hint must contain (and no other hint of that exercise)."""

import numpy as np


def total(comm, value):
    return comm.allreduce(np.atleast_1d(np.asarray(value, dtype=np.float64)))


def totals(comm, *values):
    """Each summed over the ranks, in one all-reduce."""
    values = [np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in values]
    return np.split(comm.allreduce(np.concatenate(values)), np.cumsum([value.size for value in values])[:-1])


def right_mean_var(comm, x):
    s, q, n = totals(comm, x.sum(axis=0), (x * x).sum(axis=0), len(x))
    return s / n, q / n - (s / n) ** 2


def quietly(function):
    """Without NumPy's warnings about 0 / 0: a rank may be empty."""

    def quiet(*args):
        with np.errstate(all="ignore"):
            return function(*args)

    return quiet


def mean(x):
    return np.sum(x, axis=0) / np.float64(len(x))


def alone(comm, x):
    return mean(x), mean((x - mean(x)) ** 2)


def mean_of_means(comm, x):
    return [m / comm.size for m in totals(comm, *alone(comm, x))]


def mean_of_means_with_zeros(comm, x):
    return [m / comm.size for m in totals(comm, *(alone(comm, x) if len(x) else np.zeros((2, x.shape[1]))))]


def within_only(comm, x):
    own = mean(x) if len(x) else 0
    s, q, n = totals(comm, x.sum(axis=0), ((x - own) ** 2).sum(axis=0), len(x))
    return s / n, q / n


def my_count(comm, x):
    s, q = totals(comm, x.sum(axis=0), (x * x).sum(axis=0))
    return s / len(x), q / len(x) - (s / len(x)) ** 2


def as_many_as_i(comm, x):
    n = len(x) * comm.size
    s, q = totals(comm, x.sum(axis=0), (x * x).sum(axis=0))
    return s / n, q / n - (s / n) ** 2


def bessel(comm, x):
    s, q, n = totals(comm, x.sum(axis=0), (x * x).sum(axis=0), len(x))
    return s / n, (q - s * s / n) / (n - 1)


def every_row(comm, x):
    rows = np.concatenate(comm.allgather(x))
    return rows.mean(axis=0), rows.var(axis=0)


def all_rows_in_one_all_reduce(comm, x):
    rows = np.zeros((comm.size, 7, x.shape[1]))
    rows[comm.rank, : len(x)] = x
    rows = comm.allreduce(rows)
    rows = rows[np.abs(rows).sum(-1) > 0]
    return rows.mean(axis=0), rows.var(axis=0)


def empty_stays_away(comm, x):
    return right_mean_var(comm, x) if len(x) else (np.zeros(x.shape[1]), np.ones(x.shape[1]))


def normalised_by(statistics):
    def forward(comm, x, weight, bias, eps):
        mean, var = statistics(comm, x)
        return weight * (x - mean) / np.sqrt(var + eps) + bias

    return forward


def mean_alone(comm, x):
    return right_mean_var(comm, x)[0], alone(comm, x)[1]


def without_eps(comm, x, weight, bias, eps):
    mean, var = right_mean_var(comm, x)
    return weight * (x - mean) / var**0.5 + bias


def eps_outside(comm, x, weight, bias, eps):
    mean, var = right_mean_var(comm, x)
    return weight * (x - mean) / (var**0.5 + eps) + bias


def without_the_root(comm, x, weight, bias, eps):
    mean, var = right_mean_var(comm, x)
    return weight * (x - mean) / (var + eps) + bias


def without_affine(comm, x, weight, bias, eps):
    mean, var = right_mean_var(comm, x)
    return (x - mean) / np.sqrt(var + eps)


def dx_of(sum_dy, sum_dy_x_hat, n, dy, x_hat, scale):
    return scale * (dy - sum_dy / n - x_hat * sum_dy_x_hat / n)


def dx_alone(comm, dy, x_hat, inv_std, weight):
    return dx_of(dy.sum(0), (dy * x_hat).sum(0), len(dy), dy, x_hat, weight * inv_std)


def all_sums(comm, dy, x_hat):
    return totals(comm, dy.sum(0), (dy * x_hat).sum(0), len(dy))


def dx_lost(comm, dy, x_hat, inv_std, weight):
    n = total(comm, len(dy))
    return dx_of(dy.sum(0), (dy * x_hat).sum(0), n, dy, x_hat, weight * inv_std)


def dx_local_n(comm, dy, x_hat, inv_std, weight):
    a, b, _ = all_sums(comm, dy, x_hat)
    return dx_of(a, b, len(dy), dy, x_hat, weight * inv_std)


def dx_times(factor):
    def dx(comm, dy, x_hat, inv_std, weight):
        a, b, n = all_sums(comm, dy, x_hat)
        return dx_of(a, b, n / factor(comm), dy, x_hat, weight * inv_std)

    return dx


def dx_no_mean(comm, dy, x_hat, inv_std, weight):
    _, b, n = all_sums(comm, dy, x_hat)
    return weight * inv_std * (dy - x_hat * b / n)


def dx_no_variance(comm, dy, x_hat, inv_std, weight):
    a, _, n = all_sums(comm, dy, x_hat)
    return weight * inv_std * (dy - a / n)


def dx_no_weight(comm, dy, x_hat, inv_std, weight):
    return dx_of(*all_sums(comm, dy, x_hat), dy, x_hat, inv_std)


def dx_signs(mean, var):
    def dx(comm, dy, x_hat, inv_std, weight):
        a, b, n = all_sums(comm, dy, x_hat)
        return dx_of(mean * a, var * b, n, dy, x_hat, weight * inv_std)

    return dx


def dx_from_every_row(comm, dy, x_hat, inv_std, weight):
    everybody = np.concatenate(comm.allgather(np.hstack([dy, x_hat])))
    dys, x_hats = np.hsplit(everybody, 2)
    return dx_of(dys.sum(0), (dys * x_hats).sum(0), len(dys), dy, x_hat, weight * inv_std)


def dx_three_calls(comm, dy, x_hat, inv_std, weight):
    n = total(comm, len(dy))
    return dx_of(total(comm, dy.sum(0)), total(comm, (dy * x_hat).sum(0)), n, dy, x_hat, weight * inv_std)


def dx_empty_stays_away(comm, dy, x_hat, inv_std, weight):
    return dx_no_weight(comm, dy, x_hat, inv_std * weight, 1) if len(dy) else dy


def sums(comm, dy, x_hat):
    return total(comm, (dy * x_hat).sum(0)), total(comm, dy.sum(0))


def reduced_twice(comm, dy, x_hat):
    n = total(comm, len(dy))
    return [total(comm, s) / n for s in sums(comm, dy, x_hat)]


def over_size(comm, dy, x_hat):
    return [s / comm.size for s in sums(comm, dy, x_hat)]


def mean_of_mean_gradients(comm, dy, x_hat):
    return total(comm, mean(dy * x_hat)) / comm.size, total(comm, mean(dy)) / comm.size


def other_order(comm, dy, x_hat):
    return [s / total(comm, len(dy)) for s in reversed(sums(comm, dy, x_hat))]


def one_rank_stays_away(comm, x):
    return right_mean_var(comm, x) if comm.rank else alone(comm, x)


WRONG = {
    "6.1": [
        (quietly(alone), "A lost all-reduce"),
        (quietly(mean_of_means), "the mean of means"),
        (mean_of_means_with_zeros, "as if it had rows"),
        (within_only, "*within* ranks"),
        (quietly(my_count), "a local count"),
        (quietly(as_many_as_i), "let it be counted"),
        (lambda comm, x: (total(comm, x.sum(0)) / total(comm, len(x)), x.sum(0)), "collective call"),
        (empty_stays_away, "could not finish"),
        (bessel, "unbiased"),
        (one_rank_stays_away, "could not finish"),
        (lambda comm, x: right_mean_var(comm, x)[0], "case 1"),
        (lambda comm, x: right_mean_var(comm, x)[::-1], "in another order"),
        (every_row, "uses allgather"),
        (all_rows_in_one_all_reduce, "brings 63 numbers"),
    ],
    "6.2": [
        (quietly(normalised_by(alone)), "on this rank alone"),
        (quietly(normalised_by(mean_of_means)), "Does your 6.1 pass"),
        (quietly(normalised_by(mean_alone)), "the variance is this rank's"),
        (normalised_by(bessel), "unbiased"),
        (normalised_by(empty_stays_away), "could not finish"),
        (without_eps, "where is eps"),
        (eps_outside, "belongs inside the root"),
        (without_the_root, "where is its root"),
        (without_affine, "weight and bias are missing"),
        (lambda comm, x, weight, bias, eps: x, "off by"),
        (lambda comm, x, weight, bias, eps: normalised_by(right_mean_var)(comm, x, weight, bias, 1e-5), "off by"),
        (lambda comm, x, weight, bias, eps: np.concatenate(comm.allgather(x)), "shape"),
    ],
    "6.3": [
        (quietly(dx_alone), "on this rank alone"),
        (dx_lost, "a lost all-reduce"),
        (quietly(dx_local_n), "the local count"),
        (dx_times(lambda comm: comm.size), "and then once more"),
        (dx_times(lambda comm: 1 / comm.size), "averaged over ranks"),
        (dx_no_mean, "path through the mean"),
        (dx_no_variance, "path through the variance"),
        (dx_no_weight, "through weight"),
        (dx_three_calls, "collective calls"),
        (dx_from_every_row, "uses allgather"),
        (dx_signs(-1, 1), "the mean is *subtracted*"),
        (dx_signs(1, -1), "a larger variance"),
        (lambda comm, dy, x_hat, s, w: dx_of(*all_sums(comm, dy, x_hat), dy, x_hat, w / s), "divided by inv_std"),
        (dx_empty_stays_away, "could not finish"),
        (lambda comm, dy, x_hat, inv_std, weight: weight * inv_std * dy, "off by"),
    ],
    "6.4": [
        (quietly(lambda comm, dy, x_hat: (mean(dy * x_hat), mean(dy))), "different nets"),
        (sums, "the *sum* of the losses"),
        (reduced_twice, "reduced twice"),
        (over_size, "which are not rows"),
        (quietly(mean_of_mean_gradients), "weighs more"),
        (quietly(lambda comm, dy, x_hat: [s / len(dy) for s in sums(comm, dy, x_hat)]), "the count of this rank alone"),
        (other_order, "in the other order"),
        (lambda comm, dy, x_hat: [0 * s for s in sums(comm, dy, x_hat)], "off by"),
        (lambda comm, dy, x_hat: sums(comm, dy, x_hat)[0], "expected 2"),
    ],
}
