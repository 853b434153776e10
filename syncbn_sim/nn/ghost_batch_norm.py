"""Batch normalisation of stretches of the batch, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..arrays import Array
from ..comm.stretches import rank_offsets
from ..errors import ArgumentError, CountError, ShapeError
from ..stats.moments import SHARES
from .batch_norm import BatchNorm
from .statistics import Statistics


class GhostBatchNorm(BatchNorm):
    """BatchNorm whose batch is cut into stretches of rows, each of them normalised by its own mean and variance.

    Training: y = weight (x - mean_s) / sqrt(var_s + eps) + bias for the rows of stretch s. The running statistics move once per batch,
    towards the mean over the non-empty stretches of mean and unbiased variance. (In the paper they move once per stretch.)
    Evaluation: BatchNorm's. Talks to nobody. Helps a large batch to the noise of a small one, and shows on one rank what ranks with small
    batches do; it repairs nothing: stretches of rows that resemble each other break it as they break local batch norm.

    Args:
        num_features: C, the number of channels.
        stretches: S, how many, as even as can be, the first ones longer by a row (as `np.array_split` has it); or S + 1 offsets, where
            each begins and the last one ends: for batches of that many rows, and for empty ones. A stretch may be empty.
        options: those of BatchNorm, by name.

    Where several ranks' rows lie in one array, each rank's are a batch that is cut.

    Raises:
        ArgumentError: less than one stretch, or offsets that do not begin with 0 or that fall.
        ShapeError: the batch has other rows than the offsets.
        CountError: training where a stretch has a total weight of more than 0 and at most 1 (beyond rounding), as with more than half as
            many stretches as rows (N, C).

    Source: Hoffer, Hubara & Soudry (2017), algorithm 1.
    """

    def __init__(self, num_features: int, stretches: int | Sequence[int] | Array, **options: Any) -> None:
        super().__init__(num_features, **options)
        even = isinstance(stretches, int | np.integer)
        offsets = np.array([0, stretches] if even else stretches)
        if (
            offsets.ndim != 1
            or offsets.dtype.kind != "i"
            or len(offsets) < 2
            or offsets[0]
            or (np.diff(offsets) < even).any()
        ):
            raise ArgumentError(
                "stretches",
                got=stretches,
                expected="a whole number from 1 on, or some that begin with 0 and do not fall",
                do="Say how many stretches, or where each begins and the last one ends, such as [0, 8, 16].",
            )
        self.offsets = None if even else offsets
        self.num_stretches = int(offsets[1]) if even else len(offsets) - 1

    def cuts(self, rows: int) -> Array | None:
        """The stretches of this batch in training; in evaluation all rows are alike."""
        ranks = super().cuts(rows)
        if not self.training:
            return ranks
        starts = [
            start + self._cut(end - start)[:-1]
            for start, end in pairwise([0, rows] if ranks is None else ranks.tolist())
        ]
        return np.concatenate([*starts, [rows]])

    def _cut(self, rows: int) -> Array:
        if self.offsets is None or rows == 0:
            size, longer = divmod(rows, self.num_stretches)
            each = np.arange(self.num_stretches + 1)
            return each * size + np.minimum(each, longer)
        if self.offsets[-1] != rows:
            raise ShapeError(
                "GhostBatchNorm x",
                got=f"{rows} rows",
                expected=f"{self.offsets[-1]}, where the last stretch ends, or none",
                do="Give a number of stretches in place of offsets where batches differ in size.",
            )
        return self.offsets

    def _no_variance(self, n: float, where: str = "") -> CountError:
        return CountError(
            f"GhostBatchNorm({self.num_features}) in training",
            got=f"a total count of {n:g} for each channel{where}",
            expected="none, or more than 1",
            do=f"One position has no variance: use more rows or fewer stretches, or call eval(). {SHARES}",
        )

    def _remember(self, used: Statistics) -> None:
        n = used.n.reshape(-1, self.num_stretches)  # for each rank whose rows are here
        share = (n > 0) / np.maximum((n > 0).sum(axis=1, keepdims=True), 1)
        mean, var = (
            np.einsum("rs,rsc->rc", share, each.reshape(*n.shape, -1)) for each in (used.stored_mean, used.stored_var)
        )
        total = n.sum(axis=1, keepdims=True)
        if rank_offsets() is None:
            mean, var, total = mean[0], var[0], float(total[0, 0])
        super()._remember(used._replace(stored_mean=mean, stored_var=var, n=total))
