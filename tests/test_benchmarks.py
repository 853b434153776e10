"""The benchmark at next to no size: it must not rot between the runs that count. No time is judged here."""

from __future__ import annotations

import math
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, mpirun_command, run

from benchmarks import __main__ as program
from benchmarks import goals, norms, rivals, simulated, step_times, timing
from benchmarks.goals import Measured
from benchmarks.scale import FULL, Shape
from benchmarks.timing import Spread

PNG = b"\x89PNG"


NIGHTLY = pytest.mark.slow  # ten seconds each, of code that others run too


@pytest.mark.parametrize(
    "part", [*(pytest.param(part, marks=NIGHTLY) for part in ("norms", "steps", "ranks", "start")), "talk", "growth"]
)
def test_each_part_writes_its_chapter(part: str, tmp_path) -> None:
    if part not in ("growth", "start") and mpirun_command() is None:
        pytest.skip("no mpirun")
    command = [sys.executable, "-m", "benchmarks", "--scale", "tiny", "--only", part, "--out", str(tmp_path)]
    done = run(command, seconds=110)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "RESULTS.md").read_text()
    assert "skipped, " not in text
    assert str(ROOT) not in text
    figures = list(tmp_path.glob("*.png"))
    assert bool(figures) == (part != "start")
    for figure in figures:
        assert figure.read_bytes().startswith(PNG)
        assert f"({figure.name})" in text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_who_computes_something_else_is_not_timed() -> None:
    batch = rivals.Batch(Shape((4, 3, 5, 5)))
    truth = rivals.plain(batch, np.float64)()
    y, dx, dw, db = rivals.ours(batch)()
    rivals.check_equal("ours", (y, dx, dw, db), truth)
    with pytest.raises(AssertionError, match="dx is off"):
        rivals.check_equal("wrong", (y, 1.01 * dx, dw, db), truth)
    with pytest.raises(AssertionError, match="wrong learns something else"):
        simulated.check_losses({"right": lambda: 1.0, "wrong": lambda: 1.01})


@pytest.mark.parametrize(
    "shape", [Shape((6, 3)), Shape((4, 3, 5, 5)), Shape((4, 5, 5, 3), last=True), Shape((6, 3), norm="LayerNorm")]
)
def test_all_rivals_agree(shape: Shape) -> None:
    assert {"ours", "plain", "copy"} <= set(step_times.checked_calls(rivals.Batch(shape)))


def test_calls_take_turns_and_ratios_are_paired() -> None:
    order = []
    times = timing.take_turns({name: lambda name=name: order.append(name) or time.sleep(1e-3) for name in "ab"}, 9)
    rounds = np.array(order[6:]).reshape(9, 2)
    assert {tuple(sorted(pair)) for pair in rounds} == {("a", "b")}
    assert len({tuple(pair) for pair in rounds}) == 2
    assert timing.ratio({"x": [2.0, 30.0, 4.0], "y": [1.0, 10.0, math.nan]}, "x", "y").median == 2.5
    assert len(times["a"]) == 9


def test_goals_show_the_worst_case_and_say_what_is_missed() -> None:
    good, bad = Spread(0.7, 0.6, 0.8), Spread(0.9, 0.8, 1.2)
    lines = goals.table(
        [Measured("norms/native", "A", good), Measured("norms/native", "B", bad), Measured("half", "C", bad)]
    )
    norms = next(line for line in lines if line.startswith("| GroupNorm"))
    assert norms.endswith("| 0.9 (0.8 to 1.2) | B | met by all 2 | **missed** by 1 of 2 |")
    assert next(line for line in lines if "half batch" in line).endswith("| C | met | **missed** |")
    assert "not measured" in next(line for line in lines if "jax" in line)


def test_every_goal_is_measured() -> None:
    sources = " ".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py") if path.name != "goals.py")
    simulated_ranks = {f"{count}x{rows}" for count, rows in FULL.simulated}
    for goal in goals.GOALS:
        assert goal.key in simulated_ranks or f'"{goal.key}"' in sources, goal.key
    of_shapes = {key for shape in FULL.shapes for key in norms.goals_of(shape)}
    assert of_shapes >= {goal.key for goal in goals.GOALS if goal.key.endswith(("/native", "/autograd"))}


def test_nothing_is_half_written(tmp_path, monkeypatch) -> None:
    (tmp_path / "RESULTS.md").write_text("the old ones")

    def interrupted(chosen, scale):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "measure", interrupted)
    with pytest.raises(SystemExit, match="nothing was written"):
        program.main(["--scale", "tiny", "--out", str(tmp_path)])
    with pytest.raises(TypeError):
        program.write(tmp_path, {"RESULTS.md": b"new", "figure.png": "not bytes"})
    assert [path.name for path in tmp_path.iterdir()] == ["RESULTS.md"]
    assert (tmp_path / "RESULTS.md").read_text() == "the old ones"


@pytest.mark.parametrize(("arguments", "scale"), [([], "full"), (["--quick"], "quick"), (["--scale", "tiny"], "tiny")])
def test_which_scale(arguments: list[str], scale: str, monkeypatch) -> None:
    def seen(chosen, chosen_scale):
        assert chosen_scale is program.SCALES[scale]
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "measure", seen)
    with pytest.raises(SystemExit, match="nothing was written"):
        program.main(arguments)
