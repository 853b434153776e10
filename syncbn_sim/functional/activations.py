"""Activations."""

from __future__ import annotations

import numpy as np

from ..arrays import Array


def relu(x: Array) -> Array:
    """y = max(x, 0)."""
    return np.maximum(x, 0)


def relu_backward(dy: Array, y: Array) -> Array:
    """dx = dy where y > 0, else 0 (the kink at 0 included)."""
    return np.where(y > 0, dy, dy.dtype.type(0))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow for large |x|."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)
