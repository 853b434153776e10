"""How alike are the rows of one entity, and what does that leave of a local batch, in each order the rows can be read in?"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import stats
from ..arrays import Array
from ..data.orders import iid, sorted_by_entity

BATCHES = 400  # looked at in each order
NO_PROBLEM = 1.2  # a design effect below this leaves a batch at least 83 % of its rows


def _mean_by_column(correlation: dict[str, float]) -> float:
    """The mean over the columns of the file: the many features ("city=Oslo", "page#17") of one text column count as one."""
    by_column: dict[str, list[float]] = {}
    for name, rho in correlation.items():
        by_column.setdefault(re.split("[=#]", name)[0], []).append(rho)
    return float(np.mean([float(np.mean(values)) for values in by_column.values()] or [0.0]))


@dataclass(frozen=True)
class Reading:
    """The rows of the log read in one order, `rows` at a time.

    Attributes:
        cluster_size: S, how many rows of its own entity the average row meets in its batch.
        design_effect: deff = 1 + (S - 1) rho.
        effective_local: independent rows that one rank's batch is worth.
        effective_sync: the same of all ranks' batches together.
        batch_means: means of single batches in units of the feature's sd, of the feature whose rows are most alike.
    """

    cluster_size: float
    design_effect: float
    effective_local: float
    effective_sync: float
    batch_means: list[float]


@dataclass(frozen=True)
class Inspection:
    """What was measured; `readings` by order: "as it stands", "sorted", "shuffled"."""

    rows: int
    entities: int
    sorted_by: str
    rows_a_rank: int
    ranks: int
    correlation: dict[str, float]
    mean_correlation: float
    most_alike: str
    readings: dict[str, Reading]

    @property
    def ranks_needed(self) -> int:
        """Ranks from which the mean over all of them is as steady as that of one shuffled local batch: at least deff."""
        return math.ceil(self.readings["sorted"].design_effect)

    @property
    def worst(self) -> str:
        """The same for the feature whose rows are most alike, since a mean over features can hide it."""
        rho = max(self.correlation[self.most_alike], 0.0)
        deff = stats.design_effect(self.readings["sorted"].cluster_size, rho)
        return (
            f"For {self.most_alike!r} alone (correlation {rho:.2f}), sorted by {self.sorted_by}: design effect {deff:.2f}, "
            f"{self.rows_a_rank} rows are worth {stats.effective_rows(self.rows_a_rank, deff):.1f}, {math.ceil(deff)} ranks needed."
        )

    @property
    def verdict(self) -> str:
        """What follows, in one sentence."""
        now, by_key = self.readings["as it stands"], self.readings["sorted"]
        if by_key.design_effect < NO_PROBLEM:
            return (
                f"Rows of one {self.sorted_by} are hardly alike (design effect {by_key.design_effect:.2f} even when sorted "
                "by it): sorting is not your problem."
            )
        needed = (
            f"sorted by {self.sorted_by}, {self.rows_a_rank} rows are worth {by_key.effective_local:.1f}, and from "
            f"{self.ranks_needed} ranks on SyncBN's mean is as steady as that of a shuffled local batch (ranks >= design effect)"
        )
        if now.design_effect < NO_PROBLEM:
            return (
                f"As it stands the log is shuffled (design effect {now.design_effect:.2f}): sorting is not your problem "
                f"unless something sorts it; then, {needed}."
            )
        return f"As it stands, a batch of {self.rows_a_rank} rows is worth {now.effective_local:.1f}; {needed}."


def inspect(x: Array, names: Sequence[str], entity: Array, sorted_by: str, rows: int, ranks: int) -> Inspection:
    """Measures a log.

    Args:
        x: (N, F) features, NaN where missing.
        names: their names.
        entity: (N,) entity codes, in the order of the file.
        sorted_by: what the entities are.
        rows: rows a rank and step.
        ranks: number of ranks.

    Raises:
        CountError: no entity has two rows, so there is nothing to measure.
    """
    correlation = {}
    for place, name in enumerate(names):  # one column at a time bounds the memory
        column = x[:, place].astype(np.float64)
        column[np.isnan(column)] = np.nanmean(column)
        correlation[name] = float(stats.intra_class_correlation(column, entity))
    known = {name: rho for name, rho in correlation.items() if not np.isnan(rho)}
    rho = _mean_by_column(known)
    most = max(known or {names[0]: 0.0}, key=lambda name: known.get(name, 0.0))
    column = np.nan_to_num(x[:, list(names).index(most)] - np.nanmean(x[:, list(names).index(most)]))
    column = column / (column.std() or 1.0)
    rng = np.random.default_rng(0)
    orders = {
        "as it stands": np.arange(len(entity)),
        "sorted": sorted_by_entity(entity, rng),
        "shuffled": iid(entity, rng),
    }
    readings = {name: _read(order, entity, column, max(rho, 0.0), rows, ranks) for name, order in orders.items()}
    sizes = int(entity.max()) + 1
    return Inspection(len(entity), sizes, sorted_by, rows, ranks, correlation, rho, most, readings)


def _read(order: Array, entity: Array, column: Array, rho: float, rows: int, ranks: int) -> Reading:
    starts = np.unique(np.linspace(0, max(len(order) - rows, 0), BATCHES).astype(int))
    batches = [order[start : start + rows] for start in starts]
    cluster = stats.cluster_size([entity[batch] for batch in batches])
    deff = stats.design_effect(cluster, rho)
    local = stats.effective_rows(rows, deff)
    return Reading(cluster, deff, local, local * ranks, [float(column[batch].mean()) for batch in batches])
