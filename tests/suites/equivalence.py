"""R ranks against one big batch: outputs, gradients and running statistics, for every way to deal rows to ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from suites.layers import ALIKE, CONVERTED, LAYERS, Layer, built, positions
from suites.reference import batch_norm

from syncbn_sim import nn
from syncbn_sim.comm import Communicator

C, EPS, MOMENTUM = 5, 1e-5, 0.3
TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 2e-6}
Build = Callable[..., nn.BatchNorm]


@dataclass(frozen=True)
class Case:
    """How rows are dealt: `rows(rank, size)` rows of shape `trail` behind the channels."""

    name: str
    rows: Callable[[int, int], int]
    trail: tuple[int, ...] = ()
    weights: str = ""  # "", "mask" or "weights"
    groups: int = 1
    channels_last: bool = False


# At least three rows in all: of two, x_hat is -1 and +1 whatever they are, so that dx vanishes and its relative error means nothing.
CASES = [
    Case("even", lambda r, size: 6),
    Case("uneven", lambda r, size: 3 + 3 * r),
    Case("one_empty", lambda r, size: 0 if r == size // 2 and size > 1 else 4 + r),
    Case("one_row_each", lambda r, size: 1 if size > 2 else 3),
    Case("masked", lambda r, size: 6 + r, weights="mask"),
    Case("weighted", lambda r, size: 6 + r, weights="weights"),
    Case("two_groups", lambda r, size: 4 + r, groups=2),
    Case("images", lambda r, size: 1 + r % 2, trail=(3, 4)),
    Case("volumes_masked", lambda r, size: r + 1, trail=(2, 3, 2), weights="mask"),
    Case("sequences_channels_last", lambda r, size: 2 + r, trail=(7,), channels_last=True),
]


def deal(
    case: Case, size: int, dtype: np.dtype, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """(x, dy, weights) of every rank, drawn alike everywhere; |mean| / sd between 0 and 10. Masked entries are NaN."""
    rng = np.random.default_rng(seed)
    dealt = []
    for r in range(size):
        shape = (case.rows(r, size), C, *case.trail)
        place = np.linspace(-10, 10, C).reshape(1, C, *[1] * len(case.trail))
        x, dy = (rng.normal(size=shape) + place + 0.5 * r).astype(dtype), rng.normal(size=shape).astype(dtype)
        w = None
        if case.weights:
            w = rng.integers(0, 3, (shape[0], *case.trail)).astype(np.float64)
            w = (w > 0).astype(np.float64) if case.weights == "mask" else w * rng.uniform(0.5, 2, w.shape)
            hidden = np.broadcast_to(np.expand_dims(w == 0, 1), shape)
            x[hidden] = dy[hidden] = np.nan
        dealt.append((x, dy, w))
    return dealt


def compare(comm: Communicator, case: Case, dtype: np.dtype, build: Build = nn.SyncBatchNorm) -> dict[str, float]:
    """Runs one training step of the layer on this rank's part; returns the largest error of each quantity over its scale."""
    group = comm.split(comm.rank % case.groups) if case.groups > 1 else comm
    assert group is not None
    members = (
        [r for r in range(comm.size) if r % case.groups == comm.rank % case.groups]
        if case.groups > 1
        else list(range(comm.size))
    )
    dealt = deal(case, comm.size, dtype)
    x, dy, w = dealt[comm.rank]
    rng = np.random.default_rng(99)
    weight, bias = rng.uniform(0.5, 2, C), rng.normal(size=C)
    layer = build(C, eps=EPS, momentum=MOMENTUM, dtype=dtype, comm=group, channel_axis=-1 if case.channels_last else 1)
    layer.weight.data, layer.bias.data = weight.astype(dtype), bias.astype(dtype)

    def turned(a: np.ndarray) -> np.ndarray:
        return np.moveaxis(a, 1, -1) if case.channels_last else a

    y = layer(turned(x), weights=w)
    dx = layer.backward(turned(dy))
    assert y.dtype == dx.dtype == dtype
    if case.channels_last:
        y, dx = np.moveaxis(y, -1, 1), np.moveaxis(dx, -1, 1)
    d_weight, d_bias = (group.allreduce(p.grad.astype(np.float64)) for p in (layer.weight, layer.bias))

    union = [np.concatenate([dealt[r][i] for r in members]) for i in range(2)]
    weights = np.concatenate([dealt[r][2] for r in members]) if case.weights else None
    truth = batch_norm(*union, layer.weight.data.astype(np.float64), layer.bias.data.astype(np.float64), weights, EPS)
    start = sum(len(dealt[r][0]) for r in members[: members.index(comm.rank)])
    mine = slice(start, start + len(x))

    def error(got: np.ndarray, expected: np.ndarray, scale: np.ndarray) -> float:
        return (
            float(np.abs(got - expected).max(initial=0) / np.abs(scale).max())
            if np.isfinite(got).all()
            else float("inf")
        )

    running_mean, running_var = MOMENTUM * truth.mean, (1 - MOMENTUM) + MOMENTUM * truth.unbiased_var
    return {
        "y": error(y, truth.y[mine], truth.y),
        "dx": error(dx, truth.dx[mine], truth.dx),
        "weight gradient": error(d_weight, truth.d_weight, truth.d_weight),
        "bias gradient": error(d_bias, truth.d_bias, truth.d_bias),
        "running mean": error(layer.running_mean, running_mean, running_mean),
        "running var": error(layer.running_var, running_var, running_var),
    }


