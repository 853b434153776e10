"""The all-reduce by hand: five ways to get the sum to everybody by sending messages, and what each one costs.

Each is a function of any communicator with point-to-point talk, for any number of ranks. With p ranks and n bytes, lg = log2, p2 the
largest power of two up to p and r = p - p2 ranks to spare, in alpha-beta terms (alpha a message, beta a byte):

    star                2 (p - 1) rounds                   all n bytes to rank 0, one rank after the other, and back
    binomial tree       2 ceil(lg p)                       all n bytes up a tree, and down
    recursive doubling  lg p2 (+ 2 if r)                   all n bytes with the neighbour at distance 1, 2, 4, ...
    ring                2 (p - 1)                          n / p bytes to the right, again and again
    Rabenseifner        2 lg p2 (+ 2 if r)                 n / 2, n / 4, ... bytes: reduce-scatter, then all-gather

Sources: Thakur, Rabenseifner & Gropp (2005); Patarasuk & Yuan (2009) for the ring.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..errors import unknown
from .base import REDUCTIONS, Communicator
from .wrapper import Wrapper

Schedule = Callable[..., Array]
TAG = 32_767  # of their messages, that they meet none of the program's own: the largest that every MPI takes


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


def recursive_doubling(comm: Communicator, array: Array, op: str = "sum") -> Array:
    """In round k every rank swaps all it has with the rank whose number differs in bit k. Fewest rounds; for short arrays."""

    def core(place: int, to: Callable[[int], int], total: Array, powers: int) -> Array:
        distance = 1
        while distance < powers:
            peer = to(place ^ distance)
            other = comm.sendrecv(total, peer, peer, TAG)
            total = REDUCTIONS[op](total, other)  # commutes, so both sides have the same bits
            distance *= 2
        return total

    return _folded(comm, array, op, core)


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


def rabenseifner(comm: Communicator, array: Array, op: str = "sum") -> Array:
    """Recursive halving until each rank has the sum of one piece, then recursive doubling of pieces. For long arrays."""

    def core(place: int, to: Callable[[int], int], total: Array, powers: int) -> Array:
        flat = total.reshape(-1).copy()
        low, high, distance = 0, flat.size, powers // 2
        splits = []
        while distance:
            middle = (low + high) // 2
            keeps_low = place & distance == 0
            mine, theirs = (
                (slice(low, middle), slice(middle, high)) if keeps_low else (slice(middle, high), slice(low, middle))
            )
            peer = to(place ^ distance)
            came = comm.sendrecv(flat[theirs], peer, peer, TAG)
            flat[mine] = REDUCTIONS[op](flat[mine], came)
            splits.append((mine, theirs, peer))
            low, high, distance = mine.start, mine.stop, distance // 2
        for mine, theirs, peer in reversed(splits):
            flat[theirs] = comm.sendrecv(flat[mine], peer, peer, TAG)
        return flat.reshape(total.shape)

    return _folded(comm, array, op, core)


def _folded(
    comm: Communicator, array: Array, op: str, core: Callable[[int, Callable[[int], int], Array, int], Array]
) -> Array:
    """Runs `core` on a power of two of places: of the first 2 r ranks each even one hands its array to its right neighbour and waits."""
    powers = 1 << (comm.size.bit_length() - 1)
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


SCHEDULES: dict[str, Schedule] = {
    "star": star,
    "tree": tree,
    "recursive_doubling": recursive_doubling,
    "ring": ring,
    "rabenseifner": rabenseifner,
}


@dataclass(frozen=True)
class Cost:
    """What one all-reduce costs: rounds on the longest path, messages and payload bytes of all ranks together."""

    rounds: int
    messages: int
    bytes: int


def cost(name: str, ranks: int, size: int) -> Cost:
    """The closed form for an array of `size` bytes.

    Raises:
        ArgumentError: an unknown schedule.
    """
    schedule_named(name)
    p = ranks
    powers = 1 << (p.bit_length() - 1)
    lg, spare = powers.bit_length() - 1, p - powers
    fold = 2 if spare else 0
    if name == "star":
        return Cost(2 * (p - 1), 2 * (p - 1), 2 * (p - 1) * size)
    if name == "tree":
        return Cost(2 * (p - 1).bit_length(), 2 * (p - 1), 2 * (p - 1) * size)
    if name == "recursive_doubling":
        messages = powers * lg + 2 * spare
        return Cost(lg + fold, messages, messages * size)
    if name == "ring":
        return Cost(2 * (p - 1), 2 * p * (p - 1), 2 * (p - 1) * size)
    return Cost(2 * lg + fold, 2 * powers * lg + 2 * spare, (2 * (powers - 1) + 2 * spare) * size)


def schedule_named(name: str) -> Schedule:
    """The schedule of this name.

    Raises:
        ArgumentError: there is none; the nearest is suggested.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    return SCHEDULES[name]


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
    """`comm` with its all-reduce done by the schedule of this name."""
    return ScheduledCommunicator(comm, name)


@dataclass(frozen=True)
class Sent:
    """One recorded message and the round in which it has arrived, counted from 1."""

    round: int
    source: int
    dest: int
    bytes: int


class Recorder(Wrapper):
    """Writes down every message with its round: a rank takes one round a send, a receive, or a sendrecv, and waits for its messages.

    `clocks` is shared by the recorders of all ranks, which have to live in one process.
    """

    def __init__(self, inner: Communicator, sent: list[Sent], clocks: dict[tuple[int, int], deque[int]]) -> None:
        super().__init__(inner)
        self.clock, self._sent, self._clocks = 0, sent, clocks

    def sendrecv(self, array: object, dest: int, source: int, tag: int = 0) -> Array:
        """One round for both."""
        start = self.clock
        self.send(array, dest, tag)
        self.clock = start
        return self.recv(source, tag)

    def _send(self, array: Array, dest: int, tag: int) -> None:
        self.clock += 1
        self._clocks[self.rank, dest].append(self.clock)
        self.inner.send(array, dest, tag)

    def _recv(self, source: int, tag: int) -> Array:
        array = self.inner.recv(source, tag)
        self.clock = max(self.clock + 1, self._clocks[source, self.rank].popleft())
        self._sent.append(Sent(self.clock, source, self.rank, array.nbytes))
        return array


def record(name: str, ranks: int, array: Array) -> list[Sent]:
    """All messages of one all-reduce of `array` over lockstep ranks, by round, for a table or a picture."""
    from .lockstep import run

    schedule, sent, clocks = schedule_named(name), list[Sent](), defaultdict[tuple[int, int], deque[int]](deque)
    run(lambda comm: schedule(Recorder(comm, sent, clocks), array), ranks)
    return sorted(sent, key=lambda m: (m.round, m.source, m.dest))
