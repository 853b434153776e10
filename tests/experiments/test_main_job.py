"""The main job as a user runs it, and the effect it is there to show."""

from __future__ import annotations

import json
import math
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run, run_mpi

from syncbn_sim.cli.options import Options, flat, read_options
from syncbn_sim.comm import launch
from syncbn_sim.data import LogOptions
from syncbn_sim.errors import ArgumentError
from syncbn_sim.experiments import sorted_batches
from syncbn_sim.experiments.arms import ARMS
from syncbn_sim.experiments.arms_figure import order_gap
from syncbn_sim.experiments.arms_table import table
from syncbn_sim.experiments.result import recovery, summary
from syncbn_sim.experiments.sorted_batches import conclusion
from syncbn_sim.report import progress
from syncbn_sim.report.files import config_toml, write_run
from syncbn_sim.stats.estimates import Estimate

Axes = pytest.importorskip("matplotlib.axes").Axes
SCRIPT = "mpi_examples/train.py"
QUICK = ["--task", "digits", "--epochs", "1", "--seeds", "2"]


def test_config_refuses() -> None:
    for change, message in (
        ({"task": "mnist"}, "digits, requests, both, or a file"),
        ({"task": "digits", "log": LogOptions(label="click")}, "with options of a log"),
        ({"arms": ("sorted+synch",)}, r"Did you mean 'sorted\+sync'"),
        ({"arms": ()}, "one arm or more"),
        ({"seeds": 0}, "at least 1"),
        ({"lr": 0.0}, "above 0"),
        ({"rows": 1}, "at least 2 for an arm with local"),
        ({"optimizer": "lion"}, "adam or sgd"),
    ):
        with pytest.raises(ArgumentError, match=message):
            sorted_batches.Config(**change)


@pytest.mark.timeout(110)
def test_digits_collapse_under_local_batch_norm_and_recover_under_sync() -> None:
    """Label-sorted digits, 8 ranks x 4, 3 seeds: far inside the measured distance."""
    pytest.importorskip("sklearn")
    arms = ("iid+sync", "sorted+local", "sorted+sync", "iid+layer", "sorted+layer")
    result = launch(sorted_batches.run, 8, "lockstep", args=(sorted_batches.Config(arms=arms, seeds=3),))[0]
    accuracy = {arm: found["accuracy"].mean for arm, found in result.arms.items()}
    assert accuracy["sorted+local"] <= 0.40
    assert accuracy["sorted+sync"] >= 0.96
    assert abs(accuracy["iid+layer"] - accuracy["sorted+layer"]) <= 0.015
    assert result.recovery.mean > 0.95
    assert (result.sync.allreduces_per_layer_forward, result.sync.allreduces_per_layer_backward) == (1, 1)
    assert result.sync.bytes_per_step == 2 * 8 * ((2 * 64 + 1) + 2 * 64)
    assert result.behind["sorted+sync"].rows == 8 * result.behind["sorted+local"].rows == 32


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_request_log_loses_auc_under_local_batch_norm_and_sync_recovers_most() -> None:
    config = sorted_batches.Config(
        task="requests", arms=("iid+local", "iid+sync", "sorted+local", "sorted+sync"), seeds=5
    )
    result = launch(sorted_batches.run, 8, "threads", args=(config,))[0]
    assert result.differences["sorted+local"].mean <= -0.006
    assert result.differences["sorted+local"].interval[1] < 0
    assert result.recovery.mean >= 0.60


@pytest.fixture(scope="module")
def quick_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """The script on 2 ranks, as it comes (stacked), as threads and under mpirun: stdout and the folder it wrote."""
    found = {}
    for backend in ("stacked", "threads", "mpi"):
        out = tmp_path_factory.mktemp(backend)
        options = [*QUICK, "--out", str(out)]
        if backend == "mpi":
            done = run_mpi(2, SCRIPT, *options)
        else:
            chosen = ["--backend", "threads"] if backend == "threads" else []
            done = run([sys.executable, SCRIPT, "--ranks", "2", *chosen, *options])
        assert done.returncode == 0, done.stderr
        assert "digits:" in done.stderr  # the progress bar, of one rank: it counts up
        shown = [int(n) for n in re.findall(r"(\d+)/3360 ", done.stderr)]
        assert len(shown) > 2
        assert shown == sorted(shown)
        found[backend] = (done.stdout, next(out.iterdir()))
    return found


