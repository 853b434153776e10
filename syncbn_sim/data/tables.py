"""Reads tables with polars, whole columns at a time. The only file that imports polars."""

from __future__ import annotations

import csv
import glob
import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ..arrays import Array
from ..errors import DataError
from . import text_file
from .columns import LARGEST, MISSING, MOST_ROWS, Column, OnBytes, Places, Table, check_names, complaint, shortened

# In memory as text at any time: 0.8 GB, and whatever of a text is longer than 12 bytes.
CELLS = 50_000_000
# A number that another program has dressed up: decimal comma, thousands separators, per cent, currency.
DRESSED = r"^[+-]?[$€£¥]?\s?(\d{1,3}([.,'’\s_]\d{3})+|\d+)([.,]\d+)?([eE][+-]?\d+)?\s?[%$€£¥]?$"


@dataclass(frozen=True)
class _File:
    """A file whose columns can be read.

    Attributes:
        rows: its rows, not yet read.
        blank: which of them are blank.
        verify: looks through the whole file for what polars lets pass, and raises what it finds.
        places: where cells stand.
    """

    rows: pl.LazyFrame
    blank: pl.Series
    verify: Callable[[], object]
    places: Places


def read_table(
    path: Path, key: str, label: str, features: Sequence[str], separator: str, decimal: str, on_bytes: OnBytes
) -> Table:
    """Reads a delimited file, .parquet or .ndjson.

    A column holds numbers if more than half of its values in the whole file are plain numbers; then all have to be. Keys
    are always texts. White space around a value does not count.

    Args:
        path: at most 5,000,000 rows; .csv, .tsv and .ndjson also compressed (.gz, .zst).
        key: column of the entity.
        label: column to predict, or "".
        features: the other columns to read; empty: all.
        separator: between the fields of delimited text.
        decimal: "." or ",".
        on_bytes: told how many bytes have been read so far.

    Raises:
        DataError: with line and column, what was found, what was expected and what to do.
    """
    needed = [name for name in (label, key, *features) if name]
    if path.exists() and not path.is_file():
        raise complaint(None, None, f"{path}, a folder or a pipe", "a file", "It is read several times: save it first.")
    try:
        path.open("rb").close()
        file = _opened(path, separator, needed)
        names = needed if features else file.rows.collect_schema().names()
        columns = _columns(file, names, key, decimal, partial(_bytes, path, on_bytes))
    except (pl.exceptions.PolarsError, OSError) as error:
        told = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise complaint(None, None, f"{path} ({told})", "a readable file", "Check the path and the file.") from error
    entity, judged = columns.pop(key), columns.pop(label) if label else None
    return Table(entity, judged, list(columns.values()), bool(features), file.places, int(file.blank.sum()))


def _opened(path: Path, separator: str, needed: Sequence[str]) -> _File:
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    if ".parquet" in suffixes:
        return _typed(pl.scan_parquet(path, glob=False), needed)
    if suffixes & {".ndjson", ".jsonl"}:
        return _ndjson(path, needed)
    return _delimited(path, separator, needed)


def _bytes(path: Path, on_bytes: OnBytes, share: float) -> None:
    on_bytes(round(path.stat().st_size * share))


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as raw:
        magic = raw.read(4)
    if magic == b"\x28\xb5\x2f\xfd":  # zstd, which the standard library reads from Python 3.14 on
        for batch in pl.scan_lines(path, glob=False).collect_batches():
            yield from (line.encode() + b"\n" for line in batch.to_series())
        return
    with gzip.open(path) if magic[:2] == b"\x1f\x8b" else path.open("rb") as lines:
        try:
            yield from lines
        except (EOFError, zlib.error) as error:  # of a .gz that is cut off or damaged
            raise OSError(str(error)) from error


def _delimited(path: Path, separator: str, needed: Sequence[str]) -> _File:
    """One look at every cell as text: only where all columns are read does polars notice that a row is malformed."""
    names = text_file.header(_lines(path), separator)
    check_names(names, needed)

    def verify() -> None:
        for _ in text_file.records(_lines(path), separator):
            pass

    def places(cells: Sequence[tuple[int, str]]) -> list[str]:
        return text_file.places(_lines(path), separator, [(row, names.index(name)) for row, name in cells])

    rows = pl.scan_csv(path, separator=separator, infer_schema=False, new_columns=names, glob=False)
    no_text = pl.all().str.len_bytes().fill_null(0) == 0
    look = rows.select(blank=pl.all_horizontal(no_text), cut=pl.col(names[-1]).is_null())
    try:
        seen = look.collect(engine="streaming")
    except pl.exceptions.PolarsError:
        verify()
        raise
    if (seen["cut"] & ~seen["blank"]).any():
        verify()  # polars fills rows that are too short with nulls
    return _File(rows, seen["blank"], verify, places)


def _typed(rows: pl.LazyFrame, needed: Sequence[str]) -> _File:
    check_names(rows.collect_schema().names(), needed)
    blank = pl.repeat(False, rows.select(pl.len()).collect().item(), eager=True)
    return _File(rows, blank, lambda: None, lambda cells: [f"row {row + 1:,}" for row, _ in cells])


