"""Every layer against PyTorch's own: two steps of training, gradients, state by its names, and evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from suites.layers import Layer, built


def check_against_torch(row: Layer) -> None:
    if isinstance(row.oracle, str):
        assert row.oracle, "a layer without an oracle says why"
        return
    torch = pytest.importorskip("torch")
    rng, ours, theirs = np.random.default_rng(16), built(row), row.oracle(torch).double()
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for training in (True, True, False):
        ours.train(training).zero_grad()
        theirs.train(training).zero_grad()
        x = rng.normal(size=row.shape) * 2 + 3
        y, given = ours(x), torch.tensor(x, requires_grad=True)
        truth = theirs(given)
        dy = rng.normal(size=y.shape)
        truth.backward(torch.tensor(dy))
        pairs = [(y, truth), (ours.backward(dy), given.grad)]
        pairs += [(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
        pairs += zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        for found, expected in pairs:
            expected = expected.detach().numpy()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * max(np.abs(expected).max(), 1))
    back = built(row, seed=8)
    back.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    np.testing.assert_allclose(back.eval()(x), y, rtol=0, atol=1e-11 * np.abs(y).max())


CHECKS = {"oracle": check_against_torch}
