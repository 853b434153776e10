"""Numbers far from 0, far apart, or far from 1: digits must survive, whatever the size of the array and however it is split."""

from __future__ import annotations

import numpy as np
import pytest
from suites.ways import WAYS, through_steps

from syncbn_sim import nn
from syncbn_sim.arrays import Array
from syncbn_sim.comm import LedgerCommunicator, launch
from syncbn_sim.functional.batch_norm import per_channel
from syncbn_sim.stats import Moments

SHAPES = [(16, 4), (5000, 4), (256, 128), (4, 4, 32, 32), (40, 40, 3, 3), (3, 4, 131, 127)]  # columns, runs


def truth(x: Array, dy: Array, eps: float, weight: Array, bias: Array) -> dict[str, Array]:
    """The textbook in extended precision; gradients also by the size that a sum of independent terms would have."""
    x, dy, weight, bias = (a.astype(np.longdouble) for a in (x, dy, weight, bias))
    axes, n = (0, *range(2, x.ndim)), x.size // x.shape[1]
    mean = x.sum(axes) / n
    deviation = x - per_channel(mean, x)
    var = (deviation**2).sum(axes) / n
    inv_std = 1 / np.sqrt(var + eps)
    x_hat = deviation * per_channel(inv_std, x)
    d_bias, d_weight = dy.sum(axes), (dy * x_hat).sum(axes)
    through = (per_channel(d_bias, x) + x_hat * per_channel(d_weight, x)) / n
    return {
        "mean": mean,
        "var": var,
        "y": x_hat * per_channel(weight, x) + per_channel(bias, x),
        "dx": per_channel(weight * inv_std, x) * (dy - through),
        "weight gradient": d_weight,
        "terms of it": np.sqrt((x_hat**2).sum(axes) * (dy**2).sum(axes) / n),
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["contiguous", "channels last"])
@pytest.mark.parametrize(
    ("mean", "sd", "of_dy", "eps"),
    [
        (0, 1e19, 1e19, 1e-5),  # x dy beyond float32
        (1e19, 1e17, 1e30, 1e-5),
        (0, 1, 1e37, 1e-5),  # the sum of dy beyond float32
        (1e-3, 1e-6, 1, 1e-5),  # var << eps
        (1e-3, 1e-9, 1, 1e-5),
        (1, 1e-6, 1, 1e-5),
        (-50, 1e-4, 1, 1e-2),
        (0, 1e-22, 1, 0.0),  # squares below float32
        (1e-20, 1e-24, 1, 0.0),
        (0, 1e-22, 1e-10, 0.0),
        (0, 1e-30, 1, 0.0),
        (0, 1e-36, 1, 0.0),  # coefficients beyond float32
        (0, 1e-25, 1e-15, 0.0),  # x dy below float32
        (0, 1e-10, 1e-20, 1e-5),
    ],
)
def test_float32_of_any_scale(
    shape: tuple[int, ...], order: str, mean: float, sd: float, of_dy: float, eps: float, way: str
) -> None:
    rng = np.random.default_rng(0)
    means = mean * rng.uniform(0.5, 1, shape[1])
    x = (per_channel(means, np.empty(shape)) + sd * rng.normal(size=shape)).astype(np.float32)
    dy = (of_dy * (rng.normal(size=shape) + 0.2)).astype(np.float32)
    weight, bias = rng.uniform(0.5, 1.5, shape[1]) * rng.choice([-1, 1], shape[1]), rng.normal(size=shape[1])
    if order == "channels last":
        x, dy = (np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) for a in (x, dy))
    with np.errstate(over="ignore"):  # dx itself may be beyond float32
        found = through_steps(way, x, dy, weight, bias, eps)
    expected = truth(x, dy, eps, weight, bias)
    scale = {"weight gradient": expected["terms of it"].max()}
    for name in ("mean", "var", "y", "dx", "weight gradient"):
        ours = found[name].reshape(expected[name].shape)
        largest = scale.get(name, np.abs(expected[name]).max())
        if largest < np.finfo(np.float32).max:
            error = np.abs(ours.astype(np.longdouble) - expected[name]).max() / largest
            assert error <= 1e-6, f"{name}: {float(error):.1e} of the scale"


