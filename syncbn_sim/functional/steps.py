"""The steps of every norm in NumPy, on arrays as `Box.flat` gives them: what layers use where nothing is compiled.

All is float64 but what comes in and goes out. `kernels` does the same in plain loops. `tests/functional/test_steps.py` holds the two
equal, and both equal to `batch_norm`, the pair to read. At positions of weight 0 x and dy must be numbers, such as 0.
"""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from .box import Box

QUIET = np.errstate(
    over="ignore", invalid="ignore", divide="ignore"
)  # a net that diverges does so without a word, as in compiled loops


@QUIET
def moments(x: Array, box: Box, counts: Array | None) -> Array:
    """Moments of each cell: sum(w x), sum(w x^2), sum(w (x - mean)^2), mean, count n; (5, stretches, groups), 0 for a cell without rows.

    Source: Chan, Golub & LeVeque (1983), corrected two-pass algorithm.
    """
    x, w = _four(x, box), _weights(counts, box)
    n = _count(counts, box)
    some = np.maximum(n, np.finfo(np.float64).tiny)
    mean = _summed(_times(w, x), box) / some
    deviation = x - _spread(mean, box)
    weighted = _times(w, deviation)
    slip = _summed(weighted, box)  # 0 in exact arithmetic: what rounding of the mean left over
    np.multiply(weighted, deviation, out=deviation)
    deviation_sq = np.maximum(_summed(deviation, box) - slip * (slip / some), 0.0)
    mean += slip / some
    return np.stack([n * mean, deviation_sq + n * mean * mean, deviation_sq, mean, n])


@QUIET
def normalise(x: Array, box: Box, mean: Array, var: Array, eps: float, weight: Array, bias: Array, y: Array) -> Array:
    """Writes y = weight (x - mean) inv_std + bias, and returns inv_std = 1 / sqrt(var + eps).

    mean, var and inv_std are (stretches, groups), weight and bias (C,).
    """
    inv_std = 1.0 / np.sqrt(var + eps)
    x_hat = _x_hat(x, box, mean, inv_std)
    x_hat *= _channels(weight, box)
    x_hat += _channels(bias, box)
    _four(y, box, y.dtype)[...] = x_hat
    return inv_std


@QUIET
def backward_sums(dy: Array, x: Array, box: Box, mean: Array, inv_std: Array, weight: Array) -> tuple[Array, Array]:
    """What dx and the parameters' gradients need of dy, x_hat being (x - mean) inv_std.

    Returns:
        sum(weight dy) and sum(weight dy x_hat) of each cell, (2, stretches, groups); sum(dy) and sum(dy x_hat) of each channel, (2, C).
    """
    dy, products, w = _four(dy, box), _x_hat(x, box, mean, inv_std), _channels(weight, box)
    products *= dy
    channels = np.stack([dy.sum(axis=(0, 3)).ravel(), products.sum(axis=(0, 3)).ravel()])
    return np.stack([_summed(w * dy, box), _summed(w * products, box)]), channels


@QUIET
def input_gradient(
    dy: Array,
    x: Array,
    box: Box,
    counts: Array | None,
    mean: Array,
    inv_std: Array,
    weight: Array,
    cells: Array,
    dx: Array,
) -> None:
    """Writes dx = inv_std (weight dy - w (cells[0] + x_hat cells[1])).

    With cells = (sum(weight dy) / n, sum(weight dy x_hat) / n) of the batch behind the statistics that is the gradient; with 0 that of
    statistics which are constants.
    """
    through_statistics = _x_hat(x, box, mean, inv_std)
    through_statistics *= _spread(cells[1], box)
    through_statistics += _spread(cells[0], box)
    gradient = _channels(weight, box) * _four(dy, box)
    gradient -= _times(_weights(counts, box), through_statistics)
    gradient *= _spread(inv_std, box)
    _four(dx, box, dx.dtype)[...] = gradient


def _x_hat(x: Array, box: Box, mean: Array, inv_std: Array) -> Array:
    """Computes (x - mean) inv_std, a new array."""
    x_hat = _four(x, box) - _spread(mean, box)
    x_hat *= _spread(inv_std, box)
    return x_hat


def _four(x: Array, box: Box, dtype: object = np.float64) -> Array:
    """As (rows, groups, channels of a group, positions)."""
    groups = box.cells[1]
    return x.reshape(box.view[0], groups, box.channels // groups, box.length).astype(dtype, copy=False)  # type: ignore[call-overload]


def _weights(counts: Array | None, box: Box) -> Array | None:
    return None if counts is None else counts[:, None, None, :]


def _times(w: Array | None, values: Array) -> Array:
    return values if w is None else w * values


def _count(counts: Array | None, box: Box) -> Array:
    """The count of each cell."""
    rows = np.full(box.view[0], float(box.length)) if counts is None else counts.sum(axis=1)
    return _summed(np.repeat(rows[:, None, None, None] * (box.channels // box.cells[1]), box.cells[1], axis=1), box)


def _channels(values: Array, box: Box) -> Array:
    return values.reshape(1, box.cells[1], -1, 1)


def _summed(values: Array, box: Box) -> Array:
    """Sums of cells."""
    if box.cells[0] == 1:
        return np.asarray(values.sum(axis=(0, 2, 3)))[None]
    rows = values.sum(axis=(2, 3))
    sums, starts = np.zeros(box.cells), box.offsets[:-1]
    some = starts < box.offsets[1:]  # of an empty stretch reduceat takes a row of the next one
    if some.any():
        sums[some] = np.add.reduceat(rows[: box.offsets[-1]], starts[some], axis=0)
    return sums


def _spread(values: Array, box: Box) -> Array:
    """Spreads (stretches, groups) to (rows or 1, groups, 1, 1)."""
    if box.cells[0] > 1:
        values = np.repeat(values, np.diff(box.offsets), axis=0)
    return values[:, :, None, None]
