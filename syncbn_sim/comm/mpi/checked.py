"""A communicator that makes sure all ranks mean the same collective before they enter it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...arrays import Array
from ...errors import CollectiveMismatchError
from ..base import Communicator
from ..calls import Call, code_lines, describe, finished, group_name, mismatch, rank_name
from ..wrapper import Wrapper
from .board import Board
from .communicator import MPICommunicator
from .watchdog import the_watchdog


class CheckedCommunicator(Wrapper):
    """Compares every collective over the ranks, and names each rank's call when they differ.

    Ranks of one machine compare notes on a board in shared memory. Without a board (ranks on several machines, groups), the ranks
    first all-reduce the maximum of (h, -h), h a hash of operation, reduction, dtype and shape: 16 bytes. Its two halves agree
    exactly when all hashes do; only when they differ do the full descriptions travel. That is one small all-reduce per
    call, so benchmarks leave it off. Point-to-point calls pass unchecked: a receive without its send is the watchdog's business.

    A mismatch is the end, as on threads: a rank that catches it gets it again, in its next call or when its function returns.

    Args:
        inner: the communicator that does the work.
        board: of its ranks, if they share memory.
        inside: ranks in each process.

    Raises:
        CollectiveMismatchError: from the call in which ranks disagree; without a board on every rank, with one on at
            least one of them, before anything is sent.
    """

    def __init__(self, inner: Communicator, board: Board | None = None, inside: int = 1) -> None:
        super().__init__(inner)
        self.board, self.inside = board, inside
        self.members: Sequence[int] = range(inner.size)  # their numbers among all
        self.group = ""
        self.everybody = range(inner.size)
        self.calls = 0
        self.groups: list[CheckedCommunicator] = []
        self.failure: CollectiveMismatchError | None = None

    def name(self, rank: int) -> str:
        """One of its ranks in words, by its number among all."""
        return rank_name(self.members[rank], self.inside)

    def _agree(self, op: str, detail: str = "", needed: Sequence[int] | None = None) -> None:
        """Compares a call; `needed` are the ranks without which it cannot end, where that is not all."""
        self.calls += 1
        call = Call(op, detail, self.calls, code_lines(), self.group)
        self._compare(call)
        if self.board is not None:
            watchdog = the_watchdog()
            watchdog.awaited = (self.board, needed or self.everybody, watchdog.calls + 1, call)

    def _compare(self, call: Call) -> None:
        if self.failure is not None:
            raise self.failure
        if self.board is not None:
            calls = self.board.pin(call)
        else:
            calls = self._exchange(call)
        if calls is not None:
            found = {rank: replace(each, group=self.group) for rank, each in calls.items()}
            self.failure = mismatch(found, self.name)
            self.failure.told_elsewhere = not self.board.accuse() if self.board else self.rank != 0
            raise self.failure

    def _exchange(self, call: Call) -> dict[int, Call] | None:
        sign = zlib.crc32(f"{call.op} {call.detail}".encode())
        highest, lowest = self.inner.allreduce(np.array([sign, -sign]), "max")
        if highest == -lowest:
            return None
        text = [call.op, call.detail, str(call.number), call.where]
        sent = self.inner.allgather(np.frombuffer("\0".join(text).encode(), np.uint8))
        rows = [array.tobytes().decode().split("\0") for array in sent]
        return {r: Call(op, detail, int(number), where) for r, (op, detail, number, where) in enumerate(rows)}

    def finish(self) -> None:
        """Says that this rank's function has returned; a mismatch if another rank still wants to talk, in a group too."""
        for group in self.groups:
            if group.board is not None:
                group.finish()
        self._compare(finished(self.calls + 1))

    def _allreduce(self, array: Array, op: str) -> Array:
        self._agree("allreduce", describe(array, op))
        return self.inner._allreduce(array, op)

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        self._agree("allreduce", describe(array, op))
        self.inner._allreduce_into(array, op, out)

    def _allgather(self, array: Array) -> list[Array]:
        self._agree("allgather", str(array.dtype))
        return self.inner._allgather(array)

    def _bcast(self, value: Any, root: int) -> Any:
        self._agree("bcast", f"root {root}", [root])
        return self.inner._bcast(value, root)

    def _barrier(self) -> None:
        self._agree("barrier")
        self.inner._barrier()

    def _split(self, color: int | None, key: int) -> Communicator | None:
        self._agree("split")
        group = self.inner._split(color, key)
        if group is None:
            return None
        checked = CheckedCommunicator(group, inside=self.inside)
        if isinstance(group, MPICommunicator):
            checked.members = group.members
            if self.board is not None:
                with the_watchdog().watch("split"):
                    checked.board = Board(group.mpi_comm, checked.name)
        checked.group = group_name(checked.members, self.calls, self.inside)
        self.groups.append(checked)
        return checked
