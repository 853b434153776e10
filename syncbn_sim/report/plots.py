"""Figures. The only file that imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments.result import Result
from ..experiments.tasks import TASKS

# Okabe & Ito's colours, told apart by colour-blind readers too; the order of the data is the line style.
_COLOURS = {"local": "#D55E00", "sync": "#0072B2", "averaged": "#E69F00", "layer": "#009E73", "none": "#555555"}
_NAMES = {"accuracy": "test accuracy (%)", "auc": "AUC on unseen users (%)"}


def order_gap(results: Sequence[Result]) -> bytes:
    """One row a task: the metric while training (left), and its final value of every seed with the 95 % interval (right).

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(12, 4.6 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), 2, squeeze=False, width_ratios=(1.15, 1))
    for (left, right), result in zip(axes, results, strict=True):
        _curves(left, result)
        _finals(right, result)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=130)
    return png.getvalue()


def _style(arm: str) -> dict[str, object]:
    order, norm = arm.split("+")
    return {"color": _COLOURS[norm], "linestyle": "-" if order == "sorted" else (0, (4, 2)), "marker": "o" if order == "sorted" else "s"}


def _curves(axes: Axes, result: Result) -> None:
    metric = TASKS[result.task].metric
    ends = {}
    for arm, curve in result.curves.items():
        axes.plot(curve["step"], 100 * np.array(curve[metric]), label=arm, markersize=4, linewidth=2, markerfacecolor="white" if arm.startswith("iid") else None, **_style(arm))
        ends[arm] = 100 * curve[metric][-1]
    axes.set_xlabel("training step")
    axes.set_ylabel(_NAMES[metric])
    axes.set_title(_finding(result), fontsize=12, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, ncols=2, title="solid: sorted, dashed: shuffled (iid)", title_fontsize=8)


def _finals(axes: Axes, result: Result) -> None:
    metric = TASKS[result.task].metric
    for place, (arm, metrics) in enumerate(result.arms.items()):
        s, colour = metrics[metric], _COLOURS[arm.split("+")[1]]
        axes.plot(100 * np.array(s.values), np.full(len(s.values), place) + 0.18, "|", color=colour, markersize=7, alpha=0.8)
        half = [[100 * (s.mean - s.ci95[0])], [100 * (s.ci95[1] - s.mean)]] if s.ci95 else None
        axes.errorbar(100 * s.mean, place, xerr=half, fmt="o" if arm.startswith("sorted") else "s", color=colour, capsize=3, markersize=6,
                      markerfacecolor="white" if arm.startswith("iid") else colour)
    axes.set_yticks(range(len(result.arms)), list(result.arms))
    axes.invert_yaxis()
    axes.set_xlabel(f"{_NAMES[metric]}: mean, 95 % interval, and each of {result.config['seeds']} seeds")
    axes.set_title(f"{result.ranks} ranks x {result.config['rows']} {TASKS[result.task].rows_are}, at the end", fontsize=12, loc="left")
    axes.grid(alpha=0.25, axis="x")


def _finding(result: Result) -> str:
    task = TASKS[result.task]
    change = result.differences.get("sorted+local")
    if change is None or "sorted+sync" not in result.differences:
        return f"{result.task}: {_NAMES[task.metric]} by arm"
    if change.ci95 and change.ci95[1] < 0:
        back = f", SyncBN wins back {100 * result.recovery.mean:.0f} % of the gap" if result.recovery else ""
        return f"Sorting by {task.sorted_by} costs local BN {-100 * change.mean:.1f} points{back}"
    return f"Sorting by {task.sorted_by} does not clearly hurt local BN"
