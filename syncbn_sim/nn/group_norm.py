"""Group normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..errors import ArgumentError, CountError, ShapeError
from ..functional.box import Box, box_of
from ..stats.moments import ONE, SHARES
from .row_norm import RowNorm


class GroupNorm(RowNorm):
    """Computes y = weight (x - mean) / sqrt(var + eps) + bias, mean and biased variance over each row's groups of channels, all positions.

    Group g of row n: x[n, g C/G : (g + 1) C/G, ...]. One group: LayerNorm but for its weight of each channel; C groups: InstanceNorm.
    No batch statistics, so training and evaluation are the same, and it talks to nobody. Helps where a device holds one or two
    images (detection, segmentation); with batches of 32 and more of shuffled images BatchNorm trains to a little more.

    Args:
        num_groups: G, into which channels are dealt as they come. It divides C.
        num_channels: C.
        eps: added to the variance.
        affine: whether there are weight (1 at the start) and bias (0), both (C,).
        dtype: of the parameters.
        channel_axis: 1, or -1 for channels-last.

    Inputs: x of rank 2 or more, e.g. (N, C), (N, C, H, W). A frequency weight counts its position within its own row's statistics; 0 masks
    it: it is never read, y and dx are 0 there. A weight of a row counts all its positions alike, so it changes nothing unless it is 0.

    Raises:
        ArgumentError: num_groups does not divide num_channels.
        ShapeError: rank below 2, or a wrong number of channels.
        CountError: training where a cell has a total weight of more than 0 and at most 1 (beyond rounding): no variance.

    Source: Wu & He (2018), equation 7; conventions of torch.nn.GroupNorm.
    """

    channel_axes: tuple[int]

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: DTypeLike = np.float32,
        channel_axis: int = 1,
    ) -> None:
        super().__init__((num_channels,), eps, affine, affine, dtype)
        if num_groups < 1 or num_channels % num_groups or channel_axis == 0:
            raise ArgumentError(
                type(self).__name__,
                got=f"num_groups={num_groups}, num_channels={num_channels}, channel_axis={channel_axis}",
                expected="groups of equally many channels, and rows, not channels, on axis 0",
                do="num_groups must divide num_channels.",
            )
        self.num_groups, self.num_channels, self.channel_axes = num_groups, num_channels, (channel_axis,)

    def _check(self, x: Array) -> None:
        (axis,) = self.channel_axes
        if not -x.ndim < axis < x.ndim or x.shape[axis] != self.num_channels:
            raise ShapeError(
                f"{type(self).__name__} x",
                got=x.shape,
                expected=f"rank 2 or more with {self.num_channels} channels on axis {axis}",
                do="Check the number of channels, or pass channel_axis=-1 for channels-last.",
            )

    def _partition(self, x: Array) -> Box:
        """For each row and group of channels one cell."""
        return box_of(x, self.channel_axes[0], self.num_groups).by_row()

    def _statistics(self, x: Array, box: Box, counts: Array | None) -> tuple[Array, Array, Any]:
        mean, var, n = super()._statistics(x, box, counts)
        if self.training and np.any(alone := (n > 0) & (n <= ONE)):
            row = np.atleast_2d(alone).any(axis=1).argmax()
            raise CountError(
                f"{type(self).__name__} of {self.num_channels} channels in training",
                got=f"a total count of {np.broadcast_to(n, box.cells)[row].min():g} in row {row}",
                expected="more than 1 for each row and group",
                do=f"One value has no variance: give rows of more positions, take fewer groups, or mask the row. {SHARES}",
            )
        return mean, var, n
