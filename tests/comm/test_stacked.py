"""Ranks stacked in one array have a contract of their own: what they hold, by whom they sum, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from conftest import run_mpi
from suites import stacked

from syncbn_sim import data, nn, optim, train
from syncbn_sim.comm import Communicator, LedgerCommunicator, SerialCommunicator, launch, schedules
from syncbn_sim.comm.stacked import OnlyHolder, StackedCommunicator
from syncbn_sim.comm.stretches import rank_offsets
from syncbn_sim.errors import ArgumentError, CommunicatorError, CountError, LaunchError, ShapeError


def four() -> StackedCommunicator:
    return StackedCommunicator(4, OnlyHolder())


def test_the_function_is_called_once_and_its_result_is_every_ranks() -> None:
    calls = []

    def fn(comm: Communicator, a: int, b: int) -> object:
        calls.append((comm.rank, comm.size, comm.ranks, comm.backend, comm.holders.size, a, b))
        return calls

    found = launch(fn, 5, "stacked", args=(1,), kwargs={"b": 2})
    assert calls == [(0, 5, range(5), "stacked", 1, 1, 2)]
    assert found == [calls] * 5
    assert launch(lambda comm: comm.ranks, backend="stacked") == [range(1)]


@pytest.mark.parametrize(("backend", "ranks"), [("serial", 1), ("threads", 3), ("lockstep", 3)])
def test_ranks_that_run_by_themselves_hold_their_own_rows(backend: str, ranks: int) -> None:
    def fn(comm: Communicator) -> list[object]:
        with comm.holds("whatever") as rows:
            return [comm.ranks, comm.holders is comm, rows, comm.row_groups(), rank_offsets()]

    assert launch(fn, ranks, backend) == [[range(r, r + 1), True, "whatever", None, None] for r in range(ranks)]


TALK: dict[str, Callable[[Communicator], object]] = {
    "allreduce": lambda comm: comm.allreduce(np.ones(3)),
    "allreduce ": lambda comm: comm.allreduce(mine := np.ones(3), out=mine),
    "allgather": lambda comm: comm.allgather(np.ones(3)),
    "bcast": lambda comm: comm.bcast({"a": 1}),
    "barrier": lambda comm: comm.barrier(),
    "send": lambda comm: comm.send(np.ones(3), 1),
    "send ": lambda comm: comm.sendrecv(np.ones(3), 1, 1),
    "recv": lambda comm: comm.recv(1),
}


@pytest.mark.parametrize("call", TALK)
def test_a_function_that_talks_by_itself_is_refused(call: str) -> None:
    message = f"stacked ranks: got {call.strip()} of a rank by itself, .* comm.holders.*threads.*lockstep"
    with pytest.raises(CommunicatorError, match=message):
        launch(TALK[call], 3, "stacked")


def test_an_error_comes_out_with_its_own_traceback() -> None:
    def divide(comm: Communicator) -> None:
        raise ZeroDivisionError("of all ranks")

    with pytest.raises(ZeroDivisionError, match="of all ranks") as caught:
        launch(divide, 3, "stacked")
    assert caught.traceback[-1].name == "divide"
    with pytest.raises(LaunchError, match=r"sys.exit\(4\)") as left:
        launch(lambda comm: exit(4), 3, "stacked")
    assert left.value.__notes__ == ["This happened on ranks 0-2 of 3."]


def test_rows_are_held_rank_after_rank_and_only_inside_the_block() -> None:
    with four().holds([np.array([7, 8]), [], np.array([], np.int32), np.array([3])]) as rows:
        assert rows.tolist() == [7, 8, 3]
        assert rank_offsets().tolist() == [0, 2, 2, 2, 3]
        with four().holds([np.arange(1)] * 4):
            assert rank_offsets().tolist() == [0, 1, 2, 3, 4]
        assert rank_offsets().tolist() == [0, 2, 2, 2, 3]
    assert rank_offsets() is None
    with pytest.raises(ZeroDivisionError), four().holds([[1]] * 4):
        raise ZeroDivisionError
    assert rank_offsets() is None
    with four().holds([[]] * 4) as rows:
        assert np.arange(3)[rows].shape == (0,)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.arange(8), "got a ndarray, expected row indices of each of the ranks 0 to 3"),
        (slice(8), "got a slice"),
        (None, "got a NoneType"),
        ([np.arange(2)] * 3, "got 3 parts"),
        ([], "got 0 parts"),
        ([0, 1, 2, 3], "got parts that are no lists of row indices"),
        ([np.ones(2, bool)] * 4, "got parts that are no lists of row indices"),
        ([np.ones(2)] * 4, "got parts that are no lists of row indices"),
    ],
)
def test_rows_that_are_not_one_list_a_rank_are_refused(rows: object, message: str) -> None:
    with (
        pytest.raises(ArgumentError, match=rf"rows: {message}.*comm\.ranks in place of comm\.rank"),
        four().holds(rows),
    ):
        pass


def test_batches_of_several_ranks_are_those_of_each() -> None:
    entity = np.arange(23) // 3
    for drop_last in (False, True):
        each = [list(data.epochs(data.sorted_by_entity, entity, rank, 5, 2, 2, [1], drop_last)) for rank in range(5)]
        for ranks in (range(5), range(1, 3), range(4, 5)):
            together = list(data.epochs(data.sorted_by_entity, entity, ranks, 5, 2, 2, [1], drop_last))
            assert len(together) == len(each[0])
            for step, parts in enumerate(together):
                assert isinstance(parts, tuple)
                assert [part.tolist() for part in parts] == [each[rank][step].tolist() for rank in ranks]
    for wrong in (range(3, 6), range(0), range(-1, 2), range(0, 4, 2)):
        with pytest.raises(ArgumentError, match="rank"):
            next(data.batches(np.arange(23), wrong, 5, 2))


def test_the_same_code_trains_ranks_that_run_by_themselves_and_stacked_ones() -> None:
    """`comm.ranks` in place of `comm.rank` is all: a tuple of one rank's indices selects what these select."""

    def main(comm: Communicator) -> float:
        x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
        model = nn.Sequential(nn.Linear(3, 2, rng=np.random.default_rng(1)))
        optimizer = optim.SGD(model.parameters(), 0.1)
        batches = data.epochs(data.iid, y, comm.ranks, comm.size, 3, 2, [1])
        *_, (_, loss) = train.fit(model, nn.CrossEntropyLoss(), optimizer, comm, x, y, batches)
        return loss

    (loss,) = launch(main, 1)
    assert launch(main, 4, "lockstep") == launch(main, 4, "threads")
    assert launch(main, 4, "stacked") == pytest.approx(launch(main, 4, "lockstep"), rel=1e-6)
    assert launch(main, 1, "stacked") == [loss]


