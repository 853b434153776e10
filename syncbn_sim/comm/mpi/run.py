"""A function on every process that mpirun has started, or on ranks inside them: from start to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ...errors import LaunchError
from .. import hybrid, stacked
from ..base import Communicator
from ..calls import on_rank, rank_name
from .board import Board
from .checked import CheckedCommunicator
from .communicator import MPICommunicator
from .ending import abort_with_traceback, end_all_on_uncaught_errors
from .machines import on_one_machine
from .start import start_mpi, world_rank, world_size
from .watchdog import the_watchdog

# (body, so many ranks of this process, the processes' communicator) -> results by rank.
Inside = Callable[[Callable[[Communicator], Any], int, Communicator], list[Any]]


def run(
    body: Callable[[Communicator], Any], ranks: int | None, checked: bool, several: Inside | None = None
) -> list[Any] | None:
    """Runs body(comm) on every rank.

    Args:
        body: called once per rank.
        ranks: how many; None: one per process.
        checked: compare every collective over the ranks first.
        several: how ranks inside a process run; None: there is one in each.

    Returns:
        The results by rank, on rank 0; None elsewhere. An error ends every process of the job.

    Raises:
        LaunchError: the processes are not as many, or cannot have so many inside each.
    """
    inner, comm, inside = _start(ranks, checked, several is not None)
    # Python's own handler runs only between bytecodes: a rank blocked inside MPI would not hear Ctrl-C.
    on_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, signal.SIG_DFL) if on_main_thread else None
    try:
        results = several(body, inside, comm) if several else [body(comm)]
        if isinstance(comm, CheckedCommunicator):
            comm.finish()
        gathered = inner.gather_results(results)
        with the_watchdog().watch("the end of launch()"):
            if (board := the_watchdog().leave()) is not None:
                board.close()
            inner.close()
        return None if gathered is None else [result for part in gathered for result in part]
    except BaseException as error:
        told = on_rank(error, inner.rank, inner.size) if inside == 1 else error
        abort_with_traceback(rank_name(inner.rank, inside), told)
    finally:
        if previous is not None:
            signal.signal(signal.SIGINT, previous)


def run_hybrid(body: Callable[[Communicator], Any], ranks: int | None, checked: bool) -> list[Any] | None:
    """Lockstep ranks inside each process."""
    return run(body, ranks, checked, hybrid.run)


def run_stacked(body: Callable[[Communicator], Any], ranks: int | None, checked: bool) -> list[Any] | None:
    """Ranks stacked in each process; without mpirun, in this one."""
    if world_size() is None:
        return stacked.run(body, ranks or 1)
    return run(body, ranks, checked, stacked.run)


def _start(ranks: int | None, checked: bool, several: bool) -> tuple[MPICommunicator, Communicator, int]:
    """The processes' communicator, the same as ranks are to use it, and how many ranks are inside each process."""
    if (promised := world_size()) is not None:
        # Before any talk, of which a rank with another argument would not be part.
        _ranks_inside(ranks, promised, several)
    watchdog = the_watchdog()
    watchdog.begin(rank_name(world_rank()))
    world = start_mpi(watchdog)
    inside = _ranks_inside(ranks, world.size, several)
    watchdog.name = rank_name(world.rank, inside)
    end_all_on_uncaught_errors(watchdog.name)
    inner = MPICommunicator(world)
    comm: Communicator = inner
    if checked:
        with watchdog.watch("the start of launch()"):
            if on_one_machine(world):
                watchdog.world = Board(world, partial(rank_name, inside=inside))
        comm = CheckedCommunicator(inner, watchdog.world, inside)
    watchdog.calls = 0
    return inner, comm, inside


def _ranks_inside(ranks: int | None, processes: int, several: bool) -> int:
    inside, over = divmod(processes if ranks is None else ranks, processes)
    if inside < 1 or over or (inside > 1 and not several):
        multiple = ", or a multiple of it" if several else ""
        expected = f"{processes}, the number of processes that mpirun started{multiple}"
        do = f"Start it with mpirun -n {ranks}, or leave ranks out."
        raise LaunchError("ranks", got=ranks, expected=expected, do=do)
    return inside
