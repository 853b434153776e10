"""One net, trained by one arm on a task, data-parallel over the ranks: how it learns, what it reaches, what its norms say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from .. import nn, optim, train
from ..comm.base import Communicator
from ..comm.ledger import Entry, LedgerCommunicator
from ..data.dataset import Split
from ..data.orders import ORDERS, epochs, steps_per_epoch
from ..errors import ArgumentError, check_choice
from .arms import Arm
from .tasks import Task, mlp

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"adam": optim.Adam, "sgd": partial(optim.SGD, momentum=0.9)}
CURVE_POINTS = 5
ENOUGH_STEPS = 400  # where the task does not say how many epochs


@dataclass(frozen=True)
class Recipe:
    """How nets are trained, the same for all arms; None = the task's own default. Options of an experiment that trains inherit it.

    Attributes:
        seeds: repetitions, each with its own data, weights and orders, the same ones for all arms; the intervals are over these.
        rows: rows per rank and step, the batch behind local statistics (digits 4, requests 32). Fewer rows, noisier statistics.
        epochs: passes over the training data (digits 6, requests 1, own file: as many as make about 400 steps).
        lr: learning rate at the start; it falls linearly to 0.
        optimizer: sgd has momentum 0.9; try --lr 0.1 with it.
        dtype: of data and weights. Statistics are summed in float64 either way.
    """

    seeds: int = 5
    rows: int | None = None
    epochs: int | None = None
    lr: float = 3e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("dtype", self.dtype, ("float32", "float64"))
        for name in ("seeds", "rows", "epochs"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ArgumentError(
                    name, got=value, expected="a whole number of at least 1", do="Leave it out for the default."
                )
        if not self.lr > 0:
            raise ArgumentError("lr", got=self.lr, expected="a number above 0", do="3e-3 is the default.")

    def epochs_on(self, train_rows: int, task: Task, ranks: int) -> int:
        """Passes over a training set: as said, as the task says, or as many as make about 400 steps."""
        steps = steps_per_epoch(train_rows, ranks, self.rows or task.rows, drop_last=True)
        return self.epochs or task.epochs or max(1, round(ENOUGH_STEPS / steps))


@dataclass(frozen=True)
class Cost:
    """What the norm layers of a net say: all-reduces per layer forward and backward, bytes per step and rank."""

    forward: float
    backward: float
    bytes: int


@dataclass(frozen=True)
class Trained:
    """One arm of one seed.

    Attributes:
        metrics: after training, with running statistics averaged over ranks.
        rank0_metrics: the same with rank 0's own, where ranks' statistics come apart.
        curve: (step, metric) at `CURVE_POINTS` marks on the way, the end among them.
        seconds: of all training steps on this rank.
        sync_seconds: of them in the norm layers' all-reduces; None: the ranks are stacked in one array, and sum without a word.
        cost: of norms that talk.
    """

    metrics: dict[str, float]
    rank0_metrics: dict[str, float] | None
    curve: list[tuple[int, float]]
    seconds: float
    sync_seconds: float | None
    cost: Cost | None


class Training:
    """One arm of one seed on this rank."""

    def __init__(self, comm: Communicator, task: Task, recipe: Recipe, arm: Arm, split: Split, seed: int) -> None:
        self.comm, self.task, self.recipe, self.arm, self.split, self.seed = comm, task, recipe, arm, split, seed
        self.rows, self.epochs = recipe.rows or task.rows, recipe.epochs_on(len(split.train), task, comm.size)
        self.steps = self.epochs * steps_per_epoch(len(split.train), comm.size, self.rows, drop_last=True)
        # What the norm layers say, apart from the sum of the gradients.
        self.ledger = LedgerCommunicator(comm.holders)
        self.norm_layers = 0
        self.model = mlp(split.train.x.shape[1], task.outputs, self._norm_layer, seed, recipe.dtype)
        self.loss = task.loss()
        self.optimizer = OPTIMIZERS[recipe.optimizer](self.model.parameters(), lr=recipe.lr)

    def run(self, on_step: Callable[[int, int], None]) -> Trained:
        """Trains, and evaluates on the way."""
        # Equally many marks whatever the number of steps, which differs between seeds; of few steps some are marked twice.
        marks = [max(1, round(self.steps * k / CURVE_POINTS)) for k in range(1, CURVE_POINTS + 1)]
        main, cost, seconds = self.task.metric, self._cost(), 0.0
        reached: dict[int, float] = {}
        spent = self.ledger.entry("allreduce").seconds
        begin = time.perf_counter()
        for done, _ in self._train():
            seconds += time.perf_counter() - begin
            on_step(done, self.steps)
            if done in marks[:-1] and done < self.steps:
                reached[done] = self._evaluate(self._averaged(), [main])[main]
            begin = time.perf_counter()
        sync_seconds = self.ledger.entry("allreduce").seconds - spent if len(self.comm.ranks) == 1 else None
        everything = list(self.task.metrics)
        metrics = self._evaluate(self._averaged(), everything)
        rank0 = None
        if self.arm.kind.drifts and self.comm.size > 1:
            rank0 = self._evaluate(train.with_statistics_of_rank_0(self.model, self.comm), everything)
        reached[self.steps] = metrics[main]
        return Trained(metrics, rank0, [(mark, reached[mark]) for mark in marks], seconds, sync_seconds, cost)

    def _train(self) -> Iterator[tuple[int, float]]:
        """All training steps."""
        data, comm, order = self.split.train, self.comm, ORDERS[self.arm.order]
        batches = epochs(
            order, data.entity, comm.ranks, comm.size, self.rows, self.epochs, [self.seed, 4], drop_last=True
        )
        decay = optim.linear_decay(self.steps)
        return train.fit(self.model, self.loss, self.optimizer, comm, data.x, data.y, batches, decay)

    def _norm_layer(self, width: int) -> nn.Module | None:
        self.norm_layers += 1
        return self.arm.kind.build(width, self.task.momentum, self.recipe.dtype, self.ledger)

    def _averaged(self) -> nn.Module:
        # Every rank has seen equally many rows.
        return train.with_averaged_statistics(self.model, self.comm, 1.0)

    def _evaluate(self, model: nn.Module, metrics: list[str]) -> dict[str, float]:
        test, comm = self.split.test, self.comm
        begin, end = (len(test) * rank // comm.size for rank in (comm.ranks.start, comm.ranks.stop))
        mine = test.take(slice(begin, end))
        logits = train.predict(model, mine.x)
        return {name: self.task.metrics[name](logits, mine.y, comm) for name in metrics}

    def _cost(self) -> Cost | None:
        """One pass through a copy of the net, read from the ledger."""
        if not self.arm.kind.talks:
            return None
        probe, entry = deepcopy(self.model), self.ledger.entries.setdefault("allreduce", Entry())
        before = replace(entry)
        with self.comm.holds(tuple(np.arange(self.rows) for _ in self.comm.ranks)) as rows:
            y = probe(self.split.train.x[rows])
            forward = entry.calls - before.calls
            probe.backward(np.zeros_like(y))
        backward = entry.calls - before.calls - forward
        return Cost(forward / self.norm_layers, backward / self.norm_layers, entry.bytes - before.bytes)
