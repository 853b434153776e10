"""What a run tells while it runs: bars on stderr, over reading a file and over steps, and words on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

ENOUGH_STEPS, ENOUGH_SECONDS = 50, 3.0  # to tell the pace, whichever comes first
LONG = 30.0  # seconds
NO_FACTORS: Mapping[str, int] = MappingProxyType({})


class OnStep(Protocol):
    """Told after each step."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Steps done, steps in all, and of what."""


@dataclass(frozen=True)
class Progress:
    """What a run may tell: nothing, unless it is asked to.

    Attributes:
        bars: whether bars are shown.
        words: whether words are printed.
    """

    bars: bool = False
    words: bool = False

    def say(self, text: str) -> None:
        """Prints a paragraph at once."""
        if self.words:
            print(text, "", sep="\n", flush=True)

    @contextmanager
    def reading(self, path: str) -> Iterator[Callable[[int], None]]:
        """Yields a function to call with the number of bytes of a file that have been read so far."""
        if not self.bars:
            yield lambda done: None
            return
        from tqdm import tqdm

        total = Path(path).stat().st_size if Path(path).exists() else None
        with tqdm(desc=f"reading {Path(path).name}", total=total, unit="B", unit_scale=True, leave=False) as bar:
            yield lambda done: bar.update(done - bar.n) and None

    @contextmanager
    def steps(self, title: str, factors: Mapping[str, int] = NO_FACTORS, fewer: str = "") -> Iterator[OnStep]:
        """Yields a function to call after each step; once the pace is known, it says how long a long run will take.

        Args:
            title: before the bar.
            factors: numbers that multiply to that of the steps, such as {"arms": 4, "seeds": 5}.
            fewer: the options that make fewer steps.
        """
        if not self.bars:
            yield lambda done, total, what="": None
            return
        from tqdm import tqdm

        with tqdm(desc=title, unit="step", leave=False, mininterval=0.3) as bar:
            first, told = time.perf_counter(), False

            def on_step(done: int, total: int, what: str = "") -> None:
                nonlocal first, told
                now = time.perf_counter()
                if done == 1:
                    bar.reset()
                    first = now
                elif not told and (done > ENOUGH_STEPS or now - first > ENOUGH_SECONDS):
                    told, seconds = True, (now - first) / (done - 1) * total
                    if seconds > LONG:
                        bar.write(_announced(title, factors, fewer, total, seconds), file=bar.fp)
                # Of a user's own log it depends a little on the seed: the split is by entity.
                bar.total = total
                bar.set_postfix_str(what, refresh=False)
                bar.update(done - bar.n)

            yield on_step


SILENT = Progress()


def _announced(title: str, factors: Mapping[str, int], fewer: str, total: int, seconds: float) -> str:
    counts = [f"{count} {name}" for name, count in factors.items()]
    product = f" ({' x '.join([*counts, f'{total // prod(factors.values()):,}'])})" if counts else ""
    minutes = max(1, round(seconds / 60))
    text = f"{title}: {total:,} steps{product}, about {minutes:,} min at the pace of the first ones."
    return f"{text} Fewer: {fewer}." if fewer else text
