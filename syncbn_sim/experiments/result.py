"""What the main job finds, as it stands in result.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..stats.estimates import Estimate, mean_interval, ratio_interval
from ..stats.reading import Behind
from .metrics import METRICS


@dataclass(frozen=True)
class SyncCost:
    """What synchronising cost: a layer, a step, and as a share of the time of a step (waiting for other ranks included).

    Attributes:
        share_of_step: None where ranks are stacked in one array, and so do not talk.
    """

    allreduces_per_layer_forward: float
    allreduces_per_layer_backward: float
    bytes_per_step: int
    share_of_step: float | None


@dataclass(frozen=True)
class Result:
    """All that one run of the experiment found. Its fields are those of result.json.

    Attributes:
        seeds_are: what differs from seed to seed, over which the intervals run.
        differences: each arm minus its twin, the same norm on shuffled data.
        recovery: share of the way from sorted+local to iid+sync that sorted+sync has gone, `recovery` of this file.
        recovery_against_iid_local: the same of the way to iid+local.
        recovery_of_others: the share of the way to iid+sync of each other norm on sorted data: "averaged", "layer", "none".
        intra_class_correlation: mean over features.
        correlation_of: of which rows it was measured.
        behind: by arm with batch statistics, what stands behind them.
    """

    task: str
    rows_are: str
    sorted_by: str
    seeds_are: str
    metric: str
    ranks: int
    backend: str
    seconds: float
    config: dict[str, Any]
    arms: dict[str, dict[str, Estimate]]
    differences: dict[str, Estimate]
    recovery: Estimate | None
    recovery_against_iid_local: Estimate | None
    recovery_of_others: dict[str, Estimate]
    order_cost_without_norm: Estimate | None
    rank0_statistics: dict[str, dict[str, Estimate]]
    intra_class_correlation: float
    correlation_of: str
    behind: dict[str, Behind]
    sync: SyncCost | None
    curves: dict[str, dict[str, list[float]]]


def summary(values: Sequence[float], metric: str) -> Estimate:
    """Of a metric over seeds, as fractions; the interval stays inside what the metric can be."""
    return mean_interval(values, METRICS[metric].least, METRICS[metric].most)


def difference(of: Sequence[float], minus: Sequence[float]) -> Estimate:
    """Estimates of - minus, paired over seeds."""
    return mean_interval(np.subtract(of, minus).tolist())


def recovery(
    values: dict[str, list[float]], reference: str, metric: str, chance: float = -np.inf, norm: str = "sync"
) -> Estimate | None:
    """The share won back: (sorted+norm - sorted+local) / (reference - sorted+local), paired over seeds.

    Args:
        values: the metric by arm, one number per seed.
        reference: the arm that counts as whole.
        metric: its name, of `METRICS`.
        chance: what a net that has learned nothing reaches.
        norm: whose share is asked for.

    Returns:
        None where an arm is missing, where there is no clear gap to recover, or where the reference itself has learned nothing.
    """
    if not {f"sorted+{norm}", "sorted+local", reference} <= set(values) or np.mean(values[reference]) <= chance:
        return None
    local, possible = values["sorted+local"], METRICS[metric]
    return ratio_interval(
        np.subtract(values[f"sorted+{norm}"], local).tolist(),
        np.subtract(values[reference], local).tolist(),
        possible.least - float(np.mean(local)),
        possible.most - float(np.mean(local)),
    )
