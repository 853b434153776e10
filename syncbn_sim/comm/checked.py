"""A communicator that makes sure all ranks mean the same collective before they enter it."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from ..arrays import Array
from .base import Communicator
from .calls import Call, code_lines, finished, mismatch


class CheckedCommunicator(Communicator):
    """Compares every collective over the ranks, and names each rank's call when they differ.

    Before each call the ranks all-reduce the maximum of (h, -h), h a hash of operation, reduction,
    dtype and shape: 16 bytes. Its two halves agree exactly when all hashes do. Only when they differ do the
    full descriptions travel. Costs one small all-reduce a call, so benchmarks leave it off. Point-to-point
    calls pass unchecked: a receive without its send is the watchdog's business.

    Raises:
        CollectiveMismatchError: on every rank, from the call in which they disagree.
    """

    def __init__(self, inner: Communicator) -> None:
        self.inner = inner
        self.rank, self.size, self.backend = inner.rank, inner.size, inner.backend
        self.calls = 0

    def _agree(self, op: str, detail: str = "") -> None:
        self.calls += 1
        self._compare(Call(op, detail, self.calls, ""))

    def _compare(self, call: Call) -> None:
        sign = zlib.crc32(f"{call.op} {call.detail}".encode())
        highest, lowest = self.inner.allreduce(np.array([sign, -sign]), "max")
        if highest != -lowest:
            text = [call.op, call.detail, str(call.number), call.where or code_lines()]
            sent = self.inner.allgather(np.frombuffer("\0".join(text).encode(), np.uint8))
            rows = [array.tobytes().decode().split("\0") for array in sent]
            error = mismatch({r: Call(op, detail, int(number), where) for r, (op, detail, number, where) in enumerate(rows)})
            error.told_by_rank_0 = self.rank != 0
            raise error

    def finish(self) -> None:
        """Says that this rank's function has returned; a mismatch if another rank still wants to talk."""
        self._compare(finished(self.calls))

    def _allreduce(self, array: Array, op: str) -> Array:
        self._agree("allreduce", f"{op} {array.dtype} {array.shape}")
        return self.inner.allreduce(array, op)

    def _allgather(self, array: Array) -> list[Array]:
        self._agree("allgather", str(array.dtype))
        return self.inner.allgather(array)

    def _bcast(self, value: Any, root: int) -> Any:
        self._agree("bcast", f"root {root}")
        return self.inner.bcast(value, root)

    def _barrier(self) -> None:
        self._agree("barrier")
        self.inner.barrier()

    def _split(self, color: int | None, key: int) -> Communicator | None:
        self._agree("split")
        group = self.inner.split(color, key)
        return None if group is None else CheckedCommunicator(group)

    def _send(self, array: Array, dest: int, tag: int) -> None:
        self.inner.send(array, dest, tag)

    def _recv(self, source: int, tag: int) -> Array:
        return self.inner.recv(source, tag)
