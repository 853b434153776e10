"""The steps, in NumPy and compiled, on any partition into cells, against cells taken one by one; and norms in both ways under masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suites.ways import WAYS, through_steps

from syncbn_sim import nn
from syncbn_sim.arrays import Array
from syncbn_sim.functional.box import box_of
from syncbn_sim.nn import batch_norm, row_norm

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # of the largest number of the array
EPS = 1e-2


def cell_by_cell(
    x: Array, dy: Array, weight: Array, bias: Array, groups: int, offsets: list[int], w: Array
) -> tuple[dict[str, Array], dict[str, Any]]:
    """The truth, written down without an eye on anything, and the size of what it is a difference of: x and dy are (N, C, L), w (N, L)."""
    width, cells = x.shape[1] // groups, (len(offsets) - 1, groups)
    moments, x_hat, dx, size = np.zeros((5, *cells)), np.zeros(x.shape), np.zeros(x.shape), np.zeros(x.shape)
    by_value, gamma = np.broadcast_to(w[:, None, :], x.shape), np.broadcast_to(weight[:, None], x.shape)
    for s, g in np.ndindex(cells):
        cell = np.s_[offsets[s] : offsets[s + 1], g * width : (g + 1) * width]
        v, u, k = x[cell], gamma[cell] * dy[cell], by_value[cell]
        count = k.sum()
        n = count or 1.0
        mean = (k * v).sum() / n
        squares = (k * (v - mean) ** 2).sum()
        inv_std = 1 / np.sqrt(squares / n + EPS)
        moments[:, s, g] = (k * v).sum(), (k * v * v).sum(), squares, mean, count
        x_hat[cell] = (v - mean) * inv_std
        dx[cell] = inv_std * (u - k * (u.sum() + x_hat[cell] * (u * x_hat[cell]).sum()) / n)
        size[cell] = inv_std * np.abs(u)
    truth = {
        "moments": moments.reshape(5, -1).T,
        "y": gamma * x_hat + bias[:, None],
        "dx": dx,
        "weight gradient": (dy * x_hat).sum(axis=(0, 2)),
        "bias gradient": dy.sum(axis=(0, 2)),
    }
    spread = np.sqrt((dy * dy).sum())
    least = np.array([0, 0, EPS, 0, 0]) * moments[4].max(initial=0)  # eps is added to the variance
    return truth, {"moments": least, "dx": size.max(initial=0), "weight gradient": spread, "bias gradient": spread}


@st.composite
def partitions(draw: st.DrawFn) -> tuple[tuple[int, ...], int, str, list[int]]:
    """Shape with channels on axis 1, groups, how it lies, and where stretches of rows begin."""
    groups, width, rows = draw(st.integers(1, 4)), draw(st.integers(1, 19)), draw(st.integers(0, 9))
    rest = draw(st.lists(st.integers(1, 9), max_size=2))
    cuts = draw(st.lists(st.integers(0, rows), max_size=5) | st.just(list(range(1, rows))))
    return (rows, groups * width, *rest), groups, draw(st.sampled_from(["straight", "last"])), [0, *sorted(cuts), rows]


@settings(max_examples=300)
@given(
    partition=partitions(),
    dtype=st.sampled_from(["float32", "float64"]),
    counted=st.sampled_from(["no", "weights", "mask"]),
    mean=st.sampled_from([0.0, 3.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_any_partition(
    partition: tuple[tuple[int, ...], int, str, list[int]], dtype: str, counted: str, mean: float, seed: int
) -> None:
    """Uneven and empty stretches, all walks, weights with zeros: every way as cells taken one by one."""
    shape, groups, order, offsets = partition
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=shape) + mean * rng.choice([-1, 1], shape[1]).reshape(-1, *[1] * (len(shape) - 2))).astype(
        dtype
    )
    dy = (rng.normal(size=shape) + 0.2).astype(dtype)
    weight, bias = rng.uniform(0.5, 1.5, shape[1]) * rng.choice([-1, 1], shape[1]), rng.normal(size=shape[1])
    positions = (shape[0], *shape[2:])
    w = rng.integers(0, 3, positions) * (1.0 if counted == "mask" else rng.uniform(0.5, 2, positions))
    w = np.ones(positions) if counted == "no" else np.minimum(w, 1) if counted == "mask" else w
    hidden = np.broadcast_to(np.expand_dims(w == 0, 1), shape)
    x[hidden] = dy[hidden] = 0
    flat = (shape[0], shape[1], math.prod(shape[2:]))
    wide = (a.astype(np.float64).reshape(flat) for a in (x, dy))
    truth, sizes = cell_by_cell(*wide, weight, bias, groups, offsets, w.reshape(flat[0], flat[2]))
    if order == "last":
        x, dy = (np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) for a in (x, dy))
    for way in WAYS:
        ours = through_steps(
            way,
            x,
            dy,
            weight,
            bias,
            EPS,
            groups,
            lambda box: box.cut(np.array(offsets)),
            None if counted == "no" else w,
        )
        ours["moments"] = ours["moments"].reshape(5, -1).T
        for name, value in truth.items():
            error = np.abs(ours[name].reshape(value.shape) - value).max(axis=0, initial=0)
            scale = np.maximum(
                np.abs(value).max(axis=0, initial=0) if name == "moments" else np.abs(value).max(initial=0),
                sizes.get(name, 0),
            )
            # float64 data have lost eps (mean / sd) themselves
            assert (error <= TOLERANCE[dtype] * (1 + mean if dtype == "float64" else 1) * scale).all(), f"{way}: {name}"


@settings(max_examples=50)
@given(shape=st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 40)), seed=st.integers(0, 1000))
def test_a_stretch_for_each_position(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, dy = rng.normal(size=shape), rng.normal(size=shape)
    rows = (shape[0] * shape[1], shape[2])
    weight, bias = rng.normal(size=shape[2]) + 2, rng.normal(size=shape[2])
    truth, _ = cell_by_cell(
        x.reshape(*rows, 1), dy.reshape(*rows, 1), weight, bias, 1, list(range(rows[0] + 1)), np.ones((rows[0], 1))
    )
    box = box_of(x, -1, 1).by_position()
    assert box.cells == (rows[0], 1)
    for way in WAYS:
        ours = through_steps(way, x.reshape(rows), dy.reshape(rows), weight, bias, EPS, 1, lambda box: box.by_row())
        _, _, _, mean, _ = WAYS[way].moments(box.flat(x), box, None)
        for name in ("y", "dx"):
            np.testing.assert_allclose(ours[name], truth[name].reshape(rows), atol=1e-12)
        np.testing.assert_allclose(mean, truth["moments"][:, 3:4], atol=1e-13)


@pytest.mark.parametrize("shape", [(100_000, 8), (2, 300_000), (3, 1024)])
@pytest.mark.parametrize("way", WAYS)
def test_long_sums_keep_their_digits(way: str, shape: tuple[int, int]) -> None:
    """Of float32 numbers that are all alike, where rounding errors are alike too."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=shape).astype(np.float32), np.full(shape, 0.1, np.float32)
    weight, bias = np.full(shape[1], 1.1), np.zeros(shape[1])
    x_hat = (x - x.mean(axis=1, keepdims=True, dtype=np.float64)) / np.sqrt(
        x.var(axis=1, keepdims=True, dtype=np.float64) + EPS
    )
    ours = through_steps(way, x, dy, weight, bias, EPS, 1, lambda box: box.by_row())
    np.testing.assert_allclose(
        ours["cells"][0, :, 0], np.float64(np.float32(1.1)) * dy.astype(np.float64).sum(axis=1), rtol=1e-6
    )
    np.testing.assert_allclose(ours["bias gradient"], dy.astype(np.float64).sum(axis=0), rtol=1e-6)
    gradient = (dy * x_hat).sum(axis=0)
    np.testing.assert_allclose(
        ours["weight gradient"], gradient, rtol=0, atol=1e-6 * np.sqrt(shape[0]) * 0.1 + 1e-6 * np.abs(gradient).max()
    )


