"""The book's pages: their code runs and prints what it says, links lead somewhere, words are spelled."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run
from PIL import Image

from syncbn_sim.experiments import every
from syncbn_sim.experiments.norms import COLOURS

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
            assert f'"{command}":' in (ROOT / "syncbn_sim/cli/main.py").read_text(), command


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
    html = tmp_path / "html"
    landing = (html / "index.html").read_text().split("<article")[1].split("</article>")[0]
    assert "toctree-wrapper compound" not in landing or 'toctree-l1"' not in landing  # the sidebar has it
    for page in (html / "api").glob("*.html"):
        text = page.read_text()
        assert "highlight-python" in text, f"{page.name} has no example"
        assert re.sub("<.*?>", "", text).count("Bases: object") == 0, page.name
        assert "_modules/syncbn_sim" in text, f"{page.name} has no link to the source"
    nn = (html / "api/nn.html").read_text()
    assert nn.index('id="syncbn_sim.nn.batch_norm.BatchNorm"') < nn.index('id="syncbn_sim.nn.module.Module"')
    assert re.search(r'<dt [^>]*id="(syncbn_sim[^"]*)"', nn)[1] == "syncbn_sim.nn.batch_norm.BatchNorm"
    lesson = (html / "lessons/00_a_first_surprise.html").read_text()
    drawings = (ROOT / "notebooks/00_a_first_surprise.py").read_text().count("plt.show()")
    assert 2 < lesson.count("show code") <= drawings


def test_the_landing_page_has_an_install_line() -> None:
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert f'pip install "syncbn-sim[lessons] @ git+{repository}"\n' in (ROOT / "docs/index.md").read_text()


def test_the_animations_first_frame_is_complete() -> None:
    """Both accuracy curves, to their ends: it is all that a printout or a still page shows."""
    with Image.open(ROOT / "docs/_static/syncbn.gif") as film:
        first = np.asarray(film.convert("RGB")).astype(int)
    right = first[:, int(0.95 * first.shape[1]) :]
    for norm in ("local", "sync"):
        colour = np.array([int(COLOURS[norm][place : place + 2], 16) for place in (1, 3, 5)])
        assert (np.abs(right - colour).max(axis=-1) < 40).sum() > 20, norm


def test_the_picture_of_norms_shows_their_cells() -> None:
    """As many as there are now: 2 ranks of 4 rows, 6 channels, 3 positions; and each is what its name says."""
    spec = importlib.util.spec_from_file_location("draw_norms", ROOT / "docs/draw_norms.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    found = {name: drawing.cells(build) for name, build in drawing.NORMS.items()}
    assert all((each >= 0).all() for each in found.values())
    counts = {name: int(each.max()) + 1 for name, each in found.items()}
    with Image.open(ROOT / "docs/_static/norms.png") as picture:
        assert json.loads(picture.text["Description"]) == counts
    assert list(counts.values()) == [2 * 6, 2 * 2 * 6, 6, 8, 8 * 2, 8 * 6]
    for each in found.values():
        shown = drawing.colours(each)
        assert ((shown[:-1] == shown[1:]) == (each[:-1] == each[1:])).all()
        assert ((shown[:, :-1] == shown[:, 1:]) == (each[:, :-1] == each[:, 1:])).all()


def test_switching_it_on_is_told_for_each_system() -> None:
    text = (ROOT / "docs/howto/switch_on.md").read_text()
    parts = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    for system in ("PyTorch", "Keras", "JAX and Flax", "Horovod"):
        assert "```py\n" in parts[system]
        assert "check" in parts[system] or "it is on" in parts[system]
        targets = re.findall(r"sharp_bits\.md#([a-z0-9-]+)", parts[system])
        assert len(targets) >= 2


@pytest.mark.parametrize("page", DOCUMENTS, ids=ids(DOCUMENTS))
def test_no_page_recommends_fewer_than_three_seeds(page: Path) -> None:
    assert not re.search(r"--seeds [12]\b|seeds=[12]\b", page.read_text())


def test_every_public_module_is_in_the_reference() -> None:
    """Folders with pages: whatever a user may import from them stands there."""
    text = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    listed = set(re.findall(r"automodule:: syncbn_sim\.(\S+)", text))
    inner = {
        "comm": {"calls", "meeting", "wrapper", "threads", "lockstep", "hybrid", "mpi"},
        "kernels": {"compiler", "__main__"},
        "nn": {"talker", "masks", "state"},
        "data": {"columns", "text_file", "tables", "npz", "features", "gaps"},
        "experiments": set(every()),  # each tells of itself: `syncbn-sim run NAME --help`
    }
    for folder in (
        "stats",
        "comm",
        "functional",
        "kernels",
        "nn",
        "optim",
        "data",
        "train",
        "cluster",
        "diagnostics",
        "experiments",
    ):
        files = [path.relative_to(ROOT / "syncbn_sim") for path in (ROOT / "syncbn_sim" / folder).rglob("*.py")]
        modules = {path.with_suffix("").parts for path in files if path.stem != "__init__"}
        assert {".".join(parts) for parts in modules if parts[1] not in inner.get(folder, set())} <= listed


def test_spelling() -> None:
    codespell = Path(sys.executable).parent / "codespell"
    tracked = run(["git", "ls-files", "*.md", "*.py", "*.toml", "Makefile"]).stdout.split()
    done = run([str(codespell), *(tracked or ["README.md", "docs", "notebooks", "syncbn_sim"])])
    assert done.returncode == 0, done.stdout
