"""One rank alone: every collective returns a copy of what it was given."""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from ..arrays import Array
from ..errors import ArgumentError, DeadlockError
from .base import Communicator
from .calls import on_rank
from .stretches import rank_offsets


class SerialCommunicator(Communicator):
    """The communicator of a single rank; the default of every layer that talks."""

    rank, size, backend = 0, 1, "serial"

    def __init__(self) -> None:
        self._mail: dict[int, deque[Array]] = defaultdict(deque)

    def row_groups(self) -> Array | None:
        """A rank alone shares its sums with nobody: where several ranks' rows are at hand, each one's are summed apart."""
        return rank_offsets()

    def _allreduce(self, array: Array, op: str) -> Array:
        return array.copy()

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        if out is not array:
            out[...] = array

    def _allgather(self, array: Array) -> list[Array]:
        return [array.copy()]

    def _bcast(self, value: Any, root: int) -> Any:
        return copy.deepcopy(value)

    def _barrier(self) -> None:
        pass

    def _split(self, color: int | None, key: int) -> Communicator | None:
        return None if color is None else SerialCommunicator()

    def _send(self, array: Array, dest: int, tag: int) -> None:
        self._mail[tag].append(array.copy())

    def _recv(self, source: int, tag: int) -> Array:
        if not self._mail[tag]:
            got, do = f"no message to itself with tag {tag}", "A single rank can only receive what it has sent."
            raise DeadlockError("recv", got=got, expected="a send before the recv", do=do)
        return self._mail[tag].popleft()


def run(body: Callable[[Communicator], Any], ranks: int | None, checked: bool) -> list[Any]:
    """Returns [body(comm)], run on the one rank there is, which has nobody to be checked against.

    Raises:
        ArgumentError: more ranks than one.
    """
    if ranks not in (None, 1):
        do = 'Use backend "threads" for more.'
        raise ArgumentError("ranks", got=ranks, expected='1 with backend "serial"', do=do)
    try:
        return [body(SerialCommunicator())]
    except SystemExit as error:
        raise on_rank(error, 0, 1) from error
