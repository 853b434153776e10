"""Experiments: which there are, and one of them run on ranks, shown and written down."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from ..comm import Communicator, launch
from ..comm.mpi.start import world_size
from ..errors import ArgumentError
from ..experiments import Experiment, every, find
from ..report.files import check_out, result_json, write_run
from ..report.progress import SILENT, Progress
from .options import Options, as_toml, one_voice, read_options

C = TypeVar("C")
R = TypeVar("R")
T = TypeVar("T")
WITHOUT_MPI = 8  # ranks where nobody said how many


def experiments() -> None:
    """Lists the experiments: name and question."""
    found = every()
    for name, experiment in found.items():
        print(f"{name:{max(map(len, found))}}  {experiment.question}")


def run(name: Annotated[str, tyro.conf.arg(metavar="NAME")], /) -> None:
    """Runs an experiment on ranks, prints its table and what follows from it, and writes a folder.

    Its own options come behind its name: `syncbn-sim run NAME --help`.

    Args:
        name: of `syncbn-sim list`, or a .py file of your own.
    """
    run_experiment(find(name), [], f"syncbn-sim run {shlex.quote(name)}")


def run_experiment(experiment: Experiment[Any, Any], arguments: list[str], command: str) -> None:
    """Reads the options, runs the ranks, and reports on rank 0."""
    world = world_size()
    with one_voice():
        options = read_options(experiment, arguments, command)
        if not (parts := experiment.parts(options.experiment)):
            subject, do = f"{experiment.name}.parts", "Return [config] for one run."
            raise ArgumentError(subject, got="none", expected="a config for each run, one at least", do=do)
        as_toml(experiment, options)  # said now, not after the work
        if world not in (None, 1) and options.backend in ("serial", "threads", "lockstep"):
            raise ArgumentError(
                "--backend",
                got=f"{options.backend} under mpirun, which has started {world} processes",
                expected=f"auto, mpi{', stacked' * experiment.stackable} or hybrid there",
                do="Each process would run the whole experiment: leave out mpirun, or --backend.",
            )
        if options.backend == "stacked" and not experiment.stackable:
            raise ArgumentError(
                "--backend",
                got=f"stacked, and {experiment.name}, whose ranks talk by themselves",
                expected="ranks that run by themselves: auto, threads, lockstep, mpi or hybrid",
                do="Leave out --backend. An experiment that can be stacked says so: stackable=True.",
            )
    in_one_process = world is None and options.backend in ("auto", "threads", "lockstep", "stacked")
    ranks = WITHOUT_MPI if options.ranks is None and in_one_process else options.ranks
    stacks = options.backend == "auto" and experiment.stackable and (ranks or 1) > (world or 1)
    launch(_on_rank, ranks, "stacked" if stacks else options.backend, args=(experiment, parts, options))


def _on_rank(comm: Communicator, experiment: Experiment[C, R], parts: Sequence[C], options: Options[C]) -> None:
    """Runs part after part; rank 0 prints each table as soon as it is there."""
    progress = Progress(bars=True, words=not options.json) if comm.rank == 0 else SILENT
    # On its machine the folder will be, and it shall be known before the work that it can be.
    if comm.rank == 0:
        check_out(Path(options.out))
    results: list[R] = []
    for part in parts:
        results.append(experiment.run(comm, part, progress))
        if comm.rank == 0:
            result_json(results[-1:])  # what cannot be written is said before the next part
            progress.say(_made(experiment, "table", results[-1], str))
    if comm.rank == 0:
        _report(experiment, results, replace(options, ranks=comm.size, config=None))


def _report(experiment: Experiment[C, R], results: Sequence[R], options: Options[C]) -> None:
    """Writes the run's folder, then prints the findings in words (or the JSON)."""
    if options.json:  # first of all: nothing that goes wrong with a figure or a disk must lose it
        print(result_json(results), end="", flush=True)
    findings = "\n".join(_made(experiment, "conclusion", result, str) for result in results)
    title = experiment.name if experiment.title is None else experiment.title(options.experiment)
    files = {
        "result.json": result_json(results).encode(),
        "tables.txt": "\n\n".join([*map(experiment.table, results), f"{findings}\n"]).encode(),
        "config.toml": as_toml(experiment, options).encode(),
    }
    with ExitStack() as whatever_fails:
        if not options.json:
            whatever_fails.callback(print, findings, flush=True)
        whatever_fails.callback(_write, Path(options.out), title, files, not options.json)
        files["curves.png"] = _made(experiment, "figure", results, bytes)


def _write(out: Path, title: str, files: dict[str, bytes], aloud: bool) -> None:
    folder = write_run(out, title, files)
    if aloud:
        print(f"Written to {folder}: {', '.join(files)}.\n")


def _made(experiment: Experiment[Any, Any], function: str, argument: Any, kind: type[T]) -> T:
    """What the experiment's table, figure or conclusion returns, which must be of this kind."""
    made = getattr(experiment, function)(argument)
    if not isinstance(made, kind):
        raise ArgumentError(
            f"{experiment.name}.{function}",
            got=f"a {type(made).__name__}",
            expected=f"a {kind.__name__}",
            do=f"Let {function} return one{', as report.plots.png makes it' if kind is bytes else ''}.",
        )
    return made
