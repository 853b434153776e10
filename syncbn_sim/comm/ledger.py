"""A ledger of what is said: calls, bytes and seconds of each operation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..arrays import Array
from .base import Communicator
from .wrapper import Wrapper

T = TypeVar("T")
RECEIVING = ("bcast", "recv")  # calls whose payload is what they return


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

    def _counted(self, op: str, talk: Callable[..., T], *given: Any) -> T:
        """Makes a call of the inner communicator, and writes it down."""
        entry = self.entries.setdefault(op, Entry())
        start = time.perf_counter()
        result = talk(*given)
        entry.seconds += time.perf_counter() - start
        entry.calls += 1
        payload = (result,) if op in RECEIVING else given[:1]
        entry.bytes += sum(getattr(each, "nbytes", 0) for each in payload)
        return result

    def _allreduce(self, array: Array, op: str) -> Array:
        return self._counted("allreduce", self.inner._allreduce, array, op)

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        self._counted("allreduce", self.inner._allreduce_into, array, op, out)

    def _allgather(self, array: Array) -> list[Array]:
        return self._counted("allgather", self.inner._allgather, array)

    def _bcast(self, value: Any, root: int) -> Any:
        return self._counted("bcast", self.inner._bcast, value, root)

    def _barrier(self) -> None:
        self._counted("barrier", self.inner._barrier)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        group = self._counted("split", self.inner._split, color, key)
        if group is None:
            return None
        wrapped = LedgerCommunicator(group)
        wrapped.entries = self.entries
        return wrapped

    def _send(self, array: Array, dest: int, tag: int) -> None:
        self._counted("send", self.inner._send, array, dest, tag)

    def _recv(self, source: int, tag: int) -> Array:
        return self._counted("recv", self.inner._recv, source, tag)
