"""Ranks stacked in one array: their weights are equal, so a rank is a stretch of rows, and only a sum has to know where it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, CommunicatorError
from .base import Communicator
from .calls import on_rank
from .serial import SerialCommunicator
from .stretches import rank_offsets, stretched


class OnlyHolder(SerialCommunicator):
    """The process that holds all ranks: it has nobody to talk to, and speaks for all rows at hand together."""

    def row_groups(self) -> Array | None:
        """None: all together."""
        return None


class StackedCommunicator(Communicator):
    """Speaks for all ranks that one process holds, R in a row, whose rows stand in one array, one rank's after the other's.

    A function gets it once per process and works on the rows of all its ranks together: `holds` says whose they are, `holders` sums over
    all rows of all processes, and a batch norm of a rank's own rows, or of a group's (`split`), looks where these end. What talks by
    itself, rank by rank, needs ranks that run by themselves, and is refused.

    Args:
        size: number of ranks in all.
        holders: between the processes, each of which holds equally many; one process: `OnlyHolder()`.
        groups: of a communicator that is split: where each group's ranks begin among those held here, and where the last one's end.
    """

    backend = "stacked"

    def __init__(self, size: int, holders: Communicator, groups: Array | None = None) -> None:
        self.size, self._holders, self._groups = size, holders, groups
        self._held = size // holders.size
        self.rank = holders.rank * self._held

    @property
    def ranks(self) -> range:
        """The ranks that this process holds."""
        return range(self.rank, self.rank + self._held)

    @property
    def holders(self) -> Communicator:
        """The processes."""
        return self._holders

    @contextmanager
    def holds(self, rows: Any) -> Iterator[Array]:
        """Within this block the rows at hand are these, one rank's after the other's.

        Args:
            rows: for each rank held its row indices; a rank may have none.

        Raises:
            ArgumentError: something else.
        """
        several = isinstance(rows, tuple | list)
        fits = several and len(rows) == self._held
        joined = _joined(rows) if fits else None
        if joined is None:
            parts = "parts that are no lists of row indices" if fits else f"{len(rows)} parts" if several else ""
            raise ArgumentError(
                "rows",
                got=parts or f"a {type(rows).__name__}",
                expected=f"row indices of each of the ranks {self.ranks.start} to {self.ranks.stop - 1}, one array a rank",
                do="Pass comm.ranks in place of comm.rank to data.batches and data.epochs.",
            )
        with stretched(np.cumsum([0, *map(len, rows)])):
            yield joined

    def row_groups(self) -> Array | None:
        """Offsets of the groups' rows among those at hand; None: all ranks held are of one group."""
        offsets = rank_offsets()
        return None if self._groups is None or offsets is None else offsets[self._groups]

    def split(self, color: Any, key: int | None = None) -> StackedCommunicator:
        """Groups ranks of equal color, which sum apart from the others.

        Args:
            color: one for each rank held. Equal ones stand side by side, in one process, or fill each process in which they are.
            key: none: stacked ranks keep their order.

        Returns:
            The communicator of all groups inside this process, or of the one group that it is a part of.

        Raises:
            ArgumentError: colors that cannot be groups of stacked ranks.
        """
        colors = np.asarray(color if isinstance(color, Sequence | np.ndarray) else [])
        fits = colors.shape == (self._held,) and colors.dtype.kind in "iu" and (colors >= 0).all()
        if not fits or key is not None or self._groups is not None:
            raise ArgumentError(
                "color",
                got=repr(color)
                + (f", key {key}" if key is not None else "")
                + ", of a group" * (self._groups is not None),
                expected=f"a whole number >= 0 for each of the ranks {self.ranks.start} to {self.ranks.stop - 1}, and no key",
                do="For example comm.split([rank // 4 for rank in comm.ranks]), of the communicator of all ranks.",
            )
        runs = [_runs(each) for each in self.holders.allgather(colors.astype(np.int64))]
        pieces = np.concatenate([colors_of for _, colors_of in runs])
        for _, of_process in runs:
            torn = [c for c in of_process if len(of_process) > 1 and (pieces == c).sum() > 1]
            if torn:
                raise ArgumentError(
                    "color",
                    got=f"color {torn[0]} on ranks that are no stretch of one process",
                    expected="groups of neighbours inside one process, or of whole processes",
                    do="Choose colors such as rank // 4.",
                )
        begins, mine = runs[self.holders.rank]
        outer = self.holders.split(int(mine[0]) if len(mine) == 1 else None)
        if outer is None:
            return StackedCommunicator(self._held, OnlyHolder(), np.append(begins, self._held))
        return StackedCommunicator(self._held * outer.size, outer)

    def _allreduce(self, array: Array, op: str) -> Array:
        _refuse("allreduce")

    def _allgather(self, array: Array) -> list[Array]:
        _refuse("allgather")

    def _bcast(self, value: Any, root: int) -> Any:
        _refuse("bcast")

    def _barrier(self) -> None:
        _refuse("barrier")

    def _split(self, color: int | None, key: int) -> Communicator | None:
        _refuse("split")

    def _send(self, array: Array, dest: int, tag: int) -> None:
        _refuse("send")

    def _recv(self, source: int, tag: int) -> Array:
        _refuse("recv")


def _refuse(call: str) -> NoReturn:
    raise CommunicatorError(
        "stacked ranks",
        got=f"{call} of a rank by itself",
        expected="sums over all rows at hand, by comm.holders",
        do='A function that talks rank by rank needs ranks that run by themselves: backend "threads" or "lockstep".',
    )


def _joined(parts: Sequence[Any]) -> Array | None:
    """All row indices in one array; None: parts are something else."""
    try:
        joined = np.concatenate(parts)
    except ValueError:  # of numbers
        return None
    # What has no rows may be of any kind, such as [], and makes others seem of that kind.
    strange = joined.dtype.kind not in "iu" and any(len(p) and np.asarray(p).dtype.kind not in "iu" for p in parts)
    return None if strange or joined.ndim != 1 else joined.astype(np.intp, copy=False)


def _runs(colors: Array) -> tuple[Array, Array]:
    """Where stretches of one color begin, and their colors."""
    begins = np.flatnonzero(np.diff(colors, prepend=-1))
    return begins, colors[begins]


def run(body: Callable[[Communicator], Any], ranks: int, holders: Communicator | None = None) -> list[Any]:
    """Runs body(comm) once, on so many ranks of this process; the result is that of each of them."""
    holders = holders or OnlyHolder()
    try:
        with stretched(ranks if ranks > 1 else None):
            result = body(StackedCommunicator(ranks * holders.size, holders))
    except SystemExit as error:
        raise on_rank(error, holders.rank, holders.size, ranks) from error
    return [result] * ranks
