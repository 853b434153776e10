"""What columns become: a label of some kind, features that look useful, numbers and one-hot columns; each decision is said."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b

import numpy as np

from ..arrays import Array
from .columns import Column, complaint

MOST_CLASSES = 20
LOOKED_AT = 1000  # texts, to tell dates


def label(column: Column, notes: list[str]) -> tuple[Array, str]:
    """Returns labels (N,) and their kind ("binary", "classes" or "numbers"), decided by the values."""
    different, codes = np.unique(column.values, return_inverse=True)
    if len(different) < 2:
        raise complaint(None, column.name, "one class", "at least two different labels", "Choose another label column.")
    texts, name = column.texts, column.name
    whole = texts is not None or bool((different == np.round(different)).all())
    if len(different) == 2 or (whole and len(different) <= MOST_CLASSES):
        listed = ", ".join(f"{value:g}" if texts is None else texts[int(value)] for value in different)
        if len(different) == 2:
            notes.append(f"Label {name!r} has two values ({listed}): a binary label, judged by AUC and log loss.")
            return codes.astype(np.float64), "binary"
        notes.append(f"Label {name!r} has {len(different)} values ({listed}): classes, judged by accuracy.")
        return codes.astype(np.int64), "classes"
    if texts is not None:
        got, expected = f"{len(different):,} different texts", f"numbers, or at most {MOST_CLASSES} classes"
        raise complaint(None, name, got, expected, "Choose another label column.")
    notes.append(f"Label {name!r} has {len(different):,} different numbers: a numeric label, judged by R^2.")
    return column.values, "numbers"


def looks_useful(column: Column, notes: list[str]) -> bool:
    """Whether a column that nobody named is worth learning from."""
    why, rows = "", len(column.values)
    if column.missing.all():
        why = "has no value"
    elif column.texts is not None and _are_dates(column.texts):
        why = "looks like a date"
    elif column.different is not None and column.different > max(100, 0.9 * rows):
        why = f"looks like an identifier ({column.different:,} different values in {rows:,} rows)"
    if why:
        notes.append(f"Left out: column {column.name!r} {why}. Name it in --features to use it.")
    return not why


def _are_dates(texts: list[str]) -> bool:
    some = texts[:: max(1, len(texts) // LOOKED_AT)]
    return sum(map(_is_date, some)) > 0.5 * len(some)


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return not text.isdigit()


def encode(column: Column, width: int, notes: list[str]) -> list[tuple[str, Array]]:
    """Named features of one column: itself if it holds numbers, else bools: one-hot up to `width` texts, hashed beyond."""
    name, values = column.name, column.values
    if column.texts is None:
        notes += _remark(column)
        return [(name, values)]
    different = np.unique(values)
    if len(different) <= width:
        return [(f"{name}={column.texts[code] if code >= 0 else '(missing)'}", values == code) for code in different]
    notes.append(f"Text column {name!r}: {len(different):,} different texts, hashed into {width} columns.")
    # Place -1: missing.
    buckets = np.array([_hash(text) % width for text in column.texts] + [0])[values]
    return [(f"{name}#{bucket}", buckets == bucket) for bucket in range(width)]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _remark(column: Column) -> list[str]:
    """Says when one value makes up the spread of a column, as a slip of a decimal point or a mark for "missing" does."""
    known = column.values[~np.isnan(column.values)]
    if len(known) < 20:
        return []
    squares = (known - known.mean()) ** 2
    most = int(squares.argmax())
    if squares[most] <= 0.9 * squares.sum():
        return []
    return [f"Column {column.name!r}: one value, {known[most]:g}, makes up over 90 % of its variance. Is it right?"]