@pytest.mark.parametrize("shape", [*SHAPES, (7, 1), (10, 3), (49, 3)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("value", "dtype"), [(v, d) for v in (1e12, -0.1, 1e12 / 3) for d in ("float32", "float64")] + [(1e150, "float64")]
)
def test_a_constant_channel_gives_its_bias_however_far_it_is(
    shape: tuple[int, ...], value: float, weighted: bool, dtype: str
) -> None:
    bn = nn.BatchNorm(shape[1], dtype=np.float64)
    bn.bias.data[:] = 0.5
    weights = np.random.default_rng(0).integers(1, 4, (shape[0], *shape[2:])) if weighted else None
    np.testing.assert_array_equal(bn(np.full(shape, value, dtype), weights), 0.5)


# -- over ranks -----------------------------------------------------------------------------------------------------


ROWS = [64, 0, 1, 40, 23]
FAR = 1.7e9 + np.linspace(1, 20, 3) * np.random.default_rng(1).normal(size=(sum(ROWS), 3))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["", "weights", "mask"])
@pytest.mark.parametrize("backend", ["threads", "lockstep"])
def test_a_union_far_from_0_keeps_its_digits(dtype, kind: str, backend: str) -> None:
    """Seconds since 1970 in float64, steps of 128 of them in float32; from the first batch on, at whatever running means."""
    rng = np.random.default_rng(2)
    x = FAR if dtype == np.float64 else (1.7e9 + 128 * rng.integers(-3, 4, FAR.shape)).astype(np.float32)
    dy, w = (
        rng.normal(size=x.shape),
        rng.integers(0 if kind == "mask" else 1, 4, len(x)).astype(float) if kind else None,
    )
    whole = nn.BatchNorm(3, momentum=1.0, dtype=np.float64)
    y, dx = whole(x, w), whole.backward(dy)

    def on_rank(comm):
        rows = np.split(np.arange(len(x)), np.cumsum(ROWS)[:-1])[comm.rank]
        bn = nn.SyncBatchNorm(3, momentum=1.0, comm=comm, dtype=np.float64)
        bn.running_mean = rng.normal(size=3) * 10.0**comm.rank  # as of layers that were trained locally before
        own = bn(x[rows], None if w is None else w[rows])
        return own, bn.backward(dy[rows]), bn.running_mean, bn.running_var

    ranks = launch(on_rank, len(ROWS), backend)
    ulp = np.spacing(1.7e9)  # to which the mean can be known; the least sd is 1
    np.testing.assert_allclose(np.concatenate([r[0] for r in ranks]), y, rtol=0, atol=4 * ulp)
    np.testing.assert_allclose(np.concatenate([r[1] for r in ranks]), dx, rtol=0, atol=8 * ulp * np.abs(dx).max())
    exact = x.astype(np.longdouble)
    weights = np.ones(len(x)) if w is None else w
    mean = np.average(exact, 0, weights)
    var = ((exact - mean) ** 2 * weights[:, None]).sum(0) / (weights.sum() - 1)
    for _, _, running_mean, running_var in ranks:
        np.testing.assert_array_equal(running_mean, ranks[0][2])
        np.testing.assert_array_equal(running_var, ranks[0][3])
        np.testing.assert_allclose(running_var, var.astype(float), rtol=ulp)
        np.testing.assert_allclose(running_mean, mean.astype(float), rtol=1e-15)


def test_constant_channels_give_their_bias_over_ranks_too() -> None:
    def on_rank(comm):
        bn = nn.SyncBatchNorm(2, comm=comm, momentum=1.0, dtype=np.float64)
        bn.bias.data[:] = [0.25, -3]
        return bn(np.full((3 + comm.rank, 2), [1e12 / 3, -1e9 / 7])), bn.running_var

    for y, var in launch(on_rank, 3):
        np.testing.assert_array_equal(y, np.broadcast_to([0.25, -3], y.shape))
        np.testing.assert_array_equal(var, 0)


@pytest.mark.parametrize(("mean", "calls"), [(0, 1), (30, 1), (5e3, 1), (2e4, 2), (1e6, 2), (1.7e9, 2)])
def test_only_far_unions_are_summed_twice(mean: float, calls: int) -> None:
    def on_rank(comm):
        ledger = LedgerCommunicator(comm)
        x = np.random.default_rng(comm.rank).normal(size=(8, 4)) + np.array([0, 0, mean, 0])
        x[:, 3] = min(mean, 30)  # constant: its variance is rounding noise, but that is nothing beside eps
        nn.SyncBatchNorm(4, comm=ledger, dtype=np.float64)(x)
        return ledger.entry("allreduce").calls

    assert launch(on_rank, 3) == [calls] * 3


def test_moments_around_a_shift_add_up_like_any() -> None:
    parts = [FAR[:64], FAR[:0], FAR[64:]]
    shift = FAR[0]
    around = [Moments.of(part, 0).around(shift) for part in parts]
    for part, moments in zip(parts, around, strict=True):
        np.testing.assert_allclose(moments.total, (part - shift).sum(0), rtol=0, atol=1e-6 * max(len(part), 1))
        np.testing.assert_allclose(moments.total_sq, ((part - shift) ** 2).sum(0), rtol=1e-6)
    union = sum(around[1:], around[0])
    there_and_back = Moments.unpack(union.pack()).around(-shift)
    np.testing.assert_allclose(there_and_back.var(), FAR.var(0), rtol=np.spacing(1.7e9))
    np.testing.assert_allclose(there_and_back.mean, FAR.mean(0), rtol=1e-15)
    assert there_and_back.count == len(FAR)


@pytest.mark.parametrize("way", [*WAYS, "Moments"])
@pytest.mark.parametrize("weight", [1e-200, 1e200])
def test_weights_of_any_size_leave_a_variance(way: str, weight: float) -> None:
    """The square of a sum of such weights is beyond float64, though all that is asked for is not."""
    rng = np.random.default_rng(0)
    x, counts = rng.normal(size=(50, 3)) + 5, rng.integers(1, 4, 50).astype(np.float64)
    expected = Moments.of(x, weights=counts).var()
    if way == "Moments":
        found = Moments.of(x, weights=weight * counts).var()
    else:
        found = through_steps(way, x, x, np.ones(3), np.ones(3), counts=weight * counts)["moments"][2, 0]
        found = found / (weight * counts.sum())
    np.testing.assert_allclose(found, expected, rtol=1e-12)
