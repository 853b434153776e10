"""The steps on cells, in NumPy and compiled, against the readable pair; buffers that layers reuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suites.ways import WAYS, through_steps

from syncbn_sim import nn
from syncbn_sim.arrays import Array
from syncbn_sim.comm import launch
from syncbn_sim.functional import batch_norm as readable
from syncbn_sim.workspace import Workspace

EPS = 1e-5
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # of the largest number of the array
LARGE = [
    (32, 64, 28, 28),  # runs
    (3, 5, 131, 127),
    (1, 2, 3, 100_000),  # long ones
    (301, 40, 2, 3),  # short ones
    (2100, 64),  # columns
    (4099, 37),
    (100_003, 1),
    (3, 9000),
    (7, 3),
]


def wide(a: Array) -> Array:
    """In float64 and C order, in which `np.sum` adds pairwise and so is good for the last digit."""
    return a.astype(np.float64, order="C")


def through_readable(x: Array, dy: Array, weight: Array, bias: Array) -> dict[str, Array]:
    """The truth: the readable pair in float64."""
    x, dy, weight, bias = wide(x), wide(dy), wide(weight), wide(bias)
    moments = readable.local_moments(x)
    x_hat, inv_std = readable.standardize(x, moments.mean, moments.var(), EPS)
    sums = readable.local_backward_sums(dy, x_hat)
    dx = readable.input_gradient(dy, x_hat, inv_std, weight, sums, moments.count)
    return {
        "mean": moments.mean,
        "var": moments.var(),
        "y": readable.scale_and_shift(x_hat, weight, bias),
        "dx": dx,
        "weight gradient": sums.dy_x_hat,
        "bias gradient": sums.dy,
        # What a sum of independent terms of this size comes to: one that cancels by chance has no digits of its own.
        "gradient scale": np.sqrt((dy * dy).sum() / dy.shape[1]),
    }


def data(shape: tuple[int, ...], dtype: str, mean: float = 0.5, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """x, dy, weight, bias; each channel with a mean of its own, up to `mean`."""
    rng = np.random.default_rng(seed)
    means = mean * rng.uniform(0.5, 1, shape[1]) * rng.choice([-1, 1], shape[1])
    x = rng.normal(size=shape) + readable.per_channel(means, np.empty(shape))
    # dy is not centred: a cotangent without a mean would hide an error in the sum of dy.
    return tuple(
        a.astype(dtype)
        for a in (
            x,
            rng.normal(size=shape) + 0.2,
            rng.uniform(0.5, 1.5, shape[1]) * rng.choice([-1, 1], shape[1]),
            rng.normal(size=shape[1]),
        )
    )


def assert_equal_results(ours: dict[str, Array], truth: dict[str, Array], tolerance: float) -> None:
    for name, value in truth.items():
        if name == "gradient scale":
            continue
        least = truth.get("gradient scale", 0) if name.endswith("gradient") else 1e-30
        scale = max(np.abs(value).max(initial=0), least)
        error = np.abs(wide(ours[name]).reshape(value.shape) - value).max(initial=0) / scale
        assert error <= tolerance, f"{name}: {error:.1e} of the scale"


def channels_last(a: Array) -> Array:
    """The same numbers and axes, with the channels last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def strided(a: Array) -> Array:
    """The same numbers, contiguous in no order."""
    return np.repeat(a, 2, axis=-1)[..., ::2]


