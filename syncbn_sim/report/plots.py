"""Figures. The only file that imports matplotlib, and not before one is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..arrays import Array
from ..cluster.recorded import record
from ..cluster.step_cost import CHEAP, StepCost
from ..comm.schedules import cost

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes  # experiments draw on them too
    from matplotlib.figure import Figure

STYLE: dict[str, Any] = {  # of the lessons' figures: plt.rcParams.update(STYLE)
    "figure.figsize": (9, 3.6),
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 2,
    "axes.prop_cycle": (
        "cycler('color', ['#0072B2', '#D55E00', '#009E73', '#E69F00', '#555555', '#CC79A7', '#56B4E9', '#000000'])"
    ),
}
SMALLEST = 0.1  # where an axis may become logarithmic
MOST_TICKS = 28


def sheet(width: float, height: float, rows: int = 1, columns: int = 1, **how: Any) -> tuple[Figure, Any]:
    """An empty figure.

    Args:
        width, height: in inches.
        rows, columns: of axes in it.
        how: what matplotlib's `subplots` takes besides.

    Returns:
        The figure, and its axes: one, or an array of (rows, columns).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **how)
    return figure, axes[0, 0] if axes.size == 1 else axes


def titled(axes: Axes, title: str, grid: Literal["both", "x"] = "both") -> None:
    """A title in small print on the left, and a faint grid."""
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(alpha=0.25, axis=grid)


def png(figure: Figure) -> bytes:
    """The file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()


def stretched(axes: Axes, which: str, values: Sequence[float] | Array) -> str:
    """Where one value would squash the rest: an axis that is logarithmic beyond the small ones, and words to say so.

    Margins have to be set before: ticks stand as far as the axis reaches now.
    """
    sizes = np.abs(values)[np.isfinite(values)]  # a net that has diverged has none
    small = max(float(f"{np.quantile(sizes, 0.25):.1g}"), SMALLEST) if len(sizes) else SMALLEST
    if max(sizes, default=0.0) < 10 * small:
        return ""
    scale, axis = {"x": (axes.set_xscale, axes.xaxis), "y": (axes.set_yscale, axes.yaxis)}[which]
    scale("symlog", linthresh=small)
    axes.autoscale_view()
    # 0.1 stands on 0.
    axis.set_ticks([tick for tick in axis.get_majorticklocs() if tick == 0 or abs(tick) >= small])
    axis.set_major_formatter("{x:g}")
    return f",\nlogarithmic beyond {small:g}"


def cluster_share(costs: Mapping[str, Mapping[int, StepCost]], compute: float, title: str) -> bytes:
    """Share of a step spent on synchronising, over the number of devices, one line a wire format.

    Returns:
        A PNG.
    """
    figure, axes = sheet(8, 4.6)
    shares = {name: [100 * cost.share(compute) for cost in found.values()] for name, found in costs.items()}
    looks = zip(("#0072B2", "#D55E00", "#555555"), "os^", strict=True)
    for (name, by_devices), (colour, marker) in zip(costs.items(), looks, strict=False):
        label = f"{name}, {next(iter(by_devices.values())).collectives} calls per step"
        axes.plot(list(by_devices), shares[name], marker=marker, color=colour, label=label)
    for line, style in ((0, "-"), (100 * CHEAP, ":")):
        axes.axhline(line, color="black", linewidth=1, linestyle=style)
    axes.set_xscale("log", base=2)
    axes.margins(0.06)
    axes.set_xlabel("devices")
    axes.set_ylabel(f"synchronising, % of a step{stretched(axes, 'y', np.concatenate(list(shares.values())))}")
    titled(axes, title)
    axes.legend(fontsize=9)
    return png(figure)


def space_time(name: str, ranks: int, elements: int) -> bytes:
    """The messages of one all-reduce, recorded: ranks upwards, rounds to the right, arrows as thick as messages are long.

    Returns:
        A PNG.
    """
    sent = record(name, ranks, np.ones(elements))
    promised = cost(name, ranks, 8 * elements)
    figure, axes = sheet(min(4 + 0.5 * promised.rounds, 14), 1.5 + 0.4 * ranks)
    longest, aside = max((m.bytes for m in sent), default=0), max(0.2, 0.015 * promised.rounds)
    arrow = {"arrowstyle": "-|>", "color": "#0072B2", "shrinkA": 0, "shrinkB": 0}
    for m in sent:
        wide = {"linewidth": 0.4 + 2.2 * m.bytes / longest}
        axes.annotate("", (m.round, m.dest), (m.round - 1, m.source), arrowprops=arrow | wide)
    axes.hlines(range(ranks), 0, promised.rounds, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_xlim(-aside, promised.rounds + aside)
    axes.set_ylim(ranks - 0.6, -0.4)
    axes.set_yticks(range(ranks))
    axes.set_xticks(range(0, promised.rounds + 1, 1 + promised.rounds // MOST_TICKS))
    axes.set_xlabel("round")
    axes.set_ylabel("rank")
    axes.set_title(
        f"{name.replace('_', ' ')}, {ranks} ranks: {promised.rounds} rounds, {promised.messages} messages, "
        f"{promised.bytes / 1024:.3g} KiB\n(widest arrow: {longest:,} bytes)",
        fontsize=11,
        loc="left",
    )
    return png(figure)
