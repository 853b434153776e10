"""The figures of RESULTS.md, as PNG. Titles say what came out; colours are those of the lessons."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from syncbn_sim.report.plots import STYLE

from .timing import Spread

OURS, THEIRS, GREEN, AMBER, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#555555"
LOOKS = ((THEIRS, "o"), (AMBER, "s"), (GREEN, "^"), (GREY, "D"))


@contextmanager
def _drawing(width: float, height: float, png: list[bytes], **grid: Any) -> Iterator[Any]:
    """Axes in the house's style; the finished figure is put into `png`."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(**grid)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110)
        png.append(file.getvalue())


def norms(ratios: Mapping[str, Mapping[str, Spread]], names: Mapping[str, str]) -> bytes:
    """Ours / theirs of each shape: one dot per rival, one bar between the quartiles."""
    png: list[bytes] = []
    rivals = [name for name in ("native", "autograd", "jax", "plain") if any(name in r for r in ratios.values())]
    with _drawing(9, 1.8 + 0.5 * len(ratios), png) as axes:
        for k, name in enumerate(rivals):
            colour, marker = LOOKS[k]
            spreads = [r[name] for r in ratios.values()]
            middle = np.array([s.median for s in spreads])
            reach = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
            place = np.arange(len(spreads)) + 0.15 * (k - (len(rivals) - 1) / 2)
            axes.errorbar(
                middle, place, xerr=reach, fmt=marker, color=colour, capsize=3, linewidth=1.5, label=names[name]
            )
        axes.axvline(1, color="black", linewidth=1.5)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_yticks(range(len(ratios)), list(ratios))
        axes.invert_yaxis()
        axes.set_xlabel("our time / theirs, median and quartiles (left of the line we are quicker)")
        native = [r["native"].median for r in ratios.values()]
        axes.set_title(
            f"A step of a norm takes {min(native):.2g} to {max(native):.2g} x the time of torch's native kernels,\n"
            f"less on {sum(r < 1 for r in native)} of {len(native)} shapes (float32, one thread)"
        )
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=11)
    return png[0]


def accuracy(errors: Mapping[tuple[str, str, float], list[float]]) -> bytes:
    """Error over mean/sd: the worse of y and weight gradient, one line per shape."""
    png: list[bytes] = []
    looks = {"ours": (OURS, "o", "-"), "torch native": (THEIRS, "s", "--"), "plain NumPy": (GREY, "^", ":")}
    worst = {name: max((max(e) for (n, _, _), e in errors.items() if n == name), default=None) for name in looks}
    with _drawing(9, 4.6, png) as axes:
        for name, (colour, marker, line) in looks.items():
            for k, shape in enumerate(dict.fromkeys(s for n, s, _ in errors if n == name)):
                points = {far: max(e) for (n, s, far), e in errors.items() if (n, s) == (name, shape)}
                axes.plot(
                    list(points), list(points.values()), line, marker=marker, color=colour, label=None if k else name
                )
        axes.axhline(1e-6, color="black", linewidth=1.5, linestyle=":")
        axes.text(1e4, 0.9e-6, "limit 1e-6", va="top", ha="right", fontsize=11)
        axes.set(xscale="log", yscale="log", xlabel="|mean| / sd of a channel", ylabel="largest error / largest value")
        theirs = f"; torch native up to {worst['torch native']:.0e}" if worst["torch native"] else ""
        axes.set_title(
            f"y and weight gradient, float32 against float64: ours off by at most {worst['ours']:.0e}{theirs}\n(one line per shape)"
        )
        axes.legend(fontsize=11)
    return png[0]


def allreduce(
    inside: Mapping[str, Mapping[int, Spread]], mpi: Mapping[int, Mapping[int, Mapping[str, list[float]]]], size: int
) -> bytes:
    """Left: latency over the number of ranks. Right: over bytes, on the most MPI processes."""
    png: list[bytes] = []
    most = max(mpi)
    near = min(mpi[most], key=lambda s: abs(s - size))
    with _drawing(12, 4.6, png, ncols=2) as (left, right):
        for (kind, found), colour, marker in zip(inside.items(), (GREEN, AMBER), "^s", strict=True):
            left.plot(list(found), [s.median for s in found.values()], marker=marker, color=colour, label=kind)
        for way, colour, style in (("raw", GREY, "D--"), ("out", OURS, "o-"), ("checked", THEIRS, "v-")):
            label = {"raw": "MPI.Allreduce", "out": "comm.allreduce, MPI", "checked": "checked"}[way]
            middle = [1e6 * np.median(sizes[near][way]) for sizes in mpi.values()]
            left.plot(list(mpi), middle, style, color=colour, label=label)
            right.plot(
                list(mpi[most]), [1e6 * np.median(w[way]) for w in mpi[most].values()], style, color=colour, label=label
            )
        left.set(xscale="log", yscale="log", xlabel="ranks", ylabel="microseconds per call")
        left.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        step = max(inside["lockstep"])
        left.set_title(
            f"{size} bytes: {inside['lockstep'][step].median / step:.2g} us per rank\nbetween {step} lockstep ranks"
        )
        left.legend(fontsize=10, loc="lower right")
        right.set(xscale="log", yscale="log", xlabel="bytes", ylabel="microseconds per call")
        times = [np.median(np.divide(w["out"], w["raw"])) for w in mpi[most].values()]
        right.set_title(
            f"{most} MPI processes: comm.allreduce takes\na median {np.median(times):.2g} x as long as MPI.Allreduce"
        )
        right.legend(fontsize=10)
    return png[0]


