"""Masked positions: those of weight 0, which no layer reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arrays import Array, as_array, frequency_weights
from ..errors import ShapeError


class Mask(NamedTuple):
    """Which positions are hidden.

    Attributes:
        hidden: bools, one per position or one per row.
        channels: the axes of the data that `hidden` lacks; rows are on axis 0.
    """

    hidden: Array
    channels: tuple[int, ...]

    def zeroed(self, values: Array) -> Array:
        """A copy with 0 at hidden positions. A mask of rows fits values of any rank.

        Raises:
            ShapeError: the values do not have the positions of the mask.
        """
        copy = values.copy("K")
        try:
            _positions_first(copy, self)[self.hidden] = 0
        except (IndexError, ValueError):
            got = f"one per position, {self.hidden.shape}"
            expected = f"({len(values)},) for a model with a layer that changes the positions, such as Flatten"
            raise ShapeError("weights", got=got, expected=expected, do="Give one weight per row.") from None
        return copy


def masked(x: Array, weights: object, channels: tuple[int, ...] | None) -> tuple[Array, Mask]:
    """Frequency weights as float64, a copy in the shape they came in; and which positions of x they hide.

    Args:
        x: data, rows on axis 0.
        weights: one per position, shape of x without its channel axes, or one per row.
        channels: the channel axes. None: it is the axis of x that the weights lack. Where that leaves a choice, as for a square
            image, it is an axis at which x is 0 already wherever the weight is: the layer before has seen to it. Otherwise it is axis 1.

    Raises:
        ShapeError: neither one per position nor one per row.
    """
    w = as_array(weights, "weights")
    # Channel axes, and the positions' shape that they leave.
    fitting: dict[tuple[int, ...], tuple[int, ...]]
    if channels is None:
        fitting = {(axis,): x.shape[:axis] + x.shape[axis + 1 :] for axis in range(1, x.ndim)} or {(): x.shape}
        fitting = {axes: positions for axes, positions in fitting.items() if positions == w.shape} or fitting
    else:
        left_out = {axis % x.ndim for axis in channels}
        fitting = {channels: tuple(n for axis, n in enumerate(x.shape) if axis not in left_out)}
    w = frequency_weights(w, next(iter(fitting.values())))
    masks = [Mask(w == 0, axes) for axes in fitting]
    if len(masks) > 1 and w.ndim > 1:
        masks = [mask for mask in masks if not np.any(_positions_first(x, mask)[mask.hidden])] or masks
    return w, masks[0]


def _positions_first(values: Array, mask: Mask) -> Array:
    """A view with the mask's positions on the leading axes."""
    if mask.hidden.ndim == 1:
        return values
    return np.moveaxis(values, mask.channels, range(-len(mask.channels), 0))
