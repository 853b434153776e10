"""Arms side by side in a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report.plots import png, sheet, stretched, titled
from .arms import Arm
from .metrics import METRICS
from .result import Result

if TYPE_CHECKING:
    from ..report.plots import Axes


def order_gap(results: Sequence[Result]) -> bytes:
    """One row per task: the metric while training (left), and the final differences to shuffled data (right).

    Returns:
        A PNG.
    """
    figure, axes = sheet(12, 4.6 * len(results), len(results), 2, width_ratios=(1.15, 1))
    for (left, right), result in zip(axes, results, strict=True):
        _curves(left, result)
        _differences(right, result)
    return png(figure)


def _style(arm: str) -> dict[str, Any]:
    """The norm is the colour; the order is the line, and whether markers are filled."""
    colour, shuffled = Arm.parse(arm).kind.colour, arm.startswith("iid")
    return {
        "color": colour,
        "linestyle": (0, (4, 2)) if shuffled else "-",
        "marker": "s" if shuffled else "o",
        "markerfacecolor": "white" if shuffled else colour,
    }


def _curves(axes: Axes, result: Result) -> None:
    """Means over seeds as lines; bands from the lowest to the highest seed."""
    for arm, curve in result.curves.items():
        mean, low, high = (100 * np.array(curve[name]) for name in (result.metric, "low", "high"))
        axes.plot(curve["step"], mean, label=arm, markersize=4, linewidth=2, **_style(arm))
        axes.fill_between(curve["step"], low, high, color=_style(arm)["color"], alpha=0.15, linewidth=0)
    axes.set_xlabel("training step")
    means = [100 * value for curve in result.curves.values() for value in curve[result.metric]]
    axes.set_ylabel(f"{METRICS[result.metric].axis}{stretched(axes, 'y', means)}")
    titled(axes, f"{result.ranks} ranks x {result.config['rows']} {result.rows_are}: {_finding(result)}")
    legend = "solid: sorted, dashed: shuffled (iid)\nlines: means, bands: lowest to highest seed"
    axes.legend(fontsize=8, ncols=2, title=legend, title_fontsize=8)


def _differences(axes: Axes, result: Result) -> None:
    """Each arm against its shuffled twin, seed by seed: the spread between seeds, which all arms share, drops out."""
    metric = result.metric
    axes.axvline(0, color="black", linewidth=1)
    sizes = []
    for place, (arm, difference) in enumerate(result.differences.items()):
        each, style = 100 * np.array(difference.values), {**_style(arm), "linestyle": ""}
        sizes.append(max(abs(each).max(), 100 * abs(difference.mean)))
        axes.plot(each, np.full(len(each), place) + 0.2, "|", color=style["color"], markersize=8)
        ends = difference.interval
        half = [[100 * (difference.mean - ends[0])], [100 * (ends[1] - difference.mean)]] if ends else None
        axes.errorbar(100 * difference.mean, place, xerr=half, capsize=4, markersize=7, **style)
    pairs = [f"{arm}\n- {Arm.parse(arm).iid_twin}" for arm in result.differences]
    axes.set_yticks(range(len(pairs)), pairs)
    axes.set_ylim(len(result.differences) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.set_xlabel(f"difference in {METRICS[metric].axis.replace('(%)', '(points)')}{stretched(axes, 'x', sizes)}")
    seeds = result.config["seeds"]
    titled(axes, f"Against shuffled data, paired over {seeds} seeds:\nmean, 95 % interval, each seed", grid="x")


def _finding(result: Result) -> str:
    change = result.differences.get("sorted+local")
    if change is None or "sorted+sync" not in result.differences:
        return f"{result.task}: {METRICS[result.metric].axis} by arm"
    if change.interval and change.interval[1] < 0:
        cost = f"sorting by {result.sorted_by} costs local BN {-100 * change.mean:.1f} points"
        if result.recovery is None:
            return cost
        return f"{cost},\nSyncBN wins back {100 * result.recovery.mean:.0f} % of the way to iid+sync"
    return f"sorting by {result.sorted_by} does not clearly hurt local BN"
