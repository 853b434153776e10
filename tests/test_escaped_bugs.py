"""Bugs that were planted from outside and stayed green: each has its exact value here."""

from __future__ import annotations

import numpy as np
import pytest

from syncbn_sim import nn, optim, train
from syncbn_sim.cluster.networks import _scaled
from syncbn_sim.comm import SerialCommunicator, launch
from syncbn_sim.data import Log
from syncbn_sim.experiments.result import difference
from syncbn_sim.stats import Moments
from syncbn_sim.stats.estimates import ratio_interval, t_quantile


def test_the_interval_of_a_ratio_is_cochrans() -> None:
    """Computes R -+ t sd(parts - R wholes) / (sqrt(k) mean(wholes)), with k - 1 in the variance: sign, ddof and denominator."""
    pytest.importorskip("scipy")
    parts, wholes = np.array([1.6, 1.9, 1.78, 2.2]), np.array([2.0, 2.2, 2.4, 2.3])
    ratio = parts.sum() / wholes.sum()
    residuals = parts - ratio * wholes
    half = t_quantile(3) * np.sqrt((residuals**2).sum() / 3) / 2 / wholes.mean()
    found = ratio_interval(parts.tolist(), wholes.tolist())
    assert (found.low, found.high) == (pytest.approx(ratio - half), pytest.approx(ratio + half))


def test_adams_weight_decay_pulls_towards_zero() -> None:
    """With no other gradient the first step is -lr sign(value), whatever the decay."""
    parameter = nn.Linear(2, 1, bias=False, dtype=np.float64, rng=np.random.default_rng(0)).weight
    parameter.data[...] = [[3.0, -2.0]]
    optimizer = optim.Adam([parameter], lr=0.1, weight_decay=0.5)
    optimizer.step(np.zeros(2))
    np.testing.assert_allclose(parameter.data, [[2.9, -1.9]], atol=1e-6)


def test_efficientnets_rounding_rule() -> None:
    """To a multiple of 8, half upwards, and never more than a tenth below."""
    for channels, factor, rounded in (
        (32, 1.2, 40),
        (16, 1.2, 24),
        (24, 1.2, 32),
        (80, 1.2, 96),
        (112, 1.2, 136),
        (10, 1.1, 16),
    ):
        assert _scaled(channels, factor) == rounded


def test_no_backward_gives_back_what_was() -> None:
    layer = nn.ReLU()
    with nn.no_backward(layer):
        with nn.no_backward(layer):
            pass
        layer(np.ones((2, 2)))
        assert not layer._contexts  # the outer block is still in force
    with pytest.raises(KeyError), nn.no_backward(layer):
        raise KeyError
    layer(np.ones((2, 2)))
    assert layer._contexts


def test_clear_contexts_forgets_gradients_too() -> None:
    layer = nn.Linear(2, 1, dtype=np.float64, rng=np.random.default_rng(0))
    layer(np.ones((3, 2)))
    layer.backward(np.ones((3, 1)))
    layer(np.ones((3, 2)))
    nn.clear_contexts(layer)
    assert not layer._contexts
    assert layer.weight.grad is None


def test_ctrl_c_within_a_step_leaves_nothing_behind() -> None:
    class Interrupted(nn.Module):
        def _forward(self, x, counts):
            raise KeyboardInterrupt

    model = nn.Sequential(nn.Linear(2, 2, dtype=np.float64, rng=np.random.default_rng(0)), Interrupted())
    with pytest.raises(KeyboardInterrupt):
        train.step(
            model,
            nn.CrossEntropyLoss(),
            optim.SGD(model.parameters(), 0.1),
            SerialCommunicator(),
            np.ones((3, 2)),
            np.zeros(3, int),
        )
    assert all(not module._contexts for module in model.modules())


def test_a_count_below_one_is_divided_by_as_it_is() -> None:
    """Weights may sum to a half: the mean gradient is then twice the sum."""
    layer = nn.Linear(1, 1, bias=False, dtype=np.float64, rng=np.random.default_rng(0))

    def gradient(comm):
        layer.weight.grad = np.array([[3.0]])
        return train.sum_gradients(optim.SGD([layer.weight], 0.1), 1.0, 0.5, comm)[0]

    np.testing.assert_allclose(launch(gradient, 1)[0], [6.0])


def test_axes_of_weights_may_come_in_any_order() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 3, 5)), rng.random((4, 5))
    expected = (w[:, None] * x).sum(axis=(0, 2)) / w.sum()
    for axes in ((0, 2), (2, 0), (-1, 0)):
        np.testing.assert_allclose(Moments.of(x, axes=axes, weights=w).mean, expected)


def test_numpys_buffer_size_does_not_leak() -> None:
    before = np.getbufsize()
    for shape in ((64, 300), (8, 64, 14, 14), (4096, 64)):
        layer = nn.BatchNorm(shape[1])
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        layer(x)
        layer.backward(x)
    assert np.getbufsize() == before


def test_numeric_labels_are_standardised_by_the_training_rows_alone() -> None:
    rng, entity = np.random.default_rng(0), np.repeat(np.arange(20), 5)
    y = rng.normal(size=100) + 10.0 * entity
    log = Log(rng.normal(size=(100, 1)), ["a"], ["a"], np.array([True]), y, "numbers", entity)
    split = log.split(0, np.float64)
    assert split.train.y.mean() == pytest.approx(0, abs=1e-12)
    assert split.train.y.std() == pytest.approx(1)
    assert abs(split.test.y.mean()) > 0.01


def test_difference_is_paired() -> None:
    pytest.importorskip("scipy")
    of, minus = np.array([0.9, 0.7, 0.8]), np.array([0.5, 0.4, 0.3])
    found, each = difference(of, minus), of - minus
    half = t_quantile(2) * each.std(ddof=1) / 3**0.5
    assert found.mean == pytest.approx(0.4)
    assert found.interval == (pytest.approx(0.4 - half), pytest.approx(0.4 + half))
