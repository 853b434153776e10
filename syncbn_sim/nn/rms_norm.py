"""Root mean square normalisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .layer_norm import LayerNorm


class RMSNorm(LayerNorm):
    """Computes y = weight x / sqrt(mean(x^2) + eps), the mean over each row's trailing axes: LayerNorm without a mean and a bias.

    Training and evaluation are the same, and it talks to nobody. Position weights have the shape of x without the trailing axes; 0 masks.
    Helps where LayerNorm does and costs less; not where a common offset of all channels carries nothing and should go.

    Args:
        normalized_shape: the trailing axes, e.g. 64 for (N, 64).
        eps: added to the mean square; None: the step of the float32 (or, for a float64 input, float64) numbers at 1.
        elementwise_affine: whether there is a weight (1 at the start) of that shape.
        dtype: of the weight.

    Raises:
        ShapeError: the input's trailing axes differ.

    Source: Zhang & Sennrich (2019), equation 4; conventions of torch.nn.RMSNorm.
    """

    centred = False

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(normalized_shape, 0.0 if eps is None else eps, elementwise_affine, bias=False, dtype=dtype)
        self.eps = eps
