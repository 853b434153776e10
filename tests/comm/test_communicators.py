"""The contract of communicators, on every backend."""

from __future__ import annotations

import re
import runpy
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import MPI_CASES, ROOT, mpi_matrix
from suites import contract

from syncbn_sim.comm import Communicator, LedgerCommunicator, launch, schedules
from syncbn_sim.comm.launch import BACKENDS
from syncbn_sim.comm.mpi.checked import CheckedCommunicator
from syncbn_sim.errors import ArgumentError, DeadlockError, LaunchError

BY_MPIRUN = {"mpi", "hybrid"}  # see test_contract_mpi below, and test_hybrid.py
BY_HOLDERS = {"stacked"}  # whose ranks do not talk one by one: test_stacked.py
OTHER_RANKS = {"serial": [1], "lockstep": [1, 2, 3, 4, 8, 33]}


def in_contract() -> list[tuple[str, int]]:
    """(backend, ranks) of whatever has a row in the table and starts its ranks itself."""
    own = [backend for backend in BACKENDS if backend not in BY_MPIRUN | BY_HOLDERS]
    return [(backend, ranks) for backend in own for ranks in OTHER_RANKS.get(backend, [1, 2, 3, 4, 8])]


@pytest.mark.parametrize(("backend", "ranks"), in_contract())
@pytest.mark.parametrize("check", contract.CHECKS)
def test_contract(check: str, backend: str, ranks: int) -> None:
    launch(contract.CHECKS[check], ranks, backend)


@pytest.fixture
def backend_of_the_page(tmp_path: Path) -> Iterator[str]:
    """A backend out of docs/howto/new_communicator.md, as a file of its own, with its row."""
    page = (ROOT / "docs/howto/new_communicator.md").read_text()
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "BACKENDS[" in block]
    (tmp_path / "barrier.py").write_text(block)
    before = dict(BACKENDS)
    runpy.run_path(str(tmp_path / "barrier.py"))
    (name,) = BACKENDS.keys() - before.keys()
    yield name
    BACKENDS.clear()
    BACKENDS.update(before)


def test_a_new_backend_is_a_file_and_a_row(backend_of_the_page: str) -> None:
    """And then it is in the contract, which it keeps."""
    assert launch(lambda comm: comm.backend, 2, backend_of_the_page) == [backend_of_the_page] * 2
    cases = [(backend, ranks) for backend, ranks in in_contract() if backend == backend_of_the_page]
    assert len(cases) == 5
    for _, ranks in cases:
        for check in contract.CHECKS.values():
            launch(check, ranks, backend_of_the_page)

    def fail(comm: Communicator) -> None:
        if comm.rank == 1:
            raise ZeroDivisionError("of rank 1")
        comm.barrier()

    with pytest.raises(ZeroDivisionError, match="of rank 1"):
        launch(fail, 3, backend_of_the_page)
    with pytest.raises(ArgumentError, match=f"hybrid, {backend_of_the_page}"):
        launch(fail, 3, "barier")


WRAPPERS = {"ledger": LedgerCommunicator, "checked": CheckedCommunicator}
WRAPPERS |= {name: partial(schedules.using, name=name) for name in schedules.SCHEDULES}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("check", contract.CHECKS)
def test_contract_wrappers(check: str, wrapper: str) -> None:
    launch(lambda comm: contract.CHECKS[check](WRAPPERS[wrapper](comm)), 3, "threads")


@pytest.mark.parametrize(("ranks", "crowded"), MPI_CASES)
@pytest.mark.parametrize("check", contract.CHECKS)
def test_contract_mpi(check: str, ranks: int, crowded: bool) -> None:
    report, _ = mpi_matrix(ranks, crowded)
    assert report[f"contract:{check}"] == ""
    assert report["shared"] == crowded


def test_threads_sum_in_rank_order() -> None:
    """Numbers whose sum depends on the order: threads must give the bits of the left-to-right sum, every time."""
    parts = [np.random.default_rng(r).normal(size=1000) * 10.0 ** (3 * r) for r in range(5)]
    expected = (((parts[0] + parts[1]) + parts[2]) + parts[3]) + parts[4]
    backwards = (((parts[4] + parts[3]) + parts[2]) + parts[1]) + parts[0]
    assert (expected != backwards).any()
    for result in launch(lambda comm: comm.allreduce(parts[comm.rank]), 5, "threads"):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("backend", "ranks"), [("serial", 1), ("threads", 3), ("lockstep", 3)])
def test_launch_passes_arguments_and_collects_by_rank(backend: str, ranks: int) -> None:
    found = launch(lambda comm, a, b: (comm.rank, a, b), ranks, backend, args=(1,), kwargs={"b": 2})
    assert found == [(rank, 1, 2) for rank in range(ranks)]


