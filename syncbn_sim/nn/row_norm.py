"""What norms have in common that normalise each row by itself: they differ in their cells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError
from ..functional.box import Box, ones
from ..kernels import steps
from .module import Module, Parameter


class Part(NamedTuple):
    """Some rows, as many as find room in the processor's cache, and what backward needs of them.

    Attributes:
        rows: which, of arrays as they lie in memory.
        box: their cells.
        counts: frequency weights, or None.
        mean: of each cell, (cells of rows, groups).
        var: likewise.
        n: the count behind them, likewise or one for all; None: they are constants.
        inv_std: 1 / sqrt(var + eps).
    """

    rows: slice
    box: Box
    counts: Array | None
    mean: Array
    var: Array
    n: Any
    inv_std: Array


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

    def _remember(self, parts: list[Part]) -> None:
        """Is told in each forward pass what was normalised with."""

    def _forward(self, x: Array, counts: Array | None) -> tuple[Array, tuple[Array, Box, Array, list[Part]]]:
        step, box, parts = steps(), self._partition(x), []
        flat, w = box.flat(x.reshape(box.shape)), None if counts is None else box.counts(counts)
        # A copy: whoever steps, or writes into the weight, does not change what this pass did.
        weight = ones(box.channels) if self.weight is None else self.weight.data.astype(np.float64).ravel()
        bias = np.zeros(box.channels) if self.bias is None else self.bias.data.astype(np.float64).ravel()
        eps = np.finfo(flat.dtype).eps if self.eps is None else self.eps
        y = self._workspace.take(box.view, flat.dtype)
        for rows, part in box.parts:
            own, some = flat[rows], None if w is None else w[rows]
            mean, var, n = self._statistics(own, part, some)
            inv_std = step.normalise(own, part, mean, var, eps, weight, bias, y[rows])
            parts.append(Part(rows, part, some, mean, var, n, inv_std))
        self._remember(parts)
        return box.restored(y).reshape(x.shape), (flat, box, weight, parts)

    def _backward(self, dy: Array, context: tuple[Array, Box, Array, list[Part]]) -> Array:
        x, box, weight, parts = context
        step, shape, dy = steps(), dy.shape, box.flat(dy.reshape(box.shape), x.dtype)
        dx, sums = self._workspace.take(box.view, x.dtype), []
        for rows, part, counts, mean, _, n, inv_std in parts:
            cells, channels = step.backward_sums(dy[rows], x[rows], part, mean, inv_std, weight)
            sums.append(channels)
            if n is None:
                cells[:] = 0.0
            else:
                cells /= n + (n == 0)
            if not self.centred:
                cells[0] = 0.0
            step.input_gradient(dy[rows], x[rows], part, counts, mean, inv_std, weight, cells, dx[rows])
        d_bias, d_weight = sums[0] if len(sums) == 1 else np.add.reduce(sums)
        if self.weight is not None:
            self.weight.add_grad(d_weight.reshape(self.weight.data.shape))
        if self.bias is not None:
            self.bias.add_grad(d_bias.reshape(self.bias.data.shape))
        return box.restored(dx).reshape(shape)
