"""Part "norms": one step of a norm, forward and backward, against everybody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable

import numpy as np

from syncbn_sim import nn

from . import figures, mpirun, rivals
from .goals import Measured
from .rivals import Batch, Step
from .scale import SCALES, Scale, Shape
from .section import Section, Tick
from .step_times import LARGE, shapes_of, step_times
from .timing import Spread, ratio

MIB = 1 << 20
FAR = (1.0, 10.0, 1e2, 1e3, 1e4)
FAR_SHAPES = (
    Shape((16, 32, 28, 28)),
    Shape((4096, 64)),
    Shape((32, 28, 28, 32), last=True),
    Shape((256, 128)),
    Shape((16, 32, 28, 28), norm="GroupNorm", groups=8),
    Shape((256, 128), norm="LayerNorm"),
)
NAMES = {
    "native": "torch native",
    "autograd": "torch autograd",
    "jax": "jax.jit",
    "plain": "plain NumPy",
    "copy": "copy roofline",
    "loops": "its loops",
}


def units(scale: Scale) -> int:
    """How often `run` ticks."""
    return len(shapes_of(scale)) + 4


def run(scale: Scale, tick: Tick) -> Section:
    """Measures and tells."""
    section = Section("1. A step of a norm, forward and backward")
    ratios: dict[str, dict[str, Spread]] = {}
    for shape in shapes_of(scale):
        times = step_times(shape, scale)
        ratios[str(shape)] = {"ms": Spread.of(np.multiply(times["ours"], 1e3))} | {
            name: ratio(times, "ours", name) for name in NAMES if name in times
        }
        tick(str(shape))
    section.lines += [
        "Ours is the layer, running statistics and parameter gradients included, float32, one thread. Ratios are ours /",
        f"theirs, below 1 we are quicker: median (quartiles) of {scale.rounds} interleaved rounds, {scale.small_rounds} below 1 MiB.",
        "jax.jit has forward and backward in one function, on one thread, which each call wakes. Plain NumPy is what one writes without",
        "thought of speed, in float32. The copy roofline is 2.5 copies of x, the least memory traffic. Its loops are what the layer takes",
        "from `kernels`, with everything ready.",
    ]
    found = [name for name in NAMES if any(name in r for r in ratios.values())]
    rows = [[s, f"{r['ms'].median:.3g}", *(r[name] for name in found)] for s, r in ratios.items()]
    section.table(["shape", "ours, ms", *(NAMES[name] for name in found)], rows)
    if "native" in found:
        section.figure("norms.png", figures.norms(ratios, NAMES), "a step of a norm against others")
    section.measured += _goals(shapes_of(scale), ratios)
    _elsewhere(section, scale, tick)
    _accuracy(section, tick)
    _half_batches(section, scale, tick)
    return section


def goals_of(shape: Shape) -> dict[str, str]:
    """Which goals a shape counts for, and the rival by whom."""
    held = {"jax": "jax"}
    if shape.bytes > 4 * MIB:
        held["roofline"] = "copy"
    if shape.norm != "BatchNorm":
        return {"norms/native": "native", **held}
    if shape.bytes >= LARGE and (shape.last or len(shape.size) == 4):
        held["large/native"] = "native"
    if shape.size == (4096, 256):
        held["(4096,256)/native"] = "native"
    if shape.size in ((256, 128), (64, 1024)):
        held["middle/native"] = "native"
    if shape.size in ((4, 16), (2, 16, 8, 8)):
        held |= {"small/native": "native", "small/autograd": "autograd"}
    if shape.size == (4, 16):
        held["loops"] = "loops"
    return held


def _goals(shapes: list[Shape], ratios: dict[str, dict[str, Spread]]) -> list[Measured]:
    return [
        Measured(key, str(shape), ratios[str(shape)][rival])
        for shape in shapes
        for key, rival in goals_of(shape).items()
        if rival in ratios[str(shape)]
    ]


def _elsewhere(section: Section, scale: Scale, tick: Tick) -> None:
    """Steps in processes of their own: of the same layers without compiled loops, and of a jax that starts otherwise."""
    section.lines.append(
        "The same layers by NumPy alone, where numba is not installed or `SYNCBN_SIM_KERNELS=numpy`; no goal:"
    )
    _child(section, scale, ["native", "plain"], {"SYNCBN_SIM_KERNELS": "numpy"})
    tick("NumPy alone")
    if rivals.installed("jax"):
        section.lines.append("Beside a jax that is told to compute in the thread that calls it; no goal:")
        _child(section, scale, ["jax"], {})
    tick("jax, inline")


def _child(section: Section, scale: Scale, names: list[str], extra: dict[str, str]) -> None:
    name = next(name for name, each in SCALES.items() if each is scale)
    env = {**os.environ, "PYTHONPATH": str(mpirun.ROOT), **extra}
    command = [sys.executable, "-m", "benchmarks.step_times", name, "ours", *names]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=mpirun.ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout)
    names = [name for name in names if name in next(iter(found.values()))]
    rows = [
        [shape, f"{1e3 * np.median(times['ours']):.3g}", *(ratio(times, "ours", name) for name in names)]
        for shape, times in found.items()
    ]
    section.table(["shape", "ours, ms", *(NAMES[name] for name in names)], rows)


def _accuracy(section: Section, tick: Tick) -> None:
    """Largest error of y and of the weight gradient, of the largest value, over mean/sd; the input is float32 as given."""
    makers: dict[str, Callable[[Batch], Step]] = {"ours": rivals.ours, "plain NumPy": rivals.plain}
    if rivals.installed("torch"):
        makers["torch native"] = rivals.torch_native
    rows, errors = [], {}
    for shape in (shape for shape in FAR_SHAPES if hasattr(nn, shape.norm)):
        for far in FAR:
            batch = Batch(shape, far)
            truth = rivals.plain(batch, np.float64)()
            for name, make in makers.items():
                got = make(batch)()
                off = [float(np.abs(np.asarray(got[i]) - truth[i]).max() / np.abs(truth[i]).max()) for i in (0, 2)]
                errors[name, str(shape), far] = off
            if far == FAR[-1]:
                rows += [[shape, n, *(f"{e:.1e}" for e in errors[n, str(shape), far])] for n in makers]
            ours = max(errors["ours", str(shape), far])
            section.measured.append(Measured("accuracy", f"{shape}, mean/sd {far:g}", Spread(ours, ours, ours)))
    section.lines.append("Accuracy in float32 against float64 on the same input, of the largest value, at mean/sd 1e4:")
    section.table(["shape", "by", "y", "gradient of weight"], rows)
    section.figure("accuracy.png", figures.accuracy(errors), "accuracy far from zero")
    tick("accuracy")


def _half_batches(section: Section, scale: Scale, tick: Tick) -> None:
    planes = [s for s in scale.shapes if s.norm == "BatchNorm" and len(s.size) == 4 and not s.last and s.size[0] >= 2]
    section.lines.append(
        "Two MPI ranks with SyncBN on half a batch each, against torch native with two threads on all of it:"
    )
    if not rivals.installed("torch") or not planes:
        section.lines.append("torch is not installed: skipped.")
    else:
        try:
            options = {"shapes": [s.size for s in planes], "rounds": scale.rounds}
            found = mpirun.run("half_batch", 2, options)
        except RuntimeError as error:
            section.lines.append(f"skipped: {str(error).splitlines()[0]}")
            print(traceback.format_exc(), file=sys.stderr)
        else:
            spreads = {name: ratio(times, "ours", "torch") for name, times in found.items()}
            section.table(["shape", "ours / torch"], list(spreads.items()))
            big = {str(s) for s in planes if s.bytes >= LARGE} or set(spreads)
            section.measured += [Measured("half", name, s) for name, s in spreads.items() if name in big]
    tick("half batches on two ranks")
