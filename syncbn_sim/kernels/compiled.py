"""The steps of `functional.steps`, with its arguments and results, by compiled loops."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from ..functional.box import COLUMNS, GROUPS, RUNS, Box
from . import backward, forward

MOMENTS = {RUNS: forward.moments_of_runs, GROUPS: forward.moments_of_groups, COLUMNS: forward.moments_of_columns}
NORMALISE = {RUNS: forward.normalise_runs, GROUPS: forward.normalise_groups, COLUMNS: forward.normalise_columns}
SUMS = {RUNS: backward.sums_of_runs, GROUPS: backward.sums_of_groups, COLUMNS: backward.sums_of_columns}
GRADIENT = {RUNS: backward.gradient_of_runs, GROUPS: backward.gradient_of_groups, COLUMNS: backward.gradient_of_columns}

# Numbers of a group up to which their sum may be of float32: 32 sums or more go on at a time, so each is of 32 numbers at most.
SHORT = 1024


def moments(x: Array, box: Box, counts: Array | None) -> Array:
    """As `functional.steps.moments`."""
    out = np.empty((5, *box.cells))
    MOMENTS[box.walk](x, box.offsets, counts, out)
    return out


def normalise(x: Array, box: Box, mean: Array, var: Array, eps: float, weight: Array, bias: Array, y: Array) -> Array:
    """As `functional.steps.normalise`."""
    inv_std = np.empty(box.cells)
    NORMALISE[box.walk](x, box.offsets, mean, var, float(eps), weight, bias, inv_std, y)
    return inv_std


def backward_sums(dy: Array, x: Array, box: Box, mean: Array, inv_std: Array, weight: Array) -> tuple[Array, Array]:
    """As `functional.steps.backward_sums`."""
    cells, channels = np.empty((2, *box.cells)), np.empty((2, box.channels))
    if box.walk == GROUPS and box.view[2] <= SHORT:
        weight = weight.astype(x.dtype)
    SUMS[box.walk](dy, x, box.offsets, mean, inv_std, weight, cells, channels)
    return cells, channels


def input_gradient(
    dy: Array,
    x: Array,
    box: Box,
    counts: Array | None,
    mean: Array,
    inv_std: Array,
    weight: Array,
    cells: Array,
    dx: Array,
) -> None:
    """As `functional.steps.input_gradient`."""
    GRADIENT[box.walk](dy, x, box.offsets, counts, mean, inv_std, weight, cells, dx)
