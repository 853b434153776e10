"""The command syncbn-sim: one file per family of commands."""

from .main import main

__all__ = ["main"]
