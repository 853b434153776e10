"""Lockstep ranks inside MPI processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import run_mpi
from suites.training import fifty_steps

from syncbn_sim.comm import launch


@pytest.mark.parametrize("processes", [1, 2])
def test_ranks_inside_processes(processes: int, tmp_path: Path) -> None:
    state = tmp_path / "state.npz"
    done = run_mpi(processes, "tests/suites/hybrid_program.py", str(state), "4", str(processes))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, 1, 2, 3]
    lockstep = launch(fifty_steps, 4, "lockstep")[0]
    with np.load(state) as arrays:
        for key in lockstep:
            np.testing.assert_allclose(arrays[key], lockstep[key], rtol=0, atol=1e-10)


def test_group_of_some_processes() -> None:
    """Processes 1 and 2 of three, two ranks in each."""
    body = """
import numpy as np
from syncbn_sim.comm import launch
def main(comm):
    group = comm.split(None if comm.rank < 2 else 0)
    if group is None:
        return None
    again = group.split(group.rank // 2)
    return group.rank, [int(r) for r in group.allgather(np.array(comm.rank))], int(again.allreduce(np.array(comm.rank)))
results = launch(main, 6)
if results:
    print(results)
"""
    done = run_mpi(3, "-c", body)
    assert done.returncode == 0, done.stderr
    members = [2, 3, 4, 5]
    expected = [None, None, *((rank - 2, members, 5 if rank < 4 else 9) for rank in members)]
    assert done.stdout == f"{expected}\n"


def test_ranks_must_be_a_multiple_of_the_processes() -> None:
    done = run_mpi(2, "-c", "from syncbn_sim.comm import launch; launch(print, 3)")
    assert done.returncode != 0
    assert "got 3, expected 2, the number of processes" in done.stderr
    assert "multiple" in done.stderr


def test_main_job_runs_more_ranks_than_processes(tmp_path: Path) -> None:
    """Stacked in each process, where nobody says otherwise; lockstep ranks find the same."""
    options = [
        "--task",
        "digits",
        "--ranks",
        "16",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--arms",
        "sorted+local,sorted+sync",
    ]
    found = {}
    for backend, chosen in (("stacked", []), ("hybrid", ["--backend", "hybrid"])):
        out = tmp_path / backend
        done = run_mpi(2, "mpi_examples/train.py", *options, *chosen, "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert f"digits: 16 ranks ({backend}) x 4 images" in done.stdout
        (result,) = json.loads((next(out.iterdir()) / "result.json").read_text())
        found[backend] = {arm: metrics["accuracy"]["mean"] for arm, metrics in result["arms"].items()}
        assert found[backend]["sorted+sync"] > 0.5
    assert found["stacked"] == pytest.approx(found["hybrid"], abs=0.02)


def test_mismatch_inside_a_process_is_named() -> None:
    body = "import numpy as np; from syncbn_sim.comm import launch\n"
    body += "def f(comm): comm.barrier() if comm.rank == 1 else comm.allreduce(np.ones(2))\nlaunch(f, 4)"
    done = run_mpi(2, "-c", body)
    assert done.returncode != 0
    assert "rank 1" in done.stderr
    assert "barrier" in done.stderr
    assert "allreduce" in done.stderr


def test_a_group_of_all_processes_does_not_meet_all_ranks() -> None:
    """Both ask for the same sum, of other communicators."""
    body = "import numpy as np; from syncbn_sim.comm import launch\n"
    body += "def f(comm): [comm.split(0), comm][comm.rank % 2].allreduce(np.ones(2))\nlaunch(f, 4)"
    done = run_mpi(2, "-c", body)
    assert done.returncode != 0
    assert "allreduce sum float64 (2,) (call 1 in the group of rank 0, rank 1, rank 2, rank 3" in done.stderr
    assert "allreduce sum float64 (2,) (call 2) at" in done.stderr


def test_a_group_of_a_group_goes_by_its_ranks_numbers_among_all() -> None:
    body = """
from syncbn_sim.comm import launch
def main(comm):
    group = comm.split(None if comm.rank < 2 else 0)
    if group is not None:
        pair = group.split(group.rank // 2)
        if comm.rank != 5:
            pair.barrier()
launch(main, 6)
"""
    done = run_mpi(3, "-c", body)
    assert done.returncode != 0
    assert "rank 4: barrier (call 1 in the group of rank 4, rank 5 from the split in call 1) at" in done.stderr
