"""Correlated rows: how many *independent* rows per batch of n rows of few entities is worth.

The training set is fixed: N rows of entities (users, classes) that are what they are. A batch drawn from it at random has independent
rows, however often an entity occurs in it by chance; so a batch is held against *that*, the shuffled batch of as many rows. What
makes its mean noisier is that entities stand in it more unevenly than chance would have it. With

    S    = E[sum_c n_c^2 / n]                      rows of its own entity that the average row meets in its batch, itself included
    P    = sum_c N_c (N_c - 1) / (N (N - 1))       the chance that two rows of the training set are of one entity
    rho  = 1 - MSW / MST                           how alike the rows of an entity are

the variance of the batch mean about that of the training set is

    Var = s^2 (deff / n - 1 / N),    deff = 1 + (S_adj - 1) rho,    S_adj = (S - n P) / (1 - P).

For a shuffled batch S = 1 + (n - 1) P, so S_adj = 1 and deff = 1. Where entities are many, P vanishes, and this is Kish's design effect.
It holds, averaged over which entity has which mean, for every way to read in which each row is read equally often; if effects do not
go with an entity's size, place or time, and the rows of an entity stand in any order. Where they do (drift, neighbours alike), only
measuring tells: `MeasuredReading` with columns.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..arrays import Array, as_float_array
from ..errors import ArgumentError, CountError, ShapeError


def intra_class_correlation(x: Array, entity: Array) -> Array:
    """How alike the rows of one entity are in this population, for every column: rho = 1 - MSW / MST.

    MSW = sum (x - mean of its entity)^2 / (N - J) for J entities, MST = sum (x - mean)^2 / (N - 1). Without its sign error from
    few rows it is the share of the variance that lies between the entities. It may be negative: entities more equal
    than chance would make them.

    The entities are the fixed ones of a training set. Drawn anew from a larger world (other users, say), their rows have the
    correlation rho / (1 - P (1 - rho)), with P of `same_entity`: the same where entities are many, more where they are few.

    Args:
        x: (N, F) or (N,) floats.
        entity: (N,) labels of any sortable kind.

    Returns:
        (F,) values (a 0-d array for one-dimensional `x`); NaN for a constant column.

    Raises:
        CountError: fewer than two entities, or no entity with two rows.

    Source: Sarndal, Swensson & Wretman (1992), Model Assisted Survey Sampling, section 3.4, the coefficient of homogeneity; the value
        for entities drawn anew is the ANOVA estimator, Donner (1986), International Statistical Review 54(1).
    """
    x = as_float_array(x).astype(np.float64)
    if entity.shape != x.shape[:1]:
        expected, do = f"{x.shape[:1]}, one label per row", "Pass one label for each row of x."
        raise ShapeError("entity", got=entity.shape, expected=expected, do=do)
    _, group, sizes = np.unique(entity, return_inverse=True, return_counts=True)
    groups, rows = len(sizes), len(entity)
    if groups < 2 or rows == groups:
        got, expected = f"{groups} entities in {rows} rows", "two entities or more, one of them with two rows"
        do = "Without repeated entities there is no correlation to measure."
        raise CountError("entity", got=got, expected=expected, do=do)
    centred = (x - x.mean(axis=0)).reshape(rows, -1)
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    means = np.add.reduceat(centred[order], starts, axis=0) / sizes[:, None]
    mst = (centred**2).sum(axis=0) / (rows - 1)
    msw = ((centred - means[group]) ** 2).sum(axis=0) / (rows - groups)
    # Exactly: rounding gives a constant column some spread.
    varies = (x.max(axis=0) > x.min(axis=0)).reshape(-1)
    rho = np.where(varies, 1.0 - msw / np.where(varies, mst, 1.0), np.nan)
    return np.asarray(rho.reshape(x.shape[1:]))


def same_entity(sizes: Array) -> float:
    """The chance P = sum N_c (N_c - 1) / (N (N - 1)) that two different rows of a population are of one entity.

    1 / P is the effective number of entities: 10 classes of equal size count as 10, a giant and its dwarfs as little more than one.

    Args:
        sizes: (J,) rows of each entity.
    """
    sizes = np.asarray(sizes, np.float64)
    rows = sizes.sum()
    return float((sizes * (sizes - 1)).sum() / (rows * (rows - 1))) if rows > 1 else 0.0


def cluster_size(batches: Iterable[Array]) -> float:
    """Rows of its own entity that the average row meets in its batch, itself included: S = E[sum_j n_j^2 / n].

    This, not the mean number of rows per entity, is what the design effect needs when sizes are uneven.

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
        expected, do = "at least one batch with a row", "Pass the entity labels of each batch."
        raise CountError("batches", got="no rows", expected=expected, do=do)
    return float(np.mean(sizes))


def adjusted_cluster_size(cluster: float, rows: float, same: float) -> float:
    """Computes S_adj = (S - n P) / (1 - P): what is left of S when the meetings that chance alone brings are taken out.

    Args:
        cluster: S of batches of n rows.
        rows: n.
        same: P, of `same_entity`. 0: so many entities that chance brings no two rows of one together; then S_adj = S.
    """
    return (cluster - rows * same) / (1.0 - same) if same < 1 else 1.0


def design_effect(cluster: float, rho: float) -> float:
    """Computes deff = 1 + (S - 1) rho: how many times the variance of a batch mean exceeds that of a shuffled batch.

    Args:
        cluster: S_adj of `adjusted_cluster_size`; S itself where entities are many. Below 1 for batches in which entities stand
            more evenly than by chance (stratified ones: one row of each class).
        rho: intra-class correlation; negative: rows of one entity are less alike than others.

    Raises:
        ArgumentError: S is negative.

    Source: Kish (1965), section 5.4.
    """
    if cluster < 0:
        raise ArgumentError("cluster", got=cluster, expected="a cluster size of at least 0", do="See cluster_size().")
    return 1.0 + (cluster - 1.0) * rho


def effective_rows(rows: float, deff: float) -> float:
    """Computes n / deff: the number of independent rows with an equally noisy mean."""
    return rows / deff if deff > 0 else float("inf")


def predicted_sd_of_mean(sigma: float, rows: float, deff: float, population: float = np.inf) -> float:
    """Spread of the mean of n rows about that of the N rows it is read from: sigma sqrt(deff / n - 1 / N).

    Args:
        sigma: sd of the rows.
        rows: n, of all ranks together where they are synchronised.
        deff: design effect of *these* n rows.
        population: N.
    """
    return float(sigma * np.sqrt(max(deff / rows - 1.0 / population, 0.0)))


def expected_local_variance(variance: float, rows: float, deff: float) -> float:
    """Computes E[biased batch variance] = sigma^2 (1 - deff / n), by the law of total variance. Bessel's factor does not repair it."""
    return variance * (1.0 - deff / rows)
