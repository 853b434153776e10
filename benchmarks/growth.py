"""Part "growth": how time and memory of a training step grow with everything, as exponents."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from syncbn_sim import nn, optim, train
from syncbn_sim.comm import Communicator, launch

from . import figures
from .goals import Measured
from .scale import Scale
from .section import Section, Tick
from .timing import Spread

# What grows, from where on; the rest stays at BASE. Large enough that the calls themselves no longer count.
BASE = {"rows": 512, "channels": 64, "layers": 2, "ranks": 4}
STACKED = "stacked ranks"


def units(scale: Scale) -> int:
    """How often `run` ticks."""
    return (len(BASE) + 1) * scale.growth


def run(scale: Scale, tick: Tick) -> Section:
    """Measures and tells."""
    section = Section("4. Growth")
    found, rows = {}, []
    for what, start in {**BASE, STACKED: BASE["ranks"]}.items():
        kind, key = ("stacked", "ranks") if what == STACKED else ("lockstep", what)
        sizes = [start << k for k in range(scale.growth)]
        measured = []
        for size in sizes:
            measured.append(_measure({**BASE, key: size}, kind, scale))
            tick(f"growth: {size} {what}")
        seconds, memory = np.array(measured).T
        upper = slice(len(sizes) // 2 - 1, None) if len(sizes) > 3 else slice(None)
        exponents = [float(np.polyfit(np.log(sizes[upper]), np.log(v[upper]), 1)[0]) for v in (seconds, memory)]
        found[what] = (sizes, seconds, memory, exponents)
        section.measured += [
            Measured("growth", f"{name}, {what}", Spread(e, e, e))
            for name, e in zip(("time", "memory"), exponents, strict=True)
        ]
        times = [
            f"{1e3 * seconds[0]:.3g} to {1e3 * seconds[-1]:.3g}",
            f"{memory[0] / 2**20:.3g} to {memory[-1] / 2**20:.3g}",
        ]
        rows.append(
            [what, f"{sizes[0]} to {sizes[-1]}", times[0], f"{exponents[0]:.2f}", times[1], f"{exponents[1]:.2f}"]
        )
    base = ", ".join(f"{value} {name}" for name, value in BASE.items())
    section.lines.append(
        f"A training step of a net of (SyncBN, ReLU) layers and a Linear with one output, on lockstep ranks, at last on stacked ones: "
        f"the time is a core's for all ranks together; {base} where they do not grow. Exponents are fitted to the upper half of the sizes: "
        "1 is linear. "
        "Memory is what the net, its optimiser and its buffers hold on all ranks after the step, and the step's own peak."
    )
    section.table(["what grows", "from, to", "step, ms", "exponent", "memory, MiB", "exponent"], rows)
    section.figure("growth.png", figures.growth(found), "growth of time and memory")
    return section


def _measure(sizes: dict[str, int], kind: str, scale: Scale) -> tuple[float, float]:
    """Least seconds of the one core in a step of all ranks, which other programs hardly lengthen, and peak bytes."""
    repeats = max(scale.rounds // 8, 2)

    def on_rank(comm: Communicator) -> list[float]:
        step, times = _stepper(comm, sizes["rows"], sizes["channels"], sizes["layers"]), []
        for _ in range(repeats + 1):
            comm.holders.barrier()
            start = time.process_time()
            step()
            comm.holders.barrier()
            times.append(time.process_time() - start)
        return times[1:]

    results = launch(on_rank, sizes["ranks"], kind)
    assert results is not None
    repeats = 1
    tracemalloc.start()
    try:
        launch(on_rank, sizes["ranks"], kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return min(results[0]), float(peak)


def _stepper(comm: Communicator, rows: int, channels: int, layers: int) -> Callable[[], float]:
    rng = np.random.default_rng(comm.rank)
    pairs = [layer for _ in range(layers) for layer in (nn.SyncBatchNorm(channels, comm=comm), nn.ReLU())]
    model = nn.Sequential(*pairs, nn.Linear(channels, 1, rng=np.random.default_rng(0)))
    held = len(comm.ranks)
    x, y = rng.normal(size=(held * rows, channels)).astype(np.float32), rng.normal(size=held * rows)
    whose = tuple(np.arange(len(x)).reshape(held, rows))
    loss, optimizer = nn.MSELoss(), optim.SGD(model.parameters(), 1e-3)

    def step() -> float:
        with comm.holds(whose):
            return train.step(model, loss, optimizer, comm, x, y)

    return step
