"""What happens when something goes wrong on one rank: all end, at once, with that rank's words; nothing hangs, nothing is half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, mpirun_command, run, run_mpi

from syncbn_sim import nn
from syncbn_sim.comm import LedgerCommunicator, launch
from syncbn_sim.comm.mpi.checked import CheckedCommunicator
from syncbn_sim.errors import CollectiveMismatchError, DeadlockError, LaunchError

PREAMBLE = """
import os, sys, time
import numpy as np
from syncbn_sim import nn
from syncbn_sim.comm import launch
RANK = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")))
"""


def timed_mpi(
    ranks: int, body: str, tmp_path: Path, seconds: float = 5.0, **environment: str
) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(PREAMBLE + body)
    start = time.monotonic()
    done = run_mpi(ranks, str(script), seconds=30, **environment)
    assert time.monotonic() - start < seconds
    return done


def test_raising_rank_ends_threads_with_its_traceback() -> None:
    def fail_on_2(comm):
        comm.barrier()
        if comm.rank == 2:
            raise ZeroDivisionError("of rank 2")
        comm.barrier()

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="of rank 2") as caught:
        launch(fail_on_2, 4)
    assert time.monotonic() - start < 5
    assert "fail_on_2" in str(caught.getrepr())
    assert caught.value.__notes__ == ["This happened on rank 2 of 4."]


@pytest.mark.parametrize("ranks", [2, 4])
def test_raising_rank_ends_mpi_with_its_traceback(ranks: int, tmp_path: Path) -> None:
    done = timed_mpi(
        ranks,
        """
def fail(comm):
    if comm.rank == 1:
        raise ZeroDivisionError("of rank 1")
    comm.allreduce(np.ones(3))
