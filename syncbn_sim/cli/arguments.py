"""Checks of arguments that several commands take."""

from __future__ import annotations

from ..errors import ArgumentError


def whole(value: str | int, name: str) -> int:
    """A whole number of at least 1.

    Raises:
        ArgumentError: it is not one.
    """
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentError(name, got=value, expected="whole numbers of at least 1", do=f"For example --{name} 8.")
    return number


def seconds(milliseconds: float) -> float:
    """Of computing, from milliseconds above 0.

    Raises:
        ArgumentError: they are not.
    """
    if not milliseconds > 0:
        raise ArgumentError("compute-ms", got=milliseconds, expected="above 0", do="How long does a step take?")
    return milliseconds / 1e3
