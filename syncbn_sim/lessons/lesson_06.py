"""Exercises of lesson 06: synchronised batch norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array
from ..comm.base import Communicator
from ..functional import batch_norm as F
from ..stats.moments import Moments
from .exercise import Exercise, Mistake

EPS = 1e-5
Statistics = Callable[[Communicator, Array], tuple[Array, Array]]
# Uneven in each case, so that a mean of means is no mean; an empty rank in the last.
ROWS = ((2, 3, 7), (4, 2), (3, 0, 4))
CHANNELS = 3


def _everywhere(comm: Communicator, *numbers: Array) -> list[Array]:
    """Each array summed over the ranks."""
    return [comm.allreduce(np.asarray(array, np.float64)) for array in numbers]


def _mean_var(comm: Communicator, x: Array, unbiased: bool = False) -> tuple[Array, Array]:
    moments = Moments.unpack(comm.allreduce(F.local_moments(x).pack()))
    return moments.mean, moments.var(unbiased=unbiased)


def _from_sums(total: Array, total_sq: Array, count: int) -> tuple[Array, Array]:
    """Mean and variance, as NumPy has them where the count is 0 (NaN), but without its warnings."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / np.float64(count)
        return mean, total_sq / np.float64(count) - mean**2


def _own(comm: Communicator, x: Array) -> tuple[Array, Array]:
    return _from_sums(x.sum(0), (x**2).sum(0), len(x))


def _averaged(comm: Communicator, x: Array, empty: float = np.nan) -> tuple[Array, Array]:
    mean, var = _everywhere(comm, *np.nan_to_num(_own(comm, x), nan=empty))
    return mean / comm.size, var / comm.size


def _without_between(comm: Communicator, x: Array) -> tuple[Array, Array]:
    """The right mean, and the count-weighted mean of the ranks' variances."""
    mean, _ = _mean_var(comm, x)
    var, n = _everywhere(comm, len(x) * np.nan_to_num(_own(comm, x)[1]), np.array([len(x)]))
    return mean, var / n


def _unbiased(comm: Communicator, x: Array) -> tuple[Array, Array]:
    return _mean_var(comm, x, unbiased=True)


def _divided_by(count: Callable[[Communicator, Array], int]) -> Statistics:
    def mean_var(comm: Communicator, x: Array) -> tuple[Array, Array]:
        total, total_sq = _everywhere(comm, x.sum(0), (x**2).sum(0))
        return _from_sums(total, total_sq, count(comm, x))

    return mean_var


def _x_cases(rng: np.random.Generator) -> list[Any]:
    return [[(rng.normal(size=(n, 3)) + 2 * rank,) for rank, n in enumerate(rows)] for rows in ROWS]


MEAN_VAR = Exercise(
    number="6.1",
    name="sync_mean_var",
    start="nothing comes back yet. What three things about this rank's rows can be added over ranks, and are enough for mean and variance?",
    right=_mean_var,
    cases=_x_cases,
    mistakes=(
        Mistake(_own, "each rank has its own mean and variance: nothing has been said. A lost all-reduce."),
        Mistake(
            _averaged,
            "these are the mean of means and the mean of variances. A rank with 2 rows counts as much as one with 7, and the distance "
            "between ranks is lost.",
        ),
        Mistake(
            lambda comm, x: _averaged(comm, x, empty=0.0),
            "means of means and of variances, in which the rank without rows brings the mean 0 and the variance 0: as if it had rows.",
        ),
        Mistake(
            _without_between,
            "the mean is right. The variance is that *within* ranks: rows also differ because their ranks do (law of total variance).",
        ),
        Mistake(
            _divided_by(lambda comm, x: len(x)),
            "the sums are those of all ranks, and they are divided by the count of this one (a local count).",
        ),
        Mistake(
            _divided_by(lambda comm, x: comm.size * len(x)),
            "the sums are right. The count assumes that every rank has as many rows as this one: let it be counted.",
        ),
        Mistake(
            _unbiased,
            "the mean is right. This is the unbiased variance (n - 1), the one that is stored; what normalises divides by n.",
        ),
    ),
    done="the statistics of all rows after one conversation, and the rank without rows knows them too.",
    ranks=True,
    calls=1,
    numbers=4 * CHANNELS,
)


