"""The seams of batch norm: whoever changes what is normalised with is synchronised by one mixin; a monitor sees both moments."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest

from syncbn_sim import nn
from syncbn_sim.comm import LedgerCommunicator, SerialCommunicator, launch
from syncbn_sim.errors import ArgumentError
from syncbn_sim.functional.batch_norm import BackwardSums
from syncbn_sim.nn.batch_norm import Statistics

RNG = np.random.default_rng(5)
F64 = {"dtype": np.float64}
UNEVEN = [4, 1, 0, 3]


@pytest.mark.parametrize(("kind", "n"), [(nn.BatchNorm, None), (nn.SyncBatchNorm, 8), (nn.AveragedBatchNorm, 8)])
def test_statistics_say_how_many_positions_stand_behind_them(kind, n: int | None) -> None:
    class Noting(kind):
        def statistics(self, moments):
            self.noted = super().statistics(moments)
            return self.noted

    def on_rank(comm):
        layer = Noting(2, **F64, **({} if n is None else {"comm": comm}))
        rows = UNEVEN[comm.rank]
        layer(RNG.normal(size=(rows, 2)), weights=np.full(rows, 2.0))
        return layer.noted.n

    assert launch(on_rank, 4) == [2 * (rows if n is None else n) for rows in UNEVEN]


def test_a_monitor_sees_the_moments_of_training_and_nothing_else() -> None:
    """It may talk: every rank comes to it at the same place."""

    def on_rank(comm):
        x, seen = xs[comm.rank], []
        model = nn.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm(3, **F64), nn.ReLU()), comm)
        model[0].monitor = lambda *given: seen.append((*given, comm.allreduce(given[1].total)))
        model(x)
        model.eval()(x)
        ((layer, local, union, total),) = seen
        assert layer is model[0]
        np.testing.assert_allclose(local.mean, x.mean(0))
        np.testing.assert_allclose(union.mean, np.concatenate(xs).mean(0))
        np.testing.assert_allclose(union.var(), np.concatenate(xs).var(0))
        np.testing.assert_allclose(total, union.total)
        return True

    xs = [RNG.normal(size=(n, 3)) + n for n in (4, 1, 3)]
    assert launch(on_rank, 3) == [True] * 3
    untracked = nn.BatchNorm(3, track_running_stats=False).eval()
    assert untracked.monitor is None
    untracked.monitor = lambda *given: pytest.fail("in evaluation")
    untracked(xs[0])


class Scaled(nn.BatchNorm):
    """A batch norm that decides otherwise: by c times the mean and c^2 times the variance of the batch."""

    c = 0.5

    def __init__(self, features: int, c: float = 0.5, **options: object) -> None:
        super().__init__(features, **options)
        self.c = c

    def statistics(self, moments):
        s = super().statistics(moments)
        return s._replace(mean=self.c * s.mean, var=self.c**2 * s.var)


@pytest.mark.parametrize("far", [0.0, 1e9])
def test_a_subclass_with_its_own_statistics_converts(far: float) -> None:
    """Far from 0 as well, where the sums are taken twice."""
    whole, x = Scaled(3, c=1.0 if far else 0.5, eps=0.0, **F64), RNG.normal(size=(8, 3)) + far
    y = whole(x)
    parts = np.split(x, np.cumsum(UNEVEN)[:-1])

    def on_rank(comm):
        ledger = LedgerCommunicator(comm)
        model = nn.convert_sync_batchnorm(nn.Sequential(copy.deepcopy(fresh)), ledger)
        assert isinstance(model[0], Scaled)
        assert isinstance(model[0], nn.SyncBatchNorm)
        return model(parts[comm.rank]), model[0].running_var, ledger.entry("allreduce").calls

    fresh = Scaled(3, c=whole.c, eps=0.0, **F64)
    found = launch(on_rank, 4)
    np.testing.assert_allclose(np.concatenate([y for y, *_ in found]), y, atol=1e-6 if far else 1e-12)
    for _, running_var, calls in found:
        np.testing.assert_allclose(running_var, whole.running_var, rtol=1e-7 if far else 1e-12)
        assert calls == (2 if far else 1)


class Renorm(nn.BatchNorm):
    """Batch renormalisation (Ioffe 2017): y = weight (r x_hat + d) + bias, with r and d constants in the backward pass."""

    class Used(Statistics):
        """Statistics with room for r and d."""

    def statistics(self, moments):
        s = super().statistics(moments)
        std, running_std = np.sqrt(s.var + self.eps), np.sqrt(self.running_var + self.eps)
        r = np.clip(std / running_std, 1 / 3, 3)
        d = np.clip((s.mean - self.running_mean) / running_std, -2, 2)
        used = self.Used(*s._replace(mean=s.mean - d * std / r, var=(std / r) ** 2 - self.eps))
        used.r, used.d = r, d
        return used

    def statistics_backward(self, sums, context):
        """What `x_hat` is to the engine is r x_hat + d to the paper."""
        r, d = context.statistics.r, context.statistics.d
        b = (sums.dy_x_hat - d * sums.dy) / r**2
        return BackwardSums(sums.dy - d * b, b)


def test_renorm_converts() -> None:
    """r and d come from the running statistics of before the pass; backward needs them; what is stored is not what is used."""
    x, dy, weight = RNG.normal(size=(8, 3)) * [0.2, 1, 9] + [0, 1, 5], RNG.normal(size=(8, 3)), RNG.uniform(1, 2, 3)
    rows = np.split(np.arange(8), np.cumsum(UNEVEN)[:-1])

    def on_rank(comm):
        model = nn.convert_sync_batchnorm(nn.Sequential(Renorm(3, **F64)), comm)
        model[0].weight.data = weight.copy()
        mine = rows[comm.rank]
        return model(x[mine]), model.backward(dy[mine]), model[0].running_mean, model[0].running_var

    parts = launch(on_rank, 4)
    std = np.sqrt(x.var(0) + 1e-5)
    running_std = np.sqrt(1 + 1e-5)
    x_hat, r, d = (x - x.mean(0)) / std, np.clip(std / running_std, 1 / 3, 3), np.clip(x.mean(0) / running_std, -2, 2)
    assert r[0] == 1 / 3
    assert d[2] == 2
    np.testing.assert_allclose(np.concatenate([part[0] for part in parts]), weight * (r * x_hat + d), atol=1e-12)
    dx = weight * r / std * (dy - dy.mean(0) - x_hat * (dy * x_hat).mean(0))
    np.testing.assert_allclose(np.concatenate([part[1] for part in parts]), dx, atol=1e-12)
    for _, _, mean, var in parts:
        np.testing.assert_allclose(mean, 0.1 * x.mean(0))
        np.testing.assert_allclose(var, 0.9 + 0.1 * x.var(0, ddof=1))


def test_the_mixin_makes_a_class_of_its_own_too() -> None:
    class SyncScaled(nn.SharedSums, Scaled):
        pass

    ledger = LedgerCommunicator(SerialCommunicator())
    layer = SyncScaled(3, 0.25, comm=ledger, eps=0.1, **F64)
    assert (layer.c, layer.eps, layer.comm) == (0.25, 0.1, ledger)
    layer.backward(layer(RNG.normal(size=(5, 3))))
    assert ledger.entry("allreduce").calls == 2
    other = SerialCommunicator()
    assert nn.convert_sync_batchnorm(nn.Sequential(layer), other)[0].comm is other
    assert type(layer) is SyncScaled
    assert type(nn.revert_sync_batchnorm(nn.Sequential(layer))[0]) is SyncScaled
    assert layer.comm is not other
    averaged = nn.AveragedBatchNorm(3, comm=other)
    assert nn.revert_sync_batchnorm(averaged).comm is other


def test_the_mixin_stands_before_the_norm() -> None:
    with pytest.raises(ArgumentError, match=r"class Behind: .*never be asked, expected SharedSums first"):
        type("Behind", (nn.BatchNorm, nn.SharedSums), {})


@pytest.mark.parametrize("hook", ["sum_forward", "sum_backward"])
def test_a_subclass_with_its_own_sums_is_refused(hook: str) -> None:
    own = type("Own", (nn.BatchNorm,), {hook: lambda self, local: local})
    with pytest.raises(ArgumentError, match=f"layer '0'.*an? Own with its own {hook}"):
        nn.convert_sync_batchnorm(nn.Sequential(own(3)), SerialCommunicator())


def test_options_are_written_once_and_still_shown() -> None:
    local = inspect.signature(nn.BatchNorm).parameters
    for kind in (nn.SyncBatchNorm, nn.AveragedBatchNorm):
        assert list(inspect.signature(kind).parameters) == [*local, "comm"]
        with pytest.raises(TypeError, match="'afine'"):
            kind(3, afine=False)

    class Own(nn.SyncBatchNorm):
        def __init__(self, width: int) -> None:
            super().__init__(width, affine=False)

    assert list(inspect.signature(Own).parameters) == ["width"]
    assert Own(3).weight is None
    layer = nn.SyncBatchNorm(3, 0.5, None, False, False, np.float64, -1)
    assert (layer.eps, layer.momentum, layer.weight, layer.running_mean) == (0.5, None, None, None)
