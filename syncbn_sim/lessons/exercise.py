"""Exercises that correct themselves: an attempt is run on a few cases and held against the right answer and the common mistakes."""

from __future__ import annotations

import dis
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, permutations
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
        cases: draws the arguments it is tried on. With `ranks`, each case is a list of arguments, one tuple per rank.
        mistakes: the common ones; the first that fits gives the hint.
        done: what to take away, once it is right.
        ranks: the function takes a communicator first, and runs on as many ranks as a case has.
        calls: how many collective calls a rank may make; None: any number.
        numbers: if set, these calls must be all-reduces of at most so many numbers: sums, not rows.
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
    numbers: int | None = None

    def answers(self, function: Callable[..., Any]) -> list[Any]:
        """What `function` returns for each case (with `ranks`: a list by rank)."""
        return [self._run(function, case, limited=False) for case in self._draw()]

    def verdict(self, attempt: Callable[..., Any]) -> Verdict:
        """Corrects an attempt that runs; whatever it raises comes through.

        Raises:
            TooMuchTalk: it makes more or other collective calls than the exercise allows.
        """
        cases = self._draw()
        tried = deepcopy(cases)
        found = [self._run(attempt, case, limited=True) for case in tried]
        if _empty(found):
            return Verdict(False, nothing_comes_back(self, attempt))
        problem = self._problem(found)
        return Verdict(problem is None, (problem or self.done) + _changed_in_place(self, attempt, cases, tried))

    def _draw(self) -> list[Any]:
        return self.cases(np.random.default_rng(0))

    def _problem(self, found: list[Any]) -> str | None:
        levels = ("case", "rank", "result") if self.ranks else ("case", "result")
        right = self.answers(self.right)
        problem = difference(found, right, levels)
        if problem is None:
            return None
        for mistake in self.mistakes:
            if difference(found, self.answers(mistake.answer), levels) is None:
                return mistake.hint
        for other in _other_orders(right, len(levels) - 1):
            if difference(found, other, levels) is None:
                return "everything is there, in another order: what is asked for first?"
        return problem

    def _run(self, function: Callable[..., Any], case: Any, limited: bool) -> Any:
        # An average over an empty rank's rows is NaN, and the hint says so better than NumPy's warning.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            if not self.ranks:
                return function(*case)
            return launch(lambda comm: self._on_rank(function, comm, case[comm.rank], limited), len(case), "threads")

    def _on_rank(
        self, function: Callable[..., Any], comm: Communicator, arguments: tuple[Any, ...], limited: bool
    ) -> Any:
        ledger = LedgerCommunicator(comm)
        answer = function(ledger, *arguments)
        if limited and self.calls is not None:
            said = {op: ledger.entry(op) for op in COLLECTIVES if ledger.entry(op).calls}
            total = sum(entry.calls for entry in said.values())
            if total > self.calls:
                raise TooMuchTalk(f"makes {total} collective call{'s' * (total > 1)}", f"{self.calls or 'none'}")
            if self.numbers is not None:
                _require_sums(ledger, self.numbers)
        return answer


class TooMuchTalk(Exception):
    """The answer may be right, but it talks more than the exercise allows."""

    def __init__(self, does: str, allowed: str) -> None:
        super().__init__(f"a rank {does}; this exercise asks for {allowed}")


def _require_sums(ledger: LedgerCommunicator, numbers: int) -> None:
    """Whoever sends all rows needs no sums, and sends more and more as batches grow."""
    for op, entry in ledger.entries.items():
        if op != "allreduce":
            raise TooMuchTalk(
                f"uses {op}", "an all-reduce of sums. Rows sent to everybody grow with the batch, sums do not"
            )
        if entry.bytes > 8 * numbers:
            raise TooMuchTalk(f"brings {entry.bytes // 8} numbers", "sums: two per channel, and a count")


@dataclass(frozen=True)
class Verdict:
    """Whether an attempt is right, and what to tell its author."""

    passed: bool
    message: str


def examine(exercise: Exercise, attempt: Callable[..., Any]) -> Verdict:
    """Runs an attempt and says what is wrong with it, without giving the answer away."""
    try:
        return exercise.verdict(attempt)
    except NotImplementedError:
        return Verdict(False, exercise.start)
    except TooMuchTalk as error:
        return Verdict(False, f"{error}.")
    except SyncBNError as error:
        return Verdict(False, f"the ranks could not finish: {error}")
    except Exception as error:  # whatever the learner's code may raise is news for the learner
        return Verdict(False, f"it stopped with {type(error).__name__}: {error}")


def nothing_comes_back(exercise: Exercise, attempt: Callable[..., Any]) -> str:
    """The hint for an empty stub, or for a function that computes something and keeps it."""
    code = getattr(attempt, "__code__", None)
    works = code and any(step.opname.startswith(("STORE", "CALL", "BINARY")) for step in dis.get_instructions(code))
    return "it computes something, but returns nothing: a `return` is missing." if works else exercise.start


def _changed_in_place(exercise: Exercise, attempt: Callable[..., Any], before: list[Any], after: list[Any]) -> str:
    """A remark on arguments that are not what they were."""
    names = getattr(getattr(attempt, "__code__", None), "co_varnames", ())[int(exercise.ranks) :]
    calls = [list(chain(*cases)) if exercise.ranks else cases for cases in (before, after)]
    changed: dict[str, None] = {}
    for was, became in zip(*calls, strict=True):
        for place, (a, b) in enumerate(zip(was, became, strict=True)):
            if isinstance(a, np.ndarray) and (a.shape, a.tobytes()) != (b.shape, b.tobytes()):
                changed[names[place] if place < len(names) else f"argument {place + 1}"] = None
    if not changed:
        return ""
    return f" (It changes {' and '.join(changed)} in place, which the caller may still need: compute into a new array.)"


def _other_orders(right: list[Any], depth: int) -> list[list[Any]]:
    """The right answers, with the results of each call in every other order."""

    def sorted_as(order: tuple[int, ...], answer: Any, level: int) -> Any:
        return [sorted_as(order, a, level - 1) for a in answer] if level else [answer[place] for place in order]

    sample = right
    for _ in range(depth):
        sample = sample[0]
    if not isinstance(sample, list | tuple):
        return []
    return [sorted_as(order, right, depth) for order in list(permutations(range(len(sample))))[1:]]


def difference(found: Any, wanted: Any, levels: tuple[str, ...], where: str = "") -> str | None:
    """The first way in which an answer differs from the wanted one, in words; None: they agree.

    Args:
        found: the answer: numbers, arrays, or tuples and lists of these.
        wanted: the right one.
        levels: what the entries of a list are, and of lists inside it: "case", "rank", "result".
        where: the entry that is being looked at.
    """
    if isinstance(wanted, list | tuple):
        found = list(found) if isinstance(found, np.ndarray) and found.ndim else found
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
    try:
        array = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        return f"{where}: it returns {type(found).__name__} {found!r}, expected numbers"
    wanted = np.asarray(wanted, dtype=np.float64)
    if array.size == 1 and wanted.shape == ():
        array = array.reshape(())
    if array.shape != wanted.shape:
        ones = " (axes of length 1: keepdims?)" if array.squeeze().shape == wanted.squeeze().shape else ""
        return f"{where}: the shape is {array.shape}, expected {wanted.shape}{ones}"
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