ARRANGE = {"contiguous": np.ascontiguousarray, "channels last": channels_last, "strided": strided}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize("order", ARRANGE)
def test_shapes(shape: tuple[int, ...], dtype: str, order: str, way: str) -> None:
    x, dy, weight, bias = data(shape, dtype)
    x, dy = ARRANGE[order](x), ARRANGE[order](dy)
    assert_equal_results(
        through_steps(way, x, dy, weight, bias), through_readable(x, dy, weight, bias), TOLERANCE[dtype]
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shapes",
    [
        [(4, 32, 1024), (8, 32, 512), (4, 64, 512), (32, 4, 1024)],  # planes
        [(1024, 8, 8), (2048, 8, 4), (1024, 16, 4), (2048, 4, 8)],  # rows
        [(16, 8, 128), (32, 8, 64), (16, 16, 64), (8, 16, 128)],  # whole: planes
        [(256, 64), (512, 32), (128, 128)],  # whole: rows
    ],
)
def test_shapes_of_one_product_have_boxes_of_their_own(shapes: list[tuple[int, ...]], dtype: str, way: str) -> None:
    """Boxes are kept for the next array of that shape: not for one that has as many numbers, a channel or a sample."""
    for shape in shapes:
        given = data(shape, dtype)
        assert_equal_results(through_steps(way, *given), through_readable(*given), TOLERANCE[dtype])


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(2, 70),
    c=st.integers(1, 40),
    rest=st.lists(st.integers(1, 12), max_size=3),
    dtype=st.sampled_from(["float32", "float64"]),
    way=st.sampled_from(sorted(WAYS)),
    orders=st.tuples(st.sampled_from(sorted(ARRANGE)), st.sampled_from(sorted(ARRANGE))),
    mean=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_any_shape(
    n: int, c: int, rest: list[int], dtype: str, way: str, orders: tuple[str, str], mean: float, seed: int
) -> None:
    """Also where dy lies otherwise than x."""
    x, dy, weight, bias = data((n + 3, c, *rest), dtype, mean, seed)
    x, dy = ARRANGE[orders[0]](x), ARRANGE[orders[1]](dy)
    ours, truth = through_steps(way, x, dy, weight, bias), through_readable(x, dy, weight, bias)
    # The digits of float64 that x itself has lost: eps (mean / sd), which the true gradient inherits.
    assert_equal_results(ours, truth, TOLERANCE[dtype] * (1 if dtype == "float32" else 1 + mean))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mean", [10.0, 1e3, 1e4, 1e7])
@pytest.mark.parametrize("shape", [(16, 8, 32, 32), (256, 128), (5000, 7), (40, 40, 3, 3), (64, 16)])
@pytest.mark.parametrize("order", ["contiguous", "channels last"])
def test_far_from_zero(shape: tuple[int, ...], mean: float, order: str, way: str) -> None:
    x, dy, weight, bias = data(shape, "float32", mean)
    x, dy = ARRANGE[order](x), ARRANGE[order](dy)
    assert_equal_results(through_steps(way, x, dy, weight, bias), through_readable(x, dy, weight, bias), 1e-6)


@pytest.mark.parametrize("shape", [(16, 8, 32, 32), (4096, 8), (64, 8)])
@pytest.mark.parametrize("kind", ["one far rank", "all far"])
def test_far_from_zero_synchronised(shape: tuple[int, ...], kind: str) -> None:
    """Ranks near 0 whose *common* mean is far from it need the guard as well."""
    x, dy, weight, bias = data(shape, "float32")
    offset = np.float32(1e4)
    x[: len(x) // 4] += offset
    if kind == "all far":
        x += offset
    truth = through_readable(x, dy, weight, bias)

    def on_rank(comm):
        bn = nn.SyncBatchNorm(8, comm=comm, dtype=np.float64)  # ranks' gradients cancel: float32 would round them first
        bn.weight.data, bn.bias.data = wide(weight), wide(bias)
        y = bn(np.array_split(x, 4)[comm.rank])
        dx = bn.backward(np.array_split(dy, 4)[comm.rank])
        return y, dx, wide(bn.weight.grad), wide(bn.bias.grad)

    y, dx, d_weight, d_bias = zip(*launch(on_rank, 4, "threads"), strict=True)
    ours = {
        "y": np.concatenate(y),
        "dx": np.concatenate(dx),
        "weight gradient": sum(d_weight),
        "bias gradient": sum(d_bias),
    }
    assert_equal_results(ours, {name: truth[name] for name in [*ours, "gradient scale"]}, 1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(32, 4, 16, 16), (4096, 4), (16, 4), (64, 4, 2)])
@pytest.mark.parametrize("value", [0.0, 3.25, 1e6])
def test_constant_channels(shape: tuple[int, ...], value: float, way: str) -> None:
    x, dy, weight, bias = data(shape, "float32")
    x[:, 1] = value
    ours = through_steps(way, x, dy, weight, bias)
    assert ours["var"][0, 1] == 0
    np.testing.assert_array_equal(ours["y"][:, 1], bias[1])
    truth = through_readable(x, dy, weight, bias)
    for channel in range(4):  # one at a time: dx of the constant one is 300 times as large
        assert_equal_results(*({"dx": r["dx"][:, channel]} for r in (ours, truth)), 1e-5 if channel == 1 else 1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(32, 4, 16, 16), (4096, 4), (16, 4), (64, 4, 2)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("order", ARRANGE)
def test_nan_and_infinity_stay_in_their_channel(shape: tuple[int, ...], bad: float, order: str, way: str) -> None:
    x, dy, weight, bias = data(shape, "float32")
    x[(3, 2, *[0] * (len(shape) - 2))] = bad
    x, dy = ARRANGE[order](x), ARRANGE[order](dy)
    with np.errstate(invalid="ignore"):
        ours, truth = through_steps(way, x, dy, weight, bias), through_readable(x, dy, weight, bias)
    for name in truth.keys() - {"gradient scale"}:
        finite = np.isfinite(ours[name]).reshape(truth[name].shape)
        np.testing.assert_array_equal(finite, np.isfinite(truth[name]), err_msg=name)
    assert np.isnan(ours["y"][:, 2]).all()
    assert np.isfinite(ours["y"][:, [0, 1, 3]]).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(32, 4, 16, 16), (4096, 4), (16, 4)])
