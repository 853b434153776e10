"""The lessons: sources run, notebooks are generated from them, and every exercise knows right from wrong."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run

from syncbn_sim.lessons import LESSONS, check, examine, exercises

SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
NAMES = [source.stem for source in SOURCES]
ALL = {number: (lesson, e) for lesson in LESSONS for number, e in exercises(lesson).items()}
WRONG = {
    number: answers
    for path in sorted((ROOT / "tests/lessons/wrong_answers").glob("lesson_*.py"))
    for number, answers in runpy.run_path(str(path))["WRONG"].items()
}
CASES = [(number, place) for number, answers in WRONG.items() for place in range(len(answers))]


def solutions(lesson: int) -> dict:
    return runpy.run_path(str(next((ROOT / "notebooks/solutions").glob(f"{lesson:02}_*.py"))))


def test_there_is_a_source_for_every_lesson() -> None:
    assert [int(name[:2]) for name in NAMES] == list(LESSONS)
    assert [p.stem for p in sorted((ROOT / "notebooks").glob("*.ipynb"))] == NAMES
    assert [p.stem for p in sorted((ROOT / "notebooks/solutions").glob("*.py"))] == NAMES
    answers = sorted((ROOT / "tests/lessons/wrong_answers").glob("lesson_*.py"))
    assert [int(p.stem[-2:]) for p in answers] == list(LESSONS)


def test_a_new_lesson_is_a_new_file(tmp_path: Path) -> None:
    """It is found by its name: nobody counts lessons."""
    shutil.copytree(ROOT / "syncbn_sim", tmp_path / "syncbn_sim", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "syncbn_sim/lessons/lesson_42.py").write_text("""
from .exercise import Exercise

EXERCISES = [Exercise("42.1", "twice", "twice what?", lambda x: 2 * x, lambda rng: [(3,)], (), "that is all")]
""")
    code = "from syncbn_sim.lessons import LESSONS, check; print(LESSONS[-1]); check('42.1', lambda x: x + x)"
    done = run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert done.stdout.splitlines() == ["42", "42.1 right: that is all"], done.stderr


DRIVER = """
import runpy, sys
import ipywidgets as widgets
import matplotlib.pyplot as plt
import syncbn_sim.lessons

def at_both_ends(function, **controls):
    for end in (0, -1):
        for control in controls.values():
            if hasattr(control, "options"):
                control.index = range(len(control.options))[end]
            elif hasattr(control, "min"):
                control.value = (control.min, control.max)[end]
            else:
                control.value = bool(end)
        assert function(**{name: control.value for name, control in controls.items()}) is None

syncbn_sim.lessons.interact = widgets.interact = at_both_ends
plt.show = lambda: plt.close("all")
runpy.run_path(sys.argv[1], run_name="__main__")
"""

# A lesson takes at most 20 s of a core whose small NumPy call takes 0.4 us; of one that is slower just now, up to three times that.
TIMED = f"""
import time
from benchmarks.timing import numpy_call

