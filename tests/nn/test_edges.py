"""The engine's edges: masks without a channel axis, masked arrays, nothing kept by reference, shares for counts, metrics."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from syncbn_sim import nn, train
from syncbn_sim.comm import SerialCommunicator, launch
from syncbn_sim.errors import ArgumentError, CountError, DtypeError, ShapeError, SyncBNError
from syncbn_sim.stats import Moments

RNG = np.random.default_rng(3)
F64 = {"dtype": np.float64}
ALONE = SerialCommunicator()


# -- masks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 4, 4), (2, 5, 3), (2, 3, 3, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize(
    "norm", [nn.LayerNorm, partial(nn.BatchNorm, channel_axis=-1), partial(nn.BatchNorm, channel_axis=1)]
)
def test_an_activation_masks_the_positions_that_the_norm_before_it_masks(norm, shape: tuple[int, ...]) -> None:
    """Square shapes too, where any axis could be the channels'."""
    axis = 1 if norm is not nn.LayerNorm and norm.keywords["channel_axis"] == 1 else len(shape) - 1
    positions = (*shape[:axis], *shape[axis + 1 :])
    for _ in range(5):
        w = RNG.integers(0, 2, positions).astype(float)
        w.flat[0], w.flat[-1] = 1, 0
        w.flat[1:2] = 1 if w.size > 2 else w.flat[1:2]
        kept = np.broadcast_to(np.expand_dims(w > 0, axis), shape)
        x = np.where(kept, RNG.normal(size=shape), np.nan)
        if norm is not nn.LayerNorm and w.sum() < 2:
            continue
        plain, model = norm(shape[axis], **F64), nn.Sequential(norm(shape[axis], **F64), nn.ReLU())
        y = plain(x, w)
        np.testing.assert_array_equal(model(x, w), np.maximum(y, 0))
        dy = np.where(kept, RNG.normal(size=shape), np.nan)
        np.testing.assert_array_equal(model.backward(dy), plain.backward(np.where(y > 0, dy, 0)))


def test_the_issue_s_own_mask() -> None:
    model = nn.Sequential(nn.LayerNorm(2, **F64), nn.ReLU())
    y = model(np.array([[[1.0, 5.0], [3.0, 2.0]]]), np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(y, [[[0, 1], [0, 0]]], atol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 5), (4, 3, 3), (2, 3, 4, 4)])
def test_an_activation_alone_takes_axis_1_for_the_channels_where_shapes_leave_a_choice(shape: tuple[int, ...]) -> None:
    w = RNG.integers(0, 2, (shape[0], *shape[2:]))
    kept = np.broadcast_to(np.expand_dims(w > 0, 1), shape) if len(shape) > 1 else w > 0
    x = np.where(kept, RNG.normal(size=shape), np.nan)
    np.testing.assert_array_equal(nn.ReLU()(x, w), np.where(kept, np.maximum(x, 0), 0))
    with pytest.raises(ShapeError, match="weights"):
        nn.ReLU()(x, np.ones((shape[0], 7)))


MASKED = np.ma.masked_array(RNG.normal(size=(4, 3)), mask=np.eye(4, 3))
LABELS = {nn.CrossEntropyLoss: np.array([0, 1, 2, 0]), nn.BCEWithLogitsLoss: np.ones(4), nn.MSELoss: np.ones(4)}


@pytest.mark.parametrize(
    "layer",
    [
        partial(nn.BatchNorm, 3),
        partial(nn.SyncBatchNorm, 3),
        partial(nn.AveragedBatchNorm, 3),
        partial(nn.LayerNorm, 3),
        partial(nn.Linear, 3, 3),
        nn.ReLU,
        nn.Flatten,
        lambda: nn.Sequential(nn.ReLU()),
    ],
)
def test_layers_refuse_numpy_s_masked_arrays(layer) -> None:
    plain = MASKED.data
    for masked_call in (
        lambda: layer()(MASKED),
        lambda: layer()(plain, np.ma.masked_array(np.ones(4), mask=[1, 0, 0, 0])),
        lambda: (lambda each: (each(plain), each.backward(MASKED)))(layer()),
    ):
        with pytest.raises(DtypeError, match="weights"):
            masked_call()


@pytest.mark.parametrize("loss", LABELS)
def test_losses_metrics_and_moments_refuse_numpy_s_masked_arrays(loss) -> None:
    logits = MASKED.data if loss is nn.CrossEntropyLoss else MASKED.data[:, 0]
    metrics = {nn.CrossEntropyLoss: [train.accuracy], nn.MSELoss: [train.r_squared]}.get(
        loss, [train.auc, train.log_loss, train.normalised_entropy]
    )
    for f in (
        loss(),
        *(partial(metric, comm=ALONE) for metric in metrics),
        lambda a, b: (Moments.of(a, 0), Moments.of(b, 0)),
    ):
        for arguments in ((np.ma.array(logits), LABELS[loss]), (logits, np.ma.array(LABELS[loss]))):
            with pytest.raises(DtypeError, match=r"numpy\.ma.*weights"):
                f(*arguments)


