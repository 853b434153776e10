"""What was measured of a log, in a table and in sentences."""

from __future__ import annotations

from ..report.tables import aligned
from ..stats.reading import Behind, behind, readers_needed, sorted_reading
from .inspect_log import InOrder, Inspection

NO_PROBLEM = 1.2  # a design effect below this leaves a batch at least 83 % of its rows
FEW_ENTITIES, FEW_ROWS = 10, 100


def inspection_table(found: Inspection) -> str:
    """How alike the rows of an entity are, and what a batch is worth in each order."""
    n, w = found.rows_per_rank, found.ranks
    header = ["order", "S", "design effect", f"{n} rows are worth"]
    header += [f"on {w} ranks: S", "design effect", f"{n * w:,} rows are worth"]
    rows = [[name, *_figures(order.local), *_figures(order.joined)] for name, order in found.orders.items()]
    by_size = sorted(found.correlation.items(), key=lambda item: -item[1] if item[1] == item[1] else 9.0)
    listed = _listed([f"{name} {rho:.2f}" if rho == rho else f"{name} constant" for name, rho in by_size], 12)
    return "\n".join(
        [
            f"Intra-class correlation by {found.sorted_by}: mean over columns {found.mean_correlation:.2f}; {listed}.",
            "",
            *aligned([header, *rows]),
            "",
            "S: rows of its own entity that a row meets in its batch. Design effect = 1 + (S_adj - 1) x mean correlation, with",
            f"S_adj = (S - n P) / (1 - P), P = {found.same_entity:.3g} (the chance that two rows are of one entity): 1 for shuffled rows.",
            *cautions(found),
            worst(found),
            verdict(found),
        ]
    )


def _listed(texts: list[str], most: int) -> str:
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return ", ".join(texts[:most] + more)


def _figures(b: Behind) -> list[str]:
    return [f"{b.cluster_size:.1f}", f"{b.design_effect:.2f}", f"{b.effective_rows:.1f}"]


def cautions(found: Inspection) -> list[str]:
    """What a reader of the figures should know before acting on them."""
    lines = []
    if _few(found):
        few = f"{found.rows:,} rows of {found.entities} entities are few"
        lines.append(f"{few}: these figures describe this file, and say little of another.")
    for name, order in found.orders.items():
        if order.unexplained:
            lines.append(
                f"{name.capitalize()}, the columns' batch means scatter {order.unexplained:.2g} x as much (in variance) as entities "
                "explain: rows drift, neighbours are alike, or an effect goes with an entity's size. These figures are as measured."
            )
    sizes, n = found.sizes, found.rows_per_rank
    if found.entities > 1 and sizes[0] == sizes[-1] and sizes[0] > 1 and (sizes[0] % n == 0 or n % sizes[0] == 0):
        lines.append(
            f"All entities have {sizes[0]} rows, and batches {n}: a reader whose batches begin where an entity does meets S = "
            f"{min(sizes[0], n)} when sorted, more than the figure here, which lets them begin anywhere."
        )
    if found.mean_correlation < 0:
        alike = "rows of one entity are less alike than others"
        lines.append(f"The mean correlation is negative, and used as it is: {alike}.")
    if found.low_by:
        by_size = sorted(found.low_by.items(), key=lambda item: -item[1])
        listed = _listed([f"{name} {100 * low:.0f} %" for name, low in by_size], 5)
        lines.append(
            "The correlation is that of these very entities. For others it is too low where entities are few or their tail is heavy, "
            f"by about {listed} (more in a heavy tail)."
        )
    return lines


def _few(found: Inspection) -> bool:
    return found.entities < FEW_ENTITIES or found.rows < FEW_ROWS


def worst(found: Inspection) -> str:
    """The same for the feature whose rows are most alike, since a mean over features can hide it."""
    rho, by_key = found.correlation[found.most_alike], sorted_reading(found.sizes)
    b = behind(by_key, rho, found.rows_per_rank)
    return (
        f"For {found.most_alike!r} alone (correlation {rho:.2f}), sorted by {found.sorted_by}: design effect {b.design_effect:.2f}, "
        f"{b.rows} rows are worth {b.effective_rows:.1f}; as steady as shuffled: {_ranks(readers_needed(by_key, rho, b.rows))}."
    )


def verdict(found: Inspection) -> str:
    """What follows, in one sentence."""
    now, by_key = found.orders["as it stands"], found.orders["sorted"]
    if _few(found):
        return "They are too few to advise on."
    if max(by_key.local.design_effect, now.local.design_effect, now.joined.design_effect) < NO_PROBLEM:
        return (
            f"Rows of one {found.sorted_by} hardly make a batch noisier (design effect {by_key.local.design_effect:.2f} even when sorted "
            "by it): sorting is not your problem."
        )
    if abs(now.local.design_effect - 1) < NO_PROBLEM - 1 and now.joined.design_effect < NO_PROBLEM:
        return (
            f"As it stands the log is shuffled (design effect {now.local.design_effect:.2f}): sorting is not your problem "
            f"unless something sorts it; then, sorted by {found.sorted_by}, {_worth(by_key)}."
        )
    if abs(now.local.effective_rows / by_key.local.effective_rows - 1) < 0.05:
        return f"As it stands, which is as good as sorted by {found.sorted_by}, {_worth(now)}."
    return f"As it stands, {_worth(now)}. Sorted by {found.sorted_by}, {_worth(by_key)}."


def _worth(order: InOrder) -> str:
    local, joined = order.local, order.joined
    text = f"{local.rows} rows are worth {local.effective_rows:.1f}"
    if joined.design_effect > NO_PROBLEM * max(local.design_effect, 1.0):
        text += f" (of all ranks together, {joined.rows:,} are worth {joined.effective_rows:.1f}: ranks read alike rows at the same time)"
    steady = "as steady as that of a shuffled local batch"
    if order.ranks_needed is None:
        return f"{text}, and no number of ranks that these rows can fill makes SyncBN's mean {steady}"
    if order.ranks_needed == 1:
        return f"{text}: a batch is at least as steady as a shuffled one"
    enough = f"{_ranks(order.ranks_needed)} SyncBN's mean is at least {steady} (joined rows worth {local.rows} or more)"
    return f"{text}, and with {enough}"


def _ranks(number: int | None) -> str:
    return "more ranks than these rows fill" if number is None else "1 rank" if number == 1 else f"{number} ranks"
