"""Metrics over ranks, the training step and what evaluation uses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbn_sim import nn, optim, train
from syncbn_sim.comm import LedgerCommunicator, SerialCommunicator, launch
from syncbn_sim.errors import ArgumentError, ContextError, CountError, ShapeError

RNG = np.random.default_rng(0)


def naive_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    gaps = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


@given(n=st.integers(4, 60), levels=st.integers(1, 6), seed=st.integers(0, 100))
def test_auc_over_ranks_is_exact_with_ties(n: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, levels, n).astype(float), np.arange(n) % 2.0
    cuts = sorted(rng.integers(0, n, 2))
    found = launch(
        lambda comm: train.auc(np.split(scores, cuts)[comm.rank], np.split(labels, cuts)[comm.rank], comm), 3
    )
    assert found == [pytest.approx(naive_auc(scores, labels), abs=1e-12)] * 3


def test_metrics_over_uneven_ranks() -> None:
    logits, labels = RNG.normal(size=(10, 3)), RNG.integers(0, 3, 10)
    z, clicks = RNG.normal(size=(10, 1)), np.arange(10) % 2.0
    p = 1 / (1 + np.exp(-z[:, 0]))
    entropy = -np.log(0.5)
    loss = -(clicks * np.log(p) + (1 - clicks) * np.log(1 - p)).mean()

    def on_rank(comm):
        mine = np.split(np.arange(10), [7, 7])[comm.rank]
        return (
            train.accuracy(logits[mine], labels[mine], comm),
            train.log_loss(z[mine], clicks[mine], comm),
            train.normalised_entropy(z[mine], clicks[mine], comm),
        )

    for found in launch(on_rank, 3):
        assert found == (
            pytest.approx((logits.argmax(1) == labels).mean()),
            pytest.approx(loss),
            pytest.approx(loss / entropy),
        )
    y = 3 + RNG.normal(size=10)
    z2 = y + 0.5 * RNG.normal(size=10)
    truth = 1 - ((y - z2) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    parts = [np.arange(7), np.arange(7, 7), np.arange(7, 10)]
    found = launch(lambda comm: train.r_squared(z2[parts[comm.rank], None], y[parts[comm.rank]], comm), 3)
    assert found == [pytest.approx(truth, rel=1e-12)] * 3
    alone = SerialCommunicator()
    for metric in (train.accuracy, train.log_loss):
        with pytest.raises(CountError):
            metric(np.ones((0, 2)), np.ones(0), alone)
    for metric in (train.auc, train.normalised_entropy):
        with pytest.raises(CountError):
            metric(np.ones(3), np.ones(3), alone)


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 5, bias=False, dtype=np.float64),
        nn.BatchNorm(5, dtype=np.float64),
        nn.ReLU(),
        nn.Linear(5, 3, dtype=np.float64),
    )


def test_step_sums_gradients_in_one_all_reduce_and_skips_an_empty_world() -> None:
    def on_rank(comm):
        ledger = LedgerCommunicator(comm)
        model = small_net()
        optimizer = optim.SGD(model.parameters(), 0.1)
        before = model.state_dict()
        nothing = train.step(model, nn.CrossEntropyLoss(), optimizer, ledger, np.ones((0, 4)), np.ones(0, int))
        unchanged = all((before[k] == v).all() for k, v in model.state_dict().items())
        calls = ledger.entry("allreduce").calls
        return (
            np.isnan(nothing),
            unchanged,
            calls,
            ledger.entry("allreduce").bytes == 8 * (sum(p.data.size for p in model.parameters()) + 2),
        )

    assert launch(on_rank, 2) == [(True, True, 1, True)] * 2


def test_a_step_with_weights_is_one_with_rows_repeated() -> None:
    """Layers, loss, count and gradient: a row of weight 2 is there twice, one of weight 0 not at all."""
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2]), np.array([2, 1, 0, 3, 1, 1])
    start, after, losses = small_net().state_dict(), [], []
    for rows, w in ((np.arange(6), weights.astype(float)), (np.repeat(np.arange(6), weights), None)):
        model = small_net()
        model.load_state_dict(start)
        optimizer = optim.SGD(model.parameters(), 0.1)
        losses.append(train.step(model, nn.CrossEntropyLoss(), optimizer, SerialCommunicator(), x[rows], y[rows], w))
        after.append(model.state_dict())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for key, value in after[1].items():
        np.testing.assert_allclose(after[0][key], value, rtol=1e-9, atol=1e-12)


def test_step_refuses_left_over_forward_passes() -> None:
    model = small_net()
    model(RNG.normal(size=(5, 4)))
    with pytest.raises(ContextError, match="no_backward"):
        train.step(
            model,
            nn.CrossEntropyLoss(),
            optim.SGD(model.parameters(), 0.1),
            SerialCommunicator(),
            RNG.normal(size=(5, 4)),
            np.zeros(5, int),
        )


def test_step_starts_clean_and_leaves_nothing_behind_when_it_fails() -> None:
    x, y = RNG.normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
    moved = []
    for stale in (False, True):
        f64 = {"dtype": np.float64}
        model = nn.Sequential(nn.Linear(4, 5, bias=False, **f64), nn.BatchNorm(5, **f64), nn.Linear(5, 3, **f64))
        loss, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1)
        if stale:
            model(x)
            model.backward(np.ones((6, 3)) * [1, -2, 3])  # somebody looked at gradients before
            model[1].load_state_dict(nn.BatchNorm(5, **f64).state_dict())
            with pytest.raises(CountError):
                train.step(model, loss, optimizer, SerialCommunicator(), x[:1], y[:1])
        train.step(model, loss, optimizer, SerialCommunicator(), x, y)
        moved.append(model.state_dict())
    for key in moved[0]:
        np.testing.assert_array_equal(moved[0][key], moved[1][key])


def test_an_optimiser_over_another_model_is_refused() -> None:
    x, y = RNG.normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
    model, other = small_net(), small_net()
    loss, alone = nn.CrossEntropyLoss(), SerialCommunicator()
    with pytest.raises(ArgumentError, match=r"optimizer: got .* none has a gradient.*model\.parameters\(\)"):
        train.step(model, loss, optim.SGD(other.parameters(), 0.1), alone, x, y)
    nn.check_no_contexts(model)
    assert all(p.grad is None for p in model.parameters())
    # Part of the model is enough, and where there is no row there is no gradient to look for.
    train.step(model, loss, optim.SGD(model.parameters()[-1:], 0.1), alone, x, y)
    train.step(model, loss, optim.SGD(other.parameters(), 0.1), alone, x[:0], y[:0])


def test_an_empty_world_leaves_no_gradients() -> None:
    model = small_net()
    optimizer = optim.SGD(model.parameters(), 0.1)
    train.step(model, nn.CrossEntropyLoss(), optimizer, SerialCommunicator(), np.ones((0, 4)), np.ones(0, int))
    assert all(p.grad is None for p in model.parameters())


def test_metrics_refuse_shapes_and_a_diverged_net_gets_no_score() -> None:
    alone = SerialCommunicator()
    for metric, width in ((train.accuracy, 3), (train.log_loss, 1), (train.auc, 1)):
        with pytest.raises(ShapeError, match="One label per row"):
            metric(np.ones((6, width)), np.ones((6, 1)), alone)
    lost, labels = np.full((6, 2), np.nan), np.arange(6) % 2
    assert train.accuracy(lost, labels, alone) == 0
    assert np.isnan(train.auc(lost[:, 0], labels, alone))


def test_statistics_for_evaluation() -> None:
    def on_rank(comm):
        bn = nn.BatchNorm(1, dtype=np.float64)
        bn.running_mean[:], bn.running_var[:] = comm.rank, 1 + comm.rank
        averaged = train.with_averaged_statistics(bn, comm, rows_seen=[30, 10][comm.rank])
        first = train.with_statistics_of_rank_0(bn, comm)
        untouched = train.with_averaged_statistics(bn, comm, rows_seen=0)
        assert first.running_var[0] == 1
        return (
            averaged.running_mean[0],
            averaged.running_var[0],
            first.running_mean[0],
            bn.running_mean[0],
            untouched.running_mean[0],
        )

    assert launch(on_rank, 2) == [(0.25, 1.25, 0, 0, 0), (0.25, 1.25, 0, 1, 1)]


def test_predict_restores_modes_and_keeps_no_contexts() -> None:
    model = small_net()
    model[1].eval()
    outputs = train.predict(model, RNG.normal(size=(10, 4)), rows=3)
    assert outputs.shape == (10, 3)
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    nn.check_no_contexts(model)
    assert train.predict(model, np.ones((0, 4))).shape == (0, 3)
