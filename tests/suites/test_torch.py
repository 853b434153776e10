"""The same numbers as torch.nn.BatchNorm on the union of all ranks, for all constructor options."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from syncbn_sim import nn
from syncbn_sim.comm import launch

torch = pytest.importorskip("torch")
SHAPES = {"1d": (12, 3), "1d sequences": (6, 3, 4), "2d": (5, 3, 4, 2), "3d": (4, 3, 2, 3, 2)}
TORCH = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}
TOLERANCE = {np.float64: 1e-11, np.float32: 3e-6}


def both(shape, options, dtype):
    rng = np.random.default_rng(0)
    theirs = TORCH[len(shape)](3, dtype=getattr(torch, np.dtype(dtype).name), **options)
    if options["affine"]:
        with torch.no_grad():
            theirs.weight.copy_(torch.tensor(rng.uniform(0.5, 2, 3)))
            theirs.bias.copy_(torch.tensor(rng.normal(size=3)))
    state = {name: value.detach().numpy().copy() for name, value in theirs.state_dict().items()}
    steps = [((rng.normal(size=shape) * 2 + 3).astype(dtype), rng.normal(size=shape).astype(dtype)) for _ in range(3)]
    return theirs, state, steps


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("eps", "momentum", "affine", "tracks"),
    list(itertools.product((1e-5, 1e-2), (0.1, 0.7, None), (True, False), (True, False))),
)
def test_equals_torch_on_the_union(shape, eps, momentum, affine, tracks, dtype) -> None:
    options = {"eps": eps, "momentum": momentum, "affine": affine, "track_running_stats": tracks}
    theirs, state, steps = both(SHAPES[shape], options, dtype)

    def on_rank(comm):
        ours = nn.SyncBatchNorm(3, dtype=dtype, comm=comm, **options)
        ours.load_state_dict(state)
        rows = np.split(np.arange(SHAPES[shape][0]), [1, 1])[comm.rank]
        return [(ours(x[rows]), ours.backward(dy[rows])) for x, dy in steps], ours

    ranks = launch(on_rank, 3)
    for k, (x, dy) in enumerate(steps):
        given = torch.tensor(x, requires_grad=True)
        y = theirs(given)
        y.backward(torch.tensor(dy))
        for ours, truth in ((0, y), (1, given.grad)):
            joined = np.concatenate([outputs[k][ours] for outputs, _ in ranks])
            np.testing.assert_allclose(
                joined, truth.detach().numpy(), atol=TOLERANCE[dtype] * float(truth.detach().abs().max()), rtol=0
            )
    if affine:
        for name in ("weight", "bias"):
            total = sum(getattr(layer, name).grad for _, layer in ranks)
            truth = getattr(theirs, name).grad.numpy()
            np.testing.assert_allclose(total, truth, atol=10 * TOLERANCE[dtype] * np.abs(truth).max(), rtol=0)
    ours = ranks[0][1]
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=TOLERANCE[dtype])
    theirs.eval()
    ours.eval()
    if tracks:
        np.testing.assert_allclose(
            ours(steps[0][0]), theirs(torch.tensor(steps[0][0])).detach().numpy(), atol=10 * TOLERANCE[dtype]
        )
