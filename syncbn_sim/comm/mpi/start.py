"""From "started by mpirun" to "inside MPI_Init with everybody": the stretch in which a lost rank makes the others wait for ever."""

from __future__ import annotations

import faulthandler
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import LaunchError, MissingDependencyError
from .ending import GRACE, say
from .watchdog import Watchdog

if TYPE_CHECKING:
    from mpi4py import MPI

LOOK = 0.02  # seconds between looks for siblings
# What the process managers (MPICH's hydra, Open MPI's prterun, Slurm's srun) tell each process they start.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")


def world_size() -> int | None:
    """Number of processes mpirun has started, or None where there was no mpirun. Starts nothing.

    An `srun` of a single task is taken for an ordinary shell.
    """
    for name in _SIZES:
        if name in os.environ and not (name.startswith("SLURM") and os.environ[name] == "1"):
            return int(os.environ[name])
    return None


def world_rank() -> int:
    """This process's rank as mpirun announced it, 0 without mpirun. For messages before MPI has started."""
    if world_size() is None:
        return 0
    return next((int(os.environ[name]) for name in _RANKS if name in os.environ), 0)


def start_mpi(watchdog: Watchdog) -> MPI.Intracomm:
    """Initialises MPI and returns a duplicate of its world.

    Raises:
        MissingDependencyError: mpi4py or an MPI library is not installed.
        LaunchError: mpirun belongs to another MPI.
        SystemExit: another process ended before it got here; that one's traceback tells why.
    """
    # Where it is, this process has been through MPI_Init with all others.
    if "mpi4py.MPI" not in sys.modules:
        _wait_for_siblings(watchdog)
    # The import runs MPI_Init, which lets no other thread of Python run, so no watchdog either; this one is none of Python's.
    faulthandler.dump_traceback_later(watchdog.patience, exit=True, file=2)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        got, expected = f"{type(error).__name__}: {error}", "mpi4py and an MPI library"
        do = "Install them with: pip install 'syncbn-sim[mpi]' (no root needed)."
        raise MissingDependencyError("MPI", got=got, expected=expected, do=do) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    promised = world_size()
    if promised is not None and promised != MPI.COMM_WORLD.size:
        got = f"{promised} processes that each see a world of {MPI.COMM_WORLD.size}"
        do = "This mpirun belongs to another MPI than mpi4py: use the one in the virtual environment's bin/."
        raise LaunchError("mpirun", got=got, expected="one world", do=do)
    with watchdog.watch("the start of launch(), which every rank must reach"):
        world = MPI.COMM_WORLD.Dup()
        world.Barrier()  # so that every process has opened what the next line takes the name of
    _take_names_away()
    return world


def _take_names_away() -> None:
    """Removes the name of the memory that MPICH has made for this job, which every process of the machine has opened by now.

    The memory goes with its last process then, however that ends. MPICH removes the name at an orderly end only: each job that failed
    left 2 to 8 MB in /dev/shm, until there was no room for a healthy one.
    """
    maps = Path("/proc/self/maps")
    mapped = maps.read_text() if maps.exists() else ""
    for name in set(re.findall(r" (/dev/shm/mpich_shm_[0-9a-f]+_[0-9]+)$", mapped, re.MULTILINE)):
        Path(name).unlink(missing_ok=True)


def _wait_for_siblings(watchdog: Watchdog) -> None:
    """Waits until every process that MPICH started on this machine is about to enter MPI_Init.

    MPICH does not notice a process that ends before MPI_Init, and MPI_Init waits for it for ever, deaf to
    signals handled by Python. So each process holds up a flag (an abstract Unix socket, which vanishes with it) and
    looks for those of its siblings; if one of them is gone without a flag, waiting is over. Only for direct children of MPICH's
    process manager on Linux, and for a minute at most (a sibling may be no program of ours); Open MPI ends the job by itself.
    """
    if not _sees_siblings():
        return
    flag = socket.socket(socket.AF_UNIX)
    flag.bind(f"\0syncbn-sim-{os.getppid()}-{os.getpid()}")
    globals()["_flag"] = flag  # held up until this process ends: a late sibling still looks for it
    deadline = time.monotonic() + min(60.0, watchdog.patience)
    while time.monotonic() < deadline:
        gone, flags, alive = _siblings()
        if gone:
            ended = "another rank ended before launch(), so this one ends too"
            say(f"{watchdog.name}: {ended}. Read that rank's own message.")
            raise SystemExit(1)
        if flags == alive:
            return
        time.sleep(LOOK)
    waiting = f"Waiting {watchdog.patience:g} s more (SYNCBN_SIM_WATCHDOG)"
    say(f"{watchdog.name}: not every rank has come to the start of launch(). {waiting}.")


def is_awaited() -> bool:
    """Whether a sibling waits at the start of launch() for this process, which does not come there; False once one has ended before that.

    True, after a while, where nothing of that is seen: by then an mpirun whose processes cannot see one another has ended this one, if
    another one has failed.
    """
    sees = _sees_siblings()
    deadline = time.monotonic() + (10 * GRACE if sees else GRACE)
    while time.monotonic() < deadline:
        gone, flags, _ = _siblings() if sees else (False, set(), set())
        if flags or gone:
            return bool(flags)
        time.sleep(LOOK)
    return True


def _sees_siblings() -> bool:
    """Whether this is a direct child of MPICH's process manager, on Linux, which lists its children."""
    parent = os.getppid()
    listing, manager = Path(f"/proc/{parent}/task/{parent}/children"), Path(f"/proc/{parent}/comm")
    return "MPI_LOCALNRANKS" in os.environ and listing.exists() and manager.read_text().startswith("hydra")


def _siblings() -> tuple[bool, set[str], set[str]]:
    """Whether one of this machine's processes has ended, which of them hold up a flag, and which run."""
    parent = os.getppid()
    alive = set(filter(_is_running, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
    held = set(re.findall(rf"@syncbn-sim-{parent}-(\d+)$", Path("/proc/net/unix").read_text(), re.MULTILINE))
    return len(alive) < int(os.environ["MPI_LOCALNRANKS"]), alive & held, alive


def _is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
