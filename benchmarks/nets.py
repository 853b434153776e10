"""The nets whose training steps are timed, the communicators they are timed with, and how ranks time something together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from syncbn_sim import nn, optim, train
from syncbn_sim.arrays import Array
from syncbn_sim.comm import Communicator
from syncbn_sim.comm.serial import SerialCommunicator
from syncbn_sim.comm.wrapper import Wrapper
from syncbn_sim.data.dataset import share
from syncbn_sim.experiments.tasks import TASKS, mlp

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

LR = 3e-3


class Raw(SerialCommunicator):
    """Nothing but MPI.Allreduce: no look at arguments, no watchdog, no comparison of calls."""

    def __init__(self, mpi_comm: Intracomm) -> None:
        super().__init__()
        from mpi4py import MPI

        self._comm, self._in_place = mpi_comm, MPI.IN_PLACE

    def allreduce(self, array: Any, op: str = "sum", out: Array | None = None) -> Array:
        """The sum over ranks."""
        result = np.empty_like(array) if out is None else out
        self._comm.Allreduce(self._in_place if result is array else array, result)
        return result


class Timed(Wrapper):
    """Tells waiting from talking: before each all-reduce a barrier, whose time is waiting (and a barrier's own talk)."""

    def __init__(self, inner: Communicator) -> None:
        super().__init__(inner)
        self.reset()

    def reset(self) -> None:
        """Forgets the seconds so far."""
        self.waited = self.talked = 0.0

    def _allreduce(self, array: Array, op: str) -> Array:
        start = time.perf_counter()
        self.inner.barrier()
        middle = time.perf_counter()
        result = self.inner.allreduce(array, op)
        self.waited += middle - start
        self.talked += time.perf_counter() - middle
        return result


class TaskNet:
    """The net and the data of "digits" or "requests", with the rows per rank that the main job has."""

    def __init__(self, task: str, comm: Communicator) -> None:
        self.task, self.rows = TASKS[task], TASKS[task].rows
        self.rank, self.size = comm.rank, comm.size
        self.data = share(partial(self.task.split, comm.size, self.rows, 0, "float32"), comm).train

    def stepper(self, layers: Communicator, gradients: Communicator, rows: int | None = None) -> Callable[[int], Array]:
        """A function that takes so many steps and returns the parameters, flat.

        Args:
            layers: what SyncBN talks over.
            gradients: what the sum of gradients talks over.
            rows: rows per step; default: this rank's share of the global batch. Given: the global batch.
        """
        inputs, width = self.data.x, self.data.x.shape[1]
        model = mlp(width, self.task.outputs, partial(nn.SyncBatchNorm, comm=layers), 0, "float32")
        loss, optimizer = self.task.loss(), optim.Adam(model.parameters(), LR)
        first, rows = (self.rank * self.rows, self.rows) if rows is None else (0, rows)
        done, batch = 0, self.rows * self.size

        def take(count: int) -> Array:
            nonlocal done
            for _ in range(count):
                start = done * batch % (len(inputs) - batch) + first
                x, y = inputs[start : start + rows], self.data.y[start : start + rows]
                train.step(model, loss, optimizer, gradients, x, y)
                done += 1
            return np.concatenate([p.data.ravel() for p in model.parameters()])

        return take


def mpi_of(comm: Communicator) -> Intracomm:
    """The MPI communicator below all wrappers."""
    while isinstance(comm, Wrapper):
        comm = comm.inner
    return comm.mpi_comm  # type: ignore[attr-defined]


def gather_quietly(mpi_comm: Intracomm) -> None:
    """A barrier in which ranks sleep: in a library's own they may spin, on cores that somebody else is being timed on."""
    request = mpi_comm.Ibarrier()
    while not request.Test():
        time.sleep(2e-3)


def together(comm: Communicator, call: Callable[[], object]) -> float:
    """Seconds until the last rank has returned from a call that all make at once. Collective."""
    mpi_comm = mpi_of(comm)
    gather_quietly(mpi_comm)
    mpi_comm.Barrier()
    start = time.perf_counter()
    call()
    return float(max(mpi_comm.allgather(time.perf_counter() - start)))


REST = 5e-3  # seconds after which another library's threads no longer spin


def alone(comm: Communicator, call: Callable[[], object]) -> float:
    """Seconds of a call on rank 0 while the others sleep; 0 on those. Collective."""
    mpi_comm, took = mpi_of(comm), 0.0
    gather_quietly(mpi_comm)
    if comm.rank == 0:
        time.sleep(REST)  # the others' last look at the barrier has come to its end
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        time.sleep(REST)
    gather_quietly(mpi_comm)
    return took


def repeated(call: Callable[[], object], count: int) -> Callable[[], object]:
    """A call that makes so many."""
    return lambda: [call() for _ in range(count)]


def how_many(comm: Communicator, call: Callable[[], object], seconds: float, most: int) -> int:
    """How many calls make a sample of so many seconds, 1 to `most`: on a busy machine a call can last 100 times as long. Collective."""
    took = min(together(comm, call) for _ in range(5))
    return int(comm.bcast(max(1, min(most, int(seconds / took)))))


def take_turns_together(
    comm: Communicator, calls: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds per call on rank 0, some calls after one another per round, the ways in another order in each round. Collective."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    count = how_many(comm, next(iter(calls.values())), 5e-3, 50)
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for place in rng.permutation(len(calls)):
            name = list(calls)[place]
            comm.barrier()
            start = time.perf_counter()
            for _ in range(count):
                calls[name]()
            times[name].append((time.perf_counter() - start) / count)
    return times
