"""What does sorting the data cost a net with local batch normalisation, and how much of it does synchronising win back?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .. import nn, optim, train
from ..comm.base import Communicator
from ..comm.ledger import Entry, LedgerCommunicator
from ..data.dataset import Dataset, Split, share
from ..data.orders import ORDERS, batches, steps_per_epoch
from ..data.own_log import FILES as OWN_FILES
from ..diagnostics.inspect_log import inspect
from ..errors import ArgumentError
from ..stats.reading import Behind
from .arms import ARMS, NORMS, Arm
from .result import Result, SyncCost, difference, recovery, summary
from .tasks import TASKS, Task, mlp

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"adam": optim.Adam, "sgd": partial(optim.SGD, momentum=0.9)}
CURVE_POINTS = 5
ENOUGH_STEPS = 400  # where the task does not say how many epochs
CHANCE = {
    "accuracy": 0.0,
    "auc": 0.5,
    "r2": 0.0,
}  # of a net that has learned nothing (of accuracy it depends on the classes)
OnStep = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Config:
    """One run of the experiment; None = the task's own default.

    Attributes:
        task: "digits", "requests", or the path of a user's own log.
        arms: which "order+norm" pairs to train.
        seeds: number of repetitions, each with its own data, weights and orders; the same ones for all arms.
        rows: rows a rank and step.
        epochs: passes over the training set.
        lr: learning rate at the start; it falls linearly to 0.
        optimizer: "adam" or "sgd" (momentum 0.9).
        dtype: of data and parameters.
    """

    task: str = "digits"
    arms: tuple[str, ...] = ARMS
    seeds: int = 5
    rows: int | None = None
    epochs: int | None = None
    lr: float = 3e-3
    optimizer: str = "adam"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, choices in (("optimizer", OPTIMIZERS), ("dtype", ("float32", "float64"))):
            if getattr(self, name) not in choices:
                raise ArgumentError(
                    name, got=repr(getattr(self, name)), expected=" or ".join(choices), do="See --help."
                )
        if self.task not in TASKS and not self.task.endswith(OWN_FILES):
            raise ArgumentError(
                "task",
                got=repr(self.task),
                expected=f"digits or requests, or a file ({', '.join(OWN_FILES)})",
                do="See --help.",
            )
        for name in ("seeds", "rows", "epochs"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ArgumentError(
                    name, got=value, expected="a whole number of at least 1", do="Leave it out for the default."
                )
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise ArgumentError(
                "arms", got=self.arms, expected="one arm or more, each once", do="Leave it out for all nine."
            )
        if not self.lr > 0:
            raise ArgumentError("lr", got=self.lr, expected="a number above 0", do="3e-3 is the default.")
        if self.rows == 1 and any(Arm.parse(arm).norm == "local" for arm in self.arms):
            raise ArgumentError(
                "rows",
                got=1,
                expected="at least 2 for an arm with local statistics",
                do="One row has no variance: leave the local arms out with --arms.",
            )
        for arm in self.arms:
            Arm.parse(arm)


@dataclass
class Run:
    """One arm of one seed."""

    metrics: dict[str, float]
    rank0_metrics: dict[str, float] | None
    curve: list[tuple[int, float]]
    seconds: float
    sync_seconds: float
    cost: tuple[float, float, int] | None


def run(
    comm: Communicator, config: Config, on_step: OnStep = lambda done, total, arm: None, task: Task | None = None
) -> Result:
    """Trains every arm for every seed on the ranks of `comm`, and summarises. Same result on every rank but for the times.

    Args:
        comm: the ranks.
        config: what to train.
        on_step: called after each training step with (steps done, steps in all, arm); for a progress bar.
        task: default: the one that `config` names. For a user's own log: what `own_task` returned.

    Raises:
        DataError: the training set has fewer rows than one step of all ranks needs.
    """
    start = time.perf_counter()
    task = task or TASKS[config.task]
    rows = config.rows or task.rows
    config = replace(config, rows=rows, epochs=config.epochs or task.epochs)
    runs: dict[str, list[Run]] = {arm: [] for arm in config.arms}
    for seed in range(config.seeds):
        split = share(partial(task.split, comm.size, rows, seed, config.dtype), comm)
        if seed == 0:
            steps = steps_per_epoch(len(split.train), comm.size, rows, drop_last=True)
            config = replace(config, epochs=config.epochs or max(1, round(ENOUGH_STEPS / steps)))
            alike = comm.bcast(_alike(task, split.train, config.arms, comm.size, rows) if comm.rank == 0 else None)
        for arm in config.arms:
            show = partial(_show, on_step, sum(map(len, runs.values())), len(config.arms) * config.seeds, arm)
            runs[arm].append(_Training(comm, task, config, Arm.parse(arm), split, seed).run(show))
    return _summarise(comm, task, config, runs, alike, time.perf_counter() - start)


def _show(on_step: OnStep, runs_done: int, runs: int, arm: str, step: int, steps: int) -> None:
    on_step(runs_done * steps + step, runs * steps, arm)


class _Training:
    """One arm of one seed on this rank."""

    def __init__(self, comm: Communicator, task: Task, config: Config, arm: Arm, split: Split, seed: int) -> None:
        self.comm, self.task, self.config, self.arm, self.split, self.seed = comm, task, config, arm, split, seed
        self.rows, self.epochs = config.rows or task.rows, config.epochs or 1
        self.ledger = LedgerCommunicator(comm)  # what the norm layers say, apart from the sum of the gradients
        self.model = mlp(
            split.train.x.shape[1],
            task.outputs,
            lambda width: arm.build_norm(width, task.momentum, config.dtype, self.ledger),
            seed,
            config.dtype,
        )
        self.loss = task.loss()
        self.optimizer = OPTIMIZERS[config.optimizer](self.model.parameters(), lr=config.lr)

    def run(self, on_step: Callable[[int, int], None]) -> Run:
        """Trains, and evaluates on the way."""
        data, config, comm = self.split.train, self.config, self.comm
        steps = self.epochs * steps_per_epoch(len(data), comm.size, self.rows, drop_last=True)
        factor = optim.linear_decay(steps)
        marks = {round(steps * k / CURVE_POINTS) for k in range(1, CURVE_POINTS)}
        cost, curve, done, seconds = self._cost(), [], 0, 0.0
        spent = self.ledger.entry("allreduce").seconds
        for epoch in range(self.epochs):
            order = ORDERS[self.arm.order](data.entity, np.random.default_rng([self.seed, 4, epoch]))
            for rows in batches(order, comm.rank, comm.size, self.rows, drop_last=True):
                begin = time.perf_counter()
                self.optimizer.lr = config.lr * factor(done)
                train.step(self.model, self.loss, self.optimizer, comm, data.x[rows], data.y[rows])
                seconds += time.perf_counter() - begin
                done += 1
                on_step(done, steps)
                if done in marks:
                    curve.append((done, self._evaluate(self._averaged(), [self.task.metric])[self.task.metric]))
        sync_seconds = self.ledger.entry("allreduce").seconds - spent
        metrics = self._evaluate(self._averaged(), list(self.task.metrics))
        drifted = self.arm.norm == "local" and comm.size > 1
        rank0 = (
            self._evaluate(train.with_statistics_of_rank_0(self.model, comm), list(self.task.metrics))
            if drifted
            else None
        )
        return Run(metrics, rank0, [*curve, (done, metrics[self.task.metric])], seconds, sync_seconds, cost)

    def _averaged(self) -> nn.Module:
        return train.with_averaged_statistics(self.model, self.comm, 1.0)  # every rank has seen equally many rows

    def _evaluate(self, model: nn.Module, metrics: list[str]) -> dict[str, float]:
        test, comm = self.split.test, self.comm
        mine = test.take(slice(len(test) * comm.rank // comm.size, len(test) * (comm.rank + 1) // comm.size))
        logits = train.predict(model, mine.x)
        return {name: self.task.metrics[name](logits, mine.y, comm) for name in metrics}

    def _cost(self) -> tuple[float, float, int] | None:
        """All-reduces a layer forward and backward, and bytes a step: one pass through a copy of the net, read from the ledger."""
        layers = sum(isinstance(module, nn.SyncBatchNorm) for module in self.model.modules())
        if not layers:
            return None
        probe, entry = deepcopy(self.model), self.ledger.entries.setdefault("allreduce", Entry())
        before = replace(entry)
        y = probe(self.split.train.x[: self.rows])
        forward = entry.calls - before.calls
        probe.backward(np.zeros_like(y))
        return forward / layers, (entry.calls - before.calls - forward) / layers, entry.bytes - before.bytes


@dataclass(frozen=True)
class _Alike:
    """How alike rows are, of which rows, and what stands behind each arm's statistics."""

    correlation: float
    of: str
    behind: dict[str, Behind]


