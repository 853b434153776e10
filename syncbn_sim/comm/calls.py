"""One call of one rank, and the message that lists what every rank was doing when they disagree."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import CollectiveMismatchError

Asked = tuple[
    Any, ...
]  # ("allreduce", op, dtype, shape), ("recv", source, tag), ...: a call before anybody needs it in words
_COMM = str(Path(__file__).parent) + os.sep
_PACKAGE = str(Path(__file__).parent.parent) + os.sep


@dataclass(slots=True)
class Call:
    """What one rank asked for.

    Attributes:
        op: "allreduce", "recv", ...
        detail: what all ranks must agree on: reduction, shape and dtype, or root.
        number: this rank's how-manieth collective on the communicator, from 1.
        where: the code lines it came from (they may differ between ranks).
    """

    op: str
    detail: str
    number: int = field(compare=False)
    where: str = field(compare=False)

    def __str__(self) -> str:
        detail = f" {self.detail}" if self.detail else ""
        return f"{self.op}{detail} (call {self.number}) at {self.where}"


def in_words(asked: Asked, number: int, frame: FrameType | None) -> Call:
    """A call of a rank that waits in it; the code line is read off the rank's stack, so that nobody pays for it before."""
    op, *details = asked
    text = f"from rank {details[0]}, tag {details[1]}" if op == "recv" else " ".join(map(str, details))
    return Call(op, text, number, code_lines(frame))


def finished(number: int) -> Call:
    """What a rank is doing that has returned while others still talk; `number` is that of the call it does not make."""
    return Call("nothing: its function has returned", "", number, "the end")


def describe(array: Array, op: str = "") -> str:
    """Reduction, dtype and shape: what must be equal on all ranks of an all-reduce."""
    return _described(op, array.dtype, array.shape)


# Every collective of every step comes through here, mostly with what an earlier one came with: what makes text is cached.


@lru_cache(maxsize=1024)
def _described(op: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    return f"{op} {dtype.name} {shape}"


@lru_cache(maxsize=1024)
def _line(file: str, number: int, function: str) -> str:
    name = "notebook cell" if "ipykernel" in file else file.rpartition(os.sep)[2]
    return f"{name}:{number}, in {function}"


TALK, PACKAGE, USER = range(3)  # whose file a line is in


@cache
def _home(file: str) -> int:
    return TALK if file.startswith(_COMM) else PACKAGE if file.startswith(_PACKAGE) else USER


def code_lines(frame: FrameType | None = None) -> str:
    """The caller's line, and the line inside this package that it went through.

    For example "script.py:12, in main < sync_batch_norm.py:40, in forward".

    Args:
        frame: where to start; default: the caller's own stack.
    """
    frame = frame or sys._getframe(1)
    lines: list[str] = []
    while frame is not None:
        code = frame.f_code
        home = _home(code.co_filename)
        if home == USER or (home == PACKAGE and not lines):
            lines.append(_line(code.co_filename, frame.f_lineno, code.co_name))
        if home == USER:
            break
        frame = frame.f_back
    return " < ".join(reversed(lines)) or "an unknown line"


def mismatch(calls: dict[int, Call]) -> CollectiveMismatchError:
    """The error that lists each rank's call, the odd ones out marked."""
    values = list(calls.values())
    usual = max(values, key=values.count)
    lines = [f"  rank {r}{'' if call == usual else ' (differs)'}: {call}" for r, call in sorted(calls.items())]
    return CollectiveMismatchError(
        "ranks disagree about a collective",
        got="different calls",
        expected="the same call on every rank",
        do="Every rank, even one without data, must make the same collectives in the same order: "
        "look for a skipped layer or a branch on the rank.\n" + "\n".join(lines),
    )


def caller_file(frame: FrameType | None) -> str:
    """Name, without ending, of the first file up the stack that is not about communicators: who asked for a call."""
    while frame is not None and frame.f_code.co_filename.startswith(_COMM):
        frame = frame.f_back
    return Path(frame.f_code.co_filename).stem if frame else "unknown"
