"""The main job's figures, each held against the same thing done by hand, and its sentences against its figures."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from syncbn_sim import data, nn, optim
from syncbn_sim.comm import SerialCommunicator, launch
from syncbn_sim.comm.wrapper import Wrapper
from syncbn_sim.data.orders import iid, sorted_by_entity
from syncbn_sim.experiments import sorted_batches
from syncbn_sim.experiments.arms_table import table
from syncbn_sim.experiments.metrics import METRICS
from syncbn_sim.experiments.result import Result, recovery, summary
from syncbn_sim.experiments.sorted_batches import conclusion
from syncbn_sim.experiments.tasks import REQUESTS
from syncbn_sim.stats.estimates import Estimate

pytest.importorskip("scipy")
RANKS, ROWS, EPOCHS, SEEDS = 2, 8, 2, 2
ARMS = (
    "iid+local",
    "iid+sync",
    "sorted+local",
    "sorted+sync",
    "sorted+averaged",
    "iid+layer",
    "sorted+layer",
    "iid+none",
    "sorted+none",
)


def small_log(ranks: int, rows: int, seed: int, dtype: str) -> data.Split:
    """Six steps per epoch, and a test set that ranks cannot share evenly."""
    return data.request_log(6 * ranks * rows, 203, seed, dtype)


TASK = replace(REQUESTS, split=small_log)


@pytest.fixture(scope="module")
def found() -> Result:
    config = sorted_batches.Config(
        task="requests", arms=ARMS, seeds=SEEDS, rows=ROWS, epochs=EPOCHS, lr=0.01, dtype="float64"
    )
    return launch(lambda comm: sorted_batches.run(comm, config, task=TASK), RANKS, "threads")[0]


def trained_by_hand(comm, order, norm: str, seed: int) -> tuple[nn.Sequential, data.Split]:
    """The same training, spelled out: Adam, a rate that falls in a straight line, both epochs in an order of their own."""
    split = small_log(RANKS, ROWS, seed, "float64")
    layers, width = [], 24
    for depth in range(2):
        rng = np.random.default_rng([seed, 3, depth])
        layers.append(nn.Linear(width, 64, bias=norm in ("none", "layer"), dtype=np.float64, rng=rng))
        if norm == "local":
            layers.append(nn.BatchNorm(64, momentum=0.05, dtype=np.float64))
        layers.append(nn.ReLU())
        width = 64
    last = nn.Linear(64, 1, dtype=np.float64, rng=np.random.default_rng([seed, 3, 2]))
    model, loss = nn.Sequential(*layers, last), nn.BCEWithLogitsLoss()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for step in range(12):
        rows = order(split.train.entity, np.random.default_rng([seed, 4, step // 6]))
        mine = rows[comm.rank * 48 :][:48][step % 6 * ROWS :][:ROWS]
        loss(model(split.train.x[mine]), split.train.y[mine])
        model.backward(loss.backward())
        for parameter in model.parameters():
            parameter.grad = comm.allreduce(parameter.grad) / (RANKS * ROWS)
        optimizer.lr = 0.01 * (1 - step / 12)
        optimizer.step()
    return model, split


def log_loss_by_hand(model: nn.Sequential, split: data.Split) -> float:
    model.eval()
    with nn.no_backward(model):
        z = model(split.test.x)[:, 0]
    return float(np.mean(np.logaddexp(0, z) - split.test.y * z))


@pytest.mark.parametrize(
    ("arm", "order", "norm"), [("sorted+local", sorted_by_entity, "local"), ("iid+none", iid, "none")]
)
def test_an_arm_is_what_it_says(arm: str, order, norm: str, found: Result) -> None:
    """Own data, weights and orders for each seed; judged on every test row, with the mean of the ranks' statistics, and with rank 0's."""

    def on_rank(comm):
        losses = []
        for seed in range(SEEDS):
            model, split = trained_by_hand(comm, order, norm, seed)
            judged = [log_loss_by_hand(model, split) if comm.rank == 0 else 0.0]
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm):
                    layer.running_mean = np.mean(comm.allgather(layer.running_mean), axis=0)
                    layer.running_var = np.mean(comm.allgather(layer.running_var), axis=0)
            losses.append([log_loss_by_hand(model, split), *judged])
        return losses

    averaged, rank_0 = np.transpose(launch(on_rank, RANKS, "threads")[0])
    np.testing.assert_allclose(found.arms[arm]["logloss"].values, averaged, rtol=1e-9)
    assert averaged[0] != averaged[1]
    if norm == "local":
        np.testing.assert_allclose(found.rank0_statistics[arm]["logloss"].values, rank_0, rtol=1e-9)
        assert abs(rank_0 - averaged).min() > 1e-6
        assert set(found.rank0_statistics) == {"iid+local", "sorted+local"}


def test_what_the_order_costs_is_measured_without_a_norm(found: Result) -> None:
    values = {arm: np.array(metrics["auc"].values) for arm, metrics in found.arms.items()}
    expected = (values["iid+none"] - values["sorted+none"]).mean()
    assert expected != 0
    assert found.order_cost_without_norm.mean == pytest.approx(expected)  # positive where sorting hurts


def test_averaged_statistics_have_a_local_batch_behind_them(found: Result) -> None:
    assert {arm: behind.rows for arm, behind in found.behind.items()} == {
        "iid+local": ROWS,
        "iid+sync": RANKS * ROWS,
        "sorted+local": ROWS,
        "sorted+sync": RANKS * ROWS,
        "sorted+averaged": ROWS,
    }


def test_the_share_of_synchronising_is_of_the_steps_that_synchronise(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only talk moves: 4 calls of a norm layer of 1 s, and one for the gradient of 4 s."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    class Slow(Wrapper):
        def _allreduce(self, array, op):
            nonlocal now
            now += 1.0 if array.size <= 2 * 64 + 1 else 4.0
            return super()._allreduce(array, op)

    config = sorted_batches.Config(
        task="requests", arms=("iid+sync", "iid+none", "iid+local"), seeds=1, rows=8, epochs=1
    )
    result = sorted_batches.run(Slow(SerialCommunicator()), config, task=TASK)
    assert result.sync.share_of_step == pytest.approx(4 / 8)


def test_what_chance_reaches_is_nothing_to_recover() -> None:
    values = {"sorted+local": [0.40, 0.41], "sorted+sync": [0.42, 0.43], "iid+sync": [0.48, 0.49]}
    assert recovery(values, "iid+sync", "auc", chance=METRICS["auc"].chance) is None
    assert (
        recovery({arm: [v + 0.1 for v in found] for arm, found in values.items()}, "iid+sync", "auc", 0.5) is not None
    )
    learned = {"sorted+local": [0.40, 0.41], "sorted+sync": [0.6, 0.6], "iid+sync": [0.7, 0.71]}
    assert (
        recovery(learned, "iid+sync", "auc", chance=0.5) is not None
    )  # what counts is whether the reference has learned


def worded(found: Result, **means: float) -> Result:
    """The result with these AUCs, in every arm another one, and three seeds."""
    arms = {
        arm: {
            "auc": summary([mean - 0.001, mean, mean + 0.001], "auc"),
            "logloss": summary([0.51234] * 3, "logloss"),
            "ne": summary([0.98765] * 3, "ne"),
        }
        for arm, mean in ((name.replace("_", "+"), mean) for name, mean in means.items())
    }
    return replace(found, arms=arms, config={**found.config, "seeds": 3})


MEANS = {"iid_local": 0.81111, "iid_sync": 0.82222, "sorted_local": 0.73333, "sorted_sync": 0.80444}


def test_the_tables_digits(found: Result) -> None:
    lines = table(worded(found, **MEANS)).splitlines()
    row = next(line for line in lines if line.startswith("sorted+local"))
    assert "  73.33 [73.08, 73.58]  0.5123 [0.5123, 0.5123]  0.9877 [0.9877, 0.9877]  " in row


def test_every_line_below_the_table_has_its_own_figures(found: Result) -> None:
    result = replace(
        worded(found, **MEANS),
        recovery=Estimate(0.81, 0.7, 0.9),
        recovery_against_iid_local=Estimate(0.94, 0.85, 1.05),
        rank0_statistics={"sorted+local": {"auc": summary([0.66, 0.66, 0.66], "auc")}},
        sync=replace(found.sync, share_of_step=0.371),
        order_cost_without_norm=Estimate(0.0123, -0.001, 0.02),
    )
    text = table(result)
    for words in (
        "SyncBN recovers 81 % [70, 90] of the way from sorted+local to iid+sync.",
        "SyncBN recovers 94 % [85, 105] of the way from sorted+local to iid+local.",
        "saves them: AUC % 66.00 [66.00, 66.00].",
        " 37 % of the time of a step",
        "The order alone costs a net without normalisation 1.23 [-0.10, 2.00] points",
    ):
        assert words in text


def test_the_sentence_says_no_more_than_its_intervals(found: Result) -> None:
    result = replace(
        worded(found, **MEANS),
        differences={"sorted+local": Estimate(-0.0778, -0.08, -0.07)},
        recovery=Estimate(0.81, 0.7, 0.9),
        order_cost_without_norm=Estimate(0.0123, -0.001, 0.02),
    )
    said = conclusion(result)
    assert "local batch norm falls from 81.11 % to 73.33 % AUC" in said
    assert "it reaches 80.44 %" in said
    assert "SyncBN on shuffled data reaches 82.22 %: so it wins back 81 % [70, 90] of the way there" in said
    assert "points to the same order" not in said  # that interval covers 0
    clear = replace(result, order_cost_without_norm=Estimate(0.0123, 0.001, 0.02))
    assert "A net without normalisation loses 1.23 [0.10, 2.00] points to the same order" in conclusion(clear)
    gain = replace(result, differences={"sorted+local": Estimate(0.02, 0.01, 0.03)})
    assert "sorting is not your problem" not in conclusion(gain)  # an effect, if an odd one
    wide = replace(result, differences={"sorted+local": Estimate(-0.02, -0.06, 0.004)})
    assert "cannot tell whether sorting hurts" in conclusion(wide)
    alone = {arm: found for arm, found in result.arms.items() if arm != "iid+local"}
    assert "Of the arms that ran, iid+sync reaches the best AUC, 82.22 %" in conclusion(replace(result, arms=alone))
