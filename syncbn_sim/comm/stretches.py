"""Whose are the rows at hand, where several ranks' rows lie in one array, one rank's after the other's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..arrays import Array

_offsets: ContextVar[Array | None] = ContextVar("rank_offsets", default=None)


def rank_offsets() -> Array | None:
    """Where each rank's rows begin, and where the last one's end: R + 1 integers that do not fall. None: all rows are of one rank."""
    return _offsets.get()


@contextmanager
def stretched(offsets: Array) -> Iterator[None]:
    """Within this block the rows at hand are of several ranks, cut at these offsets."""
    token = _offsets.set(offsets)
    try:
        yield
    finally:
        _offsets.reset(token)
