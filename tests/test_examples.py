"""The example scripts print the numbers they promise, as threads and under mpirun."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run, run_mpi

SCRIPTS = ["hello_ranks", "three_sums", "sync_batch_norm_by_hand", "uneven_ranks", "mismatch"]


@pytest.fixture(scope="module", params=["threads", "mpi"])
def outputs(request: pytest.FixtureRequest) -> dict[str, tuple[int, str, str]]:
    """Each script run on three ranks (threads: its own default), with its exit code, stdout and stderr."""
    found = {}
    for name in SCRIPTS:
        script = f"mpi_examples/{name}.py"
        start = time.monotonic()
        done = run_mpi(3, script) if request.param == "mpi" else run([sys.executable, script])
        assert time.monotonic() - start < 5, name
        found[name] = (done.returncode, done.stdout, done.stderr)
    return found


def good(outputs: dict, name: str) -> str:
    code, stdout, stderr = outputs[name]
    assert code == 0, stderr
    assert stderr == ""
    return stdout


def test_hello_ranks(outputs: dict) -> None:
    lines = good(outputs, "hello_ranks").splitlines()[:-1]
    size = len(lines)
    total = 10 * size * (size + 1) / 2
    assert lines == [f"rank {r} of {size}: I brought {10 * (r + 1)}, together we have {total:g}" for r in range(size)]


def test_three_sums(outputs: dict) -> None:
    text = good(outputs, "three_sums")
    x = np.concatenate([np.arange(r + 2.0) + 10 * r for r in range(3)])
    assert "rank 1 has n=3, sum=33, sum of squares=365" in text
    for name in ("all together: n=9, ", "one big batch:     "):
        assert f"{name}mean={x.mean():.6f}, variance={x.var():.6f}" in text
    assert f"mean of the ranks' means: {np.mean([0.5, 11.0, 21.5]):.6f} (not the mean!)" in text


def test_sync_batch_norm_by_hand(outputs: dict) -> None:
    lines = good(outputs, "sync_batch_norm_by_hand").splitlines()[:-1]
    assert len(lines) >= 3
    for rank, line in enumerate(lines):
        assert line.startswith(f"rank {rank}: y[0] = [")
        assert line.endswith("equal to the big batch")


def test_uneven_ranks(outputs: dict) -> None:
    text = good(outputs, "uneven_ranks")
    x = [np.random.default_rng(0).normal(size=12), np.random.default_rng(1).normal(size=2) + 5]
    truth = np.concatenate(x)
    found = {
        m[1].strip(): (float(m[2]), float(m[3]))
        for m in re.finditer(r"^(.+?) mean +(\S+)  variance +(\S+)$", text, re.M)
    }
    assert (
        found["the truth"]
        == found["sums (SyncBN)"]
        == (pytest.approx(truth.mean(), abs=1e-4), pytest.approx(truth.var(ddof=1), abs=1e-4))
    )
    assert found["averages"][0] == pytest.approx((x[0].mean() + x[1].mean()) / 2, abs=1e-4)
    assert found["averages"][1] == pytest.approx((x[0].var() + x[1].var()) / 2 * 14 / 13, abs=1e-4)
    assert "rank 2: 0 rows" in text


def test_mismatch(outputs: dict) -> None:
    code, stdout, stderr = outputs["mismatch"]
    assert code != 0
    assert stdout.count("Look at the message below") == 1
    assert "rank 0: allreduce sum float64 (9,) by SyncBatchNorm 2 (call 2) at mismatch.py" in stderr
    assert "rank 1 (differs): allreduce sum float64 (16,) by SyncBatchNorm 1 (call 2) at mismatch.py" in stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_short(name: str) -> None:
    text = (ROOT / f"mpi_examples/{name}.py").read_text()
    assert text.count("\n") < 80
    assert f"{name}.py" in (ROOT / "mpi_examples/README.md").read_text()


def test_the_readmes_own_log_can_be_made_inspected_and_judged(tmp_path) -> None:
    """The commands of the README, in their order and in one folder; only training is left to other tests."""
    script = [sys.executable, str(ROOT / "mpi_examples/make_log.py"), "clicks.csv"]
    made = run(script, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"clicks.csv: 20,000 rows of [\d,]+ users, .*\n", made.stdout)
    commands = re.findall(r"^\.venv/bin/(syncbn-sim .*clicks\.csv.*?) +#", (ROOT / "README.md").read_text(), re.M)
    assert {command.split()[1] for command in commands} == {"inspect-log", "advise"}
    for command in commands:
        done = run([str(Path(sys.executable).parent / "syncbn-sim"), *command.split()[1:]], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "0.6" in done.stdout  # the correlation of 0.62
    assert run(script[:-1]).stderr.startswith("usage: make_log.py")
