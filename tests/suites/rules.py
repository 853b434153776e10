"""What holds for every layer beside its equations: masks, dtypes, state, pairing, empty batches, silence."""

from __future__ import annotations

from functools import partial
from io import BytesIO

import numpy as np
import pytest
from suites.layers import Layer, built, over_channels, positions

from syncbn_sim import nn
from syncbn_sim.comm import Communicator, LedgerCommunicator, launch
from syncbn_sim.errors import ContextError, DtypeError, ShapeError


def check_what_is_masked_is_never_read(row: Layer, training: bool) -> None:
    """Whatever stands there: one weight a row, and one a position. Rows left out are as good as masked ones."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=row.shape) + 1
    dy = rng.normal(size=built(row)(x).shape)
    for shape in {row.shape[:1], positions(row, row.shape)}:
        w = rng.integers(0, 2, shape)
        w[0], w[1], w[2] = 1, 0, 1
        kept, kept_dy = over_channels(row, w > 0, x), over_channels(row, w > 0, dy)
        found = []
        for noise in (0.0, np.nan, np.inf):
            layer = built(row).train(training)
            y, dx = layer(np.where(kept, x, noise), w), layer.backward(np.where(kept_dy, dy, noise))
            found.append([y, dx, *(p.grad for p in layer.parameters()), *layer.state_dict().values()])
            assert (y[~kept_dy] == 0).all()
            assert (dx[~kept] == 0).all()
            assert (y[kept_dy] != 0).any()
            assert (dx[kept] != 0).any()
        for others in found[1:]:
            for array, other in zip(found[0], others, strict=True):
                np.testing.assert_array_equal(array, other)
        if w.ndim == 1 and not row.cuts:
            layer, rows = built(row).train(training), w > 0
            y, dx = layer(x[rows]), layer.backward(dy[rows])
            gradients, state = [p.grad for p in layer.parameters()], layer.state_dict().values()
            masked = [found[0][0][rows], found[0][1][rows], *found[0][2:]]
            for array, other in zip(masked, [y, dx, *gradients, *state], strict=True):
                np.testing.assert_allclose(array, other, rtol=1e-12, atol=1e-12)


def check_dtypes(row: Layer) -> None:
    """y and dx have the dtype of x, whatever that of the parameters and of dy; what are no floats is refused."""
    rng = np.random.default_rng(12)
    for dtype in (np.float16, np.float32, np.float64):
        for other in (np.float16, np.float32, np.float64):
            layer = built(row, np.float64 if other is np.float64 else np.float32)
            y = layer((300 * rng.normal(size=row.shape)).astype(dtype))
            dx = layer.backward(np.sign(y).astype(other))
            assert y.dtype == dx.dtype == dtype
            assert np.isfinite(y).all()
            assert np.isfinite(dx).all()
    for dtype in (np.int64, np.bool_):
        with pytest.raises(DtypeError, match="astype"):
            built(row)(np.ones(row.shape, dtype))


def check_forward_and_backward_pair_up(row: Layer) -> None:
    """One backward pass for each forward pass that kept something, the last first, dy in the shape of y."""
    rng, layer = np.random.default_rng(13), built(row)
    x, kept = rng.normal(size=row.shape), rng.normal(size=row.shape)
    with nn.no_backward(layer):
        y = layer(x)
    nn.check_no_contexts(layer)
    with pytest.raises(ContextError):
        layer.backward(y)
    for shape in ((1, *y.shape[1:]), (*y.shape[:-1], 1), y.shape[:1], (*y.shape, 1), (len(y) - 1, *y.shape[1:])):
        layer(x)
        with pytest.raises(ShapeError, match=r"dy.*the shape of y"):
            layer.backward(np.ones(shape))
        nn.clear_contexts(layer)
    once, twice, dy = built(row), built(row), rng.normal(size=y.shape)
    once(kept)
    twice(kept)
    twice.backward(np.ones_like(twice(x)))
    np.testing.assert_array_equal(once.backward(dy), twice.backward(dy))
    nn.check_no_contexts(twice)


def check_the_state_goes_round(row: Layer) -> None:
    """Through a file without pickle, after a step: the same names, and the same outputs in evaluation."""
    rng, file = np.random.default_rng(14), BytesIO()
    one, other = built(row), built(row, seed=8)
    one(rng.normal(size=row.shape))
    np.savez(file, **one.state_dict())
    file.seek(0)
    with np.load(file) as state:
        other.load_state_dict(state)
    assert list(other.state_dict()) == list(one.state_dict())
    for name, value in one.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value)
    x = rng.normal(size=row.shape)
    np.testing.assert_array_equal(one.eval()(x), other.eval()(x))


def check_evaluation_moves_nothing(row: Layer) -> None:
    """Training moves running statistics where there are any; evaluation and an empty batch move nothing."""
    rng, layer = np.random.default_rng(15), built(row)
    before = layer.state_dict()

    def moved() -> bool:
        return any((value != before[name]).any() for name, value in layer.state_dict().items())

    x = rng.normal(size=row.shape)
    layer.eval()(x)
    empty = layer.train()(x[:0])
    assert empty.shape[0] == 0
    assert layer.backward(empty).shape == x[:0].shape
    assert all((p.grad == 0).all() for p in layer.parameters())
    assert not moved()
    layer(x)
    buffers = [getattr(module, name) for module in layer.modules() for name in module._buffers]
    assert moved() == any(array is not None for array in buffers)


def check_who_talks(row: Layer) -> None:
    """In training those that say so, each way; in evaluation nobody."""

    def calls(comm: Communicator) -> list[int]:
        ledger = LedgerCommunicator(comm)
        layer, x = built(row, comm=ledger), np.random.default_rng(comm.rank).normal(size=row.shape)
        seen = []
        for training in (True, False):
            y = layer.train(training)(x)
            seen.append(sum(entry.calls for entry in ledger.entries.values()))
            layer.backward(y)
            seen.append(sum(entry.calls for entry in ledger.entries.values()))
        return seen

    for forward, both, after, end in launch(calls, 2, "threads"):
        assert (forward > 0, both > forward) == (row.talks, row.talks)
        assert after == end == both


CHECKS = {
    "masks in training": partial(check_what_is_masked_is_never_read, training=True),
    "masks in evaluation": partial(check_what_is_masked_is_never_read, training=False),
    "dtypes": check_dtypes,
    "pairing": check_forward_and_backward_pair_up,
    "state": check_the_state_goes_round,
    "evaluation moves nothing": check_evaluation_moves_nothing,
    "who talks": check_who_talks,
}
