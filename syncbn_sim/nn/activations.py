"""Layers without parameters."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from ..errors import ShapeError
from ..functional.activations import relu, relu_backward
from ..functional.batch_norm import over_channels
from .module import Module


class ReLU(Module):
    """y = max(x, 0), any shape; 0 at positions of weight 0 (channels on axis 1)."""

    def forward(self, x: Array, weights: object | None = None) -> Array:
        """Returns y."""
        if weights is not None:
            x = np.where(over_channels(weights, x) > 0, x, x.dtype.type(0))
        y = relu(x, self._workspace)
        self.push(y)
        return y

    def backward(self, dy: Array) -> Array:
        """Returns dy where y > 0, else 0."""
        return relu_backward(dy, self.pop(), self._workspace)


class Flatten(Module):
    """(N, C, H, W) -> (N, C H W). Position weights cannot pass it; use one weight a row, shape (N,)."""

    def forward(self, x: Array, weights: object | None = None) -> Array:
        """Returns x with all axes but the first made one."""
        if weights is not None and np.asarray(weights).ndim > 1:
            raise ShapeError(
                "weights",
                got=np.asarray(weights).shape,
                expected=f"({len(x)},) for a model with a Flatten",
                do="Give one weight a row.",
            )
        self.push(x.shape)
        return x.reshape(len(x), int(np.prod(x.shape[1:])))

    def backward(self, dy: Array) -> Array:
        """Returns dy in the input's shape."""
        return dy.reshape(self.pop())
