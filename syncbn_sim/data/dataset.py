"""Rows of a data set: features, label, and the entity each row belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..arrays import Array
from ..comm.base import Communicator
from ..errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows to learn from or to be judged on, N of them.

    Attributes:
        x: (N, F) floats.
        y: (N,) labels: integers for classes, floats 0 and 1 for clicks.
        entity: (N,) integers: what rows have in common (user, class); data sorted by it make correlated batches.
    """

    x: Array
    y: Array
    entity: Array

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.y) == len(self.entity):
            got = f"{len(self.x)} rows of x, {len(self.y)} of y, {len(self.entity)} of entity"
            do = "Give one label and one entity for each row."
            raise DataError("Dataset", got=got, expected="equally many", do=do)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Array | slice) -> Dataset:
        """The rows with these indices."""
        return Dataset(self.x[rows], self.y[rows], self.entity[rows])


@dataclass(frozen=True)
class Split:
    """What a model learns from, and what it is judged on."""

    train: Dataset
    test: Dataset


def share(make: Callable[[], Split], comm: Communicator) -> Split:
    """Makes a split on rank 0 and gives it to all: R ranks on few cores would otherwise make it R times over.

    Talks: six broadcasts, if there is anybody else to give it to.
    """
    comm = comm.holders
    if comm.size == 1:
        return make()
    split = make() if comm.rank == 0 else None
    parts = [(d.x, d.y, d.entity) for d in (split.train, split.test)] if split else [(None,) * 3] * 2
    train, test = (Dataset(*(comm.bcast(array) for array in part)) for part in parts)
    return Split(train, test)
