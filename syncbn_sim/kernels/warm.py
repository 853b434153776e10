"""Compiling all loops once: at installation, or by the first of several processes while the others wait."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np

from ..functional.box import Box, box_of
from . import backward, compiled, compiler, forward


def warm() -> None:
    """Compiles every loop for float32 and float64, with frequency weights and without, where that is not on disk yet."""
    for dtype in (np.float32, np.float64):
        for shape, groups in (((2, 2), 2), ((2, 4), 2), ((2, 2 * compiled.SHORT), 1), ((2, 2, 2), 2)):
            x = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
            box = box_of(x, 1, groups)
            for counts in (None, np.ones((2, box.length))):
                _once(box.flat(x), box, counts)


def _once(x: Any, box: Box, counts: Any) -> None:
    cells, weight = np.ones(box.cells), np.ones(box.channels)
    compiled.moments(x, box, counts)
    compiled.normalise(x, box, cells, cells, 1e-5, weight, weight, np.empty_like(x))
    sums, _ = compiled.backward_sums(x, x, box, cells, cells, weight)
    compiled.input_gradient(x, x, box, counts, cells, cells, weight, sums, np.empty_like(x))


def warm_once() -> bool:
    """Does it in one process at a time, so that of several that start together the first compiles and the others read what it has.

    Returns:
        Whether all is compiled: without a place on disk to keep code each process compiles what it needs, when it needs it.
    """
    mark = _mark()
    if mark is None or mark.exists():
        return mark is not None
    try:
        with _alone(mark.with_suffix(".lock")):
            if not mark.exists():
                print("syncbn-sim compiles its loops, once ...", file=sys.stderr, flush=True)
                warm()
                if not compiler.not_kept:
                    mark.touch()
    except OSError as error:
        compiler.not_kept.append(error)
    return not compiler.not_kept


def _mark() -> Path | None:
    """The file that says that all is compiled: for these sources, this numba, this Python and this kind of processor."""
    place = compiled.MOMENTS["runs"].stats.cache_path  # type: ignore[attr-defined]
    if place is None:
        return None
    # Numba takes a file written anew for another one, and so must the mark: else all ranks would compile at a time.
    files = [Path(str(module.__file__)) for module in (forward, backward, compiler)]
    sources = b"".join(file.read_bytes() + str(file.stat().st_mtime_ns).encode() for file in files)
    about = f"{numba.__version__} {sys.version} {llvmlite.binding.get_host_cpu_name()}"
    digest = hashlib.sha256(sources + about.encode()).hexdigest()[:16]
    return Path(place) / f"compiled-{digest}"


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; it may wait for others. (Windows has no such lock, and no ranks that start together.)"""
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
