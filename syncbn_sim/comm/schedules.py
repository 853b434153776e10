"""The all-reduce by hand: five ways to get the sum to everybody by sending messages, and what each one costs.

Each is a function of any communicator with point-to-point talk, for any number of ranks, and beside it stand its rounds: who counts
messages or seconds adds them up. Of p ranks, p2 is the largest power of two up to p, and r = p - p2 are to spare.

Sources: Thakur, Rabenseifner & Gropp (2005); Patarasuk & Yuan (2009) for the ring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..errors import named
from .base import REDUCTIONS, Communicator
from .wrapper import Wrapper

# Of their messages, that they meet none of the program's own: the largest that every MPI takes.
TAG = 32_767


@dataclass(frozen=True)
class Round:
    """Messages under way at the same time: a round lasts as long as its longest one.

    Attributes:
        messages: how many, of all ranks together.
        longest: numbers in the longest one.
        total: numbers in all of them.
        times: rounds like this, one after the other.
    """

    messages: int
    longest: int
    total: int
    times: int = 1


@dataclass(frozen=True)
class Schedule:
    """A way to do an all-reduce, called as schedule(comm, array, op="sum").

    Attributes:
        function: what each rank does.
        rounds: what that amounts to, in the order of time, for p ranks and an array of n numbers.
    """

    function: Callable[..., Array]
    rounds: Callable[[int, int], list[Round]]

    def __call__(self, comm: Communicator, array: Array, op: str = "sum") -> Array:
        """One rank's part."""
        return self.function(comm, array, op)


def star(comm: Communicator, array: Array, op: str = "sum") -> Array:
    """Everybody sends to rank 0, which combines in rank order and sends the result to each."""
    combine = REDUCTIONS[op]
    if comm.rank > 0:
        comm.send(array, 0, TAG)
        return comm.recv(0, TAG)
    total = array.copy()
    for rank in range(1, comm.size):
        combine(total, comm.recv(rank, TAG), out=total)
    for rank in range(1, comm.size):
        comm.send(total, rank, TAG)
    return total


def star_rounds(p: int, n: int) -> list[Round]:
    """All n numbers to rank 0, one rank after the other, and back."""
    return [Round(1, n, n, times=2 * (p - 1))]


def tree(comm: Communicator, array: Array, op: str = "sum") -> Array:
    """Up a binomial tree to rank 0, and down again: at distance 1, 2, 4, ... half of the ranks still there hand over and rest."""
    combine, total = REDUCTIONS[op], array.copy()
    distance, depth = 1, 1 << (comm.size - 1).bit_length()
    while distance < comm.size and comm.rank % (2 * distance) == 0:
        if comm.rank + distance < comm.size:
            combine(total, comm.recv(comm.rank + distance, TAG), out=total)
        distance *= 2
    if comm.rank > 0:
        parent = comm.rank - distance
        comm.send(total, parent, TAG)
        total = comm.recv(parent, TAG)
    else:
        distance = depth
    while distance > 1:  # the farthest child first: its own children are waiting
        distance //= 2
        if comm.rank + distance < comm.size:
            comm.send(total, comm.rank + distance, TAG)
    return total


