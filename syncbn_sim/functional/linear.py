"""The affine map y = x W^T + b, PyTorch's layout of W: (out, in)."""

from __future__ import annotations

from ..arrays import Array


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """Y = x W^T + b for x (N, in), W (out, in), b (out,)."""
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Returns dx = dy W, dW = dy^T x and db = sum(dy) over this rank's rows."""
    return dy @ weight, dy.T @ x, dy.sum(axis=0)
