"""Every exception of the project. Each message says what came, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral
from typing import TypeVar

T = TypeVar("T")


class SyncBNError(Exception):
    """Base of all errors raised on purpose by this package.

    Args:
        subject: the argument, layer or call that is wrong.
        got: what came.
        expected: what was expected.
        do: what the caller should do now.
    """

    def __init__(self, subject: str, *, got: object, expected: str, do: str) -> None:
        super().__init__(f"{subject}: got {got}, expected {expected}. {do}")


class DtypeError(SyncBNError, TypeError):
    """An array has a dtype that this operation does not take."""


class ShapeError(SyncBNError, ValueError):
    """An array has a shape that does not fit."""


class ArgumentError(SyncBNError, ValueError):
    """A plain argument (a number, a name) is outside what is allowed."""


class CountError(SyncBNError, ValueError):
    """Too few positions stand behind a statistic for it to exist."""


class ContextError(SyncBNError, RuntimeError):
    """Forward and backward calls do not pair up."""


class StateDictError(SyncBNError, ValueError):
    """A state dict does not fit the model."""


class DataError(SyncBNError, ValueError):
    """A data set, a file that should hold one, or a place for a result cannot be used."""


class MissingDependencyError(SyncBNError, ImportError):
    """An optional library is needed and not installed."""


class CommunicatorError(SyncBNError, RuntimeError):
    """Base of everything that goes wrong between ranks."""


class LaunchError(CommunicatorError):
    """The ranks asked for cannot be started."""


class CollectiveMismatchError(CommunicatorError):
    """The ranks do not all take part in the same collective.

    Attributes:
        told_elsewhere: another rank of the communicator prints it; this one need not.
    """

    told_elsewhere = False


class DeadlockError(CommunicatorError):
    """Every rank waits for another, so none can go on."""


class RankAbortedError(CommunicatorError):
    """This rank stops because another one failed (that one's error is the one to read)."""


def unknown(subject: str, got: str, known: Iterable[str]) -> ArgumentError:
    """The error for a name that is none of the known ones; suggests the nearest."""
    names = list(known)
    near = difflib.get_close_matches(got, names, 1, 0.3)
    hint = f"Did you mean {near[0]!r}?" if near else "Choose one of those."
    return ArgumentError(subject, got=repr(got), expected=", ".join(names), do=hint)


def named(subject: str, name: str, table: Mapping[str, T]) -> T:
    """What a table has under a name.

    Raises:
        ArgumentError: there is none; the nearest name is suggested.
    """
    if name not in table:
        raise unknown(subject, name, table)
    return table[name]


def not_installed(subject: str, library: str, extra: str) -> MissingDependencyError:
    """The error for a library of one of our extras."""
    return MissingDependencyError(
        subject, got=f"no {library}", expected=library, do=f"pip install 'syncbn-sim[{extra}]'."
    )


def check_whole(name: str, value: object, least: int = 1, do: str = "See --help.") -> None:
    """Raises ArgumentError where a value is no whole number of at least so much."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ArgumentError(name, got=repr(value), expected=f"a whole number of at least {least}", do=do)


def check_choice(subject: str, value: str, choices: Collection[str]) -> None:
    """Raises ArgumentError where a value is none of a few."""
    if value not in choices:
        raise ArgumentError(subject, got=repr(value), expected=" or ".join(choices), do="See --help.")
