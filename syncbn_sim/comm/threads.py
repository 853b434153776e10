"""Ranks as threads of this process: one lock, one meeting a collective, every mismatch and deadlock seen at once."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import DeadlockError, RankAbortedError
from .base import Communicator, group_members, reduce_in_rank_order
from .calls import Call, code_lines, describe, finished, mismatch


class World:
    """What the threads share: who waits where, and the first failure."""

    def __init__(self, size: int) -> None:
        lock = threading.Lock()
        self.size = size
        self.lock = lock
        self.wake = [threading.Condition(lock) for _ in range(size)]
        self.waiting: dict[int, Call] = {}
        self.finished: dict[int, Call] = {}
        self.failure: tuple[int | None, BaseException] | None = None

    def fail(self, rank: int | None, error: BaseException) -> None:
        """Records the first error and wakes everybody; call with the lock held."""
        if self.failure is None:
            self.failure = (rank, error)
        for condition in self.wake:
            condition.notify_all()

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

    def wait(self, rank: int, call: Call, ready: Callable[[], bool]) -> None:
        """Sleeps until `ready()`, or until some rank fails; a deadlock is known the moment nobody is left to run."""
        while not ready():
            self.waiting[rank] = call
            self.check_deadlock()
            if self.failure is None:
                self.wake[rank].wait()
            self.check()

    def release(self, ranks: list[int]) -> None:
        """Marks ranks as able to run again and wakes them."""
        for rank in ranks:
            self.waiting.pop(rank, None)
            self.wake[rank].notify()

    def finish(self, rank: int, calls: int) -> None:
        """A rank has returned from its function."""
        with self.lock:
            self.finished[rank] = finished(calls + 1)
            self.check_deadlock()

    def check_deadlock(self) -> None:
        """Fails the world if every rank waits or has finished."""
        if self.failure is None and self.waiting and len(self.waiting) + len(self.finished) == self.size:
            calls = {**self.waiting, **self.finished}
            if any(call.op == "recv" for call in self.waiting.values()):
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
    slots: dict[int, tuple[Call, Any]] = field(default_factory=dict)
    generation: int = 0
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

    def _meet(self, op: str, detail: str, payload: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """All ranks bring a payload; the last one combines them in rank order; all leave with the result."""
        self.calls += 1
        call = Call(op, detail, self.calls, code_lines())
        world, group = self._world, self._group
        with world.lock:
            world.check()
            group.slots[self.rank] = (call, payload)
            if len(group.slots) < self.size:
                generation = group.generation
                world.wait(group.members[self.rank], call, lambda: group.generation != generation)
                return group.result
            slots = [group.slots[r] for r in range(self.size)]
            if any(other != call for other, _ in slots):
                error = mismatch({group.members[r]: other for r, (other, _) in enumerate(slots)})
                world.fail(None, error)
                world.check()
            group.result = combine([payload for _, payload in slots])
            group.slots, group.generation = {}, group.generation + 1
            world.release([m for m in group.members if m != group.members[self.rank]])
            return group.result

    def _allreduce(self, array: Array, op: str) -> Array:
        result = self._meet("allreduce", describe(array, op), array, lambda arrays: reduce_in_rank_order(arrays, op))
        return np.asarray(result.copy())

    def _allgather(self, array: Array) -> list[Array]:
        copies = self._meet("allgather", str(array.dtype), array, lambda arrays: [a.copy() for a in arrays])
        return [a.copy() for a in copies]

    def _bcast(self, value: Any, root: int) -> Any:
        sent = self._meet("bcast", f"root {root}", value, lambda values: copy.deepcopy(values[root]))
        return copy.deepcopy(sent)

    def _barrier(self) -> None:
        self._meet("barrier", "", None, lambda _: None)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        def groups(colors: list[tuple[int | None, int]]) -> dict[int, tuple[list[int], Group]]:
            found = {}
            for c in sorted({c for c, _ in colors if c is not None}):
                ranks = group_members(colors, c)
                found[c] = (ranks, Group([self._group.members[r] for r in ranks]))
            return found

        by_color = self._meet("split", "", (color, key), groups)
        if color is None:
            return None
        ranks, group = by_color[color]
        return ThreadCommunicator(self._world, group, ranks.index(self.rank))

    def _send(self, array: Array, dest: int, tag: int) -> None:
        world, group = self._world, self._group
        with world.lock:
            world.check()
            group.mail[self.rank, dest, tag].append(array.copy())
            receiver = group.members[dest]
            waits = world.waiting.get(receiver)
            if waits is not None and waits.op == "recv":
                world.release([receiver])

    def _recv(self, source: int, tag: int) -> Array:
        world, group = self._world, self._group
        call = Call("recv", f"from rank {source}, tag {tag}", self.calls, code_lines())
        with world.lock:
            world.check()
            box = group.mail[source, self.rank, tag]
            world.wait(group.members[self.rank], call, lambda: bool(box))
            return box.popleft()
