"""The command `syncbn-sim`."""

from __future__ import annotations

import os
import sys

import tyro

from ..errors import SyncBNError
from .advise import advise
from .cluster import cluster, schedules
from .logs import inspect_log


def main() -> None:
    """Reads the command line and runs what it names."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "inspect-log": inspect_log,
                "cluster": cluster,
                "advise": advise,
                "schedules": schedules,
                "version": version,
            },
            prog="syncbn-sim",
            description="Look inside batch normalisation over ranks.",
        )
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
    except BrokenPipeError:  # `| head`: what is left to say has nowhere to go, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SyncBNError as error:
        sys.exit(f"syncbn-sim: {error}")


def version() -> None:
    """Prints the version."""
    from .. import __version__

    print(__version__)
