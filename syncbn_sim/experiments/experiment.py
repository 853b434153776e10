"""What an experiment is, and how it is found by its name."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

from ..comm.base import Communicator
from ..errors import ArgumentError, unknown
from ..report.progress import Progress

C = TypeVar("C")
R = TypeVar("R")
C_ = TypeVar("C_", contravariant=True)
R_ = TypeVar("R_", covariant=True)


class Runs(Protocol[C_, R_]):
    """What every rank does: (comm, config, progress) -> the result, of which rank 0's counts."""

    def __call__(self, comm: Communicator, config: C_, progress: Progress, /) -> R_:
        """Runs it."""


@dataclass(frozen=True)
class Experiment(Generic[C, R]):
    """One question, and all it takes to answer it. The file that makes one calls it EXPERIMENT and bears its name.

    Attributes:
        name: that of its file.
        question: one line.
        Config: a frozen dataclass of its options, each with a default and documented under "Attributes:"; a dataclass in it is
            taken for more options.
        run: what every rank does.
        table: the result in rows and columns.
        figure: a PNG of the results of all parts.
        conclusion: the finding in plain words, with what it does not show.
        details: what --help says below the question.
        default: the options where the command line says nothing; None: `Config()`.
        parts: the runs that one config asks for, each with a result of its own; wrong options are said here, before ranks start.
        title: what a run with this config is called; names its folder. None: the name.
    """

    name: str
    question: str
    Config: type[C]
    run: Runs[C, R]
    table: Callable[[R], str]
    figure: Callable[[Sequence[R]], bytes]
    conclusion: Callable[[R], str]
    details: str = ""
    default: C | None = None
    parts: Callable[[C], Sequence[C]] = lambda config: [config]
    title: Callable[[C], str] | None = None


def every() -> dict[str, Experiment[Any, Any]]:
    """All that stand in this folder, by name. Imports them."""
    files = {name: importlib.import_module(f"{__package__}.{name}") for name in _files()}
    return {name: file.EXPERIMENT for name, file in files.items() if hasattr(file, "EXPERIMENT")}


def find(name: str) -> Experiment[Any, Any]:
    """One of this folder by its name, or that of a file of your own by its path. Imports no other.

    Raises:
        ArgumentError: there is none; the nearest name is suggested.
    """
    if name.endswith(".py"):
        module = _loaded(Path(name))
        if not isinstance(getattr(module, "EXPERIMENT", None), Experiment):
            raise ArgumentError(
                "experiment",
                got=f"{name}, which has none",
                expected="a file with EXPERIMENT = Experiment(...)",
                do="docs/howto/new_experiment.md shows one.",
            )
        return module.EXPERIMENT
    if name in _files():
        module = importlib.import_module(f"{__package__}.{name}")
        if hasattr(module, "EXPERIMENT"):
            return module.EXPERIMENT
    raise unknown("experiment", name, every())


def _files() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(sys.modules[__package__].__path__))


def _loaded(path: Path) -> ModuleType:
    name = f"_own_{path.stem}"  # so that a file called json.py is not taken for json
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ArgumentError("experiment", got=path, expected="a file that is there", do="Is the path right?")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look
    spec.loader.exec_module(module)
    return module
