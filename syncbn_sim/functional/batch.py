"""A batch on its way through a layer: the steps of `batch_norm`, and what they leave for the steps after them."""

from __future__ import annotations

from ..arrays import Array
from ..stats.moments import Moments
from ..workspace import Workspace
from . import batch_norm as F
from .batch_norm import BackwardSums


class Batch:
    """The steps local_moments -> normalise -> local_backward_sums -> input_gradient, in this order; the layer sums over ranks in between.

    This one takes the readable functions, for any dtype, frequency weights, and no rows at all. `Few` and `Many` do the same, faster,
    for float32 and float64 without weights; `kernels.batch_of` chooses.

    Args:
        x: (N, C, ...), channels on axis 1.
        counts: frequency weights of positions, or None.
        space: of the layer; outputs may lie in it.

    Attributes:
        shape, dtype: of x, and so of y and dx.
        counts: frequency weights of positions, or None.
        inv_std: (C,) float64, with which x was normalised.

    Statistics, sums, weight and bias are (C,); y, dy and dx have x's shape, y and dx its dtype. Talks to nobody.

    Source: Ioffe & Szegedy (2015), section 3, algorithm 1.
    """

    inv_std: Array

    def __init__(self, x: Array, counts: Array | None, space: Workspace) -> None:
        self.shape, self.dtype = x.shape, x.dtype
        self.counts, self.space = counts, space
        self._x = x

    def local_moments(self) -> Moments:
        """Count, sum(x) and sum(x^2) of each channel."""
        return F.local_moments(self._x, self.counts)

    def normalise(self, mean: Array, var: Array, eps: float, weight: Array | None, bias: Array | None) -> Array:
        """Computes y = weight (x - mean) / sqrt(var + eps) + bias, whosever statistics these are."""
        # x itself is not needed any more.
        self._x, self.inv_std = F.standardize(self._x, mean, var, eps, self.counts)
        return F.scale_and_shift(self._x, weight, bias, self.counts).astype(self.dtype)

    def local_backward_sums(self, dy: Array) -> BackwardSums:
        """Computes sum(dy) and sum(dy x_hat) of each channel; dy, 0 at masked positions, is kept for the step after this one."""
        self._dy = dy
        return F.local_backward_sums(dy, self._x)

    def input_gradient(self, weight: Array | None, sums: BackwardSums, n: float) -> Array:
        """Computes dx = weight inv_std (dy - c (sum(dy) + x_hat sum(dy x_hat)) / n); sums and n are those of the batch that normalised."""
        dx = F.input_gradient(self._dy, self._x, self.inv_std, weight, sums, n, self.counts)
        return dx.astype(self.dtype)

    def frozen_input_gradient(self, weight: Array | None) -> Array:
        """Computes dx = weight inv_std dy: the statistics are constants."""
        return F.frozen_input_gradient(self._dy, self.inv_std, weight).astype(self.dtype)
