"""Batch normalisation on this rank's own batch, and the methods by which a subclass sums over more ranks or decides otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array, parameter_dtype
from ..errors import ArgumentError, CountError, ShapeError
from ..functional.batch import Batch
from ..functional.batch_norm import BackwardSums
from ..functional.kernels import batch_of
from ..stats import running
from ..stats.moments import ONE, SHARES, Moments
from .module import Module, Parameter


class Statistics(NamedTuple):
    """What a batch is normalised with and remembered by, each (C,).

    Attributes:
        mean: what is subtracted.
        var: the biased variance; sqrt(var + eps) is what is divided by.
        stored_mean: what the running mean moves towards.
        stored_var: what the running variance moves towards: the unbiased variance.
        n: the count behind them.
    """

    mean: Array
    var: Array
    stored_mean: Array
    stored_var: Array
    n: float


class Context(NamedTuple):
    """What backward needs.

    Attributes:
        batch: this rank's.
        weight: gamma as it was, or None.
        local: moments of this rank's batch; None, as the next two, if the statistics were the stored ones.
        moments: what `sum_forward` has made of them.
        statistics: what `statistics` has made of those.
        summed: whether `sum_forward` was asked, so that `sum_backward` must be: in training.
    """

    batch: Batch
    weight: Array | None
    local: Moments | None
    moments: Moments | None
    statistics: Statistics | None
    summed: bool


class BatchNorm(Module):
    """Computes y = weight (x - mean) / sqrt(var + eps) + bias, for each channel.

    Training: mean and biased variance of the batch; the running ones move by `momentum` towards the mean and
    the *unbiased* variance. Evaluation: the running ones. The backward pass in evaluation treats them as constants.
    Talks to nobody.

    Args:
        num_features: C, the number of channels.
        eps: added to the variance, so that a constant channel gives y = bias.
        momentum: weight of the new value in the running statistics; None: cumulative average.
        affine: whether there are weight (1 at the start) and bias (0), both (C,).
        track_running_stats: False: no running statistics, so evaluation uses this rank's batch too.
        dtype: of parameters and buffers, float32 or float64. Statistics are computed in float64.
        channel_axis: 1, or -1 for channels-last.

    Inputs: x of rank 2 to 5 or more, e.g. (N, C), (N, C, H, W); any float dtype, which y and dx share.
    Position weights (shape of x without its channel axis, or one per row) count as frequencies; 0 masks a
    position: it is never read, y and dx are 0 there. An empty batch gives an empty output and leaves the running statistics alone.

    Raises:
        DtypeError: integer or bool input.
        ShapeError: rank below 2, or a wrong number of channels.
        CountError: training with a total weight of more than 0 and at most 1 (beyond rounding): no variance.

    Attributes:
        monitor: None, or a function that each forward pass in training calls with the layer, the moments of this rank's batch and
            those of the batch that normalises. Every rank calls it at the same place, so it may talk; a count may be 0.

    Source: Ioffe & Szegedy (2015), algorithms 1 and 2; conventions of torch.nn.BatchNorm1d.
    """

    channel_axes: tuple[int]
    monitor: Callable[[BatchNorm, Moments, Moments], None] | None = None
    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: Array | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: DTypeLike = np.float32,
        channel_axis: int = 1,
    ) -> None:
        super().__init__()
        running.check_momentum(momentum)
        if num_features < 1 or not eps >= 0 or channel_axis == 0:
            raise ArgumentError(
                "BatchNorm",
                got=f"num_features={num_features}, eps={eps}, channel_axis={channel_axis}",
                expected="at least one channel, eps >= 0, and rows, not channels, on axis 0",
                do="The first argument is the number of channels.",
            )
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.channel_axes = (channel_axis,)
        self.weight = Parameter(np.ones(num_features), dtype) if affine else None
        self.bias = Parameter(np.zeros(num_features), dtype) if affine else None
        kind, tracks = parameter_dtype(dtype), track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, kind) if tracks else None)
        self.register_buffer("running_var", np.ones(num_features, kind) if tracks else None)
        self.register_buffer("num_batches_tracked", np.array(0, np.int64) if tracks else None)

    @property
    def channel_axis(self) -> int:
        """The axis of the channels."""
        return self.channel_axes[0]

    def reset_running_stats(self) -> None:
        """Forgets all batches: running mean 0, running variance 1, none counted. Without running statistics it does nothing."""
        if self.running_mean is None or self.running_var is None:
            return
        self.running_mean, self.running_var = np.zeros_like(self.running_mean), np.ones_like(self.running_var)
        self.num_batches_tracked = np.array(0, np.int64)

    # -- talking: the two sums over the batch, which `SharedSums` takes over all ranks -------------------------------

    def sum_forward(self, local: Moments) -> Moments:
        """Turns this rank's moments into those of the batch that normalises."""
        return local

    def sum_backward(self, local: BackwardSums) -> BackwardSums:
        """Turns this rank's backward sums into those of the same batch."""
        return local

    # -- deciding: what is normalised with, and what that means for dx ------------------------------------------------

    def statistics(self, moments: Moments) -> Statistics:
        """Mean and variances of the batch; of an empty one 0 and 1, which then touch nothing.

        Raises:
            CountError: in training, the count is above 0 and not above 1 (beyond rounding).
        """
        n = moments.count
        if n == 0:
            zero, one = np.zeros(self.num_features), np.ones(self.num_features)
            return Statistics(zero, one, zero, one, 0)
        if self.training and n <= ONE:
            raise CountError(
                f"{type(self).__name__}({self.num_features}) in training",
                got=f"a total count of {n:g} for each channel",
                expected="more than 1",
                do=f"One position has no variance: use more rows, synchronise over ranks, or call eval(). {SHARES}",
            )
        mean, var = moments.mean, moments.var()
        return Statistics(mean, var, mean, var * (n / (n - 1)) if n > 1 else var, n)

    def statistics_backward(self, sums: BackwardSums, context: Context) -> BackwardSums:
        """Takes (sum(dy), sum(dy x_hat)) of the batch, returns the (a, b) that `statistics` makes of them in dx.

        dx = weight inv_std (dy - w (a + x_hat b) / n), with w the position's frequency weight. Statistics that are the mean and the
        variance have a = sum(dy) and b = sum(dy x_hat).
        """
        return sums

    # -- the way of a batch -------------------------------------------------------------------------------------------

    def _check(self, x: Array) -> None:
        (axis,) = self.channel_axes
        if not -x.ndim < axis < x.ndim or x.shape[axis] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} x",
                got=x.shape,
                expected=f"rank 2 or more with {self.num_features} channels on axis {axis}",
                do="Check num_features, or pass channel_axis=-1 for channels-last.",
            )

    def _forward(self, x: Array, counts: Array | None) -> tuple[Array, Context]:
        (axis,), training = self.channel_axes, self.training
        batch = batch_of(x if axis == 1 else np.moveaxis(x, axis, 1), counts, self._workspace)
        # A copy: whoever steps, or writes into the weight, does not change what this pass did.
        weight = self.weight.data.copy() if self.weight is not None else None
        if training or self.running_mean is None or self.running_var is None:
            local = batch.local_moments()
            moments = self.sum_forward(local) if training else local
            if training and self.monitor:
                self.monitor(self, local, moments)
            used = self.statistics(moments)
            mean, var = used.mean, used.var
            if training and used.n > 0:
                self._remember(used)
            context = Context(batch, weight, local, moments, used, training)
        else:
            mean, var = self.running_mean, self.running_var
            context = Context(batch, weight, None, None, None, False)
        y = batch.normalise(mean, var, self.eps, weight, self.bias.data if self.bias is not None else None)
        return y if axis == 1 else np.moveaxis(y, 1, axis), context

    def _backward(self, dy: Array, context: Context) -> Array:
        batch, (axis,) = context.batch, self.channel_axes
        sums = batch.local_backward_sums(dy if axis == 1 else np.moveaxis(dy, axis, 1))
        if self.weight is not None:
            self.weight.add_grad(sums.dy_x_hat)
        if self.bias is not None:
            self.bias.add_grad(sums.dy)
        if context.statistics is None:
            dx = batch.frozen_input_gradient(context.weight)
        else:
            if context.summed:
                sums = self.sum_backward(sums)
            sums = self.statistics_backward(sums, context)
            dx = batch.input_gradient(context.weight, sums, context.statistics.n or 1.0)
        return dx if axis == 1 else np.moveaxis(dx, 1, axis)

    def _remember(self, used: Statistics) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        # A sum of arrays without axes is no array.
        self.num_batches_tracked = np.array(self.num_batches_tracked + 1)
        batches = int(self.num_batches_tracked)
        self.running_mean = running.updated(self.running_mean, used.stored_mean, self.momentum, batches)
        self.running_var = running.updated(self.running_var, used.stored_var, self.momentum, batches)
