"""What runs under mpirun: python -m benchmarks.programs NAME OPTIONS. Rank 0 prints one JSON object."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from syncbn_sim.comm import Communicator, launch
from syncbn_sim.comm.serial import SerialCommunicator

from . import nets
from .nets import Raw, Timed
from .scale import Shape
from .simulated import Ranks


def allreduce(comm: Communicator, sizes: list[int], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per call on rank 0, by size and way: MPI's own, ours without and with the check, each into a given array and a new one."""
    plain: Any = comm.inner  # type: ignore[attr-defined]
    found = {}
    for size in sizes:
        a = np.random.default_rng(comm.rank).normal(size=size // 8)
        out = np.empty_like(a)
        calls: dict[str, Callable[[], object]] = {
            "raw": lambda a=a, out=out: plain.mpi_comm.Allreduce(a, out),
            "out": lambda a=a, out=out: plain.allreduce(a, out=out),
            "new": lambda a=a: plain.allreduce(a),
            "checked": lambda a=a, out=out: comm.allreduce(a, out=out),
        }
        calls["raw"]()
        truth = out.copy()
        for name, call in calls.items():
            got = call() if name == "new" else (call(), out)[1]
            # The order of the sum is MPI's or ours.
            assert np.allclose(got, truth, rtol=0, atol=1e-12), name
        found[str(size)] = nets.take_turns_together(plain, calls, rounds)
    return found


def half_batch(comm: Communicator, shapes: list[list[int]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """SyncBN on half a batch per rank against torch with as many threads on all of it, while the other ranks sleep."""
    import torch

    from . import rivals

    torch.set_num_threads(comm.size)
    cores = sorted(os.sched_getaffinity(0))
    found = {}
    for size in shapes:
        batch, mine = (rivals.Batch(Shape(tuple(size))) for _ in range(2))
        theirs, truth = rivals.torch_native(batch), rivals.plain(batch, np.float64)()
        mine.x, mine.dy = (np.array_split(a, comm.size)[comm.rank].copy() for a in (batch.x, batch.dy))
        ours = rivals.ours(mine, comm)
        part = (np.array_split(np.asarray(a), comm.size)[comm.rank] for a in truth[:2])
        y, dx, *gradients = ours()
        sums = (comm.allreduce(np.asarray(g, np.float64)) for g in gradients)
        rivals.check_equal("ours", (y, dx, *sums), (*part, *truth[2:]))
        rivals.check_equal("torch", theirs(), truth)
        times: dict[str, list[float]] = {"ours": [], "torch": []}
        count = nets.how_many(comm, ours, 5e-3, 50)  # so that waking up after a rest does not weigh
        for _ in range(rounds):
            # Else the kernel may leave both on one core for a while.
            os.sched_setaffinity(0, {cores[comm.rank % len(cores)]})
            times["ours"].append(nets.together(comm, nets.repeated(ours, count)) / count)
            os.sched_setaffinity(0, cores)
            times["torch"].append(nets.alone(comm, nets.repeated(theirs, count)) / count)
        found[str(batch.shape)] = times
    return found


def steps(comm: Communicator, task: str, rounds: int, count: int) -> dict[str, Any]:
    """Seconds of a training step of a task's net: ours, without the check, with raw MPI, and the same global batch on rank 0 alone."""
    plain: Any = comm.inner  # type: ignore[attr-defined]
    net = nets.TaskNet(task, comm)
    ways = {"ours": comm, "unchecked": plain, "raw": Raw(plain.mpi_comm)}
    calls = {name: net.stepper(way, way) for name, way in ways.items()}
    one = net.stepper(SerialCommunicator(), SerialCommunicator(), rows=net.rows * comm.size)
    layers, gradients = Timed(plain), Timed(plain)
    timed = net.stepper(layers, gradients)
    ended = [call(3) for call in (*calls.values(), timed)]
    assert all(np.allclose(each, ended[0], rtol=0, atol=1e-5) for each in ended), "the ways do not compute the same"
    times: dict[str, list[float]] = {name: [] for name in (*calls, "one process")}
    count = nets.how_many(comm, lambda: timed(1), 0.05, count)
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(nets.together(comm, lambda call=call: call(count)) / count)
        times["one process"].append(nets.alone(comm, lambda: one(count)) / count)
    for t in (layers, gradients):
        t.reset()
    total = nets.together(comm, lambda: timed(count * 5)) / (count * 5)
    parts = np.array([layers.talked, gradients.talked, layers.waited + gradients.waited]) / (count * 5)
    mean = comm.allreduce(parts) / comm.size
    return {"times": times, "step": total, "SyncBN": mean[0], "gradient sum": mean[1], "waiting": mean[2]}


def digits(comm: Communicator, rounds: int, count: int, own: bool) -> dict[str, list[float]]:
    """Seconds of a digits training step, as users run it, or by the MPI library's `own` all-reduce."""
    if own:
        plain: Any = comm.inner  # type: ignore[attr-defined]
        plain.close()  # what the ranks share
    net = nets.TaskNet("digits", comm)
    call = net.stepper(comm, comm)
    call(3)
    count = nets.how_many(comm, lambda: call(1), 0.05, count)
    return {"step": [nets.together(comm, lambda: call(count)) / count for _ in range(rounds)]}


def simulated(comm: Communicator, rows: int, rounds: int) -> list[float]:
    """Seconds of a digits training step with so many rows per rank."""
    step = Ranks(comm.size, rows).ours(comm)
    step()
    return [nets.together(comm, step) for _ in range(rounds)]


PROGRAMS = {f.__name__: f for f in (allreduce, half_batch, steps, digits, simulated)}

if __name__ == "__main__":
    results = launch(PROGRAMS[sys.argv[1]], kwargs=json.loads(sys.argv[2]), backend="mpi")
    if results is not None:
        print(json.dumps(results[0]))
