"""Exercises of lesson 00: a first surprise."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..comm.base import Communicator
from ..data.orders import batches
from .exercise import Exercise, Mistake


def _shard(order: Array, rank: int, size: int) -> Array:
    stretch = len(order) // size
    return order[rank * stretch : (rank + 1) * stretch]


BATCH_OF = Exercise(
    number="0.1",
    name="batch_of",
    start="nothing comes back yet. First cut out this rank's stretch of `order`, then the step's rows of that.",
    right=lambda order, rank, size, rows, step: list(batches(order, rank, size, rows))[step],
    cases=lambda rng: [
        (rng.permutation(24), 1, 3, 2, 2),
        (rng.permutation(40), 3, 4, 5, 1),
        (rng.permutation(30), 1, 3, 4, 2),  # the last batch of a stretch is short
    ],
    mistakes=(
        Mistake(
            lambda order, rank, size, rows, step: order[step * rows : (step + 1) * rows],
            "every rank gets the same rows: `rank` is not used.",
        ),
        Mistake(
            lambda order, rank, size, rows, step: order[(step * size + rank) * rows :][:rows],
            "here the ranks share one stretch, side by side. Sorted data would put one class on all of them; each rank reads a stretch "
            "of its own.",
        ),
        Mistake(
            lambda order, rank, size, rows, step: order[rank::size][step * rows : (step + 1) * rows],
            "these rows are dealt like cards, which half shuffles them. A stretch is contiguous.",
        ),
        Mistake(
            lambda order, rank, size, rows, step: _shard(order, rank, size)[step : step + rows],
            "the right stretch, but from one step to the next it moves by one row, not by `rows`.",
        ),
        Mistake(
            lambda order, rank, size, rows, step: np.arange(rows) + rank * (len(order) // size) + step * rows,
            "these are places in the order, not the rows that stand there: look them up in `order`.",
        ),
        Mistake(
            lambda order, rank, size, rows, step: order[rank * (len(order) // size) + step * rows :][:rows],
            "right, until a stretch ends with a short batch: yours then goes on into the next rank's rows. Cut the stretch out first.",
        ),
    ),
    done="far apart in the order, so at any step the ranks hold different classes.",
)


def _classes_seen(labels: Array) -> tuple[float, float]:
    return float(np.mean([len(np.unique(row)) for row in labels])), float(len(np.unique(labels)))


CLASSES_SEEN = Exercise(
    number="0.2",
    name="classes_seen",
    start="nothing comes back yet. np.unique(a) gives the different values in an array.",
    right=_classes_seen,
    cases=lambda rng: [(np.array([[3, 3, 3], [3, 5, 5], [1, 1, 2]]),), (rng.integers(0, 10, (8, 4)),)],
    mistakes=(
        Mistake(
            lambda labels: (_classes_seen(labels)[0],) * 2,
            "the first number is right. The second counts what *all* ranks see: unite the batches before you count.",
        ),
        Mistake(
            lambda labels: (_classes_seen(labels)[0], float(sum(len(np.unique(row)) for row in labels))),
            "the first number is right. In the second a class that two ranks hold is counted twice.",
        ),
        Mistake(
            lambda labels: (
                float(np.mean([len(np.unique(column)) for column in labels.T])),
                float(len(np.unique(labels))),
            ),
            "the first number runs down the columns: one row of `labels` is one rank.",
        ),
        Mistake(lambda labels: _classes_seen(labels)[::-1], "both numbers are right, in the other order."),
    ),
    done="what the ranks see together is what SyncBN's mean is made of.",
)


def _global_accuracy(comm: Communicator, right: Array) -> float:
    hits, rows = comm.allreduce(np.array([right.sum(), len(right)], np.float64))
    return float(hits / rows)


def _mean(values: Array, empty: float = 0.0) -> float:
    return float(values.mean()) if len(values) else empty


def _mean_of_means(comm: Communicator, right: Array, empty: float = 0.0) -> float:
    return float(comm.allreduce(np.array([_mean(right, empty)]))[0] / comm.size)


def _parts(rng: np.random.Generator) -> list[Any]:
    return [
        [(rng.random(n) < p,) for n, p in ((5, 0.9), (2, 0.2), (9, 0.4))],
        [(rng.random(n) < 0.6,) for n in (4, 0, 7)],
    ]


GLOBAL_ACCURACY = Exercise(
    number="0.3",
    name="global_accuracy",
    start="nothing comes back yet. What two sums does an accuracy over all ranks need? Put them in one array and all-reduce it.",
    right=_global_accuracy,
    cases=_parts,
    mistakes=(
        Mistake(
            lambda comm, right: _mean(right),
            "each rank reports its own accuracy: nobody has talked. Use comm.allreduce.",
        ),
        Mistake(
            lambda comm, right: _mean(right, np.nan),
            "each rank reports its own accuracy, and a rank without rows NaN: nobody has talked. Use comm.allreduce.",
        ),
        Mistake(
            _mean_of_means,
            "this is the mean of the ranks' accuracies: a rank with 2 rows counts as much as one with 9. Add up what can be added.",
        ),
        Mistake(
            lambda comm, right: _mean_of_means(comm, right, np.nan),
            "this is the mean of the ranks' accuracies. A rank with 2 rows counts as much as one with 9, and one without rows makes it "
            "NaN on all: add up what can be added.",
        ),
        Mistake(
            lambda comm, right: float(comm.allreduce(np.array([float(right.sum())]))[0] / max(len(right), 1)),
            "the hits of all ranks are divided by the rows of this one.",
        ),
        Mistake(
            lambda comm, right: float(comm.allreduce(np.array([_mean(right)]))[0]),
            "the sum of the accuracies. What has to be added up is what an accuracy is made of.",
        ),
        Mistake(
            lambda comm, right: float(comm.allreduce(np.array([float(right.sum())]))[0]),
            "that is how many were right, on all ranks. Out of how many?",
        ),
    ),
    done="sums add, averages do not, and a rank without rows brings zeros. All of synchronised batch norm rests on this.",
    ranks=True,
)

EXERCISES = (BATCH_OF, CLASSES_SEEN, GLOBAL_ACCURACY)
