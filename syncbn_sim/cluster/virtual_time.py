"""Virtual time: unmodified code on lockstep ranks, each with a clock that messages and work move on."""

from __future__ import annotations

import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..comm.base import Communicator
from ..comm.calls import caller_file
from ..comm.lockstep import run
from ..comm.schedules import schedule_named
from ..comm.wrapper import Wrapper
from .links import Link, Topology

Clocks = dict[tuple[int, int, int], deque[float]]  # (source, dest, tag): when its messages arrive


class ClockCommunicator(Wrapper):
    """A communicator with a clock. A message of n bytes takes alpha + n beta; a receive ends when it has arrived, not before.

    A rank is busy while it sends; in a `sendrecv` sending and receiving overlap. An all-reduce runs message by message, by the
    schedule chosen.

    Attributes:
        now: this rank's clock, in seconds.
        waited: seconds spent waiting for messages of ranks that were late.
        talked: seconds inside all-reduces, waiting included, by the file that asked for them: "sync_batch_norm", "step", ...
    """

    def __init__(
        self,
        inner: Communicator,
        link: Link | Topology,
        schedule: str,
        arrivals: Clocks,
        slowness: float = 1.0,
        measured: bool = False,
    ) -> None:
        super().__init__(inner)
        self.link, self.slowness = link, slowness
        self.now = self.waited = 0.0
        self.talked: dict[str, float] = defaultdict(float)
        self._resumed = time.perf_counter() if measured else None
        self._schedule, self._arrivals = schedule_named(schedule), arrivals

    def work(self, seconds: float) -> None:
        """Computes for so long; a straggler (slowness above 1) takes longer."""
        self.now += seconds * self.slowness

    @contextmanager
    def _talk(self) -> Iterator[None]:
        """Adds the time computed since the last call, as measured, and books the time of this one."""
        if self._resumed is not None:
            self.work(time.perf_counter() - self._resumed)
        asked_by = caller_file(sys._getframe(3))
        begin = self.now
        yield
        self.talked[asked_by] += self.now - begin
        if self._resumed is not None:
            self._resumed = time.perf_counter()

    def allreduce(self, array: object, op: str = "sum", out: Array | None = None) -> Array:
        """As the schedule does it, message by message."""
        with self._talk():
            return super().allreduce(array, op, out)

    def sendrecv(self, array: object, dest: int, source: int, tag: int = 0) -> Array:
        """Both at once: ends when both are done."""
        start = self.now
        self.send(array, dest, tag)
        sent, self.now = self.now, start
        received = self.recv(source, tag)
        self.now = max(self.now, sent)
        return received

    def _allreduce(self, array: Array, op: str) -> Array:
        return self._schedule(self, array, op)

    def _send(self, array: Array, dest: int, tag: int) -> None:
        self.now += self.link.between(self.rank, dest).seconds(array.nbytes)
        self._arrivals[self.rank, dest, tag].append(self.now)
        self.inner.send(array, dest, tag)

    def _recv(self, source: int, tag: int) -> Array:
        array = self.inner.recv(source, tag)
        arrival = self._arrivals[source, self.rank, tag].popleft()
        lasts = self.link.between(source, self.rank).seconds(array.nbytes)
        # The last alpha + n beta of the message is its own time; what lies before it is waiting. A receiver takes messages one by one.
        begin = max(self.now, arrival - lasts)
        self.waited += begin - self.now
        self.now = begin + lasts
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
    arrivals: Clocks = defaultdict(deque)
    factors = np.ones(ranks) if slowness is None else np.asarray(slowness, np.float64)
    clocks: list[ClockCommunicator] = []

    def view(comm: Communicator) -> Communicator:
        clocks.append(ClockCommunicator(comm, link, schedule, arrivals, float(factors[comm.rank]), measured))
        return clocks[-1]

    results = run(fn, ranks, args, kwargs, view=view)
    by_rank = sorted(clocks, key=lambda c: c.rank)
    return Elapsed([c.now for c in by_rank], [dict(c.talked) for c in by_rank], [c.waited for c in by_rank], results)
