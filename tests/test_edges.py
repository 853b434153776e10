"""The engine's edges: masks without a channel axis, what PyTorch takes, state that does not fit, nothing kept by reference."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import numpy as np
import pytest

from syncbn_sim import nn, optim, train
from syncbn_sim.comm import LedgerCommunicator, SerialCommunicator, launch
from syncbn_sim.errors import ArgumentError, CountError, DtypeError, ShapeError, StateDictError, SyncBNError
from syncbn_sim.stats import Moments, running

RNG = np.random.default_rng(3)
F64 = {"dtype": np.float64}
ALONE = SerialCommunicator()


# -- masks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 4, 4), (2, 5, 3), (2, 3, 3, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("norm", [nn.LayerNorm, partial(nn.BatchNorm, channel_axis=-1), partial(nn.BatchNorm, channel_axis=1)])
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
    for f in (loss(), *(partial(metric, comm=ALONE) for metric in metrics), lambda a, b: (Moments.of(a, 0), Moments.of(b, 0))):
        for arguments in ((np.ma.array(logits), LABELS[loss]), (logits, np.ma.array(LABELS[loss]))):
            with pytest.raises(DtypeError, match=r"numpy\.ma.*weights"):
                f(*arguments)


# -- what PyTorch takes ---------------------------------------------------------------------------------------------


def test_momentum_0_keeps_the_running_statistics() -> None:
    bn = nn.BatchNorm(2, momentum=0.0)
    bn(RNG.normal(size=(5, 2)) + 3)
    assert (bn.running_mean == 0).all()
    assert (bn.running_var == 1).all()
    assert bn.num_batches_tracked == 1
    assert running.window(0.0) == running.half_life(0.0) == np.inf
    assert running.initial_weight(0.0, 9) == 1
    with pytest.raises(ArgumentError, match="moved"):
        running.debias(np.ones(1), 0.0, 0.0, 9)
    with pytest.raises(ArgumentError, match="nan"):
        nn.BatchNorm(2, momentum=float("nan"))


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_a_learning_rate_of_0_moves_nothing(kind) -> None:
    p = nn.Parameter(np.ones(3))
    p.grad = np.ones(3, np.float32)
    kind([p], lr=0.0).step()
    np.testing.assert_array_equal(p.data, 1)
    for bad in (np.inf, np.nan, -0.1):
        with pytest.raises(ArgumentError, match="lr"):
            kind([p], lr=bad)


@pytest.mark.parametrize("build", [partial(nn.BatchNorm, 3, **F64), partial(nn.SyncBatchNorm, 3, **F64), partial(nn.LayerNorm, 3, **F64)])
@pytest.mark.parametrize("only", ["weight", "bias"])
@pytest.mark.parametrize("rows", [6, 4000])
def test_weight_or_bias_alone_gets_its_gradient(build, only: str, rows: int) -> None:
    x, dy = RNG.normal(size=(rows, 3)), RNG.normal(size=(rows, 3))
    both, one = build(), build()
    other = "bias" if only == "weight" else "weight"
    setattr(one, other, None)
    assert other not in one.state_dict()
    np.testing.assert_array_equal(one(x), both(x))
    np.testing.assert_array_equal(one.backward(dy), both.backward(dy))
    np.testing.assert_array_equal(getattr(one, only).grad, getattr(both, only).grad)
    assert len(one.parameters()) == 1


def test_layer_norm_without_bias() -> None:
    assert list(nn.LayerNorm(3, bias=False).state_dict()) == ["weight"]
    assert not nn.LayerNorm(3, elementwise_affine=False).state_dict()


def test_old_state_dicts_of_pytorch_load() -> None:
    bn = nn.BatchNorm(2, momentum=None)
    for _ in range(3):
        bn(RNG.normal(size=(4, 2)))
    state = bn.state_dict()
    without = {key: value for key, value in state.items() if key != "num_batches_tracked"}
    bn.load_state_dict({**without, "weight": [5, 6]})
    assert bn.num_batches_tracked == 3
    np.testing.assert_array_equal(bn.weight.data, [5, 6])
    for tracked in (np.array([8]), np.array(8.0), 8):
        bn.load_state_dict({**state, "num_batches_tracked": tracked})
        assert bn.num_batches_tracked == 8
        assert bn.num_batches_tracked.shape == ()
        assert bn.num_batches_tracked.dtype == np.int64


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight", None),
        ("weight", ["1", "2"]),
        ("weight", np.array([1, 2j])),
        ("weight", [[1.0], [1.0, 2.0]]),
        ("weight", np.ma.masked_array([1.0, 2.0], mask=[0, 1])),
        ("bias", np.ones(1)),
        ("bias", np.ones((1, 2))),
        ("num_batches_tracked", np.nan),
        ("num_batches_tracked", np.inf),
        ("num_batches_tracked", -1),
        ("num_batches_tracked", 1.5),
        ("num_batches_tracked", "3"),
        ("num_batches_tracked", None),
        ("num_batches_tracked", [3, 4]),
    ],
)
def test_a_state_dict_that_does_not_fit(key: str, value: object) -> None:
    bn = nn.BatchNorm(2)
    before = bn.state_dict()
    with pytest.raises(StateDictError, match=key):
        bn.load_state_dict({**bn.state_dict(), "running_mean": np.full(2, 7.0), key: value})
    for name, array in bn.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_reset_running_stats() -> None:
    bn = nn.BatchNorm(2)
    fresh = bn.state_dict()
    bn(RNG.normal(size=(5, 2)) + 4)
    assert isinstance(bn.num_batches_tracked, np.ndarray)
    bn.reset_running_stats()
    for name, array in bn.state_dict().items():
        assert array.dtype == fresh[name].dtype
        np.testing.assert_array_equal(array, fresh[name])
    nn.BatchNorm(2, track_running_stats=False).reset_running_stats()


# -- conversion and structure ---------------------------------------------------------------------------------------


class Clipped(nn.BatchNorm):
    def forward(self, x, weights=None):
        return np.clip(super().forward(x, weights), -0.5, 0.5)


class ClippedSync(nn.SyncBatchNorm):
    def forward(self, x, weights=None):
        return np.clip(super().forward(x, weights), -0.5, 0.5)


class Both(nn.SyncBatchNorm, Clipped):
    def extra(self) -> int:
        return 5


@pytest.mark.parametrize("kind", [ClippedSync, Both])
def test_revert_keeps_the_methods_of_a_class_derived_from_sync_batch_norm(kind) -> None:
    ledger = LedgerCommunicator(SerialCommunicator())
    model = nn.revert_sync_batchnorm(nn.Sequential(kind(3, comm=ledger)))
    assert np.abs(model(RNG.normal(size=(9, 3)) * 9)).max() == 0.5
    assert not ledger.entries
    assert type(model[0]) is kind
    assert nn.convert_sync_batchnorm(model, ledger)[0].comm is ledger


def test_a_converted_subclass_copies_and_says_why_it_does_not_pickle() -> None:
    model = nn.convert_sync_batchnorm(nn.Sequential(Clipped(3)), ALONE)
    twin = copy.deepcopy(model)
    assert type(twin[0]) is type(model[0])
    x = RNG.normal(size=(9, 3))
    np.testing.assert_array_equal(twin(x), model(x))
    with pytest.raises(ArgumentError, match="state_dict"):
        pickle.dumps(model)
    back = pickle.loads(pickle.dumps(nn.revert_sync_batchnorm(model)))
    assert type(back[0]) is Clipped


class Holder(nn.Module):
    def __init__(self, **held: object) -> None:
        super().__init__()
        self.__dict__.update(held)


@pytest.mark.parametrize("wrap", [lambda m: [m], lambda m: (m, None), lambda m: {"a": m}])
@pytest.mark.parametrize("what", [lambda: nn.Linear(2, 2), lambda: nn.Parameter(np.ones(2)), lambda: nn.Sequential(nn.ReLU())])
def test_a_module_in_a_plain_list_is_noticed(wrap, what) -> None:
    model = nn.Sequential(Holder(blocks=wrap(what())))
    for use in (
        model.parameters,
        model.state_dict,
        model.eval,
        lambda: nn.convert_sync_batchnorm(model, ALONE),
        lambda: model.load_state_dict({}),
    ):
        with pytest.raises(ArgumentError, match=r"Holder\.blocks.*nn\.Sequential"):
            use()


def test_a_plain_list_of_what_is_an_attribute_too_is_none_of_our_business() -> None:
    linear = nn.Linear(2, 2)
    model = Holder(linear=linear, order=[linear], tied=[linear.weight], sizes=[1, 2], names={"a": "b"})
    assert len(model.train().parameters()) == 2


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
                model.running_mean += 5
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