before, start = numpy_call(), time.process_time()
{DRIVER}
took = time.process_time() - start
limit = 20 * min(max((before + numpy_call()) / 2 / 0.4e-6, 1), 3)
assert took < limit, (took, limit)
"""


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_source_runs_with_every_slider_at_both_ends_and_every_stub_gets_its_hint(source: Path) -> None:
    env = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = run([sys.executable, "-W", "error", "-c", TIMED, str(source)], 200, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    for number, exercise in exercises(int(source.stem[:2])).items():
        assert f"{number} not yet: {exercise.start}" in done.stdout


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_lesson_has_its_parts(source: Path) -> None:
    text = source.read_text()
    for part in (
        "**You will**",
        "**Before:**",
        "## Summary",
        "## Exercises",
        "widgets.",
        "continuous_update=False",
        "git+https",
    ):
        assert part in text, part
    assert re.search(r"what do you expect|before you look|guess|predict", text, re.I)
    assert 3 <= len(exercises(int(source.stem[:2]))) <= 5


def test_a_bar_is_a_mean_in_every_lesson() -> None:
    """Gradients are dx and dy, as in code."""
    for source in SOURCES:
        for letter in re.findall(r"\\(?:bar|overline)\s*\{?(\\?[a-z]+)", source.read_text()):
            assert letter not in ("y", r"\beta", r"\gamma", r"\hat", r"\sigma"), (source.stem, letter)


def test_lesson_00_trains_as_many_nets_as_it_says() -> None:
    text = SOURCES[0].read_text()
    arms = re.search(r"arms=\((.*?)\)", text, re.S)[1].split(",")
    assert len([arm for arm in arms if arm.strip()]) == 6
    assert text.count("in six ways") == 2
    assert " three times" not in text


def test_set_up_cells_are_all_the_same() -> None:
    cells = {re.search(r"import importlib\.util.*?\n\n# %%", source.read_text(), re.S)[0] for source in SOURCES}
    assert len(cells) == 1
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert f'"git+{repository}"' in cells.pop()


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_notebook_is_generated_from_its_source(source: Path, tmp_path: Path) -> None:
    made = tmp_path / f"{source.stem}.ipynb"
    jupytext, strip = (Path(sys.executable).parent / name for name in ("jupytext", "nbstripout"))
    assert run([str(jupytext), "--to", "ipynb", "--output", str(made), str(source)]).returncode == 0
    assert run([str(strip), str(made)]).returncode == 0
    assert made.read_text() == source.with_suffix(".ipynb").read_text(), "run `make notebooks`"


@pytest.mark.parametrize("number", ALL)
def test_solution_passes(number: str) -> None:
    lesson, exercise = ALL[number]
    verdict = examine(exercise, solutions(lesson)[exercise.name])
    assert verdict.passed, verdict.message
    assert verdict.message == exercise.done


@pytest.mark.parametrize("number", ALL)
def test_stub_gets_the_first_hint(number: str) -> None:
    exercise = ALL[number][1]
    assert examine(exercise, lambda *args: None).message == exercise.start

    def unwritten(*args: object) -> None:
        raise NotImplementedError

    assert examine(exercise, unwritten).message == exercise.start


@pytest.mark.parametrize("number", ALL)
def test_every_mistake_has_a_hint_of_its_own_that_a_planted_answer_gets(number: str) -> None:
    exercise = ALL[number][1]
    hints = [mistake.hint for mistake in exercise.mistakes]
    assert len(set(hints)) == len(hints)
    told = {examine(exercise, wrong).message for wrong, _ in WRONG[number]}
    assert set(hints) <= told, set(hints) - told


@pytest.mark.parametrize(("number", "place"), CASES)
def test_wrong_answer_gets_its_hint(number: str, place: int) -> None:
    wrong, word = WRONG[number][place]
    verdict = examine(ALL[number][1], wrong)
    assert not verdict.passed
    assert word in verdict.message


def test_check_prints(capsys: pytest.CaptureFixture[str]) -> None:
    check("2.1", lambda x, eps: 1 / 0)
    check("2.1", lambda x, eps: "no")
    check("2.1", lambda x, eps: (x, x))
    check("2.1", lambda x, eps: x * float("nan"))
    assert capsys.readouterr().out.splitlines() == [
        "2.1 not yet: it stopped with ZeroDivisionError: division by zero",
        "2.1 not yet: case 1: it returns str 'no', expected numbers",
        "2.1 not yet: case 1: the shape is (2, 4, 3), expected (4, 3)",
        "2.1 not yet: case 1: there are NaN or infinite numbers in it",
    ]
    with pytest.raises(Exception, match=r"9\.9.*2\.1|9\.9"):
        check("9.9", print)


def test_an_answer_that_talks_too_much_is_told_so() -> None:
    exercise = replace(ALL["0.3"][1], calls=1)

    def two_calls(comm, right):
        return comm.allreduce(np.array(float(right.sum()))) / comm.allreduce(np.array(float(len(right))))

    assert "makes 2 collective calls; this exercise asks for 1" in examine(exercise, two_calls).message
    assert examine(exercise, solutions(0)["global_accuracy"]).passed


def test_a_check_that_counts_its_calls_does_not_pass() -> None:
    """Whatever the pattern of right and wrong pairs may be, it must not be possible to know it beforehand."""
    exercise = ALL["3.3"][1]
    for last in range(1, 5):
        calls = iter(range(1000))
        assert not examine(exercise, lambda *pair, calls=calls, last=last: next(calls) < last).passed
    in_order = [True, True, *(False for _ in exercise.mistakes)] * 2
    answers = iter(in_order)
    assert not examine(exercise, lambda *pair: next(answers)).passed


def test_right_answers_in_another_container_pass() -> None:
    right = {number: solutions(lesson)[e.name] for number, (lesson, e) in ALL.items()}
    for number, attempt in {
        "0.2": lambda labels: np.array(right["0.2"](labels)),
        "0.3": lambda comm, right_rows: np.array([right["0.3"](comm, right_rows)]),
        "1.4": lambda x: list(right["1.4"](x)),
        "2.1": lambda x, eps: right["2.1"](x, eps).tolist(),
        "3.1": lambda dy, x_hat: np.stack(right["3.1"](dy, x_hat)),
        "3.3": lambda *pair: np.bool_(right["3.3"](*pair)),
        "5.5": lambda *args: np.array(right["5.5"](*args)),
    }.items():
        assert examine(ALL[number][1], attempt).message == ALL[number][1].done, number
    told = examine(ALL["1.3"][1], lambda *args: np.atleast_3d(right["1.3"](*args)))
    assert "keepdims" in told.message


def test_changed_arguments_are_remarked() -> None:
    def standardize(x, eps):
        x -= x.mean(axis=0)
        return x / np.sqrt((x**2).mean(axis=0) + eps)

    right = examine(ALL["2.1"][1], standardize)
    assert right.passed
    assert right.message.startswith(ALL["2.1"][1].done)
    assert "It changes x in place" in right.message

    def largest(comm, x):
        np.abs(x, out=x)
        return comm.allreduce(x.max(axis=0, initial=0.0))

    wrong = examine(ALL["5.3"][1], largest)
    assert not wrong.passed
    assert "were added up" in wrong.message
    assert "It changes x in place" in wrong.message


def test_a_forgotten_return_is_told_as_one() -> None:
    def no_return(x, eps):
        mean = x.mean(axis=0)
        (x - mean) / np.sqrt(x.var(axis=0) + eps)

    def no_verdict(forward, backward, x, rng):
        np.allclose(backward(x, x), 0)

    def on_ranks(comm, right):
        comm.allreduce(np.array([1.0]))

    for number, attempt in (("2.1", no_return), ("3.3", no_verdict), ("0.3", on_ranks)):
        assert "a `return` is missing" in examine(ALL[number][1], attempt).message


def test_a_difference_says_where() -> None:
    assert examine(ALL["0.3"][1], lambda comm, right: comm.allreduce(np.array(0.5))).message.startswith(
        "case 1, rank 0: "
    )
    assert examine(ALL["0.2"][1], lambda labels: (0, 0)).message.startswith("case 1, result 1: ")


def test_a_learner_cannot_change_the_cases() -> None:
    def spoil(x, eps):
        x *= 0
        return x

    assert not examine(ALL["2.1"][1], spoil).passed
    assert examine(ALL["2.1"][1], solutions(2)["standardize"]).passed


# What users type, but for one thing: a client that talks to the kernel while it waits for a cell's end may miss that (nbclient issue 312).
EXECUTE = """
import sys
from nbclient.output_widget import OutputWidget
from nbconvert.nbconvertapp import main

