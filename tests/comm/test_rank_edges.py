"""Ranks that do not come, leave, share what is theirs alone, or meet in the wrong call: all end by themselves, and say who and where."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run
from test_failures import CROWDED, PREAMBLE, timed_mpi

from syncbn_sim import nn
from syncbn_sim.comm import launch
from syncbn_sim.comm.calls import Call, Speaker, group_name, speaker
from syncbn_sim.comm.mpi.board import _DEPTH, _NOTICE, Board
from syncbn_sim.errors import CollectiveMismatchError, CommunicatorError, LaunchError, RankAbortedError

IMPATIENT = {"seconds": 15.0, "SYNCBN_SIM_WATCHDOG": "3"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param("if RANK == 0: launch(print)", "another rank ended before launch()", id="the other has left"),
        pytest.param(
            "launch(print) if RANK == 0 else time.sleep(60)",
            "not every rank has come to the start",
            id="the other stays",
        ),
        pytest.param(
            "from mpi4py import MPI\nif MPI.COMM_WORLD.rank == 0: launch(print)",
            "rank 0: waiting for 3 s in the start of launch(), which every rank must reach",
            id="the other has left after MPI_Init",
        ),
        pytest.param(
            "launch(lambda comm: comm.barrier())\nif RANK == 0: launch(print)",
            "rank 0: waiting for 3 s in the start of launch(), which every rank must reach",
            id="the other has left after a launch",
        ),
        pytest.param(
            "launch(lambda comm: 0, ranks=3 if RANK else None)",
            "got 3, expected 2",
            id="the other has another argument",
        ),
        pytest.param(
            "launch(lambda comm: 0)\nlaunch(lambda comm: 0, ranks=3 if RANK else None)",
            "[rank 1] syncbn_sim.errors.LaunchError: ranks: got 3, expected 2",
            id="the other has another argument later",
        ),
    ],
)
def test_launch_that_not_every_rank_reaches_ends(body: str, said: str, tmp_path: Path) -> None:
    done = timed_mpi(2, body, tmp_path, **IMPATIENT)
    assert done.returncode != 0
    assert said in done.stderr


SKIPS_ITS_GROUP = """
def skip(comm):
    group = comm.split(comm.rank // 2)
    group.barrier()
    if comm.rank != 3:
        nn.SyncBatchNorm(3, comm=group)(np.ones((4, 3)) * comm.rank + np.arange(4)[:, None])
    return comm.allreduce(np.ones(7))
"""


def test_skipped_call_of_a_group_is_named_without_patience(tmp_path: Path) -> None:
    """The watchdog's own patience is 300 s here: the ranks see together that none of them can go on."""
    done = timed_mpi(4, SKIPS_ITS_GROUP + "launch(skip)", tmp_path, seconds=15)
    assert done.returncode != 0
    group = "the group of rank 2, rank 3 from the split in call 1"
    assert f"allreduce sum float64 (7,) by SyncBatchNorm 1 (call 2 in {group}) at script.py" in done.stderr
    assert "rank 3: not here; its last was barrier (call 1) at script.py" in done.stderr
    assert (
        "rank 3: every rank waits for another, so none can go on. This one waits in allreduce sum float64 (7,) (call 2)"
        in (done.stderr)
    )
    assert "rank 2: not here; its last was split (call 1)" in done.stderr


@pytest.mark.parametrize("backend", ["threads", "lockstep"])
def test_mismatch_of_a_group_s_call_and_the_world_s_says_so(backend: str) -> None:
    """Both ask for the sum of seven numbers; what differs is among whom."""

    def differ(comm):
        group = comm.split(0)
        (comm if comm.rank == 1 else group).allreduce(np.ones(7))

    with pytest.raises(CollectiveMismatchError) as caught:
        launch(differ, 3, backend)
    group = "the group of rank 0, rank 1, rank 2 from the split in call 1"
    assert f"rank 0: allreduce sum float64 (7,) (call 1 in {group}) at" in str(caught.value)
    assert "rank 1 (differs): allreduce sum float64 (7,) (call 2) at" in str(caught.value)


@pytest.mark.parametrize(
    ("go_on", "among"),
    [
        pytest.param(lambda comm, group: group.allreduce(np.ones(1 + comm.rank)), 2, id="two of one group disagree"),
        pytest.param(lambda comm, group: None if comm.rank == 1 else group.barrier(), 4, id="one of them has returned"),
    ],
)
def test_backends_tell_a_mismatch_in_the_same_words(go_on, among: int) -> None:
    """A call goes by its number on its communicator; only who disagrees in a group is listed, and compared."""

    def differ(comm):
        group = comm.split(comm.rank // 2)
        for _ in range(comm.rank // 2):
            group.barrier()
        comm.barrier()
        pair = comm.split(comm.rank // 2)
        pair.barrier()
        go_on(comm, pair) if comm.rank < 2 else comm.recv(comm.rank, 5) if among == 2 else comm.barrier()

    said = {}
    for backend in ("threads", "lockstep"):
        with pytest.raises(CollectiveMismatchError) as caught:
            launch(differ, 4, backend)
        said[backend] = str(caught.value)
    assert said["threads"] == said["lockstep"]
    assert said["threads"].count("\n  rank") == among
    assert "(call 2 in the group of rank 0, rank 1 from the split in call 3) at" in said["threads"]
    assert said["threads"].count("(differs)") == among // 2


def test_a_large_group_is_named_in_part() -> None:
    shown = ", ".join(f"rank {rank}" for rank in range(8))
    assert group_name(range(8), 3) == f"the group of {shown} from the split in call 3"
    assert group_name(range(11), 3) == f"the group of {shown}, 3 more from the split in call 3"


def stuck_board(looks: np.ndarray, rank: int) -> Board:
    board = object.__new__(Board)
    board._looks, board._rank, board._seen = looks, rank, None
    return board


def test_ranks_are_stuck_only_if_seen_in_the_same_calls_twice() -> None:
    looks = np.zeros(2, [("call", np.int64), ("look", np.int64)])
    one, other = stuck_board(looks, 0), stuck_board(looks, 1)
    assert not other.all_stuck(7)
    assert not any(one.all_stuck(5) for _ in range(9))  # the other one has not looked again: what it said may be old
    assert not other.all_stuck(8)  # and it was
    assert not any(board.all_stuck(call) for _ in range(9) for board, call in ((one, 5), (other, 0)))
    assert not any(board.all_stuck(call) for new in range(9) for board, call in ((one, 5), (other, 20 + new)))
    found = [board.all_stuck(call) for _ in range(5) for board, call in ((one, 5), (other, 9))]
    assert not any(found[:6])
    assert found[-2:] == [True, True]


@pytest.mark.parametrize("late", [0, 1])
def test_of_two_that_disagree_the_same_one_is_marked_whoever_comes_last(late: int) -> None:
    def body(comm):
        while comm.rank == late and not comm.group.arrived:
            time.sleep(0)
        return comm.allgather(np.ones(1)) if comm.rank == 0 else comm.barrier()

    with pytest.raises(CollectiveMismatchError) as caught:
        launch(body, 2, "threads")
    assert "rank 0: allgather" in str(caught.value)
    assert "rank 1 (differs): barrier" in str(caught.value)


def test_who_is_absent_has_not_announced_that_call() -> None:
    notices = np.zeros((3, _DEPTH + 1), _NOTICE)
    boards = []
    for rank in range(3):
        boards.append(object.__new__(Board))
        vars(boards[rank]).update(_notices=notices, _rank=rank, name=lambda rank: f"rank {rank}")
        vars(boards[rank]).update({f"_{name}": notices[name] for name in ("stamp", "asked", "where")})
        boards[rank]._stamps = notices["stamp"]
    assert all(board.pin(Call("barrier", "", 1, "here")) is None for board in boards)
    assert boards[0].absent(1, [0, 1, 2]) == ""
    boards[0].pin(Call("allreduce", "sum", 2, "there"))
    assert boards[0].absent(2, [0]) == ""
    assert boards[0].absent(2, [0, 1]) == "  rank 1: not here; its last was barrier (call 1) at here"


def test_busy_ranks_are_not_taken_for_stuck_ones(tmp_path: Path) -> None:
    """Calls of groups and of all in turn, with pauses longer than the watchdogs' looks."""
    body = """
def main(comm):
    group = comm.split(comm.rank // 2)
    for call in range(12):
        if comm.rank == call % comm.size:
            time.sleep(0.3)
        assert group.allreduce(np.ones(1))[0] == 2
        assert comm.allreduce(np.ones(1))[0] == 4
        comm.bcast(call, call % 4)
launch(main)
print("fine", flush=True)
"""
    done = timed_mpi(4, body, tmp_path, seconds=15, SYNCBN_SIM_WATCHDOG="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fine") == 4


@pytest.mark.parametrize("crowded", [True, False])
@pytest.mark.parametrize(
    "call", ["allreduce(np.ones(2))", "allgather(np.ones(2))", "bcast(3, 1)", "split(0)", "barrier()"]
)
def test_watchdog_hears_in_the_first_call_of_a_group(call: str, crowded: bool, tmp_path: Path) -> None:
    """Where a group opens its meeting, and where mpi4py pickles."""
    body = f"""
from syncbn_sim.comm.mpi import communicator
communicator.crowd_one_machine = lambda comm: {crowded}
def main(comm):
    group = comm.split(0)
    if comm.rank == 1:
        comm.recv(0, tag=9)
    group.{call}
launch(main, checked=False)
"""
    done = timed_mpi(3, body, tmp_path, seconds=15, SYNCBN_SIM_WATCHDOG="1")
    assert done.returncode != 0
    assert "rank 1: waiting for 1 s in recv from rank 0, tag 9" in done.stderr
    for rank in (0, 2):
        assert f"rank {rank}: waiting for 1 s in {call.partition('(')[0]}" in done.stderr


@pytest.mark.parametrize("crowded", [True, False])
def test_watchdog_hears_at_the_end_of_launch(crowded: bool, tmp_path: Path) -> None:
    body = f"""
from syncbn_sim.comm.mpi import communicator
communicator.crowd_one_machine = lambda comm: {crowded}
launch(lambda comm: time.sleep(60) if comm.rank else None, checked=False)
"""
    done = timed_mpi(2, body, tmp_path, seconds=15, SYNCBN_SIM_WATCHDOG="1")
    assert done.returncode != 0
    assert "rank 0: waiting for 1 s in the end of launch" in done.stderr


@pytest.mark.parametrize(("backend", "ranks"), [("serial", 1), ("lockstep", 3), ("threads", 3)])
def test_leaving_the_program_inside_launch_is_no_success(backend: str, ranks: int) -> None:
    def leave(comm):
        if comm.rank == comm.size - 1:
            sys.exit(0)
        comm.barrier()

    with pytest.raises(LaunchError, match=r"sys\.exit\(0\)") as caught:
        launch(leave, ranks, backend)
    assert caught.value.__notes__ == [f"This happened on rank {ranks - 1} of {ranks}."]


RAISES_ABORTED = """
from syncbn_sim.errors import RankAbortedError
def main(comm):
    if comm.rank == 1:
        raise RankAbortedError("mine", got="a", expected="b", do="c")
    comm.barrier()
"""


@pytest.mark.parametrize("backend", ["threads", "lockstep"])
def test_rank_that_says_itself_it_was_aborted_ends_all(backend: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{PREAMBLE}{RAISES_ABORTED}launch(main, 3, {backend!r})")
    done = run([sys.executable, str(script)], seconds=15)
    assert done.returncode != 0
    assert "RankAbortedError: mine" in done.stderr
    assert "rank 1 of 3" in done.stderr


def test_rank_that_says_itself_it_was_aborted_ends_mpi(tmp_path: Path) -> None:
    done = timed_mpi(3, RAISES_ABORTED + "launch(main)", tmp_path, **IMPATIENT)
    assert done.returncode != 0
    assert "[rank 1] syncbn_sim.errors.RankAbortedError: mine" in done.stderr


@pytest.mark.parametrize("after", ["return", "comm.barrier()"])
def test_rank_that_catches_a_mismatch_still_ends_all(after: str, tmp_path: Path) -> None:
    """The accuser is the one that has caught it: without its word the others would wait for the watchdog."""
    body = f"""
from syncbn_sim.errors import CollectiveMismatchError
def main(comm):
    try:
        if comm.rank == 1:
            time.sleep(0.5)
            comm.allreduce(np.ones(3))
        else:
            comm.barrier()
    except CollectiveMismatchError:
        {after}
launch(main)
"""
    done = timed_mpi(3, body, tmp_path, seconds=10)
    assert done.returncode != 0
    assert "rank 1 (differs): allreduce sum float64 (3,) (call 1)" in done.stderr


def test_process_that_vanishes_takes_the_job_with_it(tmp_path: Path) -> None:
    """With what exit code is MPICH's affair (mpi_examples/README.md): it has killed the others before one of them could speak."""
    timed_mpi(3, "launch(lambda comm: os._exit(0) if comm.rank == 1 else comm.barrier())", tmp_path, **IMPATIENT)


@pytest.mark.parametrize("backend", ["threads", "lockstep", "stacked"])
def test_ctrl_c_ends_a_rank_that_computes_for_ever(backend: str, tmp_path: Path) -> None:
    """The documented limit of ranks in one process: nobody ends it but you."""
    script = tmp_path / "script.py"
    body = f"""
def main(comm):
    print("computing", flush=True)
    while comm.rank == 0:
        pass
    comm.barrier()
launch(main, 2, {backend!r})
"""
    script.write_text(PREAMBLE + body)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith(b"computing")  # two threads may print into one line
        process.send_signal(signal.SIGINT)
        assert process.wait(10) != 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


LEFT = """
def left():
    maps = [line.split()[5] for line in open("/proc/self/maps") if "/dev/shm/mpich_shm_" in line]
    return [name for name in maps if os.path.exists(name)], bool(maps)
"""


@pytest.mark.parametrize("end", ["os._exit(1)", "1 / 0", "time.sleep(0)"])
def test_job_leaves_no_memory_and_no_folder_behind(end: str, tmp_path: Path) -> None:
    """The memory of MPICH has no name any more while the ranks still run, so nothing that ends them can leave it."""
    body = f"""
{CROWDED}{LEFT}
def main(comm):
    group = comm.split(0)
    os.write(1, str((*left(), os.listdir(os.environ["TMPDIR"]))).encode())
    comm.barrier()
    if comm.rank == 1:
        time.sleep(0.2)
        {end}
    group.barrier()
launch(main)
"""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = timed_mpi(2, body, tmp_path, **IMPATIENT, TMPDIR=str(temporary))
    assert (done.returncode == 0) == ("sleep" in end)
    assert list(temporary.iterdir()) == []
    assert done.stdout.count("([], True, [])") == 2


SHARED_MODEL = """
model = nn.SyncBatchNorm(3, dtype=np.float64)
def main(comm):
    nn.convert_sync_batchnorm(model, comm)
    for _ in range(20):
        model(np.random.default_rng(comm.rank).normal(size=(4, 3)))
        comm.barrier()
"""


@pytest.mark.parametrize("backend", ["threads", "lockstep"])
def test_model_shared_by_ranks_is_an_error(backend: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{PREAMBLE}{SHARED_MODEL}launch(main, 3, {backend!r})")
    done = run([sys.executable, str(script)], seconds=15)
    assert done.returncode != 0
    assert "CommunicatorError: the communicator of rank" in done.stderr
    assert "Build the model" in done.stderr


@pytest.mark.parametrize("backend", ["threads", "lockstep"])
@pytest.mark.parametrize(
    "call",
    [
        lambda comm: comm.allreduce(np.ones(1)),
        lambda comm: comm.send(np.ones(1), 0),
        lambda comm: comm.recv(0),
        lambda comm: comm.barrier(),
    ],
)
def test_communicator_of_another_rank_is_refused(backend: str, call) -> None:
    everybody = {}

    def swap(comm):
        everybody[comm.rank] = comm
        comm.barrier()
        call(everybody[1 - comm.rank])

    with pytest.raises(CommunicatorError, match=r"the communicator of rank . *: got a call by .*1?0?, expected"):
        launch(swap, 2, backend)
    kept = launch(lambda comm: comm, 2, backend)
    with pytest.raises(CommunicatorError, match="of rank 1: got a call after the function of that rank has returned"):
        call(kept[1])


SWAPPED = """
def main(comm, kind=nn.SyncBatchNorm):
    first, second = kind(3, comm=comm), kind(3, comm=comm)
    x = np.random.default_rng(comm.rank).normal(size=(4, 3))
    for layer in (second, first) if comm.rank == comm.size - 1 else (first, second):
        layer(x)
"""


@pytest.mark.parametrize("kind", [nn.SyncBatchNorm, nn.AveragedBatchNorm])
@pytest.mark.parametrize("backend", ["threads", "lockstep"])
def test_layers_called_in_another_order_are_named(backend: str, kind: type) -> None:
    scope = {"np": np, "nn": nn}
    exec(SWAPPED, scope)
    with pytest.raises(CollectiveMismatchError) as caught:
        launch(scope["main"], 3, backend, args=(kind,))
    assert f"by {kind.__name__} 1 (call 1)" in str(caught.value)
    assert (
        f"rank 2 (differs): allreduce sum float64 ({7 if kind is nn.SyncBatchNorm else 8},) by {kind.__name__} 2"
        in (str(caught.value))
    )


@pytest.mark.parametrize("inside", [1, 2])
def test_layers_called_in_another_order_are_named_on_mpi(inside: int, tmp_path: Path) -> None:
    """Inside a process of several ranks too, whose ranks go by their numbers among all."""
    done = timed_mpi(2, f"{SWAPPED}launch(main, {2 * inside})", tmp_path, **IMPATIENT)
    assert done.returncode != 0
    assert f"rank {2 * inside - 1} (differs): allreduce sum float64 (7,) by SyncBatchNorm 2 (call 1) at" in done.stderr


@pytest.mark.parametrize("backend", ["threads", "lockstep"])
def test_a_layer_leaves_its_name_on_no_later_call(backend: str) -> None:
    def main(comm):
        if comm.rank == 0:
            nn.SyncBatchNorm(2)(np.array([[1.0, 2.0], [3.0, 4.0]]))  # alone
        return comm.allreduce(np.ones(1))[0]

    assert launch(main, 2, backend) == [2, 2]


def test_a_name_inside_another_gives_it_back() -> None:
    with Speaker("outer"):
        with Speaker("inner"):
            assert speaker.get() == "by inner"
        assert speaker.get() == "by outer"
    assert speaker.get() == ""


def test_converted_layers_have_an_order_too() -> None:
    def main(comm):
        model = nn.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm(3), nn.BatchNorm(3)), comm)
        x = np.random.default_rng(comm.rank).normal(size=(4, 3)).astype(np.float32)
        model[comm.rank](x)

    with pytest.raises(CollectiveMismatchError, match=r"by SyncBatchNorm 1(.|\n)*by SyncBatchNorm 2"):
        launch(main, 2)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param("if comm.rank == 3: 1 / 0\n    comm.barrier()", ["[ranks 2-3] ", "on rank 3 of 4."], id="error"),
        pytest.param(
            "if comm.rank != 3: comm.barrier()", ["rank 2: barrier", "rank 3 (differs): nothing"], id="inside"
        ),
        pytest.param(
            "comm.allreduce(np.ones(3 if comm.rank < 2 else 4))",
            ["ranks 0-1: allreduce sum float64 (3,)", "ranks 2-3 (differs): allreduce sum float64 (4,)"],
            id="between processes",
        ),
        pytest.param(
            "group = comm.split(comm.rank // 2)\n    if comm.rank != 3: group.barrier()",
            ["rank 2: barrier (call 1 in the group of rank 2, rank 3 from the split in call 1)"],
            id="group",
        ),
    ],
)
def test_ranks_inside_processes_go_by_their_numbers_among_all(body: str, said: list[str], tmp_path: Path) -> None:
    done = timed_mpi(2, f"def main(comm):\n    {body}\nlaunch(main, 4)", tmp_path, **IMPATIENT)
    assert done.returncode != 0
    for text in said:
        assert text in done.stderr


def test_rank_stopped_by_another_s_error_does_not_hide_it() -> None:
    def main(comm):
        if comm.rank == 2:
            raise ZeroDivisionError("first")
        try:
            comm.barrier()
        except RankAbortedError as error:
            told.append(str(error))
            raise

    for backend in ("threads", "lockstep"):
        told: list[str] = []
        started = time.monotonic()
        with pytest.raises(ZeroDivisionError, match="first") as caught:
            launch(main, 4, backend)
        assert not isinstance(caught.value, RankAbortedError)
        assert len(told) >= 2
        assert all("got ZeroDivisionError on rank 2" in text for text in told)
        assert time.monotonic() - started < 5
