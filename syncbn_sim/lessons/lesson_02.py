"""Exercises of lesson 02: the forward pass by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array
from ..functional import batch_norm as F
from ..stats.running import updated
from .exercise import Exercise, Mistake

EPS = 1e-5


def _batches(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    return [(rng.normal(size=(4, 3)) * [1, 3, 0.01] + 2, EPS), (rng.normal(size=(6, 2)) * 0.05, 1e-3)]


def _x_hat(x: Array, eps: float) -> Array:
    moments = F.local_moments(x)
    return F.standardize(x, moments.mean, moments.var(), eps)[0]


STANDARDIZE = Exercise(
    number="2.1",
    name="standardize",
    start="nothing comes back yet. Three lines: the mean of each column, its variance, and x_hat from both.",
    right=_x_hat,
    cases=_batches,
    mistakes=(
        Mistake(
            lambda x, eps: (x - x.mean(0)) / x.std(0),
            "close, but not for the narrow column. Where does eps go? A constant column would divide by zero.",
        ),
        Mistake(
            lambda x, eps: (x - x.mean(0)) / (x.std(0) + eps),
            "eps is there, but in another place than in the equation: inside the square root, beside the variance.",
        ),
        Mistake(
            lambda x, eps: (x - x.mean(0)) / np.sqrt(x.var(0, ddof=1) + eps),
            "the columns come out a little too narrow: this is the unbiased variance (n - 1). Which one makes sum(x_hat^2) / n equal to 1?",
        ),
        Mistake(
            lambda x, eps: (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + eps),
            "each row now has mean 0. Batch norm works down the columns: over the batch, for each channel. (Over a row, it is LayerNorm.)",
        ),
        Mistake(
            lambda x, eps: (x - x.mean()) / np.sqrt(x.var() + eps),
            "one mean for everything: the channels are mixed. Each column needs a mean of its own (axis=0).",
        ),
        Mistake(
            lambda x, eps: (x - x.mean(0)) / (x.var(0) + eps),
            "divided by the variance: a standard deviation is its root.",
        ),
        Mistake(lambda x, eps: x / np.sqrt(x.var(0) + eps), "the spread is right, but the columns are not centred."),
    ),
    done="mean 0 and variance 1 in each column, but for what eps takes from the narrow one.",
)


def _images(axes: tuple[int, ...], spread: Callable[[Array, float], Array] | None = None, ddof: int = 0) -> Any:
    """Batch norm of images with statistics over other axes, or another spread of (variance, eps)."""

    def answer(x: Array, weight: Array, bias: Array, eps: float) -> Array:
        var = x.var(axis=axes, keepdims=True, ddof=ddof)
        sd = np.sqrt(var + eps) if spread is None else spread(var, eps)
        return F.scale_and_shift((x - x.mean(axis=axes, keepdims=True)) / sd, weight, bias)

    return answer


SCALE_AND_SHIFT = Exercise(
    number="2.2",
    name="batch_norm_images",
    start="nothing comes back yet. For images the batch of a channel is everything but the channel: which axes are that?",
    right=lambda x, weight, bias, eps: F.scale_and_shift(_x_hat(x, eps), weight, bias),
    cases=lambda rng: [
        (rng.normal(size=(2, 3, 4, 5)) * 0.1 + 1, rng.uniform(0.5, 2, 3), rng.normal(size=3), 1e-3),
        (rng.normal(size=(4, 2, 3, 3)) * 2, rng.uniform(0.5, 2, 2), rng.normal(size=2), EPS),
    ],
    mistakes=(
        Mistake(
            _images((0,)),
            "each pixel is normalised by itself, over 2 numbers. A channel's statistics run over rows and columns too: axes 0, 2 and 3.",
        ),
        Mistake(
            _images((2, 3)),
            "each image has statistics of its own (that is InstanceNorm): a channel's batch is all images together.",
        ),
        Mistake(
            _images((1, 2, 3)),
            "each image has one mean for all its channels (that is LayerNorm): every channel has its own, over all images.",
        ),
        Mistake(_images((0, 1, 2, 3)), "one mean for everything: the channels are mixed. Each has a mean of its own."),
        Mistake(_images((0, 2, 3), lambda var, eps: var + eps), "divided by the variance: where is the root?"),
        Mistake(_images((0, 2, 3), lambda var, eps: np.sqrt(var)), "the axes are right, but eps is missing."),
        Mistake(
            _images((0, 2, 3), lambda var, eps: np.sqrt(var) + eps),
            "eps stands outside the root; it belongs inside, beside the variance.",
        ),
        Mistake(_images((0, 2, 3), ddof=1), "the unbiased variance (n - 1); what normalises divides by n."),
        Mistake(
            lambda x, weight, bias, eps: _x_hat(x, eps),
            "x_hat is right. What is missing is the part the net learns: weight and bias, one of each per channel.",
        ),
        Mistake(
            lambda x, weight, bias, eps: F.scale_and_shift(_x_hat(x, eps), weight, None),
            "the scale is right, the shift is missing.",
        ),
        Mistake(
            lambda x, weight, bias, eps: F.scale_and_shift(_x_hat(x, eps), bias, weight),
            "weight and bias have changed places: the weight multiplies.",
        ),
        Mistake(
            lambda x, weight, bias, eps: F.scale_and_shift(x, weight, bias),
            "scaled and shifted, but never normalised: use your x_hat.",
        ),
    ),
    done="one mean and one variance per channel, over images, rows and columns: 2 x 4 x 5 = 40 numbers in the first case.",
)


def _remember(running: Array, x: Array, momentum: float) -> Array:
    return updated(running, F.local_moments(x).var(unbiased=True), momentum, 1)


RUNNING = Exercise(
    number="2.3",
    name="update_running_var",
    start="nothing comes back yet. A running value is a weighted mean of the old one and of this batch's.",
    right=_remember,
    cases=lambda rng: [(np.ones(2), rng.normal(size=(4, 2)) * 3, 0.1), (np.array([0.5]), rng.normal(size=(3, 1)), 0.4)],
    mistakes=(
        Mistake(
            lambda running, x, momentum: (1 - momentum) * running + momentum * x.var(0),
            "the biased variance (divided by n) is what normalises. What is *stored* estimates the variance of all data: n - 1.",
        ),
        Mistake(
            lambda running, x, momentum: momentum * running + (1 - momentum) * x.var(0, ddof=1),
            "old and new are the wrong way round: here, as in PyTorch, momentum is the weight of the new value (0.1: slow).",
        ),
        Mistake(
            lambda running, x, momentum: momentum * running + (1 - momentum) * x.var(0),
            "two things: momentum is the weight of the new value, and the stored variance is the unbiased one.",
        ),
        Mistake(
            lambda running, x, momentum: running + momentum * x.var(0, ddof=1),
            "this grows for ever: the old value has to give way by as much as the new one gets.",
        ),
        Mistake(lambda running, x, momentum: x.var(0, ddof=1), "the past is forgotten: where did `running` go?"),
    ),
    done="the stored variance is unbiased, the normalising one biased. Most systems' bug reports about batch norm start here.",
)

EVALUATION = Exercise(
    number="2.4",
    name="evaluate",
    start="nothing comes back yet. In evaluation a row's output must not depend on the other rows of its batch.",
    right=lambda x, mean, var, eps: F.standardize(x, mean, var, eps)[0],
    cases=lambda rng: [(rng.normal(size=(3, 2)) + 1, np.array([0.5, -1.0]), np.array([2.0, 0.3]), 0.01)],
    mistakes=(
        Mistake(
            lambda x, mean, var, eps: _x_hat(x, eps),
            "this is training mode: the batch's own statistics. A prediction would change with whoever else is in the batch.",
        ),
        Mistake(
            lambda x, mean, var, eps: (x - mean) / (var + eps),
            "divided by the variance; the equation divides by its square root.",
        ),
        Mistake(lambda x, mean, var, eps: (x - mean) / np.sqrt(var), "eps belongs to evaluation too."),
        Mistake(
            lambda x, mean, var, eps: (x - mean) / (np.sqrt(var) + eps),
            "eps stands outside the root; it belongs inside, beside the variance.",
        ),
    ),
    done="no sum over the batch: in evaluation every row is on its own, and no rank needs to talk.",
)

EXERCISES = (STANDARDIZE, SCALE_AND_SHIFT, RUNNING, EVALUATION)
