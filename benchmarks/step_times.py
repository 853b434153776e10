"""Seconds of a norm's step, everybody in turns. python -m benchmarks.step_times SCALE NAMES prints JSON; there jax computes inline."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from syncbn_sim import nn

from . import rivals
from .rivals import Batch
from .scale import SCALES, Scale, Shape
from .timing import Call, take_turns

LARGE = 1 << 20  # bytes
COPIES = 2.5  # x, y; x, dy, dx: five arrays read or written at least once, and a copy moves two
MAKERS = {
    "ours": rivals.ours,
    "loops": rivals.loops,
    "plain": rivals.plain,
    "native": rivals.torch_native,
    "autograd": rivals.torch_autograd,
    "jax": rivals.jax_jit,
    "copy": rivals.copy,
}


def shapes_of(scale: Scale) -> list[Shape]:
    """Those whose norm we have."""
    return [shape for shape in scale.shapes if hasattr(nn, shape.norm)]


def checked_calls(batch: Batch, names: Collection[str] = tuple(MAKERS)) -> dict[str, Call]:
    """Everybody of these who is installed, and computes the same."""
    needs = {"native": "torch", "autograd": "torch", "jax": "jax"}
    calls: dict[str, Call] = {n: MAKERS[n](batch) for n in names if n not in needs or rivals.installed(needs[n])}
    if {"native", "autograd"} & set(calls):
        import torch

        torch.set_num_threads(1)
    truth = rivals.plain(batch, np.float64)()
    for name, call in calls.items():
        if name != "copy":
            rivals.check_equal(f"{name} {batch.shape}", call(), truth)
    return calls


def step_times(shape: Shape, scale: Scale, names: Collection[str] = tuple(MAKERS)) -> dict[str, list[float]]:
    """Seconds per step, round by round; "copy" is the least time in which so much can be moved."""
    large = shape.bytes >= LARGE
    rounds = scale.rounds if large else scale.small_rounds
    times = take_turns(checked_calls(Batch(shape), names), rounds, {"plain": 5} if large and rounds >= 50 else {})
    if "copy" in times:
        times["copy"] = [COPIES * t for t in times["copy"]]
    return times


if __name__ == "__main__":
    whole, names = SCALES[sys.argv[1]], sys.argv[2:]
    if "jax" in names:
        rivals.one_thread_of_jax(inline=True)
    fewer = replace(whole, rounds=whole.rounds // 5 + 1, small_rounds=whole.small_rounds // 2 + 1)
    with threadpool_limits(1, "blas"):
        found = {str(shape): step_times(shape, fewer, names) for shape in shapes_of(whole)}
    print(json.dumps(found))
