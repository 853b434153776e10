"""Part "talk": how long an all-reduce takes, on every kind of rank, and what we add to MPI's own."""

from __future__ import annotations

import time

import numpy as np

from syncbn_sim.comm import Communicator, launch

from . import figures, mpirun
from .goals import Measured
from .scale import CORES, Scale
from .section import Section, Tick
from .timing import Spread, ratio

KIB = 1032  # bytes: 129 float64, what a SyncBN layer of 64 channels says
SMALL = 8192  # bytes: up to here waiting is most of it
WAYS = {
    "raw": "MPI.Allreduce",
    "out": "comm.allreduce(a, out=b)",
    "new": "comm.allreduce(a)",
    "checked": "the same, out=b, checked",
}


def units(scale: Scale) -> int:
    """How often `run` ticks."""
    return len(scale.lockstep) + len(scale.threads) + sum(p > 1 for p in scale.processes)


def run(scale: Scale, tick: Tick) -> Section:
    """Measures and tells."""
    section = Section("2. An all-reduce")
    inside = {"lockstep": scale.lockstep, "threads": scale.threads}
    by_ranks = {kind: {n: _inside(kind, n, KIB, scale, tick) for n in numbers} for kind, numbers in inside.items()}
    section.lines.append(f"Microseconds per all-reduce of {KIB} bytes, median (quartiles); MPI below. {CORES} cores.")
    rows = [[kind, n, us] for kind, found in by_ranks.items() for n, us in found.items()]
    section.table(["ranks are", "how many", "us"], rows)
    times = _mpi(section, scale, tick)
    if times:
        section.figure("allreduce.png", figures.allreduce(by_ranks, times, KIB), "latency of an all-reduce")
    return section


def _inside(kind: str, ranks: int, size: int, scale: Scale, tick: Tick) -> Spread:
    """Microseconds per call between ranks in this process."""
    calls = max(3, 2000 // ranks) if scale.rounds > 3 else 3

    def on_rank(comm: Communicator) -> list[float]:
        a, took = np.full(size // 8, comm.rank + 1.0), []
        for _ in range(max(scale.rounds // 4, 3)):
            comm.barrier()
            start = time.perf_counter()
            for _ in range(calls):
                total = comm.allreduce(a)
            took.append(1e6 * (time.perf_counter() - start) / calls)
        assert (total == comm.size * (comm.size + 1) / 2).all()
        return took

    results = launch(on_rank, ranks, kind)
    tick(f"all-reduce, {ranks} {kind}")
    assert results is not None
    return Spread.of(results[0])


def _mpi(section: Section, scale: Scale, tick: Tick) -> dict[int, dict[int, dict[str, list[float]]]]:
    """Processes -> bytes -> way -> seconds; also writes them down."""
    found: dict[int, dict[int, dict[str, list[float]]]] = {}
    section.lines.append(
        "Over MPI, ratios to `MPI.Allreduce` on the same arrays in the same run. `launch` compares every collective over the ranks "
        "unless told `checked=False`; both are shown, and the goal is about the call without it. Where ranks outnumber cores, ours "
        "does not call MPI but sums through memory that the ranks share; the goal is about two ranks per core."
    )
    rows = []
    for processes in (p for p in scale.processes if p > 1):
        options = {"sizes": scale.sizes, "rounds": scale.rounds}
        try:
            times = mpirun.run("allreduce", processes, options)
        except RuntimeError as error:
            section.lines.append(f"{processes} processes: skipped, {str(error).splitlines()[0]}")
            continue
        finally:
            tick(f"all-reduce, {processes} MPI processes")
        found[processes] = {int(size): ways for size, ways in times.items()}
        for size, ways in found[processes].items():
            spreads = {way: ratio(ways, way, "raw") for way in ("out", "new", "checked")}
            raw, added = Spread.of(np.multiply(ways["raw"], 1e6)), np.subtract(ways["out"], ways["raw"])
            rows.append([processes, f"{size:,}", raw, *spreads.values(), f"{1e6 * np.median(added):.3g}"])
            if processes == 2 * CORES and size <= SMALL:
                section.measured.append(Measured("crowded/raw", f"{processes} ranks, {size:,} bytes", spreads["out"]))
    section.table(["ranks", "bytes", "MPI.Allreduce, us", *list(WAYS.values())[1:], "out=b, longer by us"], rows)
    return found
