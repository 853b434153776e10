"""A communicator that makes sure all ranks mean the same collective before they enter it."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from ..arrays import Array
from .base import Communicator
from .board import Board
from .calls import Call, code_lines, describe, finished, mismatch
from .mpi import MPICommunicator
from .wrapper import Wrapper


class CheckedCommunicator(Wrapper):
    """Compares every collective over the ranks, and names each rank's call when they differ.

    Ranks of one machine compare notes on a board in shared memory. Without a board (ranks on several machines, groups), the ranks
    first all-reduce the maximum of (h, -h), h a hash of operation, reduction, dtype and shape: 16 bytes. Its two halves agree
    exactly when all hashes do; only when they differ do the full descriptions travel. That is one small all-reduce a
    call, so benchmarks leave it off. Point-to-point calls pass unchecked: a receive without its send is the watchdog's business.

    Raises:
        CollectiveMismatchError: from the call in which ranks disagree; without a board on every rank, with one on at
            least one of them, before anything is sent.
    """

    def __init__(self, inner: Communicator, board: Board | None = None) -> None:
        super().__init__(inner)
        self.board = board
        self.calls = 0
        self.groups: list[CheckedCommunicator] = []

    def _agree(self, op: str, detail: str = "") -> None:
        self.calls += 1
        self._compare(Call(op, detail, self.calls, code_lines()))

    def _compare(self, call: Call) -> None:
        if self.board is not None:
            calls = self.board.pin(call)
        else:
            calls = self._exchange(call)
        if calls is not None:
            error = mismatch(calls)
            error.told_elsewhere = not self.board.accuse() if self.board else self.rank != 0
            raise error

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
        for communicator in (*self.groups, self):
            if communicator is self or communicator.board is not None:
                communicator._compare(finished(communicator.calls + 1))

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
        self._agree("bcast", f"root {root}")
        return self.inner._bcast(value, root)

    def _barrier(self) -> None:
        self._agree("barrier")
        self.inner._barrier()

    def _split(self, color: int | None, key: int) -> Communicator | None:
        self._agree("split")
        group = self.inner._split(color, key)
        if group is None:
            return None
        board = Board(group.mpi_comm) if self.board is not None and isinstance(group, MPICommunicator) else None
        self.groups.append(CheckedCommunicator(group, board))
        return self.groups[-1]