def tree_rounds(p: int, n: int) -> list[Round]:
    """All n numbers up a tree of ceil(lg p) levels, and down: at distance d, from each rank d + 2 d k that there is."""
    senders = [(p - 1 - d) // (2 * d) + 1 for d in _doubling(p)]
    up = [Round(m, n, m * n) for m in senders]
    return [*up, *reversed(up)]


def recursive_doubling(comm: Communicator, array: Array, op: str = "sum") -> Array:
    """In round k every rank swaps all it has with the rank whose number differs in bit k. Fewest rounds; for short arrays."""

    def core(place: int, to: Callable[[int], int], total: Array, powers: int) -> Array:
        for distance in _doubling(powers):
            peer = to(place ^ distance)
            # Commutes, so both sides have the same bits.
            total = REDUCTIONS[op](total, comm.sendrecv(total, peer, peer, TAG))
        return total

    return _folded(comm, array, op, core)


def recursive_doubling_rounds(p: int, n: int) -> list[Round]:
    """Lists lg p2 rounds of all n numbers between ranks at distance 1, 2, 4, ..., and two more if r."""
    powers = _powers(p)
    return _folded_rounds(p, n, [Round(powers, n, powers * n) for _ in _doubling(powers)])


def ring(comm: Communicator, array: Array, op: str = "sum") -> Array:
    """The array in p pieces, and p - 1 times each rank passes one on to the right and adds what comes from the left.

    Then each piece is complete on one rank, and goes round once more.
    """
    p, rank = comm.size, comm.rank
    flat = array.reshape(-1).copy()
    pieces = np.array_split(flat, p)  # views
    right, left = (rank + 1) % p, (rank - 1) % p
    for step in range(p - 1):
        came = comm.sendrecv(pieces[(rank - step) % p], right, left, TAG)
        mine = pieces[(rank - step - 1) % p]
        REDUCTIONS[op](came, mine, out=mine)
    for step in range(p - 1):
        pieces[(rank - step) % p][:] = comm.sendrecv(pieces[(rank - step + 1) % p], right, left, TAG)
    return flat.reshape(array.shape)


def ring_rounds(p: int, n: int) -> list[Round]:
    """Lists 2 (p - 1) rounds in which each rank passes a piece on: all n numbers, and somebody has a longest piece of ceil(n / p)."""
    return [Round(p, -(-n // p), n, times=2 * (p - 1))]


def rabenseifner(comm: Communicator, array: Array, op: str = "sum") -> Array:
    """Recursive halving until each rank has the sum of one piece, then recursive doubling of pieces. For long arrays."""

    def core(place: int, to: Callable[[int], int], total: Array, powers: int) -> Array:
        flat = total.reshape(-1).copy()
        mine, splits = flat, []
        for distance in reversed(_doubling(powers)):
            middle, peer = mine.size // 2, to(place ^ distance)
            halves = mine[:middle], mine[middle:]  # views
            mine, theirs = halves if place & distance == 0 else halves[::-1]
            REDUCTIONS[op](mine, comm.sendrecv(theirs, peer, peer, TAG), out=mine)
            splits.append((mine, theirs, peer))
        for mine, theirs, peer in reversed(splits):
            theirs[:] = comm.sendrecv(mine, peer, peer, TAG)
        return flat.reshape(total.shape)

    return _folded(comm, array, op, core)


def rabenseifner_rounds(p: int, n: int) -> list[Round]:
    """Halves, quarters, ... of the n numbers, each pair all that it still has; the same way back; and two rounds more if r."""
    powers = _powers(p)
    halving = [Round(powers, -(-n // (2 * d)), powers // (2 * d) * n) for d in _doubling(powers)]
    return _folded_rounds(p, n, [*halving, *reversed(halving)])


def _folded(
    comm: Communicator, array: Array, op: str, core: Callable[[int, Callable[[int], int], Array, int], Array]
) -> Array:
    """Runs `core` on a power of two of places: of the first 2 r ranks each even one hands its array to its right neighbour and waits."""
    powers = _powers(comm.size)
    spare = comm.size - powers
    if comm.rank < 2 * spare and comm.rank % 2 == 0:
        comm.send(array, comm.rank + 1, TAG)
        return comm.recv(comm.rank + 1, TAG)
    total = array.copy()
    if comm.rank < 2 * spare:
        REDUCTIONS[op](comm.recv(comm.rank - 1, TAG), total, out=total)
    place = comm.rank // 2 if comm.rank < 2 * spare else comm.rank - spare
    total = core(place, lambda other: 2 * other + 1 if other < spare else other + spare, total, powers)
    if comm.rank < 2 * spare:
        comm.send(total, comm.rank - 1, TAG)
    return total


def _folded_rounds(p: int, n: int, core: list[Round]) -> list[Round]:
    """The r spare ranks hand their n numbers over before, and get the sum after."""
    spare = p - _powers(p)
    fold = [Round(spare, n, spare * n)] if spare else []
    return [*fold, *core, *fold]


def _powers(p: int) -> int:
    """Returns p2, the largest power of two up to p."""
    return 1 << (p.bit_length() - 1)


def _doubling(p: int) -> list[int]:
    """The distances 1, 2, 4, ... below p."""
    return [1 << k for k in range((p - 1).bit_length())]


SCHEDULES: dict[str, Schedule] = {
    "star": Schedule(star, star_rounds),
    "tree": Schedule(tree, tree_rounds),
    "recursive_doubling": Schedule(recursive_doubling, recursive_doubling_rounds),
    "ring": Schedule(ring, ring_rounds),
    "rabenseifner": Schedule(rabenseifner, rabenseifner_rounds),
}


@dataclass(frozen=True)
class Cost:
    """What one all-reduce costs: rounds on the longest path, messages and payload bytes of all ranks together."""

    rounds: int
    messages: int
    bytes: int


def cost(name: str, ranks: int, size: int) -> Cost:
    """The sum over the schedule's rounds, for an array of `size` bytes.

    Raises:
        ArgumentError: an unknown schedule.
    """
    rounds = schedule_named(name).rounds(ranks, size)
    return Cost(
        sum(r.times for r in rounds), sum(r.times * r.messages for r in rounds), sum(r.times * r.total for r in rounds)
    )


def schedule_named(name: str) -> Schedule:
    """The schedule of this name.

    Raises:
        ArgumentError: there is none; the nearest is suggested.
    """
    return named("schedule", name, SCHEDULES)


class ScheduledCommunicator(Wrapper):
    """A communicator whose all-reduce is one of the schedules; groups split from it use the same one."""

    def __init__(self, inner: Communicator, name: str) -> None:
        super().__init__(inner)
        self.name, self._schedule = name, schedule_named(name)

    def _allreduce(self, array: Array, op: str) -> Array:
        return self._schedule(self.inner, array, op)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        group = self.inner.split(color, key)
        return None if group is None else ScheduledCommunicator(group, self.name)


def using(comm: Communicator, name: str) -> ScheduledCommunicator:
    """Returns `comm` with its all-reduce done by the schedule of this name."""
    return ScheduledCommunicator(comm, name)
