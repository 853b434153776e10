"""A batch norm on stretches is a batch norm per stretch; and what ranks, conversion and bad input make of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from syncbn_sim import nn
from syncbn_sim.comm import SerialCommunicator
from syncbn_sim.comm.stretches import stretched
from syncbn_sim.errors import ArgumentError, CountError, ShapeError

RNG = np.random.default_rng(8)
F64 = {"dtype": np.float64}
CUTS = {
    "even": (3, [0, 4, 8, 12], 12),
    "one": (1, [0, 9], 9),
    "not even: as np.array_split": (4, [0, 3, 6, 8, 10], 10),
    "offsets": ([0, 2, 7, 9], [0, 2, 7, 9], 9),
    "empty ones": ([0, 0, 5, 5, 9, 9], [0, 0, 5, 5, 9, 9], 9),
}


def filled(layer: nn.BatchNorm) -> nn.BatchNorm:
    layer.weight.data, layer.bias.data = np.array([0.5, -2.0, 3.0]), np.array([1.0, 0.0, -1.0])
    return layer


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("trail", [(), (4,), (2, 3)])
@pytest.mark.parametrize("cut", CUTS)
def test_as_a_batch_norm_per_stretch(cut: str, trail: tuple[int, ...], weighted: bool) -> None:
    stretches, offsets, rows = CUTS[cut]
    x, dy = RNG.normal(size=(rows, 3, *trail)) + 2, RNG.normal(size=(rows, 3, *trail))
    w = RNG.integers(1, 4, (rows, *trail)).astype(float) if weighted else None
    if w is not None:
        w[1] = 0
    ghost = filled(nn.GhostBatchNorm(3, stretches, momentum=0.3, **F64))
    y, dx = ghost(x, w), ghost.backward(dy)
    means, variances, gradient = [], [], 0.0
    for low, high in itertools.pairwise(offsets):
        if low == high:
            continue
        rows_here, alone = slice(low, high), filled(nn.BatchNorm(3, momentum=1.0, **F64))
        np.testing.assert_allclose(y[rows_here], alone(x[rows_here], None if w is None else w[rows_here]), atol=1e-12)
        np.testing.assert_allclose(dx[rows_here], alone.backward(dy[rows_here]), atol=1e-12)
        means.append(alone.running_mean)
        variances.append(alone.running_var)
        gradient = gradient + alone.weight.grad
    np.testing.assert_allclose(ghost.weight.grad, gradient, atol=1e-12)
    np.testing.assert_allclose(ghost.running_mean, 0.3 * np.mean(means, axis=0), atol=1e-12)
    np.testing.assert_allclose(ghost.running_var, 0.7 + 0.3 * np.mean(variances, axis=0), atol=1e-12)
    assert ghost.running_mean.shape == (3,)
    assert ghost.num_batches_tracked == 1
    like = filled(nn.BatchNorm(3, **F64)).eval()
    like.load_state_dict(ghost.state_dict())
    np.testing.assert_array_equal(ghost.eval()(x[:5]), like(x[:5]))


@pytest.mark.parametrize("stretches", [2, [0, 3, 4]])
def test_ranks_in_one_array_cut_their_own_batches(stretches) -> None:
    """With running statistics for each rank; a rank without rows has none to add."""
    sizes = [4, 0, 4]
    x, dy = RNG.normal(size=(8, 3, 2)), RNG.normal(size=(8, 3, 2))
    stacked, offsets = nn.GhostBatchNorm(3, stretches, **F64), np.array([0, 4, 4, 8])
    with stretched(offsets):
        y, dx = stacked(x), stacked.backward(dy)
        in_evaluation = stacked.eval()(x)
    assert stacked.running_mean.shape == (3, 3)
    for rank, rows in enumerate(sizes):
        mine, alone = slice(offsets[rank], offsets[rank] + rows), nn.GhostBatchNorm(3, stretches, **F64)
        np.testing.assert_allclose(y[mine], alone(x[mine]), atol=1e-12)
        np.testing.assert_allclose(dx[mine], alone.backward(dy[mine]), atol=1e-12)
        np.testing.assert_allclose(stacked.running_var[rank], alone.running_var, atol=1e-12)
        assert stacked.num_batches_tracked[rank] == alone.num_batches_tracked == (rows > 0)
        np.testing.assert_allclose(in_evaluation[mine], alone.eval()(x[mine]), atol=1e-12)


@pytest.mark.parametrize(
    "stretches", [0, -1, 2.5, [], [0], [1, 4], [0, 5, 3, 8], [0, -1, 4], [[0, 4]], [0.0, 4.0], "even", None]
)
def test_bad_stretches(stretches) -> None:
    with pytest.raises(ArgumentError, match=r"stretches.*begin with 0"):
        nn.GhostBatchNorm(4, stretches)


def test_a_batch_of_other_rows_than_the_offsets() -> None:
    layer = nn.GhostBatchNorm(4, [0, 3, 8])
    for rows in (7, 9):
        with pytest.raises(ShapeError, match=rf"{rows} rows.*8, where the last stretch ends"):
            layer(RNG.normal(size=(rows, 4)))
    assert layer(np.ones((0, 4))).shape == layer.backward(np.ones((0, 4))).shape == (0, 4)
    assert layer.num_batches_tracked == 0
    assert layer.eval()(RNG.normal(size=(7, 4))).shape == (7, 4)


def test_more_stretches_than_rows() -> None:
    """An error where that leaves one value, not where a row is many."""
    layer = nn.GhostBatchNorm(4, 3)
    with pytest.raises(CountError, match=r"count of 1 .*in stretch 0 of 3.*fewer stretches"):
        layer(RNG.normal(size=(2, 4)))
    with pytest.raises(CountError, match="in stretch 1 of 3"):
        layer(RNG.normal(size=(4, 4)))
    assert np.isfinite(layer(RNG.normal(size=(2, 4, 6)))).all()


@pytest.mark.parametrize("hook", ["stretches", "cuts"])
def test_it_is_not_converted(hook: str) -> None:
    """Nor is a layer of one's own that cuts its rows: it would be without a word."""
    own = type("Own", (nn.BatchNorm,), {hook: lambda self, *rows: np.array([0, 2, 4])})
    for layer, said in ((nn.GhostBatchNorm(3, 2), "GhostBatchNorm"), (own(3), f"own {hook}")):
        with pytest.raises(ArgumentError, match=said):
            nn.convert_sync_batchnorm(nn.Sequential(layer), SerialCommunicator())
