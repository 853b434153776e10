"""Ranks as MPI processes, by mpi4py's buffer calls on a communicator of our own."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...arrays import Array
from ..base import Communicator
from . import messages
from .machines import crowd_one_machine
from .pipes import open_pipes
from .shared import SharedReduction
from .watchdog import the_watchdog

if TYPE_CHECKING:
    from mpi4py import MPI as mpi_types

    Intracomm = mpi_types.Intracomm

NAP = 1e-5  # seconds that a rank which waits for a message sleeps between looks


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
            pipes = open_pipes(self._comm, messages.push)
            self._shared = None if pipes is None else SharedReduction(self._comm, pipes)
            self._crowded = pipes is not None
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
            array = messages.apart(array, out)  # MPI takes either one memory or two that do not overlap
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
            self._comm.Allgatherv(messages.as_bytes(array), [received, sizes])
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
            self._comm.Bcast(messages.as_bytes(buffer), root)
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
        messages.post(self._comm, array, dest, tag)

    def _recv(self, source: int, tag: int) -> Array:
        with self._watchdog.watch("recv", f"from rank {source}, tag {tag}"):
            status = self._mpi.Status()
            found = self._comm.Improbe(source, tag, status) if self._crowded else self._comm.Mprobe(source, tag, status)
            while found is None:
                time.sleep(NAP)
                found = self._comm.Improbe(source, tag, status)
            message = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
            found.Recv(message)
        return messages.opened(message)

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
