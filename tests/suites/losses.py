"""The one table of losses, and what holds for each: gradient, masks, sums that add up over ranks, PyTorch's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from suites.gradcheck import assert_gradient

from syncbn_sim import nn

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Loss:
    """One row.

    Attributes:
        build: makes it.
        shape: of the logits, 6 rows.
        labels: of the 6 rows.
        oracle: torch's function of logits, labels and reduction, from `torch.nn.functional`.
    """

    build: Callable[[], nn.Loss]
    shape: tuple[int, ...]
    labels: Array
    oracle: Callable[[Any], Callable[..., Any]]


CLICKS, NUMBERS = np.array([0.0, 1, 1, 0.3, 0, 1]), np.array([0.5, -1, 2, 0.3, 4, 1])
LOSSES = {
    "CrossEntropyLoss": Loss(nn.CrossEntropyLoss, (6, 4), np.array([0, 3, 2, 1, 1, 0]), lambda f: f.cross_entropy),
    "BCEWithLogitsLoss": Loss(nn.BCEWithLogitsLoss, (6,), CLICKS, lambda f: f.binary_cross_entropy_with_logits),
    "BCEWithLogitsLoss of a column": Loss(
        nn.BCEWithLogitsLoss, (6, 1), CLICKS, lambda f: f.binary_cross_entropy_with_logits
    ),
    "MSELoss": Loss(nn.MSELoss, (6,), NUMBERS, lambda f: f.mse_loss),
    "MSELoss of a column": Loss(nn.MSELoss, (6, 1), NUMBERS, lambda f: f.mse_loss),
}


def without_row() -> set[str]:
    """The public losses that no row builds."""
    public = {getattr(nn, name) for name in nn.__all__}
    losses = {each for each in public if isinstance(each, type) and issubclass(each, nn.Loss)}
    return {each.__name__ for each in losses - {type(row.build()) for row in LOSSES.values()} - {nn.Loss}}


def drawn(row: Loss) -> Array:
    return np.random.default_rng(21).normal(size=row.shape) * 3


def check_gradient(row: Loss, weighted: bool) -> None:
    z, loss = drawn(row), row.build()
    w = np.random.default_rng(22).uniform(0.5, 2, 6) if weighted else None
    _, count = loss(z, row.labels, w)
    assert count == (6 if w is None else w.sum())
    assert_gradient(lambda: loss(z, row.labels, w)[0], z, loss.backward())


def check_masks(row: Loss) -> None:
    """A masked row's logits and label may be anything; the loss is that of the other rows."""
    z, loss, kept = drawn(row), row.build(), np.array([1, 0, 1, 1, 0, 1]) > 0
    expected = loss(z[kept], row.labels[kept])
    gradient = loss.backward()
    z[~kept] = np.nan
    found = loss(z, np.where(kept, row.labels, -77), kept.astype(float))
    dz = loss.backward()
    assert found == (pytest.approx(expected[0], rel=1e-14), expected[1])
    np.testing.assert_allclose(dz[kept], gradient, rtol=1e-14)
    assert (dz[~kept] == 0).all()


def check_ranks_add_up(row: Loss) -> None:
    """Sum and count of uneven parts, one of them empty, are those of the whole; the gradient too."""
    z, loss = drawn(row), row.build()
    whole, dz = np.array(loss(z, row.labels)), loss.backward()
    total, parts = np.zeros(2), []
    for rows in (slice(0, 4), slice(4, 4), slice(4, 6)):
        total += loss(z[rows], row.labels[rows])
        parts.append(loss.backward())
    np.testing.assert_allclose(total, whole, rtol=1e-14)
    np.testing.assert_allclose(np.concatenate(parts), dz, rtol=1e-14)


def check_dtypes(row: Loss) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        loss = row.build()
        loss(drawn(row).astype(dtype), row.labels)
        assert loss.backward().dtype == dtype


def check_against_torch(row: Loss) -> None:
    torch = pytest.importorskip("torch")
    z, loss = drawn(row), row.build()
    labels = row.labels if row.labels.dtype.kind == "i" else row.labels.reshape(row.shape)
    given = torch.tensor(z, requires_grad=True)
    truth = row.oracle(torch.nn.functional)(given, torch.tensor(labels), reduction="sum")
    truth.backward()
    assert loss(z, row.labels)[0] == pytest.approx(float(truth.detach()), rel=1e-13)
    np.testing.assert_allclose(loss.backward(), given.grad.numpy(), rtol=1e-12, atol=1e-14)


CHECKS = {
    "gradient": partial(check_gradient, weighted=False),
    "gradient with weights": partial(check_gradient, weighted=True),
    "masks": check_masks,
    "ranks": check_ranks_add_up,
    "dtypes": check_dtypes,
    "oracle": check_against_torch,
}
