"""Instance normalisation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..comm.stretches import rank_offsets
from ..functional.box import Box
from ..stats import running
from ..stats.moments import ONE
from .group_norm import GroupNorm
from .statistics import register_running


class InstanceNorm(GroupNorm):
    """Computes y = weight (x - mean) / sqrt(var + eps) + bias, mean and biased variance over the positions of each row and channel.

    Training and evaluation are the same, unless running statistics are tracked: these move by `momentum` towards the mean over the batch's
    rows of mean and unbiased variance, and evaluation uses them, as constants in the backward pass. Talks to nobody.
    Helps where a row's contrast should go (style transfer); not where it tells something, or where a row has few positions.

    Args:
        num_features: C, the number of channels.
        eps: added to the variance.
        momentum: weight of the new value in the running statistics; None: they stay as they are, as in PyTorch.
        affine: whether there are weight (1 at the start) and bias (0), both (C,).
        track_running_stats: whether there are running statistics.
        dtype: of parameters and buffers.
        channel_axis: 1, or -1 for channels-last.

    Inputs: x of rank 3 or more, e.g. (N, C, L), (N, C, H, W). Weights and masks: those of GroupNorm. A row that is masked as a whole,
    or has no positions, does not move the running statistics. Where several ranks' rows lie in one array, each has its own.
    `num_batches_tracked` stays 0: PyTorch has it and never counts here.

    Raises:
        ShapeError: rank below 2, or a wrong number of channels.
        CountError: training where a row has a total weight of more than 0 and at most 1 (beyond rounding), such as any row of (N, C).

    Source: Ulyanov, Vedaldi & Lempitsky (2016); conventions of torch.nn.InstanceNorm1d.
    """

    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: Array | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        dtype: DTypeLike = np.float32,
        channel_axis: int = 1,
    ) -> None:
        super().__init__(num_features, num_features, eps, affine, dtype, channel_axis)
        running.check_momentum(momentum)
        self.num_features, self.momentum = num_features, momentum
        register_running(self, num_features, dtype, track_running_stats)

    def _statistics(self, x: Array, box: Box, counts: Array | None) -> tuple[Array, Array, Any]:
        if self.running_mean is None or self.running_var is None:
            return super()._statistics(x, box, counts)
        offsets = rank_offsets()
        if not self.training:
            stored = self.running_mean, self.running_var
            if offsets is not None and self.running_mean.ndim > 1:
                stored = np.repeat(stored[0], np.diff(offsets), axis=0), np.repeat(stored[1], np.diff(offsets), axis=0)
            mean, var = (np.array(np.broadcast_to(each, box.cells), np.float64, order="C") for each in stored)
            return mean, var, None
        mean, var, n = super()._statistics(x, box, counts)
        behind = np.broadcast_to(n, box.cells)
        seen, unbiased = behind[:, 0] > 0, var * (behind / np.maximum(behind - 1, ONE - 1))
        self.running_mean = self._moved(self.running_mean, mean, seen, offsets)
        self.running_var = self._moved(self.running_var, unbiased, seen, offsets)
        return mean, var, n

    def _moved(self, old: Array, new: Array, seen: Array, offsets: Array | None) -> Array:
        """Towards the mean over the rows that were seen; where several ranks' rows are here, for each of them, (R, C)."""
        if offsets is not None:
            ranks = [slice(low, high) for low, high in pairwise(offsets)]
            each = np.broadcast_to(old, (len(ranks), self.num_features))
            return np.stack([self._moved(o, new[r], seen[r], None) for o, r in zip(each, ranks, strict=True)])
        return running.updated(old, new[seen].mean(axis=0), self.momentum or 0.0, 1) if seen.any() else old
