"""Part "start": what a process pays before its first step: imports, and the compiled loops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import numpy as np

from . import mpirun
from .goals import Measured
from .scale import Scale
from .section import Section, Tick
from .timing import Spread

# A step of each norm and dtype that the main job uses.
PROGRAM = """
import time
start = time.perf_counter()
import json
import numpy as np
from syncbn_sim import nn
imported = time.perf_counter()
for dtype in (np.float32, np.float64):
    for layer in (nn.BatchNorm(64, dtype=dtype), nn.LayerNorm(64, dtype=dtype)):
        y = layer(np.random.default_rng(0).normal(size=(32, 64)).astype(dtype))
        layer.backward(y)
print(json.dumps([imported - start, time.perf_counter() - imported]))
"""


def units(scale: Scale) -> int:
    """How often `run` ticks."""
    return scale.repeats


def run(scale: Scale, tick: Tick) -> Section:
    """Measures and tells."""
    section = Section("7. Start-up")
    names = ("NumPy alone", "compiled, cold cache", "compiled, warm cache")
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(scale.repeats):
        with tempfile.TemporaryDirectory() as cache:
            ways = ({"SYNCBN_SIM_KERNELS": "numpy"}, {"NUMBA_CACHE_DIR": cache}, {"NUMBA_CACHE_DIR": cache})
            for name, extra in zip(names, ways, strict=True):
                found[name].append(_start(extra))
        tick("start-up")
    section.lines.append(
        "Seconds of a new process for its imports, and for the first step of BatchNorm and LayerNorm in both dtypes: "
        "loading numba and the loops is in the second. Cold: they are compiled first, as after an installation."
    )
    rows = [[name, *(Spread.of(each) for each in zip(*times, strict=True))] for name, times in found.items()]
    section.table(["loops", "import, s", "first steps, s"], rows)
    alone, _, warm = (np.sum(times, axis=1) for times in found.values())
    section.measured.append(Measured("start", "first steps of BatchNorm and LayerNorm", Spread.of(warm - alone)))
    return section


def _start(extra: dict[str, str]) -> list[float]:
    env = {name: value for name, value in os.environ.items() if name != "SYNCBN_SIM_KERNELS"}
    env |= {"PYTHONPATH": str(mpirun.ROOT), **extra}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
