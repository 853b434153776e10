"""Moments, variance algorithms, running averages, correlation, intervals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbn_sim import stats
from syncbn_sim.errors import ArgumentError, CountError, DtypeError, ShapeError
from syncbn_sim.stats import Moments, running, variance
from syncbn_sim.stats.estimates import mean_interval, ratio_interval, t_quantile

RNG = np.random.default_rng(0)


@given(cuts=st.lists(st.integers(0, 40), max_size=6), shift=st.floats(-10, 10), seed=st.integers(0, 1000))
def test_moments_of_any_partition_add_up_to_the_union(cuts: list[int], shift: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(40, 3, 2)) + shift
    parts = np.split(x, sorted(cuts))
    joined = sum((Moments.of(p) for p in parts[1:]), Moments.of(parts[0]))
    assert joined.count == 80
    np.testing.assert_allclose(joined.mean, x.mean((0, 2)), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(joined.var(), x.var((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(joined.var(unbiased=True), x.var((0, 2), ddof=1), rtol=1e-12)


def test_moments_weights_repeat_rows() -> None:
    x, w = RNG.normal(size=(6, 3)), np.array([0, 1, 2, 3, 0, 1])
    weighted, repeated = Moments.of(x, weights=w), Moments.of(np.repeat(x, w, axis=0))
    assert weighted.count == repeated.count == 7
    np.testing.assert_allclose(weighted.pack(), repeated.pack(), rtol=1e-13)


def test_moments_axes_shapes_and_wire() -> None:
    x = RNG.normal(size=(4, 3, 5))
    assert Moments.of(x).total.shape == (3,)
    assert Moments.of(x, axes=0).total.shape == (3, 5)
    assert Moments.of(x, axes=(0, -1)).count == 20
    assert Moments.of(x, axes=(0, 1, 2)).mean.shape == ()
    np.testing.assert_allclose(Moments.of(x, axes=-1).mean, x.mean(-1))
    packed = Moments.of(x).pack()
    assert packed.dtype == np.float64
    assert packed.shape == (7,)
    np.testing.assert_array_equal(Moments.unpack(packed).pack(), packed)
    assert Moments.unpack(Moments.of(x, axes=0).pack(), (3, 5)).total_sq.shape == (3, 5)
    with pytest.raises(ShapeError, match="packed"):
        Moments.unpack(packed[:-1])


def test_moments_refuse_what_they_cannot_count() -> None:
    with pytest.raises(DtypeError, match=r"int64.*astype"):
        Moments.of(np.arange(4).reshape(2, 2))
    with pytest.raises(ShapeError, match="weights"):
        Moments.of(np.ones((4, 2)), weights=np.ones(3))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ArgumentError, match="weights"):
            Moments.of(np.ones((2, 2)), weights=[1.0, bad])
    with pytest.raises(CountError, match="empty"):
        _ = Moments.of(np.ones((0, 2))).mean
    with pytest.raises(CountError, match="above 1"):
        Moments.of(np.ones((1, 2))).var(unbiased=True)
    with pytest.raises(ShapeError, match="axes"):
        Moments.of(np.ones((1, 2)), axes=2)


def test_moments_wire_error_is_a_multiple_of_mean_over_sd_squared() -> None:
    for ratio in (1e1, 1e2, 1e4):
        x = RNG.normal(size=(4096, 1)) + ratio
        halves = Moments.of(x[:100]) + Moments.of(x[100:])
        assert abs(halves.var()[0] / variance.exact_variance(x[:, 0]) - 1) < 20 * ratio**2 * 1.1e-16 + 1e-15


def test_variance_algorithms_agree_on_easy_data_and_part_on_hard_data() -> None:
    easy = RNG.normal(size=500)
    for name, algorithm in variance.ALGORITHMS.items():
        assert abs(variance.relative_error(algorithm, easy)) < 1e-12, name
    hard = (np.random.default_rng(1).normal(size=4096) + 1000).astype(np.float32)
    errors = {name: abs(variance.relative_error(a, hard)) for name, a in variance.ALGORITHMS.items()}
    assert errors["one-pass"] > 0.1  # published: -43 % at mean/sd = 1000
    assert max(errors["Welford"], errors["corrected two-pass"], errors["Chan tree"], errors["two-pass"]) < 1e-4
    far = (np.random.default_rng(1).normal(size=4096) + 1e4).astype(np.float32)
    assert abs(variance.relative_error(variance.chan_tree, far)) < 2e-4
    assert abs(variance.relative_error(variance.one_pass, far)) > 1
    with pytest.raises(ShapeError):
        variance.relative_error(variance.welford, np.ones((2, 2)))


def test_exact_variance_is_exact() -> None:
    x = np.array([1e16, 1e16 + 2, 1e16 + 4])
    assert variance.exact_variance(x) == pytest.approx(8 / 3, rel=1e-15)


def test_running_averages() -> None:
    assert running.updated(np.array([1.0]), np.array([3.0]), 0.1, 1)[0] == pytest.approx(1.2)
    values, average = [4.0, 8.0, 6.0], np.array([0.0])
    for k, v in enumerate(values, start=1):
        average = running.updated(average, np.array([v]), None, k)
    assert average[0] == pytest.approx(6.0)
    old, new = RNG.normal(size=1000).astype(np.float32), RNG.normal(size=1000)
    once = (0.9 * old.astype(np.float64) + 0.1 * new).astype(np.float32)  # rounded at the end alone
    found = running.updated(old, new, 0.1, 1)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, once)
    assert running.window(0.1) == pytest.approx(19)
    assert running.half_life(0.1) == pytest.approx(6.58, abs=0.01)
    assert (running.window(1.0), running.half_life(1.0)) == (1, 0)
    assert running.initial_weight(0.01, 200) == pytest.approx(0.134, abs=0.001)
    moved = 1.0
    for _ in range(7):
        moved = 0.9 * moved + 0.1 * 5.0
    assert running.debias(np.array(moved), 1.0, 0.1, 7) == pytest.approx(5.0)
    for bad in (float("nan"), -0.1, 1.1):
        with pytest.raises(ArgumentError, match="Keras"):
            running.check_momentum(bad)
    with pytest.raises(ArgumentError):
        running.debias(np.array(1.0), 0.0, 0.1, 0)


def clustered(rho: float, sizes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    entity = np.repeat(np.arange(len(sizes)), sizes)
    x = math.sqrt(rho) * rng.normal(size=len(sizes))[entity] + math.sqrt(1 - rho) * rng.normal(size=len(entity))
    return x, entity


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.3, 0.8])
def test_intra_class_correlation_finds_rho_on_uneven_clusters(rho: float) -> None:
    rng = np.random.default_rng(2)
    x, entity = clustered(rho, rng.integers(1, 40, 1500), rng)
    shuffle = rng.permutation(len(x))  # order must not matter
    assert stats.intra_class_correlation(x[shuffle], entity[shuffle]) == pytest.approx(rho, abs=0.025)


def test_intra_class_correlation_edges() -> None:
    entity = np.array([0, 0, 1, 1])
    x = np.stack([np.ones(4), np.array([1.0, 1, 5, 5])], axis=1)
    rho = stats.intra_class_correlation(x, entity)
    assert np.isnan(rho[0])
    assert rho[1] == pytest.approx(1.0)
    assert np.isnan(stats.intra_class_correlation(np.full(6, 0.1), np.repeat([0, 1, 2], 2)))
    with pytest.raises(CountError, match="two entities"):
        stats.intra_class_correlation(x, np.zeros(4))
    with pytest.raises(CountError):
        stats.intra_class_correlation(x, np.arange(4))
    with pytest.raises(ShapeError):
        stats.intra_class_correlation(x, np.arange(3))


def test_design_effect_predicts_the_noise_of_batch_means() -> None:
    """Kish with S = E[sum n_j^2 / n]: measured / theory near 1; with the mean cluster size it would be far off."""
    rng = np.random.default_rng(5)
    sizes = np.minimum(256, np.floor(4 * (1 - rng.random(60_000)) ** (-1 / 1.3))).astype(int)
    rho, n = 0.3, 64
    x, entity = clustered(rho, sizes, rng)
    count = len(x) // n
    batches, labels = x[: count * n].reshape(count, n), entity[: count * n].reshape(count, n)
    s = stats.cluster_size(list(labels))
    deff = stats.design_effect(s, rho)
    assert batches.mean(1).std() / stats.predicted_sd_of_mean(1.0, n, deff) == pytest.approx(1, abs=0.03)
    assert batches.var(1).mean() / stats.expected_local_variance(1.0, n, deff) == pytest.approx(1, abs=0.02)
    joined = batches.mean(1)[: count // 8 * 8].reshape(8, -1).mean(0)  # far-apart batches: no user in two of them
    assert joined.std() / stats.predicted_sd_of_mean(1.0, 8 * n, deff) == pytest.approx(1, abs=0.05)
    assert stats.design_effect(float(sizes.mean()), rho) < 0.6 * deff
    assert stats.effective_rows(n, deff) == n / deff


def test_the_spread_of_means_of_a_small_population() -> None:
    """All ways to take n of six rows; the whole population has one mean."""
    x = RNG.normal(size=6)
    for n in range(1, 7):
        means = np.array([np.mean(rows) for rows in itertools.combinations(x, n)])
        predicted = stats.predicted_sd_of_mean(x.std(ddof=1), n, 1.0, 6)
        assert predicted == pytest.approx(means.std(), abs=1e-12)


def test_cluster_size() -> None:
    assert stats.cluster_size([np.array([1, 1, 1, 2]), np.array([])]) == (9 + 1) / 4
    assert stats.adjusted_cluster_size(8, 8, 1.0) == 1  # one entity alone: chance explains all of it
    assert stats.effective_rows(8, 0.0) == np.inf  # a mean without noise
    with pytest.raises(CountError):
        stats.cluster_size([])
    with pytest.raises(ArgumentError):
        stats.design_effect(-0.5, 0.1)


def test_intervals() -> None:
    pytest.importorskip("scipy")
    assert t_quantile(4) == pytest.approx(2.776, abs=1e-3)
    i = mean_interval([1.0, 2.0, 3.0])
    assert (i.values, i.interval) == ((1.0, 2.0, 3.0), (i.low, i.high))
    assert (i.mean, i.low, i.high) == (
        2.0,
        pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-3),
        pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-3),
    )
    assert mean_interval([1.0]).low is None
    assert mean_interval([1.0]).interval is None
    share = ratio_interval([1.6, 1.9, 1.78], [2.0, 2.2, 2.4])
    assert share is not None
    assert share.mean == pytest.approx(0.8)
    assert share.low < 0.8 < share.high
    assert ratio_interval([1.0, -1.0], [0.5, -0.4]) is None  # no whole to take a share of
    near_the_top = mean_interval([0.9, 0.999, 0.99], 0.0, 1.0)
    assert near_the_top.high == 1.0
    assert near_the_top.low == pytest.approx(mean_interval([0.9, 0.999, 0.99]).low)
    bounded = ratio_interval([1.6, 1.9, 1.78], [2.0, 2.2, 2.4], least=1.7, most=1.8)
    assert (bounded.low, bounded.high) == (pytest.approx(1.7 / 2.2), pytest.approx(1.8 / 2.2))
    coverage = [
        i.low <= 0 <= i.high for i in (mean_interval(np.random.default_rng(k).normal(size=5)) for k in range(2000))
    ]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.02)
