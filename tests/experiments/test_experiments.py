"""Experiments: found by name, run by one runner; a new one is one file, a new norm in them one row."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, mpirun_command, run

from syncbn_sim import cli
from syncbn_sim.cli.options import Options, as_toml, flat, read_options
from syncbn_sim.data import LogOptions
from syncbn_sim.experiments import every, find
from syncbn_sim.experiments.norms import NORMS

PAGE = (ROOT / "docs/howto/new_experiment.md").read_text()
CODE = re.search(r"```python\n(.*?)```", PAGE, re.S)[1]
NAME = "small_batches"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's experiment in its folder: one file more, and nothing else changed."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "syncbn_sim", folder / "syncbn_sim", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / f"syncbn_sim/experiments/{NAME}.py").write_text(CODE)
    return folder


def command(house: Path, *arguments: str, ranks: int = 0, cwd: Path | None = None):
    """`syncbn-sim` of that copy."""
    mpirun = mpirun_command()
    if ranks and mpirun is None:
        pytest.skip("no mpirun")
    start = [mpirun, "-n", str(ranks)] if ranks else []
    env = {**os.environ, "PYTHONPATH": str(house)}
    return run([*start, sys.executable, "-m", "syncbn_sim", *arguments], 60, cwd=cwd or house, env=env)


def test_a_file_in_the_folder_is_listed_by_name_and_question(house: Path) -> None:
    listed = command(house, "list").stdout.splitlines()
    assert len(listed) == len(every()) + 1
    assert [line.split()[0] for line in listed] == sorted(line.split()[0] for line in listed)
    (line,) = (line for line in listed if line.startswith(NAME))
    assert line.endswith("  How much too small is the variance of a rank's own batch?")


@pytest.mark.parametrize("backend", ["threads", "lockstep", "mpi"])
def test_it_runs_and_leaves_a_folder_from_which_it_runs_again(backend: str, house: Path, tmp_path: Path) -> None:
    how = {"ranks": 4} if backend == "mpi" else {}
    chosen = [] if backend == "mpi" else ["--ranks", "4", "--backend", backend]
    done = command(house, "run", NAME, *chosen, "--rows", "5", "--out", str(tmp_path), **how)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(f"{NAME}-")
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    table = (folder / "tables.txt").read_text()
    assert "variance [95 % CI]" in table
    said = done.stdout.split("\n\n")
    assert table == f"{said[0]}\n\n{said[-1]}"  # between them: where it was written to
    (result,) = json.loads((folder / "result.json").read_text())
    assert (result["ranks"], result["backend"], result["rows"]) == (4, backend, 5)
    assert len(result["local"]["values"]) == 200
    assert result["local"]["low"] < 1 - 1 / 5 < result["local"]["high"]
    assert result["joined"]["low"] < 1 - 1 / 20 < result["joined"]["high"]
    again = command(
        house, "run", NAME, "--json", "--config", str(folder / "config.toml"), "--out", str(tmp_path), **how
    )
    assert json.loads(again.stdout) == [result]


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_file_of_ones_own_runs_where_it_lies(ranks: int, tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.py"
    path.write_text(CODE)
    done = command(ROOT, "run", str(path), "--seeds", "20", "--out", str(tmp_path / "runs"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert f"joined  {4 * (ranks or 8)} " in done.stdout


WRONG = (
    (["sorted_bathces"], "Did you mean 'sorted_batches'?"),
    (["sorted-batches"], "Did you mean 'sorted_batches'?"),
    (["tasks"], "expected sorted_batches."),  # a file of that folder, but no experiment
    (["nowhere.py"], "expected a file that is there"),
    (["nothing.py"], "expected a file with EXPERIMENT"),
    (["clash.py"], "options: got out, expected names that are not the runner's"),
    (["no_default.py"], "experiment small_batches: got rows without a default, expected"),
    (["not_frozen.py"], "experiment small_batches: got Config, which is not frozen, expected"),
    (["no_dataclass.py"], "experiment small_batches: got Config, which is no dataclass, expected"),
    (["slash.py"], "name: got 'a/b'"),
    (["path.py"], "option of: got PosixPath('x'), expected a number, a text"),
    (["no_result.py"], "result: got NoneType"),
    (["odd_result.py"], "result: got "),
    (["no_parts.py"], "small_batches.parts: got none, expected a config for each run"),
    (["table.py"], "small_batches.table: got a list, expected a str"),
    (["figure.py"], "small_batches.figure: got a NoneType, expected a bytes"),
    (
        [f"{NAME}.py", "--config", "other.toml"],
        "--config: got other.toml with arms, help, expected options of this experiment: ",
    ),
    ([f"{NAME}.py", "--config", ""], "--config: got "),
    ([f"{NAME}.py", "--row", "0"], "Perhaps you meant"),
    ([f"{NAME}.py", "--rows", "0"], "rows: got 0, expected a whole number of at least 1"),
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's experiment, one that wants an option of the runner's, and a file that is none."""
    (tmp_path / "nothing.py").write_text("")
    (tmp_path / f"{NAME}.py").write_text(CODE)
    (tmp_path / "other.toml").write_text('arms = ["iid+local"]\nhelp = true\n')
    rows, seeds, result = "rows: int = 4\n", "seeds: int = 200\n", "    return Result("
    for name, here, wrong in (
        ("clash", seeds, f"{seeds}    out: str = ''\n"),
        ("no_default", rows, "rows: int\n"),
        ("not_frozen", "@dataclass(frozen=True)\nclass Config", "@dataclass\nclass Config"),
        ("no_dataclass", "@dataclass(frozen=True)\nclass Config", "class Config"),
        ("slash", f'name="{NAME}"', 'name="a/b"'),
        ("path", seeds, f"{seeds}    of: Path = Path('x')\n"),
        ("no_parts", f'name="{NAME}"', f'name="{NAME}", parts=lambda config: []'),
        ("no_result", result, f"    return None\n{result}"),
        ("odd_result", result, f"    config = Config()\n    object.__setattr__(config, 'rows', {{1}})\n{result}"),
        ("table", "    rows = [[", "    return []\n    rows = [["),
        ("figure", "return png(", "png("),
    ):
        code = CODE.replace("import numpy", "from pathlib import Path\nimport numpy") if name == "path" else CODE
        assert here in code
        (tmp_path / f"{name}.py").write_text(code.replace(here, wrong).replace("seeds: int = 200", "seeds: int = 2"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_cannot_be_run_is_explained(
    arguments: list[str], message: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["syncbn-sim", "run", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    if "--row" in arguments:  # no such option: tyro says so
        assert message in capsys.readouterr().err
    else:
        assert message in str(end.value.code)
        assert str(end.value.code).startswith("syncbn-sim: ")
    # A figure is made last, and what has been found is not lost with it.
    assert (files / "runs").exists() == ("figure.py" in arguments)


@pytest.mark.parametrize(("arguments", "message"), [WRONG[0], *WRONG[-2:]])
def test_and_by_one_rank_alone(arguments: list[str], message: str, files: Path) -> None:
    done = command(ROOT, "run", *arguments, ranks=3, cwd=files)
    assert done.returncode != 0
    said = re.sub(r"\x1b\[[\d;]*m", "", done.stderr)  # Open MPI's ranks write on a terminal, so in colours
    assert said.count(message) == 1, said
    assert "Traceback" not in said


def test_a_file_may_be_called_like_any_module(files: Path) -> None:
    (files / "json.py").write_text(CODE)
    assert find("json.py").question == find(f"{NAME}.py").question
    assert sys.modules["json"] is json


def test_a_file_may_have_helpers_beside_it(files: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (files / "helper_beside.py").write_text("LEAST = 3")
    (files / "with_helper.py").write_text(f"from helper_beside import LEAST\n{CODE}")
    assert (
        command(ROOT, "run", str(files / "with_helper.py"), "--help", cwd=tmp_path_factory.mktemp("far")).returncode
        == 0
    )


def test_commands_in_the_help_can_be_typed(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "my own.py").write_text(CODE)
    monkeypatch.setattr(sys, "argv", ["syncbn-sim", "run", "my own.py", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    told = capsys.readouterr().out
    assert "mpirun -n 8 syncbn-sim run 'my own.py'  " in told
    assert "run my own.py" not in told


@pytest.mark.parametrize("broken", ["def f(:", "import sys; sys.exit(4)", "EXPERIMENT = 3", CODE])
def test_one_broken_file_leaves_the_others_alone(broken: str, house: Path) -> None:
    path = house / "syncbn_sim/experiments/broken.py"
    path.write_text(broken)
    try:
        listed = command(house, "list")
        assert (listed.returncode, len(listed.stdout.splitlines())) == (0, len(every()) + 1)
        assert "experiments/broken.py is left out: " in listed.stderr
        assert "Did you mean 'sorted_batches'?" in command(house, "run", "sorted_bathces").stderr
    finally:
        path.unlink()


def test_ranks_of_one_process_are_not_started_on_several(files: Path) -> None:
    done = command(ROOT, "run", f"{NAME}.py", "--backend", "threads", ranks=2, cwd=files)
    assert done.returncode != 0
    assert done.stderr.count("--backend: got threads under mpirun, which has started 2 processes") == 1
    assert "expected auto, mpi or hybrid there" in done.stderr
    done = command(ROOT, "run", "sorted_batches", "--backend", "threads", ranks=2, cwd=files)
    assert "expected auto, mpi, stacked or hybrid there" in done.stderr
    assert not (files / "runs").exists()


def test_only_what_says_so_is_stacked(files: Path) -> None:
    """Ranks of the page's experiment talk by themselves: refused where it is asked for, and where it says what is not true."""
    done = command(ROOT, "run", f"{NAME}.py", "--backend", "stacked", cwd=files)
    assert done.returncode != 0
    assert f"--backend: got stacked, and {NAME}, whose ranks talk by themselves, expected ranks that" in done.stderr
    (files / "bold.py").write_text(CODE.replace("    table=table,", "    table=table,\n    stackable=True,"))
    done = command(ROOT, "run", "bold.py", cwd=files)
    assert done.returncode != 0
    assert "stacked ranks: got allreduce of a rank by itself" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (files / "runs").exists()
    done = command(ROOT, "run", "bold.py", "--backend", "threads", "--seeds", "5", cwd=files)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("ranks", "processes", "backend"),
    [(None, 0, "stacked"), (1, 0, "serial"), (4, 1, "stacked"), (4, 2, "stacked"), (2, 2, "mpi"), (None, 2, "mpi")],
)
def test_what_ranks_are_where_nobody_has_said(
    ranks: int | None, processes: int, backend: str, files: Path, tmp_path: Path
) -> None:
    (files / "quiet.py").write_text(
        re.sub(
            "x = np.random.*\n.*comm.allreduce.*\n",
            "n, total, squares, variances = 8, 0.0, 8.0, comm.holders.allreduce(np.ones(1))[0]\n",
            CODE,
        ).replace("    table=table,", "    table=table,\n    stackable=True,")
    )
    chosen = ["--json", "--seeds", "3", *([] if ranks is None else ["--ranks", str(ranks)])]
    done = command(ROOT, "run", "quiet.py", *chosen, ranks=processes, cwd=files)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert (result["ranks"], result["backend"]) == (ranks or processes or 8, backend)


OPTIONS = """
    numbers: tuple[int, ...] = (1, 2)
    betas: tuple[float, float] = (0.9, 0.999)
    limit: float | None = 3.0
    name: str = ""
"""


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], ((1, 2), (0.9, 0.999), 3.0, "")),
        (["--numbers=-1,3", "--betas", "0.5,1e-9", "--limit", "None"], ((-1, 3), (0.5, 1e-9), None, "")),
        (
            ["--numbers", "4", "5", "--limit", "inf", "--name", "\U0001f600\x7f\u00e9"],
            ((4, 5), (0.9, 0.999), np.inf, "\U0001f600\x7f\u00e9"),
        ),
        (["--numbers="], ((), (0.9, 0.999), 3.0, "")),
    ],
)
def test_every_kind_of_option_is_read_back_from_its_config_file(
    arguments: list[str], found: tuple, files: Path
) -> None:
    (files / "options.py").write_text(CODE.replace("    seeds: int = 200\n", f"    seeds: int = 200{OPTIONS}"))
    experiment = find("options.py")
    written = read_options(experiment, arguments, "run")
    assert tuple(getattr(written.experiment, name) for name in ("numbers", "betas", "limit", "name")) == found
    (files / "config.toml").write_text(as_toml(experiment, written), encoding="utf-8")
    again = read_options(experiment, ["--config", "config.toml"], "run")
    assert again.experiment == written.experiment


@pytest.mark.parametrize("ranks", [0, 3])
def test_one_failing_rank_ends_all_and_leaves_nothing(ranks: int, tmp_path: Path) -> None:
    broken = CODE.replace(
        "            on_step(", "            assert comm.rank != 1, 'rank 1 has no data'\n            on_step("
    )
    (tmp_path / f"{NAME}.py").write_text(broken)
    arguments = [str(tmp_path / f"{NAME}.py"), "--out", str(tmp_path / "runs")]
    done = command(ROOT, "run", *arguments, *[] if ranks else ["--ranks", "3"], ranks=ranks)
    assert done.returncode != 0
    assert done.stderr.count("AssertionError: rank 1 has no data") == 1
    assert not (tmp_path / "runs").exists()


def test_a_figure_that_fails_loses_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.py").write_text(CODE.replace("    return png(drawing)", "    raise OSError('no fonts')"))
    arguments = ["run", str(tmp_path / f"{NAME}.py"), "--out", str(tmp_path / "runs")]
    done = command(ROOT, *arguments)
    assert done.returncode != 0
    assert "That says nothing of what a net makes of it." in done.stdout
    (folder,) = (tmp_path / "runs").iterdir()
    assert {file.name for file in folder.iterdir()} == {"result.json", "tables.txt", "config.toml"}
    assert json.loads((folder / "result.json").read_text())[0]["rows"] == 4
    assert json.loads(command(ROOT, *arguments, "--json").stdout)[0]["rows"] == 4


@pytest.mark.parametrize("name", every())
def test_every_experiment_keeps_the_rules(name: str) -> None:
    experiment = find(name)
    assert experiment.name == name
    assert experiment.question.endswith("?")
    assert "\n" not in experiment.question
    config = experiment.Config()  # every option has a default
    own = {field.name for field in fields(Options)} - {"experiment"}
    assert not own & set(flat(config))
    told = command(ROOT, "run", name, "--help").stdout
    for option in flat(config):
        line = re.search(rf"--{option.replace('_', '-')}\b[^\n]*(.*?)\(default", told, re.S)
        assert re.search("[a-z]{3}", line[0].split("}", 1)[-1].removeprefix(f"--{option}")), (
            f"{option} is not explained"
        )


def test_options_of_reading_a_log_are_the_same_wherever_one_is_read() -> None:
    told = []
    for arguments in (["inspect-log"], ["advise"], ["run", "sorted_batches"]):
        page = re.sub(r"[\s│]+", " ", command(ROOT, *arguments, "--help").stdout)
        told.append([re.search(rf"--{name} .*?\(default", page)[0] for name in flat(LogOptions())])
    assert told[0] == told[1] == told[2]


def test_experiments_are_found_without_what_only_drawing_and_commands_need() -> None:
    code = """
import sys
for name in ("mpi4py", "matplotlib", "tqdm", "tyro", "scipy", "sklearn", "threadpoolctl", "greenlet", "polars"):
    sys.modules[name] = None
import syncbn_sim.experiments
assert "syncbn_sim.experiments.sorted_batches" not in sys.modules  # imported when asked for
assert syncbn_sim.experiments.every()
"""
    done = run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr


def test_a_new_norm_is_one_row(house: Path, tmp_path: Path) -> None:
    """In the copy's table, and with that in help, errors, table, sentence and figure."""
    file = house / "syncbn_sim/experiments/norms.py"
    before = file.read_text()
    layer = "lambda width, **how: nn.BatchNorm(width, eps=1.0, **how)"
    row = f'    "twice": Norm("BN of twice x", "batch norm with a large eps", "#CC79A7", {layer}, uses_batch=True),\n'
    file.write_text(before.replace("\n}\nCOLOURS", f"\n{row}}}\nCOLOURS"))
    try:
        arms = "sorted+local,iid+sync,iid+twice,sorted+sync,sorted+twice"
        options = ["--task", "digits", "--arms", arms, "--epochs", "1", "--seeds", "3", "--ranks", "2"]
        done = command(house, "run", "sorted_batches", *options, "--out", str(tmp_path))
        told = command(house, "run", "sorted_batches", "--help").stdout
        wrong = command(house, "run", "sorted_batches", "--arms", "iid+twic").stderr
    finally:
        file.write_text(before)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^sorted\+twice .*  4 -> ", done.stdout, re.M)
    assert re.search("iid.twice is judged with running statistics averaged over ranks", done.stdout)
    assert "BN of twice x " in done.stdout
    assert "twice     batch norm with a large eps" in told
    assert "Did you mean 'iid+twice'?" in wrong
    (result,) = json.loads((next(tmp_path.iterdir()) / "result.json").read_text())
    assert "twice" in result["recovery_of_others"]


def compared_norms(source: str) -> list[int]:
    """Lines that ask a norm for its name, where the table should be asked what it does."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and constant.value in NORMS
    ]


def test_norms_are_not_told_apart_by_their_names() -> None:
    assert compared_norms('if arm.norm == "local":\n    pass') == [1]
    assert compared_norms('a = norm not in ("layer", "none")')
    for path in [*(ROOT / "syncbn_sim/experiments").glob("*.py"), *(ROOT / "syncbn_sim/report").glob("*.py")]:
        assert compared_norms(path.read_text()) == [], path
