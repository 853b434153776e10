"""One call of one rank, and the message that lists what every rank was doing when they disagree."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import cache
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


@dataclass(frozen=True)
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
    return f"{op} {_dtype_name(array.dtype)} {array.shape}"


@cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # worth caching: NumPy composes it anew each time, in 4 us


def code_lines(frame: FrameType | None = None) -> str:
    """The caller's line, and the line inside this package that it went through.

    For example "script.py:12, in main < sync_batch_norm.py:40, in forward".

    Args:
        frame: where to start; default: the caller's own stack.
    """
    frame = frame or sys._getframe(1)
    lines: list[str] = []
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_COMM):
            inside = name.startswith(_PACKAGE)
            if not lines or not inside:
                file = "notebook cell" if "ipykernel" in name else name.rpartition(os.sep)[2]
                lines.append(f"{file}:{frame.f_lineno}, in {frame.f_code.co_name}")
            if not inside:
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
