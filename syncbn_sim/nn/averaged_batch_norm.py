"""The popular mistake: average the ranks' means and variances instead of adding their sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..comm.base import Communicator
from ..comm.serial import SerialCommunicator
from ..errors import CountError
from ..functional import batch_norm as F
from ..functional.batch_norm import BackwardSums
from ..stats.moments import ONE, SHARES, Moments
from .batch_norm import BatchNorm, Context, Statistics
from .talker import Talker


class AveragedBatchNorm(Talker, BatchNorm):
    """BatchNorm with mean = average of the local means and var = average of the local biased variances.

    Two errors against the batch of all ranks: a rank with few rows counts as much as one with many, and the variance
    *between* the ranks' means is lost (law of total variance), so sorted data look less spread than they are.
    The average is over the K non-empty ranks, and the backward pass is its exact adjoint. What is stored is what was used:
    the averaged variance, times n / (n - 1) with n the global count.

    Talks, in training only: one all-reduce of 2 C + 2 float64 forward, one of 2 C backward.

    Args: those of SyncBatchNorm.

    Raises: what BatchNorm raises, with the count over all ranks. A local count of 1 is legal: its variance is 0.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: DTypeLike = np.float32,
        channel_axis: int = 1,
        comm: Communicator | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, channel_axis)
        self.comm = comm or SerialCommunicator()

    def batch_statistics(self, local: Moments) -> Statistics:
        """Averages over the non-empty ranks. The count is the one behind *this* rank's share: K n_rank."""
        n = local.count
        own = np.concatenate([local.mean, local.var(), [1.0, n]]) if n else np.zeros(2 * self.num_features + 2)
        with self.speaks:
            *both, ranks, total = self.comm.allreduce(own)
        if ranks == 0:
            return self.statistics_of(local)
        if total <= ONE:
            raise CountError(
                f"{type(self).__name__}({self.num_features}) in training",
                got=f"a total count of {total:g} over all ranks",
                expected="more than 1",
                do=f"One position has no variance: use more rows. {SHARES}",
            )
        mean, var = np.split(np.array(both) / ranks, 2)
        return Statistics(mean, var, var * (total / (total - 1)), ranks * n or 1.0)

    def sum_backward(self, local: BackwardSums) -> BackwardSums:
        """Every rank's output depends on the averages, so the sums run over all ranks."""
        with self.speaks:
            return BackwardSums.unpack(self.comm.allreduce(local.pack()))

    def input_gradient(self, dy: Array, context: Context, weight: Array | None, sums: BackwardSums) -> Array:
        """As for BatchNorm, but a row moves the variance by its distance from its *own* rank's mean."""
        x_hat, weights = context.batch.x_hat(), context.batch.weights
        own = F.local_moments(x_hat, weights)
        if own.count == 0:
            return dy
        from_own_mean = x_hat - F.per_channel(own.mean, x_hat)
        dx = F.input_gradient(dy, from_own_mean, context.batch.inv_std, weight, sums, context.n or 1, weights)
        return dx.astype(dy.dtype)
