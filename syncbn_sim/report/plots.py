"""Figures. The only file that imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments.arms import Arm
from ..experiments.result import Result
from ..experiments.tasks import TASKS

# Okabe & Ito's colours, told apart by colour-blind readers too; the order of the data is the line style.
_COLOURS = {"local": "#D55E00", "sync": "#0072B2", "averaged": "#E69F00", "layer": "#009E73", "none": "#555555"}
_NAMES = {"accuracy": "test accuracy (%)", "auc": "AUC on unseen users (%)"}


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
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=130)
    return png.getvalue()


def _style(arm: str) -> dict[str, Any]:
    order, norm = arm.split("+")
    return {
        "color": _COLOURS[norm],
        "linestyle": "-" if order == "sorted" else (0, (4, 2)),
        "marker": "o" if order == "sorted" else "s",
    }


def _curves(axes: Axes, result: Result) -> None:
    metric = TASKS[result.task].metric
    ends = {}
    for arm, curve in result.curves.items():
        axes.plot(
            curve["step"],
            100 * np.array(curve[metric]),
            label=arm,
            markersize=4,
            linewidth=2,
            markerfacecolor="white" if arm.startswith("iid") else None,
            **_style(arm),
        )
        ends[arm] = 100 * curve[metric][-1]
    axes.set_xlabel("training step")
    axes.set_ylabel(_NAMES[metric])
    axes.set_title(
        f"{result.ranks} ranks x {result.config['rows']} {TASKS[result.task].rows_are}: {_finding(result)}",
        fontsize=11,
        loc="left",
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, ncols=2, title="solid: sorted, dashed: shuffled (iid)", title_fontsize=8)


def _differences(axes: Axes, result: Result) -> None:
    """Each arm against its shuffled twin, seed by seed: the spread between seeds, which all arms share, drops out."""
    metric = TASKS[result.task].metric
    axes.axvline(0, color="black", linewidth=1)
    for place, (arm, share) in enumerate(result.differences.items()):
        twin = Arm.parse(arm).iid_twin
        colour, each = (
            _COLOURS[Arm.parse(arm).norm],
            100 * np.subtract(result.arms[arm][metric].values, result.arms[twin][metric].values),
        )
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
    axes.invert_yaxis()
    axes.set_xlabel(f"difference in {_NAMES[metric].replace('(%)', '(points)')}")
    axes.set_title(
        f"Against shuffled data, paired over {result.config['seeds']} seeds:\nmean, 95 % interval, each seed",
        fontsize=11,
        loc="left",
    )
    axes.grid(alpha=0.25, axis="x")


def _finding(result: Result) -> str:
    task = TASKS[result.task]
    change = result.differences.get("sorted+local")
    if change is None or "sorted+sync" not in result.differences:
        return f"{result.task}: {_NAMES[task.metric]} by arm"
    if change.ci95 and change.ci95[1] < 0:
        back = f",\nSyncBN wins back {100 * result.recovery.mean:.0f} % of the gap" if result.recovery else ""
        return f"sorting by {task.sorted_by} costs local BN {-100 * change.mean:.1f} points{back}"
    return f"sorting by {task.sorted_by} does not clearly hurt local BN"
