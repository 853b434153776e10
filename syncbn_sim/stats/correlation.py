"""Correlated rows: how many *independent* rows a batch of n rows of few entities is worth.

Model: x = mu + b_entity + e. The intra-class correlation rho = var(b) / (var(b) + var(e)) is the share of the
variance that rows of one entity (a user, a class) have in common.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..arrays import Array, as_float_array
from ..errors import ArgumentError, CountError, ShapeError


def intra_class_correlation(x: Array, entity: Array) -> Array:
    """Estimates rho of every column by one-way analysis of variance.

    rho = (MSB - MSW) / (MSB + (n0 - 1) MSW), with n0 = (N - sum n_j^2 / N) / (J - 1) for J entities
    of n_j rows. May be slightly negative where rho is 0; NaN for a constant column.

    Args:
        x: (N, F) or (N,) floats.
        entity: (N,) labels of any sortable kind.

    Returns:
        (F,) estimates (a 0-d array for one-dimensional `x`).

    Raises:
        CountError: fewer than two entities, or no entity with two rows.

    Source: Donner (1986), International Statistical Review 54(1), the ANOVA estimator.
    """
    x = as_float_array(x).astype(np.float64)
    if entity.shape != x.shape[:1]:
        raise ShapeError(
            "entity",
            got=entity.shape,
            expected=f"{x.shape[:1]}, one label a row",
            do="Pass one label for each row of x.",
        )
    _, group, sizes = np.unique(entity, return_inverse=True, return_counts=True)
    groups, rows = len(sizes), len(entity)
    if groups < 2 or rows == groups:
        raise CountError(
            "entity",
            got=f"{groups} entities in {rows} rows",
            expected="two entities or more, one of them with two rows",
            do="Without repeated entities there is no correlation to measure.",
        )
    centred = (x - x.mean(axis=0)).reshape(rows, -1)
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    means = np.add.reduceat(centred[order], starts, axis=0) / sizes[:, None]
    between = (sizes[:, None] * means**2).sum(axis=0)
    within = (centred**2).sum(axis=0) - between
    msb, msw = between / (groups - 1), within / (rows - groups)
    n0 = (rows - (sizes.astype(np.float64) ** 2).sum() / rows) / (groups - 1)
    spread = msb + (n0 - 1) * msw
    varies = (x.max(axis=0) > x.min(axis=0)).reshape(-1)  # exactly: rounding gives a constant column some spread
    rho = np.where(varies, (msb - msw) / np.where(varies, spread, 1.0), np.nan)
    return np.asarray(rho.reshape(x.shape[1:]))


def cluster_size(batches: Iterable[Array]) -> float:
    """S = E[sum_j n_j^2 / n]: how many rows of its own entity the average row meets in its batch, itself included.

    This, not the mean number of rows an entity, is what the design effect needs when sizes are uneven.

    Args:
        batches: for each batch the (n,) entity labels of its rows; empty batches are skipped.

    Raises:
        CountError: no batch has a row.
    """
    sizes = []
    for entity in batches:
        if len(entity):
            counts = np.unique(entity, return_counts=True)[1].astype(np.float64)
            sizes.append(float((counts**2).sum() / counts.sum()))
    if not sizes:
        raise CountError(
            "batches",
            got="no rows",
            expected="at least one batch with a row",
            do="Pass the entity labels of each batch.",
        )
    return float(np.mean(sizes))


def design_effect(cluster: float, rho: float) -> float:
    """deff = 1 + (S - 1) rho: how many times the variance of a batch mean exceeds that of independent rows. Kish (1965), section 5.4.

    Raises:
        ArgumentError: S below 1.
    """
    if cluster < 1:
        raise ArgumentError("cluster", got=cluster, expected="a cluster size of at least 1", do="See cluster_size().")
    return 1.0 + (cluster - 1.0) * rho


def effective_rows(rows: float, deff: float) -> float:
    """N / deff: the number of independent rows with an equally noisy mean."""
    return rows / deff


def predicted_sd_of_mean(sigma: float, rows: float, deff: float, ranks: int = 1) -> float:
    """Sigma sqrt(deff / (n W)): spread of the mean over n rows on each of W ranks whose entities differ."""
    return float(sigma * np.sqrt(deff / (rows * ranks)))


def expected_local_variance(variance: float, rows: float, deff: float, ranks: int = 1) -> float:
    """E[biased batch variance] = sigma^2 (1 - deff / (n W)), by the law of total variance. Bessel's factor does not repair it."""
    return variance * (1.0 - deff / (rows * ranks))
