"""A run's folder: it appears complete, or not at all."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, DataError


def result_json(results: Sequence[Any]) -> str:
    """Writes what result.json holds: a list of one object per result, a dataclass. What is not finite (a net that has diverged) is null.

    Raises:
        ArgumentError: a result is no dataclass, or holds what JSON has not.
    """
    try:
        return json.dumps([_plain(asdict(result)) for result in results], indent=1, allow_nan=False) + "\n"
    except TypeError as error:
        got = f"{', '.join(type(result).__name__ for result in results)} ({error})"
        expected = "a dataclass of numbers, texts, lists, dicts, arrays and Estimates"
        do = "Return one from run, on rank 0 at least."
        raise ArgumentError("result", got=got, expected=expected, do=do) from error


def _plain(value: Any) -> Any:
    """What JSON has: numbers of NumPy as Python's, arrays as lists."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def config_toml(options: Mapping[str, Any]) -> str:
    """Flat options as TOML; those that are None are left out (TOML has no null).

    Raises:
        ArgumentError: an option of a kind that TOML has not.
    """
    return "".join(f"{name} = {_toml(name, value)}\n" for name, value in options.items() if value is not None)


def _toml(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(name, each) for each in value)}]"
    if isinstance(value, float):
        return repr(float(value))  # JSON would write Infinity
    if isinstance(value, str | int):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    expected = "a number, a text, true or false, or a tuple of these"
    do = "Declare it as one of them in Config, and make of it what you need in run: config.toml must hold it."
    raise ArgumentError(f"option {name}", got=repr(value), expected=expected, do=do)


def check_writable(folder: Path, what: str) -> None:
    """Tries whether something can be put into a folder, before the work whose result it is; leaves nothing there.

    Raises:
        DataError: it is not there, or cannot be written into.
    """
    with _writing(what, folder):
        tempfile.TemporaryFile(dir=folder).close()


def check_out(out: Path) -> None:
    """Tries whether `write_run` will be able to make the folder `out`, or to write into it.

    Raises:
        DataError: it will not.
    """
    nearest = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    check_writable(nearest, "out")


def write_run(out: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Writes a folder `out`/`name`-<time> with these files, in a hidden folder first that is renamed when all are there.

    Returns:
        The folder.

    Raises:
        DataError: it cannot be written.
    """
    with _writing("out", out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", suffix=".partial", dir=out) as hidden:
            # Inside, since the hidden one is for this user's eyes alone.
            complete = Path(hidden) / name
            complete.mkdir()
            for file, content in files.items():
                (complete / file).write_bytes(content)
            return _renamed(complete, out / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")


def _renamed(complete: Path, folder: Path) -> Path:
    """Gives a folder its name, or the next one that is free: folder-1, folder-2, ..."""
    target, again = folder, 0
    while True:
        try:
            return complete.rename(target)
        except OSError:
            if not target.exists():
                raise
            again += 1
            target = folder.with_name(f"{folder.name}-{again}")


def write_figure(path: Path, png: bytes) -> None:
    """Writes a figure.

    Raises:
        DataError: it cannot be written.
    """
    with _writing("figure", path, "a file"):
        path.write_bytes(png)


@contextmanager
def _writing(what: str, path: Path, kind: str = "a folder") -> Iterator[None]:
    """Says which place it is that cannot be written."""
    try:
        yield
    except OSError as error:
        got, expected = f"{path} ({error.strerror})", f"{kind} that can be written"
        do = "Choose another one, or make the folder first: mkdir -p."
        raise DataError(what, got=got, expected=expected, do=do) from error
