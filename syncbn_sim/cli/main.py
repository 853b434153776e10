"""The command `syncbn-sim`."""

from __future__ import annotations

import shlex
import sys

import tyro

from ..comm.mpi.start import world_rank
from ..experiments import find
from .advise import advise
from .cluster import cluster, schedules
from .logs import inspect_log
from .options import COMMAS, errors_told, one_voice
from .run import experiments, run, run_experiment


def main() -> None:
    """Reads the command line and runs what it names."""
    with errors_told("syncbn-sim"):
        match sys.argv[1:]:
            case ["run", name, *arguments] if not name.startswith("-"):
                with one_voice():
                    experiment = find(name)
                run_experiment(experiment, arguments, f"syncbn-sim run {shlex.quote(name)}")
            case arguments if world_rank() == 0:  # what has no ranks is done once, under mpirun too
                tyro.extras.subcommand_cli_from_dict(
                    {
                        "list": experiments,
                        "run": run,
                        "inspect-log": inspect_log,
                        "cluster": cluster,
                        "advise": advise,
                        "schedules": schedules,
                        "version": version,
                    },
                    prog="syncbn-sim",
                    description="Look inside batch normalisation over ranks.",
                    args=arguments,
                    registry=COMMAS,
                )


def version() -> None:
    """Prints the version."""
    from .. import __version__

    print(__version__)