@pytest.mark.parametrize("backend", ["stacked", "threads", "mpi"])
def test_script_prints_a_table_and_a_sentence_and_writes_a_folder(backend: str, quick_runs: dict) -> None:
    stdout, folder = quick_runs[backend]
    assert stdout.count(f"digits: 2 ranks ({backend}) x 4 images") == 1
    assert all(f"\n{arm}" in stdout for arm in ARMS)
    assert ("not measured: stacked ranks add up without talk." in stdout) == (backend == "stacked")
    assert ("% of the time of a step here" in stdout) == (backend != "stacked")
    for words in (
        "sorted - iid, points",
        "effective",
        "all-reduce per layer forward",
        "order alone costs",
        "Written to",
    ):
        assert words in stdout
    assert sorted(p.name for p in folder.iterdir()) == ["config.toml", "curves.png", "result.json", "tables.txt"]
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["ranks"] == 2
    assert config["arms"] == list(ARMS)


def test_result_json_has_its_fields(quick_runs: dict) -> None:
    for backend, (_, folder) in quick_runs.items():
        (task,) = json.loads((folder / "result.json").read_text())
        assert (task["task"], task["ranks"], task["backend"]) == ("digits", 2, backend)
        assert set(task["arms"]) == set(ARMS)
        for metrics in task["arms"].values():
            summary = metrics["accuracy"]
            assert len(summary["values"]) == 2
            assert summary["mean"] == pytest.approx(np.mean(summary["values"]))
            assert summary["low"] <= summary["mean"] <= summary["high"]
            assert 0 <= summary["mean"] <= 1
        assert set(task["sync"]) == {
            "allreduces_per_layer_forward",
            "allreduces_per_layer_backward",
            "bytes_per_step",
            "share_of_step",
        }
        share = task["sync"]["share_of_step"]
        assert share is None if backend == "stacked" else 0 < share < 1
        assert task["seconds"] > 0


@pytest.mark.parametrize("backend", ["stacked", "mpi"])
def test_whatever_a_rank_is_the_same_is_found(backend: str, quick_runs: dict) -> None:
    """float32 nets trained on sums that differ in the last bit: the same accuracy but for a few images of 449."""
    a, b = (json.loads((quick_runs[each][1] / "result.json").read_text())[0]["arms"] for each in (backend, "threads"))
    for arm in ARMS:
        np.testing.assert_allclose(a[arm]["accuracy"]["values"], b[arm]["accuracy"]["values"], atol=0.02)


def test_one_stacked_rank_is_a_serial_run() -> None:
    pytest.importorskip("sklearn")
    config = sorted_batches.Config(arms=("iid+local", "iid+sync", "iid+averaged"), rows=64, epochs=1, seeds=1)
    stacked, serial = (launch(sorted_batches.run, 1, backend, args=(config,))[0] for backend in ("stacked", "serial"))
    assert stacked.arms == serial.arms
    assert 0 < stacked.sync.share_of_step < 1


def test_json_alone_on_stdout_and_config_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('task = "digits"\nseeds = 1\nepochs = 1\narms = ["sorted+sync"]\nranks = 3\n')
    out = tmp_path / "deep" / "runs"
    done = run(
        [sys.executable, SCRIPT, "--config", str(tmp_path / "c.toml"), "--ranks", "2", "--json", "--out", str(out)]
    )
    assert done.returncode == 0, done.stderr
    (task,) = json.loads(done.stdout)
    assert task["ranks"] == 2  # the command line wins over the file
    assert list(task["arms"]) == ["sorted+sync"]
    assert task["arms"]["sorted+sync"]["accuracy"]["low"] is None
    assert task["recovery"] is None
    assert len(list(out.iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "sorted+snyc"], "Did you mean 'sorted+sync'"),
        (["--rows", "1"], "at least 2"),
        (["--ranks", "0"], "whole number"),
        (["--sedes", "3"], "--seeds"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--task", "digits", "--ranks", "2000"], "full step"),
    ],
)
def test_bad_options_are_explained_and_nothing_is_written(options: list[str], message: str, tmp_path: Path) -> None:
    done = run([sys.executable, SCRIPT, *options, "--out", str(tmp_path / "runs")])
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_bad_option_under_mpirun_is_explained_once() -> None:
    done = run_mpi(3, SCRIPT, "--arms", "sorted+snyc")
    assert done.returncode != 0
    assert done.stderr.count("Did you mean") == 1


