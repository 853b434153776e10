"""How much memory a run will take, said before it takes it."""

from __future__ import annotations

import numpy as np

from ..comm.base import Communicator
from ..diagnostics.inspect_log import COLUMNS
from .tasks import HIDDEN, Task

WORTH_SAYING = 1e9  # bytes
LABELS = 2 * 8  # of a row: label and entity
INSPECTED = 6 * 8  # of a row: codes, orders and one column in float64, at the worst moment
ARRAYS = 20  # of a row's width in each hidden layer: activations, gradients, and what the layers keep between


def peak_bytes(rows: int, features: int, at_hand: int, itemsize: int) -> int:
    """Data, the columns that are inspected (as they stand and in another order, float32), and the arrays of one step.

    Args:
        rows: of training and test set.
        features: of a row.
        at_hand: rows of one step in one process.
        itemsize: bytes per feature.
    """
    kept = rows * (features * itemsize + LABELS)
    inspected = rows * (2 * 4 * min(features, COLUMNS) + INSPECTED)
    return kept + max(inspected, at_hand * (features + ARRAYS * HIDDEN) * itemsize)


def memory_in_words(task: Task, comm: Communicator, rows: int, dtype: str) -> str:
    """What the run will take where that is much, else ""."""
    if task.size is None:
        return ""
    total, features = task.size(comm.size, rows)
    needed = peak_bytes(total, features, len(comm.ranks) * rows, np.dtype(dtype).itemsize)
    if needed < WORTH_SAYING:
        return ""
    return (
        f"{task.name}: {comm.size:,} ranks x {rows} {task.rows_are} a step; a seed's data, {total:,} rows of {features} features, and "
        f"their inspection take about {1e-9 * needed:.1f} GB of memory in each {'process' if len(comm.ranks) > 1 else 'rank'}."
    )
