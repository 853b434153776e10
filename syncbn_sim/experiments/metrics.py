"""What is known of each metric: how it is written, and what it can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..report.numbers import estimated
from ..stats.estimates import Estimate


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        heading: of a column.
        axis: of a figure; empty for those that are not drawn.
        factor: 100 where it is written in per cent.
        decimals: with which it is written.
        least, most: what it can be at all: intervals end there.
        chance: what a net that has learned nothing reaches (of accuracy it depends on the classes; -inf: nobody asks).
    """

    heading: str
    axis: str
    factor: int
    decimals: int
    least: float
    most: float
    chance: float = -np.inf

    def written(self, found: Estimate) -> str:
        """With its interval."""
        return estimated(found, self.factor, self.decimals)


METRICS = {
    "accuracy": Metric("accuracy %", "test accuracy (%)", 100, 1, 0.0, 1.0, chance=0.0),
    "auc": Metric("AUC %", "test AUC (%)", 100, 2, 0.0, 1.0, chance=0.5),
    "logloss": Metric("log loss", "", 1, 4, 0.0, np.inf),
    "ne": Metric("norm. entropy", "", 1, 4, 0.0, np.inf),
    "r2": Metric("R^2 %", "R^2 (%)", 100, 2, -np.inf, 1.0, chance=0.0),
}
