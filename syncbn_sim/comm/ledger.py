"""A ledger of what is said: calls, bytes and seconds of each operation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..arrays import Array
from .base import Communicator
from .wrapper import Wrapper


@dataclass
class Entry:
    """Totals of one operation on this rank.

    Attributes:
        calls: how often it was called.
        bytes: payload this rank brought (received, for recv). Headers do not count.
        seconds: time inside, waiting for other ranks included.
    """

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0


class LedgerCommunicator(Wrapper):
    """Passes every call on to another communicator and writes it down.

    Attributes:
        entries: operation name -> Entry.
    """

    def __init__(self, inner: Communicator) -> None:
        super().__init__(inner)
        self.entries: dict[str, Entry] = {}

    def entry(self, op: str) -> Entry:
        """The totals of one operation (zeros if it was never called)."""
        return self.entries.get(op, Entry())

    @contextmanager
    def _write(self, op: str) -> Iterator[Entry]:
        entry = self.entries.setdefault(op, Entry())
        start = time.perf_counter()
        yield entry
        entry.seconds += time.perf_counter() - start
        entry.calls += 1

    def _allreduce(self, array: Array, op: str) -> Array:
        with self._write("allreduce") as entry:
            entry.bytes += array.nbytes
            return self.inner._allreduce(array, op)

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        with self._write("allreduce") as entry:
            entry.bytes += array.nbytes
            self.inner._allreduce_into(array, op, out)

    def _allgather(self, array: Array) -> list[Array]:
        with self._write("allgather") as entry:
            entry.bytes += array.nbytes
            return self.inner._allgather(array)

    def _bcast(self, value: Any, root: int) -> Any:
        with self._write("bcast") as entry:
            result = self.inner._bcast(value, root)
            entry.bytes += getattr(result, "nbytes", 0)
            return result

    def _barrier(self) -> None:
        with self._write("barrier"):
            self.inner._barrier()

    def _split(self, color: int | None, key: int) -> Communicator | None:
        with self._write("split"):
            group = self.inner._split(color, key)
        if group is None:
            return None
        wrapped = LedgerCommunicator(group)
        wrapped.entries = self.entries
        return wrapped

    def _send(self, array: Array, dest: int, tag: int) -> None:
        with self._write("send") as entry:
            entry.bytes += array.nbytes
            self.inner._send(array, dest, tag)

    def _recv(self, source: int, tag: int) -> Array:
        with self._write("recv") as entry:
            array = self.inner._recv(source, tag)
            entry.bytes += array.nbytes
            return array
