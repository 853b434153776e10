"""What learners get wrong in lesson 05, and a word that the hint must contain (and no other hint of that exercise)."""

import numpy as np


def own_mean(comm, x):
    with np.errstate(all="ignore"):  # a rank may be empty
        return np.einsum("nc->c", x) / np.float64(len(x))


def mean_of_means(comm, x):
    return sum(comm.allgather(own_mean(comm, x))) / comm.size


def by_number_of_ranks(comm, x):
    return comm.allreduce(np.sum(x, axis=0)) * (1 / comm.size)


def by_own_count(comm, x):
    with np.errstate(all="ignore"):
        return comm.allreduce(np.sum(x, axis=0)) / x.shape[0]


def as_if_even(comm, x):
    with np.errstate(all="ignore"):
        return comm.allreduce(np.sum(x, axis=0)) / (comm.size * x.shape[0])


def empty_stays_away(comm, x):
    return comm.allreduce(x.sum(0)) / comm.allreduce(np.array([len(x)])) if len(x) else np.zeros(2)


def collected_only(comm, array):
    if comm.rank:
        comm.send(array, 0)
        return array
    return array + sum(comm.recv(rank) for rank in range(1, comm.size))


def collected_and_nothing(comm, array):
    if comm.rank:
        comm.send(array, 0)
        return None
    return array + sum(comm.recv(rank) for rank in range(1, comm.size))


def forgets_itself(comm, array):
    if comm.rank:
        comm.send(array, 0)
        return comm.recv(0)
    total = np.zeros_like(array)
    for rank in range(1, comm.size):
        total += comm.recv(rank)
    for rank in range(1, comm.size):
        comm.send(total, rank)
    return total


def goes_out_first(comm, array):
    if comm.rank:
        comm.send(array, 0)
        return comm.recv(0)
    for rank in range(1, comm.size):
        comm.send(array, rank)
    return array


def nobody_listens(comm, array):
    return comm.recv(0) if comm.rank else array + sum(comm.recv(rank) for rank in range(1, comm.size))


def largest_with_sign(comm, x):
    return comm.allreduce(np.max(x, axis=0, initial=0), "max")


def magnitudes(x):
    return np.max(np.abs(x), axis=0, initial=0)


def around(rounds, what=lambda total, carried, own: carried):
    def passed(comm, array):
        total, carried = array.copy(), array.copy()
        for _ in range(rounds(comm.size)):
            comm.send(what(total, carried, array), (comm.rank + 1) % comm.size)
            carried = comm.recv((comm.rank + comm.size - 1) % comm.size)
            total = total + carried
        return total

    return passed


def no_wrap(comm, array):
    comm.send(array, comm.rank + 1)
    return array + comm.recv(comm.rank - 1)


WRONG = {
    "5.1": [
        (own_mean, "heard of the others"),
        (mean_of_means, "none: NaN"),
        (
            lambda comm, x: comm.allreduce(own_mean(comm, x) if x.size else x.sum(0)) / comm.size,
            "counts as a mean of 0",
        ),
        (by_number_of_ranks, "number of ranks"),
        (by_own_count, "local one"),
        (as_if_even, "as many rows as this rank"),
        (lambda comm, x: sum(comm.allgather(own_mean(comm, x))), "it does not average"),
        (empty_stays_away, "could not finish"),
        (lambda comm, x: comm.allreduce(x.sum(0)), "off by"),
        (lambda comm, x: comm.allreduce(x), "could not finish"),
    ],
    "5.2": [
        (collected_only, "keeps it"),
        (lambda comm, array: array * 1.0, "own array: the all-reduce is lost"),
        (forgets_itself, "missing everywhere"),
        (goes_out_first, "before it has collected"),
        (lambda comm, array: around(lambda p: p - 1)(comm, array) / comm.size, "average"),
        (lambda comm, array: comm.allreduce(array), "collective call"),
        (lambda comm, array: sum(comm.allgather(array)), "collective call"),
        (collected_and_nothing, "the others nothing"),
        (nobody_listens, "every rank waits"),
    ],
    "5.3": [
        (lambda comm, x: magnitudes(x), "nobody has asked"),
        (lambda comm, x: comm.allreduce(magnitudes(x)), "added up"),
        (lambda comm, x: comm.allreduce(magnitudes(x), "min"), "wrong way round"),
        (largest_with_sign, "larger magnitude"),
        (lambda comm, x: -comm.allreduce(np.min(x, axis=0, initial=0), "min"), "off by"),
        (lambda comm, x: comm.allgather(magnitudes(x))[0], "rank 0's answer"),
        (lambda comm, x: comm.allreduce(np.max(np.abs(x), initial=0), "max"), "one number for all channels"),
        (lambda comm, x: comm.allreduce(np.abs(x).max(axis=0), "max"), "zero-size"),
        (lambda comm, x: comm.allreduce(magnitudes(x), "max") if len(x) else magnitudes(x), "could not finish"),
    ],
    "5.4": [
        (around(lambda p: p), "second time"),
        (around(lambda p: p - 2), "too few"),
        (around(lambda p: p - 1, lambda total, carried, own: total), "sum so far"),
        (around(lambda p: p - 1, lambda total, carried, own: own), "again and again"),
        (around(lambda p: 0), "nothing was added"),
        (no_wrap, "could not finish"),
        (lambda comm, array: comm.allreduce(array), "collective call"),
    ],
    "5.5": [
        (lambda p, n, alpha, beta: (2 * p - 2) * (alpha + beta * n), "whole array"),
        (lambda p, n, alpha, beta: (p - 1) * alpha + (p - 1) * n * beta / p, "way back"),
        (lambda p, n, alpha, beta: 2 * p * alpha + 2 * n * beta, "too many, twice"),
        (lambda p, n, alpha, beta: alpha + 2 * (n - n / p) * beta, "not only the first"),
        (lambda p, n, alpha, beta: np.ceil(np.log2(p)) * (alpha + beta * n), "recursive doubling"),
        (lambda p, n, alpha, beta: 2 * (p - 1) * alpha, "off by"),
    ],
}
