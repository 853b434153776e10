"""Ranks of one process meet: all bring what they have, the last one combines it, and all leave with what came out."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..arrays import Array
from .base import Communicator, group_members, reduce_in_rank_order
from .calls import Asked, Call, group_name, in_words, speaker


class Group:
    """One communicator's meeting place.

    Attributes:
        members: its ranks, by their numbers in the world of this process.
        world: what all ranks of this process share.
        name: in words, where these are not all ranks.
        slots, arrived: what each of them has brought to this meeting, and how many have come.
        first_asked, agreed: the call that the first one means, and whether all do.
        result, error: what came out of the last meeting.
        mail: messages that nobody has received yet, by (source, dest, tag).
    """

    def __init__(self, members: list[int], world: Any, name: str = "") -> None:
        self.members, self.world, self.name = members, world, name
        self.slots: list[Any] = [None] * len(members)
        self.arrived = 0
        self.first_asked: Asked = ()
        self.agreed = True
        self.result: Any = None
        self.error: Exception | None = None
        self.mail: dict[tuple[int, int, int], deque[Array]] = defaultdict(deque)

    def arrive(self, rank: int, asked: Asked, payload: Any) -> bool:
        """Takes what a rank brings, and to which call; whether it is the last one."""
        if self.arrived == 0:
            self.first_asked, self.agreed = asked, True
        elif asked != self.first_asked:
            self.agreed = False
        self.slots[rank] = payload
        self.arrived += 1
        return self.arrived == len(self.slots)

    def conclude(self, combine: Callable[[list[Any]], Any]) -> None:
        """Keeps what comes out; an error is for every rank to raise, as if each had combined by itself."""
        payloads, self.slots, self.arrived = self.slots, [None] * len(self.slots), 0
        try:
            self.result, self.error = combine(payloads), None
        except Exception as error:
            self.result, self.error = None, error


class MeetingCommunicator(Communicator):
    """One rank's view of a group; a backend writes `meet` and messages.

    Attributes:
        group: where its ranks meet.
        world_rank: this rank's number in the world of this process.
        asked: what this rank has asked for last, and may wait for.
        calls: how many collectives this rank has begun.
    """

    def __init__(self, group: Group, rank: int) -> None:
        self.group, self._world = group, group.world
        self.rank, self.size = rank, len(group.members)
        self.world_rank: int = group.members[rank]
        self.asked: Asked = ()
        self.calls = 0

    @abstractmethod
    def meet(self, asked: Asked, payload: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """All ranks bring a payload; the last one combines them in rank order; all leave with the result, or the error."""

    def call(self, frame: FrameType | None) -> Call:
        """What this rank waits in, in words; `frame` is where it stands."""
        return in_words(self.asked, self.calls, frame, self.group.name)

    def awaits(self, group: Group, source: int, tag: int) -> bool:
        """Whether what this rank has asked for is such a message."""
        return self.group is group and self.asked == ("recv", source, tag)

    def _allreduce(self, array: Array, op: str) -> Array:
        return self.total(array, op).copy()

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        out[...] = self.total(array, op)

    def total(self, array: Array, op: str, then: Callable[[Array], Array] = lambda total: total) -> Array:
        """What comes out of an all-reduce, one array for all ranks; `then` makes more of it than their own, once for all of them."""
        asked = ("allreduce", op, array.dtype, array.shape, speaker.get())
        total: Array = self.meet(asked, array, lambda arrays: then(reduce_in_rank_order(arrays, op)))
        return total

    def _allgather(self, array: Array) -> list[Array]:
        parts = self.meet(("allgather", array.dtype), array, lambda arrays: [a.copy() for a in arrays])
        return [part.copy() for part in parts]

    def _bcast(self, value: Any, root: int) -> Any:
        return copy.deepcopy(self.meet(("bcast", f"root {root}"), value, lambda values: copy.deepcopy(values[root])))

    def _barrier(self) -> None:
        self.meet(("barrier",), None, lambda _: None)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        def groups(colors: list[tuple[int | None, int]]) -> dict[int, tuple[list[int], Group]]:
            found = {}
            for c in sorted({c for c, _ in colors if c is not None}):
                ranks = group_members(colors, c)
                members = [self.group.members[r] for r in ranks]
                name = group_name([self._world.global_ranks[m] for m in members], self.calls)
                found[c] = (ranks, Group(members, self._world, name))
            return found

        by_color = self.meet(("split",), (color, key), groups)
        if color is None:
            return None
        ranks, group = by_color[color]
        return type(self)(group, ranks.index(self.rank))
