"""The main job's findings as a table and as one sentence."""

from __future__ import annotations

from collections.abc import Callable

from ..experiments.result import Result, Share, Summary
from .tables import aligned

# Fixed beforehand: an interval inside +-0.5 points is no effect; one that merely covers 0 says nothing.
NO_EFFECT = 0.005

FEW_SEEDS = 3  # fewer, and the interval of a mean is wider than anything it could show (t = 12.7 at two)
_NORMS = {"averaged": "averaged statistics", "layer": "LayerNorm", "none": "no normalisation"}

# metric -> (heading, factor, decimals)
_FORMATS = {
    "accuracy": ("accuracy %", 100, 1),
    "auc": ("AUC %", 100, 2),
    "logloss": ("log loss", 1, 4),
    "ne": ("norm. entropy", 1, 4),
    "r2": ("R^2 %", 100, 2),
}


def table(result: Result) -> str:
    """The table of one task and the lines below it, each number with its 95 % interval over seeds."""
    c = result.config
    header = [
        "arm",
        *(f"{_FORMATS[m][0]} [95 % CI]" for m in next(iter(result.arms.values()))),
        "sorted - iid, points",
        f"{result.rows_are} -> effective",
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
    title = (
        f"{result.task}: {result.ranks} ranks ({result.backend}) x {c['rows']} {result.rows_are}, sorted by "
        f"{result.sorted_by}, {_count(c['epochs'], 'epoch')}, {_count(c['seeds'], 'seed')}, {result.seconds:.0f} s"
    )
    return "\n".join([title, "", *aligned([header, *rows]), "", *_lines_below(result)])


def _lines_below(result: Result) -> list[str]:
    lines = [
        f"Intervals: 95 % over {_count(result.config['seeds'], 'seed')}, that is over {result.seeds_are}. "
        "sorted - iid: the arm minus its twin, the same norm on shuffled data, seed by seed.",
        *_too_few_seeds(result),
    ]
    gap = "of the way from sorted+local to"
    for share, reference in ((result.recovery, "iid+sync"), (result.recovery_against_iid_local, "iid+local")):
        if {"sorted+local", "sorted+sync", reference} <= set(result.arms):
            lines.append(
                f"SyncBN recovers {_percent(share)} {gap} {reference}."
                if share
                else f"There is no clear gap between sorted+local and {reference} to recover."
            )
    if result.recovery_of_others:
        shares = ", ".join(f"{_NORMS[norm]} {_percent(share)}" for norm, share in result.recovery_of_others.items())
        lines.append(f"By the same formula, of the way to iid+sync: {shares}.")
    if result.order_cost_without_norm:
        lines.append(
            f"The order alone costs a net without normalisation {_points(result.order_cost_without_norm, sign=False)} points, "
            f"{_condition(result)}."
        )
    lines.append(
        f"Rows of one {result.sorted_by} are alike: intra-class correlation {result.intra_class_correlation:.2f} "
        f"(mean over {result.correlation_of}). Effective rows = rows / design effect, held against a shuffled batch."
    )
    for arm, metrics in result.rank0_statistics.items():
        heading, factor, decimals = _FORMATS[result.metric]
        lines.append(
            f"{arm} is judged with running statistics averaged over ranks; with rank 0's own, as PyTorch's DDP saves "
            f"them: {heading} {_value(metrics[result.metric], factor, decimals)}."
        )
    if result.sync:
        s = result.sync
        lines.append(
            f"Synchronising costs {s.allreduces_per_layer_forward:g} all-reduce a layer forward and "
            f"{s.allreduces_per_layer_backward:g} backward, {s.bytes_per_step:,} bytes a step and rank, "
            f"{100 * s.share_of_step:.0f} % of the time of a step here (waiting included)."
        )
    return lines


def _too_few_seeds(result: Result) -> list[str]:
    seeds = result.config["seeds"]
    if seeds >= FEW_SEEDS:
        return []
    return [f"{_count(seeds, 'seed')} can't tell the spread between seeds: compare with {FEW_SEEDS} or more (--seeds)."]


def _condition(result: Result) -> str:
    """What a comparison of arms hangs on, since one rate does not suit them all equally."""
    c = result.config
    return f"at this learning rate ({c['lr']:g}, the same for all arms) and {_count(c['epochs'], 'epoch')}"


def sentence(result: Result) -> str:
    """The finding in plain words, with the side on which SyncBN does not help."""
    heading, factor, decimals = _FORMATS[result.metric]
    name = heading.removesuffix(" %")

    def level(arm: str) -> str:
        return f"{factor * result.arms[arm][result.metric].mean:.{decimals}f} %"

    if not {"iid+local", "sorted+local", "sorted+sync"} <= set(result.arms):
        best = max(result.arms, key=lambda arm: result.arms[arm][result.metric].mean)
        return (
            f"Of the arms that ran, {best} reaches the best {name}, {level(best)}; "
            "the comparison needs iid+local, sorted+local and sorted+sync."
        )
    if any(s.mean != s.mean for arm in result.arms.values() for s in arm.values()):
        return "At least one arm has diverged (nan): try a smaller --lr before comparing."
    if result.ranks == 1:
        return "One rank has nobody to synchronise with, so local and sync are the same: start more with --ranks."
    change = result.differences["sorted+local"]
    if (change.ci95[1] if change.ci95 else change.mean) >= 0:
        return _no_clear_loss(result, change, level)
    text = (
        f"Sorted by {result.sorted_by}{_worst_case(result)}, local batch norm falls from {level('iid+local')} to {level('sorted+local')} "
        f"{name}; synchronised over {result.ranks} ranks it reaches {level('sorted+sync')}"
    )
    if result.recovery:
        text += f". SyncBN on shuffled data reaches {level('iid+sync')}: so it wins back {_percent(result.recovery)} of the way there"
    text += "."
    cost = result.order_cost_without_norm
    if cost and cost.ci95 and cost.ci95[0] > 0:
        text += (
            f" A net without normalisation loses {_points(cost, sign=False)} points to the same order: "
            f"that loss is not batch norm's, and synchronising is no cure for it. That is {_condition(result)}: "
            "at another rate the loss can be smaller, and the ranking of the arms another."
        )
    return text if change.ci95 else f"{text} (One seed: no interval, so no claim.)"


def _worst_case(result: Result) -> str:
    behind = result.behind["sorted+local"]
    alone = behind.rows > 1 and behind.cluster_size > 0.9 * behind.rows
    return f" (a worst case: nearly every local batch is of one {result.sorted_by})" if alone else ""


def _no_clear_loss(result: Result, change: Share, level: Callable[[str], str]) -> str:
    compared = (
        f"Sorted by {result.sorted_by}, local batch norm reaches {level('sorted+local')}, against {level('iid+local')} "
        f"on shuffled {result.rows_are}: a difference of {_points(change)} points"
    )
    if change.ci95 and change.ci95[0] > -NO_EFFECT and change.ci95[1] < NO_EFFECT:
        return (
            f"{compared}, within +-{100 * NO_EFFECT:g}: sorting is not your problem, and SyncBN has nothing to repair."
        )
    return f"{compared}. These seeds cannot tell whether sorting hurts: use more --seeds."


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
