"""Batch normalisation of one batch from its textbook formulas, in float64: what every split over ranks must reproduce.

Kept apart from the package on purpose: rows are weighted by repeating the formulas, and nothing is shared with the engine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Reference(NamedTuple):
    y: np.ndarray
    dx: np.ndarray
    d_weight: np.ndarray
    d_bias: np.ndarray
    mean: np.ndarray
    unbiased_var: np.ndarray


def batch_norm(
    x: np.ndarray, dy: np.ndarray, weight: np.ndarray, bias: np.ndarray, w: np.ndarray | None = None, eps: float = 1e-5
) -> Reference:
    """x, dy: (N, C, ...); w: (N, ...) frequency weights. Returns the statistics to store beside outputs and gradients."""
    rows = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]).astype(np.float64)
    drows = np.moveaxis(dy, 1, -1).reshape(rows.shape).astype(np.float64)
    w = np.ones(len(rows)) if w is None else w.reshape(-1).astype(np.float64)
    read = w > 0
    n = w.sum()
    mean = (w[read, None] * rows[read]).sum(0) / n
    var = (w[read, None] * (rows[read] - mean) ** 2).sum(0) / n
    std = np.sqrt(var + eps)
    y, dx = np.zeros_like(rows), np.zeros_like(rows)
    x_hat = (rows[read] - mean) / std
    d = drows[read]
    y[read] = x_hat * weight + bias
    g = d * weight
    d_var = (g * (rows[read] - mean)).sum(0) * -0.5 / std**3
    d_mean = -g.sum(0) / std
    dx[read] = g / std + w[read, None] * (2 * (rows[read] - mean) * d_var + d_mean) / n
    shape = np.moveaxis(x, 1, -1).shape

    def back(a: np.ndarray) -> np.ndarray:
        return np.moveaxis(a.reshape(shape), -1, 1)

    return Reference(back(y), back(dx), (d * x_hat).sum(0), d.sum(0), mean, var * n / (n - 1))
