"""What a batch norm normalises with and remembers, and what it keeps for its backward pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array, parameter_dtype
from ..functional.box import Box
from ..stats.moments import ONE, Moments, Stretches
from .module import Module


class Statistics(NamedTuple):
    """What a batch is normalised with and remembered by, each (C,); (S, C) for S stretches of rows, each of them a batch by itself.

    Attributes:
        mean: what is subtracted.
        var: the biased variance; sqrt(var + eps) is what is divided by.
        stored_mean: what the running mean moves towards.
        stored_var: what the running variance moves towards: the unbiased variance.
        n: the count behind them; (S, 1) for stretches.
    """

    mean: Array
    var: Array
    stored_mean: Array
    stored_var: Array
    n: Any


class Context(NamedTuple):
    """What backward needs.

    Attributes:
        x: the input, as it lies in memory.
        box: how it lies, and the stretches of rows.
        counts: frequency weights of positions, or None.
        mean: what was subtracted, (stretches, C) float64.
        inv_std: 1 / sqrt(var + eps), likewise.
        weight: gamma as it was, (C,) float64.
        local: moments of this rank's batch; None, as the next two, if the statistics were the stored ones.
        moments: what `sum_forward` has made of them.
        statistics: what `statistics` has made of those.
        summed: whether `sum_forward` was asked, so that `sum_backward` must be: in training.
    """

    x: Array
    box: Box
    counts: Array | None
    mean: Array
    inv_std: Array
    weight: Array
    local: Moments | None
    moments: Moments | None
    statistics: Statistics | None
    summed: bool


def register_running(layer: Module, channels: int, dtype: DTypeLike, tracks: bool) -> None:
    """The buffers of running statistics, under PyTorch's names: mean 0, variance 1, no batch yet; None each where they are not tracked."""
    kind = parameter_dtype(dtype)
    layer.register_buffer("running_mean", np.zeros(channels, kind) if tracks else None)
    layer.register_buffer("running_var", np.ones(channels, kind) if tracks else None)
    layer.register_buffer("num_batches_tracked", np.array(0, np.int64) if tracks else None)


def moments_of(cells: Array, apart: bool) -> Moments:
    """What a layer's hooks are told of the `moments` step: of one batch, or of several stretches of rows."""
    if apart:
        total, total_sq, deviation_sq, mean, n = cells
        return Stretches(n[:, :1], total, total_sq, deviation_sq, mean)
    total, total_sq, deviation_sq, mean, n = cells[:, 0]
    return Moments(float(n[0]), total, total_sq, deviation_sq, mean)


def for_cells(values: Array, box: Box) -> Array:
    """Statistics as the steps want them: a float64 copy, (stretches, C)."""
    if values.ndim == 1 and box.cells[0] > 1:
        values = np.broadcast_to(values, box.cells)
    return np.array(values, np.float64, order="C").reshape(box.cells)


def statistics_apart(moments: Stretches) -> Statistics:
    """Of stretches: mean and variances of each; of one without rows 0 and 1, which then touch nothing."""
    n = moments.count
    mean, var = moments.mean, np.where(n > 0, moments.var(), 1.0)
    return Statistics(mean, var, mean, var * np.where(n > 1, n / np.maximum(n - 1, ONE - 1), 1.0), n)
