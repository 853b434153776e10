"""What NumPy itself takes for a batch norm step: our passes over the data, with everything else ready."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from syncbn_sim.arrays import Array
from syncbn_sim.functional import batch_norm as readable
from syncbn_sim.functional.layouts import layout_of
from syncbn_sim.workspace import Workspace

from .rivals import EPS, Batch


def coefficients(batch: Batch) -> list[Array]:
    """a, b, k and q of y = a x + b and dx = a (dy + k x + q), each (C,), from the textbook."""
    x, dy = batch.second(batch.x), batch.second(batch.dy)
    local = readable.local_moments(x)
    x_hat, inv_std = readable.standardize(x, local.mean, local.var(), EPS)
    sums = readable.local_backward_sums(dy, x_hat)
    a, k = batch.weight * inv_std, inv_std * sums.dy_x_hat / -local.count
    return [a, batch.bias - a * local.mean, k, sums.dy / -local.count - k * local.mean]


def passes(batch: Batch) -> Callable[[], tuple[Array, Array]]:
    """The calls that sum and that apply coefficients; views, coefficients and memory are ready, partial sums stay partial.

    Returns y and dx.
    """
    x, dy, y, dx = batch.x, batch.dy, np.empty_like(batch.x), np.empty_like(batch.x)
    n, length = (x.size // batch.channels, 1) if batch.last else (len(x), x[0].size // batch.channels)
    layout, space = layout_of(n, batch.channels, length, x.dtype), Workspace()
    wide = list(layout.spread(coefficients(batch), space))
    partial, scratch = np.empty((2, *layout.partial), x.dtype), space.take((layout.largest,), x.dtype)
    summed = [
        (xb, dyb, scratch[: xb.size].reshape(xb.shape))
        for xb, dyb in zip(*map(layout.summed_blocks, (x, dy)), strict=True)
    ]
    applied = [
        (*blocks, *(each[..., : blocks[0].shape[-1]] for each in wide))
        for blocks in zip(*map(layout.blocks, (x, dy, y, dx)), strict=True)
    ][::-1]

    def step() -> tuple[Array, Array]:
        with np.errstate():
            if layout.lean:
                np.setbufsize(16)
            at = 0
            for xb, _, free in summed:
                at = layout.add_up(xb, xb, partial, at, free)
            for xb, _, yb, _, a, b, _, _ in applied:
                np.multiply(xb, a, yb)
                np.add(yb, b, yb)
            at = 0
            for xb, dyb, free in summed:
                at = layout.add_up(dyb, xb, partial, at, free)
            for xb, dyb, _, dxb, a, _, k, q in applied:
                np.multiply(xb, k, dxb)
                np.add(dxb, dyb, dxb)
                np.add(dxb, q, dxb)
                np.multiply(dxb, a, dxb)
        return y, dx

    return step
