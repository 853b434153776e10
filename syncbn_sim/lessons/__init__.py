"""The exercises of the notebooks, and the check that corrects them."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ..errors import unknown
from .exercise import Exercise, Mistake, Verdict, examine
from .sliders import interact

LESSONS = tuple(sorted(int(m.name[-2:]) for m in iter_modules(__path__) if re.fullmatch(r"lesson_\d\d", m.name)))

__all__ = ["LESSONS", "Exercise", "Mistake", "Verdict", "check", "examine", "exercises", "interact"]


def exercises(lesson: int) -> dict[str, Exercise]:
    """The exercises of a lesson by number, "2.1", "2.2", ..."""
    module = import_module(f".lesson_{lesson:02}", __name__)
    return {exercise.number: exercise for exercise in module.EXERCISES}


def check(number: str, attempt: Callable[..., Any]) -> None:
    """Prints whether your function solves the exercise, and if not, what to look at.

    Raises:
        ArgumentError: there is no such exercise.
    """
    known = {key: exercise for lesson in LESSONS for key, exercise in exercises(lesson).items()}
    if number not in known:
        raise unknown("exercise", number, known)
    verdict = examine(known[number], attempt)
    print(f"{number} {'right' if verdict.passed else 'not yet'}: {verdict.message}")
