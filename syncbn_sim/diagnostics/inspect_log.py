"""How alike are the rows of one entity, and what does that leave of a batch, in each order the rows can be read in?

The main job, `syncbn-sim inspect-log` and `syncbn-sim advise --data` all take their figures from here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from .. import stats
from ..arrays import Array
from ..data.orders import iid, sorted_by_entity, steps_per_epoch
from ..errors import CountError, check_whole
from ..stats.reading import Behind, MeasuredReading, Reading, batches_from, behind, readers_needed

SHOWN = 400  # batches of a picture
COLUMNS = 16  # of the file, on which batch means are measured
AGREE = 0.15  # logarithm of measured over explained design effect that passes as agreement
LOW_BY = 0.02  # relative, from where a correlation is said to be uncertain


@dataclass(frozen=True)
class InOrder:
    """The rows read in one order.

    Attributes:
        reading: the order.
        unexplained: local design effect as measured on the columns, over that which entities explain; None: they agree. If they do not,
            all figures of this order are as measured.
        local: what stands behind one rank's batch.
        joined: what stands behind the batch of all ranks.
        ranks_needed: how many ranks make the joined mean as steady as that of one shuffled local batch; None: more than the rows fill.
        batch_means: means of single local batches of the typical feature, in units of its sd, and their predicted sd.
    """

    reading: Reading
    unexplained: float | None
    local: Behind
    joined: Behind
    ranks_needed: int | None
    batch_means: list[float]
    predicted_sd: float


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was measured.

    Attributes:
        rows, entities: of the population.
        sizes: (J,) rows of each entity, the smallest first.
        sorted_by: what an entity is.
        rows_per_rank, ranks: of a step.
        same_entity: P, the chance that two rows are of one entity.
        correlation: rho by feature; NaN: constant.
        mean_correlation: over the columns of the file (the features of one text column count as one).
        most_alike: the feature with the largest.
        typical: the feature nearest to the mean, of a number column if there is one.
        low_by: features whose correlation, for entities drawn anew, is more than a few percent too low (by about so much).
        orders: "as it stands", "sorted", "shuffled".
    """

    rows: int
    entities: int
    sizes: Array
    sorted_by: str
    rows_per_rank: int
    ranks: int
    same_entity: float
    correlation: dict[str, float]
    mean_correlation: float
    most_alike: str
    typical: str
    low_by: dict[str, float]
    orders: dict[str, InOrder]


def inspect(
    x: Array,
    names: Sequence[str],
    entity: Array,
    sorted_by: str,
    rows: int,
    ranks: int,
    columns: Sequence[str] | None = None,
) -> Inspection:
    """Measures a population of rows.

    Args:
        x: (N, F) features, NaN where missing.
        names: their names.
        entity: (N,) entity codes from 0, in the order of the file.
        sorted_by: what the entities are.
        rows: n, rows per rank and step.
        ranks: W, number of ranks.
        columns: the column of the file that each feature comes from; default: each from one of its own.

    Raises:
        CountError: no entity has two rows, so there is nothing to measure.
        DataError: fewer rows than one step of all ranks needs.
    """
    check_whole("ranks", ranks, do="For example --ranks 8.")
    steps_per_epoch(len(entity), ranks, rows, drop_last=True)
    sizes = np.bincount(entity)
    correlation, low_by = _correlations(x, names, entity, sizes)
    known = {name: rho for name, rho in correlation.items() if not np.isnan(rho)}
    by_column = _by_column(names, columns or names, known)
    rho = float(np.mean([np.mean([known[name] for name in group]) for group in by_column]))
    whole = [group[0] for group in by_column if len(group) == 1]
    typical = min(whole or known, key=lambda name: abs(known[name] - rho))
    first = [group[0] for group in by_column][:COLUMNS]
    place = {name: at for at, name in enumerate(names)}
    few = _standardised_columns(x, [place[name] for name in first])
    rho_of_few = float(np.mean([known[name] for name in first]))
    log = _Log(entity, few, rho_of_few, _standardised(x[:, place[typical]]), known[typical], rho, rows, ranks)
    return Inspection(
        rows=len(entity),
        entities=len(sizes),
        sizes=np.sort(sizes),
        sorted_by=sorted_by,
        rows_per_rank=rows,
        ranks=ranks,
        same_entity=stats.same_entity(sizes),
        correlation=correlation,
        mean_correlation=rho,
        most_alike=max(known, key=lambda name: known[name]),
        typical=typical,
        low_by={name: low for name, low in low_by.items() if low > LOW_BY},
        orders=log.orders(),
    )


