"""What does sorting the data cost a net with local batch norm, and how much of it does SyncBN win back?

    mpirun -n 8 python mpi_examples/train.py            # 8 MPI processes, both tasks
    python mpi_examples/train.py --ranks 8              # the same ranks as threads, without MPI
    python mpi_examples/train.py --task digits --arms sorted+local,sorted+sync --seeds 2

Trains one small net per arm and seed, data-parallel over the ranks, and prints a table for each task, then one sentence.
"""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from syncbn_sim.comm import Communicator, launch
from syncbn_sim.comm.mpi_start import world_rank, world_size
from syncbn_sim.errors import ArgumentError, SyncBNError
from syncbn_sim.experiments import sorted_batches
from syncbn_sim.experiments.arms import ARMS
from syncbn_sim.experiments.result import Result
from syncbn_sim.report.files import config_toml, result_json, write_run
from syncbn_sim.report.text import sentence, table

WITHOUT_MPI = 8  # ranks where nobody said how many


@dataclass(frozen=True)
class Options:
    """What to train. Anything left out takes the task's own default."""

    task: Literal["digits", "requests", "both"] = "both"
    """digits: scikit-learn's handwritten digits, sorted by class. requests: a synthetic click log, sorted by user,
    judged on users it never saw."""
    ranks: int | None = None
    """Number of ranks. Under mpirun: the number of processes. Without: that many threads (1: serial); default 8."""
    rows: int | None = None
    """Rows a rank and step, the batch behind local statistics (digits 4, requests 32). Fewer rows, noisier statistics."""
    arms: tuple[str, ...] = ARMS
    """Which order+norm pairs to compare, separated by commas or spaces. Orders: iid, sorted. Norms: local (each rank's
    own batch), sync (all ranks' sums), averaged (the popular mistake: mean of means and of variances), layer
    (LayerNorm), none (what the order costs by itself)."""
    seeds: int = 5
    """Repetitions; the intervals are over these."""
    epochs: int | None = None
    """Passes over the training data (digits 6, requests 1)."""
    lr: float = 3e-3
    """Learning rate at the start; it falls linearly to 0."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """sgd has momentum 0.9; try --lr 0.1 with it."""
    dtype: Literal["float32", "float64"] = "float32"
    """Of data and weights. Statistics are summed in float64 either way."""
    out: str = "runs"
    """Folder under which <task>-<time>/ with result.json, curves.png and config.toml appears."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print result.json on stdout and nothing else there."""
    config: str | None = None
    """A TOML file with these options, such as the config.toml of an earlier run; options on the command line win."""


def main() -> None:
    """Reads the options, runs the ranks, and reports on rank 0."""
    try:
        with one_voice():
            options = read_options(sys.argv[1:])
            tasks = ("digits", "requests") if options.task == "both" else (options.task,)
            shared = {
                name: getattr(options, name) for name in ("arms", "seeds", "rows", "epochs", "lr", "optimizer", "dtype")
            }
            configs = [sorted_batches.Config(task=task, **shared) for task in tasks]
        ranks = WITHOUT_MPI if options.ranks is None and world_size() is None else options.ranks
        launch(train_and_report, ranks, args=(configs, options))
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
    except SyncBNError as error:
        sys.exit(f"train.py: {error}" if world_rank() == 0 else 2)


@contextmanager
def one_voice() -> Iterator[None]:
    """Under mpirun every process reads the options, but only rank 0 says what is wrong with them."""
    with ExitStack() as stack:
        if world_rank() > 0:
            null = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(null))
            stack.enter_context(redirect_stderr(null))
        yield


def train_and_report(comm: Communicator, configs: list[sorted_batches.Config], options: Options) -> None:
    """Runs on every rank: trains task after task; rank 0 prints each table as soon as it is there."""
    results: list[Result] = []
    for config in configs:
        with tqdm(desc=config.task, unit="step", disable=comm.rank > 0, leave=False, mininterval=0.3) as bar:
            results.append(sorted_batches.run(comm, config, partial(move, bar)))
        if comm.rank == 0 and not options.json:
            print(table(results[-1]), "", sep="\n", flush=True)
    if comm.rank == 0:
        report(results, replace(options, ranks=comm.size, config=None))


def move(bar: tqdm, done: int, total: int, arm: str) -> None:
    """Moves the progress bar."""
    bar.total = total
    bar.set_postfix_str(arm, refresh=False)
    bar.update(done - bar.n)


def report(results: list[Result], options: Options) -> None:
    """Writes the run's folder, then prints the findings in words (or the JSON)."""
    from syncbn_sim.report.plots import order_gap

    kept = {name: value for name, value in asdict(options).items() if name not in ("json", "out")}
    files = {
        "result.json": result_json(results).encode(),
        "curves.png": order_gap(results),
        "config.toml": config_toml(kept).encode(),
    }
    folder = write_run(Path(options.out), options.task, files)
    if options.json:
        print(result_json(results), end="", flush=True)
        return
    print(f"Written to {folder}: result.json, curves.png, config.toml.\n")
    print("\n".join(sentence(result) for result in results), flush=True)


def read_options(arguments: list[str]) -> Options:
    """The command line on top of the TOML file on top of the defaults."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    file = finder.parse_known_args(arguments)[0].config
    options = tyro.cli(Options, args=[*options_in(file), *arguments] if file else arguments, description=__doc__)
    return replace(options, arms=tuple(arm for part in options.arms for arm in part.split(",") if arm))


def options_in(file: str) -> list[str]:
    """A TOML file's options, spelled as on the command line, so that they meet the same checks."""
    try:
        values = tomllib.loads(Path(file).read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArgumentError(
            "--config",
            got=f"{file} ({error})",
            expected="a readable TOML file",
            do="Start from a config.toml in runs/.",
        ) from error
    return [
        text
        for name, value in values.items()
        for text in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
    ]


if __name__ == "__main__":
    main()
