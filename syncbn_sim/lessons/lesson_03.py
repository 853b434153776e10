"""Exercises of lesson 03: the backward pass by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array
from ..functional import batch_norm as F
from .exercise import Exercise, Mistake

EPS = 1e-5


def _parameters(dy: Array, x_hat: Array) -> tuple[Array, Array]:
    sums = F.local_backward_sums(dy, x_hat)
    return sums.dy_x_hat, sums.dy


def _x_hat(x: Array) -> tuple[Array, Array]:
    moments = F.local_moments(x)
    return F.standardize(x, moments.mean, moments.var(), EPS)


PARAMETERS = Exercise(
    number="3.1",
    name="parameter_gradients",
    start="nothing comes back yet. Every row was shifted by the same bias: so the bias collects from every row.",
    right=_parameters,
    cases=lambda rng: [(rng.normal(size=(4, 4)), _x_hat(rng.normal(size=(4, 4)))[0])],
    mistakes=(
        Mistake(lambda dy, x_hat: _parameters(dy, x_hat)[::-1], "both are there, in the wrong order: weight first."),
        Mistake(
            lambda dy, x_hat: tuple(g / len(dy) for g in _parameters(dy, x_hat)),
            "these are means over the rows. The chain rule *adds* paths; whether the loss is a mean is dy's business.",
        ),
        Mistake(
            lambda dy, x_hat: (dy.sum(0), dy.sum(0)),
            "the bias is right. d y / d weight is not 1: what does the weight multiply?",
        ),
        Mistake(
            lambda dy, x_hat: ((dy * x_hat).sum(1), dy.sum(1)),
            "summed along the wrong axis: there is one weight for each channel, and it collects from all rows.",
        ),
        Mistake(
            lambda dy, x_hat: (dy.sum(0) * x_hat.sum(0), dy.sum(0)),
            "the weight's: a sum of products, not a product of sums. (The sum of x_hat is zero.)",
        ),
    ),
    done="two sums over the batch. The input's gradient needs the same two.",
)


def _input(dy: Array, x_hat: Array, inv_std: Array, weight: Array) -> Array:
    return F.input_gradient(dy, x_hat, inv_std, weight, F.local_backward_sums(dy, x_hat), len(dy))


def _terms(dy: Array, x_hat: Array) -> tuple[Array, Array]:
    return dy.mean(0), x_hat * (dy * x_hat).mean(0)


def _over_all(dy: Array, x_hat: Array) -> Array:
    """Both terms with sums over rows and channels."""
    return np.asarray(dy.sum() + x_hat * (dy * x_hat).sum())


def _draw_input(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    cases = []
    for rows, channels in ((5, 3), (8, 2)):
        x_hat, inv_std = _x_hat(rng.normal(size=(rows, channels)) * rng.uniform(0.5, 3, channels))
        cases.append((rng.normal(size=(rows, channels)) + 0.5 + x_hat, x_hat, inv_std, rng.uniform(1.5, 3, channels)))
    return cases


INPUT = Exercise(
    number="3.2",
    name="input_gradient",
    start="nothing comes back yet. Three terms in a bracket, and a factor before it.",
    right=_input,
    cases=_draw_input,
    mistakes=(
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * dy,
            "the direct term alone: this is the gradient for *frozen* statistics. Here the batch made its own mean and variance.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - _terms(dy, x_hat)[1]),
            "the rows of dx should add up to zero, and do not: which path carries a shift of the whole column?",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - _terms(dy, x_hat)[0]),
            "shifts are taken out, stretches are not: sum(dx * x_hat) should be zero. One path is missing.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: inv_std * (dy - sum(_terms(dy, x_hat))),
            "what did y = weight * x_hat + bias do to x_hat? Its factor is missing. (With weight 1 nobody would see it.)",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * (dy - sum(_terms(dy, x_hat))),
            "the bracket and the weight are right, but the standardisation divided by something, so its gradient does too.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - len(dy) * sum(_terms(dy, x_hat))),
            "the two sums are subtracted whole. Each row makes up only a part of the mean and of the variance: which part?",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: (
                weight * inv_std * (dy - len(dy) / (len(dy) - 1) * sum(_terms(dy, x_hat)))
            ),
            "divided by n - 1. The forward pass normalises by the biased variance, so its gradient has n.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - _terms(dy, x_hat)[0] + _terms(dy, x_hat)[1]),
            "a sign: a larger variance makes x_hat *smaller*.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - _terms(dy, x_hat)[0] - (dy * x_hat).mean(0)),
            "the third term is the same for every row. A row far from the mean moves the variance more than one in the middle.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - _over_all(dy, x_hat) / len(dy)),
            "the two sums run over everything. Each channel has its own mean and variance: along which axis does it add?",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - _over_all(dy, x_hat) / dy.size),
            "the two means are taken over rows *and* channels. A channel has its own: along which axis?",
        ),
    ),
    done="what is left of dy when its level and its slope in x are taken out.",
)

_WEIGHT, _BIAS = np.array([2.0, 0.5, 1.5]), np.zeros(3)


def _forward(x: Array) -> Array:
    return F.scale_and_shift(_x_hat(x)[0], _WEIGHT, _BIAS)


def _backward(x: Array, dy: Array) -> Array:
    return _input(dy, *_x_hat(x), _WEIGHT)


def _affine(x: Array) -> Array:
    return 3.0 * x + x * x


def _shifted(x: Array, dy: Array) -> Array:
    x_hat, inv_std = _x_hat(x)
    return _WEIGHT * inv_std * (dy - _terms(dy, x_hat)[1])


def _stretched(x: Array, dy: Array) -> Array:
    x_hat, inv_std = _x_hat(x)
    return _WEIGHT * inv_std * (dy - _terms(dy, x_hat)[0])


def _draw_checks(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """A right pair and wrong ones: through batch norm, and through a function without statistics."""
    pairs: list[tuple[Callable[..., Array], Callable[..., Array]]] = [
        (_forward, _backward),
        (_forward, lambda x, dy: _backward(x, dy) / _WEIGHT),
        (_forward, lambda x, dy: 4 * _backward(x, dy)),
        (_forward, lambda x, dy: np.zeros_like(x)),
        (_forward, _stretched),
        (_forward, _shifted),
        (_affine, lambda x, dy: dy * (3.0 + 2 * x)),
        (_affine, lambda x, dy: dy * 3.0),
    ]
    return [(f, b, rng.normal(size=(6, 3)) * [1, 2, 0.5] + 1, np.random.default_rng(7)) for f, b in pairs]


def _agrees(cotangent: Callable[[Array, np.random.Generator], Array], plain: bool = False) -> Callable[..., bool]:
    """The check with that cotangent, as a function of the output; `plain`: but the numeric gradient is of sum(y)."""

    def is_right(forward: Any, backward: Any, x: Array, rng: np.random.Generator) -> bool:
        dy, h = cotangent(forward(x), rng), 1e-5
        truth = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            nudge = np.zeros_like(x)
            nudge[index] = h
            truth[index] = ((1.0 if plain else dy) * (forward(x + nudge) - forward(x - nudge))).sum() / (2 * h)
        return bool(np.allclose(backward(x, dy), truth, rtol=1e-3, atol=2e-4))

    return is_right


CHECK = Exercise(
    number="3.3",
    name="backward_is_right",
    start="nothing comes back yet. A cotangent, a loss made of it, its numeric gradient, a comparison: True or False.",
    right=_agrees(lambda y, rng: rng.normal(size=y.shape)),
    cases=_draw_checks,
    mistakes=(
        Mistake(
            lambda forward, backward, x, rng: True,
            "everything passes, wrong ones too: what would your check say of a backward pass that returns nothing but zeros?",
        ),
        Mistake(
            lambda forward, backward, x, rng: False,
            "nothing passes, not even a right one. Floating point never agrees exactly: how close is close enough?",
        ),
        Mistake(
            _agrees(lambda y, rng: rng.normal(size=y.shape), plain=True),
            "two different losses: the dy that you pass to `backward` must be the cotangent of the loss whose numeric gradient you take.",
        ),
        Mistake(
            _agrees(lambda y, rng: np.ones_like(y)),
            "is the loss a plain sum? Its true gradient through batch norm is zero, and 4 times zero is zero. Some bugs got through.",
        ),
        Mistake(
            _agrees(lambda y, rng: 2 * y),
            "is the loss a sum of squares? Its cotangent is a straight line in x, and batch norm removes that. Some bugs got through.",
        ),
    ),
    done="a random cotangent has something of every direction in it, so no wrong term can hide.",
)


def _evaluation(
    dy: Array, x: Array, running_mean: Array, running_var: Array, weight: Array, eps: float
) -> tuple[Array, Array, Array]:
    x_hat, inv_std = F.standardize(x, running_mean, running_var, eps)
    return F.frozen_input_gradient(dy, inv_std, weight), *_parameters(dy, x_hat)


def _as_in_training(
    dy: Array, x: Array, running_mean: Array, running_var: Array, weight: Array, eps: float
) -> tuple[Array, Array, Array]:
    x_hat, inv_std = F.standardize(x, running_mean, running_var, eps)
    return _input(dy, x_hat, inv_std, weight), *_parameters(dy, x_hat)


def _own_batch(
    dy: Array, x: Array, running_mean: Array, running_var: Array, weight: Array, eps: float
) -> tuple[Array, Array, Array]:
    return _evaluation(dy, x, x.mean(0), x.var(0), weight, eps)


def _own_batch_in_weight(
    dy: Array, x: Array, running_mean: Array, running_var: Array, weight: Array, eps: float
) -> tuple[Array, Array, Array]:
    right, own = _evaluation(dy, x, running_mean, running_var, weight, eps), _own_batch(dy, x, x, x, weight, eps)
    return right[0], own[1], right[2]


EVALUATION = Exercise(
    number="3.4",
    name="backward_in_evaluation",
    start="nothing comes back yet. Which of the three paths from x to x_hat are still there when the statistics are constants?",
    right=_evaluation,
    cases=lambda rng: [
        (
            rng.normal(size=(5, 2)),
            rng.normal(size=(5, 2)) * 2 + 1,
            np.array([0.5, -1]),
            np.array([2.0, 0.3]),
            np.array([2.0, -1.5]),
            0.01,
        )
    ],
    mistakes=(
        Mistake(
            _as_in_training, "dx has the terms through the statistics in it. Stored statistics do not change with x."
        ),
        Mistake(_own_batch, "the batch's own statistics came in. What did the forward pass use, in evaluation?"),
        Mistake(_own_batch_in_weight, "dx is right. The weight multiplied an x_hat made from the *stored* statistics."),
        Mistake(
            lambda dy, x, m, v, weight, eps: (
                _evaluation(dy, x, m, v, weight, eps)[0] / weight,
                *_evaluation(dy, x, m, v, weight, eps)[1:],
            ),
            "the weight's factor is missing in dx.",
        ),
        Mistake(
            lambda dy, x, m, v, weight, eps: _evaluation(dy, x, m, v, weight, 0.0),
            "eps was there in the forward pass; its gradient has it too.",
        ),
    ),
    done="every row's gradient is its own, and no rank needs to talk; weight and bias still collect over the rows.",
)

EXERCISES = (PARAMETERS, INPUT, CHECK, EVALUATION)
