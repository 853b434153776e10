"""Exercises of lesson 03: the backward pass by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..functional import batch_norm as F
from .exercise import Exercise, Mistake
from .lesson_03_check import CHECK, input_gradient, standardized, terms


def _parameters(dy: Array, x_hat: Array) -> tuple[Array, Array]:
    sums = F.local_backward_sums(dy, x_hat)
    return sums.dy_x_hat, sums.dy


PARAMETERS = Exercise(
    number="3.1",
    name="parameter_gradients",
    start="nothing comes back yet. Every row was shifted by the same bias: so the bias collects from every row.",
    right=_parameters,
    cases=lambda rng: [(rng.normal(size=(4, 4)), standardized(rng.normal(size=(4, 4)))[0]) for _ in range(2)],
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


def _over_all(dy: Array, x_hat: Array) -> Array:
    """Both terms with sums over rows and channels."""
    return np.asarray(dy.sum() + x_hat * (dy * x_hat).sum())


def _draw_input(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    cases = []
    for rows, channels in ((5, 3), (8, 2)):
        x_hat, inv_std = standardized(rng.normal(size=(rows, channels)) * rng.uniform(0.5, 3, channels))
        weight = rng.uniform(1.5, 3, channels) * (-1.0) ** np.arange(channels)
        cases.append((rng.normal(size=(rows, channels)) + 0.5 + x_hat, x_hat, inv_std, weight))
    return cases


INPUT = Exercise(
    number="3.2",
    name="input_gradient",
    start="nothing comes back yet. Three terms in a bracket, and a factor before it.",
    right=input_gradient,
    cases=_draw_input,
    mistakes=(
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * dy,
            "the direct term alone: this is the gradient for *frozen* statistics. Here the batch made its own mean and variance.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - terms(dy, x_hat)[1]),
            "the rows of dx should add up to zero, and do not: which path carries a shift of the whole column?",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - terms(dy, x_hat)[0]),
            "shifts are taken out, stretches are not: sum(dx * x_hat) should be zero. One path is missing.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: inv_std * (dy - sum(terms(dy, x_hat))),
            "what did y = weight * x_hat + bias do to x_hat? Its factor is missing. (With weight 1 nobody would see it.)",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * (dy - sum(terms(dy, x_hat))),
            "the bracket and the weight are right, but the standardisation divided by something, so its gradient does too.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - len(dy) * sum(terms(dy, x_hat))),
            "the two sums are subtracted whole. Each row makes up only a part of the mean and of the variance: which part?",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: (
                weight * inv_std * (dy - len(dy) / (len(dy) - 1) * sum(terms(dy, x_hat)))
            ),
            "divided by n - 1. The forward pass normalises by the biased variance, so its gradient has n.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - terms(dy, x_hat)[0] + terms(dy, x_hat)[1]),
            "a sign: a larger variance makes x_hat *smaller*.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy + terms(dy, x_hat)[0] - terms(dy, x_hat)[1]),
            "a sign: the mean is *subtracted*, so its path takes away.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy + sum(terms(dy, x_hat))),
            "two signs: both paths through the statistics take away.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight / inv_std * (dy - sum(terms(dy, x_hat))),
            "divided by inv_std, which is 1 over the standard deviation already.",
        ),
        Mistake(
            lambda dy, x_hat, inv_std, weight: weight * inv_std * (dy - terms(dy, x_hat)[0] - (dy * x_hat).mean(0)),
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


def _evaluation(
    dy: Array, x: Array, running_mean: Array, running_var: Array, weight: Array, eps: float
) -> tuple[Array, Array, Array]:
    x_hat, inv_std = F.standardize(x, running_mean, running_var, eps)
    return F.frozen_input_gradient(dy, inv_std, weight), *_parameters(dy, x_hat)


def _as_in_training(
    dy: Array, x: Array, running_mean: Array, running_var: Array, weight: Array, eps: float
) -> tuple[Array, Array, Array]:
    x_hat, inv_std = F.standardize(x, running_mean, running_var, eps)
    return input_gradient(dy, x_hat, inv_std, weight), *_parameters(dy, x_hat)


def _own_batch(
    dy: Array, x: Array, running_mean: Array, running_var: Array, weight: Array, eps: float
) -> tuple[Array, Array, Array]:
    return _evaluation(dy, x, x.mean(0), x.var(0), weight, eps)


def _own_batch_in_weight(
    dy: Array, x: Array, running_mean: Array, running_var: Array, weight: Array, eps: float
) -> tuple[Array, Array, Array]:
    right, own = _evaluation(dy, x, running_mean, running_var, weight, eps), _own_batch(dy, x, x, x, weight, eps)
    return right[0], own[1], right[2]


def _with_d_weight(
    dy: Array, x: Array, running_mean: Array, running_var: Array, weight: Array, eps: float, multiplied: Array
) -> tuple[Array, Array, Array]:
    right = _evaluation(dy, x, running_mean, running_var, weight, eps)
    return right[0], (dy * multiplied).sum(0), right[2]


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
        Mistake(
            lambda dy, x, m, v, weight, eps: _evaluation(dy, x, m, (np.sqrt(v) + eps) ** 2, weight, 0.0),
            "eps stands outside the root; in the forward pass it stood inside, beside the variance.",
        ),
        Mistake(
            lambda dy, x, m, v, weight, eps: _evaluation(dy, x, m, (v + eps) ** 2, weight, 0.0),
            "divided by the variance where the forward pass divides by its root.",
        ),
        Mistake(
            lambda dy, x, m, v, weight, eps: (
                weight * np.sqrt(v + eps) * dy,
                *_evaluation(dy, x, m, v, weight, eps)[1:],
            ),
            "dx is multiplied by the standard deviation (or divided by 1 over it); the forward pass divided by it.",
        ),
        Mistake(
            lambda dy, x, m, v, weight, eps: _with_d_weight(dy, x, m, v, weight, eps, x),
            "dx and d_bias are right. The weight did not multiply x but x_hat.",
        ),
        Mistake(
            lambda dy, x, m, v, weight, eps: _with_d_weight(dy, x, m, v, weight, eps, x - m),
            "dx and d_bias are right. What the weight multiplied was centred *and* divided by something.",
        ),
    ),
    done="every row's gradient is its own, and no rank needs to talk; weight and bias still collect over the rows.",
)

EXERCISES = (PARAMETERS, INPUT, CHECK, EVALUATION)
