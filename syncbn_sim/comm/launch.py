"""launch(): the same function on any number of ranks, whatever a rank is made of."""

from __future__ import annotations

import contextvars
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from ..errors import ArgumentError, LaunchError
from .base import Communicator
from .board import Board
from .calls import on_rank, rank_name
from .checked import CheckedCommunicator
from .hybrid import HybridCommunicator
from .lockstep import run as run_lockstep
from .mpi import MPICommunicator, abort_with_traceback, end_all_on_uncaught_errors
from .mpi_start import start_mpi, world_rank, world_size
from .serial import SerialCommunicator
from .threads import Group, ThreadCommunicator, World
from .watchdog import the_watchdog

BACKENDS = ("auto", "serial", "threads", "lockstep", "mpi", "hybrid")


def launch(
    fn: Callable[..., Any],
    ranks: int | None = None,
    backend: str = "auto",
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    checked: bool = True,
) -> list[Any] | None:
    """Runs fn(comm, *args, **kwargs) on every rank and collects what it returns.

    Args:
        fn: called once a rank, with that rank's communicator first.
        ranks: how many; default: the world's size under mpirun, else 1.
        backend: "serial", "threads", "lockstep" (thousands of ranks taking turns in this thread), "mpi", "hybrid"
            (lockstep ranks inside MPI processes), or "auto": under mpirun mpi, or hybrid for more ranks than processes;
            else threads (serial for one rank).
        args: further positional arguments.
        kwargs: further keyword arguments.
        checked: over MPI, compare every collective over the ranks first and name a mismatch; off for
            benchmarks, where a watchdog still ends a hung job. Threads always check.

    A hung job over MPI is ended by a watchdog (SYNCBN_SIM_WATCHDOG: after how many seconds). On ranks in one process nothing can
    wait for ever but for a rank that computes for ever, which nobody ends but you: Ctrl-C shows where it is. A watchdog there would
    end whoever stops in a debugger, or reads data for long.

    Returns:
        The results by rank; over MPI on rank 0 only, None elsewhere.

    Raises:
        Whatever the first failing rank raised, with that rank's traceback. Over MPI the traceback is printed
        and every process of the job ends with exit code 1.
        ArgumentError, LaunchError: the ranks cannot be started as asked.
    """
    chosen, size = _choose(backend, ranks)
    with _one_blas_thread():
        if chosen == "serial":
            return _launch_serial(fn, args, kwargs or {})
        if chosen == "lockstep":
            return run_lockstep(fn, size, args, kwargs)
        if chosen == "threads":
            return _launch_threads(fn, size, args, kwargs or {})
        return _launch_mpi(fn, chosen, ranks, args, kwargs or {}, checked)


def _choose(backend: str, ranks: int | None) -> tuple[str, int]:
    if backend not in BACKENDS:
        raise ArgumentError("backend", got=repr(backend), expected=", ".join(BACKENDS), do='Leave it out for "auto".')
    if ranks is not None and (isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1):
        raise ArgumentError(
            "ranks", got=repr(ranks), expected="a whole number of at least 1", do="One rank is a serial run."
        )
    world = world_size()
    if backend == "auto":
        backend = "hybrid" if world is not None else "serial" if ranks in (None, 1) else "threads"
    if backend == "serial" and ranks not in (None, 1):
        raise ArgumentError(
            "ranks", got=ranks, expected='1 with backend "serial"', do='Use backend "threads" for more.'
        )
    return backend, ranks or 1


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """One BLAS thread a rank: ranks share the cores already, and the bits then do not depend on the machine."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # NumPy alone must be enough; then the environment decides
        limit: Any = nullcontext()
    else:
        limit = threadpool_limits(1)
    with limit:
        yield


def _launch_serial(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    try:
        return [fn(SerialCommunicator(), *args, **kwargs)]
    except SystemExit as error:
        raise on_rank(error, 0, 1) from error


def _launch_threads(fn: Callable[..., Any], size: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    world, group = World(size), Group(list(range(size)))
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        comm = ThreadCommunicator(world, group, rank)
        try:
            results[rank] = fn(comm, *args, **kwargs)
            world.finish(rank, comm.calls)
        except BaseException as error:
            with world.lock:
                world.fail(rank, on_rank(error, rank, size))  # or, if this rank was stopped by an error, that one stays

    # In a copy of the caller's context, so that settings such as np.errstate hold on the ranks too.
    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(run, rank), name=f"rank-{rank}", daemon=True)
        for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive() and world.failure is None:
                thread.join(0.2)
    except KeyboardInterrupt as error:
        with world.lock:
            world.fail(None, error)
        raise
    if world.failure is not None:
        deadline = time.monotonic() + 1.0  # they stop at their next call; one deep in its own work is left behind
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise world.failure[1]
    return results


def _ranks_inside(backend: str, ranks: int | None, processes: int) -> int:
    inside, over = divmod(processes if ranks is None else ranks, processes)
    if inside < 1 or over or (backend == "mpi" and inside > 1):
        multiple = "" if backend == "mpi" else ", or a multiple of it"
        raise LaunchError(
            "ranks",
            got=ranks,
            expected=f"{processes}, the number of processes that mpirun started{multiple}",
            do=f"Start it with mpirun -n {ranks}, or leave ranks out.",
        )
    return inside


def _start_mpi(backend: str, ranks: int | None, checked: bool) -> tuple[MPICommunicator, Communicator, int]:
    """The processes' communicator, the same as ranks are to use it, and how many ranks are inside each process."""
    if (promised := world_size()) is not None:
        _ranks_inside(
            backend, ranks, promised
        )  # before any talk, of which a rank with another argument would not be part
    watchdog = the_watchdog()
    watchdog.begin(rank_name(world_rank()))
    world = start_mpi(watchdog)
    inside = _ranks_inside(backend, ranks, world.size)
    watchdog.name = rank_name(world.rank, inside)
    end_all_on_uncaught_errors(watchdog.name)
    inner = MPICommunicator(world)
    comm: Communicator = inner
    if checked:
        with watchdog.watch("the start of launch()"):
            if Board.reaches_all_of(world):
                watchdog.world = Board(world, partial(rank_name, inside=inside))
        comm = CheckedCommunicator(inner, watchdog.world, inside)
    watchdog.calls = 0
    return inner, comm, inside


def _launch_mpi(
    fn: Callable[..., Any],
    backend: str,
    ranks: int | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    checked: bool,
) -> list[Any] | None:
    inner, comm, inside = _start_mpi(backend, ranks, checked)
    # Python's own handler runs only between bytecodes: a rank blocked inside MPI would not hear Ctrl-C.
    previous = (
        signal.signal(signal.SIGINT, signal.SIG_DFL) if threading.current_thread() is threading.main_thread() else None
    )
    try:
        if inside == 1:
            results = [fn(comm, *args, **kwargs)]
        else:
            results = run_lockstep(fn, inside, args, kwargs, view=lambda rank: HybridCommunicator(rank, comm))
        if isinstance(comm, CheckedCommunicator):
            comm.finish()
        gathered = inner.gather_results(results)
        with the_watchdog().watch("the end of launch()"):
            if (board := the_watchdog().leave()) is not None:
                board.close()
            inner.close()
        return None if gathered is None else [result for part in gathered for result in part]
    except BaseException as error:
        abort_with_traceback(
            rank_name(inner.rank, inside), on_rank(error, inner.rank, inner.size) if inside == 1 else error
        )
    finally:
        if previous is not None:
            signal.signal(signal.SIGINT, previous)