def test_a_step_refuses_rows_of_which_nobody_has_said_whose_they_are() -> None:
    comm, model = four(), nn.Sequential(nn.Linear(3, 2, dtype=np.float64))
    x, y, optimizer = np.ones((8, 3)), np.zeros(8, int), optim.SGD(model.parameters(), 0.1)
    arguments = (model, nn.CrossEntropyLoss(), optimizer)
    with pytest.raises(ShapeError, match=r"8 rows, and nobody has said whose they are.*4 ranks.*comm.holds"):
        train.step(*arguments, comm, x, y)
    with comm.holds([[0], [1], [2, 3], []]) as rows:
        with pytest.raises(ShapeError, match="got 8 rows on 4 ranks, expected the 4 rows of 4 ranks"):
            train.step(*arguments, comm, x, y)
        with pytest.raises(ShapeError, match="got 4 rows on 1 ranks, expected the 4 rows of 4 ranks"):
            train.step(*arguments, SerialCommunicator(), x[rows], y[rows])
        assert train.step(*arguments, comm, x[rows], y[rows]) > 0


def test_wrappers_stand_around_those_who_talk() -> None:
    for wrap in (LedgerCommunicator, lambda comm: schedules.using(comm, "ring")):
        with pytest.raises(ArgumentError, match=r"a StackedCommunicator, whose ranks do not talk.*comm.holders"):
            wrap(four())


