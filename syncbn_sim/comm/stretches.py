"""Whose are the rows at hand, where several ranks' rows lie in one array, one rank's after the other's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..arrays import Array
from ..errors import ShapeError

# A number alone: of so many ranks, and nobody has said whose is which.
_offsets: ContextVar[Array | int | None] = ContextVar("rank_offsets", default=None)


def rank_offsets() -> Array | None:
    """Where each rank's rows begin, and where the last one's end: R + 1 integers that do not fall. None: all rows are of one rank.

    Raises:
        ShapeError: they are of several ranks, and nobody has said whose is which.
    """
    offsets = _offsets.get()
    if isinstance(offsets, int):
        raise ShapeError(
            "rows at hand",
            got="rows of stacked ranks, and nobody has said whose they are",
            expected=f"the rows of {offsets} ranks, since each rank's are a batch",
            do="Write `with comm.holds(rows) as at_hand:` around it, and take x[at_hand]; train.fit does. "
            "Evaluate train.with_averaged_statistics(model, comm, rows).",
        )
    return offsets


@contextmanager
def stretched(offsets: Array | int | None) -> Iterator[None]:
    """Within this block the rows at hand are of several ranks, cut at these offsets; of so many, cut nobody knows where; of one (None)."""
    token = _offsets.set(offsets)
    try:
        yield
    finally:
        _offsets.reset(token)
