"""The package as it is installed: dependencies, import time, documents that must agree with the code."""

from __future__ import annotations

import re
import sys
import tomllib

import pytest
from conftest import ROOT, run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_import_needs_numpy_alone() -> None:
    """No module but NumPy's and the standard library's can be found; then the package is imported and used."""
    code = f"""
import sys
class Nobody:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {{*sys.stdlib_module_names, "numpy", "syncbn_sim"}}:
            raise ModuleNotFoundError(f"no {{name}} here", name=name)
sys.meta_path.insert(0, Nobody())
sys.path.insert(0, {str(ROOT)!r})
import numpy as np, syncbn_sim as s
y = s.comm.launch(lambda comm: s.nn.SyncBatchNorm(2, comm=comm)(np.random.rand(3, 2)), 2)
assert len(y) == 2
"""
    done = run([sys.executable, "-I", "-c", code])
    assert done.returncode == 0, done.stderr


def test_import_is_quick() -> None:
    # Time of this process, so that others on the machine do not count.
    code = "import time, numpy; t = time.process_time(); import syncbn_sim; print(time.process_time() - t)"
    assert min(float(run([sys.executable, "-c", code]).stdout) for _ in range(5)) < 0.3


def test_version_is_one() -> None:
    import syncbn_sim

    assert syncbn_sim.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_environment_yml_has_the_names_and_bounds_of_pyproject() -> None:
    yaml = pytest.importorskip("yaml")
    given = {
        d for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if isinstance(d, str)
    } - {"pip"}
    extras = PROJECT["optional-dependencies"]
    wanted = {
        *PROJECT["dependencies"],
        *(d for name in ("mpi", "data", "plots", "cli", "lockstep", "fast") for d in extras[name]),
        f"python{PROJECT['requires-python']}",
    }
    assert given == wanted


def test_public_surface() -> None:
    from syncbn_sim import comm, data, experiments, functional, nn, optim, stats, train

    for module, names in (
        (comm, "launch SerialCommunicator Communicator"),
        (stats, "Moments"),
        (nn, "BatchNorm SyncBatchNorm convert_sync_batchnorm revert_sync_batchnorm"),
        (optim, "SGD Adam"),
        (train, "step auc"),
        (data, "Dataset batches"),
        (experiments, "sorted_batches"),
        (functional, "batch_norm"),
    ):
        for name in names.split():
            assert hasattr(module, name), f"{module.__name__}.{name}"


def test_readme_commands_exist() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z-]+)", readme))
    assert {"train", "test"} <= targets
    assert all(re.search(rf"^{t}:", makefile, re.M) for t in targets)
    for path in re.findall(r"\]\(([^)#]+)\)", readme):
        assert path.startswith("http") or (ROOT / path).exists(), path


def test_readme_shows_what_the_main_job_printed() -> None:
    block = re.search(r"<!-- three arms -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block is not None
    short, whole = ((ROOT / f"docs/results/{name}.txt").read_text() for name in ("three_arms", "main_job"))
    assert block[1] == short
    for interval in re.findall(r"[\d.]+ \[[\d.]+, [\d.]+\]", short):
        assert interval in whole
    assert " ".join(short.split("\n\n")[-1].split()) == " ".join(whole.split("\n\n")[-1].split())


def test_words_under_the_main_job_follow_from_its_table() -> None:
    """32 shuffled images are worth 32; 4 of one class two; eight ranks of them a little more than 32; users: eight times one."""
    text = (ROOT / "docs/results/main_job.txt").read_text()
    worth = {}
    for task, block in zip(("digits", "requests"), text.split("\n\nrequests:"), strict=True):
        for arm, rows, effective in re.findall(r"^(\S+\+\S+) .* (\d+) -> ([\d.]+)", block, re.M):
            worth[task, arm] = (int(rows), float(effective))
    assert worth["digits", "iid+local"] == (4, 4)
    assert worth["digits", "iid+sync"] == (32, 32)
    assert worth["digits", "sorted+local"][1] == pytest.approx(2, abs=0.2)
    assert 32 < worth["digits", "sorted+sync"][1] < 34
    assert worth["digits", "sorted+sync"][1] > 8 * worth["digits", "sorted+local"][1]
    assert worth["requests", "iid+sync"] == (256, 256)
    assert worth["requests", "sorted+sync"][1] == pytest.approx(8 * worth["requests", "sorted+local"][1], rel=0.05)


def test_readme_code_runs() -> None:
    """Every Python block of the README runs, and prints what stands in its comments."""
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        done = run([sys.executable, "-c", block])
        assert done.returncode == 0, done.stderr
        promised = re.findall(r"# -> (.*)", block)
        assert done.stdout.split("\n")[:-1] == promised


def test_no_machine_or_registry_in_the_tree() -> None:
    tracked = run(["git", "ls-files"]).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    for name in tracked:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".yml", ".json", ""}
            and path.is_file()
            and name != "tests/test_package.py"
        ):
            text = path.read_text(errors="ignore")
            assert not re.search(r"index-url|files\.pythonhosted|/root/|/work/", text), name
