"""Synchronised batch normalisation: batch normalisation plus one all-reduce forward and one backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from ..comm.base import Communicator
from ..comm.serial import SerialCommunicator
from ..functional.batch_norm import BackwardSums
from ..stats.moments import Moments
from .batch_norm import BatchNorm, Statistics
from .talker import Talker

FAR = 1e8  # mean^2 / variance at which sums of squares around 0 have lost half of the variance's digits


class SyncBatchNorm(Talker, BatchNorm):
    """BatchNorm whose batch is the union of the batches of all ranks of `comm`.

    Forward: y = weight (x - mean) / sqrt(var + eps) + bias with the mean and variance over all ranks, from the sums of
    (sum(x), sum(x^2), n). Backward: dx with (sum(dy), sum(dy x_hat)) and n over all ranks. Parameter gradients stay this
    rank's share; `train` sums them with all others.

    Talks, in training only: one all-reduce of 2 C + 1 float64 forward, one of 2 C backward. Every rank takes part, with any number
    of rows, none included. Exact for uneven, empty, weighted and masked ranks; for a group of ranks pass `comm.split(...)`.
    In evaluation it talks to nobody. (Raw timestamps and the like, with |mean| > 10,000 sqrt(var + eps), take two forward.)

    Args: those of BatchNorm, and comm, the ranks to share statistics with (default: this rank alone).

    Raises: what BatchNorm raises; CountError, on every rank, if the count over all ranks is above 0 and at most 1.
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
        """The statistics of the union: moments add, so one all-reduce of their sum is exact."""
        packed = local.pack()
        with self.speaks:
            union = self.statistics_of(Moments.unpack(self.comm.allreduce(packed, out=packed)))
            if np.count_nonzero(union.mean * union.mean > FAR * (union.var + self.eps)):
                # Every rank knows this now, and knows the mean: the same once more, around it.
                packed = local.around(union.mean).pack()
                moments = Moments.unpack(self.comm.allreduce(packed, out=packed)).around(-union.mean)
                union = self.statistics_of(moments)
        return union

    def sum_backward(self, local: BackwardSums) -> BackwardSums:
        """The adjoint of a sum over ranks is a sum over ranks."""
        packed = local.pack()
        with self.speaks:
            return BackwardSums.unpack(self.comm.allreduce(packed, out=packed))
