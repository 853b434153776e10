"""Ranks as MPI processes, by mpi4py's buffer calls on a communicator of our own."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from ..arrays import Array
from ..errors import CollectiveMismatchError, DataError
from .base import Communicator
from .shared import SharedReduction, lowest, open_shared
from .watchdog import GRACE, end_job, say, the_watchdog

if TYPE_CHECKING:
    from mpi4py import MPI as mpi_types

    Intracomm = mpi_types.Intracomm
    Request = mpi_types.Request

NAP = 1e-5  # seconds that a rank which waits for a message sleeps between looks


_unfinished: list[tuple[Request, Array]] = []  # messages of this process that have not left yet, with what they carry


def _push() -> bool:
    """Moves messages on; whether there are any left."""
    if _unfinished:
        _unfinished[:] = [(request, kept) for request, kept in _unfinished if not request.Test()]
    return bool(_unfinished)


class MPICommunicator(Communicator):
    """A duplicate of an MPI communicator, so that our messages never meet anybody else's.

    Arrays travel as buffers; only small objects (shapes, a broadcast configuration) are pickled.
    Where ranks outnumber the cores of the one machine they are on, they sum in rank order, through memory that they share
    (`SharedReduction`). Elsewhere sums repeat themselves bit for bit on one machine and layout, but in the library's order.
    """

    backend = "mpi"

    def __init__(self, mpi_comm: Intracomm, crowded: bool | None = None) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = self.mpi_comm = mpi_comm
        self.rank, self.size = mpi_comm.rank, mpi_comm.size
        self._watchdog = the_watchdog()
        self._ops = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}
        self._crowded = bool(crowded)
        self._shared: SharedReduction | None = None
        self._groups: list[MPICommunicator] = []
        # A group opens its meeting when it first talks, if ever; the world now, while all are here, so that nobody waits awake.
        if crowded is None:
            with self._watchdog.watch("the start of launch()"):
                self._crowded = crowd_one_machine(mpi_comm)
                self._meeting()

    @property
    def members(self) -> list[int]:
        """The numbers of its ranks among all."""
        mine, world = self._comm.Get_group(), self._mpi.COMM_WORLD.Get_group()
        return [int(rank) for rank in mine.Translate_ranks(None, world)]

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
        self._reduce(array, op, result)
        return result

    def _allreduce_into(self, array: Array, op: str, out: Array) -> None:
        if out is not array and np.may_share_memory(
            array, out
        ):  # MPI takes either one memory or two that do not overlap
            out[...] = array
            array = out
        self._reduce(array, op, out)

    def _reduce(self, array: Array, op: str, out: Array) -> None:
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
        self._groups.append(MPICommunicator(cast("Intracomm", group), self._crowded))
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
    crowded = here.size == comm.size > cores
    here.Free()
    return bool(lowest(comm, crowded))


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


def end_all_on_uncaught_errors(name: str) -> None:
    """From now on an uncaught error of this process ends the job: it would wait in MPI_Finalize for the others, and they for it."""
    sys.excepthook = lambda kind, error, trace: abort_with_traceback(name, error)


def abort_with_traceback(name: str, error: BaseException) -> NoReturn:
    """Prints this rank's traceback, each line with the rank's name, and ends every process of the job.

    Of a mismatch that several ranks have found, one tells; the others speak only if that one should not.
    """
    if isinstance(error, CollectiveMismatchError) and error.told_elsewhere:
        time.sleep(GRACE)
    # What is wrong with a user's file needs no stack; everything else does.
    told = str(error) if isinstance(error, DataError) else "".join(traceback.format_exception(error))
    say("\n".join(f"[{name}] {line}" for line in told.splitlines()))
    time.sleep(0.1)  # the process manager passes our words on in its own time, and Abort could overtake them
    end_job()
