"""Every rule for losses, on every loss of the table; and no public loss without a row."""

from __future__ import annotations

import numpy as np
import pytest
from suites.losses import CHECKS, LOSSES, without_row

from syncbn_sim import nn


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("check", CHECKS)
def test_loss(name: str, check: str) -> None:
    CHECKS[check](LOSSES[name])


def test_every_public_loss_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_row() == set()
    monkeypatch.setattr(nn, "HuberLoss", type("HuberLoss", (nn.MSELoss,), {}), raising=False)
    monkeypatch.setattr(nn, "__all__", [*nn.__all__, "HuberLoss"])
    assert without_row() == {"HuberLoss"}


def test_losses_do_not_overflow() -> None:
    total, _ = nn.BCEWithLogitsLoss()(np.array([1000.0, -1000.0]), np.array([1.0, 1.0]))
    assert total == 1000.0
    total, _ = nn.CrossEntropyLoss()(np.array([[1000.0, 0.0]]), np.array([1]))
    assert total == 1000.0
