"""Exercises of lesson 05: ranks and the all-reduce."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array
from ..cluster import Link, allreduce_seconds
from ..comm import Communicator, schedules
from ..stats.moments import Moments
from .exercise import Exercise, Mistake

Case = list[tuple[Any, ...]]  # the arguments by rank


def _uneven(rng: np.random.Generator) -> list[Case]:
    everybody = ((2, 7, 1), (4, 3), (3, 0, 4))  # the last with an empty rank
    return [[(rng.normal(size=(n, 2)) + place,) for place, n in enumerate(rows)] for rows in everybody]


def _over(total: Array, count: int) -> Array:
    """The total over a count, as NumPy has it where the count is 0, but without its warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return total / np.float64(count)


def _mean(comm: Communicator, x: Array) -> Array:
    return Moments.unpack(comm.allreduce(Moments.of(x).pack())).mean


def _local_mean(comm: Communicator, x: Array) -> Any:
    return _over(x.sum(axis=0), len(x))


GLOBAL_MEAN = Exercise(
    number="5.1",
    name="global_mean",
    start="nothing comes back yet. Which two sums does a mean consist of? Both have to be those of all ranks.",
    right=_mean,
    cases=_uneven,
    mistakes=(
        Mistake(
            _local_mean,
            "each rank has the mean of its own rows: there is no all-reduce in it, so nobody has heard of the others.",
        ),
        Mistake(
            lambda comm, x: comm.allreduce(_local_mean(comm, x)) / comm.size,
            "a mean of means: a rank with 1 row has as much say as one with 7 (none: NaN). What adds up without such trouble?",
        ),
        Mistake(
            lambda comm, x: comm.allreduce(_local_mean(comm, x) if len(x) else np.zeros(2)) / comm.size,
            "still a mean of means, in which the rank without rows counts as a mean of 0.",
        ),
        Mistake(
            lambda comm, x: comm.allreduce(x.sum(axis=0)) / comm.size,
            "the sum is that of all rows, but it is divided by the number of ranks. What should it be divided by?",
        ),
        Mistake(
            lambda comm, x: _over(comm.allreduce(x.sum(axis=0)), len(x)),
            "the sum is that of all rows, the count is the local one: the ranks do not even agree about the result.",
        ),
        Mistake(
            lambda comm, x: _over(comm.allreduce(x.sum(axis=0)), len(x) * comm.size),
            "this takes it that everybody has as many rows as this rank. Ask the others how many they have.",
        ),
        Mistake(
            lambda comm, x: comm.allreduce(_local_mean(comm, x)),
            "the means were added up, and then? An all-reduce adds; it does not average.",
        ),
    ),
    done="the mean of all rows, on the rank that has none too. (Sum and count fit in one vector, so one all-reduce is enough.)",
    ranks=True,
)


def _arrays(rng: np.random.Generator) -> list[Case]:
    return [[(rng.normal(size=3) + rank,) for rank in range(ranks)] for ranks in (4, 3, 1)]


def _own(comm: Communicator, array: Array) -> Array:
    return array


def _collected(comm: Communicator, array: Array) -> Array:
    """The sum on rank 0, as if the way back were missing."""
    total = schedules.star(comm, array)
    return total if comm.rank == 0 else array


def _collected_and_nothing(comm: Communicator, array: Array) -> Array | None:
    total = _collected(comm, array)
    return None if comm.rank else total


def _rank_0s(comm: Communicator, array: Array) -> Array:
    return schedules.star(comm, array if comm.rank == 0 else 0 * array)


def _without_rank_0(comm: Communicator, array: Array) -> Array:
    return schedules.star(comm, array if comm.rank > 0 else 0 * array)


STAR = Exercise(
    number="5.2",
    name="star",
    start="nothing comes back yet. Two parts: what rank 0 does, and what all others do.",
    right=schedules.star,
    cases=_arrays,
    mistakes=(
        Mistake(_collected, "rank 0 has the sum, and keeps it: the others still hold what they brought."),
        Mistake(
            _collected_and_nothing,
            "rank 0 returns the sum, the others nothing: an all-reduce ends with it on every rank.",
        ),
        Mistake(_own, "everybody still holds their own array: the all-reduce is lost. Nothing was added to anything."),
        Mistake(
            _without_rank_0,
            "one rank's numbers are missing everywhere: rank 0 receives from all others, but brings something itself.",
        ),
        Mistake(_rank_0s, "everybody has rank 0's array: it goes out before it has collected anything."),
        Mistake(
            lambda comm, array: schedules.star(comm, array) / comm.size, "the sum was wanted; this is the average."
        ),
    ),
    done="no collective call in it. A star takes 2 (p - 1) messages, all of them through rank 0: all wait for it.",
    ranks=True,
    calls=0,
)


def _with_an_empty_rank(rng: np.random.Generator) -> list[Case]:
    """The largest magnitude is negative in one channel, positive in the other."""
    far = np.array([-2.0, 2.0])
    return [
        [(rng.normal(size=(n, 2)) + far * place,) for place, n in enumerate(rows)] for rows in ((2, 5, 3), (3, 0, 4))
    ]


