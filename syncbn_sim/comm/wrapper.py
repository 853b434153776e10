"""A communicator around another one."""

from __future__ import annotations

from typing import Any

from ..arrays import Array
from .base import Communicator


class Wrapper(Communicator):
    """Passes every call on; a subclass changes what it is about."""

    def __init__(self, inner: Communicator) -> None:
        self.inner = inner
        self.rank, self.size, self.backend = inner.rank, inner.size, inner.backend

    def _allreduce(self, array: Array, op: str) -> Array:
        return self.inner.allreduce(array, op)

    def _allgather(self, array: Array) -> list[Array]:
        return self.inner.allgather(array)

    def _bcast(self, value: Any, root: int) -> Any:
        return self.inner.bcast(value, root)

    def _barrier(self) -> None:
        self.inner.barrier()

    def _split(self, color: int | None, key: int) -> Communicator | None:
        return self.inner.split(color, key)

    def _send(self, array: Array, dest: int, tag: int) -> None:
        self.inner.send(array, dest, tag)

    def _recv(self, source: int, tag: int) -> Array:
        return self.inner.recv(source, tag)