@pytest.mark.parametrize(
    ("wrong", "message"), [(["--arms", "sorted+snyc"], "Did you mean 'sorted+sync'"), (["--sedes", "3"], "--sedes")]
)
def test_bad_option_of_one_rank_alone_is_explained(wrong: list[str], message: str, tmp_path: Path) -> None:
    """As mpirun starts programs of different options, one behind the other; rank 0 has nothing to complain of."""
    right = [sys.executable, SCRIPT, *QUICK, "--out", str(tmp_path)]
    done = run_mpi(1, SCRIPT, *right[2:], ":", "-n", "1", *right, ":", "-n", "1", *right, *wrong)
    assert done.returncode != 0
    assert "[rank 2]" in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_teaches() -> None:
    done = run([sys.executable, SCRIPT, "--help"])
    assert done.returncode == 0
    for words in ("mpirun -n 8", "mean of means", "LayerNorm", "what the order costs", "intervals"):
        assert words in done.stdout


def test_run_folder_is_whole_or_absent(tmp_path: Path) -> None:
    first = write_run(tmp_path, "digits", {"a.txt": b"1"})
    second = write_run(tmp_path, "digits", {"a.txt": b"2"})  # in the same second
    assert first != second
    assert (second / "a.txt").read_bytes() == b"2"
    with pytest.raises(TypeError):
        write_run(tmp_path, "digits", {"a.txt": b"3", "b.txt": None})
    assert len(list(tmp_path.iterdir())) == 2


def test_config_toml_round_trips() -> None:
    options = {"task": 'odd "name"\\', "lr": 3e-3, "seeds": 5, "arms": ("a", "b"), "rows": None}
    assert tomllib.loads(config_toml(options)) == {"task": 'odd "name"\\', "lr": 3e-3, "seeds": 5, "arms": ["a", "b"]}


def test_sentence_claims_a_gap_only_where_the_interval_does() -> None:
    pytest.importorskip("sklearn")
    config = sorted_batches.Config(
        arms=("iid+local", "iid+sync", "sorted+local", "sorted+sync"), rows=300, epochs=1, seeds=2
    )
    result = launch(sorted_batches.run, 2, args=(config,))[0]
    for interval, words in (
        ((-0.004, 0.003), "sorting is not your problem"),
        ((-0.02, 0.003), "cannot tell whether sorting hurts"),
        ((-0.003, 0.02), "cannot tell whether sorting hurts"),
        ((-0.02, -0.01), "local batch norm falls from"),
        (None, "One seed: no interval, so no claim"),
    ):
        judged = replace(result, differences={"sorted+local": Estimate(-0.015, *(interval or (None, None)))})
        assert words in conclusion(judged)
    without = replace(result, recovery=None, recovery_against_iid_local=None)
    assert "no clear gap between sorted+local and iid+sync" in table(without)
    fewer = replace(result, arms={arm: found for arm, found in result.arms.items() if arm != "iid+local"})
    assert "the comparison needs" in conclusion(fewer)


