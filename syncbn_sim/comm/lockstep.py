"""Thousands of ranks in one thread: each runs until its next collective or receive, then the next one runs.

Ranks are greenlets. There are no locks and no races: the order is the same in every run, and a mismatch or a deadlock is known the
moment nobody can go on. Sums are formed in rank order, so results are bit for bit those of threads.
"""

from __future__ import annotations

import contextvars
import copy
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..arrays import Array
from ..errors import CommunicatorError, DeadlockError, MissingDependencyError, RankAbortedError
from .base import REDUCIBLE, REDUCTIONS, Communicator, group_members, reduce_in_rank_order
from .calls import Asked, Call, finished, group_name, in_words, mismatch, not_its_own, on_rank, speaker

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
    """The ranks, whose turn it is, and what each one waits in."""

    def __init__(self, size: int, observer: Observer | None) -> None:
        self.hub: greenlet
        self.tasks: list[greenlet] = []
        self.awake: deque[greenlet] = deque()
        self.asked: list[Asked | None] = [None] * size
        self.calls = [0] * size
        # Their numbers among all ranks, if other processes have some too.
        self.names = list(range(size))
        self.running: int | None = None
        self.failure: BaseException | None = None
        self.observer, self.said = observer, 0

    def refuse(self, rank: int) -> NoReturn:
        """Raises the error for a call on the communicator of a rank that is not running."""
        raise not_its_own(self.names[rank], "" if self.running is None else f"rank {self.names[self.running]}")

    def sleep(self, rank: int) -> None:
        """Lets the next rank that is awake run; returns when this one has been woken, and its turn has come."""
        (self.awake.popleft() if self.awake else self.hub).switch()
        self.running = rank

    def call_of(self, rank: int) -> Call:
        """What a rank waits in, in words."""
        asked = self.asked[rank]
        if asked is None:
            return finished(self.calls[rank] + 1)
        frame = self.tasks[rank].gr_frame
        caller = frame and frame.f_back  # of sleep()
        group = caller.f_locals["self"].group.name if caller else ""
        return in_words(asked, self.calls[rank], frame, group)

    def stuck(self) -> CommunicatorError:
        """Why nobody can run."""
        calls = {self.names[rank]: self.call_of(rank) for rank in range(len(self.tasks))}
        if any(call.op == "recv" for call in calls.values()):
            lines = "".join(f"\n  rank {r}: {call}" for r, call in calls.items())
            do = f"Look for a recv whose send is missing or has another tag.{lines}"
            return DeadlockError("every rank waits", got="nobody to go on", expected="a rank that can", do=do)
        return mismatch(calls)

    def tell(self, op: str, source: int, dest: int | None, payload: Any) -> None:
        """Shows the observer what is being said."""
        if self.observer:
            array = payload.copy() if isinstance(payload, np.ndarray) else None
            self.observer(Message(self.said, op, source, dest, array))
            self.said += 1


class Group:
    """One communicator's meeting place."""

    def __init__(self, members: list[int], world: World, name: str = "") -> None:
        self.members, self.world, self.name = members, world, name
        self.slots: list[Any] = [None] * len(members)
        self.arrived = 0
        self.asked: Asked = ()
        self.agreed = True
        self.result: Any = None
        self.error: Exception | None = None
        self.mail: dict[tuple[int, int, int], deque[Array]] = defaultdict(deque)


