"""A user's own log: features, label and entity from a .csv or .npz file, ready to be split by entity."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..errors import ArgumentError, DataError
from .dataset import Dataset, Split
from .delimited import Column, OnBytes, complaint, read_delimited

TEST_SHARE = 0.2  # of the entities
MOST_CLASSES = 20


@dataclass(frozen=True)
class Source:
    """Where a log stands and how to read it.

    Attributes:
        path: .csv (any delimited text with a header) or .npz with arrays x, y, entity.
        label: column to predict; empty: there is none, the log is only to be measured.
        entity: column of the key by which rows belong together (user, session, site).
        features: columns to learn from; empty: all others, but those that look like dates or identifiers.
        missing: "refuse" missing values, or "impute" them (numbers by the training mean, text as a category of its own).
        width: columns for a text feature: one-hot up to that many different texts, hashed into so many beyond.
        delimiter: between fields.
    """

    path: str
    label: str = ""
    entity: str = ""
    features: tuple[str, ...] = ()
    missing: str = "refuse"
    width: int = 32
    delimiter: str = ","

    def __post_init__(self) -> None:
        if self.missing not in ("refuse", "impute"):
            raise ArgumentError("missing", got=repr(self.missing), expected="refuse or impute", do="See --help.")
        if self.width < 2 or len(self.delimiter) != 1:
            raise ArgumentError(
                "width, delimiter", got=f"{self.width}, {self.delimiter!r}", expected="at least 2, and one character",
                do="Leave them out for 32 and a comma.",
            )  # fmt: skip
        if not self.path.endswith(".npz") and not self.entity:
            raise ArgumentError(
                "entity", got="none", expected="the column by which rows belong together",
                do="For example --entity user_id.",
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Log:
    """What was read.

    Attributes:
        x: (N, F) float32, NaN where missing; not yet standardised.
        names: F feature names; text features appear as "colour=red" or "colour#3".
        is_number: (F,) which columns are numbers, to be standardised.
        y: (N,) labels: 0.0 / 1.0, class numbers, or numbers.
        kind: "binary", "classes" or "numbers"; "none" without a label.
        entity: (N,) entity codes.
        notes: what was decided, in sentences for the user.
    """

    x: Array
    names: list[str]
    is_number: Array
    y: Array
    kind: str
    entity: Array
    notes: list[str] = field(default_factory=list)

    def split(self, seed: int, dtype: DTypeLike = np.float32) -> Split:
        """A random fifth of the entities is kept for the test; numbers are standardised by the training rows."""
        entities = int(self.entity.max()) + 1
        unseen = np.random.default_rng([seed, 5]).permutation(entities)[: max(1, round(TEST_SHARE * entities))]
        is_test = np.isin(self.entity, unseen)
        train, test = self.x[~is_test], self.x[is_test]
        mean = np.where(self.is_number, np.nanmean(train, axis=0, dtype=np.float64), 0.0)
        sd = np.where(self.is_number, np.nanstd(train, axis=0, dtype=np.float64), 1.0)
        y = self.y
        if self.kind == "numbers":
            y = (y - y[~is_test].mean()) / (y[~is_test].std() or 1.0)
        return Split(
            *(
                Dataset(np.nan_to_num((x - mean) / np.where(sd > 0, sd, 1.0)).astype(dtype), y[rows], self.entity[rows])
                for x, rows in ((train, ~is_test), (test, is_test))
            )
        )


def read_log(source: Source, on_bytes: OnBytes = lambda n: None) -> Log:
    """Reads a log.

    Raises:
        DataError: the file cannot be used; says where, what was found, what was expected and what to do.
    """
    log = _read_npz(source) if source.path.endswith(".npz") else _read_csv(source, on_bytes)
    entities = int(log.entity.max()) + 1
    if entities < 2:
        raise complaint(None, source.entity or "entity", "one entity", "at least two", "Choose another key.")
    sizes = np.bincount(log.entity)
    low, middle, high = np.quantile(sizes, [0.1, 0.5, 0.9])
    log.notes.append(
        f"{len(log.y):,} rows of {entities:,} entities ({source.entity or 'entity'}): median {middle:g} rows each, "
        f"80 % between {low:g} and {high:g}, the largest {sizes.max():,}."
    )
    log.notes.append(
        f"{len(log.names)} features take {log.x.nbytes / 2**20:,.0f} MiB, on each rank; reading takes about twice that, once."
    )
    if log.kind != "none":
        log.notes.append(
            f"Split by entity: {TEST_SHARE:.0%} of the entities, drawn anew for each seed, are kept for the test."
        )
    return log


def _read_csv(source: Source, on_bytes: OnBytes) -> Log:
    if source.label == source.entity or {source.label, source.entity} & set(source.features):
        raise complaint(
            None, source.label, "one column in two parts", "label, entity and features apart", "Name each once."
        )
    needed = [name for name in (source.label, source.entity, *source.features) if name]
    columns = read_delimited(Path(source.path), needed, not source.features, source.label, source.delimiter, on_bytes)
    key, label = columns.pop(source.entity), columns.pop(source.label) if source.label else None
    for column in (label, key):
        if column and column.missing:
            raise complaint(
                column.first_missing, column.name, "a missing value", "a value in every row", "Take those rows out."
            )
    notes: list[str] = []
    y, kind = _label(label.name, label.values, label.names, notes) if label else (np.zeros(len(key.values)), "none")
    used = [column for column in columns.values() if source.features or not _looks_useless(column, notes)]
    if not used:
        raise complaint(None, None, "no feature to learn from", "at least one", "Name them with --features.")
    gaps = [column for column in used if column.missing]
    if gaps and source.missing == "refuse":
        listed = ", ".join(f"{c.name!r}: {c.missing:,} (first in line {c.first_missing})" for c in gaps[:10])
        raise complaint(
            gaps[0].first_missing, gaps[0].name, f"missing values in {listed}", "a value in every row",
            "Pass --missing impute, or leave those columns out with --features.",
        )  # fmt: skip
    if gaps:
        notes.append("Missing values are filled in: " + ", ".join(f"{c.missing:,} of {c.name!r}" for c in gaps) + ".")
    blocks = [_encode(column, source.width, notes) for column in used]
    names = [name for _, block_names in blocks for name in block_names]
    is_number = np.array([column.is_number for column, (_, n) in zip(used, blocks, strict=True) for _ in n])
    entity = np.unique(key.values, return_inverse=True)[1]
    return Log(np.concatenate([block for block, _ in blocks], axis=1), names, is_number, y, kind, entity, notes)


def _label(name: str, values: Array, texts: dict[int, str], notes: list[str]) -> tuple[Array, str]:
    """Labels and their kind, decided by the values and said aloud."""
    different = np.unique(values)
    if len(different) < 2:
        raise complaint(None, name, "one class", "at least two different labels", "Choose another label column.")
    is_text = values.dtype == np.uint64
    whole = is_text or bool((different == np.round(different)).all())
    if len(different) == 2 or (whole and len(different) <= MOST_CLASSES):
        shown = [texts.get(int(v), "?") if is_text else f"{v:g}" for v in different]
        order = np.argsort(shown) if is_text else np.arange(len(different))
        codes = np.argsort(order)[np.searchsorted(different, values)]
        listed = ", ".join(shown[i] for i in order)
        if len(different) == 2:
            notes.append(f"Label {name!r} has two values ({listed}): a binary label, judged by AUC and log loss.")
            return codes.astype(np.float64), "binary"
        notes.append(f"Label {name!r} has {len(different)} values ({listed}): classes, judged by accuracy.")
        return codes.astype(np.int64), "classes"
    if is_text:
        raise complaint(None, name, f"{len(different):,} different texts", f"numbers, or at most {MOST_CLASSES} classes",
                        "Choose another label column.")  # fmt: skip
    notes.append(f"Label {name!r} has {len(different):,} different numbers: a numeric label, judged by R^2.")
    return values.astype(np.float64), "numbers"


def _looks_useless(column: Column, notes: list[str]) -> bool:
    values, why = column.values, ""
    if not column.is_number and column.dates > 0.5:
        why = "looks like a date"
    elif not column.is_number or bool((values == np.round(values)).all()):
        different = len(np.unique(values))
        if different > 100 and different > 0.9 * len(values):
            why = f"looks like an identifier ({different:,} different values in {len(values):,} rows)"
    if why:
        notes.append(f"Left out: column {column.name!r} {why}. Name it in --features to use it.")
    return bool(why)


def _encode(column: Column, width: int, notes: list[str]) -> tuple[Array, list[str]]:
    values = column.values
    if column.is_number:
        return values[:, None], [column.name]
    different = np.unique(values)
    if len(different) <= width:
        names = [f"{column.name}={column.names.get(int(v), '(missing)')}" for v in different]
        return (values[:, None] == different).astype(np.float32), names
    notes.append(f"Text column {column.name!r}: {len(different):,} different texts, hashed into {width} columns.")
    buckets = (values % np.uint64(width))[:, None] == np.arange(width, dtype=np.uint64)
    return buckets.astype(np.float32), [f"{column.name}#{b}" for b in range(width)]


def _read_npz(source: Source) -> Log:
    def wrong(got: str, expected: str) -> DataError:
        do = "Save it with np.savez(path, x=x, y=y, entity=entity)."
        return DataError(source.path, got=got, expected=expected, do=do)

    try:
        with np.load(source.path, allow_pickle=False) as arrays:
            missing = [name for name in ("x", "y", "entity") if name not in arrays]
            if missing:
                raise wrong(f"no array {missing[0]!r}", "arrays x, y and entity")
            x, y, entity = (arrays[name] for name in ("x", "y", "entity"))
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise wrong(f"an unreadable file ({error})", "an .npz of plain arrays") from error
    if x.ndim != 2 or y.shape != x.shape[:1] or entity.shape != x.shape[:1] or len(x) == 0:
        raise wrong(f"shapes {x.shape}, {y.shape}, {entity.shape}", "(N, F), (N,) and (N,)")
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        raise wrong(f"x of {x.dtype}, y of {y.dtype}", "numbers")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise wrong("a value that is missing or infinite", "finite numbers")
    notes: list[str] = []
    labels, kind = _label("y", y.astype(np.float64), {}, notes)
    names = [f"x[{i}]" for i in range(x.shape[1])]
    codes = np.unique(entity, return_inverse=True)[1]
    return Log(x.astype(np.float32), names, np.ones(len(names), bool), labels, kind, codes, notes)
