"""The communicator protocol: what a rank can say. Names are mpi4py's; collectives return new arrays, where not told otherwise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, DtypeError, ShapeError

REDUCTIONS = {"sum": np.add, "max": np.maximum, "min": np.minimum}
REDUCIBLE = (np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.int64))


class Communicator(ABC):
    """A group of ranks that talk; this object is one rank's view of it.

    Public methods check their arguments and call the primitive of the same name with an underscore,
    which is all that a backend or a wrapper writes.

    Attributes:
        rank: number of this rank, 0 <= rank < size.
        size: number of ranks.
        backend: what a rank is: "serial", "threads", "lockstep", "stacked", "mpi", "hybrid".
        layers: how many layers have been given this communicator so far, by which their calls are told apart.
    """

    rank: int
    size: int
    backend: str
    layers: int = 0

    @property
    def ranks(self) -> range:
        """The ranks whose rows are at hand: this one; those that the process holds, where they are stacked in one array."""
        return range(self.rank, self.rank + 1)

    @property
    def holders(self) -> Communicator:
        """Those who have rows at hand, each once: whoever sums over *all rows at hand* talks by it."""
        return self

    def holds(self, rows: Any) -> AbstractContextManager[Any]:
        """Within this block the rows at hand are these; yields them as indices into the data.

        Args:
            rows: row indices of each of `ranks`, as `data.batches` gives them.
        """
        return nullcontext(rows)

    def row_groups(self) -> Array | None:
        """Offsets of the stretches of the rows at hand that are summed apart; None: all of them together."""
        return None

    def allreduce(self, array: object, op: str = "sum", out: Array | None = None) -> Array:
        """Combines the arrays of all ranks element by element.

        Args:
            array: float64, float32 or int64; the same shape and dtype on every rank.
            op: "sum", "max" or "min".
            out: where to put the result, contiguous, of the same shape and dtype; may be `array` itself, or share memory with it.
                Default: a new array.

        Returns:
            `out`, or a new array of the same shape and dtype; equal on every rank.

        Raises:
            DtypeError: another dtype. float16 would overflow on the wire: a count of 75,000 is infinite there.
            ArgumentError: an unknown op.
            CollectiveMismatchError: ranks disagree (where the backend checks).
        """
        value = np.asarray(array)
        if op not in REDUCTIONS:
            raise ArgumentError(
                "op", got=repr(op), expected='"sum", "max" or "min"', do="Combine anything else after an allgather."
            )
        if value.dtype not in REDUCIBLE:
            native = value.dtype.newbyteorder("=")
            wider = f"np.{native}" if native in REDUCIBLE else "np.float32" if value.dtype.kind == "f" else "np.int64"
            raise DtypeError(
                "allreduce array",
                got=f"dtype {value.dtype}",
                expected="float64, float32 or int64, in this machine's order of bytes",
                do=f"Convert it first: array.astype({wider}).",
            )
        if not value.flags.c_contiguous:
            value = np.ascontiguousarray(value)
        if out is None:
            return self._allreduce(value, op)
        if out.shape != value.shape or out.dtype != value.dtype or not out.flags.c_contiguous:
            raise ShapeError(
                "allreduce out",
                got=f"{out.dtype} {out.shape}",
                expected=f"contiguous {value.dtype} {value.shape}",
                do="Pass np.empty_like(array), or the array itself.",
            )
        self._allreduce_into(value, op, out)
        return out

    def allgather(self, array: object) -> list[Array]:
        """Returns the arrays of all ranks, by rank; shapes may differ, dtypes may not."""
        return self._allgather(_plain(array, "allgather array"))

    def bcast(self, value: Any, root: int = 0) -> Any:
        """Returns a copy of the root's value on every rank: arrays as buffers, anything else must be small (it is pickled)."""
        return self._bcast(value, self._peer(root, "root"))

    def barrier(self) -> None:
        """Returns once every rank has called it."""
        self._barrier()

    def split(self, color: int | None, key: int | None = None) -> Communicator | None:
        """Groups the ranks of equal color into new communicators, ordered by key, then rank.

        Returns:
            This rank's group, or None if its color is None.
        """
        if color is not None and (not isinstance(color, int | np.integer) or color < 0):
            raise ArgumentError(
                "color",
                got=repr(color),
                expected="an integer >= 0, or None to stay out",
                do="Ranks of equal color form a group.",
            )
        return self._split(None if color is None else int(color), self.rank if key is None else int(key))

    def send(self, array: object, dest: int, tag: int = 0) -> None:
        """Sends a copy of an array; never waits for its peer."""
        self._send(_plain(array, "send array"), self._peer(dest, "dest"), int(tag))

    def recv(self, source: int, tag: int = 0) -> Array:
        """Waits for the next array from `source` with this tag; shape and dtype come with it."""
        return self._recv(self._peer(source, "source"), int(tag))

    def sendrecv(self, array: object, dest: int, source: int, tag: int = 0) -> Array:
        """Sends to `dest` and receives from `source`; cannot deadlock, since sending never waits."""
        self.send(array, dest, tag)
        return self.recv(source, tag)

    def _peer(self, rank: int, name: str) -> int:
        if not 0 <= rank < self.size:
            raise ArgumentError(name, got=rank, expected=f"a rank from 0 to {self.size - 1}", do="Ranks count from 0.")
        return int(rank)

    def __deepcopy__(self, memo: dict[int, Any]) -> Communicator:
        """A copied model still talks over the same communicator."""
        return self

    def __copy__(self) -> Communicator:
        return self

    def __reduce__(self) -> str:
        raise ArgumentError(
            type(self).__name__,
            got="an attempt to pickle it",
            expected="a communicator to stay in its process",
            do="Return or send model.state_dict() instead of a model that talks.",
        )

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        """For a backend that needs no array between."""
        out[...] = self._allreduce(array, op)

    @abstractmethod
    def _allreduce(self, array: Array, op: str) -> Array: ...

    @abstractmethod
    def _allgather(self, array: Array) -> list[Array]: ...

    @abstractmethod
    def _bcast(self, value: Any, root: int) -> Any: ...

    @abstractmethod
    def _barrier(self) -> None: ...

    @abstractmethod
    def _split(self, color: int | None, key: int) -> Communicator | None: ...

    @abstractmethod
    def _send(self, array: Array, dest: int, tag: int) -> None: ...

    @abstractmethod
    def _recv(self, source: int, tag: int) -> Array: ...


