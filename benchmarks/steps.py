"""Part "steps": whole training steps: where the time goes, and against torch, raw MPI and one process."""

from __future__ import annotations

from functools import partial

import numpy as np

from syncbn_sim import nn, optim, train
from syncbn_sim.comm import SerialCommunicator
from syncbn_sim.experiments.tasks import DIGITS, mlp

from . import figures, mpirun, rivals
from .goals import Measured
from .nets import LR
from .scale import CORES, Scale
from .section import Section, Tick
from .timing import Spread, ratio, take_turns

PARTS = ("SyncBN", "gradient sum", "waiting")


def units(scale: Scale) -> int:
    """How often `run` ticks."""
    return 2 * len(scale.processes) + 2


def run(scale: Scale, tick: Tick) -> Section:
    """Measures and tells."""
    section = Section("3. A training step")
    _torch(section, scale)
    tick("digits step against torch")
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
    _heavy(section, scale)
    tick("steps that are mostly compute")
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
        if task == "digits" and processes == 8:
            section.measured.append(Measured("digits/raw", "digits, 8 ranks, checked as by default", spreads[1]))
            plain = ratio(times, "unchecked", "raw")
            section.measured.append(Measured("digits/raw", "digits, 8 ranks, checked=False", plain))
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


def _torch(section: Section, scale: Scale) -> None:
    """The digits net on one rank against torch, eager, one thread, from the same weights."""
    if not rivals.installed("torch"):
        section.lines.append("torch is not installed: skipped.")
        return
    rng, rows = np.random.default_rng(0), []
    for batch in (DIGITS.rows, 8 * DIGITS.rows):
        x, y = rng.normal(size=(batch, 64)).astype(np.float32), rng.integers(0, 10, batch)
        ours, state = _our_step(x, y)
        calls = {"ours": ours, **{name: _torch_step(x, y, state, name == "fused") for name in ("eager", "fused")}}
        losses = np.array([[call() for _ in range(10)] for call in calls.values()])
        assert np.abs(losses - losses[0]).max() < 1e-4 * losses[0, 0], "torch's net learns something else"
        times = take_turns(calls, max(scale.rounds, scale.small_rounds))
        spreads = [ratio(times, "ours", name) for name in ("eager", "fused")]
        rows.append([batch, f"{1e6 * np.median(times['ours']):.0f}", *spreads])
        section.measured.append(Measured("digits/torch", f"{batch} rows", spreads[0]))
    section.lines.append(
        "The digits net on one rank against torch in eager mode on one thread, same weights, losses checked equal:"
    )
    section.table(["rows", "ours, us", "torch, Adam", "torch, Adam(fused=True)"], rows)


def _our_step(x, y):  # type: ignore[no-untyped-def]
    comm = SerialCommunicator()
    model = mlp(64, 10, partial(nn.SyncBatchNorm, comm=comm), 0, "float32")
    state = model.state_dict()
    loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), LR)
    return lambda: train.step(model, loss, optimizer, comm, x, y), state


def _torch_step(x, y, state, fused: bool):  # type: ignore[no-untyped-def]
    import torch
    from torch.nn import BatchNorm1d, Linear, ReLU, Sequential

    torch.set_num_threads(1)
    hidden = [layer for inputs in (64, 64) for layer in (Linear(inputs, 64, bias=False), BatchNorm1d(64), ReLU())]
    model, x, y = Sequential(*hidden, Linear(64, 10)), torch.from_numpy(x), torch.from_numpy(y)
    names = zip(model.state_dict(), state.values(), strict=True)
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in names})
    optimizer = torch.optim.Adam(model.parameters(), LR, fused=fused or None)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _heavy(section: Section, scale: Scale) -> None:
    """Efficiency where compute dominates: all ranks' compute, shared by the cores, is the least a step can take."""
    ranks = max(scale.processes)
    try:
        found = mpirun.run("heavy", ranks, {"seconds": scale.heavy, "rounds": scale.rounds})
    except RuntimeError as error:
        section.lines.append(f"steps that are mostly compute: skipped, {str(error).splitlines()[0]}")
        return
    share = ranks / min(CORES, ranks)
    least = [share * t for t in found["alone"]]
    value = ratio({"all": found["all"], "least": least}, "all", "least")
    alone = 1e3 * np.median(found["alone"])
    section.lines.append(
        f"A step with {alone:.1f} ms of compute per rank ({found['rows'][0]} rows, four layers of 256 with SyncBN; rank 0 alone): "
        f"{ranks} ranks on {CORES} cores take {value} x the compute of all ranks divided by the cores."
    )
    section.measured.append(Measured("heavy", f"{ranks} ranks, {alone:.1f} ms per rank", value))
