"""One question per file: Config -> run() -> Result, with a table, a figure and a conclusion. Imported when asked for by name."""

from importlib import import_module
from types import ModuleType

from .experiment import Experiment, every, find

__all__ = ["Experiment", "every", "find", "sorted_batches"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
