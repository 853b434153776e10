"""Exercises of lesson 01: why normalise."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..functional import batch_norm as F
from .exercise import Exercise, Mistake


def _rms(input_rms: float, width: int, sd: float, depth: int) -> float:
    first = np.sqrt(width) * sd
    return float(input_rms * first * (first / np.sqrt(2)) ** (depth - 1))


PREDICTED_RMS = Exercise(
    number="1.1",
    name="predicted_rms",
    start="nothing comes back yet. What does one layer do to the mean square? And the ReLU before the next one?",
    right=_rms,
    cases=lambda rng: [(0.5, 128, 0.1, 4), (2.0, 50, 0.3, 1), (1.0, 64, 0.15, 12)],
    mistakes=(
        Mistake(
            lambda input_rms, width, sd, depth: input_rms * (np.sqrt(width) * sd) ** depth,
            "right for one layer, too large for more: what does a ReLU keep of the mean square that enters it?",
        ),
        Mistake(
            lambda input_rms, width, sd, depth: input_rms * (np.sqrt(width / 2) * sd) ** depth,
            "one ReLU too many: with `depth` layers, how many ReLUs stand between them? The inputs pass none.",
        ),
        Mistake(
            lambda input_rms, width, sd, depth: (
                input_rms * np.sqrt(width) * sd * (np.sqrt(width) * sd / 2) ** (depth - 1)
            ),
            "the ReLU halves the mean *square*; you have halved its root.",
        ),
        Mistake(
            lambda input_rms, width, sd, depth: _rms(input_rms, width, sd, depth) ** 2,
            "this is the mean square. Asked for is its root.",
        ),
        Mistake(
            lambda input_rms, width, sd, depth: input_rms * width * sd * (width * sd / np.sqrt(2)) ** (depth - 1),
            "the products have random signs: their squares add up, not their sizes, so the width does not come in as it is.",
        ),
        Mistake(
            lambda input_rms, width, sd, depth: (
                input_rms * np.sqrt(width) * sd * (1 + (depth - 1) * (np.sqrt(width / 2) * sd - 1))
            ),
            "this grows by the same amount at every layer. Layers multiply.",
        ),
    ),
    done="a factor for each layer, to the power of the depth. Any factor but 1 explodes or vanishes, it is a matter of depth.",
)


def _scaled(w: Array, gradient: Array, factor: float, lr: float) -> tuple[Array, Any]:
    new = gradient / factor
    return new, lr * np.linalg.norm(new) / np.linalg.norm(factor * w)


def _draw_weights(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    cases = []
    for size, factor in ((3, 10.0), (5, 0.5)):
        w = rng.normal(size=size)
        gradient = rng.normal(size=size)
        cases.append((w, gradient - w * (w @ gradient) / (w @ w), factor, 0.1))
    return cases


SCALED_WEIGHTS = Exercise(
    number="1.2",
    name="with_scaled_weights",
    start="nothing comes back yet. L(factor w) = L(w) for every w: differentiate both sides by w.",
    right=_scaled,
    cases=_draw_weights,
    mistakes=(
        Mistake(
            lambda w, gradient, factor, lr: (gradient, lr * np.linalg.norm(gradient) / np.linalg.norm(factor * w)),
            "the *output* does not change with the factor; the gradient does. By the chain rule, factor * gradient(factor w) = ...",
        ),
        Mistake(
            lambda w, gradient, factor, lr: (
                factor * gradient,
                lr * np.linalg.norm(factor * gradient) / np.linalg.norm(factor * w),
            ),
            "the wrong way: to turn a longer vector by the same angle takes a longer step, so a unit of step does less.",
        ),
        Mistake(
            lambda w, gradient, factor, lr: (
                gradient / factor,
                lr * np.linalg.norm(gradient / factor) / np.linalg.norm(w),
            ),
            "the gradient is right. The fraction is one of the *new* weights' length.",
        ),
        Mistake(
            lambda w, gradient, factor, lr: (gradient / factor, lr * np.linalg.norm(gradient / factor)),
            "the gradient is right. The second number is the length of the step; asked for is a fraction of the weights' length.",
        ),
        Mistake(
            lambda w, gradient, factor, lr: (
                gradient / factor,
                np.linalg.norm(gradient / factor) / np.linalg.norm(factor * w),
            ),
            "the gradient is right. A step is the gradient times something.",
        ),
        Mistake(
            lambda w, gradient, factor, lr: (
                gradient / factor**2,
                lr * np.linalg.norm(gradient / factor**2) / np.linalg.norm(factor * w),
            ),
            "divided once too often: the square belongs to the relative step, which the weights' length divides again.",
        ),
    ),
    done="relative steps shrink with the square of the weights' size: before BN, |w| is part of the learning rate.",
)

WITHOUT_BIAS = Exercise(
    number="1.3",
    name="statistics_without_bias",
    start="nothing comes back yet. In evaluation BN sees z + bias today and z tomorrow: which mean makes the output the same?",
    right=lambda bias, running_mean, running_var: (running_mean - bias, running_var),
    cases=lambda rng: [(rng.normal(size=3), rng.normal(size=3), rng.uniform(0.5, 2, 3))],
    mistakes=(
        Mistake(
            lambda bias, running_mean, running_var: (running_mean, running_var),
            "in training the bias is useless at once, but the *stored* mean remembers it: predictions would shift.",
        ),
        Mistake(
            lambda bias, running_mean, running_var: (running_mean + bias, running_var),
            "the sign: (z + bias) - old mean has to equal z - new mean.",
        ),
        Mistake(
            lambda bias, running_mean, running_var: (running_mean - bias, running_var - bias**2),
            "the mean is right. How does adding a constant change a variance?",
        ),
        Mistake(
            lambda bias, running_mean, running_var: (running_mean - bias.mean(), running_var),
            "one number for all channels: every channel has a bias and a mean of its own.",
        ),
        Mistake(
            lambda bias, running_mean, running_var: (0 * running_mean, running_var),
            "the bias was not all there was in the mean: z has one of its own.",
        ),
    ),
    done="the bias moves into the stored mean, and nothing else changes.",
)


def _means(x: Array) -> tuple[Array, Array]:
    return F.local_moments(x).mean, x.mean(axis=(1, 2, 3))


TWO_MEANS = Exercise(
    number="1.4",
    name="two_means",
    start="nothing comes back yet. A mean for each channel: over all axes but which one? A mean for each row: likewise.",
    right=_means,
    cases=lambda rng: [(rng.normal(size=(3, 3, 2, 4)) + np.arange(3)[:, None, None, None],)],
    mistakes=(
        Mistake(lambda x: _means(x)[::-1], "both are there, the wrong way round: BN's first."),
        Mistake(
            lambda x: (x.mean(axis=0), x.mean(axis=(1, 2, 3))),
            "BN's mean is still an image: it is taken over the pixels of a channel too, not over the rows alone.",
        ),
        Mistake(
            lambda x: (x.mean(axis=(0, 2, 3)), x.mean(axis=(2, 3))),
            "LayerNorm's mean is still one for each row and channel (that is InstanceNorm's): it is taken over the channels too.",
        ),
        Mistake(
            lambda x: (x.mean(axis=(0, 2, 3)), x.mean(axis=0)),
            "BN's is right. LayerNorm's mean must not run over the rows of the batch.",
        ),
        Mistake(lambda x: (x.mean(), x.mean()), "one mean for everything: neither of the two does that. Use axis=."),
    ),
    done="BN averages over the batch and needs to know who is in it; LayerNorm never looks at another row.",
)

EXERCISES = (PREDICTED_RMS, SCALED_WEIGHTS, WITHOUT_BIAS, TWO_MEANS)
