"""Losses: each returns a *sum* over its rows, so that ranks with different numbers of rows add up to the loss of the union.

The mean is taken once, by whoever knows the global count (see `train`). Everything is computed in float64.
"""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from .activations import sigmoid


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Computes loss_i = log(sum_k exp(z_ik)) - z_i,label.

    Args:
        logits: (N, K).
        labels: (N,) integers in 0..K-1.

    Returns:
        The (N,) losses and the (N, K) softmax probabilities, which the backward pass needs.
    """
    z = logits.astype(np.float64)
    z = z - z.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1)
    return np.log(total) - z[np.arange(len(z)), labels], e / total[:, None]


def softmax_cross_entropy_backward(probabilities: Array, labels: Array) -> Array:
    """Computes d loss_i / d z_ik = p_ik - [k = label_i]."""
    gradient = probabilities.copy()
    gradient[np.arange(len(labels)), labels] -= 1.0
    return gradient


def binary_cross_entropy_with_logits(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Computes loss_i = max(z, 0) - z y + log(1 + exp(-|z|)), the stable form of -y log p - (1 - y) log(1 - p).

    Args:
        logits: (N,) z.
        labels: (N,) y in [0, 1].

    Returns:
        The (N,) losses and the (N,) probabilities p = sigmoid(z).
    """
    z = logits.astype(np.float64)
    return np.maximum(z, 0) - z * labels + np.log1p(np.exp(-np.abs(z))), sigmoid(z)


def binary_cross_entropy_with_logits_backward(probabilities: Array, labels: Array) -> Array:
    """Computes d loss_i / d z_i = p_i - y_i."""
    return probabilities - labels


def squared_error(predictions: Array, labels: Array) -> Array:
    """Computes loss_i = (z_i - y_i)^2 for (N,) predictions and labels."""
    return (predictions.astype(np.float64) - labels) ** 2


def squared_error_backward(predictions: Array, labels: Array) -> Array:
    """Computes d loss_i / d z_i = 2 (z_i - y_i)."""
    return 2.0 * (predictions.astype(np.float64) - labels)
