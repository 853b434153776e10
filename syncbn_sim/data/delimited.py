"""Reads delimited text a chunk at a time: numbers as float32, text as 64-bit hashes, and every complaint with its line and column."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..arrays import Array
from ..errors import DataError

CHUNK = 20_000  # rows; what stands in memory as text at any time
MOST_ROWS = 5_000_000
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
OnBytes = Callable[[int], None]


@dataclass
class Column:
    """One column of the file.

    Attributes:
        name: from the header.
        is_number: whether most of its first values are numbers; then all have to be.
        parts: chunks of float32 (NaN = missing) or uint64 hashes (0 = missing).
        names: hash -> text, of the first thousand different texts.
        missing: how many values are missing, and the line of the first.
        dates: how many of the first chunk's texts are ISO dates.
    """

    name: str
    is_number: bool = False
    parts: list[Array] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    missing: int = 0
    first_missing: int = 0
    dates: float = 0.0

    @property
    def values(self) -> Array:
        """The whole column."""
        if len(self.parts) > 1:
            self.parts = [np.concatenate(self.parts)]
        return self.parts[0]

    def add(self, texts: Sequence[str], lines: Sequence[int], exact: bool) -> None:
        """Appends a chunk; `exact` keeps numbers in float64."""
        if not self.parts:
            self._decide(texts)
        self.parts.append(self._numbers(texts, lines, exact) if self.is_number else self._hashes(texts, lines))

    def _decide(self, texts: Sequence[str]) -> None:
        present = [text for text in texts if text.strip().lower() not in MISSING]
        numbers = sum(_is_number(text) for text in present)
        self.is_number = bool(present) and 2 * numbers > len(present)
        self.dates = sum(_is_date(text) for text in present) / max(len(present), 1)

    def _numbers(self, texts: Sequence[str], lines: Sequence[int], exact: bool) -> Array:
        try:
            numbers = np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            numbers = np.full(len(texts), np.nan)
        if not np.isfinite(numbers).all():
            numbers = np.array([self._number(text, line) for text, line in zip(texts, lines, strict=True)])
        return numbers if exact else numbers.astype(np.float32)

    def _number(self, text: str, line: int) -> float:
        if text.strip().lower() in MISSING:
            self._note_missing(line)
            return float("nan")
        if not _is_number(text):
            raise complaint(
                line, self.name, repr(_short(text)), "a number, like most values of this column",
                "Mend the value, or leave the column out with --features.",
            )  # fmt: skip
        return float(text)

    def _hashes(self, texts: Sequence[str], lines: Sequence[int]) -> Array:
        hashed = {}
        for text in set(texts):
            missing = text.strip().lower() in MISSING
            hashed[text] = 0 if missing else int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
            if not missing and len(self.names) < 1000:
                self.names[hashed[text]] = text
        found = np.fromiter(map(hashed.__getitem__, texts), np.uint64, len(texts))
        for row in np.flatnonzero(found == 0):
            self._note_missing(lines[int(row)])
        return found

    def _note_missing(self, line: int) -> None:
        self.first_missing = self.first_missing or line
        self.missing += 1


def complaint(line: int | None, column: str | None, got: str, expected: str, do: str) -> DataError:
    """A DataError that names the place."""
    place = ", ".join(text for text in (line and f"line {line}", column is not None and f"column {column!r}") if text)
    return DataError(place or "the file", got=got, expected=expected, do=do)


def read_delimited(
    path: Path,
    needed: Sequence[str],
    everything: bool,
    exact: str,
    delimiter: str = ",",
    on_bytes: OnBytes = lambda n: None,
) -> dict[str, Column]:
    """Reads columns of a file with a header line.

    At any time the text of 20,000 rows is in memory, and of each row read 4 bytes a number and 8 a text.

    Args:
        path: UTF-8 text, at most 5,000,000 rows.
        needed: columns that must be there.
        everything: whether to read the others too.
        exact: the column whose numbers are kept in float64 (the label).
        delimiter: between fields.
        on_bytes: told how many bytes have been read so far.

    Raises:
        DataError: with line and column, what was found, what was expected and what to do.
    """
    try:
        with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
            columns = _read(text, needed, everything, exact, delimiter, lambda: on_bytes(raw.tell()))
    except UnicodeDecodeError as error:
        line, byte = _first_undecodable(path)
        raise complaint(
            line, None, f"the byte 0x{byte:02x}, which is not UTF-8", "UTF-8 text", "Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise complaint(None, None, f"{path} ({error.strerror})", "a readable file", "Check the path.") from error
    return columns


def _read(
    text: TextIO, needed: Sequence[str], everything: bool, exact: str, delimiter: str, on_chunk: Callable[[], None]
) -> dict[str, Column]:
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header = [name.strip() for name in _next_row(reader) or []]
    _check_header(header, needed, delimiter)
    places = {name: header.index(name) for name in (header if everything else needed)}
    columns = {name: Column(name) for name in places}
    total = 0
    for rows, lines in _chunks(reader, len(header)):
        total += len(rows)
        if total > MOST_ROWS:
            raise complaint(lines[-1], None, f"more than {MOST_ROWS:,} rows", "no more", "Take a sample of entities.")
        by_place = list(zip(*rows, strict=True))
        for name, column in columns.items():
            column.add(by_place[places[name]], lines, exact=name == exact)
        on_chunk()
    if total == 0:
        raise complaint(
            reader.line_num, None, "a header and no rows", "rows of data below it", "Export the data again."
        )
    return columns


def _chunks(reader: Any, width: int) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Chunks of (rows, their line numbers); blank lines are passed over."""
    rows: list[list[str]] = []
    lines: list[int] = []
    while (row := _next_row(reader)) is not None:
        if not row:
            continue
        if len(row) != width:
            raise complaint(
                reader.line_num, None, f"{len(row)} fields", f"{width}, as in the header",
                "Look for a missing or an unquoted delimiter in that line.",
            )  # fmt: skip
        rows.append(row)
        lines.append(reader.line_num)
        if len(rows) == CHUNK:
            yield rows, lines
            rows, lines = [], []
    if rows:
        yield rows, lines


def _next_row(reader: Any) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise complaint(
            reader.line_num, None, f"unreadable text ({error})", "delimited fields, quotes closed",
            "Look for a quote that is opened and never closed, or a binary file.",
        ) from error  # fmt: skip


def _check_header(header: list[str], needed: Sequence[str], delimiter: str) -> None:
    if not header:
        raise complaint(None, None, "an empty file", "a header line and rows", "Export the data again.")
    if len(header) == 1:
        other = next((d for d in ",;\t|" if d != delimiter and d in header[0]), None)
        if other:
            raise complaint(
                1, None, f"one column, {_short(header[0])!r}", f"several, separated by {delimiter!r}",
                f"The delimiter seems to be {other!r}: pass --delimiter {other!r}.",
            )  # fmt: skip
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise complaint(1, twice[0], "the same name twice", "different names", "Rename one of the columns.")
    for name in needed:
        if name not in header:
            near = difflib.get_close_matches(name, header, 1)
            hint = f"Did you mean {near[0]!r}?" if near else "Choose one of those."
            raise complaint(1, name, "no such column", f"one of {', '.join(header[:30])}", hint)


def _first_undecodable(path: Path) -> tuple[int, int]:
    with path.open("rb") as raw:
        for number, line in enumerate(raw, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number, line[error.start]
    return 0, 0


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text))) and "_" not in text
    except ValueError:
        return False


def _is_date(text: str) -> bool:
    from datetime import datetime

    try:
        datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return not text.strip().isdigit()


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
