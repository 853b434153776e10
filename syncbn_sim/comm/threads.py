"""Ranks as threads of this process: one lock, one meeting per collective, every mismatch and deadlock seen at once."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..arrays import Array
from .base import Communicator
from .calls import Asked, Call, finished, mismatch, not_its_own, on_rank, stopped, stuck
from .meeting import Group, MeetingCommunicator


class World:
    """What the threads share: who waits in which communicator, and the first failure. Its ranks are those among all.

    A rank that waits is asleep, on a lock of its own, and is woken once: when what it waits for is there, or by a failure. Of several
    woken together each wakes the next one, since all at once they would only queue for the interpreter.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.sleepers = [threading.Lock() for _ in range(size)]
        # Whom each rank wakes as soon as it has been woken itself.
        self.wakes_next: list[int | None] = [None] * size
        for sleeper in self.sleepers:
            sleeper.acquire()
        self.waiting: dict[int, ThreadCommunicator] = {}
        self.returned: dict[int, Call] = {}
        self.thread_ids = [0] * size
        self.global_ranks = range(size)
        self.failure: tuple[int | None, BaseException] | None = None

    def fail(self, rank: int | None, error: BaseException) -> None:
        """Keeps the first error, which comes out of `run`, and wakes everybody; call with the lock held."""
        if self.failure is None:
            self.failure = (rank, error if rank is None else on_rank(error, rank, self.size))
        self.wake(list(self.waiting))

    def check(self) -> None:
        """Stops this rank if another one has failed."""
        if self.failure is not None:
            raise stopped(*self.failure)

    def enter(self, rank: int) -> None:
        """Lets the thread of a rank into a call of that rank's communicator, and no other one; call with the lock held."""
        self.check()
        if threading.get_ident() != self.thread_ids[rank] or rank in self.returned:
            raise not_its_own(rank, "" if rank in self.returned else f"thread {threading.current_thread().name}")

    def will_sleep(self, comm: ThreadCommunicator) -> None:
        """Says that a rank will `sleep` now until it is woken; call with the lock held.

        A deadlock is known the moment nobody is left to run.
        """
        self.waiting[comm.world_rank] = comm
        self.check_deadlock()

    def sleep(self, rank: int) -> None:
        """Returns when this rank is woken, and has woken the next one; call without the lock, after `will_sleep`."""
        self.sleepers[rank].acquire()
        following = self.wakes_next[rank]
        if following is not None:
            self.sleepers[following].release()
        self.check()

    def wake(self, ranks: list[int]) -> None:
        """Lets ranks that wait run again: builds r0 -> r1 -> r2, and releases r0; call with the lock held."""
        for rank, following in zip(ranks, [*ranks[1:], None], strict=False):
            del self.waiting[rank]
            self.wakes_next[rank] = following
        if ranks:
            self.sleepers[ranks[0]].release()

    def call_of(self, comm: ThreadCommunicator) -> Call:
        """In words what a rank is in; the rank must stay in it meanwhile."""
        return comm.call(sys._current_frames()[self.thread_ids[comm.world_rank]])

    def finish(self, comm: ThreadCommunicator) -> None:
        """A rank, whose communicator among all this is, has returned from its function."""
        with self.lock:
            self.returned[comm.rank] = finished(comm.calls + 1)
            self.check_deadlock()

    def check_deadlock(self) -> None:
        """Fails the world if every rank waits or has returned."""
        if self.failure is None and self.waiting and len(self.waiting) + len(self.returned) == self.size:
            self.fail(None, stuck({rank: self.call_of(comm) for rank, comm in self.waiting.items()} | self.returned))


class ThreadCommunicator(MeetingCommunicator):
    """One thread's view of a group of threads.

    Sums are formed in rank order by the last rank to arrive, so they are the same bits at every run.
    Ranks that disagree are named at once; nothing can hang, but for a rank that computes for ever.
    """

    backend = "threads"
    _world: World

    def meet(self, asked: Asked, payload: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """All ranks bring a payload; the last one combines them in rank order; all leave with the result, or the error."""
        world, group, me = self._world, self.group, self.world_rank
        with world.lock:
            world.enter(me)
            self.asked = asked
            self.calls += 1
            last = group.arrive(self.rank, asked, payload)
            if last:
                others = [member for member in group.members if member != me]
                if not group.agreed:
                    comms = {member: self if member == me else world.waiting[member] for member in group.members}
                    world.fail(None, mismatch({member: world.call_of(comm) for member, comm in comms.items()}))
                    # Stops this rank as the others; the mismatch itself comes out of `run`.
                    world.check()
                group.conclude(combine)
                world.wake(others)
            else:
                world.will_sleep(self)
        if not last:
            world.sleep(me)
        # The next meeting cannot replace either before this rank has come there.
        if group.error is not None:
            raise group.error
        return group.result

    def _send(self, array: Array, dest: int, tag: int) -> None:
        world, receiver = self._world, self.group.members[dest]
        with world.lock:
            world.enter(self.world_rank)
            self.group.mail[self.rank, dest, tag].append(array.copy())
            if receiver in world.waiting and world.waiting[receiver].awaits(self.group, self.rank, tag):
                world.wake([receiver])

    def _recv(self, source: int, tag: int) -> Array:
        world = self._world
        with world.lock:
            world.enter(self.world_rank)
            box = self.group.mail[source, self.rank, tag]
            empty = not box
            if empty:
                self.asked = ("recv", source, tag)
                world.will_sleep(self)
        if empty:
            world.sleep(self.world_rank)
        return box.popleft()


def run(body: Callable[[Communicator], Any], ranks: int | None, checked: bool) -> list[Any]:
    """Runs body(comm) on so many threads (None: one); whatever `checked` says, calls are compared, since it costs nothing.

    Returns:
        The results by rank.

    Raises:
        Whatever the first failing rank has raised.
    """
    size = ranks or 1
    world = World(size)
    group = Group(list(range(size)), world)
    results: list[Any] = [None] * size

    def on_thread(rank: int) -> None:
        comm = ThreadCommunicator(group, rank)
        world.thread_ids[rank] = threading.get_ident()
        try:
            results[rank] = body(comm)
            world.finish(comm)
        except BaseException as error:
            with world.lock:
                world.fail(rank, error)

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