@pytest.mark.parametrize("order", ARRANGE)
def test_squares_beyond_float32(shape: tuple[int, ...], order: str, way: str) -> None:
    x, dy, weight, bias = data(shape, "float32")
    x[:, 1] *= np.float32(1e25)
    x, dy = ARRANGE[order](x), ARRANGE[order](dy)
    assert_equal_results(
        {"y": through_steps(way, x, dy, weight, bias)["y"]}, {"y": through_readable(x, dy, weight, bias)["y"]}, 1e-6
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(32, 4, 16, 16), (4096, 4), (4, 4, 64, 64)])
def test_coefficients_beyond_float32_overflow_quietly(shape: tuple[int, ...], way: str) -> None:
    x, dy, _, bias = data(shape, "float32")
    with np.errstate(all="raise"):
        ours = through_steps(way, x, dy, np.full(4, 1e300), bias)
    assert not np.isfinite(ours["y"]).any()


SOME = [(16, 8), (6, 8, 3), (256, 64), (8, 32, 9, 9), (5000, 8), (40, 8, 3, 100), (30, 8, 40, 40)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SOME)
@pytest.mark.parametrize("order", ARRANGE)
def test_a_cotangent_of_another_dtype(shape: tuple[int, ...], order: str, way: str) -> None:
    x, dy, weight, bias = data(shape, "float32")
    dy = ARRANGE[order](dy.astype(np.float64))
    assert_equal_results(through_steps(way, x, dy, weight, bias), through_readable(x, dy, weight, bias), 1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SOME)
@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_a_cotangent_that_is_the_input(shape: tuple[int, ...], mean: float, way: str) -> None:
    """The very same array: whoever tells them apart by identity takes x - shift for it."""
    x, _, weight, bias = data(shape, "float32", mean)
    ours, truth = through_steps(way, x, x, weight, bias), through_readable(x, x, weight, bias)
    scale = np.abs(weight).max() * np.abs(x).max()  # dx itself is next to nothing
    np.testing.assert_allclose(ours["dx"], truth["dx"], atol=3e-6 * scale)
    np.testing.assert_allclose(ours["bias gradient"], truth["bias gradient"], atol=1e-6 * np.abs(x).sum())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SOME)
def test_an_output_may_be_written_into(shape: tuple[int, ...], dtype: str) -> None:
    x, dy, *_ = data(shape, dtype)
    results = []
    for spoil in (0, 1):
        bn = nn.BatchNorm(shape[1], affine=False)
        y = bn(x)
        y += spoil
        results.append(bn.backward(dy))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (4, 3, 0)])
def test_empty(shape: tuple[int, ...]) -> None:
    x, dy = np.ones(shape, np.float32), np.ones(shape, np.float32)
    bn = nn.BatchNorm(3)
    assert bn(x).shape == bn.backward(dy).shape == shape
    assert (bn.weight.grad == 0).all()


@pytest.mark.parametrize("shape", [(32, 4, 16, 16), (4096, 4), (16, 4), (64, 4, 2)])
def test_evaluation_with_frozen_statistics(shape: tuple[int, ...]) -> None:
    x, dy, weight, bias = data(shape, "float32", mean=1e3)
    bn = nn.BatchNorm(4).eval()
    bn.weight.data, bn.bias.data = weight, bias
    bn.running_mean, bn.running_var = x.mean((0, *range(2, x.ndim))), np.full(4, 1.3, np.float32)
    x_hat, inv_std = readable.standardize(wide(x), bn.running_mean, bn.running_var, EPS)
    truth = {
        "y": readable.scale_and_shift(x_hat, weight, bias),
        "dx": readable.frozen_input_gradient(wide(dy), inv_std, weight),
        "weight gradient": readable.local_backward_sums(wide(dy), x_hat).dy_x_hat,
    }
    ours = {"y": bn(x), "dx": bn.backward(dy), "weight gradient": bn.weight.grad}
    assert_equal_results(ours, truth, 1e-6)


