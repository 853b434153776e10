"""Real images: scikit-learn's handwritten digits, 1,797 pictures of 8 x 8 pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..errors import not_installed
from .dataset import Dataset, Split


def load_digits() -> tuple[Array, Array]:
    """Returns pixels (1797, 64) as float64 in 0..1 and digits (1797,) as integers. Needs scikit-learn.

    Raises:
        MissingDependencyError: scikit-learn is not installed.

    Source: Alpaydin & Kaynak (1998), UCI repository; comes with scikit-learn, nothing is downloaded.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise not_installed("digits", "scikit-learn", "data") from error
    pixels, labels = load(return_X_y=True)
    return pixels / 16.0, labels.astype(np.int64)


def split_digits(pixels: Array, labels: Array, seed: int, dtype: DTypeLike = np.float32) -> Split:
    """A random quarter of the images is kept for the test; the entity of a row is its class."""
    order = np.random.default_rng([seed, 1]).permutation(len(pixels))
    everything = Dataset(pixels.astype(dtype), labels, labels)
    cut = len(pixels) // 4
    return Split(train=everything.take(order[cut:]), test=everything.take(order[:cut]))
