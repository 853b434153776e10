"""Ranks for the tests: threads in this process, MPI through an mpirun of our own that cannot outlive its time limit."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("suite")


def mpirun_command() -> str | None:
    """The mpirun beside this Python, else the one on the PATH."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def run(command: list[str], seconds: float = 60, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process group of its own; kills the whole group when time is up."""
    options = {"cwd": ROOT, **kwargs}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{command} was still running after {seconds} s\n{out[-2000:]}\n{err[-4000:]}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_mpi(ranks: int, *arguments: str, seconds: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs mpirun -n ranks python arguments..., with this checkout and its tests/ importable."""
    mpirun = mpirun_command()
    if mpirun is None:
        pytest.skip("no mpirun")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **environment}
    return run([mpirun, "-n", str(ranks), sys.executable, *arguments], seconds, env=env)


MPI_CASES = [(1, False), (2, False), (2, True), (3, True), (4, False), (4, True), (8, True)]  # ranks, crowded


@functools.cache
def mpi_matrix(ranks: int, crowded: bool) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """One mpirun for the whole matrix of checks at this number of ranks: their outcomes, and the trained state.

    Args:
        ranks: number of processes.
        crowded: whether they are to sum as ranks do that outnumber the cores, whatever this machine has.
    """
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.npz"
        arguments = [str(state), *["crowded"] * crowded]
        done = run_mpi(ranks, "tests/suites/mpi_program.py", *arguments, seconds=100)
        if done.returncode != 0:
            pytest.fail(f"mpirun -n {ranks} ended with {done.returncode}\n{done.stderr[-6000:]}")
        with np.load(state) as arrays:
            return json.loads(done.stdout), dict(arrays)
