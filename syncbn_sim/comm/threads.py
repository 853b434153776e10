"""Ranks as threads of this process: one lock, one meeting per collective, every mismatch and deadlock seen at once."""

from __future__ import annotations

import contextvars
import copy
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import DeadlockError, RankAbortedError
from .base import Communicator, group_members, reduce_in_rank_order
from .calls import Asked, Call, finished, group_name, in_words, mismatch, not_its_own, on_rank, speaker


class Waiting(NamedTuple):
    """What a rank waits in: the call, its number on its communicator, whose group that is, and for a message the mail box."""

    asked: Asked
    number: int
    group: Group
    box: object = None


class World:
    """What the threads share: who waits for what, and the first failure.

    A rank that waits is asleep, on a lock of its own, and is woken once: when what it waits for is there, or by a failure. Of several
    woken together each wakes the next one, since all at once they would only queue for the interpreter.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.sleepers = [threading.Lock() for _ in range(size)]
        # Whom each rank wakes as soon as it has been woken itself.
        self.next: list[int | None] = [None] * size
        for sleeper in self.sleepers:
            sleeper.acquire()
        self.waiting: dict[int, Waiting] = {}
        self.threads = [0] * size
        self.finished: dict[int, Call] = {}
        self.failure: tuple[int | None, BaseException] | None = None

    def fail(self, rank: int | None, error: BaseException) -> None:
        """Records the first error and wakes everybody; call with the lock held."""
        if self.failure is None:
            self.failure = (rank, error)
        self.wake(list(self.waiting))

    def check(self) -> None:
        """Stops this rank if another one has failed."""
        if self.failure is not None:
            rank, error = self.failure
            raise RankAbortedError(
                "this rank was stopped",
                got=f"{type(error).__name__} on {'a rank' if rank is None else f'rank {rank}'}",
                expected="all ranks to go on",
                do="Read that rank's traceback.",
            )

    def enter(self, rank: int) -> None:
        """Lets the thread of a rank into a call of that rank's communicator, and no other one; call with the lock held."""
        self.check()
        if threading.get_ident() != self.threads[rank] or rank in self.finished:
            raise not_its_own(rank, "" if rank in self.finished else f"thread {threading.current_thread().name}")

    def will_sleep(self, rank: int, waiting: Waiting) -> None:
        """Says that a rank will `sleep` now until it is woken; call with the lock held.

        A deadlock is known the moment nobody is left to run.
        """
        self.waiting[rank] = waiting
        self.check_deadlock()

    def sleep(self, rank: int) -> None:
        """Returns when this rank is woken; call without the lock, after `will_sleep`."""
        self.sleepers[rank].acquire()
        after = self.next[rank]
        if after is not None:
            self.sleepers[after].release()
        self.check()

    def wake(self, ranks: list[int]) -> None:
        """Lets ranks that wait run again; call with the lock held."""
        after = None
        for rank in reversed(ranks):
            del self.waiting[rank]
            self.next[rank], after = after, rank
        if after is not None:
            self.sleepers[after].release()

    def call_of(self, rank: int, asked: Asked, number: int, group: Group) -> Call:
        """In words what a rank is in; the rank must stay in it meanwhile."""
        return in_words(asked, number, sys._current_frames()[self.threads[rank]], group.name)

    def finish(self, rank: int, calls: int) -> None:
        """A rank has returned from its function."""
        with self.lock:
            self.finished[rank] = finished(calls + 1)
            self.check_deadlock()

    def check_deadlock(self) -> None:
        """Fails the world if every rank waits or has finished."""
        if self.failure is None and self.waiting and len(self.waiting) + len(self.finished) == self.size:
            waiting = {rank: self.call_of(rank, w.asked, w.number, w.group) for rank, w in self.waiting.items()}
            calls = {**waiting, **self.finished}
            if any(call.op == "recv" for call in waiting.values()):
                lines = "\n".join(f"  rank {r}: {call}" for r, call in sorted(calls.items()))
                error: Exception = DeadlockError(
                    "every rank waits",
                    got="nobody to go on",
                    expected="a rank that can",
                    do=f"Look for a recv whose send is missing or has another tag.\n{lines}",
                )
            else:
                error = mismatch(calls)
            self.fail(None, error)


@dataclass
class Group:
    """One communicator's meeting place: what each member brought, and what came out."""

    members: list[int]
    name: str = ""
    slots: dict[int, tuple[Asked, int, Any]] = field(default_factory=dict)
    result: Any = None
    mail: dict[tuple[int, int, int], deque[Array]] = field(default_factory=lambda: defaultdict(deque))


