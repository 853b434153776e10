"""From "started by mpirun" to "inside MPI_Init with everybody": the stretch in which a lost rank makes the others wait for ever."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LaunchError, MissingDependencyError

if TYPE_CHECKING:
    from mpi4py import MPI

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


def start_mpi() -> MPI.Intracomm:
    """Initialises MPI and returns a duplicate of its world.

    Raises:
        MissingDependencyError: mpi4py or an MPI library is not installed.
        LaunchError: mpirun belongs to another MPI.
        SystemExit: another process ended before it got here; that one's traceback tells why.
    """
    _wait_for_siblings()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            "MPI",
            got=f"{type(error).__name__}: {error}",
            expected="mpi4py and an MPI library",
            do="Install them with: pip install 'syncbn-sim[mpi]' (no root needed).",
        ) from error
    promised = world_size()
    if promised is not None and promised != MPI.COMM_WORLD.size:
        raise LaunchError(
            "mpirun",
            got=f"{promised} processes that each see a world of {MPI.COMM_WORLD.size}",
            expected="one world",
            do="This mpirun belongs to another MPI than mpi4py: use the one in the virtual environment's bin/.",
        )
    return MPI.COMM_WORLD.Dup()


def _wait_for_siblings() -> None:
    """Waits until every process that MPICH started on this machine is about to enter MPI_Init.

    MPICH does not notice a process that ends before MPI_Init, and MPI_Init waits for it for ever, deaf to
    signals handled by Python. So each process holds up a flag (an abstract Unix socket, which vanishes with it) and
    looks for those of its siblings; if one of them is gone without a flag, waiting is over. Only for direct children of MPICH's
    process manager on Linux, and for a minute at most (a sibling may be no program of ours); Open MPI ends the job by itself.
    """
    if "_flag" in globals():  # an earlier launch() in this process has been through here
        return
    parent = os.getppid()
    listing, manager = Path(f"/proc/{parent}/task/{parent}/children"), Path(f"/proc/{parent}/comm")
    if "MPI_LOCALNRANKS" not in os.environ or not listing.exists() or not manager.read_text().startswith("hydra"):
        return
    flag = socket.socket(socket.AF_UNIX)
    flag.bind(f"\0syncbn-sim-{parent}-{os.getpid()}")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        alive = [pid for pid in listing.read_text().split() if _is_running(pid)]
        if len(alive) < int(os.environ["MPI_LOCALNRANKS"]):
            os.write(
                2,
                f"rank {world_rank()}: another rank ended before launch(), so this one ends too. Read that rank's own message.\n".encode(),
            )
            raise SystemExit(1)
        flags = Path("/proc/net/unix").read_text()
        if all(f"@syncbn-sim-{parent}-{pid}\n" in flags for pid in alive):
            break
        time.sleep(0.02)
    globals()["_flag"] = flag  # held up until this process ends: a late sibling still looks for it


def _is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