def _ndjson(path: Path, needed: Sequence[str]) -> _File:
    try:
        return _typed(pl.scan_ndjson(glob.escape(str(path)), infer_schema_length=None), needed)
    except pl.exceptions.PolarsError:
        for line, raw in enumerate(_lines(path), start=1):
            try:
                json.loads(raw.strip() or b"null")
            except ValueError as error:
                got = f"unreadable text ({error})"
                raise complaint(f"line {line}", None, got, "one JSON object per line", "Mend that line.") from error
        raise


def _columns(
    file: _File, names: Sequence[str], key: str, decimal: str, on_share: Callable[[float], None]
) -> dict[str, Column]:
    height = len(file.blank) - int(file.blank.sum())
    if height == 0:
        raise complaint("line 1", None, "a header and no rows", "rows of data below it", "Export the data again.")
    if height > MOST_ROWS:
        most = f"no more than {MOST_ROWS:,} rows"
        raise complaint(None, None, f"{height:,} rows", most, "Take a sample of entities.")
    passes = math.ceil(len(names) * height / CELLS)
    columns: dict[str, Column] = {}
    on_share(1 / (passes + 1))  # the first look
    for done, part in enumerate(np.array_split(np.array(names, object), passes), start=2):
        frame = file.rows.select(part.tolist()).collect(engine="streaming")
        if file.blank.any():
            frame = frame.filter(~file.blank)
        columns.update({name: _column(frame[name], file, name == key, decimal) for name in part})
        on_share(done / (passes + 1))
    return columns


def _column(series: pl.Series, file: _File, is_key: bool, decimal: str) -> Column:
    dtype = series.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        got = f"values of type {dtype}"
        raise complaint(None, series.name, got, "numbers or texts", "Leave it out with --features.")
    if not is_key and (dtype.is_numeric() or dtype == pl.Boolean):
        return _numbers(series, series.cast(pl.Float64).fill_nan(None), file, decimal)
    texts = series.cast(pl.String)
    if is_key:
        return _codes(_present(texts), file)
    numbers = _cast(texts, decimal)
    if not _plain(numbers).all():
        texts = _present(texts)
        numbers = _cast(texts, decimal)
    plain, present = _plain(numbers), len(texts) - texts.null_count()
    if 2 * plain.sum() > present:
        return _numbers(texts, numbers, file, decimal)
    dressed = texts.str.contains(DRESSED).fill_null(False) & ~plain
    if 2 * (plain | dressed).sum() > present:
        raise _no_number(texts, numbers, dressed, file, decimal)
    return _codes(texts, file)


def _present(texts: pl.Series) -> pl.Series:
    """Without white space around them, and null where missing."""
    texts = texts.str.strip_chars()
    return texts.set(texts.str.to_lowercase().is_in(list(MISSING)), None)


def _cast(texts: pl.Series, decimal: str) -> pl.Series:
    """Turns texts into float64, null where a text is no plain number."""
    if decimal == ",":
        points = texts.str.contains(".", literal=True)
        texts = texts.str.replace(",", ".", literal=True).set(points, None)
    return texts.cast(pl.Float64, strict=False)


def _plain(numbers: pl.Series) -> pl.Series:
    """Tells which are there and not too large to be summed."""
    return (numbers.abs() <= LARGEST).fill_null(False)


def _numbers(series: pl.Series, numbers: pl.Series, file: _File, decimal: str) -> Column:
    bad = series.is_not_null() & ~_plain(numbers)
    if series.dtype.is_float():
        bad &= series.is_not_nan()  # NaN is missing
    if bad.any():
        raise _no_number(series, numbers, bad, file, decimal)
    whole = bool((numbers % 1 == 0).all())
    values: Array = numbers.fill_null(math.nan).to_numpy()
    return Column(series.name, values, None, series.n_unique() if whole else None)


def _codes(texts: pl.Series, file: _File) -> Column:
    different = texts.drop_nulls().unique().sort()
    if (different.str.len_bytes().max() or 0) > csv.field_size_limit():  # type: ignore[operator]
        file.verify()
    codes = texts.cast(pl.Enum(different)).to_physical().cast(pl.Int32).fill_null(-1)
    return Column(texts.name, codes.to_numpy(), different.to_list(), len(different))


def _no_number(series: pl.Series, numbers: pl.Series, bad: pl.Series, file: _File, decimal: str) -> DataError:
    """What to say of the first bad value."""
    row = bad.arg_max() or 0
    text = str(series[row])
    expected = "a number, like most values of this column"
    do = "Mend the value, or leave the column out with --features."
    if numbers[row] is not None:
        expected = f"a finite number of at most {LARGEST:g}"
    elif re.fullmatch(DRESSED, text):
        if decimal == "." and re.fullmatch(r"[^.,]*\d,\d[^.,]*", text):
            do = "If that is a decimal comma, pass --decimal , - if it separates thousands, take it out."
        else:
            do = "Write plain numbers: without thousands separators, per cent signs and currencies"
            do += ", and with decimal commas, as --decimal says." if decimal == "," else "."
        do += " Or leave the column out with --features."
    (place,) = file.places([(row, series.name)])
    return complaint(place, series.name, repr(shortened(text)), expected, do)
