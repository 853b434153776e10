"""Layer normalisation: each row by its own mean and variance, so ranks and batch size do not matter. Ba et al. (2016), equation 4."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arrays import Array


class LayerNormContext(NamedTuple):
    """What the backward pass needs: x_hat and inv_std, both float64; inv_std has kept axes of length 1."""

    x_hat: Array
    inv_std: Array


def layer_norm(
    x: Array, axes: tuple[int, ...], eps: float, weight: Array | None, bias: Array | None
) -> tuple[Array, LayerNormContext]:
    """Computes y = weight (x - mean) / sqrt(var + eps) + bias, with mean and biased variance over the trailing `axes`."""
    x = x.astype(np.float64)
    centred = x - x.mean(axis=axes, keepdims=True)
    inv_std = 1.0 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
    x_hat = centred * inv_std
    y = x_hat if weight is None else x_hat * weight
    return (y if bias is None else y + bias), LayerNormContext(x_hat, inv_std)


def layer_norm_backward(
    dy: Array, context: LayerNormContext, axes: tuple[int, ...], weight: Array | None
) -> tuple[Array, Array, Array]:
    """Computes dx = inv_std (g - mean(g) - x_hat mean(g x_hat)) with g = weight dy, means over `axes`.

    Returns:
        dx, d_weight = sum(dy x_hat) and d_bias = sum(dy), the sums over all rows.
    """
    x_hat, inv_std = context
    dy = dy.astype(np.float64)
    g = dy if weight is None else dy * weight
    dx = inv_std * (g - g.mean(axis=axes, keepdims=True) - x_hat * (g * x_hat).mean(axis=axes, keepdims=True))
    rows = tuple(range(dy.ndim - len(axes)))
    return dx, (dy * x_hat).sum(axis=rows), dy.sum(axis=rows)
