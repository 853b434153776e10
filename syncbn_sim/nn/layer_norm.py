"""Layer normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..errors import ShapeError
from ..functional.layer_norm import LayerNormContext, layer_norm, layer_norm_backward
from .module import Module, Parameter


class LayerNorm(Module):
    """Computes y = weight (x - mean) / sqrt(var + eps) + bias, mean and biased variance over each row's trailing axes.

    No batch statistics, so batch size, order and ranks do not matter, training and evaluation are the same, and it talks
    to nobody. Position weights have the shape of x without the trailing axes; 0 masks. PyTorch's names and conventions.

    Args:
        normalized_shape: the trailing axes, e.g. 64 for (N, 64).
        eps: added to the variance.
        elementwise_affine: whether there are weight (1 at the start) and bias (0) of that shape.
        bias: False: no bias beside the weight.
        dtype: of the parameters.

    Raises:
        ShapeError: the input's trailing axes differ.

    Source: Ba, Kiros & Hinton (2016).
    """

    channel_axes: tuple[int, ...]

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = Parameter(np.ones(self.normalized_shape), dtype) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape), dtype) if elementwise_affine and bias else None
        self.channel_axes = tuple(range(-len(self.normalized_shape), 0))

    def _check(self, x: Array) -> None:
        trailing = len(self.normalized_shape)
        if x.shape[-trailing:] != self.normalized_shape or x.ndim <= trailing:
            raise ShapeError(
                "LayerNorm input",
                got=x.shape,
                expected=f"(N, ..., {', '.join(map(str, self.normalized_shape))})",
                do="normalized_shape is the shape of the trailing axes.",
            )

    def _forward(self, x: Array, counts: Array | None) -> tuple[Array, Any]:
        # A copy: whoever steps, or writes into the weight, does not change what this pass did.
        weight = self.weight.data.copy() if self.weight is not None else None
        y, context = layer_norm(
            x, self.channel_axes, self.eps, weight, self.bias.data if self.bias is not None else None
        )
        return y, (context, weight)

    def _backward(self, dy: Array, context: tuple[LayerNormContext, Array | None]) -> Array:
        kept, weight = context
        dx, d_weight, d_bias = layer_norm_backward(dy, kept, self.channel_axes, weight)
        if self.weight is not None:
            self.weight.add_grad(d_weight)
        if self.bias is not None:
            self.bias.add_grad(d_bias)
        return dx
