"""Figures. The only file that imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..arrays import Array
from ..cluster.recorded import record
from ..cluster.step_cost import CHEAP, StepCost
from ..comm.schedules import cost
from ..data.columns import shortened
from ..diagnostics.inspect_log import Inspection
from ..experiments.arms import Arm
from ..experiments.result import Result

# Okabe & Ito's colours, told apart by colour-blind readers too; the order of the data is the line style.
COLOURS = {"local": "#D55E00", "sync": "#0072B2", "averaged": "#E69F00", "layer": "#009E73", "none": "#555555"}
STYLE: dict[str, Any] = {  # of the lessons' figures: plt.rcParams.update(STYLE)
    "figure.figsize": (9, 3.6),
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 2,
    "axes.prop_cycle": cycler(
        color=["#0072B2", "#D55E00", "#009E73", "#E69F00", "#555555", "#CC79A7", "#56B4E9", "#000000"]
    ),
}
SMALLEST = 0.1  # where an axis may become logarithmic
MOST_TICKS = 28
_NAMES = {"accuracy": "test accuracy (%)", "auc": "AUC on unseen users (%)", "r2": "R^2 (%)"}


def order_gap(results: Sequence[Result]) -> bytes:
    """One row a task: the metric while training (left), and the final differences to shuffled data (right).

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(12, 4.6 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), 2, squeeze=False, width_ratios=(1.15, 1))
    for (left, right), result in zip(axes, results, strict=True):
        _curves(left, result)
        _differences(right, result)
    return _png(figure)


def batch_means(found: Inspection) -> bytes:
    """Means of single local batches, in each order, against the population: one row of dots per order, and the predicted spread.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for place, (order, colour) in enumerate(zip(found.orders.values(), ("#555555", "#D55E00", "#0072B2"), strict=True)):
        means = np.array(order.batch_means)
        axes.plot(means, place + rng.uniform(-0.25, 0.25, len(means)), ".", color=colour, markersize=4, alpha=0.6)
        axes.errorbar(0, place, xerr=2 * order.predicted_sd, color="black", capsize=6, linewidth=2, zorder=3)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(found.orders)), list(found.orders))
    axes.invert_yaxis()
    axes.set_xlabel(f"mean of {shortened(found.typical)!r} over one batch, in sd of the feature (0: all rows)")
    spread = {name: float(np.std(order.batch_means)) for name, order in found.orders.items()}
    wider = spread["sorted"] / max(spread["shuffled"], 1e-12)
    axes.set_title(
        f"Means of {found.rows_per_rank} rows scatter {wider:.1f} x as far when sorted by {shortened(found.sorted_by)}\n"
        f"dots: batches (correlation {found.correlation[found.typical]:.2f}; mean over columns "
        f"{found.mean_correlation:.2f}); bars: predicted +- 2 sd",
        fontsize=11,
        loc="left",
    )
    axes.grid(alpha=0.25, axis="x")
    return _png(figure)


def cluster_share(costs: Mapping[str, Mapping[int, StepCost]], compute: float, title: str) -> bytes:
    """Share of a step spent on synchronising, over the number of devices, one line a wire format.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    shares = {name: [100 * cost.share(compute) for cost in found.values()] for name, found in costs.items()}
    for (name, by_devices), colour, marker in zip(
        costs.items(), ("#0072B2", "#D55E00", "#555555"), "os^", strict=False
    ):
        axes.plot(
            list(by_devices),
            shares[name],
            marker=marker,
            color=colour,
            label=f"{name}, {next(iter(by_devices.values())).collectives} calls per step",
        )
    for line, style in ((0, "-"), (100 * CHEAP, ":")):
        axes.axhline(line, color="black", linewidth=1, linestyle=style)
    axes.set_xscale("log", base=2)
    axes.margins(0.06)
    axes.set_xlabel("devices")
    axes.set_ylabel(f"synchronising, % of a step{_stretched(axes, 'y', np.concatenate(list(shares.values())))}")
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9)
    return _png(figure)


