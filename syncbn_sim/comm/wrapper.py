"""A communicator around another one."""

from __future__ import annotations

from typing import Any

from ..arrays import Array
from ..errors import ArgumentError
from .base import Communicator


class Wrapper(Communicator):
    """Passes every call on, its arguments checked; a subclass changes what it is about.

    Raises:
        ArgumentError: `inner` is of stacked ranks, which do not talk; their `holders` do.
    """

    def __init__(self, inner: Communicator) -> None:
        if inner.holders is not inner:
            raise ArgumentError(
                type(self).__name__,
                got=f"a {type(inner).__name__}, whose ranks do not talk one by one",
                expected="a communicator that talks",
                do="Wrap comm.holders.",
            )
        self.inner = inner
        self.rank, self.size, self.backend = inner.rank, inner.size, inner.backend

    def row_groups(self) -> Array | None:
        """Those of the communicator inside."""
        return self.inner.row_groups()

    def _allreduce(self, array: Array, op: str) -> Array:
        return self.inner._allreduce(array, op)

    def _allgather(self, array: Array) -> list[Array]:
        return self.inner._allgather(array)

    def _bcast(self, value: Any, root: int) -> Any:
        return self.inner._bcast(value, root)

    def _barrier(self) -> None:
        self.inner._barrier()

    def _split(self, color: int | None, key: int) -> Communicator | None:
        return self.inner._split(color, key)

    def _send(self, array: Array, dest: int, tag: int) -> None:
        self.inner._send(array, dest, tag)

    def _recv(self, source: int, tag: int) -> Array:
        return self.inner._recv(source, tag)
