"""What norms have in common that normalise each row by itself: they differ in their cells."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError
from ..functional.box import Box, ones
from ..kernels import steps
from .module import Module, Parameter


class RowContext(NamedTuple):
    """What backward needs: x as it lies in memory, its cells, what it was normalised with, and gamma as it was.

    Attributes:
        n: the count behind each cell's statistics, (cells of a row, groups) or one for all; None: they were constants.
    """

    x: Array
    box: Box
    counts: Array | None
    mean: Array
    inv_std: Array
    weight: Array
    n: Any


class RowNorm(Module):
    """Base of norms with y = weight (x - mean) / sqrt(var + eps) + bias, mean and biased variance of cells that never leave a row.

    No other row matters, so batch size, order and ranks do not either, and nothing is talked. A subclass says which cells: `_partition`.
    A position's frequency weight counts in its cell; where a cell is one position, it cancels, but for 0, which masks.

    Attributes:
        centred: False: no mean is subtracted, and x^2 is averaged, not (x - mean)^2.
        weight: gamma, one for each channel of the box, in the shape of state dicts; or None.
        bias: likewise.
    """

    centred = True
    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, shape: tuple[int, ...], eps: float | None, affine: bool, bias: bool, dtype: Any) -> None:
        super().__init__()
        if not shape or min(shape) < 1 or not (eps is None or eps >= 0):
            raise ArgumentError(
                type(self).__name__,
                got=f"{shape} channels, eps={eps}",
                expected="at least one channel, and eps >= 0",
                do="The first argument says how many channels are normalised.",
            )
        self.eps = eps
        self.weight = Parameter(np.ones(shape), dtype) if affine else None
        self.bias = Parameter(np.zeros(shape), dtype) if affine and bias else None

    def _partition(self, x: Array) -> Box:
        """The cells of an array like x; of its shape, or of one with as many numbers in the same order."""
        raise NotImplementedError(f"{type(self).__name__} does not say its cells: write _partition(x)")

    def _statistics(self, x: Array, box: Box, counts: Array | None) -> tuple[Array, Array, Any]:
        """Mean and variance of each cell, 0 and 1 of one without a count, and the counts; these are None for constants."""
        _, total_sq, deviation_sq, mean, n = steps().moments(x, box, counts)
        if not self.centred:
            mean, deviation_sq = np.zeros_like(mean), total_sq
        if counts is not None:
            return mean, (deviation_sq + (n == 0)) / (n + (n == 0)), n
        size = x.size // max(math.prod(box.cells), 1)
        return mean, deviation_sq / max(size, 1), size

    def _forward(self, x: Array, counts: Array | None) -> tuple[Array, RowContext]:
        box = self._partition(x)
        flat, w = box.flat(x.reshape(box.shape)), None if counts is None else box.counts(counts)
        mean, var, n = self._statistics(flat, box, w)
        # A copy: whoever steps, or writes into the weight, does not change what this pass did.
        weight = ones(box.channels) if self.weight is None else self.weight.data.astype(np.float64).ravel()
        bias = np.zeros(box.channels) if self.bias is None else self.bias.data.astype(np.float64).ravel()
        eps = float(np.finfo(flat.dtype).eps if self.eps is None else self.eps)
        y = self._workspace.take(box.view, flat.dtype)
        inv_std = steps().normalise(flat, box, mean, var, eps, weight, bias, y)
        return box.restored(y).reshape(x.shape), RowContext(flat, box, w, mean, inv_std, weight, n)

    def _backward(self, dy: Array, context: RowContext) -> Array:
        x, box, counts, mean, inv_std, weight, n = context
        step, shape, dy = steps(), dy.shape, box.flat(dy.reshape(box.shape), x.dtype)
        cells, channels = step.backward_sums(dy, x, box, mean, inv_std, weight)
        if self.weight is not None:
            self.weight.add_grad(channels[1].reshape(self.weight.data.shape))
        if self.bias is not None:
            self.bias.add_grad(channels[0].reshape(self.bias.data.shape))
        cells *= 0.0 if n is None else 1.0 / (n + (n == 0))
        if not self.centred:
            cells[0] = 0.0
        dx = self._workspace.take(box.view, x.dtype)
        step.input_gradient(dy, x, box, counts, mean, inv_std, weight, cells, dx)
        return box.restored(dx).reshape(shape)
