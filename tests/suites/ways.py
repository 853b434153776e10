"""The steps of a norm in each way there is, to be held against each other: NumPy's, and compiled."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import numpy as np

from syncbn_sim.arrays import Array
from syncbn_sim.functional import steps
from syncbn_sim.functional.box import Box, box_of

WAYS: dict[str, ModuleType] = {"numpy": steps}
if importlib.util.find_spec("numba"):
    from syncbn_sim.kernels import compiled

    WAYS["compiled"] = compiled


def through_steps(
    way: str,
    x: Array,
    dy: Array,
    weight: Array,
    bias: Array,
    eps: float = 1e-5,
    groups: int | None = None,
    cut: Any = lambda box: box,
    counts: object | None = None,
) -> dict[str, Array]:
    """All steps on one array with channels on axis 1; default: batch norm. Statistics are (stretches, groups)."""
    step, c = WAYS[way], x.shape[1]
    box: Box = cut(box_of(x, 1, groups or c))
    flat, w = box.flat(x), None if counts is None else box.counts(counts)
    *_, deviation_sq, mean, n = moments = step.moments(flat, box, w)
    var = deviation_sq / np.maximum(n, 1e-300)
    weight, bias = weight.astype(np.float64), bias.astype(np.float64)
    y, dx = np.empty(box.view, x.dtype), np.empty(box.view, x.dtype)
    inv_std = step.normalise(flat, box, mean, var, eps, weight, bias, y)
    grad = box.flat(dy, x.dtype)
    cells, channels = step.backward_sums(grad, flat, box, mean, inv_std, weight)
    step.input_gradient(grad, flat, box, w, mean, inv_std, weight, cells / np.maximum(n, 1e-300), dx)
    return {
        "moments": moments,
        "mean": mean,
        "var": var,
        "y": box.restored(y),
        "dx": box.restored(dx),
        "cells": cells,
        "weight gradient": channels[1],
        "bias gradient": channels[0],
    }