# -- buffers --------------------------------------------------------------------------------------------------------

BIG = (64, 4096)


def test_outputs_never_share_memory_while_somebody_holds_them() -> None:
    bn = nn.BatchNorm(BIG[1])
    held, copies = [], []
    for seed in range(6):
        x, dy, *_ = data(BIG, "float32", seed=seed)
        held += [bn(x), bn.backward(dy)]
        copies += [held[-2].copy(), held[-1].copy()]
    for array, kept in zip(held, copies, strict=True):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize(
    "view", [lambda y: y[5], lambda y: y.T, lambda y: y.reshape(-1)[::7], lambda y: memoryview(y), lambda y: iter(y)]
)
def test_a_view_keeps_its_memory(view) -> None:
    bn = nn.BatchNorm(BIG[1])
    x, *_ = data(BIG, "float32")
    with nn.no_backward(bn):
        kept = view(bn(x))
        before = np.array([*copy.copy(kept)] if hasattr(kept, "__next__") else kept)
        for seed in (1, 2, 3):
            bn(data(BIG, "float32", seed=seed)[0])
        np.testing.assert_array_equal(np.array([*kept] if hasattr(kept, "__next__") else kept), before)


def test_memory_is_used_again_once_free() -> None:
    bn = nn.BatchNorm(BIG[1])
    x, dy, *_ = data(BIG, "float32")
    places = set()
    for _ in range(5):
        y = bn(x)
        places.add(y.ctypes.data)
        assert y.ctypes.data % 64 == 0
        bn.backward(dy)
        del y
    assert len(places) <= 2


def test_a_layer_used_twice_in_a_step() -> None:
    x, dy, *_ = data(BIG, "float64")
    norm, expected = nn.BatchNorm(BIG[1], dtype=np.float64), None
    for apart in (True, False):  # the same layer twice, and two layers with the same numbers
        layers = [norm, copy.deepcopy(norm) if apart else norm]
        y = layers[1](np.tanh(first := layers[0](x)))
        dx = layers[0].backward(layers[1].backward(dy) * (1 - np.tanh(first) ** 2))
        if expected is None:
            expected = y.copy(), dx.copy()
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(dx, expected[1])


def test_a_copied_layer_has_buffers_of_its_own() -> None:
    bn = nn.BatchNorm(BIG[1])
    x, *_ = data(BIG, "float32")
    with nn.no_backward(bn):
        bn(x)
        for twin in (copy.deepcopy(bn), pickle.loads(pickle.dumps(bn))):
            assert twin._workspace is not bn._workspace
            assert not twin._workspace._pool
            assert not np.shares_memory(twin(x), bn(x))
    assert set(bn.state_dict()) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def test_a_workspace_does_not_pile_up() -> None:
    space, dtype = Workspace(), np.dtype(np.float32)
    for rows in range(1, 40):
        space.take((rows, 50_000), dtype)
    assert len(space._pool) == 1
    held = [space.take((39, 50_000), dtype) for _ in range(3)]
    assert len(space._pool) == 3
    assert len({a.ctypes.data for a in held}) == 3


@pytest.mark.parametrize("sizes", [(1, 3, 2), (3, 1, 2), (2, 3, 1)])
def test_a_workspace_gives_the_smallest_buffer_that_is_large_enough(sizes: tuple[int, ...]) -> None:
    space, dtype = Workspace(), np.dtype(np.float32)
    held = {size: space.take((size, 50_000), dtype) for size in sizes}
    places = {size: array.ctypes.data for size, array in held.items()}
    held.clear()
    kept = [space.take((size, 50_000), dtype) for size in (1, 2, 3)]
    assert [array.ctypes.data for array in kept] == [places[size] for size in (1, 2, 3)]


@pytest.mark.parametrize("shape", [(4, 16), (2, 16, 8, 8), (3, 5, 7), (8, 256, 14, 14)])
def test_outputs_lie_in_memory_as_the_input_did(shape: tuple[int, ...]) -> None:
    """Whoever reshapes an output should not pay for a copy."""
    layer, rng = nn.BatchNorm(shape[1]), np.random.default_rng(0)
    y = layer(rng.normal(size=shape).astype(np.float32))
    assert y.flags.c_contiguous
    assert layer.backward(rng.normal(size=shape).astype(np.float32)).flags.c_contiguous