def test_diverged_nets_are_called_so(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    options = ["--optimizer", "sgd", "--lr", "1e30", "--seeds", "1", "--epochs", "1", "--arms", "sorted+sync"]
    done = run(
        [sys.executable, "-W", "ignore", SCRIPT, "--task", "digits", "--ranks", "2", *options, "--out", str(out)]
    )
    assert done.returncode == 0, done.stderr
    json.loads((next(out.iterdir()) / "result.json").read_text())


def test_out_must_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run([sys.executable, SCRIPT, *QUICK, "--out", str(tmp_path / "file")])
    assert done.returncode != 0
    assert "expected a folder" in done.stderr


def test_json_has_null_for_what_is_not_plain() -> None:
    from syncbn_sim.report.files import _plain

    assert _plain({"a": [1.0, float("nan"), (float("inf"), "x", 2)]}) == {"a": [1.0, None, [None, "x", 2]]}


def test_nothing_is_recovered_where_nothing_was_learned() -> None:
    values = {"sorted+local": [-5.0, -5.2], "sorted+sync": [-2.4, -2.5], "iid+sync": [-3.3, -3.4]}
    assert recovery(values, "iid+sync", "r2", chance=0.0) is None
    assert (
        recovery({arm: [v + 9 for v in found] for arm, found in values.items()}, "iid+sync", "logloss", chance=0.0)
        is not None
    )


def test_intervals_stay_inside_what_is_possible_and_two_seeds_are_too_few() -> None:
    """The issue's own case: 67.37 [24.75, 109.99] from two seeds."""
    assert summary([0.6402, 0.7072], "accuracy").interval[1] == 1.0
    assert summary([0.02, 0.08], "logloss").interval[0] == 0.0
    assert summary([0.9, 0.98], "r2").interval[1] == 1.0
    wide = recovery(
        {"sorted+local": [0.19, 0.21], "sorted+sync": [0.5, 0.99], "iid+sync": [0.93, 0.95]}, "iid+sync", "auc"
    )
    whole = 0.94 - 0.2
    assert wide.interval == (pytest.approx((0 - 0.2) / whole), pytest.approx((1 - 0.2) / whole))


def test_every_arm_is_held_against_its_own_twin_and_every_norm_against_the_same_way() -> None:
    pytest.importorskip("sklearn")
    arms = ("iid+sync", "sorted+local", "sorted+sync", "sorted+layer", "sorted+none", "iid+none", "iid+local")
    config = sorted_batches.Config(arms=arms, rows=16, epochs=2, seeds=2)
    result = launch(sorted_batches.run, 4, args=(config,))[0]
    values = {arm: np.array(found["accuracy"].values) for arm, found in result.arms.items()}
    for norm in ("sync", "none", "local"):
        expected = (values[f"sorted+{norm}"] - values[f"iid+{norm}"]).mean()
        assert result.differences[f"sorted+{norm}"].mean == pytest.approx(expected)
        each = result.differences[f"sorted+{norm}"].values
        assert each == pytest.approx(tuple(values[f"sorted+{norm}"] - values[f"iid+{norm}"]))
    assert "sorted+layer" not in result.differences  # its twin did not run
    way = (values["iid+sync"] - values["sorted+local"]).mean()
    assert set(result.recovery_of_others) == {"layer", "none"}
    for norm, share in result.recovery_of_others.items():
        assert share.mean == pytest.approx((values[f"sorted+{norm}"] - values["sorted+local"]).mean() / way)
    text = table(result)
    assert "By the same formula, of the way to iid+sync: LayerNorm" in text
    assert "over 2 seeds, that is over new splits of the same images" in text
    assert "2 seeds can't tell the spread between seeds" in text
    assert "at this learning rate (0.003, the same for all arms) and 2 epochs" in text
    said = conclusion(replace(result, order_cost_without_norm=Estimate(0.01, 0.005, 0.015), recovery=None))
    assert "a worst case: nearly every local batch is of one class" in said
    assert "at another rate the loss can be smaller" in said
    mixed = {**result.behind, "sorted+local": replace(result.behind["sorted+local"], cluster_size=5.0)}
    assert "worst case" not in conclusion(replace(result, behind=mixed))


def read(*arguments: str) -> Options:
    return read_options(sorted_batches.EXPERIMENT, list(arguments), "train.py")


def test_names_are_separated_by_commas_or_spaces() -> None:
    assert read("--arms", "iid+local,sorted+sync", "iid+none").experiment.arms == (
        "iid+local",
        "sorted+sync",
        "iid+none",
    )
    assert read("--task=a.csv", "--arms=iid+local,", "--features=age,colour").experiment.log.features == (
        "age",
        "colour",
    )
    assert read().experiment == sorted_batches.Config(task="both")


def test_our_own_config_file_is_read_back(tmp_path: Path) -> None:
    for name in ("-x", "--label", "a=b", "", "with space", 'a "quote"', "é", "-", "#"):
        written = read("--task=a.csv", f"--label={name}", f"--entity={name}", f"--features={name}")
        kept = {key: value for key, value in flat(written).items() if key not in ("json", "out")}
        (tmp_path / "config.toml").write_text(config_toml(kept))
        again = read("--config", str(tmp_path / "config.toml"))
        assert replace(again, config=None) == written
        assert again.experiment.log.label == name


def test_a_flag_in_a_config_file_is_true_or_false(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    for value, expected in (("true", True), ("false", False)):
        path.write_text(f"json = {value}\n")
        assert read("--config", str(path)).json is expected
    for value in ('"no"', '"yes"', "0", "1", "[]"):
        path.write_text(f"json = {value}\n")
        with pytest.raises(ArgumentError, match=r"json: got .*expected true or false"):
            read("--config", str(path))


@pytest.mark.parametrize(("seconds_per_step", "told"), [(0.12, True), (7.0, True), (0.005, False)])
def test_a_long_training_is_announced(
    seconds_per_step: float, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """By the pace of the first steps, once, before most of the time has gone."""
    clock = iter(np.arange(0.0, 1e6, seconds_per_step))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    for show in (True, False):
        with progress.Progress(bars=show).steps("digits", {"arms": 2, "seeds": 5}, "--arms, --seeds") as on_step:
            for done in range(1, 61):
                on_step(done, 4000, "iid+local")
        minutes = round(4000 * seconds_per_step / 60)
        line = f"digits: 4,000 steps (2 arms x 5 seeds x 400), about {minutes} min at the pace of the first ones"
        assert capsys.readouterr().err.count(line) == (told and show)


def test_curves_carry_the_spread_of_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    config = sorted_batches.Config(arms=("iid+local", "sorted+local"), rows=64, epochs=2, seeds=3)
    result = launch(sorted_batches.run, 2, args=(config,))[0]
    for arm, curve in result.curves.items():
        assert len(curve["step"]) == len(curve["low"]) == len(curve["accuracy"]) == len(curve["high"])
        final = result.arms[arm]["accuracy"].values
        ends = [curve[name][-1] for name in ("low", "accuracy", "high")]
        np.testing.assert_allclose(ends, [min(final), np.mean(final), max(final)])
    drawn = []
    monkeypatch.setattr(Axes, "fill_between", lambda axes, x, low, high, **style: drawn.append((x, low, high)))
    order_gap([result])
    for (x, low, high), curve in zip(drawn, result.curves.values(), strict=True):
        np.testing.assert_array_equal(x, curve["step"])
        np.testing.assert_allclose([low, high], [np.multiply(100, curve["low"]), np.multiply(100, curve["high"])])


@pytest.fixture(scope="module")
def digits_on_two_ranks() -> sorted_batches.Result:
    config = sorted_batches.Config(arms=("iid+local", "sorted+local", "sorted+sync"), seeds=2, epochs=1, rows=64)
    return launch(sorted_batches.run, 2, "lockstep", args=(config,))[0]


def test_seeds_of_different_length_have_one_curve(tmp_path: Path) -> None:
    """A log is split by entity, so a seed may have more steps than another, and few of them."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(30), rng.integers(5, 60, 30))
    lines = [f"{user},{rng.normal():.4f},{rng.integers(2)}" for user in users]
    (tmp_path / "log.csv").write_text("\n".join(["user,x,click", *lines]))
    log = LogOptions(entity="user", label="click")
    config = sorted_batches.Config(
        task=str(tmp_path / "log.csv"), log=log, arms=("iid+sync",), epochs=1, seeds=8, rows=40
    )
    result = launch(sorted_batches.run, 4, "lockstep", args=(config,))[0]
    curve = result.curves["iid+sync"]
    assert {len(values) for values in curve.values()} == {5}
    assert curve["step"] == sorted(curve["step"])
    assert curve["auc"][-1] == pytest.approx(result.arms["iid+sync"]["auc"].mean)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((0.02, 0.01, 0.03), "it helps"),
        ((-0.002, -0.003, -0.001), "sorting is not your problem"),
        ((-0.01, -0.03, 0.01), "cannot tell"),
        ((-0.03, -0.04, -0.02), "local batch norm falls from"),
    ],
)
def test_the_conclusion_follows_the_interval_on_either_side_of_nothing(change, expected, digits_on_two_ranks) -> None:
    result = replace(digits_on_two_ranks, differences={"sorted+local": Estimate(*change)})
    said = sorted_batches.conclusion(result)
    assert expected in said
    assert sum(words in said for words in ("it helps", "not your problem", "cannot tell", "falls from")) == 1


def test_a_diverged_arm_is_said_before_any_other_is_called_the_best(digits_on_two_ranks) -> None:
    arms = {"iid+local": {"accuracy": Estimate(math.nan, None, None)}}
    assert "has diverged" in sorted_batches.conclusion(replace(digits_on_two_ranks, arms=arms))
