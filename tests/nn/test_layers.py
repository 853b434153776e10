"""Layers outside the equivalence suite: edge cases, state, pairing of forward and backward, conversion."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from syncbn_sim import nn
from syncbn_sim.comm import LedgerCommunicator, SerialCommunicator, launch
from syncbn_sim.errors import ArgumentError, ContextError, CountError, DtypeError, ShapeError, StateDictError

RNG = np.random.default_rng(0)


def test_sync_batch_norm_talks_once_each_way_in_training_and_never_in_eval() -> None:
    def talk(comm):
        ledger = LedgerCommunicator(comm)
        bn = nn.SyncBatchNorm(5, comm=ledger)
        x = np.random.default_rng(comm.rank).normal(size=(3, 5)).astype(np.float32)
        seen = []
        y = bn(x)
        seen.append((ledger.entry("allreduce").calls, ledger.entry("allreduce").bytes))
        bn.backward(y)
        seen.append((ledger.entry("allreduce").calls, ledger.entry("allreduce").bytes))
        local = nn.BatchNorm(5, track_running_stats=False)
        for layer in (bn, nn.SyncBatchNorm(5, track_running_stats=False, comm=ledger)):
            layer.eval()
            y, dx = layer(x), layer.backward(x)
        np.testing.assert_array_equal(
            (y, dx), (local(x), local.backward(x))
        )  # of this rank's rows, without running ones
        seen.append((ledger.entry("allreduce").calls, ledger.entry("allreduce").bytes))
        return seen, list(ledger.entries)

    for seen, operations in launch(talk, 3):
        assert seen == [(1, 8 * 11), (2, 8 * 11 + 8 * 10), (2, 8 * 11 + 8 * 10)]
        assert operations == ["allreduce"]


@pytest.mark.parametrize("layer", [nn.SyncBatchNorm, nn.AveragedBatchNorm])
def test_global_count_of_one_is_an_error_on_every_rank(layer) -> None:
    def lone_row(comm):
        with pytest.raises(CountError, match="count of 1"):
            layer(3, comm=comm)(np.ones((1 if comm.rank == 1 else 0, 3), np.float32))
        return True

    assert launch(lone_row, 3) == [True] * 3


@pytest.mark.parametrize("layer", [nn.SyncBatchNorm, nn.AveragedBatchNorm])
def test_all_ranks_empty_change_nothing(layer) -> None:
    def empty(comm):
        bn = layer(3, comm=comm)
        y = bn(np.ones((0, 3), np.float32))
        dx = bn.backward(y)
        assert y.shape == dx.shape == (0, 3)
        assert (bn.weight.grad == 0).all()
        masked = np.full((2, 3), np.nan, np.float32)
        y = bn(masked, weights=np.zeros(2))
        assert (y == 0).all()
        assert (bn.backward(masked) == 0).all()
        return bn.running_mean, bn.running_var, int(bn.num_batches_tracked)

    for mean, var, batches in launch(empty, 2):
        assert (mean == 0).all()
        assert (var == 1).all()
        assert batches == 0


def test_constant_channel_gives_the_bias() -> None:
    x = np.full((8, 2), 3.25, np.float32)
    bn = nn.BatchNorm(2)
    bn.bias.data[:] = 0.5
    np.testing.assert_array_equal(bn(x), 0.5)
    assert np.isfinite(bn.backward(x)).all()
    np.testing.assert_allclose(bn.running_var, 0.9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_far_from_0_in_every_dtype(dtype) -> None:
    x = (RNG.normal(size=(64, 3)) * 3 + 100).astype(dtype)
    bn = nn.BatchNorm(3)
    y = bn(x).astype(np.float64)
    np.testing.assert_allclose(
        y, (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64), atol=2e-3 if dtype == np.float16 else 1e-5
    )


def test_float16_counts_and_sums_do_not_overflow() -> None:
    """75,000 positions overflow a float16 count, and their squares a float16 sum."""
    x = np.full((75_000, 1), 10, np.float16)
    x[::2] = 12
    bn = nn.BatchNorm(1, momentum=1.0)
    np.testing.assert_allclose(np.abs(bn(x).astype(np.float32)), 1, atol=1e-3)
    assert bn.running_mean[0] == 11


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((4, 3), np.int64), DtypeError, "int64.*astype"),
        (np.ones((4, 3), bool), DtypeError, "bool.*astype"),
        (np.ones((4, 5), np.float32), ShapeError, r"\(4, 5\).*3 channels"),
        (np.ones(3, np.float32), ShapeError, "rank 2"),
    ],
)
def test_batch_norm_refuses(x, error, message) -> None:
    with pytest.raises(error, match=message):
        nn.BatchNorm(3)(x)


def test_constructor_refuses() -> None:
    for arguments in (
        {"num_features": 0},
        {"num_features": 3, "eps": -1},
        {"num_features": 3, "momentum": -0.1},
        {"num_features": 3, "momentum": 1.5},
    ):
        with pytest.raises(ArgumentError):
            nn.BatchNorm(**arguments)
    with pytest.raises(DtypeError, match="float16"):
        nn.BatchNorm(3, dtype=np.float16)


def test_one_row_in_training_is_an_error_but_not_in_eval() -> None:
    bn = nn.BatchNorm(3)
    with pytest.raises(CountError, match="more rows"):
        bn(np.ones((1, 3), np.float32))
    bn.eval()
    assert bn(np.ones((1, 3), np.float32)).shape == (1, 3)
    assert bn(np.ones((0, 3), np.float32)).shape == (0, 3)


def test_non_contiguous_input() -> None:
    x = RNG.normal(size=(6, 4, 5, 3))
    dy = RNG.normal(size=(6, 3, 4, 5))
    turned = x.transpose(0, 3, 1, 2)[::-1]
    results = []
    for given in (turned, np.ascontiguousarray(turned)):
        bn = nn.BatchNorm(3, dtype=np.float64)
        results.append((bn(given), bn.backward(dy)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


def test_weights_may_be_one_a_row() -> None:
    x, w = RNG.normal(size=(5, 3, 4)), np.array([1.0, 0, 2, 1, 1])
    a, b = nn.BatchNorm(3, dtype=np.float64), nn.BatchNorm(3, dtype=np.float64)
    np.testing.assert_array_equal(a(x, weights=w), b(x, weights=np.repeat(w[:, None], 4, 1)))
    with pytest.raises(ShapeError, match="weights"):
        a(x, weights=np.ones((5, 3)))


def test_cumulative_average_is_the_mean_over_batches() -> None:
    bn = nn.BatchNorm(2, momentum=None, dtype=np.float64)
    batches = [RNG.normal(size=(7, 2)) for _ in range(4)]
    for x in batches:
        bn(x)
    np.testing.assert_allclose(bn.running_mean, np.mean([x.mean(0) for x in batches], 0))
    np.testing.assert_allclose(bn.running_var, np.mean([x.var(0, ddof=1) for x in batches], 0))


def test_local_variance_does_not_go_through_the_wire_format() -> None:
    """Timestamps: mean / sd = 1.7e8, where total_sq - n mean^2 has no digit left."""
    x = 1.7e9 + 10 * RNG.normal(size=(256, 1))
    bn = nn.BatchNorm(1, momentum=1.0, dtype=np.float64)
    assert bn(x).std() == pytest.approx(1, abs=1e-6)
    assert bn.running_var[0] == pytest.approx(x.var(ddof=1), rel=1e-6)


def test_averaged_batch_norm_loses_the_variance_between_ranks() -> None:
    """Law of total variance: two ranks at 0 and 10 with spread 1 have variance 26, not 1."""

    def on_rank(comm):
        x = RNG_PAIR[comm.rank]
        bn = (
            nn.AveragedBatchNorm(1, momentum=1.0, comm=comm, dtype=np.float64),
            nn.SyncBatchNorm(1, momentum=1.0, comm=comm, dtype=np.float64),
        )
        return [float((b(x), b.running_var[0])[1]) for b in bn]

    RNG_PAIR = [np.array([[-1.0], [1.0]]), np.array([[9.0], [11.0]])]
    averaged, synced = launch(on_rank, 2)[0]
    assert averaged == pytest.approx(1 * 4 / 3)
    assert synced == pytest.approx(26 * 4 / 3)


def net(dtype=np.float64) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4, bias=False, dtype=dtype), nn.BatchNorm(4, dtype=dtype), nn.ReLU(), nn.Linear(4, 2, dtype=dtype)
    )


def test_state_dict_has_pytorch_names_and_round_trips() -> None:
    a, b = net(), net()
    a(RNG.normal(size=(8, 3)))
    state = a.state_dict()
    assert list(state) == [
        "0.weight",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
        "3.weight",
        "3.bias",
    ]
    assert state["1.num_batches_tracked"].dtype == np.int64
    b.load_state_dict(state)
    state["0.weight"][:] = 7  # copies, so this changes neither
    x = RNG.normal(size=(5, 3))
    np.testing.assert_array_equal(a.eval()(x), b.eval()(x))
    assert not (b[0].weight.data == 7).any()
    with pytest.raises(StateDictError, match=r"missing \['3.bias'\], unknown \['extra'\]"):
        b.load_state_dict({**{k: v for k, v in state.items() if k != "3.bias"}, "extra": np.ones(1)})
    with pytest.raises(StateDictError, match=r"0.weight.*\(2, 3\)"):
        b.load_state_dict({**state, "0.weight": np.ones((2, 3))})
    before = b.state_dict()
    with pytest.raises(StateDictError, match="whole numbers"):
        b.load_state_dict({**a.state_dict(), "0.weight": np.ones((4, 3)), "1.num_batches_tracked": np.array("x")})
    np.testing.assert_array_equal(b.state_dict()["0.weight"], before["0.weight"])
    c = net(np.float32)
    c.load_state_dict(a.state_dict())
    assert c[0].weight.data.dtype == np.float32


def test_forward_and_backward_pair_up() -> None:
    model = net()
    x = RNG.normal(size=(6, 3))
    with pytest.raises(ContextError, match=r"Call the model first"):
        model.backward(np.ones((6, 2)))
    model(x)
    with pytest.raises(ContextError, match=r"'0'.*1 forward"):
        nn.check_no_contexts(model)
    model.backward(np.ones((6, 2)))
    nn.check_no_contexts(model)
    with nn.no_backward(model):
        model(x)
    nn.check_no_contexts(model)
    loss = nn.BCEWithLogitsLoss()
    for _ in range(2):
        with pytest.raises(ContextError):  # nothing to go back through, or no more
            loss.backward()
        loss(np.ones(2), np.ones(2))
        loss.backward()


class Clipped(nn.BatchNorm):
    """A user's own subclass."""

    def __call__(self, x, weights=None):
        return np.clip(super().__call__(x, weights), -1, 1)


