"""In which order rows are read, and which rank reads what: equally many steps on every rank, always."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, DataError, check_whole

Order = Callable[[Array, np.random.Generator], Array]
# Indices of one rank's rows, or of several ranks', each its own; as an index a tuple of one selects what the one does.
Rows = Array | tuple[Array, ...]


def iid(entity: Array, rng: np.random.Generator) -> Array:
    """All rows in random order, as indices."""
    return rng.permutation(len(entity))


def sorted_by_entity(entity: Array, rng: np.random.Generator) -> Array:
    """All rows of one entity together, the entities in random order: a log sorted by user, images sorted by class."""
    _, group = np.unique(entity, return_inverse=True)
    place = rng.permutation(int(group.max()) + 1 if len(group) else 0)
    return np.argsort(place[group], kind="stable")


ORDERS: dict[str, Order] = {"iid": iid, "sorted": sorted_by_entity}


def batches(order: Array, rank: int | range, size: int, rows: int, drop_last: bool = False) -> Iterator[Rows]:
    """This rank's batches: its contiguous shard of the order, `rows` indices at a time.

    Every rank gets the same number of batches. Where a shard is shorter, its last batches are short or empty, and the
    rank still takes part in every collective of those steps.

    Args:
        order: (N,) row indices of the whole data set.
        rank: this rank; or, as a range, the ranks whose rows this process holds (`comm.ranks`).
        size: number of ranks.
        rows: rows per rank and step.
        drop_last: use only as many rows as fill every batch of every rank; without synchronisation a last batch of one row has no variance.

    Yields:
        Row indices; for ranks a tuple, in which each rank has its own (of one rank it selects what they select).

    Raises:
        ArgumentError: `rows` below 1, or no such rank.
        DataError: not even one full batch per rank to keep.
    """
    ranks = rank if isinstance(rank, range) else range(rank, rank + 1)
    if not 0 <= ranks.start < ranks.stop <= size or ranks.step != 1:
        raise ArgumentError("rank", got=f"{rank} of {size}", expected="0 to size - 1", do="Pass comm.rank, comm.size.")
    steps = steps_per_epoch(len(order), size, rows, drop_last)
    if drop_last:
        order = order[: steps * rows * size]
    shards = np.array_split(order, size)[ranks.start : ranks.stop]
    for begin in range(0, steps * rows, rows):
        parts = tuple(shard[begin : begin + rows] for shard in shards)
        yield parts if rank is ranks else parts[0]


def epochs(
    order: Order,
    entity: Array,
    rank: int | range,
    size: int,
    rows: int,
    count: int,
    seed: Sequence[int],
    drop_last: bool = False,
) -> Iterator[Rows]:
    """This rank's batches of `count` passes over all rows, each in a new order.

    Args:
        order: `iid`, `sorted_by_entity`, or a function like them.
        entity: (N,) the entity of each row of the whole data set.
        rank: this rank, or a range of ranks, as for `batches`.
        size: number of ranks.
        rows: rows per rank and step.
        count: number of passes.
        seed: the order of pass e is drawn from the generator seeded with [*seed, e].
        drop_last: as for `batches`.

    Raises:
        ArgumentError: a seed that is no sequence, a negative `count`, and what `batches` raises.
    """
    if not isinstance(seed, Sequence | np.ndarray) or isinstance(seed, str):
        raise ArgumentError("seed", got=repr(seed), expected="a sequence of whole numbers", do=f"Write [{seed}].")
    check_whole("count", count, 0, "It is the number of passes over all rows.")
    for epoch in range(count):
        yield from batches(order(entity, np.random.default_rng([*seed, epoch])), rank, size, rows, drop_last)


def steps_per_epoch(total: int, size: int, rows: int, drop_last: bool = False) -> int:
    """How many batches `batches` gives each rank."""
    check_whole("rows", rows, do="Rows per rank and step: try 32.")
    if not drop_last:
        longest_shard = math.ceil(total / size)
        return math.ceil(longest_shard / rows)
    if total < size * rows:
        got = f"{rows} rows on each of {size} ranks, but {total} rows in all"
        do = "Use fewer ranks or fewer rows per rank."
        raise DataError("rows", got=got, expected="at least one full step", do=do)
    return total // (size * rows)
