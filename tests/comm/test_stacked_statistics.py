"""Whose rows a batch norm takes where ranks are stacked in one array, in evaluation, under a monitor, and where nobody has said it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from syncbn_sim import nn, optim, train
from syncbn_sim.comm import Communicator, launch
from syncbn_sim.errors import ArgumentError, ShapeError, StateDictError
from syncbn_sim.nn.statistics import Statistics
from syncbn_sim.stats import Moments


def bare(comm: Communicator) -> nn.SyncBatchNorm:
    return nn.SyncBatchNorm(2, comm=comm, track_running_stats=False, dtype=np.float64)


@pytest.mark.parametrize("build", [bare, lambda comm: nn.BatchNorm(2, track_running_stats=False, dtype=np.float64)])
def test_without_running_statistics_evaluation_takes_each_ranks_own_batch(build: Callable) -> None:
    """Evaluation never talks, so no rank knows of another one's rows: in evaluation, and as a frozen layer of a net that trains."""
    x, parts = np.random.default_rng(0).normal(size=(7, 2)), ([0, 1, 2], [3, 4], [5, 6], [])

    def main(comm: Communicator) -> list[np.ndarray]:
        layer = build(comm)
        layer.eval()
        with comm.holds(tuple(np.array(parts[rank], int) for rank in comm.ranks)) as rows:
            return [layer(x[rows]), layer.backward(x[rows] ** 2)]

    found, expected = launch(main, 4, "stacked")[0], launch(main, 4, "lockstep")
    for mine, theirs in zip(found, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(mine, np.concatenate(theirs), atol=1e-13)


def test_a_batch_of_rows_of_which_nobody_has_said_whose_they_are_is_refused() -> None:
    """As of a function that takes the rows of `comm.rank` alone: it would get the statistics of all ranks at once, or of the first."""
    x = np.random.default_rng(0).normal(size=(8, 2))

    def shards(comm: Communicator, build: Callable) -> np.ndarray:
        return build(comm)(x[comm.rank :: comm.size])

    def local(comm: Communicator) -> nn.BatchNorm:
        return nn.BatchNorm(2, dtype=np.float64)

    builds = {
        "local": local,
        "frozen": lambda comm: bare(comm).eval(),
        "own": lambda comm: nn.SyncBatchNorm(2, dtype=np.float64),
        "synchronised": lambda comm: nn.SyncBatchNorm(2, comm=comm, dtype=np.float64),
        "of a group": lambda comm: bare(comm.split([0, 0, 1, 1])),
        "averaged": lambda comm: nn.AveragedBatchNorm(2, comm=comm, dtype=np.float64),
    }
    for build in builds.values():
        with pytest.raises(ShapeError, match=r"nobody has said whose they are.*rows of 4 ranks.*comm\.holds"):
            launch(shards, 4, "stacked", args=(build,))
    # nothing of it is left behind, and ranks launched from stacked ones are their own
    assert launch(lambda comm: len(launch(shards, 2, "lockstep", args=(local,))), 4, "stacked") == [2] * 4
    assert launch(lambda comm: launch(shards, 1, args=(local,))[0].shape, 4, "stacked") == [(8, 2)] * 4
    assert local(None)(x).shape == (8, 2)
    # with one set of running statistics it does not matter
    assert launch(lambda comm: local(comm).eval()(x).shape, 4, "stacked") == [(8, 2)] * 4


@pytest.mark.parametrize("norm", [nn.BatchNorm, nn.SyncBatchNorm, nn.AveragedBatchNorm])
def test_a_monitor_sees_each_ranks_moments(norm: type) -> None:
    x, parts = np.random.default_rng(0).normal(size=(9, 2)), ([0, 1, 2], [], [3, 4], [5, 6, 7, 8])

    def main(comm: Communicator) -> list[np.ndarray]:
        seen, talk = [], {} if norm is nn.BatchNorm else {"comm": comm}
        layer = norm(2, dtype=np.float64, **talk)
        layer.monitor = lambda layer, local, moments: seen.extend([local, moments])
        with comm.holds(tuple(np.array(parts[rank], int) for rank in comm.ranks)) as rows:
            layer(x[rows])
        local, moments = seen
        alike = [np.atleast_2d(each) for each in (moments.count, moments.total, moments.total_sq)]
        return [np.hstack([np.atleast_2d(local.count), *map(np.atleast_2d, (local.total, local.total_sq))]), *alike]

    found, expected = launch(main, 4, "stacked")[0], launch(main, 4, "lockstep")
    for mine, theirs in zip(found, zip(*expected, strict=True), strict=True):
        each = np.concatenate(theirs)
        np.testing.assert_allclose(mine, each if len(mine) == 4 else each[:1], atol=1e-12)


def test_a_single_stacked_rank_may_be_converted_while_it_trains() -> None:
    x = np.random.default_rng(0).normal(size=(6, 2)) + 3

    def main(comm: Communicator) -> dict[str, np.ndarray]:
        model = nn.Sequential(nn.BatchNorm(2, dtype=np.float64))
        for turn in (lambda: nn.convert_sync_batchnorm(model, comm), lambda: nn.revert_sync_batchnorm(model), int):
            with comm.holds((np.arange(6),)) as rows:
                model(x[rows])
            turn()
        return model.state_dict()

    found, expected = launch(main, 1, "stacked")[0], launch(main, 1)[0]
    for name, value in expected.items():
        np.testing.assert_array_equal(np.squeeze(found[name]), value)


class OneVariance(nn.BatchNorm):
    """Its mean over the channels would be one over the ranks too."""

    def statistics(self, moments: Moments) -> Statistics:
        s = nn.BatchNorm.statistics(self, moments)
        return s._replace(var=np.full_like(s.var, s.var.mean()))


class Heir(OneVariance):
    """With hooks that it inherits."""


class Mixed(type("Mixin", (), {"statistics": OneVariance.statistics}), nn.BatchNorm):
    """With hooks from elsewhere."""


class LastAxis(OneVariance):
    """Of stretches too."""

    stackable = True

    def statistics(self, moments: Moments) -> Statistics:
        s = nn.BatchNorm.statistics(self, moments)
        return s._replace(var=s.var * 0 + s.var.mean(axis=-1, keepdims=True))


class HeirOfLastAxis(LastAxis):
    """With hooks that it inherits, and what is said of them."""


def normalised(comm: Communicator, kind: type, convert: int) -> np.ndarray:
    """On the rows of each rank; converted to groups of so many ranks, if any."""
    model, x = nn.Sequential(kind(3, dtype=np.float64)), np.random.default_rng(0).normal(size=(12, 3)) * [1, 2, 3]
    if convert:
        color = [rank // convert for rank in comm.ranks]
        nn.convert_sync_batchnorm(model, comm.split(color if comm.backend == "stacked" else color[0]))
    with comm.holds(tuple(np.arange(3 * rank, 3 * rank + 3) for rank in comm.ranks)) as rows:
        return model(x[rows])


@pytest.mark.parametrize("kind", [OneVariance, Heir, Mixed, LastAxis, HeirOfLastAxis])
@pytest.mark.parametrize("convert", [0, 2, 4])
def test_hooks_that_may_know_of_one_batch_only_are_not_given_several(kind: type, convert: int) -> None:
    if convert != 4 and not issubclass(kind, LastAxis):
        with pytest.raises(ArgumentError, match=f"{kind.__name__}.*got [24] stretches.*stackable = True.*lockstep"):
            launch(normalised, 4, "stacked", args=(kind, convert))
        launch(normalised, 1, "stacked", args=(kind, 0))
    else:
        found = launch(normalised, 4, "stacked", args=(kind, convert))[0]
        expected = np.concatenate(launch(normalised, 4, "lockstep", args=(kind, convert)))
        np.testing.assert_allclose(found, expected, atol=1e-13)


def test_statistics_by_rank_in_a_state_dict_are_called_so() -> None:
    """Neither is a model of other sizes: one has statistics for each rank, and one for all."""

    def main(comm: Communicator) -> None:
        trained, fresh = (nn.Sequential(nn.BatchNorm(2, dtype=np.float64)) for _ in range(2))
        with comm.holds(tuple(np.arange(2 * rank, 2 * rank + 2) for rank in comm.ranks)) as rows:
            trained(np.random.default_rng(0).normal(size=(8, 2))[rows])
        one, by_rank = fresh.state_dict(), trained.state_dict()
        for model, state in ((trained, one), (fresh, by_rank)):
            with pytest.raises(
                StateDictError, match=r"stacked ranks\? train.with_averaged_statistics.*reset_running_stats"
            ):
                model.load_state_dict(state)
        trained[0].reset_running_stats()
        trained.load_state_dict(one)
        fresh.load_state_dict(train.with_averaged_statistics(trained, comm, 2).state_dict())

    launch(main, 4, "stacked")


def test_gradients_of_rows_of_which_nobody_has_said_whose_they_are_are_not_summed() -> None:
    """Those of `comm.rank` alone would pass for those of all ranks."""

    def main(comm: Communicator) -> None:
        model, loss, x, y = nn.Linear(2, 2), nn.CrossEntropyLoss(), np.ones((8, 2), np.float32), np.zeros(8, int)
        optimizer = optim.SGD(model.parameters(), 0.1)
        mine = slice(comm.rank, None, comm.size)
        found = loss(model(x[mine]), y[mine])
        model.backward(loss.backward())
        train.sum_gradients(optimizer, *found, comm)

    with pytest.raises(ShapeError, match="nobody has said whose they are"):
        launch(main, 4, "stacked")
    launch(main, 4, "lockstep")
