"""Layers without parameters."""

from __future__ import annotations

import numpy as np

from ..arrays import Array, as_array, as_float_array, zero_masked, zero_masked_elementwise
from ..errors import ShapeError
from ..functional.activations import relu, relu_backward
from .module import Module


class ReLU(Module):
    """y = max(x, 0), any shape; 0 at positions of weight 0, whichever axis the channels are on (`arrays.zero_masked_elementwise`)."""

    def forward(self, x: Array, weights: object | None = None) -> Array:
        """Returns y."""
        y = relu(zero_masked_elementwise(as_float_array(x), weights), self._workspace)
        if self._keeps_contexts:
            # Not y itself, which the caller may write into.
            self.push(np.greater(y, 0, out=self._workspace.take(y.shape, np.dtype(bool))))
        return y

    def backward(self, dy: Array) -> Array:
        """Returns dy where y > 0, else 0."""
        return relu_backward(as_float_array(dy, "dy"), self.pop(), self._workspace)


class Flatten(Module):
    """(N, C, H, W) -> (N, C H W); 0 in rows of weight 0. Position weights cannot pass it; use one weight a row, shape (N,)."""

    def forward(self, x: Array, weights: object | None = None) -> Array:
        """Returns x with all axes but the first made one."""
        x = as_float_array(x)
        if weights is not None and as_array(weights, "weights").ndim > 1:
            raise ShapeError(
                "weights",
                got=np.asarray(weights).shape,
                expected=f"({len(x)},) for a model with a Flatten",
                do="Give one weight a row.",
            )
        self.push((x.shape, None if weights is None else np.array(weights)))
        return zero_masked(x, weights).reshape(len(x), int(np.prod(x.shape[1:])))

    def backward(self, dy: Array) -> Array:
        """Returns dy in the input's shape."""
        shape, weights = self.pop()
        return zero_masked(as_float_array(dy, "dy"), weights).reshape(shape)