def space_time(name: str, ranks: int, elements: int) -> bytes:
    """The messages of one all-reduce, recorded: ranks upwards, rounds to the right, arrows as thick as messages are long.

    Returns:
        A PNG.
    """
    sent = record(name, ranks, np.ones(elements))
    promised = cost(name, ranks, 8 * elements)
    figure = Figure(figsize=(min(4 + 0.5 * promised.rounds, 14), 1.5 + 0.4 * ranks), layout="constrained")
    axes = figure.subplots()
    longest, aside = max((m.bytes for m in sent), default=0), max(0.2, 0.015 * promised.rounds)
    for m in sent:
        arrow = {
            "arrowstyle": "-|>",
            "color": "#0072B2",
            "linewidth": 0.4 + 2.2 * m.bytes / longest,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axes.annotate("", (m.round, m.dest), (m.round - 1, m.source), arrowprops=arrow)
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
    return _png(figure)


def _png(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=130)
    return png.getvalue()


def _style(arm: str) -> dict[str, Any]:
    order, norm = arm.split("+")
    return {
        "color": COLOURS[norm],
        "linestyle": "-" if order == "sorted" else (0, (4, 2)),
        "marker": "o" if order == "sorted" else "s",
    }


def _curves(axes: Axes, result: Result) -> None:
    """Means over seeds as lines; bands from the lowest to the highest seed."""
    for arm, curve in result.curves.items():
        mean, low, high = (100 * np.array(curve[name]) for name in (result.metric, "low", "high"))
        axes.plot(
            curve["step"],
            mean,
            label=arm,
            markersize=4,
            linewidth=2,
            markerfacecolor="white" if arm.startswith("iid") else None,
            **_style(arm),
        )
        axes.fill_between(curve["step"], low, high, color=_style(arm)["color"], alpha=0.15, linewidth=0)
    axes.set_xlabel("training step")
    means = [100 * value for curve in result.curves.values() for value in curve[result.metric]]
    axes.set_ylabel(f"{_NAMES[result.metric]}{_stretched(axes, 'y', means)}")
    axes.set_title(
        f"{result.ranks} ranks x {result.config['rows']} {result.rows_are}: {_finding(result)}", fontsize=11, loc="left"
    )
    axes.grid(alpha=0.25)
    legend = "solid: sorted, dashed: shuffled (iid)\nlines: means, bands: lowest to highest seed"
    axes.legend(fontsize=8, ncols=2, title=legend, title_fontsize=8)


def _differences(axes: Axes, result: Result) -> None:
    """Each arm against its shuffled twin, seed by seed: the spread between seeds, which all arms share, drops out."""
    metric = result.metric
    axes.axvline(0, color="black", linewidth=1)
    sizes = []
    for place, (arm, share) in enumerate(result.differences.items()):
        twin = Arm.parse(arm).iid_twin
        colour, each = (
            COLOURS[Arm.parse(arm).norm],
            100 * np.subtract(result.arms[arm][metric].values, result.arms[twin][metric].values),
        )
        sizes.append(max(abs(each).max(), 100 * abs(share.mean)))
        axes.plot(each, np.full(len(each), place) + 0.2, "|", color=colour, markersize=8)
        half = [[100 * (share.mean - share.ci95[0])], [100 * (share.ci95[1] - share.mean)]] if share.ci95 else None
        axes.errorbar(
            100 * share.mean,
            place,
            xerr=half,
            fmt="o" if arm.startswith("sorted") else "s",
            color=colour,
            capsize=4,
            markersize=7,
            markerfacecolor="white" if arm.startswith("iid") else colour,
        )
    axes.set_yticks(
        range(len(result.differences)), [f"{arm}\n- {Arm.parse(arm).iid_twin}" for arm in result.differences]
    )
    axes.set_ylim(len(result.differences) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.set_xlabel(f"difference in {_NAMES[metric].replace('(%)', '(points)')}{_stretched(axes, 'x', sizes)}")
    axes.set_title(
        f"Against shuffled data, paired over {result.config['seeds']} seeds:\nmean, 95 % interval, each seed",
        fontsize=11,
        loc="left",
    )
    axes.grid(alpha=0.25, axis="x")


def _stretched(axes: Axes, which: str, values: Sequence[float] | Array) -> str:
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
    axis.set_ticks([tick for tick in axis.get_majorticklocs() if tick == 0 or abs(tick) >= small])  # 0.1 stands on 0
    axis.set_major_formatter("{x:g}")
    return f",\nlogarithmic beyond {small:g}"


def _finding(result: Result) -> str:
    change = result.differences.get("sorted+local")
    if change is None or "sorted+sync" not in result.differences:
        return f"{result.task}: {_NAMES[result.metric]} by arm"
    if change.ci95 and change.ci95[1] < 0:
        back = (
            f",\nSyncBN wins back {100 * result.recovery.mean:.0f} % of the way to iid+sync" if result.recovery else ""
        )
        return f"sorting by {result.sorted_by} costs local BN {-100 * change.mean:.1f} points{back}"
    return f"sorting by {result.sorted_by} does not clearly hurt local BN"
