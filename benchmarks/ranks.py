"""Part "ranks": who takes a training step for R ranks on one machine in how long: R ranks of any kind, and JAX."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from syncbn_sim.comm import Communicator, launch

from . import figures, mpirun, rivals
from .goals import Measured
from .scale import Scale
from .section import Section, Tick
from .simulated import Ranks, check_losses
from .timing import Spread, ratio, take_turns

ROWS, LOCKSTEP = 4, 128  # rows per rank of the figure; ranks of the comparison with lockstep


def units(scale: Scale) -> int:
    """How often `run` ticks."""
    return 2 * len(scale.simulated) + 1 + sum(len(_powers(most)) for most in _kinds(scale).values())


def run(scale: Scale, tick: Tick) -> Section:
    """Measures and tells."""
    section, rows = Section("6. Ranks simulated on one machine"), []
    for sync, norm in ((True, "SyncBN"), (False, "local BN")):
        for count, each in scale.simulated:
            times = _beside_jax(Ranks(count, each, sync), scale)
            ours, theirs = (f"{1e3 * np.median(times[name]):.3g}" if name in times else "" for name in ("ours", "jax"))
            spread = ratio(times, "ours", "jax") if "jax" in times else None
            rows.append([norm, count, each, ours, theirs, spread or ""])
            if spread:
                section.measured.append(Measured(f"{count}x{each}", norm, spread))
            tick(f"{count} ranks x {each} rows, {norm}")
    section.lines += [
        "A training step of the digits net (64-64-10, a norm in both hidden layers, Adam, float32) for all ranks together, one thread,",
        "losses checked equal, rows ready on both sides. Ours: stacked ranks. JAX: `jit` of `vmap` over ranks with a named axis, one copy",
        "of the weights, `pmean` for gradients and SyncBN, Adam written out.",
    ]
    section.table(["norm", "ranks", "rows per rank", "ours, ms", "JAX, ms", "ours / JAX"], rows)
    count = min(LOCKSTEP, scale.most["lockstep"])
    spread = _beside_lockstep(Ranks(count, ROWS), max(scale.rounds // 2, 2))
    section.measured.append(Measured("lockstep", f"{count} ranks x {ROWS} rows", spread))
    section.lines.append(f"Stacked / lockstep, {count} ranks x {ROWS} rows, SyncBN: {spread}.")
    tick("stacked against lockstep")
    _all_kinds(section, scale, tick)
    return section


def _beside_jax(ranks: Ranks, scale: Scale) -> dict[str, list[float]]:
    def body(comm: Communicator) -> dict[str, list[float]]:
        calls = {"ours": ranks.ours(comm), **({"jax": ranks.jax()} if rivals.installed("jax") else {})}
        check_losses(calls)
        return take_turns(calls, scale.small_rounds if ranks.count * ranks.rows < 1000 else scale.rounds)

    return _first(launch(body, ranks.count, "stacked"))


def _beside_lockstep(ranks: Ranks, rounds: int) -> Spread:
    """Ratio of a step of stacked ranks to one of lockstep ranks, which take turns: rank 0 of these steps for those."""
    stacked: Callable[[], float] = _first(launch(ranks.ours, ranks.count, "stacked"))

    def on_rank(comm: Communicator) -> dict[str, list[float]]:
        step, times = ranks.ours(comm), {"stacked": [], "lockstep": []}  # type: dict[str, list[float]]
        for _ in range(rounds + 1):
            times["lockstep"].append(_together(comm, step))
            if comm.rank == 0:
                stacked()
                start = time.perf_counter()
                stacked()
                times["stacked"].append(time.perf_counter() - start)
        return {name: each[1:] for name, each in times.items()}

    return ratio(_first(launch(on_rank, ranks.count, "lockstep")), "stacked", "lockstep")


def _all_kinds(section: Section, scale: Scale, tick: Tick) -> None:
    """Time over ranks, for ranks of each kind."""
    found: dict[str, dict[int, float]] = {kind: {} for kind in scale.most}
    for kind, most in _kinds(scale).items():
        for count in _powers(most):
            try:
                seconds = _seconds(kind, Ranks(count, ROWS), scale)
            except RuntimeError as error:
                section.lines.append(f"{count} {kind} ranks: skipped, {str(error).splitlines()[0]}")
            else:
                found[kind][count] = float(np.median(seconds))
            tick(f"{count} ranks, {kind}")
    numbers = sorted({count for each in found.values() for count in each})
    rows = [[n, *(f"{1e3 * each[n]:.3g}" if n in each else "" for each in found.values())] for n in numbers]
    section.lines.append(f"The same with SyncBN and {ROWS} rows per rank, milliseconds per step:")
    section.table(["ranks", *found], rows)
    section.figure("ranks.png", figures.ranks(found, ROWS), "time of a step against ranks")


def _kinds(scale: Scale) -> dict[str, int]:
    return {kind: most for kind, most in scale.most.items() if kind != "JAX" or rivals.installed("jax")}


def _seconds(kind: str, ranks: Ranks, scale: Scale) -> list[float]:
    """Seconds per step, some times."""
    if kind == "mpi":
        return mpirun.run("simulated", ranks.count, {"rows": ranks.rows, "rounds": scale.rounds})

    def on_rank(comm: Communicator) -> list[float]:
        step = ranks.jax() if kind == "JAX" else ranks.ours(comm)
        step()
        first = _together(comm, step)
        rounds = int(comm.holders.bcast(np.clip(1 / first, 3, scale.rounds)))
        return [_together(comm, step) for _ in range(rounds)]

    return _first(launch(on_rank, ranks.count, "stacked" if kind == "JAX" else kind))


def _together(comm: Communicator, step: Callable[[], float]) -> float:
    """Seconds until the last rank has taken a step that all begin at once."""
    comm.holders.barrier()
    start = time.perf_counter()
    step()
    comm.holders.barrier()
    return time.perf_counter() - start


def _powers(most: int) -> list[int]:
    """1, 4, 16, ... up to `most`."""
    return [4**k for k in range(most.bit_length()) if 4**k <= most]


def _first(results):  # type: ignore[no-untyped-def]
    assert results is not None, "launched under mpirun"
    return results[0]