@pytest.mark.parametrize("norm", [n for n, kind in stacked.NORMS.items() if kind.talks])
def test_a_ledger_counts_what_each_rank_would_send(norm: str) -> None:
    def spoken(comm: Communicator) -> tuple[int, int]:
        ledger = LedgerCommunicator(comm.holders)
        model, (x, y) = stacked.net(norm, ledger), stacked.rows()
        optimizer = optim.SGD(model.parameters(), 0.1)
        batches = stacked.dealt(comm.ranks, "uneven", 5)
        for _ in train.fit(model, nn.CrossEntropyLoss(), optimizer, comm, x, y, batches):
            pass
        return ledger.entry("allreduce").calls, ledger.entry("allreduce").bytes

    (found, *_), (expected, *_) = (launch(spoken, 4, backend) for backend in ("stacked", "lockstep"))
    assert found == expected
    assert found[0] == 5 * 2 * 2


def test_groups_are_stretches_of_the_rows_at_hand() -> None:
    comm = four()
    pairs, alone, everybody = (comm.split([r // n for r in comm.ranks]) for n in (2, 1, 4))
    uneven = comm.split(np.array([7, 0, 0, 0]))
    with comm.holds([[0], [1, 2], [], [3]]):
        found = [each.row_groups() for each in (pairs, alone, everybody, uneven, comm)]
    assert [None if each is None else each.tolist() for each in found] == [
        [0, 3, 4], [0, 1, 3, 3, 4], None, [0, 1, 4], None,
    ]  # fmt: skip
    assert [each.holders.size for each in (pairs, everybody)] == [1, 1]
    assert pairs.row_groups() is None  # all rows are of one rank, for all that anybody has said


@pytest.mark.parametrize(
    ("color", "message"),
    [
        (0, "got 0, expected a whole number >= 0 for each of the ranks 0 to 3"),
        (None, "got None"),
        ([0, 0, 1], r"got \[0, 0, 1\]"),
        ([0, 0, 1, None], "None"),
        ([0, 0, -1, 1], "-1"),
        ([0.0, 0.0, 1.0, 1.0], "whole number"),
        ("abcd", "'abcd'"),
        ([0, 1, 0, 1], "color 0 on ranks that are no stretch"),
    ],
)
def test_colors_that_make_no_stretches_are_refused(color: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"color: .*{message}"):
        four().split(color)


def test_groups_keep_their_order_and_are_not_split_again() -> None:
    with pytest.raises(ArgumentError, match="key 1"):
        four().split([0, 0, 1, 1], key=1)
    with pytest.raises(ArgumentError, match="of a group"):
        four().split([0, 0, 1, 1]).split([0, 1, 2, 3])


@pytest.mark.parametrize("colors", [[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0], [5, 2, 2, 2]])
def test_groups_train_as_groups_of_ranks_that_run_by_themselves(colors: list[int]) -> None:
    def main(comm: Communicator) -> dict:
        group = comm.split(colors if comm.backend == "stacked" else colors[comm.rank])
        return stacked.trained(group, "sync", "uneven", "adam", comm)

    (found, *_), expected = (launch(main, 4, backend) for backend in ("stacked", "lockstep"))
    stacked.compare(found, expected)


@pytest.mark.parametrize("alone", [SerialCommunicator, lambda: LedgerCommunicator(SerialCommunicator())])
def test_a_synchronised_layer_without_ranks_to_share_with_is_each_ranks_own(alone: Callable[[], Communicator]) -> None:
    """The default of `comm`, and what `revert_sync_batchnorm` leaves: a rank alone, not all that happen to be at hand."""

    def main(comm: Communicator) -> dict:
        return stacked.trained(alone(), "sync", "uneven", "adam", comm)

    (found, *_), expected = (launch(main, 4, backend) for backend in ("stacked", "lockstep"))
    stacked.compare(found, expected)
    by_holders = launch(lambda comm: stacked.trained(comm.holders, "sync", "uneven", "adam", comm), 4, "stacked")[0]
    union = launch(stacked.trained, 4, "stacked", args=("sync", "uneven", "adam"))[0]
    stacked.compare(by_holders, [union])


def test_averages_over_some_of_the_ranks_at_hand_are_refused() -> None:
    comm = four()
    for part in (comm.split([0, 0, 1, 1]), SerialCommunicator()):
        with comm.holds([[0, 1]] * 4), pytest.raises(ArgumentError, match=r"comm of AveragedBatchNorm.*lockstep"):
            nn.AveragedBatchNorm(2, comm=part)(np.ones((8, 2), np.float32))


def test_one_row_of_a_rank_has_no_variance_on_stacked_ranks_either() -> None:
    comm, layer = four(), nn.BatchNorm(2)
    with comm.holds([[0, 1], [2], [], [3, 4]]), pytest.raises(CountError, match="BatchNorm"):
        layer(np.ones((5, 2), np.float32))


def test_statistics_by_rank_are_not_used_on_rows_of_nobody() -> None:
    comm, layer, x = four(), nn.BatchNorm(2, dtype=np.float64), np.random.default_rng(0).normal(size=(8, 2))
    with comm.holds([[0, 1], [2, 3], [4, 5], [6, 7]]):
        layer(x)
        layer.eval()
        assert layer(x).shape == x.shape  # whose they are is known
    with pytest.raises(Exception, match="with_averaged_statistics"):
        layer(x)
    assert train.with_averaged_statistics(layer, comm, 1)(x).shape == x.shape


def test_statistics_by_rank_are_averaged_before_or_after_a_layer_is_converted() -> None:
    comm, layer, x = four(), nn.BatchNorm(2, dtype=np.float64), np.random.default_rng(0).normal(size=(9, 2))
    rows, seen = [[0, 1], [2, 3], [4, 5], [6, 7, 8]], [2, 2, 2, 3]
    model = nn.Sequential(layer)
    with comm.holds(rows):
        model(x)
    nn.clear_contexts(model)
    before = train.with_averaged_statistics(model, comm, seen).state_dict()
    nn.convert_sync_batchnorm(model, comm)
    with comm.holds(rows), pytest.raises(ShapeError, match=r"those of 4 ranks, each with its own.*with_averaged"):
        model(x)  # for which rank would it go on?
    joined = train.with_averaged_statistics(model, comm, seen)
    for name, value in joined.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    with comm.holds(rows):
        joined(x)
    assert joined[0].running_mean.shape == (2,)


@pytest.mark.parametrize("processes", [1, 2])
def test_stacked_inside_processes(processes: int) -> None:
    """Contract, refusals, groups, and fifty steps of every norm, against lockstep ranks: tests/suites/stacked_program.py."""
    done = run_mpi(processes, "tests/suites/stacked_program.py", seconds=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "results,", *map(str, range(len(stacked.CASES))), "equal"]


def test_a_function_that_talks_by_itself_is_refused_inside_processes_too() -> None:
    done = run_mpi(2, "-c", "from syncbn_sim.comm import launch; launch(lambda c: c.barrier(), 4, 'stacked')")
    assert done.returncode != 0
    assert "stacked ranks: got barrier of a rank by itself" in done.stderr
    assert re.search(r"ranks (0-1|2-3)", done.stderr)
    done = run_mpi(2, "-c", "from syncbn_sim.comm import launch; launch(print, 3, 'stacked')")
    assert done.returncode != 0
    assert "or a multiple of it" in done.stderr
