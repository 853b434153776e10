"""Runs under mpirun: all the suites on this number of ranks, one JSON object {check: "" or what went wrong} on stdout."""

from __future__ import annotations

import json
import sys
import traceback

import numpy as np
from suites import contract, equivalence
from suites.training import fifty_steps

from syncbn_sim.comm import Communicator, launch
from syncbn_sim.comm.mpi import communicator
from syncbn_sim.comm.wrapper import Wrapper


def program(comm: Communicator) -> None:
    report = {}
    for suite, checks in (("contract", contract.CHECKS), ("equivalence", equivalence.CHECKS)):
        for name, check in checks.items():
            try:
                check(comm)
                problem = ""
            except (AssertionError, pytest_failed) as error:
                problem = "".join(traceback.format_exception(error))
            report[f"{suite}:{name}"] = "".join(
                p.tobytes().decode() for p in comm.allgather(np.frombuffer(problem.encode(), np.uint8))
            )
    states = [fifty_steps(comm) for _ in range(2)]
    same = all((states[0][k] == states[1][k]).all() for k in states[0])
    report["bits repeat"] = "" if same else f"rank {comm.rank}: two runs differ"
    assert isinstance(comm, Wrapper)
    report["shared"] = bool(comm.inner._shared)
    if comm.rank == 0:
        np.savez(sys.argv[1], **states[0])
        print(json.dumps(report))


if __name__ == "__main__":
    import pytest

    pytest_failed = pytest.fail.Exception
    communicator.crowd_one_machine = lambda comm: sys.argv[2:] == ["crowded"]
    launch(program)
