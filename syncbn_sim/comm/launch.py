"""launch(): the same function on any number of ranks, whatever a rank is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from ..errors import ArgumentError, LaunchError
from . import lockstep, serial, threads
from .base import Communicator
from .mpi.run import run as run_mpi
from .mpi.run import run_hybrid, run_stacked
from .mpi.start import world_size
from .stretches import stretched

# run(body, ranks, checked) calls body(comm) on each of so many ranks (None: as many as there are, else 1), and returns the results by rank.
Backend = Callable[[Callable[[Communicator], Any], int | None, bool], list[Any] | None]

BACKENDS: dict[str, Backend] = {
    "serial": serial.run,
    "threads": threads.run,
    "lockstep": lockstep.run,
    "stacked": run_stacked,
    "mpi": run_mpi,
    "hybrid": run_hybrid,
}


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
        fn: called once per rank, with that rank's communicator first.
        ranks: how many; default: the world's size under mpirun, else 1.
        backend: "serial", "threads", "lockstep" (thousands of ranks taking turns in this thread), "stacked" (all ranks of a process
            as one array, fn called once for them: fast, for training that leaves talk to `train` and `nn`; under mpirun inside
            each process), "mpi", "hybrid" (lockstep ranks inside MPI processes), or "auto": under mpirun mpi, or hybrid for more
            ranks than processes; else threads (serial for one rank). Each is a row of `BACKENDS`, to which a new one is added.
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
    if backend not in ("auto", *BACKENDS):
        expected = ", ".join(("auto", *BACKENDS))
        raise ArgumentError("backend", got=repr(backend), expected=expected, do='Leave it out for "auto".')
    if ranks is not None and (isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1):
        raise ArgumentError(
            "ranks", got=repr(ranks), expected="a whole number of at least 1", do="One rank is a serial run."
        )
    if backend == "auto":
        backend = "hybrid" if world_size() is not None else "serial" if ranks in (None, 1) else "threads"

    def body(comm: Communicator) -> Any:
        return fn(comm, *args, **(kwargs or {}))

    with (
        _one_blas_thread(),
        stretched(None),
    ):  # whoever launches ranks from stacked ones has not said whose rows theirs are
        results = BACKENDS[backend](body, ranks, checked)
    if results is not None and not (isinstance(results, list) and len(results) == (ranks or len(results))):
        raise LaunchError(
            f'backend "{backend}"',
            got=f"a {type(results).__name__}" + (f" of {len(results)}" if isinstance(results, list) else ""),
            expected=f"a list of {ranks or 'the'} results, one per rank",
            do="Its run(body, ranks, checked) must start so many ranks, and return what body(comm) returns on each.",
        )
    return results


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """One BLAS thread per rank: ranks share the cores already, and the bits then do not depend on the machine."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # NumPy alone must be enough; then the environment decides
        limit: Any = nullcontext()
    else:
        limit = threadpool_limits(1)
    with limit:
        yield