def test_conversion_keeps_everything_but_the_talk() -> None:
    shared = nn.BatchNorm(4, eps=0.1, momentum=None, dtype=np.float64)
    own = Clipped(4)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Sequential(own))
    own.eval()
    parameters, before = model.parameters(), model.state_dict()
    comm = SerialCommunicator()
    assert nn.convert_sync_batchnorm(model, comm) is model
    assert model[0] is model[2] is shared
    assert type(shared) is nn.SyncBatchNorm
    assert shared.comm is comm
    assert isinstance(own, nn.SyncBatchNorm)
    assert isinstance(own, Clipped)
    assert (own.training, shared.training, shared.eps, shared.momentum) == (False, True, 0.1, None)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert np.abs(own(RNG.normal(size=(9, 4)).astype(np.float32) * 9)).max() <= 1  # its own method survives
    duplicate = copy.deepcopy(model)
    assert duplicate[0].comm is comm
    assert duplicate[0] is duplicate[2]
    nn.revert_sync_batchnorm(model)
    assert type(shared) is nn.BatchNorm
    assert type(own) is Clipped
    root = nn.convert_sync_batchnorm(nn.BatchNorm(3), comm)
    assert type(root) is nn.SyncBatchNorm

    class OwnSums(nn.BatchNorm):
        def sum_backward(self, local):
            return local

    with pytest.raises(ArgumentError, match="its own sum_backward"):
        nn.convert_sync_batchnorm(OwnSums(3), comm)
    with pytest.raises(ArgumentError, match="AveragedBatchNorm"):
        nn.convert_sync_batchnorm(nn.Sequential(nn.AveragedBatchNorm(3)), comm)


