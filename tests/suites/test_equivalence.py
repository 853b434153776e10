"""SyncBN on R ranks is BN on the union of their batches."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import MPI_CASES, mpi_matrix
from suites import equivalence
from suites.training import fifty_steps

from syncbn_sim.comm import launch

RANKS = [1, 2, 3, 4, 8]


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("check", equivalence.CHECKS)
def test_threads_equal_one_batch(check: str, ranks: int) -> None:
    launch(equivalence.CHECKS[check], ranks, "threads")


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("check", equivalence.CHECKS)
def test_lockstep_equals_one_batch(check: str, ranks: int) -> None:
    launch(equivalence.CHECKS[check], ranks, "lockstep")


@pytest.mark.parametrize("ranks", RANKS)
def test_lockstep_and_threads_have_the_same_bits(ranks: int) -> None:
    threads, lockstep = (launch(fifty_steps, ranks, backend) for backend in ("threads", "lockstep"))
    for a, b in zip(threads, lockstep, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize(("ranks", "crowded"), MPI_CASES)
@pytest.mark.parametrize("check", equivalence.CHECKS)
def test_mpi_equals_one_batch(check: str, ranks: int, crowded: bool) -> None:
    assert mpi_matrix(ranks, crowded)[0][f"equivalence:{check}"] == ""


@pytest.mark.parametrize("ranks", RANKS)
def test_same_seed_same_bits(ranks: int) -> None:
    first, again = (launch(fifty_steps, ranks, "threads") for _ in range(2))
    for state, same in zip(first, again, strict=True):
        for key in state:
            np.testing.assert_array_equal(state[key], same[key])
            np.testing.assert_array_equal(state[key], first[0][key], err_msg="ranks differ")
    if ranks == 1:
        for key, value in launch(fifty_steps, 1, "serial")[0].items():
            np.testing.assert_array_equal(value, first[0][key])


@pytest.mark.parametrize(("ranks", "crowded"), MPI_CASES)
def test_threads_and_mpi_agree_after_fifty_steps(ranks: int, crowded: bool) -> None:
    """To the bit where MPI ranks crowd, since they then sum in rank order too."""
    threads, (report, mpi) = launch(fifty_steps, ranks, "threads")[0], mpi_matrix(ranks, crowded)
    assert report["bits repeat"] == ""
    assert threads.keys() == mpi.keys()
    for key in threads:
        np.testing.assert_allclose(mpi[key], threads[key], rtol=0, atol=0 if crowded else 1e-10)


def test_initial_weights_do_not_depend_on_ranks_and_one_global_batch_is_one_global_batch() -> None:
    """The same 12 rows on 1 rank or on 3 uneven ones give the same weights after a step."""
    from syncbn_sim import nn, optim, train

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)), rng.integers(0, 2, 12).astype(float)

    def once(comm, cuts):
        model = nn.Sequential(
            nn.Linear(4, 5, bias=False, dtype=np.float64),
            nn.SyncBatchNorm(5, dtype=np.float64, comm=comm),
            nn.ReLU(),
            nn.Linear(5, 1, dtype=np.float64),
        )
        mine = slice(cuts[comm.rank], cuts[comm.rank + 1])
        mean = train.step(model, nn.BCEWithLogitsLoss(), optim.SGD(model.parameters(), 1.0), comm, x[mine], y[mine])
        return mean, model.state_dict()

    (whole_loss, whole), *_ = launch(once, 1, args=((0, 12),))
    for loss, state in launch(once, 3, args=((0, 1, 1, 12),)):
        assert abs(loss - whole_loss) < 1e-14
        for key in whole:
            np.testing.assert_allclose(state[key], whole[key], rtol=0, atol=1e-13)
