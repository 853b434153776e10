"""An exercise whose answer is itself a check: corrected by what it says of planted functions, right and wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ..arrays import Array
from .exercise import Exercise, Verdict, nothing_comes_back

Forward = Callable[[Array], Array]
Backward = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class CheckerExercise(Exercise):
    """Write check(forward, backward, x, rng) -> bool: is `backward(x, dy)` the gradient of `forward(x)`?

    `right` is the right backward pass of `forward`, the `mistakes` are wrong ones, each with the hint for a check that lets it
    through, and `cases` draws inputs x. Every pair is shown with every x.

    Attributes:
        forward: the function.
        other: another function with its right backward pass: what is known of `forward` is not to be used.
    """

    forward: Forward = abs
    other: tuple[Forward, Backward] = (abs, lambda x, dy: dy)

    def verdict(self, attempt: Callable[..., Any]) -> Verdict:
        """Corrects a check that runs; whatever it raises comes through."""
        pairs = [(self.forward, self.right), self.other, *((self.forward, m.answer) for m in self.mistakes)]
        inputs = self._draw()
        said: list[list[Any]] = [[] for _ in pairs]
        # In an order that nobody knows, this program neither: a check that counts its calls has to guess.
        for place in np.random.default_rng().permutation(len(inputs) * len(pairs)):
            which, x = place % len(pairs), inputs[place // len(pairs)]
            # Not the seed of x.
            said[which].append(attempt(*pairs[which], x.copy(), np.random.default_rng([1, place])))
        answers = list(chain(*said))
        if all(answer is None for answer in answers):
            return Verdict(False, nothing_comes_back(self, attempt))
        problem = next(filter(None, map(_not_a_verdict, answers)), None) or self._judged(
            [list(map(bool, some)) for some in said]
        )
        return Verdict(problem is None, problem or self.done)

    def _judged(self, said: list[list[bool]]) -> str | None:
        if all(map(all, said)):
            return "everything passes, wrong ones too: what would your check say of a backward pass that returns nothing but zeros?"
        if not any(map(any, said)):
            return (
                "nothing passes, not even a right backward pass. Print both gradients side by side: do they belong to the same loss? "
                "And floating point never agrees exactly: how close is close enough?"
            )
        right, other, *wrong = said
        if not all(right):
            return (
                "a right backward pass is refused. The dy that you pass to `backward` must be the cotangent of the very loss whose "
                "numeric gradient you take; and how close can a numeric gradient come?"
            )
        if not all(other):
            return "right for batch norm, but a right backward pass of another function is refused: use only `forward` and `backward`."
        passed = (mistake.hint for mistake, some in zip(self.mistakes, wrong, strict=True) if any(some))
        return next(passed, None)


def _not_a_verdict(answer: Any) -> str | None:
    if isinstance(answer, bool | np.bool_) or (
        isinstance(answer, np.ndarray) and answer.shape == () and answer.dtype == bool
    ):
        return None
    if isinstance(answer, np.ndarray):
        return f"a check says one thing, True or False; yours says an array of shape {answer.shape}. Are *all* of them close?"
    return f"a check says True or False, every time; yours says {type(answer).__name__} {answer!r}"
