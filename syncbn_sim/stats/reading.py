"""How often rows of one entity meet in a batch, by the order in which the rows are read.

A batch is a stretch of neighbouring rows; the joined batch of W readers is W stretches, N / W rows apart, since each reads its own part.
All that matters of an order is `same(lag)`, the chance that two rows `lag` apart are of one entity: with it

    S = (1 / (n W)) sum over all pairs of rows of the batch of same(their lag).

Rows stand on a ring (the last is followed by the first) and a batch begins anywhere on it, so each row is read equally often and no
period of the reader meets a period of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arrays import Array
from .correlation import adjusted_cluster_size, design_effect, effective_rows, same_entity

SEED = 0  # of the batches that are drawn
NUMBERS = 1 << 20  # rows that they hold together
FEWEST = 400  # their least number


@dataclass(frozen=True)
class LagReading:
    """An order known by formula.

    Attributes:
        total: N, the number of rows; infinite where entities are too many to meet by chance.
        same: P, the chance that two different rows are of one entity.
        at: lags >= 0 -> chance that rows so far apart are of one entity; 1 at lag 0.
    """

    total: float
    same: float
    at: Callable[[Array], Array]

    def cluster_size(self, rows: int, readers: int = 1, of: int | None = None) -> float:
        """Computes S of the joined batch of the first `readers` of `of` readers (default: all of them), n rows each.

        Exact: n W at lag 0 and twice the pairs at each other lag, inside a stretch and between stretches.
        """
        inside = np.arange(1.0, rows)
        meetings = readers * (rows + 2 * float(((rows - inside) * self.at(inside)).sum()))
        across = np.arange(1.0 - rows, rows)
        for between in range(1, readers if np.isfinite(self.total) else 1):
            lags = self._on_ring(between * self.total / (of or readers) + across)
            pairs = (rows - np.abs(across)) * self.at(lags)
            meetings += 2 * (readers - between) * float(pairs.sum())
        return meetings / (rows * readers)

    def windowed(self, window: int) -> LagReading:
        """The same order, shuffled inside windows of so many rows.

        Rows i and i + lag then stand j = lag // w or j + 1 windows apart, and anywhere in them.
        """

        def between(windows: Array) -> Array:
            """Chance of one entity for two rows drawn from windows so far apart (0: two rows of one window)."""
            inner = np.arange(1.0 - window, window)
            pairs = window - np.abs(inner)
            values, place = np.unique(windows, return_inverse=True)
            chances = np.array([(pairs * self.at(self._on_ring(j * window + inner))).sum() / window**2 for j in values])
            own = values == 0
            # Without the pair of a row with itself.
            chances[own] = (chances[own] * window - 1) / (window - 1)
            return chances[place]

        def at(lags: Array) -> Array:
            apart, part = np.floor(lags / window), lags % window / window
            return np.where(lags == 0, 1.0, (1 - part) * between(apart) + part * between(apart + 1))

        return LagReading(self.total, self.same, at) if window > 1 else self

    def _on_ring(self, lags: Array) -> Array:
        lags = np.abs(lags)
        if not np.isfinite(self.total):
            return lags
        lags = lags % self.total
        return np.minimum(lags, self.total - lags)


def sorted_reading(sizes: Array, shares: Array | None = None) -> LagReading:
    """All rows of an entity together: same(lag) = sum_c max(0, N_c - lag) / N, in whatever order the entities stand.

    Args:
        sizes: (J,) rows of each entity.
        shares: (J,) how many entities of each size, in proportion, in a world of very many (N infinite, P 0). Default: `sizes` is
            the whole population, one entity each.
    """
    order = np.argsort(sizes)
    rows = np.asarray(sizes, np.float64)[order]
    entities = np.ones(len(rows)) if shares is None else np.asarray(shares, np.float64)[order]
    total = float((rows * entities).sum())
    # sums over the entities with more than `lag` rows
    more_rows = np.concatenate([np.cumsum((rows * entities)[::-1])[::-1], [0.0]])
    more = np.concatenate([np.cumsum(entities[::-1])[::-1], [0.0]])

    def at(lags: Array) -> Array:
        first = np.searchsorted(rows, lags, side="right")
        return (more_rows[first] - lags * more[first]) / total

    def around(lags: Array) -> Array:
        return at(lags) + np.where(lags > 0, at(total - lags), 0.0)

    return LagReading(total, same_entity(rows), around) if shares is None else LagReading(np.inf, 0.0, at)


def shuffled_reading(sizes: Array) -> LagReading:
    """Rows in random order: any two are of one entity with chance P."""
    same = same_entity(sizes)
    return LagReading(float(np.sum(sizes)), same, lambda lags: np.where(lags == 0, 1.0, same))


@dataclass(frozen=True, eq=False)
class MeasuredReading:
    """An order as it stands: S is counted on batches that begin at random rows.

    Attributes:
        entity: (N,) entity codes, in the order in which rows are read.
        columns: (N, F) values in that order; if they are given, the design effect is measured on them instead of following from S.
            For orders in which more than entities makes rows alike: drift, neighbours, effects that go with an entity's size.
    """

    entity: Array
    columns: Array | None = None

    @property
    def total(self) -> float:
        """N."""
        return float(len(self.entity))

    @cached_property
    def same(self) -> float:
        """P."""
        return same_entity(np.unique(self.entity, return_counts=True)[1])

    def cluster_size(self, rows: int, readers: int = 1, of: int | None = None) -> float:
        """Mean over the batches that begin at every row, or over some thousands of them, the same ones each time."""
        width = rows * readers
        begins = _begins(len(self.entity), NUMBERS // width)
        found = np.sort(self.entity[batches_from(begins, len(self.entity), rows, readers, of)], axis=1)
        ends = np.ones(found.shape, bool)
        ends[:, :-1] = found[:, 1:] != found[:, :-1]
        # Each batch ends with an end, so no run of equal codes spans two.
        places = np.flatnonzero(ends.ravel())
        return float((np.diff(places, prepend=-1).astype(np.float64) ** 2).sum() / (len(found) * width))

    def measured(self, rows: int, readers: int = 1, of: int | None = None) -> float:
        """Mean over columns of n (Var(batch mean) / s^2 + 1 / N): the design effect, whatever it comes from.

        Raises:
            ValueError: there are no columns.
        """
        if self.columns is None:
            raise ValueError("there are no columns to measure")
        total, effects = len(self.entity), []
        begins = _begins(total, NUMBERS // (4 * readers))
        starts = (begins[:, None] + np.arange(readers) * total // (of or readers)) % total
        for values in self.columns.T:
            sums = np.concatenate([[0.0], np.cumsum(values - values.mean(), dtype=np.float64)])
            ends = starts + rows
            stretch = sums[np.minimum(ends, total)] + sums[np.maximum(ends - total, 0)] - sums[starts]
            means = stretch.sum(axis=1) / (rows * readers)
            effects.append(float((means**2).mean() / values.var(ddof=1)))
        return rows * readers * (float(np.mean(effects)) + 1 / total)

    def windowed(self, window: int) -> MeasuredReading:
        """Shuffles the rows inside each window, once."""
        places = np.arange(len(self.entity)) // window + np.random.default_rng(SEED).random(len(self.entity))
        order = np.argsort(places, kind="stable")
        return MeasuredReading(self.entity[order], None if self.columns is None else self.columns[order])


# An order in which a population's rows are read. What is asked of both kinds: `total`, N, infinite where entities are too many to
# meet by chance; `same`, P, the chance that two different rows are of one entity; and the methods.
Reading = LagReading | MeasuredReading


def _begins(total: int, count: int) -> Array:
    """Every row, or a sample of them."""
    count = max(count, FEWEST)
    return np.arange(total) if total <= count else np.random.default_rng(SEED).integers(0, total, count)


def batches_from(begins: Array, total: int, rows: int, readers: int = 1, of: int | None = None) -> Array:
    """Places (batches, readers n) of the rows of batches that begin at `begins` on the ring; reader r stands r N / W rows on."""
    offsets = np.arange(readers)[:, None] * total // (of or readers)
    return ((begins[:, None, None] + offsets + np.arange(rows)) % total).reshape(len(begins), readers * rows)


@dataclass(frozen=True)
class Behind:
    """What stands behind the statistics of one batch, on average over batches.

    Attributes:
        rows: n, of all readers together where their statistics are joined.
        cluster_size: S of these n rows.
        adjusted_size: S_adj = (S - n P) / (1 - P).
        design_effect: deff = 1 + (S_adj - 1) rho; as measured on the columns, if the reading has them.
        effective_rows: n / deff: rows of a shuffled batch with an equally noisy mean.
    """

    rows: int
    cluster_size: float
    adjusted_size: float
    design_effect: float
    effective_rows: float


def behind(reading: Reading, rho: float, rows: int, readers: int = 1, of: int | None = None) -> Behind:
    """How many independent rows a batch is worth: the one way there, for every order and for local and joined statistics.

    Args:
        reading: the order in which rows are read.
        rho: `intra_class_correlation`, or its mean over columns (the design effect is linear in it).
        rows: n, rows per reader.
        readers: how many share their statistics.
        of: how many readers there are, if others read as well.
    """
    together = rows * readers
    cluster = reading.cluster_size(rows, readers, of)
    adjusted = adjusted_cluster_size(cluster, together, reading.same)
    if isinstance(reading, MeasuredReading) and reading.columns is not None:
        deff = reading.measured(rows, readers, of)
    else:
        # A batch is worth at most the whole population; where rho is negative the formula can promise more.
        deff = max(design_effect(adjusted, rho), together / reading.total)
    return Behind(together, cluster, adjusted, deff, effective_rows(together, deff))


# Numbers of readers that are tried one by one, since a periodic order can favour some of them.
TRIED = 32


def readers_needed(
    reading: Reading, rho: float, rows: int, target: float | None = None, of: int | None = None
) -> int | None:
    """The smallest number of readers whose joined mean is at least as steady as that of one shuffled batch of n rows.

    That is, whose rows are worth n: where entities are many and each stands with one reader, the design effect, rounded up.

    Args:
        reading: the order in which rows are read.
        rho: the correlation.
        rows: n.
        target: rows that they are to be worth; default n.
        of: look for a group of neighbours among so many readers; default: for how many there should be in all.

    Returns:
        None if all readers, or all rows of the population, do not suffice. Above `TRIED` it is found by bisection.
    """
    target = rows if target is None else target

    def enough(readers: int) -> bool:
        return behind(reading, rho, rows, readers, of).effective_rows >= target * (1 - 1e-9)

    most = int(min(of or np.inf, reading.total // rows, 1 << 40))
    one_by_one = next((readers for readers in range(1, min(TRIED, most) + 1) if enough(readers)), None)
    if one_by_one or most <= TRIED:
        return one_by_one
    low, high = TRIED, 2 * TRIED
    while not enough(min(high, most)):
        if high >= most:
            return None
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
