"""Synchronised batch normalisation: batch normalisation plus one all-reduce forward and one backward."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from ..functional.batch_norm import BackwardSums
from ..stats.moments import Moments, Stretches
from .batch_norm import BatchNorm
from .talker import Talker

# The mean^2 / (variance + eps) at which sums of squares around 0 have lost half of the variance's digits.
FAR = 1e8


class SharedSums(Talker):
    """Mixin, to the left of any batch norm among a class's bases: its two sums over the batch run over all ranks of `comm`."""

    # The batch norm's.
    eps: float

    def stretches(self) -> Array | None:
        """All rows at hand are one batch."""
        return None

    def sum_forward(self, local: Moments) -> Moments:
        """The moments of the union: moments add, so one all-reduce of their sum is exact."""
        if isinstance(local, Stretches):
            return local
        packed = local.pack()
        with self.speaks:
            union = Moments.unpack(self.comm.allreduce(packed, out=packed))
            n, total = union.count, union.total
            # mean^2 > FAR (var + eps) for any channel, without a division by n, which may be 0.
            if np.any(total * total > FAR / (1 + FAR) * n * (union.total_sq + n * self.eps)):
                # Every rank knows this now, and knows the mean: the same once more, around it. That brings digits back since each
                # rank's own moments still have theirs: it has measured the squares around its own mean.
                mean = union.mean
                packed = local.around(mean).pack()
                union = Moments.unpack(self.comm.allreduce(packed, out=packed)).around(-mean)
        return union

    def sum_backward(self, local: BackwardSums) -> BackwardSums:
        """The adjoint of a sum over ranks is a sum over ranks."""
        if local.dy.ndim > 1:
            return local
        packed = local.pack()
        with self.speaks:
            return BackwardSums.unpack(self.comm.allreduce(packed, out=packed))


class SyncBatchNorm(SharedSums, BatchNorm):
    """BatchNorm whose batch is the union of the batches of all ranks of `comm`.

    Forward: y = weight (x - mean) / sqrt(var + eps) + bias with the mean and variance over all ranks, from
    sum(x), sum(x^2) and n, added over the ranks. Backward: dx with sum(dy), sum(dy x_hat) and n of all ranks. Parameter gradients stay this
    rank's share; `train` sums them with all others.

    Talks, in training only: one all-reduce of 2 C + 1 float64 forward, one of 2 C backward. (Two forward where a channel has
    |mean| > 10,000 sqrt(var + eps): raw timestamps, or one that is constant and not 0.) Every rank takes part, even with no rows.
    Exact for uneven, empty, weighted and masked ranks; for a group of ranks pass `comm.split(...)`.

    Args: those of BatchNorm, and comm, the ranks to share statistics with (default: this rank alone).

    Raises: what BatchNorm raises; CountError, on every rank, if the count over all ranks is above 0 and at most 1.
    """
