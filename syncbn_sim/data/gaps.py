"""Missing values: refused with their places, left to be filled in, or taken out with their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..arrays import Array
from .columns import Column, Table, complaint


def settled(table: Table, missing: str, notes: list[str]) -> Table:
    """The table with whole keys and labels, and features whose gaps may stay.

    Args:
        table: with the features that will be used.
        missing: "refuse", "impute" or "drop".
        notes: gets a sentence on what was done.
    """
    known = [column for column in (table.key, table.label) if column]
    if missing == "drop":
        kept = _complete([*known, *table.features], notes)
        return replace(
            table,
            key=table.key.take(kept),
            label=table.label and table.label.take(kept),
            features=[column.take(kept) for column in table.features],
        )
    _refuse_gaps(table, known, "a missing value", "Take those rows out with --missing drop.")
    if missing == "refuse":
        ways = "Pass --missing impute or drop, or leave those columns out with --features."
        _refuse_gaps(table, table.features, "missing values", ways)
    gaps = [f"{column.missing.sum():,} of {column.name!r}" for column in table.features if column.missing.any()]
    if gaps:
        notes.append(f"Missing values are filled in: {', '.join(gaps)}.")
    return table


def _complete(columns: Sequence[Column], notes: list[str]) -> Array:
    """Tells which rows miss nothing, (N,) bools; says how many do."""
    kept, listed = np.ones(len(columns[0].values), bool), []
    for column in columns:
        gap = column.missing
        kept &= ~gap
        if gap.any():
            listed.append(f"{gap.sum():,} without {column.name!r}")
    if not kept.any():
        got = f"no row without a gap ({', '.join(listed)})"
        raise complaint(None, None, got, "some", "Leave columns out with --features.")
    if listed:
        notes.append(f"Taken out for missing values: {(~kept).sum():,} of {len(kept):,} rows ({', '.join(listed)}).")
    return kept


def _refuse_gaps(table: Table, columns: Sequence[Column], got: str, do: str) -> None:
    gaps = [column for column in columns if column.missing.any()][:10]
    if not gaps:
        return
    places = table.places([(int(column.missing.argmax()), column.name) for column in gaps])
    listed = ", ".join(
        f"{column.name!r}: {column.missing.sum():,} (first in {place})"
        for column, place in zip(gaps, places, strict=True)
    )
    raise complaint(places[0], gaps[0].name, f"{got} in {listed}", "a value in every row", do)
