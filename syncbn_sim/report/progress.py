"""A progress bar over reading a file: on stderr, in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(path: str, show: bool = True) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of bytes read so far."""
    from tqdm import tqdm

    total = Path(path).stat().st_size if Path(path).exists() else None
    with tqdm(
        desc=f"reading {Path(path).name}", total=total, unit="B", unit_scale=True, leave=False, disable=not show
    ) as bar:
        yield lambda done: bar.update(done - bar.n) and None