class LockstepCommunicator(Communicator):
    """One greenlet's view of a group of them."""

    backend = "lockstep"

    def __init__(self, group: Group, rank: int) -> None:
        self.group, self._world = group, group.world
        self.rank, self.size = rank, len(group.members)
        self._world_rank = group.members[rank]

    def allreduce(self, array: object, op: str = "sum", out: Array | None = None) -> Array:
        """As `Communicator.allreduce`; an array that needs no preparation takes the short way, 1 us per rank."""
        if type(array) is np.ndarray and array.dtype in REDUCIBLE and op in REDUCTIONS:
            if out is None:
                return self._allreduce(array, op)
            if out is array and out.flags.c_contiguous:
                self._allreduce_into(array, op, out)
                return out
        return super().allreduce(array, op, out)

    def meet(self, asked: Asked, payload: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """All ranks bring a payload; the last one combines them in rank order; all leave with the result."""
        group, world = self.group, self._world
        me = self._world_rank
        if me != world.running:
            world.refuse(me)
        world.asked[me] = asked
        world.calls[me] += 1
        if world.observer:
            world.tell(asked[0], me, None, payload)
        if group.arrived == 0:
            group.asked, group.agreed = asked, True
        elif asked != group.asked:
            group.agreed = False
        group.slots[self.rank] = payload
        group.arrived += 1
        if group.arrived == self.size and group.agreed:
            group.arrived, group.error = 0, None
            try:
                group.result = combine(group.slots)
            except Exception as error:  # raised on every rank, as if each had combined by itself
                group.error = error
            world.awake.extend([world.tasks[member] for member in group.members])
        world.sleep(me)  # without agreement nobody wakes this group again, and the hub tells why
        if group.error is not None:
            raise group.error
        return group.result

    def _allreduce(self, array: Array, op: str) -> Array:
        return self._total(array, op).copy()

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        out[...] = self._total(array, op)

    def _total(self, array: Array, op: str) -> Array:
        asked = ("allreduce", op, array.dtype, array.shape, speaker.get())
        total: Array = self.meet(asked, array, lambda arrays: reduce_in_rank_order(arrays, op))
        return total

    def _allgather(self, array: Array) -> list[Array]:
        parts = self.meet(("allgather", array.dtype), array, lambda arrays: [a.copy() for a in arrays])
        return [part.copy() for part in parts]

    def _bcast(self, value: Any, root: int) -> Any:
        return copy.deepcopy(self.meet(("bcast", f"root {root}"), value, lambda values: copy.deepcopy(values[root])))

    def _barrier(self) -> None:
        self.meet(("barrier",), None, lambda _: None)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        world = self._world

        def groups(colors: list[tuple[int | None, int]]) -> dict[int, tuple[list[int], Group]]:
            found = {}
            for c in sorted({c for c, _ in colors if c is not None}):
                ranks = group_members(colors, c)
                members = [self.group.members[r] for r in ranks]
                name = group_name([world.names[m] for m in members], world.calls[self._world_rank])
                found[c] = (ranks, Group(members, world, name))
            return found

        by_color = self.meet(("split",), (color, key), groups)
        if color is None:
            return None
        ranks, group = by_color[color]
        return LockstepCommunicator(group, ranks.index(self.rank))

    def _send(self, array: Array, dest: int, tag: int) -> None:
        world, receiver = self._world, self.group.members[dest]
        if self._world_rank != world.running:
            world.refuse(self._world_rank)
        world.tell("send", self._world_rank, receiver, array)
        self.group.mail[self.rank, dest, tag].append(array.copy())
        if world.asked[receiver] == ("recv", self.rank, tag, id(self.group)):
            world.asked[receiver] = ("woken",)
            world.awake.append(world.tasks[receiver])

    def _recv(self, source: int, tag: int) -> Array:
        world, box = self._world, self.group.mail[source, self.rank, tag]
        if self._world_rank != world.running:
            world.refuse(self._world_rank)
        if not box:
            world.asked[self._world_rank] = ("recv", source, tag, id(self.group))
            world.sleep(self._world_rank)
        return box.popleft()


def run(
    fn: Callable[..., Any],
    ranks: int,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
    view: Callable[[LockstepCommunicator], Communicator] = lambda comm: comm,
) -> list[Any]:
    """Runs fn(comm, *args, **kwargs) on lockstep ranks; what `launch(backend="lockstep")` does, with an observer.

    Args:
        fn: called once per rank.
        ranks: how many, 1 to thousands.
        args: further positional arguments.
        kwargs: further keyword arguments.
        observer: called with each `Message` the moment it is said.
        view: what to give `fn` in place of a rank's communicator.

    Returns:
        The results by rank.

    Raises:
        CollectiveMismatchError, DeadlockError: with every rank's call and code line, the moment nobody can go on.
        MissingDependencyError: greenlet is not installed.
    """
    world = World(ranks, observer)
    group = Group(list(range(ranks)), world)
    results: list[Any] = [None] * ranks

    def rank_main(rank: int) -> None:
        comm = view(LockstepCommunicator(group, rank))
        world.names[rank], world.running = comm.rank, rank
        try:
            results[rank] = fn(comm, *args, **(kwargs or {}))
        except BaseException as error:
            world.failure = world.failure or on_rank(error, comm.rank, comm.size)
        world.asked[rank] = None

    _take_turns(world, rank_main, ranks)
    world.running = None
    if world.failure is None and not all(task.dead for task in world.tasks):
        world.failure = world.stuck()
    if world.failure is not None:
        _stop(world)
        raise world.failure
    return results


def _take_turns(world: World, rank_main: Callable[[int], None], ranks: int) -> None:
    """Starts a greenlet per rank, and lets them run until nobody can."""
    try:
        from greenlet import getcurrent, greenlet
    except ImportError as error:
        raise MissingDependencyError(
            "lockstep", got="no greenlet", expected="greenlet", do="pip install 'syncbn-sim[lockstep]'."
        ) from error
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


def _stop(world: World) -> None:
    """Unwinds the ranks that still wait, so that their `finally` and `with` blocks run."""
    for task in world.tasks:
        if task and not task.dead:
            task.throw(
                RankAbortedError(
                    "this rank was stopped", got="a failure", expected="all to go on", do="Read that error."
                )
            )
