"""Ranks as MPI processes, by mpi4py's buffer calls on a communicator of our own."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from ..arrays import Array
from ..errors import CollectiveMismatchError, DataError
from .base import Communicator
from .calls import code_lines
from .shared import SharedReduction, open_shared

if TYPE_CHECKING:
    from mpi4py import MPI as mpi_types

    Intracomm = mpi_types.Intracomm
    Request = mpi_types.Request

PATIENCE = 300.0  # seconds; a job may well load data on one rank for minutes
NAP = 1e-5  # seconds that a rank which waits for a message sleeps between looks
GRACE = 2.0  # seconds in which the other ranks' watchdogs can speak before the job is ended


_unfinished: list[tuple[Request, Array]] = []  # messages of this process that have not left yet, with what they carry


def _push() -> bool:
    """Moves messages on; whether there are any left."""
    if _unfinished:
        _unfinished[:] = [(request, kept) for request, kept in _unfinished if not request.Test()]
    return bool(_unfinished)


class Watchdog:
    """Ends a hung job: a rank that waits in MPI for longer than `patience` seconds says in which call, and aborts.

    The environment variable SYNCBN_SIM_WATCHDOG sets the seconds (default 300). A blocked MPI call cannot be interrupted,
    so a thread has to look on; it reads the blocked thread's stack only then.
    """

    def __init__(self, rank: int, abort: Callable[[], None]) -> None:
        self.rank, self.abort = rank, abort
        self.patience = float(os.environ.get("SYNCBN_SIM_WATCHDOG", PATIENCE))
        self.calls = 0
        self.last: tuple[object, ...] = ("no call yet",)
        self.since: float | None = None
        self.thread_id = threading.get_ident()
        threading.Thread(target=self._look_on, daemon=True, name="mpi-watchdog").start()

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
                break
        frame = sys._current_frames().get(self.thread_id)
        say(
            f"rank {self.rank}: waiting for {self.patience:g} s in {' '.join(map(str, self.last))} (call {self.calls}) "
            f"at {code_lines(frame)}. "
            "Ranks that say nothing here are computing or gone. SYNCBN_SIM_WATCHDOG sets the seconds."
        )
        time.sleep(GRACE)
        self.abort()


def say(text: str) -> None:
    """Writes whole lines to stderr in one call, so that lines of several ranks do not mix."""
    os.write(2, (text.rstrip() + "\n").encode())


class MPICommunicator(Communicator):
    """A duplicate of an MPI communicator, so that our messages never meet anybody else's.

    Arrays travel as buffers; only small objects (shapes, a broadcast configuration) are pickled.
    Where ranks outnumber the cores of the one machine they are on, they sum in rank order, through memory that they share
    (`SharedReduction`). Elsewhere sums repeat themselves bit for bit on one machine and layout, but in the library's order.
    """

    backend = "mpi"

    def __init__(self, mpi_comm: Intracomm, watchdog: Watchdog | None = None, crowded: bool | None = None) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = self.mpi_comm = mpi_comm
        self.rank, self.size = mpi_comm.rank, mpi_comm.size
        self._watchdog = watchdog or Watchdog(self.rank, lambda: MPI.COMM_WORLD.Abort(1))
        self._ops = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}
        self._crowded = crowd_one_machine(mpi_comm) if crowded is None else crowded
        self._shared: SharedReduction | None = None
        self._groups: list[MPICommunicator] = []
        # A group opens its meeting when it first talks, if ever; the world now, while all are here, so that nobody waits awake.
        if crowded is None:
            self._meeting()

    def _meeting(self) -> SharedReduction | None:
        """Where ranks crowd: what they meet in, asleep. Collective."""
        if self._shared is None and self._crowded and self.size > 1:
            self._shared = open_shared(self._comm, _push)
            self._crowded = self._shared is not None
        return self._shared

    def _arrive(self) -> None:
        """Where ranks crowd: lets all of them arrive, so that the blocking call that follows need not wait long for any."""
        if meeting := self._meeting():
            meeting.meet()

    def _allreduce(self, array: Array, op: str) -> Array:
        result = np.empty_like(array)
        self._allreduce_into(array, op, result)
        return result

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        with self._watchdog.watch("allreduce", op, array.dtype, array.shape):
            if meeting := self._meeting():
                meeting.allreduce(array, op, out)
                return
            if op != "sum" and array.dtype.kind == "f":
                # MPI leaves open what the larger of NaN and a number is, and ranks then differ; NumPy says NaN.
                unknown = np.isnan(array).astype(np.int64)
                self._comm.Allreduce(self._mpi.IN_PLACE, unknown, self._mpi.MAX)
            self._comm.Allreduce(self._mpi.IN_PLACE if out is array else array, out, self._ops[op])
            if op != "sum" and array.dtype.kind == "f":
                out[unknown > 0] = np.nan

    def _allgather(self, array: Array) -> list[Array]:
        with self._watchdog.watch("allgather", array.dtype, array.shape):
            self._arrive()
            kinds = self._comm.allgather((array.dtype.str, array.shape))
            sizes = [np.dtype(d).itemsize * int(np.prod(s)) for d, s in kinds]
            received = np.empty(sum(sizes), np.uint8)
            self._comm.Allgatherv(as_bytes(array), [received, sizes])
        parts = np.split(received, np.cumsum(sizes)[:-1])
        return [part.copy().view(d).reshape(s) for part, (d, s) in zip(parts, kinds, strict=True)]

    def _bcast(self, value: Any, root: int) -> Any:
        with self._watchdog.watch("bcast", f"root {root}"):
            self._arrive()
            is_array = isinstance(value, np.ndarray) and not value.dtype.hasobject
            kind = (value.dtype.str, value.shape) if is_array else None
            kind, small = self._comm.bcast((kind, None if is_array else value) if self.rank == root else None, root)
            if kind is None:
                return copy.deepcopy(small) if self.rank == root else small
            buffer = np.array(value, order="C") if self.rank == root else np.empty(kind[1], kind[0])
            self._comm.Bcast(as_bytes(buffer), root)
            return buffer

    def _barrier(self) -> None:
        with self._watchdog.watch("barrier"):
            if meeting := self._meeting():
                meeting.meet()
            else:
                self._comm.Barrier()

    def _split(self, color: int | None, key: int) -> Communicator | None:
        with self._watchdog.watch("split"):
            self._arrive()
            group = self._comm.Split(self._mpi.UNDEFINED if color is None else color, key)
        if color is None:
            return None
        self._groups.append(MPICommunicator(cast("Intracomm", group), self._watchdog, self._crowded))
        return self._groups[-1]

    def _send(self, array: Array, dest: int, tag: int) -> None:
        # A blocking Send returns early for small messages only: two ranks that send to each other first would hang above some size.
        _push()
        message = np.concatenate([_header(array), as_bytes(array)])
        _unfinished.append((self._comm.Isend(message, dest, tag), message))

    def _recv(self, source: int, tag: int) -> Array:
        with self._watchdog.watch("recv", f"from rank {source}, tag {tag}"):
            status = self._mpi.Status()
            found = self._comm.Improbe(source, tag, status) if self._crowded else self._comm.Mprobe(source, tag, status)
            while found is None:
                time.sleep(NAP)
                found = self._comm.Improbe(source, tag, status)
            message = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
            found.Recv(message)
        return _parse(message)

    def close(self) -> None:
        """Frees what the ranks share; whoever talks on does so by MPI's own calls. Collective."""
        for group in self._groups:
            group.close()
        if self._shared:
            self._shared.close()
        self._shared, self._crowded = None, False

    def gather_results(self, result: Any) -> list[Any] | None:
        """Collects what each rank's function returned on rank 0; the last thing that launch() does."""
        with self._watchdog.watch("the end of launch: its function has returned, others have not"):
            self._arrive()
            return self._comm.gather(result, 0)


