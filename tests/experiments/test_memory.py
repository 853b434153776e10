"""What a run says it will take is what it takes, and it says so before."""

from __future__ import annotations

import tracemalloc
import weakref
from dataclasses import replace

import pytest

from syncbn_sim.comm import launch
from syncbn_sim.experiments import sorted_batches
from syncbn_sim.experiments.arms import Arm
from syncbn_sim.experiments.memory import peak_bytes
from syncbn_sim.experiments.norms import NORMS
from syncbn_sim.experiments.summarise import how_alike
from syncbn_sim.experiments.tasks import REQUESTS
from syncbn_sim.experiments.training import Recipe, Training
from syncbn_sim.report.progress import SILENT, Progress

RANKS = 32


def test_the_estimate_is_what_making_and_inspecting_the_data_take() -> None:
    total, features = REQUESTS.size(RANKS, REQUESTS.rows)
    tracemalloc.start()
    split = REQUESTS.split(RANKS, REQUESTS.rows, 0, "float32")
    how_alike(REQUESTS, split.train, ("sorted+sync",), RANKS, REQUESTS.rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(split.train) + len(split.test), split.train.x.shape[1]) == (total, features)
    assert peak_bytes(total, features, RANKS * REQUESTS.rows, 4) == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("norm", NORMS)
def test_the_arrays_of_a_step_are_not_more_than_the_estimate_has_for_them(norm: str) -> None:
    def steps(comm) -> int:
        split = REQUESTS.split(4, 8, 0, "float32")  # little data, many rows a step
        split = replace(split, train=split.train.take(slice(0, 4000)))
        task = replace(REQUESTS, rows=500, split=lambda *args: split)
        for trace in (lambda: None, tracemalloc.start):  # the first time what compiles the loops is loaded
            training = Training(comm, task, Recipe(epochs=3), Arm.parse(f"iid+{norm}"), split, 0)
            trace()
            for _ in training._train():
                pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    (peak, *_) = launch(steps, 8, "stacked")
    assert 0.9 * peak < peak_bytes(0, 24, 4000, 4) < 4 * peak


def test_a_run_that_takes_much_says_so_before_it_begins(capsys: pytest.CaptureFixture) -> None:
    def unmade(*args):
        raise MemoryError

    config = sorted_batches.Config(task="requests", seeds=1)
    for ranks, said in (
        (1024, "requests: 1,024 ranks x 32 impressions a step; a seed's data, 13,147,200 rows of 24 features, and "),
        (8, ""),
    ):
        task = replace(REQUESTS, split=unmade)
        with pytest.raises(MemoryError):
            launch(sorted_batches.run, ranks, "stacked", args=(config, Progress(words=True), task))
        told = capsys.readouterr().out
        assert said in told
        assert ("take about 3.8 GB of memory in each process." in told) == bool(said)


def test_a_seeds_data_are_gone_before_the_next_ones_are_made() -> None:
    made = []

    def split(*args):
        assert all(each() is None for each in made)
        found = REQUESTS.split(2, 8, 0, "float32")
        made.append(weakref.ref(found.train.x))
        return found

    config = sorted_batches.Config(task="requests", seeds=3, rows=64, arms=("iid+sync", "iid+local"))
    launch(sorted_batches.run, 2, "stacked", args=(config, SILENT, replace(REQUESTS, split=split)))
    assert len(made) == 3
