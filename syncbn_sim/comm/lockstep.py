"""Thousands of ranks in one thread: each runs until its next collective or receive, then the next one runs.

Ranks are greenlets. There are no locks and no races: the order is the same in every run, and a mismatch or a deadlock is known the
moment nobody can go on. Sums are formed in rank order, so results are bit for bit those of threads.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..arrays import Array
from ..errors import CommunicatorError, not_installed
from .base import REDUCIBLE, REDUCTIONS, Communicator
from .calls import Asked, Call, finished, not_its_own, on_rank, stopped, stuck
from .meeting import Group, MeetingCommunicator

if TYPE_CHECKING:
    from greenlet import greenlet

Observer = Callable[["Message"], None]


@dataclass(frozen=True)
class Message:
    """One point-to-point message or one rank's part in a collective, as an observer sees it.

    Attributes:
        number: 0, 1, 2, ... in the order in which they were said.
        op: "send" or the name of the collective.
        source: the rank that says it.
        dest: the rank it goes to; None: all of the group.
        array: what is said (a copy), None where it is no array.
    """

    number: int
    op: str
    source: int
    dest: int | None
    array: Array | None


class World:
    """The ranks, whose turn it is, and in which communicator each one waits."""

    def __init__(self, size: int, observer: Observer | None) -> None:
        self.hub: greenlet
        self.tasks: list[greenlet] = []
        self.awake: deque[greenlet] = deque()
        # Where each rank waits, or has waited last: None before that, and once a message has woken it.
        self.waiting: list[LockstepCommunicator | None] = [None] * size
        self.returned: dict[int, Call] = {}
        # Who has met in different calls.
        self.disagreed: list[int] = []
        # Their numbers among all ranks, if other processes have some too.
        self.global_ranks = list(range(size))
        self.running: int | None = None
        self.failure: tuple[int | None, BaseException] | None = None
        self.observer, self.said = observer, 0

    def refuse(self, rank: int) -> NoReturn:
        """Raises the error for a call on the communicator of a rank that is not running."""
        user = "" if self.running is None else f"rank {self.global_ranks[self.running]}"
        raise not_its_own(self.global_ranks[rank], user)

    def sleep(self, rank: int) -> None:
        """Lets the next rank that is awake run; returns when this one has been woken, and its turn has come."""
        (self.awake.popleft() if self.awake else self.hub).switch()
        self.running = rank

    def stuck(self) -> CommunicatorError:
        """Why nobody can run."""
        waiting = {comm.world_rank: comm.call(self.tasks[comm.world_rank].gr_frame) for comm in self.waiting if comm}
        calls = waiting | self.returned
        return stuck({self.global_ranks[rank]: calls[rank] for rank in self.disagreed or calls})

    def tell(self, op: str, source: int, dest: int | None, payload: Any) -> None:
        """Shows the observer what is being said."""
        if self.observer:
            array = payload.copy() if isinstance(payload, np.ndarray) else None
            self.observer(Message(self.said, op, source, dest, array))
            self.said += 1


class LockstepCommunicator(MeetingCommunicator):
    """One greenlet's view of a group of them."""

    backend = "lockstep"
    _world: World

    def allreduce(self, array: object, op: str = "sum", out: Array | None = None) -> Array:
        """As `Communicator.allreduce`; an array that needs no preparation takes the short way past it."""
        if type(array) is np.ndarray and array.dtype in REDUCIBLE and op in REDUCTIONS:
            if out is None:
                return self._allreduce(array, op)
            if out is array and out.flags.c_contiguous:
                self._allreduce_into(array, op, out)
                return out
        return super().allreduce(array, op, out)

    def meet(self, asked: Asked, payload: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """All ranks bring a payload; the last one combines them in rank order; all leave with the result, or the error."""
        group, world, me = self.group, self._world, self.world_rank
        if me != world.running:
            world.refuse(me)
        world.waiting[me] = self
        self.asked = asked
        self.calls += 1
        if world.observer:
            world.tell(asked[0], me, None, payload)
        if group.arrive(self.rank, asked, payload):
            if group.agreed:
                group.conclude(combine)
                world.awake.extend([world.tasks[member] for member in group.members])
            else:
                # Nobody goes on, and the hub tells why.
                world.disagreed = group.members
                world.awake.clear()
        # The last one too: it queues behind the others.
        world.sleep(me)
        if group.error is not None:
            raise group.error
        return group.result

    def _send(self, array: Array, dest: int, tag: int) -> None:
        world, receiver = self._world, self.group.members[dest]
        if self.world_rank != world.running:
            world.refuse(self.world_rank)
        world.tell("send", self.world_rank, receiver, array)
        self.group.mail[self.rank, dest, tag].append(array.copy())
        comm = world.waiting[receiver]
        if comm is not None and comm.awaits(self.group, self.rank, tag):
            world.waiting[receiver] = None
            world.awake.append(world.tasks[receiver])

    def _recv(self, source: int, tag: int) -> Array:
        world, box = self._world, self.group.mail[source, self.rank, tag]
        if self.world_rank != world.running:
            world.refuse(self.world_rank)
        if not box:
            self.asked = ("recv", source, tag)
            world.waiting[self.world_rank] = self
            world.sleep(self.world_rank)
        return box.popleft()


def run(
    body: Callable[[Any], Any],
    ranks: int | None,
    checked: bool = True,
    observer: Observer | None = None,
    view: Callable[[LockstepCommunicator], Communicator] = lambda comm: comm,
) -> list[Any]:
    """Runs body(comm) on lockstep ranks; what `launch(backend="lockstep")` does, with an observer.

    Args:
        body: called once per rank.
        ranks: how many, 1 to thousands; None: one.
        checked: changes nothing: calls are compared always, since it costs nothing.
        observer: called with each `Message` the moment it is said.
        view: what to give `body` in place of a rank's communicator.

    Returns:
        The results by rank.

    Raises:
        CollectiveMismatchError, DeadlockError: with every rank's call and code line, the moment nobody can go on.
        MissingDependencyError: greenlet is not installed.
    """
    size = ranks or 1
    world = World(size, observer)
    group = Group(list(range(size)), world)
    results: list[Any] = [None] * size

    def rank_main(rank: int) -> None:
        own = LockstepCommunicator(group, rank)
        comm = view(own)
        world.global_ranks[rank], world.running = comm.rank, rank
        try:
            results[rank] = body(comm)
        except BaseException as error:
            world.failure = world.failure or (comm.rank, on_rank(error, comm.rank, comm.size))
        world.returned[rank] = finished(own.calls + 1)

    _take_turns(world, rank_main, size)
    world.running = None
    if world.failure is None and not all(task.dead for task in world.tasks):
        world.failure = None, world.stuck()
    if world.failure is not None:
        # Unwinds the ranks that still wait (a task is true from its start to its end), so that their `finally` and `with` blocks run.
        for task in filter(None, world.tasks):
            task.throw(stopped(*world.failure))
        raise world.failure[1]
    return results


def _take_turns(world: World, rank_main: Callable[[int], None], ranks: int) -> None:
    """Starts a greenlet per rank, and lets them run until nobody can."""
    try:
        from greenlet import getcurrent, greenlet
    except ImportError as error:
        raise not_installed("lockstep", "greenlet", "lockstep") from error
    world.hub = getcurrent()
    for rank in range(ranks):
        task = greenlet(partial(rank_main, rank))
        # So that np.errstate of the caller holds on the ranks.
        task.gr_context = contextvars.copy_context()
        world.tasks.append(task)
    # From here and not from one another: a greenlet starts as deep in the stack as its starter is.
    for task in world.tasks:
        if world.failure is None:
            task.switch()
    while world.awake and world.failure is None:
        world.awake.popleft().switch()
