"""`syncbn-sim advise`: every printed figure from its formula, and the verdict that a reader of the figures would give."""

from __future__ import annotations

import re

import numpy as np
import pytest

from syncbn_sim.cli.advise import advise as advise_command
from syncbn_sim.cli.logs import LogOptions
from syncbn_sim.cluster.closed_forms import allreduce_seconds
from syncbn_sim.cluster.links import LINKS
from syncbn_sim.cluster.networks import NETWORKS
from syncbn_sim.comm.schedules import SCHEDULES
from syncbn_sim.errors import ArgumentError

pytest.importorskip("tyro")


def advise(**options) -> list[str]:
    log = LogOptions(**{name: options.pop(name) for name in ("entity", "label", "missing") if name in options})
    advise_command(log, **options)


def worth(sizes: np.ndarray, counts: np.ndarray, many: bool, rows: int, devices: int, of: int, icc: float) -> dict:
    """By counting rows on a ring of sorted entities, one begin after the other; of many entities, no two devices share one."""
    if many:
        copies = rows // int((sizes * counts).sum()) + 2  # the ring goes on with other entities
        entity = np.repeat(np.arange(copies * counts.sum()), np.tile(np.repeat(sizes, counts), copies))
        cluster = np.mean(
            [(np.bincount(entity[b : b + rows]) ** 2).sum() / rows for b in range(int((sizes * counts).sum()))]
        )
        chance = 0.0
    else:
        entity = np.repeat(np.arange(counts.sum()), np.repeat(sizes, counts))
        total, each = len(entity), np.bincount(entity).astype(float)
        chance = (each * (each - 1)).sum() / total / (total - 1)
        begins = np.arange(0, total, max(1, total // 4001))
        places = begins[:, None, None] + (np.arange(devices) * total / of).astype(int)[:, None] + np.arange(rows)
        found = entity[places % total].reshape(len(begins), -1)
        cluster = np.mean([(np.bincount(row) ** 2.0).sum() / len(row) for row in found])
    n = rows * devices
    adjusted = (cluster - n * chance) / (1 - chance)
    deff = 1 + (adjusted - 1) * icc
    return {"rows": n, "S": cluster, "P": chance, "S_adj": adjusted, "deff": deff, "effective": n / deff}


NEEDED, ENOUGH, SHORT, DEAR, ALONE = (
    "Worth trying",
    "Probably not needed",
    "Not enough",
    "It would help, at a price",
    "No:",
)
CASES = [  # devices, rows, entity rows, entities, icc, verdict, other options
    (64, 32, "58", None, 0.3, NEEDED, {"compute_ms": 80.0}),
    (64, 32, "58", None, 0.3, DEAR, {"compute_ms": 20.0}),
    (64, 32, "58", None, 0.3, NEEDED, {"compute_ms": 60.0}),  # all devices take 5.2 %, a group of nine 4.7
    (4, 32, "58", None, 0.3, SHORT, {}),  # 15.0
    (5, 32, "58", None, 0.3, NEEDED, {}),  # 18.7 of 16, yet noisier than 32 shuffled rows
    (2, 512, "256", None, 0.3, SHORT, {}),  # the issue's: 7.9, together 15.8
    (1, 32, "58", None, 0.3, ALONE, {}),
    (1, 1, "1", None, 0.0, ALONE, {}),
    (16, 1, "1", None, 0.3, NEEDED, {"model": "mlp"}),  # one row each: local statistics cannot train
    (8, 1, "58", None, 0.3, SHORT, {"model": "mlp"}),
    (8, 64, "58", None, 0.0, ENOUGH, {}),  # nothing alike
    (8, 8, "58", None, 0.0, NEEDED, {}),  # nothing alike, but few
    (64, 32, "58", None, 1.0, NEEDED, {}),  # rows of an entity equal
    (64, 32, "58", None, -0.01, ENOUGH, {}),  # steadier than shuffled
    (8, 32, "1", None, 0.5, ENOUGH, {}),  # shuffled
    (64, 32, "1000000", None, 0.3, NEEDED, {}),  # a million rows per entity: S = n
    (4, 4, "4000x1,10x400", None, 0.4, SHORT, {"model": "mlp"}),  # one giant
    (16, 32, "4x1000,58x100,900x1", None, 0.5, NEEDED, {}),  # a power law
    # Classes, shared by all ranks: together like 33 shuffled.
    (8, 4, "180", 10, 0.31, NEEDED, {"link": "nvlink", "model": "mlp"}),
    (10, 4, "180", 10, 0.31, NEEDED, {"link": "nvlink"}),  # one class per rank: together better than shuffled
    (2, 16, "500", 2, 0.6, NEEDED, {"link": "shared-memory", "model": "mlp"}),  # two classes, one on each
]


def figure(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    assert found, (pattern, text)
    return [float(value.replace(",", "")) for value in found.groups()]


@pytest.mark.parametrize(("devices", "rows", "entity_rows", "entities", "icc", "verdict", "other"), CASES)
def test_every_figure_follows_from_its_formula(
    devices, rows, entity_rows, entities, icc, verdict, other, capsys
) -> None:
    advise(devices=devices, rows=rows, entity_rows=(entity_rows,), entities=entities, icc=icc, **other)
    text = capsys.readouterr().out
    sizes, counts = np.array([[int(k) for k in (*part.split("x"), 1)[:2]] for part in entity_rows.split(",")]).T
    population = entities is not None or "x" in entity_rows
    if entities:
        counts = np.array([entities])
    if sizes[0] == 1_000_000:
        sizes = np.array([20_000])  # counted on a smaller one: S differs by rows / 60,000 of itself
    local, joined = (
        worth(sizes, counts, not population, rows, d, devices, icc) for d in (1, devices if population else 1)
    )
    if not population:
        joined = {**joined, "rows": rows * devices, "effective": rows * devices / joined["deff"]}
    assert text.startswith(verdict), text
    loose = 0.006  # of printed digits, and of counting on a grid
    near = {"rel": loose, "abs": 0.06}
    # local and joined rows, S, S_adj, P, deff
    for who, b in (("Locally", local), ("Together", joined)):
        if who in text:
            line = next(line for line in text.splitlines() if line.startswith(who))
            n, effective = figure(r"of (\S+) rows? is worth n / deff = (\S+) independent", line)
            assert n == b["rows"]
            assert effective == pytest.approx(b["effective"], **near)
            assert figure(r"E\[sum n_j\^2 / n\] = ([\d.]+)", line) == [pytest.approx(b["S"], **near)]
            assert figure(r"= ([\d.]+)\.$", line) == [pytest.approx(b["deff"], rel=loose, abs=0.012)]
            assert ("S_adj" in line) == population
            if population:
                s_adj, p = figure(r"S_adj = .* = ([\d.]+) at P = ([\d.e-]+),", line)
                assert s_adj == pytest.approx(b["S_adj"], rel=loose, abs=0.05)
                assert p == pytest.approx(b["P"], rel=0.006)
        elif who == "Locally":
            assert max(abs(b["deff"] - 1) for b in (local, joined)) < 0.06
            assert figure(r"design effect (\S+),", text) == [pytest.approx(local["deff"], abs=0.006)]
    # the verdict's own figures, and what a reader of them would say
    if verdict in (ENOUGH, ALONE):
        assert figure(r"is worth ([\d.]+) rows", text) == [pytest.approx(local["effective"], **near)]
    else:
        assert figure(r"together are worth ([\d.]+)", text.splitlines()[0]) == [
            pytest.approx(joined["effective"], **near)
        ]
        assert local["effective"] < 16
        assert (joined["effective"] < 16) == (verdict == SHORT)
        assert ("one row has no variance" in text) == (rows == 1)
    assert ("Instead, or first" in text) == (verdict != ENOUGH)
    assert "16 rows are a convention, from Wu & He (2018)" in text
    assert "What SyncBN does not fix" in text
    if devices == 1:
        assert "talk / (talk + compute)" not in text
        return
    # steadiness, and the smallest group
    steady = joined["effective"] >= rows * (1 - 1e-6)
    assert ("at least as steady as" in text) == steady
    assert ("a poor yardstick" in text) == (rows < 16)
    target = max(rows, 16)
    assert ("smallest group" in text) == (verdict in (NEEDED, DEAR))
    count = devices
    if "smallest group" in text:
        aim, count, value = figure(rf"worth (\d+) rows or more: (\d+) of {devices}, worth ([\d.]+?)\.\n", text)
        assert aim == (target if joined["effective"] >= target * (1 - 1e-6) else 16)

        def group(d: int) -> float:
            if not population:
                return d * local["effective"]
            return worth(sizes, counts, False, rows, d, devices, icc)["effective"]

        assert value == pytest.approx(group(int(count)), **near)
        assert group(int(count)) >= aim * 0.997
        assert count == 1 or group(int(count) - 1) < aim
    # time
    link, channels = LINKS[other.get("link", "roce-25g")], NETWORKS[other.get("model", "resnet50")]

    def talk(ranks: int) -> float:
        calls = (n for c in channels for n in (2 * c + 1, 2 * c))
        return 1e3 * sum(
            (link.base or 0) + min(allreduce_seconds(s, ranks, n, link) for s in link.schedules or SCHEDULES)
            for n in calls
        )

    compute = other.get("compute_ms", 100.0)
    for who, ranks in ((f"All {devices} devices", devices), (f"Groups of {int(count)}", int(count))):
        if who not in text:
            assert who.startswith("Groups")
            assert count in (1, devices)
            continue
        price = rf"{who}: (\S+) ms of (\S+) ms per step, (\S+) % .* from (\S+) ms of compute"
        spent, step, share, from_ = figure(price, text)
        assert spent == pytest.approx(talk(ranks), rel=0.006)
        assert step == pytest.approx(talk(ranks) + compute, rel=0.001)
        assert share == pytest.approx(100 * talk(ranks) / (talk(ranks) + compute), rel=0.006)
        assert from_ == pytest.approx(19 * talk(ranks), rel=0.006)
    if verdict in (NEEDED, DEAR):
        (share,) = figure(r"takes (\S+) % of a step", text.splitlines()[0])
        assert (verdict == DEAR) == (share > 5)
    assert f"each of the {2 * len(channels)} calls" in text
    assert ("what the library adds to each call" in text) == (link.base is None)
    assert ("beyond the 8 devices" in text) == (link.measured_to == 8 and devices > 8)


def test_alternatives_are_computed(capsys) -> None:
    """The window and the batch that would do: enough, while half of each is not."""
    from syncbn_sim import stats

    advise(devices=64, rows=32, entity_rows=("58",), icc=0.3)
    text = capsys.readouterr().out
    order = stats.sorted_reading(np.array([58]), np.array([1]))
    window, s, value = figure(r"window of (\S+) rows per device \(S = (\S+), 32 rows worth (\S+)\)", text)
    for size, enough in ((int(window), True), (int(window) // 2, False)):
        b = stats.behind(order.windowed(size), 0.3, 32)
        assert (b.effective_rows >= 16) == enough
    b = stats.behind(order.windowed(int(window)), 0.3, 32)
    assert (s, value) == (pytest.approx(b.cluster_size, abs=0.05), pytest.approx(b.effective_rows, abs=0.05))
    larger, value = figure(r"larger local batch \((\S+) rows per device are worth (\S+)\)", text)
    b = stats.behind(order, 0.3, int(larger))
    assert value == pytest.approx(b.effective_rows, abs=0.05)
    assert b.effective_rows >= 16 > stats.behind(order, 0.3, int(larger) // 2).effective_rows
    advise(devices=8, rows=4, entity_rows=("180",), entities=10, icc=0.31)
    assert "no shuffle window" in capsys.readouterr().out  # a device has 225 rows of two classes
    advise(devices=8, rows=8, entity_rows=("50",), icc=0.1)
    assert "though 8 can't be 16" in capsys.readouterr().out  # a window restores the rows, not more
    advise(devices=8, rows=8, entity_rows=("1",), icc=0.5)
    assert "window" not in capsys.readouterr().out  # shuffled already


def test_topology_and_base_are_no_longer_left_out(capsys) -> None:
    advise(devices=64, rows=32, entity_rows=("58",), icc=0.3, topology="8:nvlink", link="infiniband-ndr")
    text = capsys.readouterr().out
    assert "--topology" not in text
    assert "waiting for the slowest device" in text
    nodes = [("nvlink", ["ring"]), ("infiniband-ndr", SCHEDULES)]
    talk = sum(
        5.6e-6 + sum(min(allreduce_seconds(s, 8, n, LINKS[link]) for s in has) for link, has in nodes)
        for c in NETWORKS["resnet50"]
        for n in (2 * c + 1, 2 * c)
    )
    assert figure(r"devices: (\S+) ms", text) == [pytest.approx(1e3 * talk, rel=0.006)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"devices": 0}, "^devices: got 0"),
        ({"rows": -3}, "^rows: got -3"),
        ({"icc": 1.5}, "^icc: got 1.5"),
        ({"icc": float("nan")}, "^icc: got nan"),
        ({"icc": -0.5}, r"^icc: got -0.5, expected above -0.0398 where a row meets 26.1"),
        ({"icc": None}, "^icc: got none"),
        ({"compute_ms": 0.0}, "^compute-ms: got 0"),
        ({"entity_rows": ("58", "100")}, "entity-rows: got 58, expected .* for each of them"),
        ({"missing": "drop"}, "options of a log without --data"),
        ({"entity_rows": ()}, "^entity-rows: got none"),
        ({"entity_rows": ("58x",)}, "^entity-rows: got 58x"),
        ({"entity_rows": ("58x0",)}, "^entity-rows: got 58x0"),
        ({"entities": 1}, "^entities: got 1, expected a whole number of at least 2"),
        ({"entity_rows": ("4x10",), "entities": 3}, "^entities: got 3 with sizes by number"),
        ({"data": "a.csv", "icc": None, "entity_rows": (), "entities": 0}, "--data with --entity-rows"),
        ({"entity_rows": ("-4",)}, "^entity-rows: got -4"),
        ({"entities": 0}, "^entities: got 0, expected a whole number of at least 2"),
        ({"entities": 10}, "devices, rows: got 64 x 32, expected at most the 580 rows there are"),
        ({"link": "nvlnk"}, "Did you mean 'nvlink'"),
        ({"model": "resnet5"}, "Did you mean 'resnet50'"),
    ],
)
def test_errors_name_only_what_is_wrong(change: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        advise(**{"devices": 64, "rows": 32, "entity_rows": ("58",), "icc": 0.3, **change})
