"""The affine map y = x W^T + b, PyTorch's layout of W: (out, in)."""

from __future__ import annotations

import numpy as np

from ..arrays import Array


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """y = x W^T + b for x (N, in), W (out, in), b (out,)."""
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Returns dx = dy W, dW = dy^T x and db = sum(dy) over this rank's rows, in at least W's precision (float16 would overflow)."""
    dy, x = (a.astype(np.result_type(a, weight), copy=False) for a in (dy, x))
    return dy @ weight, dy.T @ x, dy.sum(axis=0)
