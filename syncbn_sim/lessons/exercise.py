"""Exercises that correct themselves: an attempt is run on a few cases and held against the right answer and the common mistakes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..comm.base import Communicator
from ..comm.launch import launch
from ..comm.ledger import LedgerCommunicator
from ..errors import SyncBNError

COLLECTIVES = ("allreduce", "allgather", "bcast", "barrier", "split")
CLOSE = 1e-7  # of the answer's largest number: above rounding, far below any mistake


@dataclass(frozen=True)
class Mistake:
    """What somebody who makes this mistake would return, and the hint that gets them out of it."""

    answer: Callable[..., Any]
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One function to write.

    Attributes:
        number: "2.1".
        name: of the function.
        start: the hint while the stub is still empty.
        right: the right answer, from the engine where it has one.
        cases: draws the arguments it is tried on. With `ranks`, each case is a list of arguments, one tuple a rank.
        mistakes: the common ones; the first that fits gives the hint.
        done: what to take away, once it is right.
        ranks: the function takes a communicator first, and runs on as many ranks as a case has.
        calls: how many collective calls a rank may make; None: any number.
    """

    number: str
    name: str
    start: str
    right: Callable[..., Any]
    cases: Callable[[np.random.Generator], list[Any]]
    mistakes: tuple[Mistake, ...]
    done: str
    ranks: bool = False
    calls: int | None = None

    def answers(self, function: Callable[..., Any], calls: int | None = None) -> list[Any]:
        """What `function` returns for each case (with `ranks`: a list by rank).

        Raises:
            TooManyCalls: a rank makes more than `calls` collective calls.
        """
        cases = self.cases(np.random.default_rng(0))
        return [self._run(function, deepcopy(case), calls) for case in cases]

    def _run(self, function: Callable[..., Any], case: Any, calls: int | None) -> Any:
        if not self.ranks:
            return function(*case)

        def on_rank(comm: Communicator) -> Any:
            ledger = LedgerCommunicator(comm)
            answer = function(ledger, *case[comm.rank])
            said = sum(ledger.entry(op).calls for op in COLLECTIVES)
            if calls is not None and said > calls:
                plural = "" if said == 1 else "s"
                raise TooManyCalls(
                    f"a rank makes {said} collective call{plural}; this exercise asks for {calls or 'none'}"
                )
            return answer

        return launch(on_rank, len(case), "threads")


class TooManyCalls(Exception):
    """The answer may be right, but it talks more than the exercise allows."""


@dataclass(frozen=True)
class Verdict:
    """Whether an attempt is right, and what to tell its author."""

    passed: bool
    message: str


def examine(exercise: Exercise, attempt: Callable[..., Any]) -> Verdict:
    """Runs an attempt and says what is wrong with it, without giving the answer away."""
    try:
        found = exercise.answers(attempt, exercise.calls)
    except NotImplementedError:
        return Verdict(False, exercise.start)
    except TooManyCalls as error:
        return Verdict(False, f"{error}.")
    except SyncBNError as error:
        return Verdict(False, f"the ranks could not finish: {error}")
    except Exception as error:  # whatever the learner's code may raise is news for the learner
        return Verdict(False, f"it stopped with {type(error).__name__}: {error}")
    if _empty(found):
        return Verdict(False, exercise.start)
    levels = ("case", "rank", "result") if exercise.ranks else ("case", "result")
    problem = difference(found, exercise.answers(exercise.right), levels)
    if problem is None:
        return Verdict(True, exercise.done)
    for mistake in exercise.mistakes:
        if difference(found, exercise.answers(mistake.answer), levels) is None:
            return Verdict(False, mistake.hint)
    return Verdict(False, problem)


def difference(found: Any, wanted: Any, levels: tuple[str, ...], where: str = "") -> str | None:
    """The first way in which an answer differs from the wanted one, in words; None: they agree.

    Args:
        found: the answer: numbers, arrays, True or False, or tuples and lists of these.
        wanted: the right one.
        levels: what the entries of a list are, and of lists inside it: "case", "rank", "result".
        where: the entry that is being looked at.
    """
    if isinstance(wanted, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(wanted):
            got = f"{len(found)} things" if isinstance(found, list | tuple) else f"one {type(found).__name__}"
            return f"{where}: it returns {got}, expected {len(wanted)}"
        name, *deeper = levels
        for place, (f, w) in enumerate(zip(found, wanted, strict=True), start=0 if name == "rank" else 1):
            inside = f"{where}, {name} {place}" if where else f"{name} {place}"
            problem = difference(f, w, tuple(deeper) or ("part",), inside)
            if problem:
                return problem
        return None
    if wanted is None or found is None:
        return None if found is wanted else f"{where}: it returns {'nothing' if found is None else 'something'} there"
    if isinstance(wanted, str | bool):
        return None if found == wanted else f"{where}: your function says {found!r} here"
    try:
        array = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        return f"{where}: it returns {type(found).__name__} {found!r}, expected numbers"
    wanted = np.asarray(wanted, dtype=np.float64)
    if array.shape != wanted.shape:
        return f"{where}: the shape is {array.shape}, expected {wanted.shape}"
    return _numbers_differ(array, wanted, where)


def _numbers_differ(array: Any, wanted: Any, where: str) -> str | None:
    if wanted.size == 0:
        return None
    if not (np.isfinite(array) | np.equal(array, wanted) | (np.isnan(array) & np.isnan(wanted))).all():
        return f"{where}: there are NaN or infinite numbers in it"
    finite = np.isfinite(wanted) & np.isfinite(array)
    error = np.where(finite, np.abs(np.subtract(array, wanted, where=finite, out=np.zeros(wanted.shape))), 0.0)
    error = np.where(np.isfinite(wanted) | ~np.isfinite(array), error, np.inf)
    worst = np.unravel_index(error.argmax(), error.shape)
    if error[worst] <= CLOSE * (np.abs(np.where(finite, wanted, 0.0)).max() or 1.0):
        return None
    place = f"{'at index ' + str(tuple(map(int, worst))) + ' ' if worst else ''}"
    return f"{where}: {place}your number is {array[worst]:.4g}, off by {error[worst]:.2g}"


def _empty(found: Any) -> bool:
    return found is None or (isinstance(found, list | tuple) and len(found) > 0 and all(map(_empty, found)))
