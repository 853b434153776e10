"""Checks of arguments that several commands take."""

from __future__ import annotations

from contextlib import suppress

from ..errors import ArgumentError


def whole(value: str | int, name: str) -> int:
    """A whole number of at least 1.

    Raises:
        ArgumentError: it is not one.
    """
    with suppress(ValueError):
        if int(value) >= 1:
            return int(value)
    raise ArgumentError(name, got=value, expected="whole numbers of at least 1", do=f"For example --{name} 8.")