class ThreadCommunicator(Communicator):
    """One thread's view of a group of threads.

    Sums are formed in rank order by the last rank to arrive, so they are the same bits at every run.
    Ranks that disagree are named at once; nothing can hang.
    """

    backend = "threads"

    def __init__(self, world: World, group: Group, rank: int) -> None:
        self._world, self._group = world, group
        self.rank, self.size = rank, len(group.members)
        self.calls = 0
        world.threads[group.members[rank]] = threading.get_ident()

    def _meet(self, asked: Asked, payload: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """All ranks bring a payload; the last one combines them in rank order; all leave with the result."""
        self.calls += 1
        world, group, me = self._world, self._group, self._group.members[self.rank]
        with world.lock:
            world.enter(me)
            group.slots[self.rank] = (asked, self.calls, payload)
            last = len(group.slots) == self.size
            if last:
                self._combine(combine)
                world.wake([member for member in group.members if member != me])
            else:
                world.will_sleep(me, Waiting(asked, self.calls, group))
        if not last:
            world.sleep(me)
        return group.result  # the next meeting cannot replace it before this rank has come there

    def _combine(self, combine: Callable[[list[Any]], Any]) -> None:
        """Makes the result out of what all have brought, if all mean the same call."""
        world, group = self._world, self._group
        slots, group.slots = [group.slots[r] for r in range(self.size)], {}
        if any(asked != slots[0][0] for asked, _, _ in slots):
            said = zip(group.members, slots, strict=True)
            world.fail(None, mismatch({m: world.call_of(m, asked, number, group) for m, (asked, number, _) in said}))
            world.check()
        group.result = combine([payload for _, _, payload in slots])

    def _allreduce(self, array: Array, op: str) -> Array:
        result = np.empty_like(array)
        self._allreduce_into(array, op, result)
        return result

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        asked = ("allreduce", op, array.dtype, array.shape, speaker.get())
        out[...] = self._meet(asked, array, lambda arrays: reduce_in_rank_order(arrays, op))

    def _allgather(self, array: Array) -> list[Array]:
        copies = self._meet(("allgather", array.dtype), array, lambda arrays: [a.copy() for a in arrays])
        return [a.copy() for a in copies]

    def _bcast(self, value: Any, root: int) -> Any:
        sent = self._meet(("bcast", f"root {root}"), value, lambda values: copy.deepcopy(values[root]))
        return copy.deepcopy(sent)

    def _barrier(self) -> None:
        self._meet(("barrier",), None, lambda _: None)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        def groups(colors: list[tuple[int | None, int]]) -> dict[int, tuple[list[int], Group]]:
            found = {}
            for c in sorted({c for c, _ in colors if c is not None}):
                ranks = group_members(colors, c)
                members = [self._group.members[r] for r in ranks]
                found[c] = (ranks, Group(members, group_name(members, self.calls)))
            return found

        by_color = self._meet(("split",), (color, key), groups)
        if color is None:
            return None
        ranks, group = by_color[color]
        return ThreadCommunicator(self._world, group, ranks.index(self.rank))

    def _send(self, array: Array, dest: int, tag: int) -> None:
        world, group = self._world, self._group
        with world.lock:
            world.enter(group.members[self.rank])
            box, receiver = group.mail[self.rank, dest, tag], group.members[dest]
            box.append(array.copy())
            if receiver in world.waiting and world.waiting[receiver].box is box:
                world.wake([receiver])

    def _recv(self, source: int, tag: int) -> Array:
        world, group, me = self._world, self._group, self._group.members[self.rank]
        with world.lock:
            world.enter(me)
            box = group.mail[source, self.rank, tag]
            empty = not box
            if empty:
                world.will_sleep(me, Waiting(("recv", source, tag), self.calls, group, box))
        if empty:
            world.sleep(me)
        return box.popleft()


def run(body: Callable[[Communicator], Any], ranks: int | None, checked: bool) -> list[Any]:
    """Runs body(comm) on so many threads (None: one); calls are compared always, since it costs nothing.

    Returns:
        The results by rank.

    Raises:
        Whatever the first failing rank has raised.
    """
    size = ranks or 1
    world, group = World(size), Group(list(range(size)))
    results: list[Any] = [None] * size

    def on_thread(rank: int) -> None:
        comm = ThreadCommunicator(world, group, rank)
        try:
            results[rank] = body(comm)
            world.finish(rank, comm.calls)
        except BaseException as error:
            with world.lock:
                # Or, if this rank was stopped by an error, that one stays.
                world.fail(rank, on_rank(error, rank, size))

    # In a copy of the caller's context, so that settings such as np.errstate hold on the ranks too.
    threads = [
        threading.Thread(
            target=contextvars.copy_context().run, args=(on_thread, rank), name=f"rank-{rank}", daemon=True
        )
        for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive() and world.failure is None:
                thread.join(0.2)
    except KeyboardInterrupt as error:
        with world.lock:
            world.fail(None, error)
        raise
    if world.failure is not None:
        # They stop at their next call; one deep in its own work is left behind.
        deadline = time.monotonic() + 1.0
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise world.failure[1]
    return results
