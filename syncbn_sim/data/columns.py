"""What a file's reader hands over: columns of numbers or of codes for texts, and where in the file a cell stands."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..errors import DataError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
LARGEST = 1e100  # its square, summed over every row that a log may have, is finite in float64
MOST_ROWS = 5_000_000
OnBytes = Callable[[int], None]
Places = Callable[[Sequence[tuple[int, str]]], list[str]]


@dataclass(frozen=True, eq=False)
class Column:
    """One column.

    Attributes:
        name: from the header.
        values: (N,) float64, NaN where missing; or, of a column of texts, int32 places in `texts`, -1 where missing.
        texts: its different texts, sorted; None: the column holds numbers.
        different: how many different whole numbers or texts it holds, told apart as they are written; None: fractions.
    """

    name: str
    values: Array
    texts: list[str] | None = None
    different: int | None = None

    @property
    def missing(self) -> Array:
        """Tells which values are missing, (N,) bools."""
        return np.isnan(self.values) if self.texts is None else self.values < 0

    def take(self, rows: Array) -> Column:
        """The rows of a mask."""
        return Column(self.name, self.values[rows], self.texts, self.different)


@dataclass(frozen=True, eq=False)
class Table:
    """A log as it stands in its file.

    Attributes:
        key: by which rows belong together; always texts.
        label: what is predicted, if anything.
        features: the other columns that were read.
        chosen: whether the user named the features.
        places: (row, name of a column) for as many cells as one likes -> "line 9" and the like.
        blank: how many rows without a single value were passed over.
    """

    key: Column
    label: Column | None
    features: list[Column]
    chosen: bool
    places: Places
    blank: int = 0


def complaint(place: str | None, column: str | None, got: str, expected: str, do: str) -> DataError:
    """A DataError that names the place."""
    where = ", ".join(text for text in (place, column is not None and f"column {column!r}") if text)
    return DataError(where or "the file", got=got, expected=expected, do=do)


def check_names(names: Sequence[str], needed: Sequence[str]) -> None:
    """Refuses names that stand twice in the file, and needed ones that do not stand there."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise complaint("line 1", twice[0], "the same name twice", "different names", "Rename one of the columns.")
    for name in needed:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"Did you mean {near[0]!r}?" if near else "Choose one of those."
            raise complaint("line 1", name, "no such column", f"one of {', '.join(names[:30])}", hint)


def shortened(text: str) -> str:
    """A text that fits into a message."""
    return text if len(text) <= 40 else text[:37] + "..."
