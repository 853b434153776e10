"""What an experiment is, and how it is found by its name."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from ..comm.base import Communicator
from ..errors import ArgumentError, unknown
from ..report.progress import Progress

C = TypeVar("C")
R = TypeVar("R")


@dataclass(frozen=True)
class Experiment(Generic[C, R]):
    """One question, and all it takes to answer it. The file that makes one calls it EXPERIMENT and bears its name.

    Attributes:
        name: that of its file.
        question: one line.
        Config: a frozen dataclass of its options, each with a default and documented under "Attributes:"; a dataclass in it is
            taken for more options.
        run: what every rank does: (comm, config, progress) -> the result, of which rank 0's counts.
        table: the result in rows and columns.
        figure: a PNG of the results of all parts.
        conclusion: the finding in plain words, with what it does not show.
        details: what --help says below the question.
        default: the options where the command line says nothing; None: `Config()`.
        parts: the runs that one config asks for, each with a result of its own; wrong options are said here, before ranks start.
        title: what a run with this config is called; names its folder. None: the name.
        stackable: whether its ranks may be stacked in one array (`comm.stacked`): it trains and judges by `train`, on the rows of
            `comm.ranks`, and talks beside by `comm.holders` alone.
    """

    name: str
    question: str
    Config: type[C]
    run: Callable[[Communicator, C, Progress], R]
    table: Callable[[R], str]
    figure: Callable[[Sequence[R]], bytes]
    conclusion: Callable[[R], str]
    details: str = ""
    default: C | None = None
    parts: Callable[[C], Sequence[C]] = lambda config: [config]
    title: Callable[[C], str] | None = None
    stackable: bool = False

    def __post_init__(self) -> None:
        """Refuses a name that names no folder, and a Config from which options cannot be read."""
        if not self.name.isidentifier():
            name = repr(self.name)
            raise ArgumentError("name", got=name, expected="letters, digits and _", do="Name it as its file.")
        if wrong := _wrong_with(self.Config):
            expected = "a dataclass, frozen since all ranks share it, with a default for each option"
            do = "Write @dataclass(frozen=True) above Config, and `rows: int = 4` in it."
            raise ArgumentError(f"experiment {self.name}", got=wrong, expected=expected, do=do)


def _wrong_with(kind: type) -> str:
    name = kind.__name__
    if not is_dataclass(kind):
        return f"{name}, which is no dataclass"
    if not cast(Any, kind).__dataclass_params__.frozen:
        return f"{name}, which is not frozen"
    bare = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    return f"{', '.join(bare)} without a default" if bare else ""


def every() -> dict[str, Experiment[Any, Any]]:
    """All that stand in this folder, by name. Imports them; warns of one that cannot be imported, and leaves it out."""
    found = {}
    for name in _files():
        try:
            experiment = _of_folder(name)
        except (Exception, SystemExit) as error:
            warnings.warn(f"experiments/{name}.py is left out: {type(error).__name__}: {error}", stacklevel=2)
            continue
        if experiment is not None:
            found[name] = experiment
    return found


def find(name: str) -> Experiment[Any, Any]:
    """One of this folder by its name, or that of a file of your own by its path. Imports no other.

    Raises:
        ArgumentError: there is none; the nearest name is suggested.
    """
    if name.endswith(".py"):
        module = _loaded(Path(name))
        if not isinstance(getattr(module, "EXPERIMENT", None), Experiment):
            expected = "a file with EXPERIMENT = Experiment(...)"
            do = "docs/howto/new_experiment.md shows one."
            raise ArgumentError("experiment", got=f"{name}, which has none", expected=expected, do=do)
        return module.EXPERIMENT
    experiment = _of_folder(name) if name in _files() else None
    if experiment is not None:
        return experiment
    raise unknown("experiment", name, every())


def _of_folder(name: str) -> Experiment[Any, Any] | None:
    """That of a file of this folder; None: the file is a helper."""
    found = getattr(importlib.import_module(f"{__package__}.{name}"), "EXPERIMENT", None)
    if found is not None and getattr(found, "name", None) != name:
        got, expected = repr(getattr(found, "name", found)), f"an Experiment with name={name!r}"
        raise ArgumentError(f"EXPERIMENT of {name}.py", got=got, expected=expected, do="Name it as its file.")
    return found


def _files() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(sys.modules[__package__].__path__))


def _loaded(path: Path) -> ModuleType:
    name = f"_own_{path.stem}"  # so that a file called json.py is not taken for json
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ArgumentError("experiment", got=path, expected="a file that is there", do="Is the path right?")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look
    if (folder := str(path.parent.resolve())) not in sys.path:
        sys.path.append(folder)  # for the file's helpers; last, so that they stand for nothing else
    spec.loader.exec_module(module)
    return module
