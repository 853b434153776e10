"""The book's pages: their code runs and prints what it says, links lead somewhere, words are spelled."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts]
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "mpi_examples/README.md"))]


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_code_runs_and_prints_what_stands_in_its_comments(page: Path, tmp_path: Path) -> None:
    """The blocks of a page are one program."""
    program = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
    if not program:
        return
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run([sys.executable, "-W", "error", "-c", f"import os\nos.chdir({str(tmp_path)!r})\n{program}"], env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"^# -> (.*)", program, re.M)


@pytest.mark.parametrize("page", DOCUMENTS, ids=ids(DOCUMENTS))
def test_commands_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S):
        for target in re.findall(r"^make ([a-z-]+)", block, re.M):
            assert re.search(rf"^{target}:", makefile, re.M), target
        for script in re.findall(r"(\S+\.py)\b", block):
            assert (ROOT / script).exists(), script
        for command in re.findall(r"syncbn-sim ([a-z-]+)", block):
            assert f'"{command}":' in (ROOT / "syncbn_sim/cli.py").read_text(), command


@pytest.mark.parametrize("page", DOCUMENTS, ids=ids(DOCUMENTS))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists() or target.startswith("lessons/"), target


def test_every_page_is_in_the_table_of_contents() -> None:
    entries = {
        str((page.parent / name).relative_to(ROOT / "docs"))
        for page in PAGES
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.S)
        for name in re.findall(r"^([a-z0-9_/]+)$", block, re.M)
    }
    pages = {str(page.relative_to(ROOT / "docs"))[:-3] for page in PAGES}
    lessons = {f"lessons/{source.stem}" for source in (ROOT / "notebooks").glob("*.ipynb")}
    assert entries == (pages - {"index"}) | lessons


def test_book_builds_without_warnings(tmp_path: Path) -> None:
    """But for the lessons' outputs, which `make docs` and the slow tests compute."""
    out = ["-D", "nb_execution_mode=off", "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")]
    done = run([sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", *out], 100)
    assert done.returncode == 0, done.stderr


def test_every_public_module_is_in_the_reference() -> None:
    """Folders with pages: whatever a user may import from them stands there."""
    text = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    listed = set(re.findall(r"automodule:: syncbn_sim\.(\S+)", text))
    inner = {
        "comm": {"calls", "wrapper", "board", "mpi", "mpi_start", "hybrid", "shared", "checked", "threads", "lockstep"},
        "data": {"columns", "text_file", "tables", "npz", "features", "gaps"},
    }
    for folder in ("stats", "comm", "functional", "nn", "optim", "data", "train", "cluster", "experiments"):
        modules = (
            {path.stem for path in (ROOT / "syncbn_sim" / folder).glob("*.py")}
            - {"__init__"}
            - inner.get(folder, set())
        )
        assert {f"{folder}.{name}" for name in modules} <= listed


def test_spelling() -> None:
    codespell = Path(sys.executable).parent / "codespell"
    tracked = run(["git", "ls-files", "*.md", "*.py", "*.toml", "Makefile"]).stdout.split()
    done = run([str(codespell), *(tracked or ["README.md", "docs", "notebooks", "syncbn_sim"])])
    assert done.returncode == 0, done.stdout
