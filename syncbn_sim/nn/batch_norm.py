"""Batch normalisation on this rank's own batch, and the two places at which a subclass can make it the batch of all ranks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array, as_float_array, parameter_dtype, position_weights
from ..errors import ArgumentError, CountError, ShapeError
from ..functional import batch_norm as F
from ..functional.batch import Batch
from ..functional.batch_norm import BackwardSums
from ..functional.kernels import batch_of
from ..stats import running
from ..stats.moments import ONE, SHARES, Moments
from .module import Module, Parameter


class Statistics(NamedTuple):
    """What a batch is normalised with: mean and biased variance (C,), the unbiased variance to store, and n, the count behind them."""

    mean: Array
    var: Array
    unbiased_var: Array
    n: float


class Context(NamedTuple):
    """What backward needs. `n` None: frozen statistics; `shared`: they may be those of more ranks, so the sums must be too."""

    batch: Batch
    weight: Array | None
    n: float | None
    shared: bool


class BatchNorm(Module):
    """y = weight (x - mean) / sqrt(var + eps) + bias, for each channel.

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
    Position weights (shape of x without its channel axis, or one a row) count as frequencies; 0 masks a
    position: it is never read, y and dx are 0 there. An empty batch gives an empty output and leaves the running statistics alone.

    Raises:
        DtypeError: integer or bool input.
        ShapeError: rank below 2, or a wrong number of channels.
        CountError: training with a total weight of more than 0 and at most 1 (beyond rounding): no variance.

    Source: Ioffe & Szegedy (2015), algorithms 1 and 2; conventions of torch.nn.BatchNorm1d.
    """

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
        if num_features < 1 or not eps >= 0:
            raise ArgumentError(
                "BatchNorm",
                got=f"num_features={num_features}, eps={eps}",
                expected="at least one channel and eps >= 0",
                do="The first argument is the number of channels.",
            )
        self.num_features, self.eps, self.momentum, self.channel_axis = num_features, eps, momentum, channel_axis
        self.weight = Parameter(np.ones(num_features), dtype) if affine else None
        self.bias = Parameter(np.zeros(num_features), dtype) if affine else None
        kind, tracks = parameter_dtype(dtype), track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, kind) if tracks else None)
        self.register_buffer("running_var", np.ones(num_features, kind) if tracks else None)
        self.register_buffer("num_batches_tracked", np.array(0, np.int64) if tracks else None)

    def reset_running_stats(self) -> None:
        """Forgets all batches: running mean 0, running variance 1, none counted. Without running statistics it does nothing."""
        if self.running_mean is None or self.running_var is None:
            return
        self.running_mean, self.running_var = np.zeros_like(self.running_mean), np.ones_like(self.running_var)
        self.num_batches_tracked = np.array(0, np.int64)

    # -- the two sums over the batch, which a subclass may take over more than this rank ------------------------------

    def batch_statistics(self, local: Moments) -> Statistics:
        """Turns this rank's moments into the statistics to normalise with."""
        return self.statistics_of(local)

    def sum_backward(self, local: BackwardSums) -> BackwardSums:
        """Turns this rank's backward sums into those of the batch whose statistics were used."""
        return local

    # -----------------------------------------------------------------------------------------------------------------

    def forward(self, x: Array, weights: object | None = None) -> Array:
        """Returns y, shape and dtype of x."""
        x = self._channels_second(x)
        w = None if weights is None else position_weights(weights, (x.shape[0], *x.shape[2:]))
        batch = batch_of(x, w, self._workspace)
        shared, n = self.training, None
        if self.training or self.running_mean is None or self.running_var is None:
            local = batch.local_moments()
            mean, var, unbiased_var, n = (
                self.batch_statistics(local) if shared else self.statistics_of(local, minimum=0)
            )
            if shared and n > 0:
                self._remember(mean, unbiased_var)
        else:
            mean, var = self.running_mean, self.running_var
        # A copy: whoever steps, or writes into the weight, does not change what this pass did.
        weight = self.weight.data.copy() if self.weight else None
        y = batch.normalise(mean, var, self.eps, weight, self.bias.data if self.bias else None)
        self.push(Context(batch, weight, n, shared))
        return self._channels_back(y)

    def backward(self, dy: Array) -> Array:
        """Adds this rank's share to the gradients of weight and bias, returns dx."""
        context: Context = self.pop()
        batch = context.batch
        dy = self._channels_second(dy, "dy")
        if dy.shape != batch.shape:
            raise ShapeError(
                "dy",
                got=dy.shape,
                expected=f"{batch.shape} (channels second), the shape of y",
                do="Pass the gradient of the latest forward pass.",
            )
        if batch.weights is not None:
            dy = np.where(F.over_channels(batch.weights, dy) > 0, dy, dy.dtype.type(0))
        local = batch.local_backward_sums(dy)
        if self.weight:
            self.weight.add_grad(local.dy_x_hat)
        if self.bias:
            self.bias.add_grad(local.dy)
        if context.n is None:
            dx = batch.frozen_input_gradient(context.weight)
        else:
            sums = self.sum_backward(local) if context.shared else local
            dx = self.input_gradient(dy, context, context.weight, sums)
        return self._channels_back(dx)

    def input_gradient(self, dy: Array, context: Context, weight: Array | None, sums: BackwardSums) -> Array:
        """Dx from the sums of the batch whose statistics were used."""
        return context.batch.input_gradient(weight, sums, context.n or 1.0)

    def statistics_of(self, moments: Moments, minimum: float = ONE) -> Statistics:
        """Mean and variances of some moments; of an empty batch 0 and 1, which then touch nothing.

        Raises:
            CountError: the count is above 0 and not above `minimum`.
        """
        n = moments.count
        if n == 0:
            return Statistics(np.zeros(self.num_features), np.ones(self.num_features), np.ones(self.num_features), 0)
        if n <= minimum:
            raise CountError(
                f"{type(self).__name__}({self.num_features}) in training",
                got=f"a total count of {n:g} for each channel",
                expected="more than 1",
                do=f"One position has no variance: use more rows, synchronise over ranks, or call eval(). {SHARES}",
            )
        biased = moments.var()
        return Statistics(moments.mean, biased, biased * (n / (n - 1)) if n > 1 else biased, n)

    def _remember(self, mean: Array, unbiased_var: Array) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked = np.array(self.num_batches_tracked + 1)  # a sum of arrays without axes is no array
        batches = int(self.num_batches_tracked)
        self.running_mean = running.updated(self.running_mean, mean, self.momentum, batches)
        self.running_var = running.updated(self.running_var, unbiased_var, self.momentum, batches)

    def _channels_second(self, x: Array, name: str = "x") -> Array:
        x = as_float_array(x, name)
        if x.ndim < 2 or not -x.ndim <= self.channel_axis < x.ndim or x.shape[self.channel_axis] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} {name}",
                got=x.shape,
                expected=f"rank 2 or more with {self.num_features} channels on axis {self.channel_axis}",
                do="Check num_features, or pass channel_axis=-1 for channels-last.",
            )
        return x if self.channel_axis == 1 else np.moveaxis(x, self.channel_axis, 1)

    def _channels_back(self, y: Array) -> Array:
        return y if self.channel_axis == 1 else np.moveaxis(y, 1, self.channel_axis)
