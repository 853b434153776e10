"""Layers without parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array
from ..functional.activations import relu, relu_backward
from .module import Module

BOOL = np.dtype(bool)


class ReLU(Module):
    """Computes y = max(x, 0), any shape; 0 at positions of weight 0, whichever axis the channels are on."""

    def _forward(self, x: Array, counts: Array | None) -> tuple[Array, Array | None]:
        y = relu(x, self._workspace)
        if not self._keeps_contexts:
            return y, None
        # Not y itself, which the caller may write into.
        return y, np.greater(y, 0, out=self._workspace.take(y.shape, BOOL))

    def _backward(self, dy: Array, passed: Array) -> Array:
        return relu_backward(dy, passed, self._workspace)


class Flatten(Module):
    """Turns (N, C, H, W) into (N, C H W); 0 in rows of weight 0. Position weights cannot pass it; use one weight per row, shape (N,)."""

    def _forward(self, x: Array, counts: Array | None) -> tuple[Array, Any]:
        return x.reshape(len(x), math.prod(x.shape[1:])), x.shape

    def _backward(self, dy: Array, shape: tuple[int, ...]) -> Array:
        return dy.reshape(shape)
