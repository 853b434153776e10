"""One call of one rank, and the message that lists what every rank was doing when they disagree."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import CollectiveMismatchError, CommunicatorError, DeadlockError, LaunchError, RankAbortedError

# A call before anybody needs it in words: ("allreduce", op, dtype, shape, "by SyncBatchNorm 2"), ("recv", source, tag), ...
Asked = tuple[Any, ...]
# Who asks for a sum, if it has a name: layers of one width ask for the same sum, and must not meet each other in it.
speaker: ContextVar[str] = ContextVar("speaker", default="")
_COMM = str(Path(__file__).parent) + os.sep
_PACKAGE = str(Path(__file__).parent.parent) + os.sep


@dataclass(slots=True)
class Call:
    """What one rank asked for.

    Attributes:
        op: "allreduce", "recv", ...
        detail: what all ranks must agree on: reduction, shape and dtype, or root.
        number: this rank's how-manieth collective on the communicator, from 1; of a recv, which is not counted, that of the last one.
        where: the code lines it came from (they may differ between ranks).
        group: the ranks of the communicator, where it is not that of all.
    """

    op: str
    detail: str
    number: int = field(compare=False)
    where: str = field(compare=False)
    group: str = ""

    def __str__(self) -> str:
        detail, among = (f" {text}" if text else "" for text in (self.detail, self.group and f"in {self.group}"))
        return f"{self.op}{detail} (call {self.number}{among}) at {self.where}"


def in_words(asked: Asked, number: int, frame: FrameType | None, group: str = "") -> Call:
    """A call of a rank that waits in it; the code line is read off the rank's stack, so that nobody pays for it before."""
    op, *details = asked
    text = f"from rank {details[0]}, tag {details[1]}" if op == "recv" else " ".join(map(str, details)).rstrip()
    return Call(op, text, number, code_lines(frame), group)


def rank_name(process: int, inside: int = 1) -> str:
    """Ranks of one process, in words: "rank 3", or "ranks 6-7" where each process has several inside."""
    return f"rank {process}" if inside == 1 else f"ranks {process * inside}-{(process + 1) * inside - 1}"


def group_name(members: Sequence[int], call: int, inside: int = 1) -> str:
    """A group in words, by the numbers of its ranks among all, and the call of `split` that made it (there may be several such groups)."""
    shown = [rank_name(member, inside) for member in members[:8]] + [f"{len(members) - 8} more"] * (len(members) > 8)
    return f"the group of {', '.join(shown)} from the split in call {call}"


class Speaker:
    """Puts a name to the sums asked for inside `with`."""

    def __init__(self, name: str) -> None:
        self.name, self.before = f"by {name}", ""

    def __enter__(self) -> None:
        self.before = speaker.get()
        speaker.set(self.name)

    def __exit__(self, *error: object) -> None:
        speaker.set(self.before)


def on_rank(error: BaseException, rank: int, size: int, inside: int = 1) -> BaseException:
    """What to tell of an error that has ended a rank, or a process of `size` with several inside: leaving the program is one too."""
    if isinstance(error, SystemExit):
        got, expected = f"sys.exit({error.code!r}) inside launch()", "its function to return, or to raise"
        do = "Leave the program after launch() instead: the other ranks would wait."
        error = LaunchError("a rank", got=got, expected=expected, do=do)
    error.add_note(f"This happened on {rank_name(rank, inside)} of {size * inside}.")
    return error


def stopped(rank: int | None, error: BaseException) -> RankAbortedError:
    """What stops the other ranks after an error, on a rank or (None) on several."""
    got, do = f"{type(error).__name__} on {'a rank' if rank is None else f'rank {rank}'}", "Read that rank's traceback."
    return RankAbortedError("this rank was stopped", got=got, expected="all ranks to go on", do=do)


def not_its_own(rank: int, user: str) -> CommunicatorError:
    """The error for a rank's communicator in other hands: those of `user`, or, "" for nobody, after the rank's function has returned."""
    got = f"a call by {user}" if user else "a call after the function of that rank has returned"
    do = (
        "Build the model, and whatever else holds a communicator, inside the function that launch() runs, once per rank: "
        "ranks that share a model overwrite each other's communicator and activations."
    )
    subject, expected = f"the communicator of rank {rank}", "calls by that rank alone, inside launch()"
    return CommunicatorError(subject, got=got, expected=expected, do=do)


def finished(number: int) -> Call:
    """What a rank is doing that has returned while others still talk; `number` is that of the call it does not make."""
    return Call("nothing: its function has returned", "", number, "the end")


def describe(array: Array, op: str = "") -> str:
    """Reduction, dtype, shape and who asks: what must be equal on all ranks of an all-reduce."""
    return _described(op, array.dtype, array.shape, speaker.get())


# Every collective of every step comes through here, mostly with what an earlier one came with: what makes text is cached.


@lru_cache(maxsize=1024)
def _described(op: str, dtype: np.dtype[Any], shape: tuple[int, ...], by: str) -> str:
    return f"{op} {dtype.name} {shape} {by}".rstrip()


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

    For example "script.py:12, in main < sync_batch_norm.py:40, in sum_forward".

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


def mismatch(calls: dict[int, Call], name: Callable[[int], str] = rank_name) -> CollectiveMismatchError:
    """The error that lists each rank's call, the odd ones out marked; a process with several ranks inside has another `name`."""
    values = list(calls.values())
    usual = max(values, key=values.count)
    lines = [f"  {name(r)}{'' if call == usual else ' (differs)'}: {call}" for r, call in sorted(calls.items())]
    return CollectiveMismatchError(
        "ranks disagree about a collective",
        got="different calls",
        expected="the same call on every rank",
        do="Every rank, even one without data, must make the same collectives in the same order: "
        "look for a skipped layer or a branch on the rank.\n" + "\n".join(lines),
    )


def stuck(calls: dict[int, Call]) -> CommunicatorError:
    """The error where every rank waits or has returned: a message that does not come, or a mismatch."""
    if not any(call.op == "recv" for call in calls.values()):
        return mismatch(calls)
    lines = "\n".join(f"  rank {r}: {call}" for r, call in sorted(calls.items()))
    do = f"Look for a recv whose send is missing or has another tag.\n{lines}"
    return DeadlockError("every rank waits", got="nobody to go on", expected="a rank that can", do=do)


def caller_file(frame: FrameType | None) -> str:
    """Name, without ending, of the first file up the stack that is not about communicators: who asked for a call."""
    while frame is not None and frame.f_code.co_filename.startswith(_COMM):
        frame = frame.f_back
    return Path(frame.f_code.co_filename).stem if frame else "unknown"