@dataclass(frozen=True, eq=False)
class _Log:
    """Rows in the order of the file, and what is asked of every order of reading them."""

    entity: Array
    columns: Array
    rho_of_columns: float
    typical: Array
    rho_of_typical: float
    rho: float
    rows: int
    ranks: int

    def orders(self) -> dict[str, InOrder]:
        """The three of them."""
        rng, sizes = np.random.default_rng(0), np.bincount(self.entity)
        return {
            "as it stands": self.read(np.arange(len(self.entity)), MeasuredReading(self.entity)),
            "sorted": self.read(sorted_by_entity(self.entity, rng), stats.sorted_reading(sizes)),
            "shuffled": self.read(iid(self.entity, rng), stats.shuffled_reading(sizes)),
        }

    def read(self, order: Array, by_entity: Reading) -> InOrder:
        """Takes entities as the explanation where the columns bear it out, and the columns' own scatter where not."""
        measured = MeasuredReading(self.entity[order], self.columns[order])
        unexplained = self._unexplained(measured, by_entity, 1)
        # Of other orders this is one of many.
        if unexplained is None and isinstance(by_entity, MeasuredReading):
            unexplained = self._unexplained(measured, by_entity, self.ranks)
        reading: Reading = by_entity if unexplained is None else measured
        rng = np.random.default_rng(0)
        shown = batches_from(rng.integers(0, len(order), SHOWN), len(order), self.rows)
        typical = MeasuredReading(measured.entity, self.typical[order][:, None]) if unexplained else by_entity
        deff = behind(typical, self.rho_of_typical, self.rows).design_effect
        return InOrder(
            reading,
            unexplained,
            behind(reading, self.rho, self.rows),
            behind(reading, self.rho, self.rows, self.ranks),
            readers_needed(reading, self.rho, self.rows),
            self.typical[order[shown]].mean(axis=1).tolist(),
            stats.predicted_sd_of_mean(1.0, self.rows, deff, len(order)),
        )

    def _unexplained(self, measured: MeasuredReading, by_entity: Reading, ranks: int) -> float | None:
        explained = behind(by_entity, self.rho_of_columns, self.rows, ranks).design_effect
        ratio = measured.measured(self.rows, ranks) / explained
        # Of a variance of N / (n W) batches: three times its sd.
        luck = 3 * (2 * self.rows * ranks / len(self.entity)) ** 0.5
        return None if abs(np.log(ratio)) < max(AGREE, luck) else float(ratio)


def _correlations(
    x: Array, names: Sequence[str], entity: Array, sizes: Array
) -> tuple[dict[str, float], dict[str, float]]:
    """By feature: the correlation, and by how much it is too low for other entities."""
    correlation, low_by = {}, {}
    for place, name in enumerate(names):  # one column at a time bounds the memory
        column = _standardised(x[:, place])
        correlation[name] = float(stats.intra_class_correlation(column, entity))
        low_by[name] = _low_by(column, entity, sizes, correlation[name])
    if np.isnan(list(correlation.values())).all():
        raise CountError("features", got="constant columns only", expected="one that varies", do="Choose others.")
    return correlation, low_by


def _by_column(names: Sequence[str], columns: Sequence[str], known: Collection[str]) -> list[list[str]]:
    """The known features, those of one column of the file together."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, column in zip(names, columns, strict=True):
        if name in known:
            found[column].append(name)
    return list(found.values())


def _standardised(column: Array) -> Array:
    """Mean 0 and variance 1 in float64, missing values at the mean."""
    column = column.astype(np.float64)
    column = np.nan_to_num(column - np.nanmean(column))
    return column / (column.std() or 1.0)


def _standardised_columns(x: Array, places: Sequence[int]) -> Array:
    """Some columns in float32, made one at a time, which bounds the memory."""
    columns = np.empty((len(x), len(places)), np.float32)
    for at, place in enumerate(places):
        columns[:, at] = _standardised(x[:, place])
    return columns


def _low_by(column: Array, entity: Array, sizes: Array, rho: float) -> float:
    """By how much of itself the correlation of *other* entities is underestimated: (1 - rho) (P + rho (kurtosis of entity means - 1) / J).

    P: these entities have lost their own mean (`stats.intra_class_correlation`). The kurtosis: the variance of J means has a
    relative error of sqrt((kurtosis - 1) / J), and rho = A / (A + w) bends downwards in it: half its second derivative times A^2
    is -rho^2 (1 - rho). Where the tail is heavy this is too little, since the kurtosis of a sample is too small as well.
    """
    if not rho > 0:
        return 0.0
    there = sizes > 0
    means = np.bincount(entity, column)[there] / sizes[there]
    shares = sizes[there] / sizes.sum()
    second, fourth = (shares * means**2).sum(), (shares * means**4).sum()
    return float((1 - rho) * (stats.same_entity(sizes) + rho * (fourth / second**2 - 1) / there.sum()))
