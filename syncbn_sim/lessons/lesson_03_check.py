"""Exercise 3.3: a gradient check, and the backward passes that are planted for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array
from ..functional import batch_norm as F
from .checker import CheckerExercise
from .exercise import Mistake

EPS = 1e-5


def standardized(x: Array) -> tuple[Array, Array]:
    """Returns x_hat and inv_std of a batch."""
    moments = F.local_moments(x)
    return F.standardize(x, moments.mean, moments.var(), EPS)


def input_gradient(dy: Array, x_hat: Array, inv_std: Array, weight: Array) -> Array:
    """Returns dx on one rank."""
    return F.input_gradient(dy, x_hat, inv_std, weight, F.local_backward_sums(dy, x_hat), len(dy))


def terms(dy: Array, x_hat: Array) -> tuple[Array, Array]:
    """The two terms of dx through the statistics: through the mean, and through the variance."""
    return dy.mean(0), x_hat * (dy * x_hat).mean(0)


_WEIGHT, _BIAS = np.array([2.0, 0.5, 1.5]), np.zeros(3)


def _forward(x: Array) -> Array:
    return F.scale_and_shift(standardized(x)[0], _WEIGHT, _BIAS)


def _backward(x: Array, dy: Array) -> Array:
    return input_gradient(dy, *standardized(x), _WEIGHT)


def _next_to_nothing(x: Array, dy: Array) -> Array:
    """Right for cotangents that are straight lines in x, such as those of sum(y) and sum(y^2), of which only eps leaves something."""
    x_hat = standardized(x)[0]
    return _backward(x, dy.mean(0) + x_hat * (dy * x_hat).mean(0) / (x_hat**2).mean(0))


def _n_minus_1(x: Array, dy: Array) -> Array:
    x_hat, inv_std = standardized(x)
    return _WEIGHT * inv_std * (dy - len(x) / (len(x) - 1) * sum(terms(dy, x_hat)))


def _off(part: Any, by: float) -> Callable[[Array, Array], Array]:
    """The right backward pass, but for one row or channel."""

    def backward(x: Array, dy: Array) -> Array:
        dx = _backward(x, dy)
        dx[part] += by
        return dx

    return backward


CHECK = CheckerExercise(
    number="3.3",
    name="backward_is_right",
    start="nothing comes back yet. A cotangent, a loss made of it, its numeric gradient, a comparison: True or False.",
    forward=_forward,
    right=_backward,
    other=(lambda x: 3.0 * x + x * x, lambda x, dy: dy * (3.0 + 2 * x)),
    cases=lambda rng: [rng.normal(size=(6, 3)) * [2, 3, 1] + 1 for _ in range(2)],
    mistakes=(
        Mistake(
            _next_to_nothing,
            "a backward pass that lets next to nothing through is taken for right. Is the true gradient of your loss zero, or nearly? "
            "Print it, and see which cotangents batch norm takes out.",
        ),
        Mistake(
            lambda x, dy: -_backward(x, dy),
            "the right gradient with its sign turned gets through: compare the numbers, not their sizes.",
        ),
        Mistake(
            lambda x, dy: _backward(x, dy) / _WEIGHT,
            "a gradient without the weight's factor, another one in each channel, gets through: is the size lost in your comparison?",
        ),
        Mistake(
            lambda x, dy: 4 * _backward(x, dy),
            "four times the right gradient gets through: is the size lost in your comparison?",
        ),
        Mistake(
            lambda x, dy: np.roll(_backward(x, dy), 1, axis=0),
            "the right numbers in the wrong rows get through: compare number by number, each in its place.",
        ),
        Mistake(
            lambda x, dy: np.roll(_backward(x, dy), 1, axis=1),
            "the right numbers in the wrong channels get through: compare number by number, each in its place.",
        ),
        Mistake(
            _off(0, 5.0), "a gradient gets through that is wrong in its first row alone (too large): look at every one."
        ),
        Mistake(
            _off(-1, -5.0),
            "a gradient gets through that is wrong in its last row alone (too small): look at every one.",
        ),
        Mistake(
            _off(np.s_[:, 0], 5.0),
            "a gradient gets through that is wrong in its first channel alone: look at every one.",
        ),
        Mistake(
            _off(np.s_[:, -1], -5.0),
            "a gradient gets through that is wrong in its last channel alone: look at every one.",
        ),
        Mistake(
            _off(np.s_[1:-1, 1:-1], 5.0),
            "a gradient gets through that is wrong in the middle alone: look at every one.",
        ),
        Mistake(
            _off((2, 1), np.nan),
            "a gradient with a NaN in it gets through: NaN is not larger than your tolerance, nor smaller. Ask whether all are close, "
            "not whether one is far.",
        ),
        Mistake(
            _n_minus_1,
            "two sums divided by n - 1 in place of n get through: an ordinary mistake, and a small one. How close do you ask for?",
        ),
        Mistake(
            lambda x, dy: 1.02 * _backward(x, dy),
            "a gradient 2 % too large gets through. A numeric gradient is exact to about eight digits: how close do you ask for?",
        ),
    ),
    done="a random cotangent has something of every direction in it, so no wrong term can hide.",
)
