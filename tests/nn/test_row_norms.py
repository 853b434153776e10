"""Norms of each row by itself, beyond the table of layers: what frequency weights mean, running statistics, parts, bad input."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from syncbn_sim import nn, train
from syncbn_sim.comm import launch
from syncbn_sim.comm.stretches import stretched
from syncbn_sim.errors import ArgumentError, CountError, ShapeError
from syncbn_sim.functional import box

RNG = np.random.default_rng(6)
F64 = {"dtype": np.float64}
KINDS = {
    "GroupNorm": (partial(nn.GroupNorm, 2, 6), "GroupNorm", (2, 6)),
    "InstanceNorm": (partial(nn.InstanceNorm, 6, affine=True), "InstanceNorm1d", (6,)),
    "LayerNorm": (partial(nn.LayerNorm, (6, 50)), "LayerNorm", ((6, 50),)),
    "RMSNorm": (partial(nn.RMSNorm, (6, 50)), "RMSNorm", ((6, 50),)),
}


@pytest.mark.parametrize("shape", [(5, 6, 50), (700, 6, 50)])
@pytest.mark.parametrize("far", [0.0, 100.0])
@pytest.mark.parametrize("name", KINDS)
def test_float32_as_torch_in_float64(name: str, far: float, shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    build, theirs, arguments = KINDS[name]
    x, dy = (RNG.normal(size=shape) + far).astype(np.float32), RNG.normal(size=shape).astype(np.float32)
    ours, truth = (
        build(),
        getattr(torch.nn, theirs)(*arguments, **({"affine": True} if "Inst" in name else {})).double(),
    )
    for p, q in zip(ours.parameters(), truth.parameters(), strict=True):
        p.data = RNG.uniform(0.5, 2, p.data.shape).astype(np.float32)
        q.data = torch.tensor(p.data.astype(np.float64))
    if name == "RMSNorm":
        truth.eps = float(np.finfo(np.float32).eps)  # of float32 input
    given = torch.tensor(x.astype(np.float64), requires_grad=True)
    y = truth(given)
    y.backward(torch.tensor(dy.astype(np.float64)))
    pairs = [(ours(x), y.detach()), (ours.backward(dy), given.grad)]
    pairs += [(p.grad, q.grad) for p, q in zip(ours.parameters(), truth.parameters(), strict=True)]
    for found, expected in pairs:
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_eps_of_rms_norm_is_that_of_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.full((2, 3), 1e-3, dtype)
    expected = torch.nn.RMSNorm(3, elementwise_affine=False)(torch.tensor(x)).numpy()
    np.testing.assert_allclose(
        nn.RMSNorm(3, elementwise_affine=False)(x), expected, rtol=1e-3 if dtype == "float16" else 1e-6
    )


@pytest.mark.parametrize("build", [partial(nn.GroupNorm, 2, 4), partial(nn.InstanceNorm, 4, affine=True)])
def test_a_weight_says_how_often_a_position_counts_in_its_row(build) -> None:
    """As if it stood there so many times."""
    x, dy = RNG.normal(size=(3, 4, 5)), RNG.normal(size=(3, 4, 5))
    w = np.array([3, 0, 1, 2, 1])
    weighted, repeated = build(**F64), build(**F64)
    y, long = weighted(x, np.tile(w, (3, 1))), repeated(np.repeat(x, w, axis=2))
    first = np.flatnonzero(w), np.concatenate([[0], np.cumsum(w)[:-1]])[w > 0]
    np.testing.assert_allclose(y[..., first[0]], long[..., first[1]], atol=1e-12)
    # each copy has its share of the position's cotangent
    dx, long_dx = weighted.backward(dy), repeated.backward(np.repeat(dy / np.maximum(w, 1), w, axis=2))
    summed = np.add.reduceat(long_dx, first[1], axis=2)
    np.testing.assert_allclose(dx[..., first[0]], summed, atol=1e-12)
    np.testing.assert_allclose(weighted.weight.grad, repeated.weight.grad, atol=1e-12)


@pytest.mark.parametrize("build", [partial(nn.LayerNorm, 4), partial(nn.RMSNorm, 4), partial(nn.GroupNorm, 1, 4)])
def test_a_weight_of_a_cell_as_a_whole_cancels(build) -> None:
    x, dy, w = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 4)), np.array([1, 1e-9, 0.5, 7, 0]) * 2
    plain, weighted = build(**F64), build(**F64).eval()
    for own, truth in ((weighted(x, w), plain(x)), (weighted.backward(dy), plain.backward(dy))):
        np.testing.assert_allclose(own[:4], truth[:4], atol=1e-12)
        assert not own[4].any()


@pytest.mark.parametrize("eps", [0.0, 1e-5])
@pytest.mark.parametrize("build", [partial(nn.LayerNorm, 4), partial(nn.RMSNorm, 4), partial(nn.GroupNorm, 2, 4)])
def test_a_row_that_is_masked_leaves_the_gradients_alone(build, eps: float) -> None:
    """Without eps too, where its own 0 / 0 would be no number."""
    layer, x = build(eps=eps, **F64), RNG.normal(size=(3, 4))
    layer(x, [1, 0, 1])
    layer.backward(np.where([[1], [0], [1]], x, np.nan))
    assert all(np.isfinite(p.grad).all() for p in layer.parameters())


def test_running_statistics_are_means_over_rows_that_count() -> None:
    norm, x = nn.InstanceNorm(2, momentum=0.25, track_running_stats=True, **F64), RNG.normal(size=(4, 2, 6)) + 2
    w = np.ones((4, 6))
    w[1], w[2, 3:] = 0, 0
    norm(x, w)
    rows = [x[0], x[2, :, :3], x[3]]
    np.testing.assert_allclose(norm.running_mean, 0.25 * np.mean([row.mean(1) for row in rows], axis=0))
    np.testing.assert_allclose(norm.running_var, 0.75 + 0.25 * np.mean([row.var(1, ddof=1) for row in rows], axis=0))
    before = norm.state_dict()
    norm(x, np.zeros(4))
    norm(x[:0])
    for name, value in norm.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    still = nn.InstanceNorm(2, momentum=None, track_running_stats=True)
    still(x)
    assert not still.running_mean.any()


def test_running_statistics_of_ranks_are_averaged_by_rows() -> None:
    xs = [RNG.normal(size=(n, 2, 6)) + n for n in (3, 1)]
    whole = nn.InstanceNorm(2, track_running_stats=True, **F64)
    whole(np.concatenate(xs))

    def on_rank(comm):
        norm = nn.InstanceNorm(2, track_running_stats=True, **F64)
        norm(xs[comm.rank])
        first = train.with_statistics_of_rank_0(norm, comm).running_mean
        return train.with_averaged_statistics(norm, comm, len(xs[comm.rank])).state_dict(), norm.running_mean, first

    found = launch(on_rank, 2)
    for state, _, first in found:
        np.testing.assert_array_equal(first, found[0][1])
        for name, value in whole.state_dict().items():
            np.testing.assert_allclose(state[name], value, rtol=1e-12)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "build",
    [
        lambda axis: nn.GroupNorm(2, 6, channel_axis=axis),
        lambda axis: nn.InstanceNorm(6, affine=True, track_running_stats=True, channel_axis=axis),
        lambda axis: nn.LayerNorm((6, 5) if axis == 1 else 6),
        lambda axis: nn.RMSNorm((6, 5) if axis == 1 else 6),
    ],
)
def test_parts_change_nothing(build, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that go through some at a time, the last ones fewer, with weights and without."""
    shape = (7, 5, 6) if last else (7, 6, 5)
    x, dy = RNG.normal(size=shape), RNG.normal(size=shape)
    for cached in (box._by_row, box._by_position):
        cached.cache_clear()
    for weighted in (False, True):
        found = []
        for numbers in (1 << 17, 60):
            monkeypatch.setattr(box, "PART", numbers)
            layer = build(-1 if last else 1)
            w = np.array([1, 1, 0, 2, 1, 1, 3]) if weighted else None
            found.append(
                [layer(x, w), layer.backward(dy), *(p.grad for p in layer.parameters()), *layer.state_dict().values()]
            )
            for cached in (box._by_row, box._by_position):
                cached.cache_clear()
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 4), (3, 4, 0), (0, 4, 3)])
def test_empty(shape: tuple[int, ...]) -> None:
    tracking = nn.InstanceNorm(4, track_running_stats=True)
    for layer in (
        nn.GroupNorm(2, 4),
        tracking,
        nn.InstanceNorm(4, track_running_stats=True).eval(),
        nn.GroupNorm(4, 4),
    ):
        assert layer(np.ones(shape)).shape == layer.backward(np.ones(shape)).shape == shape
    last = (*shape[:1], *shape[2:], 4)
    for layer in (nn.LayerNorm(4), nn.RMSNorm(4)):
        assert layer(np.ones(last)).shape == layer.backward(np.ones(last)).shape == last


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: nn.GroupNorm(3, 4), r"num_groups=3, num_channels=4.*must divide"),
        (lambda: nn.GroupNorm(0, 4), "num_groups=0"),
        (lambda: nn.GroupNorm(2, 4, channel_axis=0), "channel_axis=0"),
        (lambda: nn.GroupNorm(2, 4, eps=-1.0), r"eps=-1\.0"),
        (lambda: nn.InstanceNorm(0), "at least one channel"),
        (lambda: nn.InstanceNorm(4, momentum=2.0), "momentum"),
        (lambda: nn.LayerNorm(()), "at least one channel"),
        (lambda: nn.RMSNorm(4, eps=float("nan")), "eps=nan"),
    ],
)
def test_bad_arguments(build, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        build()


def test_bad_shapes() -> None:
    for layer, shape in ((nn.GroupNorm(2, 4), (3, 5)), (nn.InstanceNorm(4), (4,)), (nn.RMSNorm(4), (3, 5))):
        with pytest.raises(ShapeError, match=type(layer).__name__):
            layer(np.ones(shape))


@pytest.mark.parametrize("tracks", [False, True])
def test_one_value_has_no_variance(tracks: bool) -> None:
    """In training; nobody who asks for one answer should get an error."""
    norm, x = nn.InstanceNorm(4, track_running_stats=tracks), RNG.normal(size=(3, 4))
    for layer in (norm, nn.GroupNorm(4, 4)):
        with pytest.raises(CountError, match=rf"{type(layer).__name__} .*count of 1 in row 0"):
            layer.train()(x)
        assert layer.eval()(x).shape == x.shape
    w = np.ones((3, 5))
    w[1, 1:] = 0
    with pytest.raises(CountError, match="count of 1 in row 1"):
        norm.train()(RNG.normal(size=(3, 4, 5)), w)
    with pytest.raises(CountError, match=r"count of 1 in row 2.*multiply them"):
        norm(RNG.normal(size=(3, 4, 5)), [[1, 1, 1, 1, 1], [2, 2, 2, 2, 2], [0.2, 0.2, 0.2, 0.2, 0.2]])
    assert norm.running_mean is None or not norm.running_mean.any()


@pytest.mark.parametrize("axis", [1, -1])
def test_ranks_in_one_array_have_their_own_running_statistics(axis: int) -> None:
    """A rank without rows, too, and one whose rows are masked."""
    x, w, offsets = RNG.normal(size=(7, 4, 3)), np.array([1, 1, 2, 0, 0, 1, 0]), np.array([0, 3, 3, 5, 7])
    kind = partial(nn.InstanceNorm, x.shape[axis], track_running_stats=True, channel_axis=axis, **F64)
    stacked, alone = kind(), [kind() for _ in offsets[1:]]
    for step in range(2):
        x = x + step
        with stretched(offsets):
            y = stacked.train()(x, w)
            judged = stacked.eval()(x)
        for rank, one in enumerate(alone):
            mine = slice(offsets[rank], offsets[rank + 1])
            np.testing.assert_allclose(y[mine], one.train()(x[mine], w[mine]), atol=1e-12)
            np.testing.assert_allclose(judged[mine], one.eval()(x[mine]), atol=1e-12)
            np.testing.assert_array_equal(stacked.running_mean[rank], one.running_mean)
            np.testing.assert_array_equal(stacked.running_var[rank], one.running_var)