def _alike(task: Task, data: Dataset, arms: Sequence[str], ranks: int, rows: int) -> _Alike:
    """Of a user's own log as it was inspected, so that a file has one figure wherever it is asked for; else of the training set."""
    names = [f"x[{place}]" for place in range(data.x.shape[1])]
    found = task.inspection or inspect(data.x, names, data.entity, task.sorted_by, rows, ranks)
    of = "columns, whole log" if task.inspection else "features of the first seed's training set"
    behind = {}
    for arm in map(Arm.parse, arms):
        if arm.norm not in ("layer", "none"):
            order = found.orders[{"iid": "shuffled", "sorted": "sorted"}[arm.order]]
            behind[arm.name] = order.joined if arm.norm == "sync" else order.local
    return _Alike(found.mean_correlation, of, behind)


def _summarise(
    comm: Communicator, task: Task, config: Config, runs: dict[str, list[Run]], alike: _Alike, seconds: float
) -> Result:
    values = {arm: {m: [run.metrics[m] for run in found] for m in task.metrics} for arm, found in runs.items()}
    main = {arm: by_metric[task.metric] for arm, by_metric in values.items()}
    twins = {arm: Arm.parse(arm).iid_twin for arm in main}
    rank0 = {arm: [run.rank0_metrics for run in found if run.rank0_metrics] for arm, found in runs.items()}
    shares = partial(recovery, main, metric=task.metric, chance=CHANCE[task.metric])
    others = {norm: shares("iid+sync", norm=norm) for norm in NORMS if norm not in ("local", "sync")}
    return Result(
        task=task.name,
        rows_are=task.rows_are,
        sorted_by=task.sorted_by,
        seeds_are=task.seeds_are,
        metric=task.metric,
        ranks=comm.size,
        backend=comm.backend,
        seconds=seconds,
        config={**vars(config), "arms": list(config.arms)},
        arms={arm: {m: summary(v, m) for m, v in by_metric.items()} for arm, by_metric in values.items()},
        differences={
            arm: difference(main[arm], main[twin]) for arm, twin in twins.items() if twin in main and twin != arm
        },
        recovery=shares("iid+sync"),
        recovery_against_iid_local=shares("iid+local"),
        recovery_of_others={norm: share for norm, share in others.items() if share},
        order_cost_without_norm=difference(main["iid+none"], main["sorted+none"])
        if {"iid+none", "sorted+none"} <= set(main)
        else None,
        rank0_statistics={
            arm: {m: summary([r[m] for r in found], m) for m in task.metrics} for arm, found in rank0.items() if found
        },
        intra_class_correlation=alike.correlation,
        correlation_of=alike.of,
        behind=alike.behind,
        sync=_sync_cost(comm, runs),
        curves={arm: _curve(found, task.metric) for arm, found in runs.items()},
    )


def _curve(runs: list[Run], metric: str) -> dict[str, list[float]]:
    """The metric while training: its mean over seeds, and that of the lowest and of the highest seed at each mark."""
    steps = [float(step) for step, _ in runs[0].curve]
    seeds = np.array([[value for _, value in run.curve] for run in runs])
    low, high = seeds.min(axis=0), seeds.max(axis=0)
    return {"step": steps, metric: seeds.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}


def _sync_cost(comm: Communicator, runs: dict[str, list[Run]]) -> SyncCost | None:
    """The cost of the arms that synchronise; times are summed over ranks and seeds."""
    synced = [run for found in runs.values() for run in found if run.cost]
    if not synced or synced[0].cost is None:
        return None
    spent, whole = comm.allreduce(
        np.array([sum(run.sync_seconds for run in synced), sum(run.seconds for run in synced)])
    )
    forward, backward, size = synced[0].cost
    return SyncCost(forward, backward, size, float(spent / whole))
