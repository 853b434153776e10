"""The command: what it prints of clusters and schedules, and what it says of what cannot be."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from conftest import run, run_mpi

from syncbn_sim.cli.cluster import cluster
from syncbn_sim.cluster import link_named
from syncbn_sim.cluster.networks import NETWORKS
from syncbn_sim.cluster.step_cost import CHEAP, WIRE_FORMATS, step_cost

COMMAND = [sys.executable, "-m", "syncbn_sim"]
SCRIPT = [str(Path(sys.executable).parent / "syncbn-sim")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["schedules", "--elements", "0"], "elements: got 0"),
        (["schedules", "--ranks", "5000"], "ranks: got 5000, expected at most 64"),
        (["schedules", "--out", "no/such/folder"], "out: got no/such/folder (No such file or directory)"),
        (["cluster", "--figure", "no/such/folder/a.png"], "figure: got no/such/folder (No such file or directory)"),
        (["cluster", "--figure", "tests"], "figure: got tests (Is a directory)"),
    ],
)
def test_the_command_says_what_it_cannot_draw(arguments: list[str], said: str) -> None:
    done = run([*COMMAND, *arguments], 20)
    assert done.returncode == 1
    assert done.stderr.startswith(f"syncbn-sim: {said}")


def test_the_package_is_the_command() -> None:
    from syncbn_sim import __version__

    assert run([*COMMAND, "version"]).stdout.strip() == __version__
    assert "usage: syncbn-sim" in run([*COMMAND, "--help"]).stdout


def test_commands(tmp_path: Path) -> None:
    figure = tmp_path / "c.png"
    done = run(
        [
            *SCRIPT,
            "cluster",
            "--model",
            "resnet50",
            "--link",
            "roce-25g",
            "--devices",
            "8,64,65536",
            "--figure",
            str(figure),
        ]
    )
    assert done.returncode == 0, done.stderr
    assert "53 batch norms, 26,560 channels" in done.stdout
    assert "106 blocking collectives and 850,344 bytes" in done.stdout
    assert figure.read_bytes()[:4] == b"\x89PNG"
    done = run(
        [
            *SCRIPT,
            "advise",
            "--devices",
            "64",
            "--rows",
            "32",
            "--entity-rows",
            "58",
            "--icc",
            "0.3",
            "--compute-ms",
            "80",
        ]
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Worth trying")
    done = run([*SCRIPT, "schedules", "--ranks", "6", "--out", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert "ring: 10 rounds, 60 messages, 10,320 bytes" in done.stdout
    assert len(list(tmp_path.glob("*-6.png"))) == 5


def test_the_clusters_table_gives_each_wire_format_its_own_cost(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cluster(devices=("8", "512"), compute_ms=20, figure=str(tmp_path / "c.png"))
    said, link = capsys.readouterr().out, link_named("roce-25g")
    for wire in WIRE_FORMATS:
        for devices in (8, 512):
            cost = step_cost(NETWORKS["resnet50"], devices, link, wire)
            cells = [
                f"{1e3 * cost.seconds:.3g}",
                f"{100 * cost.share(0.02):.1f} %",
                f"{1e3 * cost.compute_for(CHEAP):.3g}",
            ]
            row = re.search(rf"^{devices} +{wire} +(.*)$", said, re.M)[1]
            assert re.split(r"  +", row) == cells
    talk = 1e3 * step_cost(NETWORKS["resnet50"], 512, link).seconds
    assert talk < 20  # so all of it fits beside the compute
    assert f"takes {20 + talk:.4g} ms with talk on the critical path, 20 ms if all of it" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["cluster", "--model", "resnet5"], "Did you mean 'resnet50'"),
        (["cluster", "--link", "nvlnk"], "Did you mean 'nvlink'"),
        (["cluster", "--devices", "0"], "whole numbers of at least 1"),
        (["cluster", "--devices", "2.5"], "whole numbers of at least 1"),
        (["cluster", "--compute-ms", "0"], "compute-ms: got 0"),
        (["advise", "--devices", "8", "--rows", "32"], "--entity-rows 58"),
        (["advise", "--devices", "8", "--rows", "32", "--entity-rows", "58"], "--icc 0.3"),
        (["advise", "--devices", "8", "--rows", "32", "--entity-rows", "5x", "--icc", "0"], "entity-rows: got 5x"),
        (["advise", "--devices", "8", "--rows", "32", "--icc", "0.3", "--data", "a.csv"], "measured in the log"),
    ],
)
def test_bad_commands_are_explained(options: list[str], message: str) -> None:
    done = run([*SCRIPT, *options])
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_has_no_ranks_is_done_once_under_mpirun() -> None:
    done = run_mpi(3, "-m", "syncbn_sim", "version")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
