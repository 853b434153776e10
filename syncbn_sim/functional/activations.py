"""Activations. Those with a `space` put results into it, or into new arrays."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from ..workspace import Workspace


def relu(x: Array, space: Workspace | None = None) -> Array:
    """Computes y = max(x, 0)."""
    return np.maximum(x, 0, out=(space or Workspace()).take(x.shape, x.dtype))


def relu_backward(dy: Array, passed: Array, space: Workspace | None = None) -> Array:
    """Computes dx = dy where `passed`, which is y > 0, else 0 (the kink at 0 included)."""
    dx = (space or Workspace()).take(dy.shape, dy.dtype)
    dx.fill(0)
    np.copyto(dx, dy, where=passed)
    return dx


def sigmoid(x: Array) -> Array:
    """Computes 1 / (1 + exp(-x)), without overflow for large |x|."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)
