"""Optimisers and schedules: their equations, and PyTorch's steps."""

from __future__ import annotations

import numpy as np
import pytest

from syncbn_sim import nn, optim
from syncbn_sim.errors import ArgumentError


def test_optimisers_follow_their_equations() -> None:
    rng = np.random.default_rng(3)
    start, gradients = rng.normal(size=4), rng.normal(size=(5, 4))
    p = nn.Parameter(start, np.float64)
    sgd = optim.SGD([p], 0.1, momentum=0.9, weight_decay=0.01)
    value, v = start.copy(), np.zeros(4)
    for g in gradients:
        p.grad = g.copy()
        sgd.step()
        v = 0.9 * v + g + 0.01 * value
        value = value - 0.1 * v
        np.testing.assert_allclose(p.data, value, rtol=1e-13)
        assert p.grad is None
    p = nn.Parameter(start, np.float64)
    adam = optim.Adam([p], 0.1)
    value, m, s = start.copy(), np.zeros(4), np.zeros(4)
    for t, g in enumerate(gradients, start=1):
        p.grad = g.copy()
        adam.step()
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
        value = value - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(p.data, value, rtol=1e-12)
    for bad in (float("inf"), float("nan"), -1):
        with pytest.raises(ArgumentError, match="lr"):
            optim.SGD([p], bad)
    with pytest.raises(ArgumentError, match=r"model\.parameters"):
        optim.SGD([], 0.1)


def test_linear_decay() -> None:
    f = optim.linear_decay(10)
    assert [f(0), f(5), f(9), f(10)] == [1.0, 0.5, pytest.approx(0.1), 0.0]
    g = optim.linear_decay(10, warmup_steps=4)
    assert [g(s) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    with pytest.raises(ArgumentError):
        optim.linear_decay(4, warmup_steps=4)


def test_optimisers_equal_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=5), rng.normal(size=(6, 5))
    for build, theirs in (
        (
            lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
        ),
        (lambda p: optim.Adam(p, 0.1, weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1)),
    ):
        a, b = nn.Parameter(start, np.float64), torch.nn.Parameter(torch.tensor(start))
        ours, other = build([a]), theirs([b])
        for g in gradients:
            a.grad, b.grad = g.copy(), torch.tensor(g)
            ours.step()
            other.step()
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-10)
