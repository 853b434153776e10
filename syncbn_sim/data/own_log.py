"""A user's own log: features, label and entity from a file, ready to be split by entity."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..errors import ArgumentError, check_choice, check_whole, not_installed
from . import features
from .columns import OnBytes, Table, complaint
from .dataset import Dataset, Split
from .gaps import settled
from .npz import read_npz

FILES = (
    *(kind + packed for kind in (".csv", ".tsv", ".ndjson", ".jsonl") for packed in ("", ".gz", ".zst")),
    ".parquet",
    ".npz",
)
TEST_SHARE = 0.2  # of the entities
FAR = 1e6  # sd; farther out than any value can be among the training rows


@dataclass(frozen=True)
class LogOptions:
    r"""How a log of your own is read.

    Attributes:
        label: column to predict; empty: there is none, the log is only to be measured. Two values: AUC and log loss; a few:
            accuracy; numbers: R^2.
        entity: column of the key by which rows belong together (user, session, site); "sorted" means sorted by it. Keys are
            compared as texts: 007 is not 7, but white space around them does not count.
        features: columns to learn from, separated by commas or spaces; empty: all others, but those that look like dates or
            identifiers.
        missing: "refuse" missing values, "impute" them (numbers by the training mean, text as a category of its own), or
            "drop" the rows that have one in the label, the key or a feature.
        width: columns for a text feature: one-hot up to that many different texts, hashed into so many beyond.
        delimiter: between fields; empty: a comma, and in a .tsv a tab. The two characters \t are a tab too.
        decimal: "." or ",", before the decimals of numbers.
    """

    label: str = ""
    entity: str = ""
    features: tuple[str, ...] = ()
    missing: Literal["refuse", "impute", "drop"] = "refuse"
    width: int = 32
    delimiter: str = ""
    decimal: Literal[".", ","] = "."


@dataclass(frozen=True, init=False)
class Source(LogOptions):
    """Where a log stands and how to read it: `Source(path, label, entity, ...)`.

    Attributes:
        path: delimited text with a header (.csv, .tsv or any other name), .parquet, .ndjson or .jsonl; text also
            compressed (.gz, .zst). Or .npz with arrays x, y, entity.
    """

    path: str = ""

    def __init__(self, path: str, *how: Any, **by_name: Any) -> None:
        object.__setattr__(self, "path", path)
        super().__init__(*how, **by_name)
        check_choice("missing", self.missing, ("refuse", "impute", "drop"))
        check_choice("decimal", self.decimal, (".", ","))
        check_whole("width", self.width, 2, "Leave it out for 32.")
        if len(self.separator.encode()) != 1 or self.separator in '"\r\n':
            expected = "one ASCII character, and no quote or line end"
            do = "Leave it out for a comma, or pass \\t for a tab."
            raise ArgumentError("delimiter", got=repr(self.delimiter), expected=expected, do=do)
        if not self.path.endswith(".npz") and not self.entity:
            expected = "the column by which rows belong together"
            raise ArgumentError("entity", got="none", expected=expected, do="For example --entity user_id.")

    @property
    def separator(self) -> str:
        """The one character between fields."""
        tab = self.delimiter == "\\t" or (not self.delimiter and ".tsv" in Path(self.path.lower()).suffixes[-2:])
        return "\t" if tab else self.delimiter or ","


@dataclass(frozen=True, eq=False)
class Log:
    """What was read.

    Attributes:
        x: (N, F) float64, NaN where missing; not yet standardised.
        names: F feature names; text features appear as "colour=red" or "colour#3".
        columns: F names of the file's columns that they come from.
        is_number: (F,) which columns are numbers, to be standardised.
        y: (N,) labels: 0.0 / 1.0, class numbers, or numbers.
        kind: "binary", "classes" or "numbers"; "none" without a label.
        entity: (N,) entity codes.
        notes: what was decided, in sentences for the user.
    """

    x: Array
    names: list[str]
    columns: list[str]
    is_number: Array
    y: Array
    kind: str
    entity: Array
    notes: list[str] = field(default_factory=list)

    def split(self, seed: int, dtype: DTypeLike = np.float32) -> Split:
        """A random fifth of the entities is kept for the test; numbers are standardised by the training rows.

        In float64, and only then cast to `dtype`. What is missing becomes the training mean; a test value more than a million
        sd away from it stands for a million sd.
        """
        entities = int(self.entity.max()) + 1
        unseen = np.random.default_rng([seed, 5]).permutation(entities)[: max(1, round(TEST_SHARE * entities))]
        is_test = np.isin(self.entity, unseen)
        x = np.empty(self.x.shape, dtype)
        for place, is_number in enumerate(self.is_number):
            column = self.x[:, place]
            x[:, place] = _standardised(column, ~is_test) if is_number else column
        y = self.y
        if self.kind == "numbers":
            y = (y - y[~is_test].mean()) / (y[~is_test].std() or 1.0)
        return Split(*(Dataset(x[rows], y[rows], self.entity[rows]) for rows in (~is_test, is_test)))


def _standardised(column: Array, train: Array) -> Array:
    known = column[train & ~np.isnan(column)]
    if not len(known) or np.ptp(known) == 0:
        return np.zeros_like(column)
    return np.nan_to_num(np.clip((column - known.mean()) / known.std(), -FAR, FAR))


def read_log(source: Source, on_bytes: OnBytes = lambda n: None) -> Log:
    """Reads a log.

    Raises:
        DataError: the file cannot be used; says where, what was found, what was expected and what to do.
        MissingDependencyError: it is no .npz, and polars is not installed.
    """
    table = read_npz(source.path) if source.path.endswith(".npz") else _read(source, on_bytes)
    log = _prepared(table, source)
    sizes = np.bincount(log.entity)
    low, middle, high = np.quantile(sizes, [0.1, 0.5, 0.9])
    log.notes.append(
        f"{len(log.y):,} rows of {len(sizes):,} entities ({table.key.name}): median {middle:g} rows each, "
        f"80 % between {low:g} and {high:g}, the largest {sizes.max():,}."
    )
    log.notes.append(
        f"{len(log.names)} features take {log.x.nbytes / 2**21:,.0f} MiB as float32, on each rank; "
        "rank 0 keeps them in float64 besides."
    )
    if log.kind != "none":
        kept = f"{TEST_SHARE:.0%} of the entities, drawn anew for each seed, are kept for the test"
        log.notes.append(f"Split by entity: {kept}.")
    return log


def _read(source: Source, on_bytes: OnBytes) -> Table:
    if source.label == source.entity or {source.label, source.entity} & set(source.features):
        apart = "label, entity and features apart"
        raise complaint(None, source.label, "one column in two parts", apart, "Name each once.")
    try:
        from .tables import read_table
    except ImportError as error:
        raise not_installed(source.path, "polars to read it with", "data") from error
    return read_table(
        Path(source.path), source.entity, source.label, source.features, source.separator, source.decimal, on_bytes
    )


def _prepared(table: Table, source: Source) -> Log:
    """Chooses columns, settles missing values, and encodes what is left."""
    notes = [f"Passed over: {table.blank:,} blank rows."] if table.blank else []
    used = [column for column in table.features if table.chosen or features.looks_useful(column, notes)]
    if not used:
        raise complaint(None, None, "no feature to learn from", "at least one", "Name them with --features.")
    table = settled(replace(table, features=used), source.missing, notes)
    entity = np.unique(table.key.values, return_inverse=True)[1]
    if entity.max() < 1:
        raise complaint(None, table.key.name, "one entity", "at least two", "Choose another key.")
    y, kind = features.label(table.label, notes) if table.label else (np.zeros(len(entity)), "none")
    encoded = [
        (column.name, *feature) for column in table.features for feature in features.encode(column, source.width, notes)
    ]
    x = np.empty((len(entity), len(encoded)), order="F")
    for place, (_, _, values) in enumerate(encoded):
        x[:, place] = values
    columns, names, _ = map(list, zip(*encoded, strict=True))
    is_number = np.array([values.dtype == np.float64 for _, _, values in encoded])
    return Log(x, names, columns, is_number, y, kind, entity, notes)
