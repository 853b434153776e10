"""Runs under mpirun with ranks stacked in each process: what they hold and refuse, groups, and fifty steps of every norm."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
from suites import stacked

from syncbn_sim.comm import Communicator, SerialCommunicator, launch
from syncbn_sim.errors import ArgumentError, CommunicatorError


def everybodys(comm: Communicator, found: dict) -> dict:
    """The same with what was found by rank of all processes."""
    return {**found, "by rank": np.concatenate(comm.holders.allgather(found["by rank"]))}


def check_what_they_are(comm: Communicator) -> None:
    processes, here = comm.holders.size, comm.holders.rank
    held = stacked.RANKS // processes
    assert (comm.rank, comm.size, comm.backend) == (here * held, stacked.RANKS, "stacked")
    assert comm.ranks == range(here * held, (here + 1) * held)
    assert comm.holders.allreduce(np.array([1.0]))[0] == processes
    with pytest.raises(CommunicatorError, match="allreduce of a rank by itself"):
        comm.allreduce(np.ones(1))


def check_groups(comm: Communicator) -> None:
    """Inside processes, along them, and neither."""
    alone = comm.split([*comm.ranks])
    assert alone.holders.size == 1
    whole = comm.split([3] * len(comm.ranks))
    assert (whole.size, whole.holders.size, whole.ranks) == (comm.size, comm.holders.size, comm.ranks)
    with comm.holds([[]] * len(comm.ranks)):
        assert whole.row_groups() is None
    if comm.holders.size > 1:
        with pytest.raises(ArgumentError, match="no stretch of one process"):
            comm.split([rank % 2 for rank in comm.ranks])
        with pytest.raises(
            ArgumentError, match="no stretch of one process"
        ):  # on both, though only one of them has two colors
            comm.split([0, 1] if comm.holders.rank else [0, 0])
    for size in (1, 2, 4):
        found = stacked.trained(comm.split([r // size for r in comm.ranks]), "sync", "uneven", "adam", comm)
        expected = launch(
            lambda c, s=size: stacked.trained(c.split(c.rank // s), "sync", "uneven", "adam", c),
            stacked.RANKS,
            "lockstep",
        )
        stacked.compare(everybodys(comm, found), expected)


def program(comm: Communicator) -> list[str]:
    check_what_they_are(comm)
    check_groups(comm)
    done = []
    for number, (norm, deal, optimizer) in enumerate(stacked.CASES):
        train = partial(stacked.trained, norm=norm, deal=deal, optimizer=optimizer)
        found, again = train(comm), train(comm)
        assert all((found[name] == again[name]).all() for name in found)
        stacked.compare(everybodys(comm, found), launch(train, stacked.RANKS, "lockstep"))
        done.append(str(number))
    return done


if __name__ == "__main__":
    assert SerialCommunicator().ranks == range(1)
    found = launch(program, stacked.RANKS, "stacked")
    if found is not None:
        print(len(found), "results,", *found[0], "equal", file=sys.stdout)
