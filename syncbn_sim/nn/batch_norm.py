"""Batch normalisation on this rank's own batch, and the methods by which a subclass sums over more ranks or decides otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..comm.stretches import rank_offsets
from ..errors import ArgumentError, CountError, ShapeError
from ..functional.batch_norm import BackwardSums
from ..functional.box import box_of, ones
from ..kernels import steps
from ..stats import running
from ..stats.moments import ONE, SHARES, Moments, Stretches
from .module import Module, Parameter
from .statistics import Context, Statistics, for_cells, moments_of, register_running, statistics_apart

HOOKS = ("statistics", "statistics_backward")


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
            Of stacked ranks it is called once, and the first are `Stretches`, a row for each rank.
        stackable: whether `statistics` and `statistics_backward` take stretches of rows, (S, C) with a count of (S, 1), as well as one
            batch, (C,). A class that overrides one of them must say so, or it is refused on stacked ranks.

    Source: Ioffe & Szegedy (2015), algorithms 1 and 2; conventions of torch.nn.BatchNorm1d.
    """

    channel_axes: tuple[int]
    stackable = True
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
        register_running(self, num_features, dtype, track_running_stats)

    def __init_subclass__(cls) -> None:
        """Takes hooks of its own for such as know of one batch only."""
        super().__init_subclass__()
        known = [base for base in cls.__bases__ if issubclass(base, BatchNorm)]
        own = [getattr(cls, hook) not in [getattr(base, hook) for base in known] for hook in HOOKS]
        if any(own) and "stackable" not in vars(cls):
            cls.stackable = False

    @property
    def channel_axis(self) -> int:
        """The axis of the channels."""
        return self.channel_axes[0]

    def reset_running_stats(self) -> None:
        """Forgets all batches: running mean 0, running variance 1, none counted. Without running statistics it does nothing."""
        if self.running_mean is None or self.running_var is None:
            return
        kind, c = self.running_mean.dtype, self.num_features
        self.running_mean, self.running_var = np.zeros(c, kind), np.ones(c, kind)
        self.num_batches_tracked = np.array(0, np.int64)

    def stretches(self) -> Array | None:
        """Where batches of their own begin among the rows at hand, and the last one ends; None: all rows are one batch.

        Where the rows of several ranks lie in one array, each rank's are.
        """
        return rank_offsets()

    def cuts(self, rows: int) -> Array | None:
        """Where rows that are normalised together begin among so many, and the last ones end: as `stretches` says, or finer.

        Where the statistics are stored ones that all rows share, nothing is summed, and so nothing is cut.
        """
        if self.training or (self.running_mean is not None and self.running_mean.ndim > 1):
            return self.stretches()
        return rank_offsets() if self.running_mean is None else None

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
        if isinstance(moments, Stretches):
            alone = (moments.count > 0) & (moments.count <= ONE)
            if self.training and alone.any():
                raise self._no_variance(moments.count[alone][0], f" in stretch {alone.argmax()} of {len(alone)}")
            return statistics_apart(moments)
        if n == 0:
            zero, one = np.zeros(self.num_features), np.ones(self.num_features)
            return Statistics(zero, one, zero, one, 0)
        if self.training and n <= ONE:
            raise self._no_variance(n)
        mean, var = moments.mean, moments.var()
        return Statistics(mean, var, mean, var * (n / (n - 1)) if n > 1 else var, n)

    def _no_variance(self, n: float, where: str = "") -> CountError:
        return CountError(
            f"{type(self).__name__}({self.num_features}) in training",
            got=f"a total count of {n:g} for each channel{where}",
            expected="more than 1",
            do=f"One position has no variance: use more rows, synchronise over ranks, or call eval(). {SHARES}",
        )

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
        (axis,), training, step, offsets = self.channel_axes, self.training, steps(), self.cuts(len(x))
        box = box_of(x, axis, self.num_features)
        if offsets is not None:
            box = box.cut(offsets)
        flat, w = box.flat(x), None if counts is None else box.counts(counts)
        local = moments = used = None
        if training or self.running_mean is None or self.running_var is None:
            local = moments_of(step.moments(flat, box, w), apart=offsets is not None)
            moments = self.sum_forward(local) if training else local
            if training and self.monitor:
                by_rank = rank_offsets()
                own = local if by_rank is None else moments_of(step.moments(flat, box.cut(by_rank), w), apart=True)
                self.monitor(self, own, moments)
            self._check_stackable(offsets)
            used = self.statistics(moments)
            mean, var = used.mean, used.var
            if training:
                self._remember(used)
        else:
            mean, var = self.running_mean, self.running_var
            if mean.ndim > 1 and mean.shape[0] != box.cells[0]:
                raise self._whose(box.cells[0])
        mean, var = for_cells(mean, box), for_cells(var, box)
        weight, y = self._of_channels(self.weight, 1.0), self._workspace.take(box.view, flat.dtype)
        inv_std = step.normalise(flat, box, mean, var, self.eps, weight, self._of_channels(self.bias, 0.0), y)
        return box.restored(y), Context(
            flat, box, w, mean, inv_std, weight, local, moments, used, used is not None and training
        )

    def _backward(self, dy: Array, context: Context) -> Array:
        x, box, counts, mean, inv_std, weight, local, _, used, summed = context
        step, dy = steps(), box.flat(dy, x.dtype)
        cells, channels = step.backward_sums(dy, x, box, mean, inv_std, ones(self.num_features))
        if self.weight is not None:
            self.weight.add_grad(channels[1])
        if self.bias is not None:
            self.bias.add_grad(channels[0])
        if used is None:
            cells[:] = 0.0  # constants
        else:
            sums = BackwardSums(*(cells if isinstance(local, Stretches) else channels))
            if summed:
                sums = self.sum_backward(sums)
            sums = self.statistics_backward(sums, context)
            per_row = weight / (used.n + (used.n == 0))
            np.multiply(per_row, sums.dy, out=cells[0])
            np.multiply(per_row, sums.dy_x_hat, out=cells[1])
        dx = self._workspace.take(box.view, x.dtype)
        step.input_gradient(dy, x, box, counts, mean, inv_std, weight, cells, dx)
        return box.restored(dx)

    def _check_stackable(self, offsets: Array | None) -> None:
        if offsets is not None and len(offsets) > 2 and not self.stackable:
            raise ArgumentError(
                type(self).__name__,
                got=f"{len(offsets) - 1} stretches of rows, and {' or '.join(HOOKS)} of its own",
                expected="hooks that take all at once, (S, C) and a count of (S, 1), in a class that says stackable = True",
                do='Sums over channels are over the last axis then. Or train on backend "threads" or "lockstep".',
            )

    def _of_channels(self, parameter: Parameter | None, absent: float) -> Array:
        """A copy: whoever steps, or writes into the weight, does not change what this pass did."""
        return np.full(self.num_features, absent) if parameter is None else parameter.data.astype(np.float64)

    def _whose(self, stretches: int) -> ShapeError:
        own = 1 if self.running_mean is None else len(np.atleast_2d(self.running_mean))
        return ShapeError(
            f"running statistics of {type(self).__name__}({self.num_features})",
            got=f"those of {own} ranks, each with its own, and rows of {stretches}",
            expected="one for all rows, or the same ranks",
            do="Evaluate train.with_averaged_statistics(model, comm, rows), or with_statistics_of_rank_0.",
        )

    def _remember(self, used: Statistics) -> None:
        """Moves the running statistics."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        if isinstance(used.n, np.ndarray) or self.running_mean.ndim > 1:
            self._remember_apart(self.running_mean, self.running_var, self.num_batches_tracked, used)
        elif used.n > 0:
            batches = int(self.num_batches_tracked) + 1
            self.num_batches_tracked = np.array(batches)
            self.running_mean = running.updated(self.running_mean, used.stored_mean, self.momentum, batches)
            self.running_var = running.updated(self.running_var, used.stored_var, self.momentum, batches)

    def _remember_apart(self, mean: Array, var: Array, tracked: Array, used: Statistics) -> None:
        """The same of stretches, which have their own from the first time on, (S, C), and count their own batches."""
        stretches = np.size(used.n)
        if mean.ndim == 1:
            mean, var = np.tile(mean, (stretches, 1)), np.tile(var, (stretches, 1))
            tracked = np.tile(tracked, stretches)
        if stretches != len(mean):
            raise self._whose(stretches)
        seen = np.reshape(used.n, (-1, 1)) > 0
        self.num_batches_tracked = tracked + seen[:, 0]
        batches = np.maximum(self.num_batches_tracked, 1)[:, None]
        self.running_mean = np.where(seen, running.updated(mean, used.stored_mean, self.momentum, batches), mean)
        self.running_var = np.where(seen, running.updated(var, used.stored_var, self.momentum, batches), var)
