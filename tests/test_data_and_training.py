"""Orders, shards, metrics, optimisers and the training step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbn_sim import data, nn, optim, stats, train
from syncbn_sim.comm import LedgerCommunicator, SerialCommunicator, launch
from syncbn_sim.errors import ArgumentError, ContextError, CountError, DataError, ShapeError

RNG = np.random.default_rng(0)


@given(total=st.integers(0, 200), size=st.integers(1, 9), rows=st.integers(1, 40))
def test_every_rank_gets_equally_many_batches_and_every_row_comes_once(total: int, size: int, rows: int) -> None:
    shards = [list(data.batches(np.arange(total), r, size, rows)) for r in range(size)]
    steps = data.steps_per_epoch(total, size, rows)
    assert all(len(shard) == steps for shard in shards)
    everything = np.concatenate([b for shard in shards for b in shard] or [np.arange(0)])
    np.testing.assert_array_equal(everything, np.arange(total))
    if total >= size * rows:
        full = [list(data.batches(np.arange(total), r, size, rows, drop_last=True)) for r in range(size)]
        assert all(len(b) == rows for shard in full for b in shard)
        assert len(full[0]) == data.steps_per_epoch(total, size, rows, drop_last=True) == total // (size * rows)


def test_batches_refuse() -> None:
    with pytest.raises(ArgumentError, match="at least 1 row"):
        list(data.batches(np.arange(3), 0, 1, 0))
    for rank, size in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ArgumentError, match="rank: got"):
            list(data.batches(np.arange(3), rank, size, 1))
    for seed in (3, None, "3"):
        with pytest.raises(ArgumentError, match=r"seed: got .* expected a sequence of whole numbers"):
            list(data.epochs(data.iid, np.arange(3), 0, 1, 1, 1, seed))
    with pytest.raises(DataError, match="full step"):
        list(data.batches(np.arange(3), 0, 2, 2, drop_last=True))
    with pytest.raises(DataError, match="equally many"):
        data.Dataset(np.ones((2, 1)), np.ones(3), np.ones(2))


def test_sorted_order_keeps_entities_together_and_redraws_theirs() -> None:
    entity = RNG.integers(0, 7, 100)
    orders = [data.sorted_by_entity(entity, np.random.default_rng(s)) for s in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(100))
        assert (np.diff(entity[order]) != 0).sum() == 6
    assert (entity[orders[0]] != entity[orders[1]]).any()


def test_request_log_is_what_it_says() -> None:
    split = data.request_log(60_000, 5_000, seed=0)
    assert split.train.x.shape == (60_000, 24)
    assert split.train.x.dtype == np.float32
    rho = stats.intra_class_correlation(split.train.x, split.train.entity)
    np.testing.assert_allclose(rho[:10], 1, atol=1e-3)
    np.testing.assert_allclose(rho[10:20], 0.3, atol=0.03)
    np.testing.assert_allclose(rho[20:], 0.5, atol=0.03)
    sizes = np.unique(split.train.entity, return_counts=True)[1]
    assert sizes[:-1].min() >= 4
    assert sizes.max() <= 256
    assert sizes.mean() == pytest.approx(13, abs=1)
    assert 0.2 < split.train.y.mean() < 0.4
    again = data.request_log(60_000, 5_000, seed=0)
    np.testing.assert_array_equal(again.train.x, split.train.x)
    assert (data.request_log(60_000, 5_000, seed=1).train.x != split.train.x).any()
    assert not np.isin(
        split.test.x[:, 0], split.train.x[:, 0]
    ).any()  # unseen users: none of their features appears in the log


def test_digits() -> None:
    pytest.importorskip("sklearn")
    pixels, labels = data.load_digits()
    split = data.split_digits(pixels, labels, seed=0)
    assert len(split.train) + len(split.test) == 1797
    assert (split.train.x.min(), split.train.x.max()) == (0, 1)
    joined = np.concatenate([split.train.x, split.test.x])
    assert {r.tobytes() for r in joined} == {r.tobytes() for r in pixels.astype(np.float32)}


def test_each_seed_keeps_other_images_for_the_test() -> None:
    pixels, labels = np.arange(40.0)[:, None], np.arange(40) % 10
    splits = [data.split_digits(pixels, labels, seed) for seed in (0, 1)]
    for split in splits:
        rows = np.concatenate([split.train.x[:, 0], split.test.x[:, 0]])
        np.testing.assert_array_equal(np.sort(rows), np.arange(40))  # each once: none is in both
        np.testing.assert_array_equal(split.test.y, split.test.x[:, 0] % 10)
    assert set(splits[0].test.x[:, 0]) != set(splits[1].test.x[:, 0])


def test_unseen_users_live_in_the_same_world() -> None:
    """What makes people click is learned from the log and holds for the test users: least squares ranks their clicks."""
    split = data.request_log(20_000, 4_000, seed=0, dtype=np.float64)
    slope = np.linalg.lstsq(split.train.x, split.train.y - split.train.y.mean(), rcond=None)[0]
    found = [train.auc(part.x @ slope, part.y, SerialCommunicator()) for part in (split.train, split.test)]
    assert found[0] > 0.7
    assert found[1] == pytest.approx(found[0], abs=0.03)


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


def test_optimisers_follow_their_equations() -> None:
    rng = np.random.default_rng(3)
    start, gradients = rng.normal(size=4), rng.normal(size=(5, 4))
    p = nn.Parameter(start, np.float64)
    sgd = optim.SGD([p], 0.1, momentum=0.9, weight_decay=0.01)
    value, v = start.copy(), np.zeros(4)
    for g in gradients:
        p.grad = g.copy()
        sgd.step()
        v = 0.9 * v + g + 0.01 * value
        value = value - 0.1 * v
        np.testing.assert_allclose(p.data, value, rtol=1e-13)
        assert p.grad is None
    p = nn.Parameter(start, np.float64)
    adam = optim.Adam([p], 0.1)
    value, m, s = start.copy(), np.zeros(4), np.zeros(4)
    for t, g in enumerate(gradients, start=1):
        p.grad = g.copy()
        adam.step()
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
        value = value - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(p.data, value, rtol=1e-12)
    for bad in (float("inf"), float("nan"), -1):
        with pytest.raises(ArgumentError, match="lr"):
            optim.SGD([p], bad)
    with pytest.raises(ArgumentError, match=r"model\.parameters"):
        optim.SGD([], 0.1)


def test_linear_decay() -> None:
    f = optim.linear_decay(10)
    assert [f(0), f(5), f(9), f(10)] == [1.0, 0.5, pytest.approx(0.1), 0.0]
    g = optim.linear_decay(10, warmup_steps=4)
    assert [g(s) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    with pytest.raises(ArgumentError):
        optim.linear_decay(4, warmup_steps=4)


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


def test_an_empty_world_leaves_no_gradients() -> None:
    model = small_net()
    optimizer = optim.SGD(model.parameters(), 0.1)
    train.step(model, nn.CrossEntropyLoss(), optimizer, SerialCommunicator(), np.ones((0, 4)), np.ones(0, int))
    assert all(p.grad is None for p in model.parameters())


def test_metrics_refuse_shapes_and_a_diverged_net_gets_no_score() -> None:
    alone = SerialCommunicator()
    for metric, width in ((train.accuracy, 3), (train.log_loss, 1), (train.auc, 1)):
        with pytest.raises(ShapeError, match="One label a row"):
            metric(np.ones((6, width)), np.ones((6, 1)), alone)
    lost, labels = np.full((6, 2), np.nan), np.arange(6) % 2
    assert train.accuracy(lost, labels, alone) == 0
    assert np.isnan(train.auc(lost[:, 0], labels, alone))


def test_one_blas_thread_a_rank() -> None:
    pools = pytest.importorskip("threadpoolctl").threadpool_info

    def threads(comm):
        return [pool["num_threads"] for pool in pools() if pool["user_api"] == "blas"]

    found = launch(threads, 2)
    assert found[0]
    assert all(count == 1 for ranks in found for count in ranks)


def test_settings_of_the_caller_hold_on_the_ranks() -> None:
    def divide(comm):
        return np.ones(1) / np.zeros(1)

    for backend, ranks in (("serial", 1), ("threads", 2), ("lockstep", 2)):
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            launch(divide, ranks, backend)


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
