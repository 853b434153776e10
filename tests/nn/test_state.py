"""What PyTorch takes we take: momentum 0, weight without bias, old state dicts; conversion of subclasses; modules in plain lists."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import numpy as np
import pytest

from syncbn_sim import nn, optim
from syncbn_sim.comm import LedgerCommunicator, SerialCommunicator
from syncbn_sim.errors import ArgumentError, StateDictError
from syncbn_sim.stats import running

RNG = np.random.default_rng(4)
F64 = {"dtype": np.float64}
ALONE = SerialCommunicator()


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


@pytest.mark.parametrize(
    "build", [partial(nn.BatchNorm, 3, **F64), partial(nn.SyncBatchNorm, 3, **F64), partial(nn.LayerNorm, 3, **F64)]
)
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
    def __call__(self, x, weights=None):
        return np.clip(super().__call__(x, weights), -0.5, 0.5)


class ClippedSync(nn.SyncBatchNorm):
    def __call__(self, x, weights=None):
        return np.clip(super().__call__(x, weights), -0.5, 0.5)


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


@pytest.mark.parametrize(
    "wrap", [lambda m: [m], lambda m: (m, None), lambda m: {"a": m}, lambda m: [[1, m]], lambda m: {"a": {m}}]
)
@pytest.mark.parametrize(
    "what", [lambda: nn.Linear(2, 2), lambda: nn.Parameter(np.ones(2)), lambda: nn.Sequential(nn.ReLU())]
)
def test_a_module_in_a_plain_list_is_noticed(wrap, what) -> None:
    model = nn.Sequential(Holder(blocks=wrap(what())))
    for use in (
        model.parameters,
        model.state_dict,
        model.eval,
        lambda: nn.convert_sync_batchnorm(model, ALONE),
        lambda: model.load_state_dict({}),
    ):
        with pytest.raises(ArgumentError, match=r"Holder\.blocks.*nn\.ModuleList"):
            use()


def test_a_plain_list_of_what_is_an_attribute_too_is_none_of_our_business() -> None:
    linear = nn.Linear(2, 2)
    model = Holder(linear=linear, order=[linear], tied=[linear.weight], sizes=[1, 2], names={"a": "b"})
    assert len(model.train().parameters()) == 2
