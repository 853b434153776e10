"""Layer normalisation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..errors import ShapeError
from ..functional.box import Box, box_of
from .row_norm import RowNorm


class LayerNorm(RowNorm):
    """Computes y = weight (x - mean) / sqrt(var + eps) + bias, mean and biased variance over each row's trailing axes.

    No batch statistics, so batch size, order and ranks do not matter, training and evaluation are the same, and it talks
    to nobody. Position weights have the shape of x without the trailing axes; 0 masks, and any other weight changes nothing.
    PyTorch's names and conventions. Helps where rows come one at a time or in sequences; less in convolutions, whose channels differ
    in scale.

    Args:
        normalized_shape: the trailing axes, e.g. 64 for (N, 64).
        eps: added to the variance.
        elementwise_affine: whether there are weight (1 at the start) and bias (0) of that shape.
        bias: False: no bias beside the weight.
        dtype: of the parameters.

    Raises:
        ShapeError: the input's trailing axes differ.

    Source: Ba, Kiros & Hinton (2016); conventions of torch.nn.LayerNorm.
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
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        super().__init__(shape, eps, elementwise_affine, bias, dtype)
        self.normalized_shape = shape
        self.channel_axes = tuple(range(-len(shape), 0))

    def _check(self, x: Array) -> None:
        trailing = len(self.normalized_shape)
        if x.shape[-trailing:] != self.normalized_shape or x.ndim <= trailing:
            raise ShapeError(
                f"{type(self).__name__} input",
                got=x.shape,
                expected=f"(N, ..., {', '.join(map(str, self.normalized_shape))})",
                do="normalized_shape is the shape of the trailing axes.",
            )

    def _partition(self, x: Array) -> Box:
        """One cell for each position: all that the trailing axes hold."""
        trailing = len(self.normalized_shape)
        if trailing > 1:
            x = x.reshape(*x.shape[:-trailing], math.prod(self.normalized_shape))
        return box_of(x, -1, 1).by_position()
