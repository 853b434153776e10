"""Ranks inside processes: lockstep ranks in each of several MPI processes. Sums are formed inside first, then outside."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, CommunicatorError
from .base import Communicator, group_members
from .calls import group_name
from .lockstep import LockstepCommunicator
from .lockstep import run as run_lockstep
from .meeting import Group

# A group's ranks, their meeting place in this process, and, of whole processes, the communicator of these.
Place = tuple[list[int], Group, Communicator | None]


class HybridCommunicator(Communicator):
    """Rank p L + l: lockstep rank l of L in process p.

    Each collective is one meeting inside the process, whose last rank talks to the other processes for all of them.
    `split` makes groups inside one process, or of whole processes. Point-to-point talk is refused.
    """

    backend = "hybrid"

    def __init__(self, inner: LockstepCommunicator, outer: Communicator, members: Sequence[int] = ()) -> None:
        self.inner, self.outer = inner, outer
        self.rank = outer.rank * inner.size + inner.rank
        self.size = outer.size * inner.size
        # The ranks' numbers among all.
        self.members = members or range(self.size)

    def _allreduce(self, array: Array, op: str) -> Array:
        return self.inner.total(array, op, lambda inside: self.outer.allreduce(inside, op)).copy()

    def _allgather(self, array: Array) -> list[Array]:
        def combine(arrays: list[Array]) -> list[Array]:
            by_local_rank = [self.outer.allgather(a) for a in arrays]
            return [parts[process] for process in range(self.outer.size) for parts in by_local_rank]

        return [part.copy() for part in self.inner.meet(("allgather", array.dtype), array, combine)]

    def _bcast(self, value: Any, root: int) -> Any:
        process, local = divmod(root, self.inner.size)
        asked = ("bcast", f"root {root}")
        return copy.deepcopy(self.inner.meet(asked, value, lambda values: self.outer.bcast(values[local], process)))

    def _barrier(self) -> None:
        self.inner.meet(("barrier",), None, lambda _: self.outer.barrier())

    def _split(self, color: int | None, key: int) -> Communicator | None:
        """Groups inside a process become lockstep groups; groups of whole processes stay hybrid."""

        def combine(mine: list[tuple[int | None, int]]) -> dict[int, Place]:
            table = np.array([(-1 if c is None else c, k) for c, k in mine])
            pairs = [(None if c < 0 else int(c), int(k)) for c, k in np.concatenate(self.outer.allgather(table))]
            return self._groups(pairs)

        found = self.inner.meet(("split",), (color, key), combine)
        if color is None:
            return None
        members, group, outer = found[color]
        if outer is None:
            return LockstepCommunicator(group, members.index(self.rank))
        return HybridCommunicator(
            LockstepCommunicator(group, self.inner.rank), outer, [self.members[rank] for rank in members]
        )

    def _groups(self, pairs: list[tuple[int | None, int]]) -> dict[int, Place]:
        """For each color in which this process has part its members, their meeting place here, and the outer communicator, if any."""
        per_process, here = self.inner.size, self.outer.rank
        found: dict[int, tuple[list[int], Group]] = {}
        whole: int | None = None
        for color in sorted({c for c, _ in pairs if c is not None}):
            members = group_members(pairs, color)
            processes = {rank // per_process for rank in members}
            if len(processes) > 1 and (len(members) < per_process * len(processes) or members != sorted(members)):
                got, do = f"color {color} on ranks {members}", "Choose colors such as rank // ranks_per_process."
                inside = f"groups inside one process ({per_process} ranks each)"
                raise ArgumentError("split", got=got, expected=f"{inside}, or of whole processes in rank order", do=do)
            if here in processes:
                local = [self.inner.group.members[r % per_process] for r in members if r // per_process == here]
                name = group_name([self.members[rank] for rank in members], self.inner.calls)
                found[color] = (members, Group(local, self.inner.group.world, name))
                whole = color if len(processes) > 1 else whole
        outer = self.outer.split(whole)
        return {color: (*place, outer if color == whole else None) for color, place in found.items()}

    def _send(self, array: Array, dest: int, tag: int) -> None:
        self._refuse()

    def _recv(self, source: int, tag: int) -> Array:
        self._refuse()

    def _refuse(self) -> NoReturn:
        got = "a message between ranks inside processes"
        do = 'Use backend "lockstep" in one process, or one rank per process.'
        raise CommunicatorError("point-to-point", got=got, expected="collectives only", do=do)


def run(body: Callable[[Communicator], Any], ranks: int, outer: Communicator) -> list[Any]:
    """Runs body(comm) on so many ranks of this process, which talk to those of the others; a rank alone is its process."""
    if ranks == 1:
        return [body(outer)]
    return run_lockstep(body, ranks, view=lambda rank: HybridCommunicator(rank, outer))