def crowd_one_machine(comm: Intracomm) -> bool:
    """Whether all ranks share one machine, and are more than the cores that they may use there together. Collective."""
    from mpi4py import MPI

    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = len(set().union(*here.allgather(mine)))  # each rank may be bound to a core of its own
    crowded = here.size == comm.size > cores and hasattr(os, "mkfifo")
    here.Free()
    return bool(comm.allreduce(crowded, MPI.LAND))


def as_bytes(array: Array) -> Array:
    """The array's memory as bytes, without copying."""
    return array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)


def _header(array: Array) -> Array:
    kind = pickle.dumps((array.dtype.str, array.shape))
    return np.frombuffer(len(kind).to_bytes(4, "little") + kind, np.uint8)


def _parse(message: Array) -> Array:
    end = 4 + int.from_bytes(message[:4].tobytes(), "little")
    dtype, shape = pickle.loads(message[4:end].tobytes())
    return message[end:].copy().view(dtype).reshape(shape)


def end_all_on_uncaught_errors(rank: int) -> None:
    """From now on an uncaught error of this process ends the job: it would wait in MPI_Finalize for the others, and they for it."""
    sys.excepthook = lambda kind, error, trace: abort_with_traceback(rank, error)


def abort_with_traceback(rank: int, error: BaseException) -> NoReturn:
    """Prints this rank's traceback, each line with its rank, and ends every process of the job.

    Of a mismatch that several ranks have found, one tells; the others speak only if that one should not.
    """
    from mpi4py import MPI

    if isinstance(error, CollectiveMismatchError) and error.told_elsewhere:
        time.sleep(GRACE)
    # What is wrong with a user's file needs no stack; everything else does.
    told = str(error) if isinstance(error, DataError) else "".join(traceback.format_exception(error))
    say("\n".join(f"[rank {rank}] {line}" for line in told.splitlines()))
    time.sleep(0.1)  # the process manager passes our words on in its own time, and Abort could overtake them
    MPI.COMM_WORLD.Abort(1)
    os._exit(1)  # Abort may return before it has ended this process, and nobody above should speak again
