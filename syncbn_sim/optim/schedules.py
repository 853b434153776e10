"""Learning-rate schedules: functions of the step that return a factor of the first learning rate."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ArgumentError

Schedule = Callable[[int], float]


def linear_decay(total_steps: int, warmup_steps: int = 0) -> Schedule:
    """Rises from 1 / warmup_steps to 1 over the warm-up, then falls linearly, to reach 0 right after the last step.

    Args:
        total_steps: number of steps, counted from 0.
        warmup_steps: steps of the rise, less than `total_steps`.

    Raises:
        ArgumentError: the warm-up does not end before training does.
    """
    if not 0 <= warmup_steps < total_steps:
        expected, do = f"0 to {total_steps - 1}", "Warm up for a tenth of the steps, say."
        raise ArgumentError("warmup_steps", got=warmup_steps, expected=expected, do=do)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(0.0, (total_steps - step) / (total_steps - warmup_steps))

    return factor
