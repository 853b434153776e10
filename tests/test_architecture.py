"""The house rules of docs/architecture.md, enforced on the imports; and proof that the enforcer can say no."""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run

# Whatever `import syncbn_sim` must do without, which is all but the standard library and NumPy.
LIGHT = {*sys.stdlib_module_names, "numpy", "syncbn_sim"}
MAY_IMPORT_AT_TOP = {
    "data/tables.py": {"polars"},
    "cli/arguments.py": {"tyro"},
    "cli/logs.py": {"tyro"},
    "cli/main.py": {"tyro"},
    "cli/options.py": {"tyro"},
    "cli/run.py": {"tyro"},
    "kernels/compiler.py": {"numba"},
    "kernels/warm.py": {"numba", "llvmlite"},
}
# Where alone these are imported, at the top or not.
HOMES = {
    "mpi4py": "comm/mpi/",
    "greenlet": "comm/lockstep.py",
    "matplotlib": "report/plots.py",
    "polars": "data/tables.py",
    "numba": "kernels/",
}


def in_order(block: str) -> list[str]:
    """The files of a list such as docs/architecture.md has, as "stats/moments.py": a folder is as deep as it is indented."""
    files: list[str] = []
    inside: list[tuple[int, str]] = []  # the folders around a line: indentation and path
    for line in block.splitlines():
        name, indent = line.split()[0], len(line) - len(line.lstrip())
        while inside and inside[-1][0] >= indent:
            inside.pop()
        path = (inside[-1][1] if inside else "") + name
        if name.endswith("/"):
            inside.append((indent, path))
        else:
            files.append(path)
    return files


def listed() -> list[str]:
    """Files in the order of the house."""
    block = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    return in_order("\n".join(block.splitlines()[2:]))


