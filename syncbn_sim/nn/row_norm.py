"""What norms have in common that normalise each row by itself: they differ in their cells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError
from ..functional.box import Box, ones
from ..kernels import steps
from .module import Module, Parameter


class RowContext(NamedTuple):
    """What backward needs.

    Attributes:
        x: the input, as it lies in memory.
        box: how it lies, and its cells.
        counts: frequency weights of positions, or None.
        weight: gamma as it was, (C,) float64.
        mean: of each cell, (cells of rows, groups).
        inv_std: 1 / sqrt(var + eps), likewise.
        n: the count behind them, likewise or one for all; None: they are constants.
    """

    x: Array
    box: Box
    counts: Array | None
    weight: Array
    mean: Array
    inv_std: Array
    n: Any


class RowNorm(Module):
    """Base of norms with y = weight (x - mean) / sqrt(var + eps) + bias, mean and biased variance of cells that never leave a row.

    No other row matters, so batch size, order and ranks do not either, and nothing is talked. A subclass says which cells: `_partition`.
    A position's frequency weight counts in its cell; where a cell is one position, it cancels, but for 0, which masks.

    Attributes:
        eps: added to the variance; None: the step of x's dtype at 1, float16 counting as float32.
        centred: False: no mean is subtracted, and x^2 is averaged, not (x - mean)^2.
        weight: gamma, one for each channel of the box, in the shape of state dicts; or None.
        bias: likewise.
    """

    centred = True
    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, shape: tuple[int, ...], eps: float, affine: bool, bias: bool, dtype: Any) -> None:
        super().__init__()
        if not shape or min(shape) < 1 or not eps >= 0:
            raise ArgumentError(
                type(self).__name__,
                got=f"{shape} channels, eps={eps}",
                expected="at least one channel, and eps >= 0",
                do="The first argument says how many channels are normalised.",
            )
        self.eps: float | None = eps
        self.weight = Parameter(np.ones(shape), dtype) if affine else None
        self.bias = Parameter(np.zeros(shape), dtype) if affine and bias else None

    def _partition(self, x: Array) -> Box:
        """The cells of an array like x; of its shape, or of one with as many numbers in the same order."""
        raise NotImplementedError(f"{type(self).__name__} does not say its cells: write _partition(x)")

    def _statistics(self, x: Array, box: Box, counts: Array | None) -> tuple[Array, Array, Any]:
        """Mean and variance of each cell, 0 and 1 of one without a count, and the counts; these are None for constants."""
        found = steps().moments(x, box, counts)
        mean, squares = (found[3], found[2]) if self.centred else (np.zeros(box.cells), found[1])
        if counts is None:
            size = x.size // max(box.cells[0] * box.cells[1], 1)
            return mean, squares / max(size, 1), size
        n = found[4]
        return mean, (squares + (n == 0)) / (n + (n == 0)), n

    def _forward(self, x: Array, counts: Array | None) -> tuple[Array, RowContext]:
        box = self._partition(x)
        flat, w = box.flat(x.reshape(box.shape)), None if counts is None else box.counts(counts)
        mean, var, n = self._statistics(flat, box, w)
        # A copy: whoever steps, or writes into the weight, does not change what this pass did.
        weight = ones(box.channels) if self.weight is None else self.weight.data.astype(np.float64).ravel()
        bias = np.zeros(box.channels) if self.bias is None else self.bias.data.astype(np.float64).ravel()
        eps = np.finfo(flat.dtype).eps if self.eps is None else self.eps
        y = self._workspace.take(box.view, flat.dtype)
        inv_std = steps().normalise(flat, box, mean, var, eps, weight, bias, y)
        return box.restored(y).reshape(x.shape), RowContext(flat, box, w, weight, mean, inv_std, n)

    def _backward(self, dy: Array, context: RowContext) -> Array:
        x, box, counts, weight, mean, inv_std, n = context
        step, shape, dy = steps(), dy.shape, box.flat(dy.reshape(box.shape), x.dtype)
        dx, channels = self._workspace.take(box.view, x.dtype), np.zeros((2, box.channels))
        # Some rows at a time: the second step finds them in the cache.
        for cells, rows, part in box.parts:
            own = dy[rows], x[rows], part
            w, m, r = None if counts is None else counts[rows], mean[cells], inv_std[cells]
            sums, of_channels = step.backward_sums(*own, m, r, weight)
            channels += of_channels
            if n is None:
                sums[:] = 0.0
            else:
                behind = n if w is None else n[cells]
                sums /= behind + (behind == 0)
            if not self.centred:
                sums[0] = 0.0
            step.input_gradient(*own, w, m, r, weight, sums, dx[rows])
        if self.weight is not None:
            self.weight.add_grad(channels[1].reshape(self.weight.data.shape))
        if self.bias is not None:
            self.bias.add_grad(channels[0].reshape(self.bias.data.shape))
        return box.restored(dx).reshape(shape)
