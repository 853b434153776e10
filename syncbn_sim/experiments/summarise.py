"""From the runs of arms over seeds to what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..comm.base import Communicator
from ..data.dataset import Dataset
from ..diagnostics.inspect_log import inspect
from ..stats.reading import Behind
from .arms import Arm
from .metrics import METRICS
from .norms import NORMS
from .result import Result, SyncCost, difference, recovery, summary
from .tasks import Task
from .training import Trained

ASKED = ("local", "sync")  # the norms whose recovery is the result; the others are held beside


@dataclass(frozen=True)
class Alike:
    """How alike rows are, of which rows, and what stands behind each arm's statistics."""

    correlation: float
    of: str
    behind: dict[str, Behind]


def how_alike(task: Task, data: Dataset, arms: Sequence[str], ranks: int, rows: int) -> Alike:
    """Of a user's own log as it was inspected, so that a file has one figure wherever it is asked for; else of the training set."""
    names = [f"x[{place}]" for place in range(data.x.shape[1])]
    inspection = task.inspection or inspect(data.x, names, data.entity, task.sorted_by, rows, ranks)
    of = "columns, whole log" if task.inspection else "features of the first seed's training set"
    behind = {}
    for arm in map(Arm.parse, arms):
        if arm.kind.uses_batch:
            order = inspection.orders[{"iid": "shuffled", "sorted": "sorted"}[arm.order]]
            behind[arm.name] = order.joined if arm.kind.joins else order.local
    return Alike(inspection.mean_correlation, of, behind)


def summarise(
    comm: Communicator, task: Task, config: dict[str, Any], runs: dict[str, list[Trained]], alike: Alike, seconds: float
) -> Result:
    """The result of all runs, by arm; `config` is kept beside it."""
    values = {arm: {m: [run.metrics[m] for run in of_arm] for m in task.metrics} for arm, of_arm in runs.items()}
    main = {arm: by_metric[task.metric] for arm, by_metric in values.items()}
    twins = {arm: Arm.parse(arm).iid_twin for arm in main}
    rank0 = {arm: [run.rank0_metrics for run in of_arm if run.rank0_metrics] for arm, of_arm in runs.items()}
    recovered_of = partial(recovery, main, metric=task.metric, chance=METRICS[task.metric].chance)
    others = {norm: recovered_of("iid+sync", norm=norm) for norm in NORMS if norm not in ASKED}
    return Result(
        task=task.name,
        rows_are=task.rows_are,
        sorted_by=task.sorted_by,
        seeds_are=task.seeds_are,
        metric=task.metric,
        ranks=comm.size,
        backend=comm.backend,
        seconds=seconds,
        config=config,
        arms={arm: {m: summary(v, m) for m, v in by_metric.items()} for arm, by_metric in values.items()},
        differences={
            arm: difference(main[arm], main[twin]) for arm, twin in twins.items() if twin in main and twin != arm
        },
        recovery=recovered_of("iid+sync"),
        recovery_against_iid_local=recovered_of("iid+local"),
        recovery_of_others={norm: recovered for norm, recovered in others.items() if recovered},
        order_cost_without_norm=difference(main["iid+none"], main["sorted+none"])
        if {"iid+none", "sorted+none"} <= set(main)
        else None,
        rank0_statistics={
            arm: {m: summary([r[m] for r in of_arm], m) for m in task.metrics}
            for arm, of_arm in rank0.items()
            if of_arm
        },
        intra_class_correlation=alike.correlation,
        correlation_of=alike.of,
        behind=alike.behind,
        sync=_sync_cost(comm, runs),
        curves={arm: _curve(of_arm, task.metric) for arm, of_arm in runs.items()},
    )


def _curve(runs: list[Trained], metric: str) -> dict[str, list[float]]:
    """The metric while training: its mean over seeds, and that of the lowest and of the highest seed at each mark.

    Where a split makes more steps of one seed than of another, a mark's step is their mean.
    """
    steps, seeds = np.moveaxis(np.array([run.curve for run in runs], np.float64), -1, 0)
    low, high = seeds.min(axis=0), seeds.max(axis=0)
    mean = seeds.mean(axis=0)
    return {"step": steps.mean(axis=0).tolist(), metric: mean.tolist(), "low": low.tolist(), "high": high.tolist()}


def _sync_cost(comm: Communicator, runs: dict[str, list[Trained]]) -> SyncCost | None:
    """The cost of the arms that synchronise; times are summed over ranks and seeds."""
    synced = [run for arm, of_arm in runs.items() if Arm.parse(arm).kind.joins for run in of_arm]
    cost = synced[0].cost if synced else None
    if cost is None:
        return None
    spent, share = [run.sync_seconds for run in synced if run.sync_seconds is not None], None
    if spent:
        talk, whole = comm.holders.allreduce(np.array([sum(spent), sum(run.seconds for run in synced)]))
        share = float(talk / whole)
    return SyncCost(cost.forward, cost.backward, cost.bytes, share)
