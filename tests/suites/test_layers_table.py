"""Every rule of the suites, on every layer of the table; and no public layer without a row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from suites import gradients, oracle, rules
from suites.layers import LAYERS, Layer, without_row

from syncbn_sim import nn


def checks(row: Layer) -> dict[str, Callable[[Layer], None]]:
    """The rules for this row, by name."""
    return gradients.checks(row) | rules.CHECKS | oracle.CHECKS


@pytest.mark.parametrize(("name", "check"), [(name, check) for name, row in LAYERS.items() for check in checks(row)])
def test_layer(name: str, check: str) -> None:
    checks(LAYERS[name])[check](LAYERS[name])


def test_every_public_layer_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_row() == set()
    monkeypatch.setattr(nn, "Swish", type("Swish", (nn.ReLU,), {}), raising=False)
    monkeypatch.setattr(nn, "__all__", [*nn.__all__, "Swish"])
    assert without_row() == {"Swish"}
