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
    n = _summed(np.broadcast_to(w, x.shape), box)
    some = np.maximum(n, np.finfo(np.float64).tiny)
    mean = _summed(w * x, box) / some
    deviation = x - _spread(mean, box)
    slip = _summed(w * deviation, box)  # 0 in exact arithmetic: what rounding of the mean left over
    deviation_sq = np.maximum(_summed(w * deviation * deviation, box) - slip * (slip / some), 0.0)
    mean += slip / some
    return np.stack([n * mean, deviation_sq + n * mean * mean, deviation_sq, mean, n])


@QUIET
def normalise(x: Array, box: Box, mean: Array, var: Array, eps: float, weight: Array, bias: Array, y: Array) -> Array:
    """Writes y = weight (x - mean) inv_std + bias, and returns inv_std = 1 / sqrt(var + eps).

    mean, var and inv_std are (stretches, groups), weight and bias (C,).
    """
    inv_std = 1.0 / np.sqrt(var + eps)
    x_hat = (_four(x, box) - _spread(mean, box)) * _spread(inv_std, box)
    _four(y, box, y.dtype)[...] = x_hat * _channels(weight, box) + _channels(bias, box)
    return inv_std


@QUIET
def backward_sums(dy: Array, x: Array, box: Box, mean: Array, inv_std: Array, weight: Array) -> tuple[Array, Array]:
    """What dx and the parameters' gradients need of dy, x_hat being (x - mean) inv_std.

    Returns:
        sum(weight dy) and sum(weight dy x_hat) of each cell, (2, stretches, groups); sum(dy) and sum(dy x_hat) of each channel, (2, C).
    """
    dy = _four(dy, box)
    products = dy * (_four(x, box) - _spread(mean, box)) * _spread(inv_std, box)
    w = _channels(weight, box)
    cells = np.stack([_summed(w * dy, box), _summed(w * products, box)])
    return cells, np.stack([dy.sum(axis=(0, 3)).ravel(), products.sum(axis=(0, 3)).ravel()])


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
    inv_std = _spread(inv_std, box)
    x_hat = (_four(x, box) - _spread(mean, box)) * inv_std
    through_statistics = _weights(counts, box) * (_spread(cells[0], box) + x_hat * _spread(cells[1], box))
    _four(dx, box, dx.dtype)[...] = inv_std * (_channels(weight, box) * _four(dy, box) - through_statistics)


def _four(x: Array, box: Box, dtype: object = np.float64) -> Array:
    """As (rows, groups, channels of a group, positions)."""
    groups = box.cells[1]
    return x.reshape(box.view[0], groups, box.channels // groups, box.length).astype(dtype, copy=False)  # type: ignore[call-overload]


def _weights(counts: Array | None, box: Box) -> Array:
    return np.ones((1, 1, 1, 1)) if counts is None else counts[:, None, None, :]


def _channels(values: Array, box: Box) -> Array:
    return values.reshape(1, box.cells[1], -1, 1)


def _summed(values: Array, box: Box) -> Array:
    """Sums of cells."""
    rows = values.sum(axis=(2, 3))
    if box.cells[0] == 1:
        return rows.sum(axis=0, keepdims=True)
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
