"""Delimited text, record by record, with line numbers: the header, and the place of whatever is wrong.

Slow and strict; `tables.py` reads the values, and comes here for the place of a complaint.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence

from ..errors import DataError
from .columns import complaint, shortened


def records(lines: Iterable[bytes], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (line in which it begins, fields) of each record; those without a single character are passed over.

    Raises:
        DataError: bytes that are not UTF-8, quotes that do not pair up, or another number of fields than in the header.
    """
    line, quotes = 0, 0
    width: int | None = None

    def texts() -> Iterator[str]:
        nonlocal line, quotes
        for line, raw in enumerate(lines, start=1):
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                got = f"the byte 0x{raw[error.start]:02x}, which is not UTF-8"
                raise complaint(f"line {line}", None, got, "UTF-8 text", "Save the file as UTF-8.") from error
            quotes += text.count('"')
            yield text

    def wrong(got: str, expected: str, do: str) -> DataError:
        return complaint(f"line {begin}", None, got, expected, do)

    reader = csv.reader(texts(), delimiter=separator, strict=True)
    while True:
        begin, quotes = line + 1, 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            do = "Look for a quote that is opened and never closed, or a binary file."
            raise wrong(f"unreadable text ({error})", "delimited fields, quotes closed", do) from error
        if fields is None:
            return
        if quotes % 2:
            do = "Put the field in quotes and double the quote inside it."
            raise wrong("a quote inside a field without quotes around it", "quotes in pairs", do)
        if width is None and fields:
            if not any(fields):
                raise wrong("delimiters alone", "a header line", "Take that line out.")
            width = len(fields)
        if len(fields) != width and fields:
            do = "Look for a missing or an unquoted delimiter in that line."
            raise wrong(f"{len(fields)} fields", f"{width}, as in the header", do)
        if any(fields):
            yield begin, fields


def header(lines: Iterable[bytes], separator: str) -> list[str]:
    """The names in the first record, without the white space around them."""
    _, fields = next(records(lines, separator), (0, []))
    names = [name.strip() for name in fields]
    if not names:
        raise complaint(None, None, "an empty file", "a header line and rows", "Export the data again.")
    if "\r" in "".join(names):
        raise complaint("line 1", None, "line ends of old Macs", "those of Unix or Windows", "Save the file anew.")
    if len(names) == 1:
        other = next((d for d in ",;\t|" if d != separator and d in names[0]), None)
        if other:
            got, expected = f"one column, {shortened(names[0])!r}", f"several, separated by {separator!r}"
            do = f"The delimiter seems to be {other!r}: pass --delimiter {other!r}."
            raise complaint("line 1", None, got, expected, do)
    return names


def places(lines: Iterable[bytes], separator: str, cells: Sequence[tuple[int, int]]) -> list[str]:
    """The lines in which cells begin, given as (row below the header, column)."""
    wanted, found = {row for row, _ in cells}, {}
    for row, record in enumerate(records(lines, separator), start=-1):
        if row in wanted:
            found[row] = record
            if len(found) == len(wanted):
                break
    return [_line(*found[row], column) if row in found else f"row {row + 1:,}" for row, column in cells]


def _line(begin: int, fields: Sequence[str], column: int) -> str:
    return f"line {begin + ''.join(fields[:column]).count(chr(10))}"
