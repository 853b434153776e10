"""Which steps layers take, and what compiled ones need of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from syncbn_sim import nn
from syncbn_sim.comm.stretches import stretched

ROOT = Path(__file__).parent.parent.parent
USE = """
import numpy as np
from syncbn_sim import nn
from syncbn_sim.kernels import steps
bn, x = nn.BatchNorm(4), np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
y, dx = bn(x), bn.backward(x)
print(steps().__name__, float(y.sum(dtype=np.float64)) < 1e-3)
"""

NO_PLACE = """
from numba.core import caching
class Nowhere(caching._CacheLocator):
    @classmethod
    def from_function(cls, function, file):
        return None
caching.CacheImpl._locator_classes = [Nowhere]
"""


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


def test_compiled_where_numba_is() -> None:
    pytest.importorskip("numba")
    assert python(USE).stdout == "syncbn_sim.kernels.compiled True\n"


def test_numpy_when_asked() -> None:
    assert python(USE, SYNCBN_SIM_KERNELS="numpy").stdout == "syncbn_sim.functional.steps True\n"


def test_an_unknown_wish_is_refused() -> None:
    done = python(USE, SYNCBN_SIM_KERNELS="nupmy")
    assert "SYNCBN_SIM_KERNELS" in done.stderr
    assert "nupmy" in done.stderr
    assert "numpy" in done.stderr


def test_without_numba_numpy_takes_its_place_silently() -> None:
    done = python("import sys; sys.modules['numba'] = None\n" + USE)
    assert done.stdout == "syncbn_sim.functional.steps True\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "fault", ["raise ImportError('Numba needs NumPy 1.26 or less')", "import llvmlite_of_long_ago"]
)
def test_a_numba_that_cannot_be_imported_is_said(tmp_path: Path, fault: str) -> None:
    (tmp_path / "numba.py").write_text(fault)
    done = python(USE, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.stdout == "syncbn_sim.functional.steps True\n"
    assert "numba cannot be imported" in done.stderr
    assert "SYNCBN_SIM_KERNELS=numpy" in done.stderr


def test_importing_the_package_does_not_import_numba() -> None:
    done = python("import sys, syncbn_sim, syncbn_sim.nn; print('numba' in sys.modules)")
    assert done.stdout == "False\n"


def test_no_place_on_disk_for_compiled_code(tmp_path: Path) -> None:
    """A read-only installation without a writable home: compiled in each process, and right."""
    pytest.importorskip("numba")
    done = python(NO_PLACE + USE)
    assert done.stdout == "syncbn_sim.kernels.compiled True\n", done.stderr


def test_a_full_disk(tmp_path: Path) -> None:
    """Code that cannot be kept is compiled by whoever needs it; nothing says that all is ready."""
    pytest.importorskip("numba")
    code = """
    from numba.core import caching
    def full(*args):
        raise OSError(28, "No space left on device")
    caching.IndexDataCacheFile.save = full
    """
    done = python(textwrap.dedent(code) + USE, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout == "syncbn_sim.kernels.compiled True\n", done.stderr
    warm = "from syncbn_sim.kernels import warm; warm.warm = lambda: warm.compiler.not_kept.append(OSError()); print(warm.warm_once())"
    assert python(warm, NUMBA_CACHE_DIR=str(tmp_path)).stdout == "False\n"
    assert not list(tmp_path.rglob("compiled-*[0-9a-f]"))


@pytest.mark.slow
def test_of_many_processes_one_compiles(tmp_path: Path) -> None:
    """A cold cache under mpirun: one process says that it compiles, and the code on disk is written once."""
    pytest.importorskip("numba")
    mpirun = Path(sys.executable).parent / "mpirun"
    if not mpirun.exists():
        pytest.skip("no mpirun")
    code = USE + "print(sum(f.stats.cache_misses[k] for f in steps().SUMS.values() for k in f.stats.cache_misses))"
    done = subprocess.run(
        [mpirun, "-n", "4", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)},
    )
    assert done.stderr.count("compiles its loops") == 1
    assert done.stdout.count("compiled True") == 4
    misses = sorted(int(line) for line in done.stdout.splitlines() if line.isdigit())
    assert misses[:3] == [0, 0, 0]
    assert misses[3] > 0


def test_whatever_comes_nothing_is_compiled_anew() -> None:
    """Loops are compiled for plain float32 and float64 arrays, with weights and without; any other array is made one."""
    pytest.importorskip("numba")
    from syncbn_sim.kernels import compiled, warm

    warm.warm()
    tables = (compiled.MOMENTS, compiled.NORMALISE, compiled.SUMS, compiled.GRADIENT)
    before = [len(loop.signatures) for table in tables for loop in table.values()]
    rng = np.random.default_rng(0)
    for shape, axis in (((6, 4), 1), ((6, 4, 3), 1), ((6, 3, 4), -1), ((6, 4, 0), 1), ((0, 4), 1)):
        plain = rng.normal(size=shape)
        frozen, halves = plain.copy(), plain.astype(np.float16)
        frozen.flags.writeable = False
        unaligned = np.frombuffer(b"\0" + plain.tobytes(), np.uint8)[1:].view(np.float64).reshape(shape)
        others = (frozen, halves, plain.astype(">f4"), plain.astype(">f8"), unaligned, plain.astype(np.longdouble))
        for x in (*others, plain[::-1], np.broadcast_to(plain[:1], shape), np.asfortranarray(plain)):
            for weights in (None, np.ones(len(x))):
                for training in (True, False):
                    for norm in (
                        nn.BatchNorm(4, eps=1, channel_axis=axis),
                        nn.GhostBatchNorm(4, 2, channel_axis=axis),
                        nn.GroupNorm(2, 4, eps=1, channel_axis=axis),
                        nn.InstanceNorm(4, track_running_stats=True, channel_axis=axis)
                        if len(shape) > 2
                        else nn.GroupNorm(1, 4),
                        nn.GroupNorm(1, 4, channel_axis=axis) if 0 in shape[1:] else nn.LayerNorm(shape[1:], eps=0),
                    ):
                        y = norm.train(training)(x, weights)
                        assert y.dtype == norm.backward(x).dtype == x.dtype
    # Statistics of all rows, for each of several ranks' or for each row.
    with stretched(np.array([0, 1, 6])):
        nn.BatchNorm(4).eval()(rng.normal(size=(6, 4)))
    wide = nn.LayerNorm(compiled.SHORT + 1)
    wide.backward(wide(rng.normal(size=(3, compiled.SHORT + 1)).astype(np.float32), np.ones(3)))
    assert before == [len(loop.signatures) for table in tables for loop in table.values()]
    assert max(before) <= 4


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_numba_that_is_told_not_to_compile(processes: str) -> None:
    """To look into the loops one sets NUMBA_DISABLE_JIT; layers, which would take minutes by them, then take NumPy's steps."""
    pytest.importorskip("numba")
    done = python(USE, NUMBA_DISABLE_JIT="1", PMI_SIZE=processes, PMI_RANK="0")
    assert (done.stdout, done.stderr) == ("syncbn_sim.functional.steps True\n", "")


