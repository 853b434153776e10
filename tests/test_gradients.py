"""Backward passes against finite differences, to 1e-7, with random cotangents."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import assert_gradient

from syncbn_sim import nn
from syncbn_sim.comm import launch

RNG = np.random.default_rng(7)


def randomised(model: nn.Module) -> nn.Module:
    """Weights and biases away from 1 and 0, where a lost factor would not show."""
    for p in model.parameters():
        p.data = RNG.uniform(0.5, 1.5, p.data.shape) * RNG.choice([-1, 1], p.data.shape)
    return model


F64 = {"dtype": np.float64}
IMAGES = (3, 4, 2, 3)
LAYERS = {
    "linear": (lambda: nn.Linear(4, 3, **F64), (5, 4)),
    "linear without bias": (lambda: nn.Linear(4, 3, bias=False, **F64), (5, 4)),
    "relu": (lambda: nn.ReLU(), (5, 4)),
    "flatten": (lambda: nn.Flatten(), IMAGES),
    "layer norm": (lambda: nn.LayerNorm(4, **F64), (5, 4)),
    "layer norm over two axes": (lambda: nn.LayerNorm((2, 3), **F64), IMAGES),
    "layer norm without affine": (lambda: nn.LayerNorm(4, elementwise_affine=False, **F64), (5, 4)),
    "batch norm 2-D": (lambda: nn.BatchNorm(4, **F64), (5, 4)),
    "batch norm 3-D": (lambda: nn.BatchNorm(4, **F64), (3, 4, 5)),
    "batch norm 4-D": (lambda: nn.BatchNorm(4, **F64), IMAGES),
    "batch norm 5-D": (lambda: nn.BatchNorm(4, **F64), (2, 4, 2, 1, 3)),
    "batch norm channels-last": (lambda: nn.BatchNorm(4, channel_axis=-1, **F64), (2, 3, 2, 4)),
    "batch norm without affine": (lambda: nn.BatchNorm(4, affine=False, **F64), (5, 4)),
    "batch norm with a large eps": (lambda: nn.BatchNorm(4, eps=0.5, **F64), (5, 4)),
    "batch norm without running statistics": (lambda: nn.BatchNorm(4, track_running_stats=False, **F64), (5, 4)),
    "averaged batch norm": (lambda: nn.AveragedBatchNorm(4, **F64), (5, 4)),
    "a layer used twice": (
        lambda: (lambda n: nn.Sequential(n, nn.ReLU(), nn.Linear(4, 4, bias=False, **F64), n))(nn.BatchNorm(4, **F64)),
        (6, 4),
    ),
    "a small net": (
        lambda: nn.Sequential(
            nn.Linear(4, 5, bias=False, **F64), nn.BatchNorm(5, **F64), nn.ReLU(), nn.Linear(5, 2, **F64)
        ),
        (7, 4),
    ),
}


def check_layer(model: nn.Module, x: np.ndarray, weights: np.ndarray | None = None) -> None:
    dy = RNG.normal(size=model(x, weights).shape)
    dx = model.backward(dy)
    gradients = [p.grad for p in model.parameters()]
    with nn.no_backward(model):

        def loss() -> float:
            return float((model(x, weights) * dy).sum())

        assert_gradient(loss, x, dx)
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            assert_gradient(loss, p.data, gradient)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_layer(name: str, training: bool) -> None:
    build, shape = LAYERS[name]
    model = randomised(build())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm) and module.running_mean is not None:
            module.running_mean, module.running_var = (
                RNG.normal(size=module.num_features),
                RNG.uniform(0.5, 2, module.num_features),
            )
    check_layer(model.train(training), RNG.normal(size=shape) * 2 + 1)


@pytest.mark.parametrize(
    "name", ["batch norm 2-D", "batch norm 4-D", "batch norm channels-last", "averaged batch norm"]
)
def test_weighted_batch_norm(name: str) -> None:
    build, shape = LAYERS[name]
    model = randomised(build())
    positions = shape[:-1] if "last" in name else (shape[0], *shape[2:])
    weights = RNG.uniform(0.2, 3, positions)
    check_layer(model, RNG.normal(size=shape) * 2 + 1, weights)


def test_small_fractional_weights() -> None:
    """A total weight below 1 is a count like any other: for statistics of this batch in evaluation, and for averages over ranks."""
    x, w = RNG.normal(size=(3, 2)), np.array([0.2, 0.3, 0.1])
    check_layer(randomised(nn.BatchNorm(2, track_running_stats=False, **F64)).eval(), x, w)
    xs, ws = [RNG.normal(size=(2, 2)), RNG.normal(size=(3, 2))], [np.array([0.15, 0.1]), np.ones(3)]
    dys = [RNG.normal(size=a.shape) for a in xs]

    def on_rank(comm):
        bn = nn.AveragedBatchNorm(2, comm=comm, **F64)
        y = bn(xs[comm.rank], ws[comm.rank])
        return float((y * dys[comm.rank]).sum()), bn.backward(dys[comm.rank])

    for rank in (0, 1):
        assert_gradient(lambda: sum(loss for loss, _ in launch(on_rank, 2)), xs[rank], launch(on_rank, 2)[rank][1])


@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 4, **F64), nn.LayerNorm(3, **F64), nn.BatchNorm(3, **F64), nn.ReLU(), nn.Flatten()]
)
def test_each_layer_masks_by_itself(layer: nn.Module) -> None:
    randomised(layer)
    mask = np.array([1.0, 0.0, 1.0, 1.0])
    x = RNG.normal(size=(4, 3))
    x[1] = np.nan
    y = layer(x, mask)
    dy = RNG.normal(size=y.shape)
    dy[1] = np.nan
    dx = layer.backward(dy)
    assert (y[1] == 0).all()
    assert (dx[1] == 0).all()
    assert np.isfinite(dx).all()
    gradients = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    kept = mask > 0
    np.testing.assert_allclose(layer(x[kept]), y[kept], atol=1e-13)
    np.testing.assert_allclose(layer.backward(dy[kept]), dx[kept], atol=1e-13)
    for p, gradient in zip(layer.parameters(), gradients, strict=True):
        np.testing.assert_allclose(p.grad, gradient, atol=1e-13)


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
        )
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


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "logits", "labels"),
    [
        (nn.CrossEntropyLoss, (6, 4), np.array([0, 3, 2, 1, 1, 0])),
        (nn.BCEWithLogitsLoss, (6,), np.array([0.0, 1, 1, 0.3, 0, 1])),
        (nn.MSELoss, (6,), np.array([0.5, -1, 2, 0.3, 4, 1])),
        (nn.MSELoss, (6, 1), np.array([0.5, -1, 2, 0.3, 4, 1])),
        (nn.BCEWithLogitsLoss, (6, 1), np.array([0.0, 1, 1, 0.3, 0, 1])),
    ],
)
def test_loss(loss: type[nn.Loss], logits: tuple[int, ...], labels: np.ndarray, weighted: bool) -> None:
    z, f = RNG.normal(size=logits) * 3, loss()
    w = RNG.uniform(0.5, 2, 6) if weighted else None
    _, count = f(z, labels, w)
    assert count == (w.sum() if weighted else 6)
    assert_gradient(lambda: f(z, labels, w)[0], z, f.backward())


def test_losses_do_not_overflow() -> None:
    total, _ = nn.BCEWithLogitsLoss()(np.array([1000.0, -1000.0]), np.array([1.0, 1.0]))
    assert total == 1000.0
    total, _ = nn.CrossEntropyLoss()(np.array([[1000.0, 0.0]]), np.array([1]))
    assert total == 1000.0


@pytest.mark.parametrize("layer", [nn.SyncBatchNorm, nn.AveragedBatchNorm])
@pytest.mark.parametrize("weighted", [False, True])
def test_layers_that_talk(layer: type[nn.SyncBatchNorm], weighted: bool) -> None:
    """The gradient of the sum over all ranks, through all ranks' statistics: uneven ranks, one empty."""
    xs = [RNG.normal(size=(n, 3, 2)) * 2 + n for n in (4, 1, 0, 3)]
    dys = [RNG.normal(size=x.shape) for x in xs]
    ws = [RNG.uniform(0.5, 2, (len(x), 2)) if weighted else None for x in xs]
    weight, bias = RNG.uniform(0.5, 1.5, 3), RNG.normal(size=3)

    def on_rank(comm):
        bn = layer(3, comm=comm, dtype=np.float64)
        bn.weight.data, bn.bias.data = weight.copy(), bias.copy()
        y = bn(xs[comm.rank], ws[comm.rank])
        return float((y * dys[comm.rank]).sum()), bn.backward(dys[comm.rank]), bn.weight.grad, bn.bias.grad

    def total() -> float:
        return sum(loss for loss, *_ in launch(on_rank, 4, "threads"))

    results = launch(on_rank, 4, "threads")
    for rank in (0, 1, 3):
        assert_gradient(total, xs[rank], results[rank][1])
    assert_gradient(total, weight, sum(r[2] for r in results))
    assert_gradient(total, bias, sum(r[3] for r in results))


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
