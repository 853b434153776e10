"""Running averages: how a layer remembers the statistics of past batches for evaluation.

`momentum` is PyTorch's: the weight of the *new* value. (Keras, Flax and ONNX call the weight of the old one momentum.)
"""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, check_whole


def check_momentum(momentum: float | None) -> None:
    """Refuses a momentum outside [0, 1]; None asks for the cumulative average, 0 keeps the running value as it is.

    Raises:
        ArgumentError: negative, above 1 or NaN.
    """
    if momentum is not None and not 0 <= momentum <= 1:
        expected = "a number from 0 to 1, or None for the cumulative average"
        do = "It is the weight of the new value: 0.1 here is what Keras calls 0.9."
        raise ArgumentError("momentum", got=momentum, expected=expected, do=do)


def updated(old: Array, new: Array, momentum: float | None, batches: int | Array) -> Array:
    """Computes (1 - a) old + a new, with a = momentum, or a = 1 / batches for the cumulative average.

    Args:
        old: the running value.
        new: the statistic of this batch.
        momentum: weight of the new value; None: every batch so far counts the same.
        batches: number of batches seen, this one included; (S, 1) for the averages (S, C) of S ranks.
    """
    a = 1.0 / batches if momentum is None else momentum
    return ((1.0 - a) * old.astype(np.float64) + a * new).astype(old.dtype)


def window(momentum: float) -> float:
    """Number of equally weighted batches whose mean has the same variance: (2 - a) / a; infinite for a = 0."""
    check_momentum(momentum)
    return (2.0 - momentum) / momentum if momentum else math.inf


def half_life(momentum: float) -> float:
    """Batches after which a value's weight has halved: ln(1/2) / ln(1 - a); infinite for a = 0."""
    check_momentum(momentum)
    if momentum == 0:
        return math.inf
    return 0.0 if momentum == 1 else math.log(0.5) / math.log1p(-momentum)


def initial_weight(momentum: float, batches: int) -> float:
    """Share of the initial value (0 and 1) still in the average: (1 - a)^t."""
    check_momentum(momentum)
    return float((1.0 - momentum) ** batches)


def debias(value: Array, initial: float, momentum: float, batches: int) -> Array:
    """Takes the initial value out: (value - (1 - a)^t initial) / (1 - (1 - a)^t). Kingma & Ba (2015), section 3.

    Raises:
        ArgumentError: no batch has been seen, or none has counted (a = 0), so nothing but the initial value is there.
    """
    check_whole("batches", batches, do="Average a batch first.")
    left = initial_weight(momentum, batches)
    if left == 1:
        do = "With 0 no batch has moved the running value."
        raise ArgumentError("momentum", got=momentum, expected="a number above 0", do=do)
    return (value - left * initial) / (1.0 - left)
