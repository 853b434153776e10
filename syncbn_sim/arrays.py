"""What every folder needs of arrays: the type name, and the few checks of data, dtypes and weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import ArgumentError, DtypeError, ShapeError

Array = NDArray[Any]


def as_array(x: object, name: str) -> Array:
    """Returns `x` as an array, refusing one with a mask of its own, which NumPy would drop without a word.

    Raises:
        DtypeError: `x` is a `numpy.ma.MaskedArray`.
    """
    if isinstance(x, np.ma.MaskedArray):
        expected = "a plain array, and its mask as weights"
        do = f"Pass {name}.data, and weights=: 0 at masked positions, 1 elsewhere (weights have no channel axis)."
        raise DtypeError(name, got="a numpy.ma.MaskedArray", expected=expected, do=do)
    return np.asarray(x)


def as_float_array(x: object, name: str = "x") -> Array:
    """Returns `x` as an array of floats, refusing integers and bools instead of guessing.

    Raises:
        DtypeError: `x` is not floating point (rounding y back to integers would lose it silently), or a masked array.
    """
    array: Array = x if type(x) is np.ndarray else as_array(x, name)
    if array.dtype.kind != "f":
        do = f"Convert it first: {name}.astype(np.float32)."
        raise DtypeError(name, got=f"dtype {array.dtype}", expected="a floating-point array", do=do)
    return array


def parameter_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Returns the dtype of a layer's parameters: float32 or float64.

    Raises:
        DtypeError: anything else; float16 has too few digits to add small updates to.
    """
    found = np.dtype(dtype)
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        do = "Keep the layer in float32; float16 inputs are accepted as they are."
        raise DtypeError("dtype", got=found, expected="float32 or float64 for parameters", do=do)
    return found


def position_weights(weights: object, positions: tuple[int, ...]) -> Array:
    """Returns frequency weights as float64, one for each position.

    Args:
        weights: finite numbers >= 0 of shape `positions`, or one per row, shape `(positions[0],)`,
            which then holds for every position of that row. Bools are taken as 0 and 1.
        positions: the shape of the data without its channel axis.

    Raises: what `frequency_weights` raises.
    """
    w = frequency_weights(weights, positions)
    if w.shape != positions:
        w = np.broadcast_to(w.reshape(-1, *[1] * (len(positions) - 1)), positions)
    return w


def frequency_weights(weights: object, positions: tuple[int, ...]) -> Array:
    """Returns a float64 copy of weights that may be one per position or one per row, as they came.

    Raises:
        ShapeError: neither shape.
        DtypeError: not numbers.
        ArgumentError: a negative or non-finite weight.
    """
    w = as_array(weights, "weights")
    if w.dtype.kind not in "fiub":
        raise DtypeError("weights", got=f"dtype {w.dtype}", expected="numbers >= 0", do="Pass a float or bool array.")
    w = w.astype(np.float64)
    if w.shape != positions and w.shape != positions[:1]:
        expected = f"{positions} (one for each position) or {positions[:1]} (one per row)"
        do = "Weights have the shape of x without its channel axis."
        raise ShapeError("weights", got=w.shape, expected=expected, do=do)
    if np.count_nonzero((w >= 0) & (w < np.inf)) < w.size:
        got = "a negative or non-finite weight"
        raise ArgumentError("weights", got=got, expected="finite weights >= 0", do="Use 0 to mask a position.")
    return w
