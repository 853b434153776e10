"""Bugs that real systems have had, planted one at a time: the named check must go red, and it must be green without the bug."""

from __future__ import annotations

import numpy as np
import pytest
from suites import equivalence

from syncbn_sim import nn, optim, stats, train
from syncbn_sim.comm import launch
from syncbn_sim.functional.batch_norm import BackwardSums
from syncbn_sim.stats.moments import Moments


class MeanOfMeans(nn.SyncBatchNorm):
    def sum_forward(self, local):
        share = np.array([1.0 if local.count else 0.0])
        mean, var = (local.mean, local.var()) if local.count else (np.zeros(local.total.size),) * 2
        ranks, n = self.comm.allreduce(share)[0], self.comm.allreduce(np.array([local.count]))[0]
        mean, var = self.comm.allreduce(share * mean) / ranks, self.comm.allreduce(share * var) / ranks
        return Moments.about(mean, n * var, n)


class LocalCountInRunningVar(nn.SyncBatchNorm):
    def sum_forward(self, local):
        self._n = max(local.count, 2)
        return super().sum_forward(local)

    def statistics(self, moments):
        s = super().statistics(moments)
        return s._replace(stored_var=s.var * self._n / (self._n - 1))


class LocalCountInDx(nn.SyncBatchNorm):
    def statistics_backward(self, sums, context):
        return BackwardSums(*(a * context.statistics.n / context.local.count for a in sums))


class LostBackwardAllReduce(nn.SyncBatchNorm):
    def sum_backward(self, local):
        return local


class LostForwardAllReduce(nn.SyncBatchNorm):
    def sum_forward(self, local):
        return local


class ForgottenWeight(nn.SyncBatchNorm):
    def _backward(self, dy, context):
        return super()._backward(dy, context._replace(weight=np.ones_like(context.weight)))


class WorldSizeFactor(nn.SyncBatchNorm):
    def sum_backward(self, local):
        return BackwardSums(*(a * self.comm.size for a in super().sum_backward(local)))


class GradientsReducedTwice(nn.SyncBatchNorm):
    def backward(self, dy):
        dx = super().backward(dy)
        self.weight.grad = self.comm.allreduce(self.weight.grad)
        return dx


class MaskIgnored(nn.SyncBatchNorm):
    def __call__(self, x, weights=None):
        return super().__call__(np.nan_to_num(x), None)

    def backward(self, dy):
        return super().backward(np.nan_to_num(dy))


class OnePassFloat32(nn.SyncBatchNorm):
    def _forward(self, x, counts):
        self._x = x
        return super()._forward(x, counts)

    def sum_forward(self, local):
        axes = (0, *range(2, self._x.ndim))
        return super().sum_forward(
            Moments(local.count, self._x.sum(axes).astype(float), (self._x**2).sum(axes).astype(float))
        )


def errors(build, case: str, dtype=np.float64, ranks: int = 4) -> dict[str, float]:
    """The worst error over ranks of each quantity, as the equivalence suite measures it."""
    chosen = next(c for c in equivalence.CASES if c.name == case)
    found = launch(equivalence.compare, ranks, "threads", args=(chosen, np.dtype(dtype), build))
    return {name: max(each[name] for each in found) for name in found[0]}


@pytest.mark.parametrize(
    ("bug", "case", "red"),
    [
        (MeanOfMeans, "uneven", "y"),
        (LocalCountInRunningVar, "uneven", "running var"),
        (LocalCountInDx, "uneven", "dx"),
        (LostBackwardAllReduce, "even", "dx"),
        (LostForwardAllReduce, "even", "y"),
        (ForgottenWeight, "even", "dx"),
        (WorldSizeFactor, "even", "dx"),
        (GradientsReducedTwice, "even", "weight gradient"),
        (MaskIgnored, "masked", "y"),
    ],
)
def test_planted_bug_turns_its_check_red(bug: type, case: str, red: str) -> None:
    assert errors(nn.SyncBatchNorm, case)[red] < 1e-12
    assert errors(bug, case)[red] > 1e-3


def test_planted_bug_group_ignored() -> None:
    """A layer that talks over the world instead of its group: the two-groups case must notice."""
    case = next(c for c in equivalence.CASES if c.name == "two_groups")

    def on_rank(comm):
        return equivalence.compare(
            comm,
            case,
            np.dtype(np.float64),
            lambda *a, comm=None, world=comm, **k: nn.SyncBatchNorm(*a, comm=world, **k),
        )

    assert errors(nn.SyncBatchNorm, "two_groups")["y"] < 1e-12
    assert max(found["y"] for found in launch(on_rank, 4, "threads")) > 1e-3


def variance_error(build, ranks: int) -> float:
    """Largest relative error of the variance of float32 data at |mean| / sd = 1e4, against float64 on the same numbers."""
    x = (np.random.default_rng(3).normal(size=(4096, 4)) + 1e4).astype(np.float32)
    truth = np.var(x.astype(np.float64), axis=0, ddof=1)

    def on_rank(comm):
        bn = build(4, momentum=1.0, dtype=np.float64, comm=comm)
        bn(np.array_split(x, comm.size)[comm.rank])
        return np.abs(bn.running_var / truth - 1).max()

    return max(launch(on_rank, ranks, "threads"))


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_variance_is_accurate_far_from_zero(ranks: int) -> None:
    assert variance_error(nn.SyncBatchNorm, ranks) < 1e-6


def test_planted_bug_one_pass_float32() -> None:
    assert variance_error(OnePassFloat32, 8) > 1e-2


def test_planted_bug_gradients_reduced_twice_in_the_step() -> None:
    """The same at the level of a whole step: R ranks with a double reduction move R times as far."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)), rng.integers(0, 3, 12)

    def moved(comm, layer):
        model = nn.Sequential(layer(4, comm=comm, dtype=np.float64), nn.Linear(4, 3, dtype=np.float64))
        rows = np.array_split(np.arange(12), comm.size)[comm.rank]
        train.step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 1.0), comm, x[rows], y[rows])
        return model[0].weight.data - 1

    one, four = (launch(moved, ranks, args=(nn.SyncBatchNorm,))[0] for ranks in (1, 4))
    np.testing.assert_allclose(four, one, rtol=1e-12)
    twice = launch(moved, 4, args=(GradientsReducedTwice,))[0]
    np.testing.assert_allclose(twice, 4 * one, rtol=1e-12)


def test_planted_bug_nan_behind_the_mask_is_noticed() -> None:
    x = np.random.default_rng(0).normal(size=(6, 2))
    mask = np.array([1, 1, 0, 1, 1, 1])
    x[2] = np.nan
    assert np.isfinite(stats.Moments.of(x, weights=mask).total).all()
    assert not np.isfinite((mask[:, None] * x).sum(0)).any()  # what multiplying by the mask would have given