@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7), (3, 2, 6)])
@pytest.mark.parametrize("way", WAYS)
def test_a_first_position_that_is_masked_and_so_0_says_nothing_of_the_rest(
    way: str, shape: tuple[int, ...], groups: int
) -> None:
    """Sums are of differences from a number near the mean: here it is not."""
    rng, axis = np.random.default_rng(0), -1 if shape[-1] == 6 else 1
    x, w = rng.normal(size=shape) + 1e7, np.ones([n for k, n in enumerate(shape) if k != axis % len(shape)])
    w[0] = 0
    x[0] = 0
    box = box_of(x, axis, groups)
    _, _, deviation_sq, _, n = WAYS[way].moments(box.flat(x), box, box.counts(w))
    kept = np.moveaxis(x[1:], axis, 0).reshape(groups, -1)
    np.testing.assert_allclose(deviation_sq[0] / n[0], kept.var(axis=1), rtol=1e-8)


LAYERS = {
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "InstanceNorm": lambda: nn.InstanceNorm(6, affine=True),
    "GhostBatchNorm": lambda: nn.GhostBatchNorm(6, [0, 1, 1, 4]),
    "LayerNorm": lambda: nn.LayerNorm((6, 7)),
    "RMSNorm": lambda: nn.RMSNorm((6, 7)),
    "BatchNorm": lambda: nn.BatchNorm(6),
}


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(LAYERS)), seed=st.integers(0, 1000), dtype=st.sampled_from(["float32", "float64"]))
def test_masked_positions_may_hold_anything_in_every_way(name: str, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    x, dy = rng.normal(size=(4, 6, 7)).astype(dtype) + 3, rng.normal(size=(4, 6, 7)).astype(dtype)
    one_per_row = LAYERS[name]().channel_axes != (1,)
    w = rng.integers(0, 3, (4,) if one_per_row else (4, 7)).astype(float)
    if w.ndim > 1:
        w[:, :3] = 1, 0, 2
    kept = np.broadcast_to(np.expand_dims(w > 0, 1) if w.ndim > 1 else (w > 0)[:, None, None], x.shape)
    found = []
    for way, noise in [(way, noise) for way in WAYS for noise in (0.0, np.nan)]:
        with pytest.MonkeyPatch.context() as patched:
            for module in (row_norm, batch_norm):
                patched.setattr(module, "steps", lambda way=way: WAYS[way])
            layer = LAYERS[name]()
            y, dx = layer(np.where(kept, x, noise), w), layer.backward(np.where(kept, dy, noise))
        assert not y[~kept].any()
        assert not dx[~kept].any()
        found.append([y, dx, *(p.grad for p in layer.parameters()), *layer.state_dict().values()])
    for others in found[1:]:
        for array, other in zip(found[0], others, strict=True):
            least = TOLERANCE["float32" if array.dtype == np.float32 else dtype] * max(np.abs(array).max(), 1)
            np.testing.assert_allclose(array, other, rtol=0, atol=least)
