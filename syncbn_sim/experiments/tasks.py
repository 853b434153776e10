"""The two tasks of the main job: their data, network, loss, metrics and defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import nn
from ..arrays import Array
from ..comm.base import Communicator
from ..data import Split, load_digits, request_log, split_digits
from ..train import accuracy, auc, log_loss, normalised_entropy

Metric = Callable[[Array, Array, Communicator], float]
HIDDEN = 64


@dataclass(frozen=True)
class Task:
    """What is learned, and how it is judged.

    Attributes:
        name: "digits" or "requests".
        rows_are: what a row is, in the plural.
        sorted_by: what "sorted" means here.
        metric: the main one of `metrics`, the higher the better; a fraction.
        metrics: name -> function of (logits, labels, comm).
        outputs: K, the width of the last layer.
        loss: builds the loss.
        rows, epochs, momentum: defaults: rows a rank, passes over the training set, weight of the new running statistics.
        split: (ranks, rows a rank, seed, dtype) -> training and test set.
    """

    name: str
    rows_are: str
    sorted_by: str
    metric: str
    metrics: dict[str, Metric]
    outputs: int
    loss: Callable[[], nn.Loss]
    rows: int
    epochs: int
    momentum: float
    split: Callable[[int, int, int, str], Split]


DIGITS = Task(
    name="digits",
    rows_are="images",
    sorted_by="class",
    metric="accuracy",
    metrics={"accuracy": accuracy},
    outputs=10,
    loss=nn.CrossEntropyLoss,
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
    metric="auc",
    metrics={"auc": auc, "logloss": log_loss, "ne": normalised_entropy},
    outputs=1,
    loss=nn.BCEWithLogitsLoss,
    rows=32,
    epochs=1,
    momentum=0.05,
    split=lambda ranks, rows, seed, dtype: request_log(LOG_STEPS * ranks * rows, LOG_TEST_ROWS, seed, dtype),
)

TASKS = {task.name: task for task in (DIGITS, REQUESTS)}


def mlp(features: int, outputs: int, norm: Callable[[int], nn.Module | None], seed: int, dtype: str) -> nn.Sequential:
    """Features - 64 - 64 - outputs, each hidden layer Linear, norm, ReLU; `norm` builds the norm layer, or None for none.

    Every Linear draws its weights from a generator of its own, so nets that differ in the norm alone start alike. A batch norm
    takes the bias of the Linear before it out again, so that Linear has none.
    """
    layers: list[nn.Module] = []
    width = features
    for depth in range(2):
        layer = norm(HIDDEN)
        layers.append(
            nn.Linear(
                width,
                HIDDEN,
                bias=not isinstance(layer, nn.BatchNorm),
                dtype=dtype,
                rng=np.random.default_rng([seed, 3, depth]),
            )
        )
        layers += [layer, nn.ReLU()] if layer is not None else [nn.ReLU()]
        width = HIDDEN
    return nn.Sequential(*layers, nn.Linear(width, outputs, dtype=dtype, rng=np.random.default_rng([seed, 3, 2])))
