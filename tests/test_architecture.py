"""The house rules of docs/architecture.md, enforced on the imports; and proof that the enforcer can say no."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

HEAVY = {"mpi4py", "matplotlib", "tqdm", "tyro", "scipy", "sklearn", "threadpoolctl", "greenlet", "polars"}
MAY_IMPORT_AT_TOP = {
    "data/tables.py": {"polars"},
    "cli/logs.py": {"tyro"},
    "cli/main.py": {"tyro"},
    "cli/options.py": {"tyro"},
    "cli/run.py": {"tyro"},
}


def listed() -> list[str]:
    """Files in the order of the house, as "stats/moments.py"."""
    block = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    files, folder = [], ""
    for line in block.splitlines()[2:]:
        name = line.split()[0]
        if re.match(r"  \S", line):
            folder = name if name.endswith("/") else ""
        if name.endswith(".py"):
            files.append(folder + name)
    return files


def imports(tree: ast.AST, file: str) -> list[tuple[str, bool]]:
    """(imported module, is it at the top level and not for types only) with relative imports made absolute."""
    package = ["syncbn_sim", *file.split("/")[:-1]]
    top = {id(node) for node in getattr(tree, "body", [])}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]  # `from . import a` is an import of a alone
            found += [(name, id(node) in top) for name in ([module, *names] if node.module else names)]
    return found


def violations(file: str, source: str, order: list[str]) -> list[str]:
    """Every import of `file` that goes downwards, is not listed, or is heavy at the top."""
    problems = []
    place = {name: i for i, name in enumerate(order)}
    for module, top in imports(ast.parse(source), file):
        if module.split(".")[0] in HEAVY and top and module.split(".")[0] not in MAY_IMPORT_AT_TOP.get(file, set()):
            problems.append(f"{file} imports {module} at the top")
        path = "/".join(module.split(".")[1:])
        if module.split(".")[0] != "syncbn_sim" or not path:
            continue
        if f"{path}.py" in place and place[f"{path}.py"] >= place[file]:
            problems.append(f"{file} imports {module}, which stands below it")
        inside = [name for name in order if name.startswith(f"{path}/")]
        if inside and place[inside[-1]] >= place[file]:
            problems.append(f"{file} imports the folder {module}, which does not stand above it")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            problems.append(f"{file}:{node.lineno} calls something on import")
    return problems


def test_the_list_is_complete() -> None:
    files = {
        str(p.relative_to(ROOT / "syncbn_sim")) for p in (ROOT / "syncbn_sim").rglob("*.py") if p.name != "__init__.py"
    }
    assert sorted(files) == sorted(listed())


@pytest.mark.parametrize("file", listed())
def test_imports_go_one_way(file: str) -> None:
    assert violations(file, (ROOT / "syncbn_sim" / file).read_text(), listed()) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("stats/moments.py", "from ..comm.base import Communicator"),
        ("stats/moments.py", "from .running import updated"),
        ("nn/batch_norm.py", "from .sync_batch_norm import SyncBatchNorm"),
        ("functional/linear.py", "from .. import nn"),
        ("functional/batch_norm.py", "from . import kernels"),
        ("comm/mpi.py", "from mpi4py import MPI"),
        ("train/step.py", "import matplotlib.pyplot as plt"),
        ("train/step.py", "def f():\n    from ..experiments import tasks"),
        ("stats/moments.py", "print('hello')"),
        ("report/plots.py", "from ..experiments.norms import COLOURS"),
        ("report/files.py", "def f():\n    from ..experiments import result"),
    ],
)
def test_the_rules_can_be_broken(file: str, source: str) -> None:
    assert violations(file, source, listed())


def test_files_and_functions_are_short() -> None:
    for path in [*(ROOT / "syncbn_sim").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        source = path.read_text()
        assert source.count("\n") <= 300, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False) or ""
                assert node.end_lineno - node.lineno - doc.count("\n") <= 40, f"{path}: {node.name}"


def test_no_pickle_in_files() -> None:
    for path in Path(ROOT / "syncbn_sim").rglob("*.py"):
        source = path.read_text()
        assert "allow_pickle=True" not in source, path
        assert "pickle.dump(" not in source, path
