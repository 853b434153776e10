"""Virtual time: unmodified code on lockstep ranks, each with a clock that messages and work move on."""

from __future__ import annotations

import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import Array
from ..comm.base import Communicator
from ..comm.calls import caller_file
from ..comm.lockstep import run
from ..comm.schedules import Schedule, schedule_named
from ..comm.wrapper import Wrapper
from .links import Link, Topology


@dataclass
class Clock:
    """A rank's clock, by which all its communicators go.

    Attributes:
        slowness: factor of its work.
        resumed: where the work is measured: when it has gone on; else None.
        now: seconds.
        waited: seconds spent waiting for messages of ranks that were late.
        talked: seconds inside all-reduces, waiting included, by the file that asked for them: "sync_batch_norm", "step", ...
    """

    slowness: float
    resumed: float | None
    now: float = 0.0
    waited: float = 0.0
    talked: dict[str, float] = field(default_factory=lambda: defaultdict(float))


@dataclass(frozen=True)
class Sent:
    """A message, and when it had arrived, in seconds."""

    arrived: float
    source: int
    dest: int
    bytes: int

    @property
    def round(self) -> int:
        """The round in which it arrived, from 1, on a link on which every message takes one second."""
        return int(self.arrived)


@dataclass(frozen=True)
class Traffic:
    """What the ranks of a run share.

    Attributes:
        link: of every pair of ranks, or a topology.
        schedule: how all-reduces are done.
        sent: gets every message as it arrives, if it is there.
        arrivals: when messages arrive, by (communicator, source, dest, tag).
    """

    link: Link | Topology
    schedule: Schedule
    sent: list[Sent] | None = None
    arrivals: dict[tuple[tuple[int, ...], int, int, int], deque[float]] = field(
        default_factory=lambda: defaultdict(deque)
    )


class ClockCommunicator(Wrapper):
    """A communicator with a clock. A message of n bytes takes alpha + n beta; a receive ends when it has arrived, not before.

    A rank is busy while it sends; in a `sendrecv` sending and receiving overlap. An all-reduce runs message by message, by the
    schedule chosen, in a group too. Other collectives take no time.
    """

    def __init__(
        self, inner: Communicator, clock: Clock, traffic: Traffic, members: Sequence[int], name: tuple[int, ...] = ()
    ) -> None:
        """For one rank.

        Args:
            inner: does the talking.
            clock: of this rank.
            traffic: of all ranks.
            members: the ranks of the communicator, by their numbers among all.
            name: by which `traffic` tells it from others: the splits that led to it.
        """
        super().__init__(inner)
        self.clock, self.traffic, self.members, self.name = clock, traffic, members, name
        self._splits = 0

    def work(self, seconds: float) -> None:
        """Computes for so long; a straggler (slowness above 1) takes longer."""
        self.clock.now += seconds * self.clock.slowness

    @contextmanager
    def _talk(self) -> Iterator[None]:
        """Adds the time computed since the last call, as measured, and books the time of this one."""
        clock = self.clock
        if clock.resumed is not None:
            self.work(time.perf_counter() - clock.resumed)
        asked_by = caller_file(sys._getframe(3))
        begin = clock.now
        yield
        clock.talked[asked_by] += clock.now - begin
        if clock.resumed is not None:
            clock.resumed = time.perf_counter()

    def allreduce(self, array: object, op: str = "sum", out: Array | None = None) -> Array:
        """As the schedule does it, message by message."""
        with self._talk():
            return super().allreduce(array, op, out)

    def sendrecv(self, array: object, dest: int, source: int, tag: int = 0) -> Array:
        """Both at once: ends when both are done."""
        start = self.clock.now
        self.send(array, dest, tag)
        sent, self.clock.now = self.clock.now, start
        received = self.recv(source, tag)
        self.clock.now = max(self.clock.now, sent)
        return received

    def _allreduce(self, array: Array, op: str) -> Array:
        return self.traffic.schedule(self, array, op)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        self._splits += 1
        group = self.inner.split(color, key)
        if group is None:
            return None
        members = [int(member) for member in group.allgather(np.array(self.members[self.rank]))]
        return ClockCommunicator(group, self.clock, self.traffic, members, (*self.name, self._splits))

    def _send(self, array: Array, dest: int, tag: int) -> None:
        me, other = self.members[self.rank], self.members[dest]
        self.clock.now += self.traffic.link.between(me, other).seconds(array.nbytes)
        self.traffic.arrivals[self.name, me, other, tag].append(self.clock.now)
        self.inner.send(array, dest, tag)

    def _recv(self, source: int, tag: int) -> Array:
        clock, traffic, me, other = self.clock, self.traffic, self.members[self.rank], self.members[source]
        array = self.inner.recv(source, tag)
        arrival = traffic.arrivals[self.name, other, me, tag].popleft()
        lasts = traffic.link.between(other, me).seconds(array.nbytes)
        # The last alpha + n beta of the message is its own time; what lies before it is waiting. A receiver takes messages one by one.
        begin = max(clock.now, arrival - lasts)
        clock.waited += begin - clock.now
        clock.now = begin + lasts
        if traffic.sent is not None:
            traffic.sent.append(Sent(clock.now, other, me, array.nbytes))
        return array


@dataclass(frozen=True)
class Elapsed:
    """What a run took: each rank's clock at the end, its time in all-reduces by file, its waiting, and what the function returned."""

    seconds: list[float]
    talked: list[dict[str, float]]
    waited: list[float]
    results: list[Any]

    def share(self, asked_by: str) -> float:
        """Part of all ranks' time inside the all-reduces of one file, such as "sync_batch_norm" or "step"."""
        return sum(talked.get(asked_by, 0.0) for talked in self.talked) / max(sum(self.seconds), 1e-300)

    @property
    def longest(self) -> float:
        """The clock of the last rank to finish."""
        return max(self.seconds)


def simulate(
    fn: Callable[..., Any],
    ranks: int,
    link: Link | Topology,
    schedule: str = "recursive_doubling",
    slowness: Sequence[float] | Array | None = None,
    measured: bool = False,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Elapsed:
    """Runs fn(comm, *args, **kwargs) on lockstep ranks in virtual time.

    Args:
        fn: any function of a communicator, such as a training step; `comm.work(seconds)` stands for computing.
        ranks: how many.
        link: of every pair of ranks, or a topology.
        schedule: how all-reduces are done.
        slowness: factor of each rank's work, 1 = as fast as the rest: stragglers.
        measured: let the time that each rank really computes between its all-reduces move its clock; else only `comm.work` does,
            for instance with FLOPs / (FLOP/s).
        args: further positional arguments.
        kwargs: further keyword arguments.
    """
    traffic, everybody = Traffic(link, schedule_named(schedule)), range(ranks)
    clocks = [Clock(float(factor), None) for factor in (np.ones(ranks) if slowness is None else slowness)]

    def view(comm: Communicator) -> Communicator:
        clock = clocks[comm.rank]
        clock.resumed = time.perf_counter() if measured else None
        return ClockCommunicator(comm, clock, traffic, everybody)

    results = run(lambda comm: fn(comm, *args, **(kwargs or {})), ranks, view=view)
    return Elapsed([c.now for c in clocks], [dict(c.talked) for c in clocks], [c.waited for c in clocks], results)
