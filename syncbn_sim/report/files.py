"""A run's folder: it appears complete, or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..experiments.result import Result


def result_json(results: Sequence[Result]) -> str:
    """result.json: a list of one object a task. What is not finite (a net that has diverged) is null."""
    return json.dumps([_finite(asdict(result)) for result in results], indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def config_toml(options: Mapping[str, Any]) -> str:
    """Flat options as TOML; those that are None are left out (TOML has no null)."""
    return "".join(
        f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value)}\n"
        for name, value in options.items()
        if value is not None
    )


def write_run(out: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Writes a folder `out`/`name`-<time> with these files, in a hidden folder first that is renamed when all are there.

    Returns:
        The folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    hidden = out / f".{name}-{os.getpid()}.partial"
    hidden.mkdir()
    try:
        for file, content in files.items():
            (hidden / file).write_bytes(content)
        stamp, again = time.strftime("%Y%m%d-%H%M%S"), 0
        while True:
            folder = out / (f"{name}-{stamp}" + (f"-{again}" if again else ""))
            try:
                hidden.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                again += 1
            else:
                return folder
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
