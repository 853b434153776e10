"""Every layer of the table on stacked rows: what each rank's own layer gives on its rows, in both directions and in what it stores."""

from __future__ import annotations

import numpy as np
import pytest
from suites.layers import LAYERS, Layer, built, positions

from syncbn_sim.comm import Communicator, launch

ROWS = [4, 0, 6, 5]  # of each rank


def passes(comm: Communicator, row: Layer, weighted: bool) -> dict[str, np.ndarray]:
    """Three passes in training on the rows of this rank, or of all; one in evaluation."""
    rng, layer, found = np.random.default_rng(5), built(row, comm=comm), {}
    cuts = np.cumsum([0, *ROWS])
    parts = tuple(np.arange(cuts[rank], cuts[rank + 1]) for rank in comm.ranks)
    for number in range(3):
        x = rng.normal(size=(sum(ROWS), *row.shape[1:])) * 2 + np.repeat(np.arange(4.0), ROWS).reshape(
            -1, *[1] * (len(row.shape) - 1)
        )
        w = rng.integers(0, 3, positions(row, x.shape)) * rng.uniform(0.5, 2, positions(row, x.shape))
        with comm.holds(parts) as rows:
            y = layer(x[rows], w[rows] if weighted else None)
            cotangent = np.random.default_rng(number).normal(size=(sum(ROWS), *y.shape[1:]))
            found |= {f"y {number}": y, f"dx {number}": layer.backward(cotangent[rows])}
    found["gradients"] = np.concatenate([[0.0], *(p.grad.ravel() for p in layer.parameters())])
    layer.eval()
    with comm.holds(parts) as rows:
        found["y in evaluation"] = layer(x[rows], w[rows] if weighted else None)
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", [name for name, row in LAYERS.items() if not row.cuts])
def test_a_layer_on_stacked_rows_is_that_of_each_rank(name: str, weighted: bool) -> None:
    stacked = launch(passes, len(ROWS), "stacked", args=(LAYERS[name], weighted))[0]
    each = launch(passes, len(ROWS), "lockstep", args=(LAYERS[name], weighted))
    for what, found in stacked.items():
        apart = [one[what] for one in each]
        expected = np.sum(apart, axis=0) if what == "gradients" else np.concatenate(apart)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max(initial=1), err_msg=what)
