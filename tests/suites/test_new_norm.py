"""A norm is one file and one row: those of docs/howto/new_norm_layer.md, written to a file and put through the suites."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import re
from collections.abc import Iterator

import pytest
from conftest import ROOT
from suites import equivalence, layers, test_layers_table
from suites.gradients import SMALL
from suites.layers import LAYERS

from syncbn_sim import nn
from syncbn_sim.comm import launch

SHAPES = {
    "OwnRMSNorm": [(5, 4), (3, 2, 4)],
    "BatchRMSNorm": [(5, 4), (3, 4, 2), (3, 4, 3, 2), (40, 4, 60), (6, 4, 40, 30)],
}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A file that holds the page's code, and its rows in the table of layers."""
    text = (ROOT / "docs/howto/new_norm_layer.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    (rows,) = re.findall(r"```{code-block} python\n(.*?)```", text, re.S)
    file = tmp_path_factory.mktemp("page") / "my_norm.py"
    file.write_text("\n".join(["from suites.layers import CONVERTED, LAYERS, Layer", *blocks, rows]))
    spec = importlib.util.spec_from_file_location("my_norm", file)
    module = importlib.util.module_from_spec(spec)
    before = dict(LAYERS)
    spec.loader.exec_module(module)
    assert LAYERS.keys() - before.keys() == SHAPES.keys()
    yield
    LAYERS.clear()
    LAYERS.update(before)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_page_s_layers_keep_every_rule(page: None, name: str, shape: tuple[int, ...]) -> None:
    row = dataclasses.replace(LAYERS[name], shape=shape)
    checks = test_layers_table.checks(row)
    assert ("gradients with weights" in checks) == (math.prod(shape) <= SMALL)
    for check in checks.values():
        check(row)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("backend", ["threads", "lockstep"])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_ranks_equal_one_batch(page: None, name: str, shape: tuple[int, ...], backend: str, ranks: int) -> None:
    row = dataclasses.replace(LAYERS[name], shape=shape)
    launch(equivalence.check_layer, ranks, backend, args=(row,))


def test_made_public_it_needs_its_row(page: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {name: type(layers.built(LAYERS[name])) for name in SHAPES}
    for name, kind in made.items():
        monkeypatch.setattr(nn, name, kind, raising=False)
    monkeypatch.setattr(nn, "__all__", [*nn.__all__, *made])
    assert layers.without_row() == set()
    monkeypatch.delitem(LAYERS, "OwnRMSNorm")
    assert layers.without_row() == {"OwnRMSNorm"}
