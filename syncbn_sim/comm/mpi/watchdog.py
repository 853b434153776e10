"""Ends a job of MPI ranks that hangs, and says where each of its ranks waits."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from ..calls import Call, code_lines
from .ending import GRACE, end_job, say

if TYPE_CHECKING:
    from .board import Board

PATIENCE = 300.0  # seconds; a job may well load data on one rank for minutes


class Watchdog:
    """Ends a hung job: a rank that waits in MPI for longer than `patience` seconds says in which call, and aborts.

    The environment variable SYNCBN_SIM_WATCHDOG sets the seconds (default 300). A blocked MPI call cannot be interrupted,
    so a thread has to look on; it reads the blocked thread's stack only then. It can do so only in calls that let other threads
    run: of mpi4py's, the pickled `allreduce` does not.

    Where the ranks have a board, the watchdogs also see together, within a few looks, that every rank waits in a collective to which
    another one has not come (one has skipped a group's call, say): nobody can go on then, and they need not be patient.

    Attributes:
        name: of this process's ranks, for its words.
        world: the board of all ranks, if there is one.
        awaited: the latest checked call: its communicator's board, who must come to it, the watchdog's number of it, and its words.
    """

    def __init__(self) -> None:
        self.patience = float(os.environ.get("SYNCBN_SIM_WATCHDOG", PATIENCE))
        self.since: float | None = None
        # Held while boards are read, whose memory goes with the launch.
        self._boards = threading.Lock()
        self.begin("this rank")
        threading.Thread(target=self._look_on, daemon=True, name="mpi-watchdog").start()

    def begin(self, name: str) -> None:
        """Looks after another launch, made by this thread."""
        self.name, self.thread_id = name, threading.get_ident()
        self.calls = 0
        self.last: tuple[object, ...] = ("no call yet",)
        self.world: Board | None = None
        self.awaited: tuple[Board, Sequence[int], int, Call] | None = None

    def leave(self) -> Board | None:
        """Reads boards no more; returns the world's, to be closed."""
        with self._boards:
            board, self.world, self.awaited = self.world, None, None
        return board

    def watch(self, *what: object) -> Watchdog:
        """Marks the time inside one MPI call, as `with watchdog.watch("bcast", "root", 0):`; what is put into words only if it hangs."""
        self.calls += 1
        self.last, self.since = what, time.monotonic()
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.since = None

    def _look_on(self) -> None:
        while True:
            time.sleep(min(1.0, self.patience / 4))
            since = self.since
            if since is not None and time.monotonic() - since > self.patience:
                call = f"{' '.join(map(str, self.last))} (call {self.calls})"
                where = code_lines(sys._current_frames().get(self.thread_id))
                others = "Ranks that say nothing here are computing or gone. SYNCBN_SIM_WATCHDOG sets the seconds."
                say(f"{self.name}: waiting for {self.patience:g} s in {call} at {where}. {others}")
                break
            if stuck := self._stuck():
                say(f"{self.name}: every rank waits for another, so none can go on. This one waits in {stuck}")
                break
        time.sleep(GRACE)
        end_job()

    def _stuck(self) -> str:
        """What this rank waits in, and for whom, if no rank can go on; else ""."""
        with self._boards:
            calls, awaited, since, absent = self.calls, self.awaited, self.since, ""
            if awaited is None or self.world is None:
                return ""
            board, needed, entered, call = awaited
            # Only with the number unchanged do the others belong to one call.
            if since is not None and calls == entered == self.calls:
                absent = board.absent(call.number, needed)
            if self.world.all_stuck(calls if absent else 0):
                return f"{call}, to which these have not come:\n{absent}"
            return ""


@cache
def the_watchdog() -> Watchdog:
    """This process's watchdog, which looks after one launch after the other."""
    return Watchdog()