def check_case(comm: Communicator, case: Case, dtype: np.dtype) -> None:
    errors = compare(comm, case, dtype)
    worst = {name: e for name, e in errors.items() if not e <= TOLERANCE[dtype]}
    assert not worst, f"rank {comm.rank}: {worst}"


def check_layer(comm: Communicator, row: Layer) -> None:
    """A row of the table on all ranks against itself, alone, on the union of their rows: plain, and with weights and masks.

    Outputs, gradients and what is stored. Rows are dealt unevenly, one rank empty, unless the row asks for ranks that are alike.
    """
    rng, trail = np.random.default_rng(17), row.shape[1:]
    rows = [
        4 if row.ranks == ALIKE else 0 if comm.size > 1 and r == comm.size // 2 else 4 + r for r in range(comm.size)
    ]
    mine = slice(sum(rows[: comm.rank]), sum(rows[: comm.rank + 1]))
    copies = comm.size if row.ranks == ALIKE else 1
    for weighted in (False, True):
        shape = (sum(rows) // copies, *trail)
        x = np.concatenate([rng.normal(size=shape) * 2 + 1] * copies)
        w = None
        if weighted:
            one = rng.integers(0, 2, positions(row, shape)) * rng.uniform(0.5, 2, positions(row, shape))
            one[0], one[1], one[2] = 1, 0, 2
            w = np.concatenate([one] * copies)
        whole, layer = built(row), built(row, comm=comm)
        if row.ranks == CONVERTED:
            layer = nn.convert_sync_batchnorm(layer, comm)
        y, own = whole(x, w), layer(x[mine], None if w is None else w[mine])
        dy = rng.normal(size=y.shape)
        pairs = [("y", own, y[mine], y)]
        dx, own = whole.backward(dy), layer.backward(dy[mine])
        pairs += [("dx", own, dx[mine], dx)]
        for i, (p, truth) in enumerate(zip(layer.parameters(), whole.parameters(), strict=True)):
            pairs += [(f"gradient {i}", comm.allreduce(p.grad), truth.grad, truth.grad)]
        stored, truths = layer.state_dict(), whole.state_dict()
        assert stored.keys() == truths.keys()
        pairs += [(name, stored[name], truths[name], truths[name]) for name in truths]
        for name, found, expected, scale in pairs:
            error = np.abs(found - expected).max(initial=0)
            bound = 1e-12 * np.abs(scale).max(initial=1)
            assert error <= bound, f"rank {comm.rank}, weighted {weighted}: {name} is off by {error:.1e}"


CHECKS = {
    f"{case.name}-{dtype}": (lambda comm, c=case, d=dtype: check_case(comm, c, d))
    for case in CASES
    for dtype in TOLERANCE
}
CHECKS |= {f"layer {name}": partial(check_layer, row=row) for name, row in LAYERS.items() if not row.cuts}