def on_import(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported: in `if`, `try`, `with` and class bodies too, but for types only."""
    for node in statements:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
            yield from on_import(node.orelse)
            continue
        for _, inner in ast.iter_fields(node):
            for part in inner if isinstance(inner, list) else []:
                if isinstance(part, ast.stmt):
                    yield from on_import([part])
                elif isinstance(part, ast.ExceptHandler | ast.match_case):
                    yield from on_import(part.body)


def imports(tree: ast.Module, file: str) -> list[tuple[str, bool]]:
    """(imported module, does it happen on import) with relative imports made absolute."""
    package = ["syncbn_sim", *file.split("/")[:-1]]
    top = {id(node) for node in on_import(tree.body)}
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


def place_of(file: str, order: list[str]) -> float:
    """Where a file stands; the __init__ of a folder, which imports what is inside, right behind its last file."""
    if not file.endswith("__init__.py"):
        return order.index(file)
    folder = file.removesuffix("__init__.py")
    return max(place for place, name in enumerate(order) if name.startswith(folder)) + 0.5


def violations(file: str, source: str, order: list[str]) -> list[str]:
    """Every import of `file` that goes downwards, or is heavy on import, and every call on import."""
    problems = []
    tree, here = ast.parse(source), place_of(file, order)
    for module, top in imports(tree, file):
        root, *path = module.split(".")
        if root not in LIGHT and top and root not in MAY_IMPORT_AT_TOP.get(file, set()):
            problems.append(f"{file} imports {module} at the top")
        if not file.startswith(HOMES.get(root, "")):
            problems.append(f"{file} imports {module}, which only {HOMES[root]} does")
        if root != "syncbn_sim" or not path:
            continue
        if path[0] == "lessons" and not file.startswith("lessons/"):
            problems.append(f"{file} imports {module}, which nothing imports")
        name = "/".join(path)
        if f"{name}.py" in order and order.index(f"{name}.py") >= here:
            problems.append(f"{file} imports {module}, which stands below it")
        if any(other.startswith(f"{name}/") for other in order) and place_of(f"{name}/__init__.py", order) >= here:
            problems.append(f"{file} imports the folder {module}, which does not stand above it")
    for node in on_import(tree.body):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            problems.append(f"{file}:{node.lineno} calls something on import")
    return problems


def test_the_list_is_complete() -> None:
    files = {
        str(p.relative_to(ROOT / "syncbn_sim")) for p in (ROOT / "syncbn_sim").rglob("*.py") if p.name != "__init__.py"
    }
    assert sorted(files) == sorted(listed())


def test_nothing_imports_the_lessons() -> None:
    """Neither the engine (see above) nor what stands beside it; they are there for notebooks, and for a page of their own."""
    assert listed()[-1].startswith("lessons/")
    for folder in ("docs", "benchmarks", "mpi_examples"):
        for path in (ROOT / folder).rglob("*.py"):
            found = {module for module, _ in imports(ast.parse(path.read_text()), path.name)}
            assert not {module for module in found if module.startswith("syncbn_sim.lessons")}, path


def test_the_engine_works_without_the_lessons(tmp_path: Path) -> None:
    """All of it can be imported where their folder is missing: who reads the engine need not read deliberate mistakes."""
    shutil.copytree(
        ROOT / "syncbn_sim", tmp_path / "syncbn_sim", ignore=shutil.ignore_patterns("lessons", "__pycache__")
    )
    code = f"""
import importlib, sys
sys.path.insert(0, {str(tmp_path)!r})
for file in {[file for file in listed() if not file.startswith("lessons/")]!r}:
    module = importlib.import_module("syncbn_sim." + file[:-3].replace("/", "."))
    assert module.__file__.startswith({str(tmp_path)!r}), module
"""
    done = run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr


FOLDERS = [str(p.relative_to(ROOT / "syncbn_sim")) for p in (ROOT / "syncbn_sim").rglob("__init__.py")]


@pytest.mark.parametrize("file", [*listed(), *FOLDERS])
def test_imports_go_one_way(file: str) -> None:
    assert violations(file, (ROOT / "syncbn_sim" / file).read_text(), listed()) == []


def test_a_folder_inside_a_folder_stands_at_its_place() -> None:
    block = """
  base.py               first
  comm/                 a folder
    serial.py
    mpi/                a folder inside it
      start.py
      deeper/
        most.py
      world.py
    launch.py           the first folder again
  nn/
    linear.py
  __main__.py"""
    assert in_order(block[1:]) == NESTED


NESTED = [
    "base.py",
    "comm/serial.py",
    "comm/mpi/start.py",
    "comm/mpi/deeper/most.py",
    "comm/mpi/world.py",
    "comm/launch.py",
    "nn/linear.py",
    "__main__.py",
]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("comm/mpi/world.py", "from .start import begin\nfrom ..serial import one\nfrom ... import base"),
        ("comm/mpi/world.py", "from . import deeper\nfrom .deeper.most import x"),
        ("comm/mpi/world.py", "def f():\n    from mpi4py import MPI"),
        ("comm/mpi/__init__.py", "from .world import World\nfrom ..serial import one"),
        ("comm/launch.py", "from . import mpi, serial\nfrom .mpi import World\nfrom .mpi.deeper import most"),
        ("nn/linear.py", "from ..comm import mpi\nfrom ..comm.mpi.world import World"),
        ("comm/__init__.py", "from .launch import launch\nfrom .mpi import World"),
    ],
)
def test_nested_imports_upwards_are_fine(file: str, source: str) -> None:
    assert violations(file, source, NESTED) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("comm/mpi/start.py", "from .world import World"),
        ("comm/mpi/start.py", "from . import deeper"),
        ("comm/mpi/start.py", "from .deeper.most import x"),
        ("comm/mpi/world.py", "from mpi4py import MPI"),
        ("comm/mpi/world.py", "from ..launch import launch"),
        ("comm/mpi/world.py", "from .. import launch"),
        ("comm/mpi/world.py", "from ...nn import linear"),
        ("comm/mpi/world.py", "from ..mpi import World"),
        ("comm/mpi/deeper/most.py", "from ..world import World"),
        ("comm/serial.py", "from . import mpi"),
        ("comm/serial.py", "from .mpi.start import begin"),
        ("comm/serial.py", "import syncbn_sim.comm.mpi.start"),
        ("comm/mpi/__init__.py", "from ..launch import launch"),
        ("comm/__init__.py", "from ..nn import linear"),
        ("base.py", "from .comm import mpi"),
    ],
)
def test_nested_rules_can_be_broken(file: str, source: str) -> None:
    assert violations(file, source, NESTED)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("stats/moments.py", "from ..comm.base import Communicator"),
        ("stats/moments.py", "from .running import updated"),
        ("nn/batch_norm.py", "from .sync_batch_norm import SyncBatchNorm"),
        ("functional/linear.py", "from .. import nn"),
        ("functional/batch_norm.py", "from . import steps"),
        ("functional/steps.py", "from ..kernels import compiled"),
        ("train/step.py", "import matplotlib.pyplot as plt"),
        ("train/step.py", "def f():\n    from ..experiments import tasks"),
        ("stats/moments.py", "print('hello')"),
        ("stats/moments.py", "for name in 'ab':\n    print(name)"),
        ("stats/moments.py", "try:\n    import numba\nexcept ImportError:\n    numba = None"),
        ("stats/moments.py", "try:\n    pass\nexcept ImportError:\n    import numba"),
        ("stats/moments.py", "class A:\n    import numba"),
        ("stats/moments.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import numba"),
        ("__init__.py", "import scipy.stats"),
        ("comm/threads.py", "def f():\n    from mpi4py import MPI"),
        ("comm/launch.py", "if TYPE_CHECKING:\n    from mpi4py import MPI"),
        ("report/files.py", "def f():\n    import matplotlib.pyplot as plt"),
        ("__init__.py", "from . import lessons"),
        ("cli/main.py", "def f():\n    from ..lessons.exercise import Exercise"),
        ("__main__.py", "import syncbn_sim.lessons"),
        ("report/plots.py", "from ..experiments.norms import COLOURS"),
        ("report/files.py", "def f():\n    from ..experiments import result"),
    ],
)
def test_the_rules_can_be_broken(file: str, source: str) -> None:
    assert violations(file, source, listed())


HEAVY = (
    "mpi4py matplotlib tqdm tyro scipy sklearn threadpoolctl greenlet polars numba onnx onnxruntime torch jax IPython"
)


@pytest.mark.parametrize("package", [*HEAVY.split(), "ipywidgets", "pandas", "a_package_of_next_year"])
def test_packages_are_imported_where_they_are_needed(package: str) -> None:
    """All but the standard library's and NumPy, whether somebody has thought of them or not."""
    for line in (f"import {package}", f"import {package}.inner as inner", f"from {package}.inner import thing"):
        assert violations("stats/moments.py", line, listed())
        home = next(file for file in listed() if file.startswith(HOMES.get(package, "stats/")))
        assert violations(home, f"def f():\n    {line}", listed()) == []
        assert violations(home, f"if TYPE_CHECKING:\n    {line}", listed()) == []


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


def folders(where: Path) -> set[str]:
    return {path.parent.name for path in where.glob("*/*.py")}


def test_tests_mirror_the_package() -> None:
    """A folder of tests for each of the package, and the suites beside them; at the top what tests the project as a whole."""
    assert folders(ROOT / "tests") - {"suites"} == folders(ROOT / "syncbn_sim")
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), "pytest knows a file by its name alone"
