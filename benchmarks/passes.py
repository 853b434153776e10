"""What NumPy itself takes for a batch norm step: our passes over the data, with everything else ready."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from syncbn_sim.functional.kernels import layout_of
from syncbn_sim.functional.layouts import Blocks, affine_pass, gradient_pass
from syncbn_sim.functional.whole import Whole

from syncbn_sim.arrays import Array
from syncbn_sim.functional import batch_norm as readable
from syncbn_sim.workspace import Workspace

from .rivals import EPS, Batch

# Sums, (x, dy, y, dx, a, b, k, q), lean.
Prepared = tuple[Callable[[Array, Array], None], list[tuple[Array, ...]], bool]


def coefficients(batch: Batch) -> list[Array]:
    """Computes a, b, k and q of y = a x + b and dx = a (dy + k x + q), each (C,), from the textbook."""
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
    layout = layout_of(n, batch.channels, length, x.dtype)
    sums, apply, lean = (_whole if isinstance(layout, Whole) else _blocks)(layout, batch, y, dx)

    def step() -> tuple[Array, Array]:
        with np.errstate():
            if lean:
                np.setbufsize(16)
            sums(x, x)
            for xb, _, yb, _, a, b, _, _ in apply:
                affine_pass(xb, None, a, b, yb)
            sums(dy, x)
            for xb, dyb, _, dxb, a, _, k, q in apply:
                gradient_pass(dyb, xb, None, a, k, q, dxb)
        return y, dx

    return step


def _whole(layout: Whole, batch: Batch, y: Array, dx: Array) -> Prepared:
    partial, scratch = np.empty(layout.partial, y.dtype), np.empty(layout.shape, y.dtype)
    shaped = {id(each): each.reshape(layout.shape) for each in (batch.x, batch.dy, y, dx)}
    coefficient = [layout.spread(each) for each in coefficients(batch)]

    def sums(a: Array, x: Array) -> None:
        layout.add_up(shaped[id(a)], shaped[id(x)], partial, scratch)

    return sums, [(*shaped.values(), *coefficient)], False


def _blocks(layout: Blocks, batch: Batch, y: Array, dx: Array) -> Prepared:
    space = Workspace()
    wide = list(layout.spread(coefficients(batch), space))
    partial, scratch = np.empty((2, *layout.partial), y.dtype), space.take((layout.largest,), y.dtype)
    cut = {id(each): layout.summed_blocks(each) for each in (batch.x, batch.dy)}
    free = [scratch[: block.size].reshape(block.shape) for block in cut[id(batch.x)]]
    apply = [
        (*blocks, *(each[..., : blocks[0].shape[-1]] for each in wide))
        for blocks in zip(*map(layout.blocks, (batch.x, batch.dy, y, dx)), strict=True)
    ]

    def sums(a: Array, x: Array) -> None:
        at = 0
        for ab, xb, scratch in zip(cut[id(a)], cut[id(x)], free, strict=True):
            at = layout.add_up(ab, xb, partial, at, scratch)

    return sums, apply[::-1], layout.lean
