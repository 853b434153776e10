"""The command syncbn-sim: one file per family of commands."""

from .main import main
from .options import errors_told
from .run import run_experiment

__all__ = ["errors_told", "main", "run_experiment"]
