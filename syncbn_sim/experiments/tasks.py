"""What the main job can be run on: data, network, loss, metrics and defaults of each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..arrays import Array
from ..comm.base import Communicator
from ..data import Log, Source, Split, load_digits, read_log, request_log, split_digits
from ..data.columns import OnBytes
from ..data.request_log import FEATURES
from ..diagnostics.inspect_log import Inspection, inspect
from ..errors import DataError
from ..train import accuracy, auc, log_loss, normalised_entropy, r_squared

Metric = Callable[[Array, Array, Communicator], float]
HIDDEN = 64


@dataclass(frozen=True)
class Task:
    """What is learned, and how it is judged.

    Attributes:
        name: "digits", "requests", or that of a user's file.
        rows_are: what a row is, in the plural.
        sorted_by: what "sorted" means here.
        seeds_are: what differs from seed to seed.
        metric: the main one of `metrics`, the higher the better; a fraction.
        metrics: name -> function of (logits, labels, comm).
        outputs: K, the width of the last layer.
        loss: builds the loss.
        rows, epochs, momentum: defaults: rows per rank, passes over the training set (None: about 400 steps), weight of the
            new running statistics.
        split: (ranks, rows per rank, seed, dtype) -> training and test set; called on rank 0 only.
        size: (ranks, rows per rank) -> rows of both together and their features, where they are known before they are there.
        log: a user's own data, on rank 0.
        inspection: how alike its rows are, on rank 0.
    """

    name: str
    rows_are: str
    sorted_by: str
    seeds_are: str
    metric: str
    metrics: dict[str, Metric]
    outputs: int
    loss: Callable[[], nn.Loss]
    rows: int
    epochs: int | None
    momentum: float
    split: Callable[[int, int, int, str], Split]
    size: Callable[[int, int], tuple[int, int]] | None = None
    log: Log | None = None
    inspection: Inspection | None = None


# By kind of label: how it is judged, and the loss.
_KINDS: dict[str, dict[str, Any]] = {
    "binary": {
        "metric": "auc",
        "metrics": {"auc": auc, "logloss": log_loss, "ne": normalised_entropy},
        "loss": nn.BCEWithLogitsLoss,
    },
    "classes": {"metric": "accuracy", "metrics": {"accuracy": accuracy}, "loss": nn.CrossEntropyLoss},
    "numbers": {"metric": "r2", "metrics": {"r2": r_squared}, "loss": nn.MSELoss},
}

DIGITS = Task(
    name="digits",
    rows_are="images",
    sorted_by="class",
    seeds_are="new splits of the same images, with new weights",
    outputs=10,
    **_KINDS["classes"],
    rows=4,
    epochs=6,
    momentum=0.1,
    split=lambda ranks, rows, seed, dtype: split_digits(*load_digits(), seed, dtype),
)

LOG_STEPS, LOG_TEST_ROWS = 400, 40_000

REQUESTS = Task(
    name="requests",
    rows_are="impressions",
    sorted_by="user",
    seeds_are="new worlds of users and clicks, with new weights",
    outputs=1,
    **_KINDS["binary"],
    rows=32,
    epochs=1,
    momentum=0.05,
    split=lambda ranks, rows, seed, dtype: request_log(LOG_STEPS * ranks * rows, LOG_TEST_ROWS, seed, dtype),
    size=lambda ranks, rows: (LOG_STEPS * ranks * rows + LOG_TEST_ROWS, FEATURES),
)

TASKS = {task.name: task for task in (DIGITS, REQUESTS)}

OWN_ROWS = 32


def own_task(comm: Communicator, source: Source, rows: int | None = None, on_bytes: OnBytes = lambda n: None) -> Task:
    """A user's own log as a task. Rank 0 reads and inspects it; the others learn its kind, and get their rows with each split.

    Args:
        comm: the ranks.
        source: where it stands.
        rows: rows per rank and step, for the inspection; default `OWN_ROWS`.
        on_bytes: told how many bytes have been read so far.

    Raises:
        DataError: on rank 0, if the file cannot be used.
    """
    log = read_log(source, on_bytes) if comm.rank == 0 else None
    sorted_by, rows = source.entity or "entity", rows or OWN_ROWS
    found = inspect(log.x, log.names, log.entity, sorted_by, rows, comm.size, log.columns) if log else None
    kind, outputs = comm.holders.bcast(
        (log.kind, int(log.y.max()) + 1 if log.kind == "classes" else 1) if log else None
    )

    def split(ranks: int, rows: int, seed: int, dtype: str) -> Split:
        if log is None:
            raise DataError("own log", got="a split on another rank than 0", expected="rank 0", do="Use data.share.")
        return log.split(seed, dtype)

    return Task(
        name=Path(source.path).stem,
        rows_are="rows",
        sorted_by=sorted_by,
        seeds_are=f"new splits of the same log by {sorted_by}, with new weights",
        outputs=outputs,
        **_KINDS[kind],
        rows=OWN_ROWS,
        epochs=None,
        momentum=0.05,
        split=split,
        # The log, and the split that is made of it.
        size=(lambda ranks, rows: (2 * len(log.x), log.x.shape[1])) if log else None,
        log=log,
        inspection=found,
    )


def mlp(features: int, outputs: int, norm: Callable[[int], nn.Module | None], seed: int, dtype: str) -> nn.Sequential:
    """Features - 64 - 64 - outputs, each hidden layer Linear, norm, ReLU; `norm` builds the norm layer, or None for none.

    Every Linear draws its weights from a generator of its own, so nets that differ in the norm alone start alike. A batch norm
    takes the bias of the Linear before it out again, so that Linear has none.
    """
    layers: list[nn.Module] = []
    generators = [np.random.default_rng([seed, 3, depth]) for depth in range(3)]
    for width, rng in zip((features, HIDDEN), generators, strict=False):
        layer = norm(HIDDEN)
        layers.append(nn.Linear(width, HIDDEN, bias=not isinstance(layer, nn.BatchNorm), dtype=dtype, rng=rng))
        layers += [layer, nn.ReLU()] if layer is not None else [nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN, outputs, dtype=dtype, rng=generators[2]))