# -- nothing is kept by reference but x -----------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [6, 3000])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "layer",
    [
        partial(nn.Linear, 4, 4),
        partial(nn.BatchNorm, 4),
        partial(nn.BatchNorm, 4, **F64),
        partial(nn.LayerNorm, 4),
        nn.ReLU,
        nn.Flatten,
    ],
)
def test_what_is_written_between_forward_and_backward_does_not_matter(layer, training: bool, rows: int) -> None:
    dy, start, mask = RNG.normal(size=(rows, 4)), RNG.normal(size=(rows, 4)), RNG.integers(0, 2, rows)
    for weighted in (False, True):
        results = []
        for spoil in (False, True):
            model, w = layer().train(training), mask.copy() if weighted else None
            if isinstance(model, nn.BatchNorm):
                model.running_mean += 1
            y = model(start, w)
            if spoil:
                if layer is not nn.Flatten:  # a view of x, which is the one thing that must stay
                    y += 3
                for p in model.parameters():
                    p.data *= -2
                if weighted:
                    w[:] = 1 - w
                for name in model._buffers:
                    getattr(model, name)[...] += 7
            results.append([model.backward(dy), *(p.grad for p in model.parameters())])
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("loss", LABELS)
@pytest.mark.parametrize("weights", [None, np.array([1.0, 0, 2, 3])])
def test_a_loss_keeps_neither_labels_nor_logits_nor_weights(loss, weights) -> None:
    results = []
    for spoil in (False, True):
        logits = MASKED.data.copy() if loss is nn.CrossEntropyLoss else MASKED.data[:, 0].copy()
        labels, w, f = LABELS[loss].copy(), None if weights is None else weights.copy(), loss()
        f(logits, labels, w)
        if spoil:
            logits += 1
            labels[:] = 1 - labels
            if w is not None:
                w[:] = 5
        results.append(f.backward())
    np.testing.assert_array_equal(*results)


# -- weights are counts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", [nn.BatchNorm, nn.SyncBatchNorm, nn.AveragedBatchNorm])
@pytest.mark.parametrize("rows", [3, 7, 10, 49, 1000])
def test_weights_that_sum_to_1_are_one_clear_error(kind, dtype, rows: int) -> None:
    shares = RNG.uniform(1, 2, rows)
    for w in ((shares / shares.sum()).astype(dtype), np.full(rows, 1 / rows, dtype)):
        with pytest.raises(CountError, match="Weights are counts"):
            kind(2)(RNG.normal(size=(rows, 2)), weights=w)
        with pytest.raises(CountError, match="Weights are counts"):
            Moments.of(RNG.normal(size=(rows, 2)), 0, weights=w).var(unbiased=True)


# -- metrics --------------------------------------------------------------------------------------------------------


TWO = [train.auc, train.log_loss, train.normalised_entropy]


@pytest.mark.parametrize("metric", [*TWO, train.r_squared])
@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        (np.ones((4, 2)), np.array([0.0, 1, 0, 1])),  # logits that would broadcast, or be twice as many
        (np.ones((4, 4)), np.array([0.0, 1, 0, 1])),
        (np.ones(1), np.array([0.0, 1, 0, 1])),
        (np.ones((1, 1)), np.array([0.0, 1, 0, 1])),
        (np.ones((4, 1)), np.array([[0.0], [1], [0], [1]])),
        (np.ones(4), np.array([[0.0], [1], [0], [1]])),
        (np.ones(4), np.zeros(0)),
        (np.ones(4), np.array([0.0, 1, np.nan, 1])),
        (np.ones(4), np.array([0.0, 1, np.inf, 1])),
        (np.ones(4), np.array(["0", "1", "0", "1"])),
        (np.ones(4, int), np.array([0.0, 1, 0, 1])),
    ],
)
def test_metrics_refuse_what_losses_refuse(metric, outputs: np.ndarray, labels: np.ndarray) -> None:
    for refuses in (partial(metric, comm=ALONE), nn.MSELoss()):
        with pytest.raises(SyncBNError, match="expected"):
            refuses(outputs, labels)


@pytest.mark.parametrize("metric", TWO)
@pytest.mark.parametrize("bad", [2, -1, 0.5])
def test_labels_of_two_classes_are_0_and_1(metric, bad: float) -> None:
    with pytest.raises(ArgumentError, match="neither 0 nor 1"):
        metric(RNG.normal(size=4), np.array([0, 1, bad, 1]), ALONE)
    for labels in (np.array([0, 1, 1, 0]), np.array([False, True, True, False]), np.array([0, 1, 1, 0], np.int8)):
        assert metric(np.array([-1.0, 2, 1, -3]), labels, ALONE) == metric(
            np.array([[-1.0], [2], [1], [-3]]), labels.astype(float), ALONE
        )


@pytest.mark.parametrize("labels", [np.array([0, 3]), np.array([-1, 0]), np.array([0.0, np.nan]), np.array([[0], [1]])])
def test_accuracy_refuses_labels_that_are_no_classes(labels: np.ndarray) -> None:
    for refuses in (partial(train.accuracy, comm=ALONE), nn.CrossEntropyLoss()):
        with pytest.raises(SyncBNError, match="expected"):
            refuses(np.ones((2, 3)), labels)


def test_a_rank_without_rows_may_leave_shapes_and_dtypes_open() -> None:
    def on_rank(comm):
        rows = [4, 0][comm.rank]
        labels = np.array([0.0, 1, 1, 0])[:rows]
        return [metric(np.ones((rows, 1)) if rows else np.zeros((0, 2)), labels, comm) for metric in TWO]

    assert len(launch(on_rank, 2)[0]) == 3