def steps(shares: Mapping[tuple[str, int], Mapping[str, float]], seconds: Mapping[tuple[str, int], float]) -> bytes:
    """Stacked bars: share of each part of a step, and above them how long a step takes."""
    png: list[bytes] = []
    nets = list(dict.fromkeys(net for net, _ in shares))
    looks = ((OURS, ""), (THEIRS, "//"), (AMBER, ".."), ("#BBBBBB", ""))
    with _drawing(11, 4.6, png, ncols=len(nets), squeeze=False) as grid:
        for axes, net in zip(grid[0], nets, strict=True):
            keys = [key for key in shares if key[0] == net]
            bottom = np.zeros(len(keys))
            for part, (colour, hatch) in zip(shares[keys[0]], looks, strict=True):
                heights = np.array([100 * shares[key][part] for key in keys])
                look = {"color": colour, "hatch": hatch, "edgecolor": "white"}
                axes.bar(range(len(keys)), heights, bottom=bottom, label=part, **look)
                bottom += heights
            for place, key in enumerate(keys):
                axes.text(place, 101, f"{1e3 * seconds[key]:.2g} ms", ha="center", va="bottom", fontsize=11)
            axes.set_xticks(range(len(keys)), [str(ranks) for _, ranks in keys])
            axes.set(xlabel="MPI ranks", ylabel="share of a step, %", ylim=(0, 110))
            last = shares[keys[-1]]
            axes.set_title(f"{net}: at {keys[-1][1]} ranks {100 * last['compute']:.0f} % of a step\nis compute")
        grid[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=11)
    return png[0]


def growth(found: Mapping[str, tuple[list[int], Any, Any, list[float]]]) -> bytes:
    """Time and memory over each size, as multiples of what the smallest takes, and the line of linear growth."""
    png: list[bytes] = []
    with _drawing(16, 8, png, nrows=2, ncols=3) as grid:
        for axes in grid.flat[len(found) :]:
            axes.set_axis_off()
        for axes, (what, (sizes, seconds, memory, exponents)) in zip(grid.flat, found.items(), strict=False):
            growing = np.array(sizes) / sizes[0]
            axes.plot(sizes, growing, ":", color="black", linewidth=1.5, label="linear")
            axes.plot(sizes, seconds / seconds[0], "o-", color=OURS, label=f"time, from {1e3 * seconds[0]:.2g} ms")
            axes.plot(sizes, memory / memory[0], "s--", color=THEIRS, label=f"memory, from {memory[0] / 2**20:.2g} MiB")
            axes.set(xscale="log", yscale="log", xlabel=what, ylabel="multiple of the smallest")
            axes.minorticks_off()
            axes.set_xticks(sizes, [f"{n}" for n in sizes])
            axes.set_yticks(growing, [f"{n:g}" for n in growing])
            axes.set_title(f"{what}: time ~ n^{exponents[0]:.2f}, memory ~ n^{exponents[1]:.2f}")
            axes.legend(fontsize=11)
    return png[0]


def ranks(found: Mapping[str, Mapping[int, float]], rows: int) -> bytes:
    """Milliseconds per step of all ranks over their number, one line per kind of ranks."""
    png: list[bytes] = []
    colours, markers, lines = (OURS, THEIRS, GREEN, AMBER, GREY), "osv^D", ("-", "--", "-", "-", ":")
    with _drawing(9, 5.2, png) as axes:
        for (kind, each), colour, marker, line in zip(found.items(), colours, markers, lines, strict=True):
            if each:
                label = {"JAX": "JAX, vmap + jit", "mpi": "MPI processes"}.get(kind, f"{kind} (ours)")
                axes.plot(list(each), [1e3 * s for s in each.values()], line, marker=marker, color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="milliseconds per step of all ranks")
        axes.set_xscale("log", base=4)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        stacked, most = found["stacked"], max(found["stacked"])
        both = [n for n in found["lockstep"] if n in stacked]
        title = f"{most} ranks take {1e3 * stacked[most]:.3g} ms per step as one stacked array"
        if most in found["JAX"]:
            title += f", {stacked[most] / found['JAX'][most]:.2g} x JAX's time"
        gain = found["lockstep"][both[-1]] / stacked[both[-1]]
        axes.set_title(
            f"{title};\n{both[-1]} ranks in lockstep take {gain:.0f} x as long as stacked (digits net, {rows} rows per rank)"
        )
        axes.legend(fontsize=11)
    return png[0]
