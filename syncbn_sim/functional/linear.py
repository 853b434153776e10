"""The affine map y = x W^T + b, PyTorch's layout of W: (out, in). Results lie in `space`, or in new arrays."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from ..workspace import Workspace


def linear(x: Array, weight: Array, bias: Array | None, space: Workspace | None = None) -> Array:
    """Computes y = x W^T + b for x (N, in), W (out, in), b (out,)."""
    y = np.matmul(x, weight.T, out=(space or Workspace()).take((len(x), len(weight)), np.result_type(x, weight)))
    if bias is not None:
        y += bias
    return y


def linear_backward(dy: Array, x: Array, weight: Array, space: Workspace | None = None) -> tuple[Array, Array]:
    """Returns dx = dy W and dW = dy^T x over this rank's rows, in at least W's precision (float16 would overflow)."""
    space = space or Workspace()
    dy, x = (a.astype(np.result_type(a, weight), copy=False) for a in (dy, x))
    dx = np.matmul(dy, weight, out=space.take((len(dy), weight.shape[1]), dy.dtype))
    d_weight = np.matmul(dy.T, x, out=space.take(weight.shape, np.result_type(dy, x)))
    return dx, d_weight


def bias_backward(dy: Array, bias: Array) -> Array:
    """Returns db = sum(dy) over this rank's rows, in at least b's precision."""
    return np.add.reduce(dy, axis=0, dtype=np.result_type(dy, bias))
