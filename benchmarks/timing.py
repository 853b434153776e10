"""Times of calls that take turns, so that what disturbs the machine disturbs all of them alike; and the ratios of such times."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[], object]
SAMPLE = 2e-3  # seconds; a quicker call is repeated until its sample takes so long


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Any) -> Spread:
        """Of any numbers."""
        low, median, high = np.percentile(np.asarray(values, float), (25, 50, 75))
        return cls(float(median), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def ratio(times: Mapping[str, list[float]], ours: str, theirs: str) -> Spread:
    """Median and quartiles of ours / theirs, round by round, over the rounds in which both ran."""
    return Spread.of([a / b for a, b in zip(times[ours], times[theirs], strict=True) if a == a and b == b])


def numpy_call(calls: int = 200_000) -> float:
    """Seconds of a core for the sum of two rows of 16 numbers: the pace of this machine, which others may share."""
    row, start = np.ones(16), time.process_time()
    for _ in range(calls):
        row + row
    return (time.process_time() - start) / calls


def take_turns(
    calls: Mapping[str, Call], rounds: int, rare: Mapping[str, int] | None = None, rest: float = 0.0
) -> dict[str, list[float]]:
    """Seconds per call, one number per round.

    Args:
        calls: what to time, by name. In each round they run in another random order.
        rounds: how often.
        rare: a name and k: run it in every k-th round only (NaN otherwise), for what would take most of the time.
        rest: seconds to sleep before each sample, in which another library's threads stop to spin.
    """
    repeats = {name: _repeats(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    rng = np.random.default_rng(0)
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for place in rng.permutation(len(calls)):
                name = list(calls)[place]
                skip = number % (rare or {}).get(name, 1)
                times[name].append(float("nan") if skip else _sample(calls[name], repeats[name], rest))
    finally:
        gc.enable()
    return times


def _sample(call: Call, repeats: int, rest: float) -> float:
    if rest:
        time.sleep(rest)
    if repeats > 1:
        call()  # brings its own data and code into the cache again
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _repeats(call: Call) -> int:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return int(np.clip(SAMPLE / min(seconds), 1, 100))
