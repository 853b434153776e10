"""Part "steps": whole training steps: where the time goes, and against torch, jax, raw MPI and one process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from syncbn_sim.comm import SerialCommunicator
from syncbn_sim.experiments.tasks import DIGITS

from . import figures, mpirun, rivals
from .goals import Measured
from .nets import LR
from .scale import CORES, Scale
from .section import Section, Tick
from .simulated import Ranks, check_losses
from .timing import Spread, ratio, take_turns

PARTS = ("SyncBN", "gradient sum", "waiting")
OTHERS = {"eager": "torch eager, Adam", "fused": "torch eager, Adam(fused=True)", "jax": "jax.jit"}


def units(scale: Scale) -> int:
    """How often `run` ticks."""
    return 2 * len(scale.processes) + 1


def run(scale: Scale, tick: Tick) -> Section:
    """Measures and tells."""
    section = Section("3. A training step")
    _others(section, scale)
    tick("digits step against torch and jax")
    found = {}
    for task in ("digits", "requests"):
        for processes in scale.processes:
            try:
                options = {"task": task, "rounds": scale.rounds, "count": scale.steps}
                found[task, processes] = mpirun.run("steps", processes, options)
            except RuntimeError as error:
                section.lines.append(f"{task} on {processes} processes: skipped, {str(error).splitlines()[0]}")
            tick(f"{task} step, {processes} ranks")
    if found:
        _tell(section, found)
    return section


def _tell(section: Section, found: dict[tuple[str, int], dict]) -> None:
    rows, shares = [], {}
    for (task, processes), f in found.items():
        times = f["times"]
        spreads = [ratio(times, "ours", other) for other in ("unchecked", "raw", "one process")]
        parts = {name: f[name] / f["step"] for name in PARTS}
        shares[task, processes] = {"compute": 1 - sum(parts.values()), **parts}
        percent = [f"{100 * share:.0f}" for share in shares[task, processes].values()]
        rows.append([task, processes, Spread.of(np.multiply(times["ours"], 1e3)), *percent, *spreads])
    section.lines += [
        f"The nets of the main job with its rows per rank (digits 4, requests 32), SyncBN in both hidden layers, Adam, on {CORES} cores;",
        "`launch` as by default, with the comparison of collectives. Shares of a step without it, with a barrier before each",
        "all-reduce that tells waiting from talking; where ranks outnumber cores, compute includes waiting for a core.",
    ]
    head = ["net", "ranks", "step, ms", "compute %", "SyncBN %", "gradient sum %", "waiting %"]
    section.table([*head, "/ unchecked", "/ raw MPI", "/ same global batch in one process"], rows)
    section.figure(
        "steps.png", figures.steps(shares, {k: f["step"] for k, f in found.items()}), "where a step's time goes"
    )


def _others(section: Section, scale: Scale) -> None:
    """The digits net on one rank against torch in eager mode and jax.jit, one thread, from the same weights."""
    rows = []
    for batch in (DIGITS.rows, 8 * DIGITS.rows):
        ranks = Ranks(1, batch)
        calls = {"ours": ranks.ours(SerialCommunicator())}
        if rivals.installed("torch"):
            calls |= {name: _torch_step(ranks, name == "fused") for name in ("eager", "fused")}
        if rivals.installed("jax"):
            calls["jax"] = ranks.jax()
        check_losses(calls)
        times = take_turns(calls, max(scale.rounds, scale.small_rounds))
        spreads = {name: ratio(times, "ours", name) for name in OTHERS if name in calls}
        rows.append([batch, f"{1e6 * np.median(times['ours']):.0f}", *spreads.values()])
        held = {"digits/torch": "eager", "digits/jax": "jax"}
        section.measured += [Measured(k, f"{batch} rows", spreads[n]) for k, n in held.items() if n in spreads]
    section.lines.append("The digits net on one rank, one thread, same weights, losses checked equal; ours / theirs:")
    section.table(["rows", "ours, us", *(OTHERS[name] for name in spreads)], rows)


def _torch_step(ranks: Ranks, fused: bool) -> Callable[[], float]:
    import torch
    from torch.nn import BatchNorm1d, Linear, ReLU, Sequential

    torch.set_num_threads(1)
    hidden = [layer for inputs in (64, 64) for layer in (Linear(inputs, 64, bias=False), BatchNorm1d(64), ReLU())]
    model, x, y = Sequential(*hidden, Linear(64, 10)), torch.from_numpy(ranks.x[0]), torch.from_numpy(ranks.y[0])
    names = zip(model.state_dict(), ranks.net().state_dict().values(), strict=True)
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in names})
    optimizer = torch.optim.Adam(model.parameters(), LR, fused=fused or None)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
