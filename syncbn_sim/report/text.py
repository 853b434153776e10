"""The main job's findings as a table and as one sentence."""

from __future__ import annotations

from ..experiments.result import Result, Share, Summary
from ..experiments.tasks import TASKS

# metric -> (heading, factor, decimals)
_FORMATS = {
    "accuracy": ("accuracy %", 100, 1),
    "auc": ("AUC %", 100, 2),
    "logloss": ("log loss", 1, 4),
    "ne": ("norm. entropy", 1, 4),
}


def table(result: Result) -> str:
    """The table of one task and the lines below it, each number with its 95 % interval over seeds."""
    task = TASKS[result.task]
    c = result.config
    header = [
        "arm",
        *(f"{_FORMATS[m][0]} [95 % CI]" for m in task.metrics),
        "points to iid",
        f"{task.rows_are} -> effective",
    ]
    rows = [
        [
            arm,
            *(_value(s, *_FORMATS[m][1:]) for m, s in metrics.items()),
            _points(result.differences.get(arm)),
            _rows_behind(result, arm),
        ]
        for arm, metrics in result.arms.items()
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in [header, ["-" * w for w in widths], *rows]
    ]
    title = (
        f"{result.task}: {result.ranks} ranks ({result.backend}) x {c['rows']} {task.rows_are}, sorted by "
        f"{task.sorted_by}, {_count(c['epochs'], 'epoch')}, {_count(c['seeds'], 'seed')}, {result.seconds:.0f} s"
    )
    return "\n".join([title, "", *lines, "", *_lines_below(result)])


def _lines_below(result: Result) -> list[str]:
    task, lines = TASKS[result.task], []
    gap = "of the gap between sorted+local and"
    for share, reference in ((result.recovery, "iid+sync"), (result.recovery_against_iid_local, "iid+local")):
        if {"sorted+local", "sorted+sync", reference} <= set(result.arms):
            lines.append(
                f"SyncBN recovers {_percent(share)} {gap} {reference}."
                if share
                else f"There is no clear gap between sorted+local and {reference} to recover."
            )
    if result.order_cost_without_norm:
        lines.append(
            f"The order alone costs a net without normalisation "
            f"{_points(result.order_cost_without_norm, sign=False)} points."
        )
    lines.append(
        f"Rows of one {task.sorted_by} are alike: intra-class correlation {result.intra_class_correlation:.2f} "
        "(mean over features). Effective rows = rows / design effect."
    )
    for arm, metrics in result.rank0_statistics.items():
        heading, factor, decimals = _FORMATS[task.metric]
        lines.append(
            f"{arm} is judged with running statistics averaged over ranks; with rank 0's own, as PyTorch's DDP saves "
            f"them: {heading} {_value(metrics[task.metric], factor, decimals)}."
        )
    if result.sync:
        s = result.sync
        lines.append(
            f"Synchronising costs {s.allreduces_per_layer_forward:g} all-reduce a layer forward and "
            f"{s.allreduces_per_layer_backward:g} backward, {s.bytes_per_step:,} bytes a step and rank, "
            f"{100 * s.share_of_step:.0f} % of the time of a step here (waiting included)."
        )
    return lines


def sentence(result: Result) -> str:
    """The finding in plain words, with the side on which SyncBN does not help."""
    task = TASKS[result.task]
    heading, factor, decimals = _FORMATS[task.metric]
    name = heading.removesuffix(" %")

    def level(arm: str) -> str:
        return f"{factor * result.arms[arm][task.metric].mean:.{decimals}f} %"

    if not {"iid+local", "sorted+local", "sorted+sync"} <= set(result.arms):
        best = max(result.arms, key=lambda arm: result.arms[arm][task.metric].mean)
        return (
            f"Of the arms that ran, {best} reaches the best {name}, {level(best)}; "
            "the comparison needs iid+local, sorted+local and sorted+sync."
        )
    change = result.differences["sorted+local"]
    if (change.ci95[1] if change.ci95 else change.mean) >= 0:
        return (
            f"Sorting the {task.rows_are} by {task.sorted_by} did not clearly hurt local batch norm ({name} "
            f"{level('iid+local')} shuffled, {level('sorted+local')} sorted): nothing here for SyncBN to repair."
        )
    text = (
        f"Sorted by {task.sorted_by}, local batch norm falls from {level('iid+local')} to {level('sorted+local')} "
        f"{name}; synchronised over {result.ranks} ranks it reaches {level('sorted+sync')}"
    )
    text += f", {_percent(result.recovery)} of the way to SyncBN on shuffled data." if result.recovery else "."
    cost = result.order_cost_without_norm
    if cost and cost.ci95 and cost.ci95[0] > 0:
        text += (
            f" The {_points(cost, sign=False)} points that sorting costs a net without normalisation are the order's "
            "doing, which no batch norm repairs."
        )
    return text if change.ci95 else f"{text} (One seed: no interval, so no claim.)"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _value(s: Summary, factor: float, decimals: int) -> str:
    text = f"{factor * s.mean:.{decimals}f}"
    return text if s.ci95 is None else f"{text} [{factor * s.ci95[0]:.{decimals}f}, {factor * s.ci95[1]:.{decimals}f}]"


def _points(share: Share | None, sign: bool = True) -> str:
    if share is None:
        return "-"
    plus = "+" if sign else ""
    text = f"{100 * share.mean:{plus}.2f}"
    return text if share.ci95 is None else f"{text} [{100 * share.ci95[0]:{plus}.2f}, {100 * share.ci95[1]:{plus}.2f}]"


def _percent(share: Share | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share.mean:.0f} %" + (
        "" if share.ci95 is None else f" [{100 * share.ci95[0]:.0f}, {100 * share.ci95[1]:.0f}]"
    )


def _rows_behind(result: Result, arm: str) -> str:
    behind = result.behind.get(arm)
    if behind is None:
        return "-"
    each = f" on each of {result.ranks} ranks" if arm.endswith("+averaged") else ""
    return f"{behind.rows} -> {behind.effective_rows:.1f}{each}"
