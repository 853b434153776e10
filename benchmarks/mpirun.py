"""Starts a program of `programs.py` under mpirun, and reads the JSON that its rank 0 prints."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OPEN_MPI_MAY_RUN = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def mpirun_beside(python: str) -> str | None:
    """The mpirun beside a Python, else, for this one, the one on the PATH."""
    beside = Path(python).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun") if python == sys.executable else None


def run(program: str, ranks: int, options: dict[str, Any], python: str = sys.executable, seconds: float = 300) -> Any:
    """Runs a program on MPI ranks; its group of processes ends with it, or with us.

    Raises:
        RuntimeError: there is no mpirun, or the program failed.
    """
    mpirun = mpirun_beside(python)
    if mpirun is None:
        raise RuntimeError("no mpirun")
    command = [mpirun, *_oversubscribe(mpirun), "-n", str(ranks), python, "-m", "benchmarks.programs", program]
    process = subprocess.Popen(
        [*command, json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **OPEN_MPI_MAY_RUN, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{program} on {ranks} ranks ended with {process.returncode}:\n{err[-3000:]}")
    return json.loads(out)


def _oversubscribe(mpirun: str) -> list[str]:
    """Open MPI refuses more ranks than cores unless told so; MPICH does not know the option."""
    said = subprocess.run([mpirun, "--version"], capture_output=True, text=True).stdout
    return ["--oversubscribe"] if "Open MPI" in said or "prte" in said.lower() else []
