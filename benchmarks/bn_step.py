"""Part "bn": one batch norm step, forward and backward, against everybody else's."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import numpy as np

from . import figures, mpirun, passes, rivals
from .goals import Measured
from .rivals import Batch
from .scale import Scale, Shape
from .section import Section, Tick
from .timing import Spread, ratio, take_turns

LARGE, MIB = 1 << 20, 1 << 20
COPIES = 2.5  # x, y; x, dy, dx: five arrays read or written at least once, and a copy moves two
RATIOS = (1.0, 10.0, 1e2, 1e3, 1e4)
NAMES = {
    "native": "torch native",
    "autograd": "torch autograd",
    "jax": "jax.jit",
    "textbook": "textbook NumPy (float64)",
    "plain": "plain NumPy (float32)",
    "copy": "copy roofline",
}
PARTS = {
    "passes/native": "passes / torch native",
    "passes/autograd": "passes / torch autograd",
    "kernels/passes": "functions / passes",
    "ours/kernels": "layer / functions",
}


def units(scale: Scale) -> int:
    """How often `run` ticks."""
    large = [shape for shape in scale.shapes if shape.bytes >= LARGE] or scale.shapes[:1]
    return len(scale.shapes) + 2 + (len(large) if rivals.installed("torch") else 0)


def run(scale: Scale, tick: Tick) -> Section:
    """Measures and tells."""
    section = Section("1. A batch norm step, forward and backward")
    ratios = {str(shape): _one_thread(shape, scale, tick) for shape in scale.shapes}
    section.lines += [
        "Ours is the layer `nn.BatchNorm`, running statistics and parameter gradients included, float32, one thread. Ratios are ours /",
        f"theirs, below 1 we are quicker: median (quartiles) of {scale.rounds} interleaved rounds, {scale.small_rounds} below 1 MiB.",
        "jax.jit has forward and backward in one function, on one core. The copy roofline is 2.5 copies of x, the least memory traffic.",
    ]
    if not rivals.installed("torch"):
        section.lines.append("torch is not installed: skipped.")
    if not rivals.installed("jax"):
        section.lines.append("jax is not installed: skipped.")
    present = [name for name in NAMES if any(name in r for r in ratios.values())]
    rows = [[s, f"{1e3 * r['ms'].median:.3g}", *(r[n] for n in present)] for s, r in ratios.items()]
    section.table(["shape", "ours, ms", *(NAMES[n] for n in present)], rows)
    _what_is_numpys(section, ratios)
    if "native" in present:
        section.figure("bn_step.png", figures.bn_step(ratios, NAMES), "a batch norm step against others")
        large = [shape for shape in scale.shapes if shape.bytes >= LARGE] or scale.shapes[:1]
        two = {str(shape): _two_threads(shape, scale, tick) for shape in large}
        section.lines.append("Arrays of 1 MiB and more, ours still on one thread, torch on two:")
        section.table(
            ["shape", *(NAMES[n] for n in ("native", "autograd"))], [[s, *r.values()] for s, r in two.items()]
        )
    section.measured += _goals(scale.shapes, ratios)
    _accuracy(section, tick)
    _half_batches(section, scale, tick)
    return section


def _calls(shape: Shape) -> tuple[Batch, dict[str, Callable[[], object]]]:
    """Everybody who is installed, checked."""
    batch = Batch(shape.size, shape.last)
    makers = {"ours": rivals.ours, "kernels": rivals.our_functions, "passes": passes.passes}
    makers |= {"textbook": rivals.textbook, "plain": rivals.plain}
    if rivals.installed("torch"):
        makers |= {"native": rivals.torch_native, "autograd": rivals.torch_autograd}
    if rivals.installed("jax"):
        makers["jax"] = rivals.jax_jit
    calls = {name: make(batch) for name, make in makers.items()}
    truth = calls["textbook"]()
    for name, call in calls.items():
        rivals.check_equal(f"{name} {shape}", call, truth)
    return batch, calls


def _one_thread(shape: Shape, scale: Scale, tick: Tick) -> dict[str, Spread]:
    if rivals.installed("torch"):
        import torch

        torch.set_num_threads(1)
    batch, calls = _calls(shape)
    calls["copy"] = rivals.copy(batch)
    large = shape.bytes >= LARGE
    rounds = scale.rounds if large else scale.small_rounds
    slow = {"textbook": 5, "plain": 5} if large and rounds >= 50 else {}
    times = take_turns(calls, rounds, slow)
    times["copy"] = [COPIES * t for t in times["copy"]]
    tick(f"BN {shape}")
    return {
        "ms": Spread.of(times["ours"]),
        **{pair: ratio(times, *pair.split("/")) for pair in PARTS if times.keys() >= set(pair.split("/"))},
        **{name: ratio(times, "ours", name) for name in NAMES if name in times},
    }


def _what_is_numpys(section: Section, ratios: dict[str, dict[str, Spread]]) -> None:
    section.lines += [
        "What of it is NumPy's own: the passes alone are the calls that sum and that apply coefficients, with views, memory and",
        "coefficients ready. The functions of `functional/kernels.py` add what prepares them; the layer adds running statistics, contexts",
        "and checks. Where these passes alone miss a goal, only other passes could meet it.",
    ]
    parts = {pair: name for pair, name in PARTS.items() if any(pair in r for r in ratios.values())}
    section.table(["shape", *parts.values()], [[s, *(r[pair] for pair in parts)] for s, r in ratios.items()])


def _two_threads(shape: Shape, scale: Scale, tick: Tick) -> dict[str, Spread]:
    import torch

    torch.set_num_threads(2)
    _, calls = _calls(shape)
    calls = {name: calls[name] for name in ("ours", "native", "autograd")}
    times = take_turns(calls, scale.rounds, rest=3e-3)
    torch.set_num_threads(1)
    tick(f"BN {shape}, two threads")
    return {name: ratio(times, "ours", name) for name in ("native", "autograd")}


def _goals(shapes: tuple[Shape, ...], ratios: dict[str, dict[str, Spread]]) -> list[Measured]:
    """Which ratio counts for which goal."""
    found = []
    for shape in shapes:
        held = [("textbook", "textbook")]
        if len(shape.size) == 4 and not shape.last:
            held.append(("planes/native", "native"))
        if shape.last or shape.size == (4096, 256):
            held.append(("rows/native", "native"))
        if shape.size in ((256, 128), (4, 16)):
            held += [(f"{shape}/{name}", name) for name in ("native", "autograd")]
        if shape.bytes >= LARGE:
            held.append(("jax", "jax"))
        if shape.bytes > 4 * MIB:
            held.append(("roofline", "copy"))
        r = ratios[str(shape)]
        found += [Measured(key, str(shape), r[rival]) for key, rival in held if rival in r]
    return found


def _accuracy(section: Section, tick: Tick) -> None:
    """Largest error of y and of the weight gradient, of the largest value, over mean/sd; the input is float32 as given."""
    makers = {"ours": rivals.ours, "plain NumPy (float32)": rivals.plain}
    if rivals.installed("torch"):
        makers["torch native"] = rivals.torch_native
    rows, errors = [], {}
    for shape in (Shape((16, 32, 28, 28)), Shape((4096, 64)), Shape((32, 28, 28, 32), last=True), Shape((256, 128))):
        for far in RATIOS:
            batch = Batch(shape.size, shape.last, far)
            truth = rivals.textbook(batch)()
            for name, make in makers.items():
                got = make(batch)()
                off = [float(np.abs(np.asarray(got[i]) - truth[i]).max() / np.abs(truth[i]).max()) for i in (0, 2)]
                errors[name, str(shape), far] = off
            if far == RATIOS[-1]:
                rows += [[shape, n, *(f"{e:.1e}" for e in errors[n, str(shape), far])] for n in makers]
            ours = max(errors["ours", str(shape), far])
            section.measured.append(Measured("accuracy", f"{shape}, mean/sd {far:g}", Spread(ours, ours, ours)))
    section.lines.append("Accuracy in float32 against float64 on the same input, of the largest value, at mean/sd 1e4:")
    section.table(["shape", "by", "y", "gradient of weight"], rows)
    section.figure("accuracy.png", figures.accuracy(errors), "accuracy far from zero")
    tick("accuracy")


def _half_batches(section: Section, scale: Scale, tick: Tick) -> None:
    planes = [s for s in scale.shapes if len(s.size) == 4 and not s.last and s.size[0] >= 2]
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
