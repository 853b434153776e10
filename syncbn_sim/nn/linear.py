"""The fully connected layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..errors import ShapeError
from ..functional.linear import bias_backward, linear, linear_backward
from .module import Module, Parameter


class Linear(Module):
    """Computes y = x W^T + b for x (N, in_features).

    W (out, in) and b (out,) start uniform in +-1 / sqrt(in_features), drawn from `rng`, so they depend on the
    seed alone, never on the number of ranks. Pass one generator to all layers of a net: without, each draws from
    `default_rng(0)`, and layers of one shape start alike. Right before a BatchNorm use `bias=False`: the mean takes
    the bias out again, its true gradient is zero, and Adam would amplify the rounding noise in its place.
    Rows of weight 0 are never read; y and dx are 0 there. Talks to nobody.

    Raises:
        ShapeError: the input is not (N, in_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or np.random.default_rng(0)
        bound = 1.0 / np.sqrt(in_features)
        self.in_features = in_features
        self.weight = Parameter(rng.uniform(-bound, bound, (out_features, in_features)), dtype)
        self.bias = Parameter(rng.uniform(-bound, bound, out_features), dtype) if bias else None

    def _check(self, x: Array) -> None:
        if x.ndim != 2 or x.shape[1] != self.in_features:
            expected, do = f"(N, {self.in_features})", "Put a Flatten before it, or fix in_features."
            raise ShapeError("Linear input", got=x.shape, expected=expected, do=do)

    def _forward(self, x: Array, counts: Array | None) -> tuple[Array, Any]:
        w = None
        if self._keeps_contexts:
            # A copy: whoever steps, or writes into the weight, does not change what this pass did.
            w = self._workspace.take(self.weight.data.shape, self.weight.data.dtype)
            w[...] = self.weight.data
        return linear(x, self.weight.data, self.bias.data if self.bias is not None else None, self._workspace), (x, w)

    def _backward(self, dy: Array, context: tuple[Array, Array]) -> Array:
        dx, d_weight = linear_backward(dy, *context, self._workspace)
        self.weight.add_grad(d_weight)
        if self.bias is not None:
            self.bias.add_grad(bias_backward(dy, self.bias.data))
        return dx
