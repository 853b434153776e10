"""Progress bars, on stderr: over reading a file, in bytes, and over training, in steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..experiments.sorted_batches import Config, OnStep

ENOUGH_STEPS, ENOUGH_SECONDS = 50, 3.0  # to tell the pace, whichever comes first
LONG = 30.0  # seconds


@contextmanager
def reading(path: str, show: bool = True) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of bytes read so far."""
    from tqdm import tqdm

    total = Path(path).stat().st_size if Path(path).exists() else None
    with tqdm(
        desc=f"reading {Path(path).name}", total=total, unit="B", unit_scale=True, leave=False, disable=not show
    ) as bar:
        yield lambda done: bar.update(done - bar.n) and None


@contextmanager
def training(config: Config, show: bool = True) -> Iterator[OnStep]:
    """Yields a function to call after each step; once the pace is known, it says how long a long training will take."""
    from tqdm import tqdm

    first, told = 0.0, False
    with tqdm(desc=config.task, unit="step", disable=not show, leave=False, mininterval=0.3) as bar:

        def on_step(done: int, total: int, arm: str) -> None:
            nonlocal first, told
            now = time.perf_counter()
            if done == 1:
                first = now
                bar.reset()
            elif show and not told and (done > ENOUGH_STEPS or now - first > ENOUGH_SECONDS):
                told = True
                seconds = (now - first) / (done - 1) * total
                if seconds > LONG:
                    bar.write(_announced(config, total, seconds), file=bar.fp)
            bar.total = total  # of a user's own log it depends a little on the seed: the split is by entity
            bar.set_postfix_str(arm, refresh=False)
            bar.update(done - bar.n)

        yield on_step


def _announced(config: Config, total: int, seconds: float) -> str:
    arms, seeds = len(config.arms), config.seeds
    return (
        f"{config.task}: {total:,} steps ({arms} arms x {seeds} seeds x {total // (arms * seeds):,}), about "
        f"{max(1, round(seconds / 60)):,} min at the pace of the first ones. Fewer: --arms, --seeds, --epochs."
    )