def test_launch_chooses_the_backend() -> None:
    assert launch(lambda comm: comm.backend) == ["serial"]
    assert launch(lambda comm: comm.backend, 2) == ["threads", "threads"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ranks": 0}, ArgumentError, "ranks: got 0"),
        ({"ranks": 2.5}, ArgumentError, "whole number"),
        ({"backend": "gpu"}, ArgumentError, "'gpu'"),
        ({"ranks": 2, "backend": "serial"}, ArgumentError, "threads"),
        ({"ranks": 3, "backend": "mpi"}, LaunchError, "mpirun -n 3"),
    ],
)
def test_launch_refuses(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    if arguments.get("backend") == "mpi":
        pytest.importorskip("mpi4py")
        from conftest import run_mpi  # a lone MPI process, kept out of this one

        done = run_mpi(1, "-c", "from syncbn_sim.comm import launch; launch(print, 3, 'mpi')")
        assert done.returncode != 0
        assert message in done.stderr
        return
    with pytest.raises(error, match=message):
        launch(lambda comm: None, **arguments)


@pytest.mark.parametrize("results", [[0], [0, 1, 2, 3], 7, {0: 1, 1: 2, 2: 3}])
def test_a_backend_that_returns_another_number_of_results_is_noticed(
    results: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "new", lambda body, ranks, checked: results)
    with pytest.raises(LaunchError, match=r'backend "new": got .* expected a list of 3 results, one per rank'):
        launch(lambda comm: comm.rank, 3, "new")


def test_serial_receive_without_send_is_a_deadlock() -> None:
    with pytest.raises(DeadlockError, match="tag 4"):
        launch(lambda comm: comm.recv(0, tag=4))


def test_ledger_counts_payload_bytes() -> None:
    def talk(comm: Communicator) -> dict[str, tuple[int, int]]:
        ledger = LedgerCommunicator(comm)
        ledger.allreduce(np.ones(129))
        ledger.allreduce(np.ones(2, np.float32))
        group = ledger.split(0)
        assert group is not None
        group.allreduce(np.ones(1))
        ledger.sendrecv(np.ones(10), (comm.rank + 1) % 2, (comm.rank + 1) % 2)
        ledger.allgather(np.ones(1 + 4 * comm.rank))
        ledger.bcast(np.ones(3) if comm.rank == 0 else None)
        ledger.barrier()
        return {op: (entry.calls, entry.bytes) for op, entry in ledger.entries.items()}

    for rank, found in enumerate(launch(talk, 2)):
        assert found == {
            "allreduce": (3, 129 * 8 + 8 + 8),
            "split": (1, 0),
            "send": (1, 80),
            "recv": (1, 80),
            "allgather": (1, 8 + 32 * rank),
            "bcast": (1, 24),
            "barrier": (1, 0),
        }


def test_ledger_adds_up_seconds() -> None:
    def talk(comm: Communicator) -> tuple[float, float]:
        ledger = LedgerCommunicator(comm)
        time.sleep(0.02 * comm.rank)  # rank 0 waits for it
        ledger.barrier()
        first = ledger.entry("barrier").seconds
        ledger.barrier()
        return first, ledger.entry("barrier").seconds

    first, both = launch(talk, 2)[0]
    assert 0.01 < first < both


@pytest.mark.parametrize("wrap", [LedgerCommunicator, CheckedCommunicator])
def test_wrappers_see_a_sum_in_place_as_well(wrap: type) -> None:
    """`out=` goes another way through a wrapper; it must be counted, and compared, all the same."""

    def main(comm):
        inner = LedgerCommunicator(comm)
        outer = wrap(inner)
        packed = np.full(3, 1.0 + comm.rank)
        outer.allreduce(packed, out=packed)
        entry = inner.entry("allreduce")
        calls = outer.calls if wrap is CheckedCommunicator else outer.entry("allreduce").calls
        return packed.tolist(), calls, (entry.calls, entry.bytes)

    compared = (1, 16) if wrap is CheckedCommunicator else (0, 0)  # the hash that is compared first, two int64
    for found, calls, (inner_calls, inner_bytes) in launch(main, 2, "lockstep"):
        assert found == [3.0] * 3
        assert calls == 1
        assert (inner_calls, inner_bytes) == (1 + compared[0], 24 + compared[1])


def test_one_blas_thread_a_rank() -> None:
    pools = pytest.importorskip("threadpoolctl").threadpool_info

    def threads(comm):
        return [pool["num_threads"] for pool in pools() if pool["user_api"] == "blas"]

    found = launch(threads, 2)
    assert found[0]
    assert all(count == 1 for ranks in found for count in ranks)


def test_settings_of_the_caller_hold_on_the_ranks() -> None:
    def divide(comm):
        return np.ones(1) / np.zeros(1)

    for backend, ranks in (("serial", 1), ("threads", 2), ("lockstep", 2)):
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            launch(divide, ranks, backend)
