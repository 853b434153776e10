"""What does sorting the data cost a net with local batch norm, and how much of it does SyncBN win back?

    mpirun -n 8 python mpi_examples/train.py            # 8 MPI processes, both tasks
    python mpi_examples/train.py --ranks 8              # the same ranks as threads, without MPI
    python mpi_examples/train.py --task digits --arms iid+local,sorted+local,sorted+sync

Trains one small net per arm and seed, data-parallel over the ranks, and prints a table for each task, then one sentence.
"""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from syncbn_sim.comm import Communicator, launch
from syncbn_sim.comm.mpi.start import world_rank, world_size
from syncbn_sim.data import Source
from syncbn_sim.errors import ArgumentError, SyncBNError
from syncbn_sim.experiments import sorted_batches
from syncbn_sim.experiments.arms import ARMS
from syncbn_sim.experiments.result import Result
from syncbn_sim.experiments.tasks import Task, own_task
from syncbn_sim.report.files import check_out, config_toml, result_json, write_run
from syncbn_sim.report.inspection import inspection_table
from syncbn_sim.report.progress import reading, training
from syncbn_sim.report.text import sentence, table

WITHOUT_MPI = 8  # ranks where nobody said how many


@dataclass(frozen=True)
class Options:
    """What to train. Anything left out takes the task's own default."""

    task: str = "both"
    """digits, requests, both, or a file of your own (.csv, .tsv, .parquet, .ndjson, .npz). digits: scikit-learn's
    handwritten digits, sorted by class. requests: a synthetic click log, sorted by user, judged on users it never saw."""
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
    """Passes over the training data (digits 6, requests 1, own file: as many as make about 400 steps)."""
    lr: float = 3e-3
    """Learning rate at the start; it falls linearly to 0."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """sgd has momentum 0.9; try --lr 0.1 with it."""
    dtype: Literal["float32", "float64"] = "float32"
    """Of data and weights. Statistics are summed in float64 either way."""
    out: str = "runs"
    """Folder under which <task>-<time>/ with result.json, curves.png and config.toml appears."""
    label: str = ""
    """Own file: the column to predict. Two values: AUC and log loss; a few: accuracy; numbers: R^2."""
    entity: str = ""
    """Own file: the key by which rows belong together (user, session, site); "sorted" means sorted by it."""
    features: tuple[str, ...] = ()
    """Own file: columns to learn from (default: all but label, entity, and what looks like a date or an identifier)."""
    missing: Literal["refuse", "impute", "drop"] = "refuse"
    """Own file: what to do with missing values. impute: the training mean; for text, a category of their own. drop: rows
    with one in the label, the key or a feature are taken out."""
    width: int = 32
    """Own file: columns for a text feature, one-hot up to so many different texts, hashed beyond."""
    delimiter: str = ""
    """Own .csv: between fields (default: a comma; in a .tsv a tab)."""
    decimal: Literal[".", ","] = "."
    """Own file: before the decimals of numbers."""
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
            own = options.task.endswith(sorted_batches.OWN_FILES)
            source = Source(options.task, *(getattr(options, f.name) for f in fields(Source)[1:])) if own else None
            if own and not options.task.endswith(".npz") and not options.label:
                raise ArgumentError(
                    "label", got="none", expected="the column to predict", do="For example --label click."
                )
            configs = [sorted_batches.Config(task=task, **shared) for task in tasks]
        ranks = WITHOUT_MPI if options.ranks is None and world_size() is None else options.ranks
        launch(train_and_report, ranks, args=(configs, options, source))
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


def train_and_report(
    comm: Communicator, configs: list[sorted_batches.Config], options: Options, source: Source | None
) -> None:
    """Runs on every rank: trains task after task; rank 0 prints each table as soon as it is there."""
    if comm.rank == 0:  # on its machine the folder will be, and it shall be known before the training that it can be
        check_out(Path(options.out))
    task = read_own(comm, source, configs[0].rows, quiet=options.json) if source else None
    results: list[Result] = []
    for config in configs:
        with training(config, show=comm.rank == 0) as on_step:
            results.append(sorted_batches.run(comm, config, on_step, task))
        if comm.rank == 0 and not options.json:
            print(table(results[-1]), "", sep="\n", flush=True)
    if comm.rank == 0:
        report(results, replace(options, ranks=comm.size, config=None))


def read_own(comm: Communicator, source: Source, rows: int | None, quiet: bool) -> Task:
    """Reads a user's own log on rank 0, and says what is in it."""
    with reading(source.path, show=comm.rank == 0) as on_bytes:
        task = own_task(comm, source, rows, on_bytes)
    if task.log and task.inspection and not quiet:
        print(*task.log.notes, "", inspection_table(task.inspection), "", sep="\n", flush=True)
    return task


def report(results: list[Result], options: Options) -> None:
    """Writes the run's folder, then prints the findings in words (or the JSON)."""
    from syncbn_sim.report.plots import order_gap

    kept = {name: value for name, value in asdict(options).items() if name not in ("json", "out")}
    files = {
        "result.json": result_json(results).encode(),
        "curves.png": order_gap(results),
        "config.toml": config_toml(kept).encode(),
    }
    if options.json:  # first of all: a full disk must not lose it
        print(result_json(results), end="", flush=True)
    try:
        folder = write_run(Path(options.out), Path(options.task).stem, files)
        if not options.json:
            print(f"Written to {folder}: result.json, curves.png, config.toml.\n")
    finally:
        if not options.json:
            print("\n".join(sentence(result) for result in results), flush=True)


def read_options(arguments: list[str]) -> Options:
    """The command line on top of the TOML file on top of the defaults."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    file = finder.parse_known_args(arguments)[0].config
    options = tyro.cli(Options, args=[*options_in(file), *arguments] if file else arguments, description=__doc__)
    split = {
        name: tuple(x for part in getattr(options, name) for x in part.split(",") if x) for name in ("arms", "features")
    }
    return replace(options, **split)


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
    if not isinstance(values.get("json", False), bool):
        raise ArgumentError("json", got=f"{values['json']!r} in {file}", expected="true or false", do="Without quotes.")
    flag = ["--json"] * values.pop("json", False)
    # with "=", a value may begin with a dash
    return flag + [
        f"--{name}={value if not isinstance(value, list) else ','.join(map(str, value))}"
        for name, value in values.items()
    ]


if __name__ == "__main__":
    main()