@pytest.mark.parametrize(
    ("start", "disabled", "said"),
    [(NO_PLACE, "0", "NUMBA_CACHE_DIR"), ("", "1", "NumPy's steps"), ("", "0", "are ready")],
)
def test_the_step_of_an_installation_says_what_is_so(start: str, disabled: str, said: str) -> None:
    pytest.importorskip("numba")
    run = "import runpy; runpy.run_module('syncbn_sim.kernels', run_name='__main__')"
    done = python(start + run, NUMBA_DISABLE_JIT=disabled)
    assert said in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


def test_loops_whose_file_was_written_anew_are_not_taken_for_compiled(tmp_path: Path) -> None:
    """A checkout writes equal files with new dates, for which numba compiles again: one process is to do it, as the first time."""
    pytest.importorskip("numba")
    shutil.copytree(ROOT / "syncbn_sim", tmp_path / "syncbn_sim", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
    import os
    from syncbn_sim.kernels import compiler, forward, warm
    marks = [warm._mark()]
    for file in (forward.__file__, compiler.__file__):
        os.utime(file, (1e9, 1e9))
        marks.append(warm._mark())
    print(len(set(marks)), warm._mark() == marks[-1])
    """
    done = python(code, PYTHONSAFEPATH="1", PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert done.stdout == "3 True\n", done.stderr
