"""Orders, shards, the request log and the digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbn_sim import data, stats, train
from syncbn_sim.comm import SerialCommunicator
from syncbn_sim.errors import ArgumentError, DataError

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
    with pytest.raises(ArgumentError, match="rows: got 0, expected a whole number of at least 1"):
        list(data.batches(np.arange(3), 0, 1, 0))
    for count in (-1, 1.5):  # no pass at all is a number of passes; fewer are not
        with pytest.raises(ArgumentError, match=f"count: got {count}, expected a whole number of at least 0"):
            list(data.epochs(data.iid, np.arange(3), 0, 1, 1, count, [0]))
    assert list(data.epochs(data.iid, np.arange(3), 0, 1, 1, 0, [0])) == []
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
