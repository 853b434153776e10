"""Backward passes of every layer against finite differences: float64, random cotangent, weight, bias and running statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from suites.gradcheck import assert_gradient
from suites.layers import Array, Layer, built, positions

from syncbn_sim import nn
from syncbn_sim.comm import Communicator, launch

ROWS = (3, 1, 0, 2)
SMALL = 100  # values of an input, up to which it takes no time to move each of them


def check_layer(layer: nn.Module, x: Array, dy: Array, weights: Array | None = None) -> None:
    """dx and the gradient of every parameter."""
    layer(x, weights)
    dx = layer.backward(dy)
    gradients = [p.grad for p in layer.parameters()]
    with nn.no_backward(layer):

        def loss() -> float:
            return float((layer(x, weights) * dy).sum())

        assert_gradient(loss, x, dx)
        for p, gradient in zip(layer.parameters(), gradients, strict=True):
            assert_gradient(loss, p.data, gradient)


def check(row: Layer, training: bool, weighted: bool) -> None:
    rng, layer = np.random.default_rng(7), built(row).train(training)
    x = rng.normal(size=row.shape) * 2 + 1
    with nn.no_backward(layer):
        shape = layer(x).shape
    check_layer(layer, x, rng.normal(size=shape), rng.uniform(0.2, 3, positions(row, row.shape)) if weighted else None)


def check_over_ranks(row: Layer, weighted: bool) -> None:
    """The gradient of the sum over all ranks, through what they say to each other: uneven ranks, one empty."""
    rng, trail = np.random.default_rng(9), row.shape[1:]
    xs = [rng.normal(size=(n, *trail)) * 2 + n for n in ROWS]
    ws = [rng.uniform(0.5, 2, positions(row, x.shape)) if weighted else None for x in xs]
    with nn.no_backward(alone := built(row)):
        dys = [rng.normal(size=alone(np.concatenate(xs))[: len(x)].shape) for x in xs]
    data = [p.data for p in built(row).parameters()]

    def on_rank(comm: Communicator) -> tuple[float, Array, list[Array]]:
        layer, r = built(row, comm=comm), comm.rank
        for p, array in zip(layer.parameters(), data, strict=True):
            p.data = array
        loss = float((layer(xs[r], ws[r]) * dys[r]).sum())
        return loss, layer.backward(dys[r]), [np.array(p.grad) for p in layer.parameters()]

    def total() -> float:
        return sum(loss for loss, *_ in launch(on_rank, len(ROWS), "threads"))

    found = launch(on_rank, len(ROWS), "threads")
    for x, (_, dx, _) in zip(xs, found, strict=True):
        if len(x):
            assert_gradient(total, x, dx)
    for i, array in enumerate(data):
        assert_gradient(total, array, sum(gradients[i] for *_, gradients in found))


HERE = {
    "gradients in training": partial(check, training=True, weighted=False),
    "gradients in evaluation": partial(check, training=False, weighted=False),
    "gradients with weights": partial(check, training=True, weighted=True),
    "gradients in evaluation with weights": partial(check, training=False, weighted=True),
}
OVER_RANKS = {
    "gradients over ranks": partial(check_over_ranks, weighted=False),
    "gradients over ranks with weights": partial(check_over_ranks, weighted=True),
}


def checks(row: Layer) -> dict[str, Callable[[Layer], None]]:
    """Those that this row is small enough for, and over ranks if it talks."""
    if math.prod(row.shape) > SMALL:
        return {}
    return HERE | OVER_RANKS if row.talks else HERE