def check_communicator(comm: object) -> None:
    """Raises ArgumentError where something else stands in a communicator's place."""
    if not isinstance(comm, Communicator):
        raise ArgumentError(
            "comm",
            got=f"a {type(comm).__name__}",
            expected="a communicator",
            do="Pass the one that launch() gives its function, or SerialCommunicator() for this rank alone.",
        )


def reduce_in_rank_order(arrays: list[Array], op: str) -> Array:
    """Adds ((a_0 + a_1) + a_2) + ...: one fixed order, so that every backend in this process gives the same bits."""
    result = arrays[0].copy()
    for array in arrays[1:]:
        REDUCTIONS[op](result, array, out=result)
    return result


def group_members(colors: list[tuple[int | None, int]], color: int) -> list[int]:
    """The ranks of one color in the order of a split: by key, then by rank.

    Args:
        colors: (color, key) of every rank.
        color: the group wanted.
    """
    return sorted((r for r, (c, _) in enumerate(colors) if c == color), key=lambda r: (colors[r][1], r))


def _plain(array: object, name: str) -> Array:
    value = np.asarray(array)
    if value.dtype.hasobject:
        raise DtypeError(
            name,
            got=f"dtype {value.dtype}",
            expected="an array of plain numbers or fixed-width strings",
            do="Use bcast for small Python objects.",
        )
    if value.ndim > 32:
        raise ShapeError(name, got=f"rank {value.ndim}", expected="at most 32 axes", do="Reshape it.")
    return np.ascontiguousarray(value).reshape(value.shape)
