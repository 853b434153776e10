"""How options are read: the command line on top of a TOML file on top of the defaults."""

from __future__ import annotations

import argparse
import io
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..comm.mpi.ending import say
from ..comm.mpi.start import is_awaited, world_rank
from ..errors import ArgumentError, SyncBNError
from ..experiments import Experiment
from ..report.files import config_toml

C = TypeVar("C")
COMMAS = ConstructorRegistry()


@dataclass(frozen=True)
class Options(Generic[C]):
    """What every experiment takes.

    Attributes:
        experiment: the experiment's own options. Anything left out takes its default.
        ranks: number of ranks. Under mpirun: the number of processes, or a multiple of it. Without: default 8; 1: serial.
        backend: what a rank is. auto: under mpirun a process; else, and where a process has several ranks, all of a process are stacked
            in one array, or threads (in processes: lockstep) where the experiment needs ranks that run by themselves.
        out: folder under which <name>-<time>/ with result.json, curves.png, tables.txt and config.toml appears.
        json: print result.json on stdout and nothing else there.
        config: a TOML file with these options, such as the config.toml of an earlier run; options on the command line win.
    """

    experiment: C
    ranks: int | None = None
    backend: Literal["auto", "serial", "threads", "lockstep", "stacked", "mpi", "hybrid"] = "auto"
    out: str = "runs"
    json: bool = False
    config: str | None = None


@COMMAS.primitive_rule
def _separated_by_commas(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[tuple[Any, ...]] | None:
    """Several names or numbers: `a,b` as well as `a b`."""
    kinds = get_args(info.type) if get_origin(info.type) is tuple else ()
    if not kinds or not {*kinds} <= {str, int, float, Ellipsis}:
        return None
    endless = kinds[-1] is Ellipsis

    def read(given: list[str]) -> tuple[Any, ...]:
        texts = [text for part in given for text in part.split(",") if text]
        return tuple(kind(text) for kind, text in zip(kinds[:1] * len(texts) if endless else kinds, texts, strict=True))

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{kinds[0].__name__.upper()},..." if endless else ",".join(kind.__name__.upper() for kind in kinds),
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: [",".join(map(str, values))],
    )


def read_options(experiment: Experiment[C, Any], arguments: list[str], command: str) -> Options[C]:
    """Reads the options of an experiment.

    Args:
        experiment: whose they are.
        arguments: the command line behind the command.
        command: it, for --help.

    Raises:
        ArgumentError: a value that an option does not take, or a TOML file that cannot be read.
        SystemExit: --help, or an option that there is not; said by then.
    """
    if clash := sorted({field.name for field in fields(Options)} & set(flat(experiment.Config()))):
        own = "names that are not the runner's"
        raise ArgumentError("options", got=", ".join(clash), expected=own, do="Rename them in Config.")
    start = _start(experiment)
    unchecked: Any = _unchecked(experiment.Config)
    kind: Any = Options
    default = kind(_same(unchecked, start))
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", nargs="?")  # without one it is tyro that complains
    file = finder.parse_known_args(arguments)[0].config
    from_file = _options_in(file, flat(default)) if file is not None else []
    parsed = tyro.cli(
        kind[unchecked],
        args=[*from_file, *arguments],
        default=default,
        prog=command,
        description=f"{experiment.question}\n\n    mpirun -n 8 {command}    # 8 MPI processes\n"
        f"    {command} --ranks 8      # the same ranks in one process, without MPI\n\n{experiment.details}",
        config=(tyro.conf.OmitArgPrefixes,),
        registry=COMMAS,
    )
    return _same(Options, parsed, experiment=_same(experiment.Config, parsed.experiment))


def as_toml(experiment: Experiment[C, Any], options: Options[C]) -> str:
    """The options as `config.toml` has them, to be read again.

    Raises:
        ArgumentError: an option of a kind that TOML has not.
    """
    start = flat(_start(experiment))
    found = {name: value for name, value in flat(options).items() if name not in ("json", "out", "config")}
    # Where None is not what it is anyway, it is said as on the command line.
    return config_toml({n: "None" if v is None and start.get(n) is not None else v for n, v in found.items()})


def _start(experiment: Experiment[C, Any]) -> C:
    return experiment.default if experiment.default is not None else experiment.Config()


def flat(options: Any) -> dict[str, Any]:
    """All options by name, those of dataclasses in it too."""
    values: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        values |= flat(value) if is_dataclass(value) else {field.name: value}
    return values


def _unchecked(kind: type[C]) -> type[C]:
    """The same options without the checks in `__post_init__`, whose complaints tyro would put into a box of its own."""
    return type(kind.__name__, (kind,), {"__doc__": kind.__doc__, "__post_init__": lambda self: None})


def _same(kind: Any, options: Any, **change: Any) -> Any:
    return kind(**{field.name: getattr(options, field.name) for field in fields(options)} | change)


def _options_in(file: str, default: dict[str, Any]) -> list[str]:
    """A TOML file's options, spelled as on the command line, so that they meet the same checks."""
    try:
        values = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        got, do = f"{file} ({error})", "Start from a config.toml in runs/."
        raise ArgumentError("--config", got=got, expected="a readable TOML file", do=do) from error
    known = default.keys() - {"config"}
    if strange := sorted({name for name in values if name.replace("-", "_") not in known}):
        got, expected = f"{file} with {', '.join(strange)}", f"options of this experiment: {', '.join(known)}"
        raise ArgumentError("--config", got=got, expected=expected, do="Is it another experiment's file?")
    return [_spelled(name, value, default.get(name), file) for name, value in values.items()]


def _spelled(name: str, value: Any, default: Any, file: str) -> str:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ArgumentError(name, got=f"{value!r} in {file}", expected="true or false", do="Without quotes.")
        return f"--{name}" if value else f"--no-{name}"
    # with "=", a value may begin with a dash
    return f"--{name}={','.join(map(str, value)) if isinstance(value, list) else value}"


@contextmanager
def one_voice() -> Iterator[None]:
    """Under mpirun every process reads the options, but rank 0 alone says what is wrong with them.

    Another rank waits until rank 0 has said the same and gone, and says it only if ranks with right options wait for it: it would
    otherwise be said often, or, by an mpirun that ends rank 0 for the first rank that fails, not at all.
    """
    rank, said = world_rank(), io.StringIO()
    if rank == 0:
        yield
        return
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield
    except (SyncBNError, SystemExit) as error:
        asked_for_help = isinstance(error, SystemExit) and not error.code
        if asked_for_help or not is_awaited():
            sys.exit(0)
        say("\n".join(f"[rank {rank}] {line}" for line in (said.getvalue() or str(error)).splitlines()))
        sys.exit(2)


@contextmanager
def errors_told(program: str) -> Iterator[None]:
    """Ends the program with what went wrong, in one message without a stack, where that is the user's to mend."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except BrokenPipeError:  # `| head`: what is left to say has nowhere to go, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SyncBNError as error:
        sys.exit(f"{program}: {error}" if world_rank() == 0 else 2)
