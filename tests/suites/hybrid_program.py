"""Runs under mpirun with several lockstep ranks in each process: the collective contract, equivalence, and fifty steps."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from suites import contract, equivalence
from suites.training import fifty_steps

from syncbn_sim.comm import Communicator, launch, schedules
from syncbn_sim.errors import ArgumentError, CommunicatorError

MESSAGES = {"check_point_to_point", "check_messages_wait_for_nobody", "check_messages_are_told_apart"}
REFUSED = MESSAGES | {"check_split"}  # split by rank % 2 cuts through processes


def check_split_inside_and_along(comm: Communicator, processes: int) -> None:
    inside = comm.size // processes
    own = comm.split(comm.rank // inside)
    assert own is not None
    assert (own.rank, own.size) == (comm.rank % inside, inside)
    assert own.allreduce(np.array([float(comm.rank)]))[0] == sum(
        range(comm.rank // inside * inside, (comm.rank // inside + 1) * inside)
    )
    pairs = comm.split(comm.rank // 2)
    assert pairs is not None
    assert pairs.allreduce(np.array([float(comm.rank)]))[0] == 4 * (comm.rank // 2) + 1
    everybody = comm.split(0)
    assert everybody is not None
    assert everybody.allreduce(np.ones(1))[0] == comm.size
    assert (comm.split(None if comm.rank >= inside else 0) is None) == (comm.rank >= inside)
    backwards = comm.split(comm.rank // inside, key=-comm.rank)
    assert backwards is not None
    assert backwards.rank == inside - 1 - comm.rank % inside
    assert [int(r) % inside for r in backwards.allgather(np.array(comm.rank))] == [*range(inside)][::-1]
    if processes > 1:
        with pytest.raises(ArgumentError, match="in rank order"):
            comm.split(0, key=-comm.rank)
        with pytest.raises(ArgumentError, match="whole processes"):
            comm.split(comm.rank % 2)


def program(comm: Communicator, processes: int) -> tuple[int, dict[str, np.ndarray]]:
    for name, check in contract.CHECKS.items():
        if name not in REFUSED:
            check(comm)
    check_split_inside_and_along(comm, processes)
    with pytest.raises(CommunicatorError, match="lockstep"):
        comm.send(np.ones(1), 0)
    with pytest.raises(CommunicatorError, match="collectives only"):
        schedules.using(comm, "ring").allreduce(np.ones(4))
    for name, check in equivalence.CHECKS.items():
        if not name.startswith("two_groups"):
            check(comm)
    return comm.rank, fifty_steps(comm)


if __name__ == "__main__":
    found = launch(program, int(sys.argv[2]), args=(int(sys.argv[3]),))
    if found is not None:
        np.savez(sys.argv[1], **found[0][1])
        print(json.dumps([rank for rank, _ in found]))