def _forward_with(
    statistics: Statistics, square: Callable[[Array, float], Array] = lambda var, eps: var + eps
) -> Callable[..., Array]:
    """The forward pass with those statistics; `square`: of what it divides by."""

    def forward(comm: Communicator, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        mean, var = statistics(comm, x)
        return F.scale_and_shift(F.standardize(x, mean, square(var, eps), 0.0)[0], weight, bias)

    return forward


def _forward_cases(rng: np.random.Generator) -> list[Any]:
    cases = []
    for rows, eps in zip(ROWS, (EPS, 1e-3, EPS), strict=True):
        weight, bias = rng.uniform(0.5, 2, 3), rng.normal(size=3)
        cases.append(
            [((rng.normal(size=(n, 3)) + rank) * [1, 3, 0.01], weight, bias, eps) for rank, n in enumerate(rows)]
        )
    return cases


FORWARD = Exercise(
    number="6.2",
    name="sync_forward",
    start="nothing comes back yet. With the mean and variance of all ranks in hand, it is lesson 02 again.",
    right=_forward_with(_mean_var),
    cases=_forward_cases,
    mistakes=(
        Mistake(_forward_with(_own), "that is batch norm on this rank alone: every rank's own mean becomes 0."),
        Mistake(
            _forward_with(_averaged),
            "right but for the statistics: these are averages of the ranks' means and variances. Does your 6.1 pass?",
        ),
        Mistake(
            _forward_with(lambda comm, x: (_mean_var(comm, x)[0], _own(comm, x)[1])),
            "the mean is synchronised, the variance is this rank's.",
        ),
        Mistake(
            _forward_with(_unbiased),
            "a little too narrow: the unbiased variance (n - 1) is for the running statistics.",
        ),
        Mistake(_forward_with(_mean_var, lambda var, eps: var), "close, but not for the narrow column: where is eps?"),
        Mistake(
            _forward_with(_mean_var, lambda var, eps: (np.sqrt(var) + eps) ** 2),
            "close, but not for the narrow column: eps belongs inside the root, beside the variance.",
        ),
        Mistake(
            _forward_with(_mean_var, lambda var, eps: (var + eps) ** 2), "divided by the variance: where is its root?"
        ),
        Mistake(
            lambda comm, x, weight, bias, eps: F.standardize(x, *_mean_var(comm, x), eps)[0],
            "x_hat is right. weight and bias are missing.",
        ),
    ),
    done="with the statistics of all ranks in hand no rank needs another: from there on it is each one's own rows.",
    ranks=True,
)


def _dx(local_sums: bool = False, local_n: bool = False, mean: float = 1.0, var: float = 1.0) -> Callable[..., Array]:
    """A backward pass, with this rank's sums or count where asked, and factors on the terms through mean and variance."""

    def backward(comm: Communicator, dy: Array, x_hat: Array, inv_std: Array, weight: Array) -> Array:
        local = F.local_backward_sums(dy, x_hat)
        total = F.BackwardSums.unpack(comm.allreduce(local.pack()))
        (n,) = comm.allreduce(np.array([float(len(dy))]))
        sums = local if local_sums else F.BackwardSums(mean * total.dy, var * total.dy_x_hat)
        return F.input_gradient(dy, x_hat, inv_std, weight, sums, len(dy) if local_n else n)

    return backward


def _dx_cases(rng: np.random.Generator) -> list[Any]:
    cases = []
    for rows in ROWS:
        x = rng.normal(size=(sum(rows), 3)) * [1, 2, 3]
        x_hat, inv_std = F.standardize(x, x.mean(0), x.var(0), EPS)
        weight, parts = rng.uniform(0.5, 2, 3), np.split(x_hat, np.cumsum(rows)[:-1])
        cases.append([(rng.normal(size=part.shape) + rank, part, inv_std, weight) for rank, part in enumerate(parts)])
    return cases


BACKWARD = Exercise(
    number="6.3",
    name="sync_backward",
    start="nothing comes back yet. Two sums and a count over all ranks, in one array; then the three terms of lesson 03.",
    right=_dx(),
    cases=_dx_cases,
    mistakes=(
        Mistake(
            _dx(local_sums=True, local_n=True),
            "this is the gradient of batch norm on this rank alone. The forward pass used the statistics of all ranks.",
        ),
        Mistake(
            _dx(local_sums=True),
            "the count is right, the sums are this rank's: a lost all-reduce. What is the adjoint of a sum over ranks?",
        ),
        Mistake(
            _dx(local_n=True),
            "the sums are right. They are divided by the local count: whose rows were averaged in the forward pass?",
        ),
        Mistake(
            lambda comm, *args: _dx(mean=comm.size, var=comm.size)(comm, *args),
            "the sums are too large by the number of ranks: all-reduced, and then once more?",
        ),
        Mistake(
            lambda comm, *args: _dx(mean=1 / comm.size, var=1 / comm.size)(comm, *args),
            "the sums have been averaged over ranks: there is no world size in the equation.",
        ),
        Mistake(_dx(mean=0), "one of three terms is missing: the path through the mean."),
        Mistake(_dx(var=0), "one of three terms is missing: the path through the variance."),
        Mistake(_dx(mean=-1), "a sign: the mean is *subtracted*, so its path takes away."),
        Mistake(_dx(var=-1), "a sign: a larger variance makes x_hat *smaller*, so its path takes away."),
        Mistake(
            lambda comm, dy, x_hat, inv_std, weight: _dx()(comm, dy, x_hat, 1 / inv_std, weight),
            "divided by inv_std, which is 1 over the standard deviation already.",
        ),
        Mistake(
            lambda comm, *args: _dx()(comm, *args[:3], np.ones(CHANNELS)),
            "right but for one factor: y depends on x_hat through weight.",
        ),
    ),
    done="one conversation backward, as there was one forward.",
    ranks=True,
    calls=1,
    numbers=4 * CHANNELS,
)


def _gradients(comm: Communicator, dy: Array, x_hat: Array) -> list[Array]:
    of_bias, of_weight, n = _everywhere(comm, *F.local_backward_sums(dy, x_hat), np.array([len(dy)]))
    return [of_weight / n, of_bias / n]


def _scaled(factor: Callable[[Communicator, float, float], float]) -> Callable[..., list[Array]]:
    """The right gradients times factor(comm, local n, n over all ranks)."""

    def gradients(comm: Communicator, dy: Array, x_hat: Array) -> list[Array]:
        (n,) = comm.allreduce(np.array([float(len(dy))]))
        with np.errstate(divide="ignore"):
            return [factor(comm, len(dy), n) * g for g in _gradients(comm, dy, x_hat)]

    return gradients


def _mean_of_local(comm: Communicator, dy: Array, x_hat: Array) -> list[Array]:
    return [g / comm.size for g in _everywhere(comm, *_own_mean_gradients(comm, dy, x_hat))]


def _own_mean_gradients(comm: Communicator, dy: Array, x_hat: Array) -> list[Array]:
    return [_own(comm, gradients)[0] for gradients in (dy * x_hat, dy)]


PARAMETERS = Exercise(
    number="6.4",
    name="parameter_gradients",
    start="nothing comes back yet. This rank's share is two sums over its rows; what is done with shares, and what is divided by, once?",
    right=_gradients,
    cases=lambda rng: [[arguments[:2] for arguments in case] for case in _dx_cases(rng)],
    mistakes=(
        Mistake(
            _own_mean_gradients, "every rank has its own gradient: after one step the replicas would be different nets."
        ),
        Mistake(_scaled(lambda comm, local, n: n), "that is the gradient of the *sum* of the losses. Divide it, once."),
        Mistake(_scaled(lambda comm, local, n: comm.size), "too large by the number of ranks: reduced twice."),
        Mistake(
            _scaled(lambda comm, local, n: n / comm.size),
            "divided by the number of ranks, which are not rows. With uneven ranks no factor of the world size is right.",
        ),
        Mistake(
            _mean_of_local,
            "an average of the ranks' mean gradients: a row on a rank with few weighs more than another. Sums first, one division.",
        ),
        Mistake(
            _scaled(lambda comm, local, n: n / local),
            "the sums are right, and divided by the count of this rank alone.",
        ),
        Mistake(
            lambda comm, dy, x_hat: _gradients(comm, dy, x_hat)[::-1],
            "both are right, in the other order: weight first, then bias.",
        ),
    ),
    done="the gradient of the mean over all rows. In a net the training step sums, for all parameters at once.",
    ranks=True,
)

EXERCISES = (MEAN_VAR, FORWARD, BACKWARD, PARAMETERS)
