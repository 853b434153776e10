"""Finite-difference gradient checks that can fail: float64, a random cotangent, and a true gradient that is not small."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def numeric_gradient(f: Callable[[], float], x: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Computes d f / d x by a five-point central difference (error ~ step^4), changing x in place and back."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        values = []
        for k in (-2, -1, 1, 2):
            x[index] = kept + k * step
            values.append(f())
        x[index] = kept
        gradient[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return gradient


def assert_gradient(f: Callable[[], float], x: np.ndarray, gradient: np.ndarray, tolerance: float = 1e-7) -> None:
    truth = numeric_gradient(f, x)
    scale = np.abs(truth).max()
    assert scale > 1e-2, f"the true gradient is only {scale:.1e}: this check could not fail"
    error = np.abs(gradient - truth).max() / scale
    assert error < tolerance, f"relative error {error:.1e}"
