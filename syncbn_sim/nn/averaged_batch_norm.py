"""The popular mistake: average the ranks' means and variances instead of adding their sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..comm.stretches import rank_offsets
from ..errors import ArgumentError
from ..functional.batch_norm import BackwardSums
from ..stats.moments import Moments
from .batch_norm import BatchNorm
from .statistics import Context
from .sync_batch_norm import SharedSums


@dataclass(frozen=True, eq=False, slots=True)
class Averages(Moments):
    """The moments of a batch that had the averaged mean and variance, and the number of ranks averaged over."""

    ranks: float = 1.0


class AveragedBatchNorm(SharedSums, BatchNorm):
    """BatchNorm with mean = average of the local means and var = average of the local biased variances.

    Two errors against the batch of all ranks: a rank with few rows counts as much as one with many, and the variance
    *between* the ranks' means is lost (law of total variance), so sorted data look less spread than they are.
    The average is over the K non-empty ranks, and the backward pass is its exact adjoint. What is stored is what was used:
    the averaged variance, times n / (n - 1) with n the global count.

    Talks, in training only: one all-reduce of 2 C + 2 float64 forward, one of 2 C backward.

    Args: those of SyncBatchNorm.

    Raises: what BatchNorm raises, with the count over all ranks. A local count of 1 is legal: its variance is 0.
    """

    stackable = True

    def stretches(self) -> Array | None:
        """Each rank's rows are a batch.

        Raises:
            ArgumentError: the average would be over some of several stacked ranks.
        """
        if self.comm.row_groups() is not None:
            raise ArgumentError(
                "comm of AveragedBatchNorm",
                got="some of the ranks that are stacked in this process",
                expected="all of them",
                do='Pass the communicator of all ranks, or use backend "lockstep".',
            )
        return rank_offsets()

    def sum_forward(self, local: Moments) -> Moments:
        """Averages over the non-empty ranks."""
        n, c = np.atleast_2d(local.count), self.num_features
        own = np.zeros(2 * c + 2)
        if n.any():
            some = n > 0
            own[:c] = np.where(some, local.mean, 0.0).sum(axis=0)
            own[c:-2] = np.where(some, local.var(), 0.0).sum(axis=0)
            own[-2:] = some.sum(), n.sum()
        with self.speaks:
            summed = self.comm.holders.allreduce(own)
        ranks, total = float(summed[-2]), float(summed[-1])
        if ranks == 0:
            return Moments(0.0, np.zeros(c), np.zeros(c))
        mean, var = np.split(summed[:-2] / ranks, 2)
        return Averages(total, total * mean, total * (var + mean * mean), total * var, mean, ranks)

    def sum_backward(self, local: BackwardSums) -> BackwardSums:
        """Sums over the ranks, those that are stretches of the rows at hand first."""
        return super().sum_backward(BackwardSums(*(np.atleast_2d(each).sum(axis=0) for each in local)))

    def statistics_backward(self, sums: BackwardSums, context: Context) -> BackwardSums:
        """A row moves the averages by 1 / (K n_rank), and the variance by its distance from its *own* rank's mean."""
        own, averages = context.local, context.moments
        if own is None or not np.any(own.count) or not isinstance(averages, Averages):
            return sums
        share = averages.count / (averages.ranks * np.where(own.count, own.count, np.inf))
        own_mean = (own.mean - averages.mean) * context.inv_std[0]  # of this rank's x_hat
        return BackwardSums(share * (sums.dy - own_mean * sums.dy_x_hat), share * sums.dy_x_hat)
