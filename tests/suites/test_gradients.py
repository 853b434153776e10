"""Gradients that the table of layers does not reach: small weights, float16 sums, a masked net with its loss."""

from __future__ import annotations

import numpy as np
import pytest
from suites.gradcheck import assert_gradient
from suites.gradients import check_layer
from suites.layers import randomised

from syncbn_sim import nn
from syncbn_sim.comm import launch

RNG = np.random.default_rng(7)
F64 = {"dtype": np.float64}


def test_small_fractional_weights() -> None:
    """A total weight below 1 is a count like any other: for statistics of this batch in evaluation, and for averages over ranks."""
    x, w = RNG.normal(size=(3, 2)), np.array([0.2, 0.3, 0.1])
    layer = randomised(nn.BatchNorm(2, track_running_stats=False, **F64), RNG)
    check_layer(layer.eval(), x, RNG.normal(size=x.shape), w)
    xs, ws = [RNG.normal(size=(2, 2)), RNG.normal(size=(3, 2))], [np.array([0.15, 0.1]), np.ones(3)]
    dys = [RNG.normal(size=a.shape) for a in xs]

    def on_rank(comm):
        bn = nn.AveragedBatchNorm(2, comm=comm, **F64)
        y = bn(xs[comm.rank], ws[comm.rank])
        return float((y * dys[comm.rank]).sum()), bn.backward(dys[comm.rank])

    for rank in (0, 1):
        assert_gradient(lambda: sum(loss for loss, _ in launch(on_rank, 2)), xs[rank], launch(on_rank, 2)[rank][1])


def test_float16_linear_adds_up_in_float32() -> None:
    layer = nn.Linear(1, 1)
    layer(np.full((75_000, 1), 10, np.float16))
    layer.backward(np.ones((75_000, 1), np.float16))
    assert layer.weight.grad[0, 0] == 750_000
    assert layer.bias.grad[0] == 75_000


def test_masked_net_never_reads_what_is_masked() -> None:
    model = randomised(
        nn.Sequential(
            nn.Linear(4, 5, bias=False, **F64),
            nn.BatchNorm(5, **F64),
            nn.ReLU(),
            nn.LayerNorm(5, **F64),
            nn.Linear(5, 2, **F64),
        ),
        RNG,
    )
    x, labels, mask = RNG.normal(size=(8, 4)), RNG.integers(0, 2, 8), np.array([1, 0, 1, 1, 0, 1, 1, 1])
    loss = nn.CrossEntropyLoss()

    def step(x: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> tuple:
        total, count = loss(model(x, weights), labels, weights)
        model.zero_grad()
        dx = model.backward(loss.backward())
        return total, count, dx, [p.grad for p in model.parameters()]

    kept = mask > 0
    total, count, dx, gradients = step(x[kept], labels[kept], None)
    spoiled = np.where(kept[:, None], x, np.nan)
    total2, count2, dx2, gradients2 = step(spoiled, np.where(kept, labels, -77), mask)
    assert (total2, count2) == (pytest.approx(total, rel=1e-14), count)
    np.testing.assert_allclose(dx2[kept], dx, atol=1e-13)
    assert (dx2[~kept] == 0).all()
    for a, b in zip(gradients, gradients2, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-13)


def test_the_usual_cotangents_check_nothing() -> None:
    """Why the checks above draw theirs at random: through BN, sum(y) has no gradient and sum(y^2) nearly none."""
    x = RNG.normal(size=(16, 4))
    largest = {}
    for name, cotangent in (
        ("sum", lambda y: np.ones_like(y)),
        ("sum of squares", lambda y: 2 * y),
        ("random", lambda y: RNG.normal(size=y.shape)),
    ):
        bn = nn.BatchNorm(4, **F64)
        largest[name] = np.abs(bn.backward(cotangent(bn(x)))).max()
    assert largest["sum"] < 1e-14
    assert largest["sum of squares"] < 1e-3
    assert largest["random"] > 0.5
