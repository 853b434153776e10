"""Arms side by side in a table, and what else was found below it."""

from __future__ import annotations

from ..report.numbers import counted, estimated
from ..report.tables import aligned
from ..stats.estimates import Estimate
from .arms import Arm
from .metrics import METRICS
from .norms import NORMS
from .result import Result

# Fewer, and the interval of a mean is wider than anything it could show (t = 12.7 at two).
FEW_SEEDS = 3


def table(result: Result) -> str:
    """The table of one task and the lines below it, each number with its 95 % interval over seeds."""
    c = result.config
    headings = [f"{METRICS[m].heading} [95 % CI]" for m in next(iter(result.arms.values()))]
    rows = [["arm", *headings, "sorted - iid, points", f"{result.rows_are} -> effective"]]
    for arm, metrics in result.arms.items():
        written = [METRICS[m].written(found) for m, found in metrics.items()]
        to_twin = estimated(result.differences.get(arm), 100, 2, plus=True)
        rows.append([arm, *written, to_twin, _rows_behind(result, arm)])
    title = (
        f"{result.task}: {result.ranks} ranks ({result.backend}) x {c['rows']} {result.rows_are}, sorted by "
        f"{result.sorted_by}, {counted(c['epochs'], 'epoch')}, {counted(c['seeds'], 'seed')}, {result.seconds:.0f} s"
    )
    return "\n".join([title, "", *aligned(rows), "", *_lines_below(result)])


def _lines_below(result: Result) -> list[str]:
    alike = (
        f"Rows of one {result.sorted_by} are alike: intra-class correlation {result.intra_class_correlation:.2f} "
        f"(mean over {result.correlation_of}). Effective rows = rows / design effect, held against a shuffled batch."
    )
    return [
        f"Intervals: 95 % over {counted(result.config['seeds'], 'seed')}, that is over {result.seeds_are}. "
        "sorted - iid: the arm minus its twin, the same norm on shuffled data, seed by seed.",
        *_too_few_seeds(result),
        *_recovered(result),
        alike,
        *_rank0(result),
        *_sync_cost(result),
    ]


def _recovered(result: Result) -> list[str]:
    lines, gap = [], "of the way from sorted+local to"
    for recovered, reference in ((result.recovery, "iid+sync"), (result.recovery_against_iid_local, "iid+local")):
        if {"sorted+local", "sorted+sync", reference} <= set(result.arms):
            lines.append(
                f"SyncBN recovers {_per_cent(recovered)} {gap} {reference}."
                if recovered
                else f"There is no clear gap between sorted+local and {reference} to recover."
            )
    others = [f"{NORMS[norm].words} {_per_cent(found)}" for norm, found in result.recovery_of_others.items()]
    if others:
        lines.append(f"By the same formula, of the way to iid+sync: {', '.join(others)}.")
    if result.order_cost_without_norm:
        cost = estimated(result.order_cost_without_norm, 100, 2)
        lines.append(f"The order alone costs a net without normalisation {cost} points, {condition(result)}.")
    return lines


def _per_cent(recovered: Estimate) -> str:
    return estimated(recovered, 100, unit=" %")


def _rank0(result: Result) -> list[str]:
    main = METRICS[result.metric]
    return [
        f"{arm} is judged with running statistics averaged over ranks; with rank 0's own, as PyTorch's DDP saves "
        f"them: {main.heading} {main.written(metrics[result.metric])}."
        for arm, metrics in result.rank0_statistics.items()
    ]


def _sync_cost(result: Result) -> list[str]:
    if (cost := result.sync) is None:
        return []
    share = cost.share_of_step
    share_in_words = (
        "its share of a step's time was not measured: stacked ranks add up without talk"
        if share is None
        else f"{100 * share:.0f} % of the time of a step here (waiting included)"
    )
    return [
        f"Synchronising costs {cost.allreduces_per_layer_forward:g} all-reduce per layer forward and "
        f"{cost.allreduces_per_layer_backward:g} backward, {cost.bytes_per_step:,} bytes per step and rank, {share_in_words}."
    ]


def _too_few_seeds(result: Result) -> list[str]:
    seeds = result.config["seeds"]
    text = f"{counted(seeds, 'seed')} can't tell the spread between seeds: compare with {FEW_SEEDS} or more (--seeds)."
    return [text] if seeds < FEW_SEEDS else []


def condition(result: Result) -> str:
    """What a comparison of arms hangs on, since one rate does not suit them all equally."""
    c = result.config
    return f"at this learning rate ({c['lr']:g}, the same for all arms) and {counted(c['epochs'], 'epoch')}"


def _rows_behind(result: Result, arm: str) -> str:
    behind, norm = result.behind.get(arm), Arm.parse(arm).kind
    if behind is None:
        return "-"
    each = f" on each of {result.ranks} ranks" if norm.talks and not norm.joins else ""
    return f"{behind.rows} -> {behind.effective_rows:.1f}{each}"
