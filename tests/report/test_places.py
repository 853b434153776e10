"""Where results go: known to be writable before the work, complete or not at all, and never lost to what lies there already."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run, run_mpi

from syncbn_sim.errors import DataError
from syncbn_sim.report import files

COMMAND = [sys.executable, "-m", "syncbn_sim"]
TRAIN = ["mpi_examples/train.py", "--task", "digits", "--arms", "iid+local", "--seeds", "1"]


@pytest.mark.parametrize("arguments", [["--ranks", "2"], []])
def test_a_folder_that_cannot_be_is_told_before_the_training(arguments: list[str], tmp_path: Path) -> None:
    """Below a file, and where nobody can make a folder: root, too, who may write everywhere else."""
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "runs", Path("/proc/runs"), tmp_path / "file"):
        command = [*TRAIN, "--epochs", "1000", "--out", str(out), *arguments]
        done = run([sys.executable, *command], 30) if arguments else run_mpi(2, *command, seconds=30)
        assert done.returncode != 0
        assert "out: got " in done.stderr
        assert "expected a folder that can be written" in done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_findings_are_told_where_their_folder_has_become_unwritable(tmp_path: Path) -> None:
    code = f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT / "mpi_examples")!r})
import train
from syncbn_sim.report import files
def full(self, content):
    raise OSError(28, "No space left on device")
pathlib.Path.write_bytes = full
sys.argv = {["train.py", *TRAIN[1:], "--epochs", "1", "--ranks", "1", "--out", str(tmp_path / "runs")]!r}
train.main()
"""
    done = run([sys.executable, "-c", code], 60)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr
    assert "reaches the best accuracy" in done.stdout.strip().splitlines()[-1]
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_an_earlier_process_of_this_number_left_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / f".digits-{os.getpid()}.partial").mkdir()
    first, second = (files.write_run(tmp_path, "digits", {"a": b"1"}) for _ in range(2))
    assert first != second
    assert (first / "a").read_bytes() == (second / "a").read_bytes() == b"1"
    assert first.stat().st_mode & 0o777 == 0o777 & ~umask()
    assert len(list(tmp_path.iterdir())) == 3


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"out: got .*runs"):
        files.write_run(tmp_path / "runs", "digits", {"a": b"1", "no/where": b"2"})
    assert list((tmp_path / "runs").iterdir()) == []