launch(fail)
""",
        tmp_path,
    )
    assert done.returncode != 0
    assert "[rank 1] ZeroDivisionError: of rank 1" in done.stderr
    assert "in fail" in done.stderr
    assert "[rank 0]" not in done.stderr


@pytest.mark.parametrize("end", ['raise ZeroDivisionError("early")', "sys.exit(3)", "os._exit(3)"])
def test_rank_that_ends_before_launch_ends_mpi(end: str, tmp_path: Path) -> None:
    done = timed_mpi(3, f"if RANK == 1: time.sleep(0.5); {end}\nlaunch(lambda comm: comm.barrier())", tmp_path)
    assert done.returncode != 0
    assert "rank 0: another rank ended before launch()" in done.stderr
    if "raise" in end:
        assert "ZeroDivisionError: early" in done.stderr


def test_launch_may_be_called_again_under_mpirun(tmp_path: Path) -> None:
    done = timed_mpi(2, "for k in (1, 2): print(launch(lambda comm: comm.rank + k), flush=True)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(done.stdout.count(text) == times for text, times in (("None", 2), ("[1, 2]", 1), ("[2, 3]", 1)))


def test_error_between_two_launches_ends_mpi(tmp_path: Path) -> None:
    body = "found = launch(lambda comm: comm.rank)\nmax(found)\nlaunch(lambda comm: comm.barrier())"
    done = timed_mpi(2, body, tmp_path)  # over MPI only rank 0 has the list
    assert done.returncode != 0
    assert "[rank 1] TypeError" in done.stderr


def test_leaving_inside_launch_is_an_error_on_every_backend(tmp_path: Path) -> None:
    def leave(comm):
        if comm.rank == 1:
            sys.exit(0)
        comm.barrier()

    with pytest.raises(LaunchError, match=r"sys\.exit\(0\)"):
        launch(leave, 3)
    body = "def leave(comm):\n    if comm.rank == 1: sys.exit(0)\n    comm.barrier()\nlaunch(leave)"
    done = timed_mpi(2, body, tmp_path)
    assert done.returncode != 0
    assert "[rank 1]" in done.stderr


GROUP_SKIP = """
def skip(comm):
    group = comm.split(comm.rank // 2)
    a, b = nn.SyncBatchNorm(3, comm=group), nn.SyncBatchNorm(3, comm=group)
    a(np.random.normal(size=(4, 3)))
    if comm.rank != 1:
        b(np.random.normal(size=(4, 3)))
"""


def test_skipped_layer_in_a_group_is_named_on_mpi(tmp_path: Path) -> None:
    done = timed_mpi(4, GROUP_SKIP + "launch(skip)", tmp_path)
    assert done.returncode != 0
    assert "nothing: its function has returned" in done.stderr
    assert (
        "rank 0: allreduce sum float64 (7,) by SyncBatchNorm 2 (call 2 in the group of rank 0, rank 1 from the split in call 1) at"
        in done.stderr
    )


SKIP = """
def skip(comm):
    a, b = nn.SyncBatchNorm(3, comm=comm), nn.SyncBatchNorm(5, comm=comm)
    a(np.random.normal(size=(4, 3)))
    if comm.rank != 1:
        b(np.random.normal(size=(4, 5)))
    a.backward(np.ones((4, 3)))
"""


def assert_names_the_skip(message: str) -> None:
    assert "rank 0: allreduce sum float64 (11,) by SyncBatchNorm 2 (call 2) at" in message
    assert "rank 1 (differs): allreduce sum float64 (6,) by SyncBatchNorm 1 (call 2) at" in message
    assert "in skip" in message
    assert "sync_batch_norm.py" in message


def test_skipped_layer_is_named_on_threads() -> None:
    scope = {"np": np, "nn": nn}
    exec(SKIP, scope)
    with pytest.raises(CollectiveMismatchError) as caught:
        launch(scope["skip"], 3)
    assert_names_the_skip(str(caught.value).replace("<string>", "script.py"))


def test_skipped_layer_is_named_on_mpi(tmp_path: Path) -> None:
    done = timed_mpi(3, SKIP + "launch(skip)", tmp_path)
    assert done.returncode != 0
    assert_names_the_skip(done.stderr)


def test_skipped_layer_is_named_without_a_board() -> None:
    """Ranks on several machines compare by an all-reduce: every rank raises, in the call in which they differ."""

    def differ(comm):
        checked = CheckedCommunicator(comm)
        checked.barrier()
        with pytest.raises(
            CollectiveMismatchError, match=r"rank 1 \(differs\): allreduce max float64 \(2,\) \(call 2\)"
        ) as caught:
            checked.allreduce(np.ones(2), "max" if comm.rank == 1 else "sum")
        return caught.value.told_elsewhere

    assert launch(differ, 3) == [False, True, True]


@pytest.mark.parametrize("backend", ["threads", "mpi"])
def test_rank_that_returns_early_is_named(backend: str, tmp_path: Path) -> None:
    body = "def leave(comm):\n    if comm.rank != 0:\n        comm.barrier()\n"
    if backend == "threads":
        scope: dict[str, object] = {}
        exec(body, scope)
        with pytest.raises(
            CollectiveMismatchError, match=r"rank 0 \(differs\): nothing: its function has returned"
        ) as caught:
            launch(scope["leave"], 3)
        message = str(caught.value)
    else:
        done = timed_mpi(3, body + "launch(leave)", tmp_path)
        assert done.returncode != 0
        message = done.stderr
    assert "nothing: its function has returned" in message
    assert "rank 1: barrier" in message


def test_deadlocked_threads_are_named() -> None:
    def cross(comm):
        comm.recv((comm.rank + 1) % 2, tag=3) if comm.rank == 0 else comm.barrier()

    with pytest.raises(DeadlockError, match=r"rank 0: recv from rank 1, tag 3(.|\n)*rank 1: barrier"):
        launch(cross, 2)


@pytest.mark.parametrize("backend", ["threads", "lockstep"])
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda comm: comm.bcast(threading.Lock()), TypeError),
        (lambda comm: comm.allreduce(np.full(2, 1e308)), FloatingPointError),
    ],
)
def test_what_cannot_be_combined_is_every_rank_s_error(call, error: type[Exception], backend: str) -> None:
    """Whoever catches it goes on, with all the others; whoever does not is named, once."""

    def catch(comm):
        with pytest.raises(error):
            call(comm)
        return comm.allreduce(np.ones(1))[0]

    with np.errstate(over="raise"):
        assert launch(catch, 3, backend) == [3, 3, 3]
        with pytest.raises(error) as caught:
            launch(call, 3, backend)
    assert len(caught.value.__notes__) == 1


@pytest.mark.parametrize("wrap", [lambda comm: comm, CheckedCommunicator])
@pytest.mark.parametrize("backend", ["threads", "lockstep"])
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda comm, odd: comm.allreduce(np.ones(2, np.float32 if odd else float)), "allreduce sum float32"),
        (lambda comm, odd: comm.allreduce(np.ones(2), "max" if odd else "sum"), "allreduce max"),
        (lambda comm, odd: comm.allreduce(np.ones(3 if odd else 2)), r"allreduce sum float64 \(3,\)"),
        (lambda comm, odd: comm.allgather(np.ones(2, np.float32 if odd else float)), "allgather float32"),
        (lambda comm, odd: comm.bcast(7, int(odd)), "bcast root 1"),
    ],
)
def test_what_ranks_must_agree_on_is_named(call, named: str, backend: str, wrap) -> None:
    """Call 1, so by the wrapper where there is one: what is inside would see its second."""
    with pytest.raises(CollectiveMismatchError, match=rf"rank 1 \(differs\): {named}.*\(call 1\)"):
        launch(lambda comm: call(wrap(comm), comm.rank == 1), 3, backend)


def test_watchdog_ends_unchecked_mpi(tmp_path: Path) -> None:
    done = timed_mpi(
        3,
        """
def hang(comm):
    comm.allreduce(np.ones(2))
    if comm.rank == 0:
        comm.recv(1, tag=9)
    else:
        comm.barrier()
launch(hang, checked=False)
""",
        tmp_path,
        seconds=15,
        SYNCBN_SIM_WATCHDOG="1",
    )
    assert done.returncode != 0
    assert "rank 0: waiting for 1 s in recv from rank 1, tag 9 (call 2) at script.py" in done.stderr
    assert "rank 1: waiting for 1 s in barrier (call 2) at script.py" in done.stderr
    assert "rank 2: waiting" in done.stderr


def test_shorter_shards_never_hang_an_epoch() -> None:
    """13 rows on 4 ranks, 2 at a time: the last step has empty ranks, and everybody takes part."""
    from syncbn_sim import data, optim, train

    def epoch(comm):
        ledger = LedgerCommunicator(comm)
        model = nn.Sequential(nn.SyncBatchNorm(2, comm=ledger), nn.Linear(2, 2))
        loss, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1)
        x = np.random.default_rng(0).normal(size=(18, 2)).astype(np.float32)
        sizes = []
        batches = list(data.batches(np.arange(18), comm.rank, comm.size, 4))
        for done, _ in train.fit(model, loss, optimizer, ledger, x, np.zeros(18, int), batches):
            sizes.append(len(batches[done - 1]))
        return sizes, ledger.entry("allreduce").calls

    assert launch(epoch, 4) == [([4, 1], 6), ([4, 1], 6), ([4, 0], 6), ([4, 0], 6)]


@pytest.mark.parametrize("backend", ["stacked", "threads", "mpi"])
def test_ctrl_c_stops_at_once_and_leaves_nothing(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("tyro")
    start = [sys.executable, "mpi_examples/train.py"]
    mpirun = [mpirun_command(), "-n", "4", *start]
    command = mpirun if backend == "mpi" else [*start, "--ranks", "4", "--backend", backend]
    if command[0] is None:
        pytest.skip("no mpirun")
    process = subprocess.Popen(
        [*command, "--task", "requests", "--out", str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=ROOT,
    )
    os.set_blocking(process.stderr.fileno(), False)
    seen, deadline = b"", time.monotonic() + 40
    while b"step/s" not in seen and time.monotonic() < deadline:
        seen += process.stderr.read() or b""
        time.sleep(0.05)
    assert b"step/s" in seen, seen
    pressed = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(10)
        assert time.monotonic() - pressed < 2
        assert process.returncode != 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.stderr.close()
    assert not (tmp_path / "runs").exists()


def test_abort_leaves_no_process_behind(tmp_path: Path) -> None:
    """run() kills the group; this one must end by itself, ranks that compute included."""
    done = timed_mpi(
        2,
        """
def busy(comm):
    if comm.rank == 0:
        raise RuntimeError("stop")
    while True:
        pass
launch(busy)
""",
        tmp_path,
    )
    assert done.returncode != 0
    left, deadline = ["pgrep", "-f", str(tmp_path / "script.py")], time.monotonic() + 5
    while (found := run(left).stdout) and time.monotonic() < deadline:
        time.sleep(0.05)  # killed, but mpirun does not wait for its children's last breath
    assert found == ""


CROWDED = """
import os, sys
import numpy as np
from syncbn_sim.comm import launch
from syncbn_sim.comm.mpi import communicator
communicator.crowd_one_machine = lambda comm: True
"""


def test_a_message_in_one_piece_waits_for_nobody_either() -> None:
    """Where MPI can't read another process's memory, a large message needs its sender until it is received."""
    code = f"""{CROWDED}
def main(comm):
    other = 1 - comm.rank
    for _ in range(3):
        comm.send(np.full(50_000, comm.rank + 1.0), other)
        comm.barrier()
        assert (comm.recv(other) == other + 1).all()
    return comm.inner._shared is not None
print(launch(main, backend="mpi"))
"""
    done = run_mpi(2, "-c", code, MPIR_CVAR_CH4_CMA_ENABLE="0", SYNCBN_SIM_WATCHDOG="20")
    assert done.returncode == 0, done.stderr
    assert "[True, True]" in done.stdout


def test_without_pipes_crowded_ranks_talk_by_mpi() -> None:
    code = f"""{CROWDED}
make = os.pipe
def refuse():
    if os.environ.get("PMI_RANK") == "1":
        raise OSError("no pipes here")
    return make()
def main(comm):
    total = comm.allreduce(np.array([comm.rank + 1.0]))
    comm.barrier()
    return total[0], comm.inner._shared
os.pipe = refuse
print(launch(main, backend="mpi"))
"""
    done = run_mpi(3, "-c", code, SYNCBN_SIM_WATCHDOG="20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(np.float64(6.0), None)") == 3


def test_a_communicator_outlives_its_launch_by_mpi_s_own_calls(tmp_path: Path) -> None:
    """What the ranks shared is gone then: neither its memory nor its file numbers may be touched."""
    code = f"""{CROWDED}
def main(comm):
    comm.barrier()
    group = comm.split(comm.rank % 2)
    assert group.allreduce(np.ones(2))[0] == group.size
    kept[:] = comm, group
kept = []
opened = []
for _ in range(2):
    launch(main, backend="mpi", checked=False)
    opened.append(len(os.listdir("/proc/self/fd")))
assert opened[0] == opened[1], opened
comm, group = kept
files = [open(os.path.join(sys.argv[1], str(comm.rank) + "-" + str(i)), "w+") for i in range(20)]
comm.barrier()
assert comm.allreduce(np.ones(1))[0] == 3
assert group.allreduce(np.ones(1))[0] == group.size
for file in files:
    file.seek(0)
    assert file.read() == ""
print("fine")
"""
    done = run_mpi(3, "-c", code, str(tmp_path), SYNCBN_SIM_WATCHDOG="20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fine") == 3


def test_ranks_are_crowded_where_they_outnumber_the_cores_they_have_together() -> None:
    code = """
import os
from mpi4py import MPI
from syncbn_sim.comm.mpi.machines import crowd_one_machine
comm, cores = MPI.COMM_WORLD, sorted(os.sched_getaffinity(0))
found = []
for mine in ({cores[0]}, {cores[comm.rank % len(cores)]}, set(cores)):
    os.sched_setaffinity(0, mine)
    found.append(crowd_one_machine(comm))
assert found == [True, len(cores) < 2, len(cores) < 2], found
"""
    done = run_mpi(2, "-m", "mpi4py", "-c", code)
    assert done.returncode == 0, done.stderr


def test_infinities_of_opposite_sign_leave_nobody_asleep() -> None:
    """The rank that adds up must wake the others, whatever NumPy is told to raise."""
    code = f"""{CROWDED}
def main(comm):
    with np.errstate(all="raise"):
        return np.isnan(comm.allreduce(np.array([np.inf if comm.rank else -np.inf])))[0]
print(launch(main, backend="mpi"))
"""
    done = run_mpi(2, "-c", code, SYNCBN_SIM_WATCHDOG="5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("True") == 2
