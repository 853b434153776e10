"""What the main job finds, as it stands in result.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..stats.intervals import Interval, mean_interval, ratio_interval


@dataclass(frozen=True)
class Summary:
    """A metric over seeds, as fractions; ci95 is None for a single seed."""

    mean: float
    ci95: tuple[float, float] | None
    values: list[float]


@dataclass(frozen=True)
class Share:
    """A share or difference with its 95 % interval."""

    mean: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Behind:
    """What stands behind one arm's statistics: rows, the design effect of their correlation, and the independent rows they are worth."""

    rows: int
    design_effect: float
    effective_rows: float


@dataclass(frozen=True)
class SyncCost:
    """What synchronising cost: a layer, a step, and as a share of the time of a step (waiting for other ranks included)."""

    allreduces_per_layer_forward: float
    allreduces_per_layer_backward: float
    bytes_per_step: int
    share_of_step: float


@dataclass(frozen=True)
class Result:
    """All that one run of the experiment found. Its fields are those of result.json."""

    task: str
    rows_are: str
    sorted_by: str
    metric: str
    ranks: int
    backend: str
    seconds: float
    config: dict[str, Any]
    arms: dict[str, dict[str, Summary]]
    differences: dict[str, Share]
    recovery: Share | None
    recovery_against_iid_local: Share | None
    order_cost_without_norm: Share | None
    rank0_statistics: dict[str, dict[str, Summary]]
    intra_class_correlation: float
    behind: dict[str, Behind]
    sync: SyncCost | None
    curves: dict[str, dict[str, list[float]]]


def summary(values: Sequence[float]) -> Summary:
    """Mean, interval and values over seeds."""
    interval = mean_interval(values)
    return Summary(interval.mean, _ci95(interval), list(values))


def difference(of: Sequence[float], minus: Sequence[float]) -> Share:
    """Of - minus, paired over seeds."""
    interval = mean_interval(np.subtract(of, minus).tolist())
    return Share(interval.mean, _ci95(interval))


def recovery(values: dict[str, list[float]], reference: str, chance: float = -np.inf) -> Share | None:
    """(sorted+sync - sorted+local) / (reference - sorted+local), paired over seeds.

    Args:
        values: the metric by arm, one number a seed.
        reference: the arm that counts as whole.
        chance: what a net that has learned nothing reaches.

    Returns:
        None where an arm is missing, where there is no clear gap to recover, or where the reference itself has learned nothing.
    """
    if not {"sorted+sync", "sorted+local", reference} <= set(values) or np.mean(values[reference]) <= chance:
        return None
    local = values["sorted+local"]
    interval = ratio_interval(
        np.subtract(values["sorted+sync"], local).tolist(), np.subtract(values[reference], local).tolist()
    )
    return None if interval is None else Share(interval.mean, _ci95(interval))


def _ci95(interval: Interval) -> tuple[float, float] | None:
    return None if interval.low is None or interval.high is None else (interval.low, interval.high)