def _largest(x: Array) -> Any:
    return np.abs(x).max(axis=0, initial=0.0)


LARGEST = Exercise(
    number="5.3",
    name="largest",
    start="nothing comes back yet. An all-reduce can do more than add: look at its second argument.",
    right=lambda comm, x: comm.allreduce(_largest(x), "max"),
    cases=_with_an_empty_rank,
    mistakes=(
        Mistake(lambda comm, x: _largest(x), "each rank has its own largest number: nobody has asked the others."),
        Mistake(
            lambda comm, x: comm.allreduce(_largest(x)),
            "the ranks' largest numbers were added up. That is what an all-reduce does unless told otherwise.",
        ),
        Mistake(
            lambda comm, x: comm.allreduce(_largest(x), "min"),
            "the smallest of the ranks' largest numbers: the wrong way round.",
        ),
        Mistake(
            lambda comm, x: comm.allreduce(x.max(axis=0, initial=0.0), "max"),
            "the largest number was found, but -7 has a larger magnitude than 3.",
        ),
        Mistake(
            lambda comm, x: comm.bcast(_largest(x)),
            "everybody has rank 0's answer. What if the largest number is elsewhere?",
        ),
        Mistake(
            lambda comm, x: comm.allreduce(np.abs(x).max(initial=0.0), "max"),
            "one number for all channels: along which axis are the rows?",
        ),
    ),
    done="for the rank without rows: 0 changes no maximum of magnitudes, just as it changes no sum.",
    ranks=True,
)


def _rounds(comm: Communicator, array: Array, rounds: int) -> Array:
    total, carried = array.copy(), array
    for _ in range(rounds):
        carried = comm.sendrecv(carried, (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size)
        total += carried
    return total


def _sends_the_total(comm: Communicator, array: Array) -> Array:
    total = array.copy()
    for _ in range(comm.size - 1):
        total += comm.sendrecv(total, (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size)
    return total


def _sends_its_own(comm: Communicator, array: Array) -> Array:
    left = comm.sendrecv(array, (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size)
    return array + (comm.size - 1) * left


PASS_AROUND = Exercise(
    number="5.4",
    name="pass_around",
    start="nothing comes back yet. Who is right of the last rank? Then: how many times must an array move on until all have seen it?",
    right=lambda comm, array: _rounds(comm, array, comm.size - 1),
    cases=lambda rng: [*_arrays(rng)[:2], [(rng.normal(size=2),) for _ in range(5)]],
    mistakes=(
        Mistake(
            lambda comm, array: _rounds(comm, array, comm.size),
            "one round too many: each array has come home, and its owner has added it a second time.",
        ),
        Mistake(
            lambda comm, array: _rounds(comm, array, comm.size - 2),
            "one round too few: your right neighbour's array has not reached you yet.",
        ),
        Mistake(
            _sends_the_total,
            "some arrays are in it many times: you pass on the sum so far. Pass on what has just come in.",
        ),
        Mistake(
            _sends_its_own,
            "your left neighbour's array is in it again and again: everybody sends their own one each time.",
        ),
        Mistake(_own, "everybody still holds their own array: nothing was added."),
    ),
    done="no collective call in it. A ring of whole arrays takes p - 1 rounds. The ring of this lesson sends pieces instead: twice "
    "the rounds, but a p-th of the bytes in each.",
    ranks=True,
    calls=0,
)


def _ring(ranks: int, size: int, alpha: float, beta: float) -> float:
    return allreduce_seconds("ring", ranks, size // 8, Link(alpha, beta, "an exercise"))


RING_TIME = Exercise(
    number="5.5",
    name="ring_time",
    start="nothing comes back yet. Count the rounds; then ask how long one of them lasts.",
    right=_ring,
    cases=lambda rng: [(4, 320, 2.0, 0.05), (16, 128 * 1024, 1.5, 2e-5), (10, 8000, 3.0, 0.01)],
    mistakes=(
        Mistake(
            lambda p, n, alpha, beta: 2 * (p - 1) * (alpha + n * beta),
            "that would be the whole array in every round. How long is a piece?",
        ),
        Mistake(
            lambda p, n, alpha, beta: (p - 1) * (alpha + n / p * beta),
            "after that the sums are complete, each piece on one rank only: the way back to all is missing.",
        ),
        Mistake(
            lambda p, n, alpha, beta: 2 * p * (alpha + n / p * beta),
            "one round too many, twice: a piece that starts with you is complete before it comes home.",
        ),
        Mistake(
            lambda p, n, alpha, beta: alpha + 2 * (p - 1) * n / p * beta,
            "the bytes are right, the latency is not: every message pays it, not only the first.",
        ),
        Mistake(
            lambda p, n, alpha, beta: math.ceil(math.log2(p)) * (alpha + n * beta),
            "that is recursive doubling, or nearly. In a ring nobody can reach beyond a neighbour.",
        ),
    ),
    done="the second part, 2 n beta (p - 1) / p, hardly grows with p: good for long arrays. The first does: bad for short ones.",
)

EXERCISES = (GLOBAL_MEAN, STAR, LARGEST, PASS_AROUND, RING_TIME)
