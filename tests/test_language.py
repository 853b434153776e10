"""The words of the code: how docstrings begin, rates, the names of the two kinds of weights."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest
from conftest import ROOT

FOLDERS = ("syncbn_sim", "benchmarks", "mpi_examples", "notebooks", "docs")
CODE = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
PROSE = [*CODE, *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]

# "Y = ...", "Dx = ...", "D loss_i / ...", "(N, C) as ...", "sum(x) / n": a formula where a word should stand.
FORMULA = re.compile(r"\S+ = |[B-HJ-Zb-hj-z] |\(|\w+\(x|\d+ [-/]|[a-z]\w* (/|\w+ =)|(?!`)[a-z]+_\w+ ")
COUNTED = r"rows?|numbers?|calls?|bytes|seconds|microseconds|once|one|labels?|us|ms|all-reduces?|broadcasts|threads?|batch|each|cost"
UNITS = r"rank|step|round|layer|channel|row|position|call|batch|byte|message|process|user|column|block|collective"
# Not of "how many rows a batch is worth" and the like, where the unit does something.
RATE = re.compile(rf"\b({COUNTED})\s+an?\s+({UNITS})\b(?! (is|has|may|can|needs|brings)\b)")


def begins_with_formula(docstring: str) -> bool:
    return FORMULA.match(docstring) is not None


def meeting(tree: ast.AST) -> list[str]:
    """The functions in which `weight`, a layer's gamma, meets `weights`, which count positions."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and {"weight", "weights"} <= set(names_in(node))
    ]


def names_in(function: ast.FunctionDef) -> list[str]:
    nodes = list(ast.walk(function))
    return [n.id for n in nodes if isinstance(n, ast.Name)] + [n.arg for n in nodes if isinstance(n, ast.arg)]


def test_docstrings_begin_with_words() -> None:
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                said = ast.get_docstring(node) or ""
                assert not begins_with_formula(said), f"{path}: {said.splitlines()[0]}"


@pytest.mark.parametrize(
    "said",
    ["Y = a x + b.", "Dx = a dy.", "dx = a dy.", "D loss_i / d z.", "d loss_i.", "(C,) as (1, C).", "P - y in x."],
)
def test_a_formula_is_noticed(said: str) -> None:
    assert begins_with_formula(said)
    assert not begins_with_formula(f"Computes {said}")


def test_the_linter_leaves_the_case_of_formulas_alone() -> None:
    assert "D403" in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["ignore"]


def test_rates_say_per() -> None:
    for path in PROSE:
        rate = RATE.search(path.read_text())
        assert rate is None, f"{path}: {rate}"


def test_a_rate_is_noticed() -> None:
    for said in ("8 rows a rank", "called once a rank", "one number a\nchannel", "two calls a layer and step"):
        assert RATE.search(said)
    assert not RATE.search("how many rows a batch is worth")


def test_weight_never_meets_weights() -> None:
    for path in (ROOT / "syncbn_sim").rglob("*.py"):
        assert not meeting(ast.parse(path.read_text())), path
    assert meeting(ast.parse("def f(x, weight, weights): ...")) == ["f"]


def test_the_formatter_formats_everything() -> None:
    for path in CODE:
        assert "# fmt:" not in path.read_text(), path