@pytest.mark.parametrize("comm", [None, "mpi", nn.BatchNorm(2)])
def test_what_is_no_communicator_converts_nothing(comm) -> None:
    model = nn.Sequential(nn.BatchNorm(2), nn.BatchNorm(2))
    with pytest.raises(ArgumentError, match=r"comm: got .* expected a communicator"):
        nn.convert_sync_batchnorm(model, comm)
    assert [type(layer) for layer in model] == [nn.BatchNorm, nn.BatchNorm]
    if comm:
        with pytest.raises(ArgumentError, match="comm: got"):
            nn.SyncBatchNorm(2, comm=comm)


def test_a_class_that_cannot_be_derived_from_converts_nothing() -> None:
    def refuse(cls) -> None:
        raise TypeError("final")

    model = nn.Sequential(
        nn.BatchNorm(2), type("Final", (nn.BatchNorm,), {"__init_subclass__": classmethod(refuse)})(2)
    )
    with pytest.raises(TypeError, match="final"):
        nn.convert_sync_batchnorm(model, SerialCommunicator())
    assert type(model[0]) is nn.BatchNorm


def test_modules_come_in_a_fixed_order_and_parameters_once() -> None:
    tied = nn.Linear(3, 3)
    other = nn.Linear(3, 3)
    other.weight = tied.weight
    model = nn.Sequential(nn.Sequential(tied, nn.ReLU()), other)
    assert [type(m).__name__ for m in model.modules()] == ["Sequential", "Sequential", "Linear", "ReLU", "Linear"]
    assert [m for m in model.modules()] == [m for _, m in model.named_modules()]  # noqa: C416
    assert model.parameters() == [tied.weight, tied.bias, other.bias]
    for mode in (False, True):
        assert all(module.training is mode for module in model.train(mode).modules())  # however deep
        with nn.no_backward(model):
            assert not any(module._keeps_contexts for module in model.modules())
    assert "(0): Linear(weight (3, 3), bias (3,))" in repr(model)