def talks(self):
    raise AssertionError("the client talks while it waits: see lessons/sliders.py")

OutputWidget.sync_state = talks
main(["--to", "notebook", "--execute", "--stdout", "--log-level=ERROR", sys.argv[1]])
"""


def executed(notebook: Path) -> list[dict]:
    """The outputs of a notebook, run as `jupyter nbconvert --execute` does."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = run([sys.executable, "-c", EXECUTE, str(notebook)], 90, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return [output for cell in json.loads(done.stdout)["cells"] for output in cell.get("outputs", [])]


def kinds(outputs: list[dict]) -> list[str]:
    return [kind for output in outputs for kind in output.get("data", {})]


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_notebook_runs_in_a_real_kernel(source: Path) -> None:
    found = kinds(executed(source.with_suffix(".ipynb")))
    assert found.count("image/png") >= 2
    assert "application/vnd.jupyter.widget-view+json" in found


def test_sliders_hand_their_figure_over_whole(tmp_path: Path) -> None:
    cell = """%matplotlib inline
import ipywidgets as widgets, matplotlib.pyplot as plt
from syncbn_sim.lessons import interact
slider = widgets.IntSlider(value=1, min=0, max=3)
def draw(height):
    plt.plot([0, height])
    plt.show()
    print("height", height)
interact(draw, height=slider)
slider.value = 2
shown = next(w for w in widgets.Widget.widgets.values() if isinstance(w, widgets.Output))
for output in shown.outputs:
    print(output["output_type"], output.get("text") or list(output["data"]))
"""
    code = {"cell_type": "code", "source": cell, "id": "a", "metadata": {}, "outputs": [], "execution_count": None}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = tmp_path / "book.ipynb"
    book.write_text(json.dumps({"cells": [code], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    outputs = executed(book)
    assert "application/vnd.jupyter.widget-view+json" in kinds(outputs)
    text = "".join(
        output.get("text", "") if isinstance(output.get("text"), str) else "".join(output.get("text", []))
        for output in outputs
    )
    assert "height 2" in text
    assert "height 1" not in text
    assert "image/png" in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_first_cell_installs_from_the_repository(tmp_path: Path) -> None:
    """As on a hosted notebook service: a bare environment, the repository's address answered by this checkout."""
    cell = re.search(r"import importlib\.util.*?\n\n(?=# %%)", SOURCES[0].read_text(), re.S)[0]
    python = str(tmp_path / "env/bin/python")
    assert run([sys.executable, "-m", "venv", str(tmp_path / "env")]).returncode == 0
    env = {
        **os.environ,
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.file://{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": re.search(r"git\+(https://[^\"]+)", cell)[1],
        "GIT_CONFIG_KEY_1": "safe.directory",
        "GIT_CONFIG_VALUE_1": "*",
    }
    program = f"{cell}\nfrom syncbn_sim.lessons import check\nprint(check)"
    done = subprocess.run([python, "-c", program], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "function check" in done.stdout