def test_a_linear_layer_starts_uniform() -> None:
    """In +-1 / sqrt(in_features), weight and bias: almost at the bounds, and spread as a uniform is."""
    layer = nn.Linear(25, 400)
    for start in (layer.weight.data, layer.bias.data):
        assert 0.19 < -start.min() <= 0.2
        assert 0.19 < start.max() <= 0.2
        assert start.std() == pytest.approx(0.2 / 3**0.5, rel=0.1)


def test_communicators_are_not_pickled() -> None:
    import pickle

    with pytest.raises(ArgumentError, match="state_dict"):
        pickle.dumps(nn.SyncBatchNorm(3))


def test_other_layers_refuse_wrong_shapes() -> None:
    with pytest.raises(ShapeError, match="in_features"):
        nn.Linear(3, 2)(np.ones((4, 5), np.float32))
    with pytest.raises(ShapeError, match="trailing"):
        nn.LayerNorm(3)(np.ones((4, 5), np.float32))
    with pytest.raises(ShapeError, match="one weight per row"):
        nn.Flatten()(np.ones((2, 3, 4)), weights=np.ones((2, 4)))
    with pytest.raises(ShapeError, match="0 to 2"):
        nn.CrossEntropyLoss()(np.ones((2, 3)), np.array([0, 3]))
    with pytest.raises(DtypeError, match="integers"):
        nn.CrossEntropyLoss()(np.ones((2, 3)), np.array([0.0, 1.0]))
    with pytest.raises(ShapeError, match="Code the classes"):
        nn.BCEWithLogitsLoss()(np.ones(2), np.array([0.0, 2.0]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_relu_lets_nothing_through_where_it_was_0(dtype) -> None:
    """Not even what is no number: 0 times nan would be nan."""
    relu = nn.ReLU()
    relu(np.array([-1, -1, -1, 0, 2, 3], dtype))
    dx = relu.backward(np.array([np.nan, np.inf, -5, 7, np.nan, -4], dtype))
    np.testing.assert_array_equal(dx, np.array([0, 0, 0, 0, np.nan, -4], dtype))
