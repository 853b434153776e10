"""How alike the rows of a log are: verdicts, pictures, and one figure for one file, whichever command is asked."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from syncbn_sim.cli.advise import advise
from syncbn_sim.cli.logs import LogOptions, inspect_log
from syncbn_sim.comm import launch
from syncbn_sim.data.orders import batches, sorted_by_entity
from syncbn_sim.data.own_log import Source
from syncbn_sim.diagnostics.inspect_log import Inspection, inspect
from syncbn_sim.diagnostics.inspection import inspection_table, verdict
from syncbn_sim.diagnostics.scatter import batch_means
from syncbn_sim.errors import ArgumentError, CountError, DataError
from syncbn_sim.experiments import sorted_batches
from syncbn_sim.experiments.arms_table import table
from syncbn_sim.experiments.tasks import own_task
from syncbn_sim.stats.reading import behind

SIZES = {
    "equal": np.full(60, 58),
    "power": np.minimum(256, np.floor(4 * (1 - np.random.default_rng(0).random(250)) ** (-1 / 1.3))).astype(int),
    "giant": np.array([2000] + [6] * 200),
    "few": np.full(12, 200),
}


def rows_of(sizes: np.ndarray, rho: float, order: str, features: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng, entity = np.random.default_rng(1), np.repeat(np.arange(len(sizes)), sizes)
    own = rng.normal(size=(len(sizes), features))[entity]
    x = np.sqrt(rho) * own + np.sqrt(1 - rho) * rng.normal(size=own.shape)
    rows = rng.permutation(len(x)) if order == "shuffled" else np.arange(len(x))
    return x[rows], entity[rows]


def measured(rho: float, order: str, sizes: np.ndarray | None = None, rows: int = 32, ranks: int = 8) -> Inspection:
    x, entity = rows_of(np.full(300, 20) if sizes is None else sizes, rho, order)
    return inspect(x, list("abcde"), entity, "user", rows, ranks)


def test_verdicts() -> None:
    assert "sorting is not your problem unless something sorts it" in verdict(measured(0.5, "shuffled"))
    assert "hardly make a batch noisier" in verdict(measured(0.0, "sorted"))
    assert "sorting is not your problem" in verdict(measured(0.0, "sorted"))
    found = measured(0.5, "sorted")
    assert "not your problem" not in verdict(found)
    deff = found.orders["sorted"].local.design_effect  # S is about 16 of 20 in batches of 32
    assert f"with {int(np.ceil(deff))} ranks" in verdict(found)
    assert verdict(measured(0.5, "sorted", np.array([3] * 4), 2, 2)) == "They are too few to advise on."
    assert "12 rows of 4 entities are few" in inspection_table(measured(0.5, "sorted", np.array([3] * 4), 2, 2))
    with pytest.raises(CountError):
        inspect(np.ones((5, 1)), ["a"], np.arange(5), "user", 2, 2)
    with pytest.raises(ArgumentError, match="ranks: got 0"):
        measured(0.5, "sorted", ranks=0)
    with pytest.raises(DataError, match="32 rows on each of 8 ranks, but 60 rows in all"):
        measured(0.5, "sorted", np.full(3, 20))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rows", [4, 32])
def test_a_picture_predicts_the_scatter_that_it_draws(sizes: str, rows: int) -> None:
    found = measured(0.4, "shuffled", SIZES[sizes], rows, 2)
    if sizes in ("equal", "power"):
        for order in found.orders.values():
            assert np.std(order.batch_means) == pytest.approx(order.predicted_sd, rel=0.2)
    for name in ("as it stands", "shuffled"):  # of one giant too: shuffled rows are worth what they are
        assert np.std(found.orders[name].batch_means) == pytest.approx(rows**-0.5, rel=0.15)
        assert found.orders[name].local.design_effect == pytest.approx(1, abs=0.06)
    assert batch_means(found)[:4] == b"\x89PNG"


def test_joined_rows_are_those_of_the_batch_of_all_ranks() -> None:
    """Ten entities on eight ranks: together they are worth more than eight times one rank's, since they hold different ones."""
    sizes = SIZES["few"]
    x, entity = rows_of(sizes, 0.5, "sorted", features=400)
    rho = float(inspect(x[:, :5], list("abcde"), entity, "user", 8, 8).mean_correlation)
    found = inspect(x, [f"f{i}" for i in range(400)], entity, "user", 8, 8).orders["sorted"]
    assert 0.3 < rho < 0.6
    rng, squares = np.random.default_rng(0), []
    for _ in range(60):
        order = sorted_by_entity(entity, rng)
        steps = np.concatenate([list(batches(order, r, 8, 8, drop_last=True)) for r in range(8)], axis=1)
        squares.append(((x[steps].mean(axis=1) - x.mean(axis=0)) ** 2).mean(axis=0) / x.var(axis=0))
    counted = 1 / np.mean(squares)
    assert found.joined.effective_rows == pytest.approx(counted, rel=0.05)
    assert found.joined.effective_rows > 1.15 * 8 * found.local.effective_rows


def drawn(x: np.ndarray, order: np.ndarray, rows: int, ranks: int) -> float:
    """Design effect of the joined batches of an order, begun at random."""
    begins = np.random.default_rng(5).integers(0, len(x), 1500)[:, None, None]
    places = (begins + np.arange(ranks)[:, None] * len(x) // ranks + np.arange(rows)) % len(x)
    means = x[order[places.reshape(1500, -1)]].mean(axis=1) - x.mean(axis=0)
    return rows * ranks * float(np.mean((means**2).mean(axis=0) / x.var(axis=0, ddof=1)) + 1 / len(x))


def hard_log(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """What more than entities can make of a log: values, entities."""
    rng, features = np.random.default_rng(3), 12
    if kind in ("drift", "neighbours"):
        entity = rng.integers(0, 200, 6000)
        own = rng.normal(size=(200, features))[entity]
        slow = np.cumsum(rng.normal(size=(6000, features)), axis=0) if kind == "drift" else 0.0
        if kind == "neighbours":
            slow = np.repeat(rng.normal(size=(600, features)), 10, axis=0)
        slow = slow / slow.std(axis=0)
        return 0.4 * own + slow + rng.normal(size=own.shape), entity
    sizes = np.array([2000] + [3] * 700)  # a giant without an effect of its own, and dwarfs with a large one
    entity = np.repeat(np.arange(701), sizes)
    own = rng.normal(size=(701, features))
    own[0] *= 0.05
    return own[entity] + 0.5 * rng.normal(size=(len(entity), features)), entity


@pytest.mark.parametrize("kind", ["drift", "neighbours", "giant"])
def test_what_entities_do_not_explain_is_measured(kind: str) -> None:
    """The formula knows entities only; where the columns scatter otherwise, their own figures are taken, and it is said."""
    x, entity = hard_log(kind)
    found = inspect(x, [f"f{i}" for i in range(x.shape[1])], entity, "user", 32, 4)
    name = "sorted" if kind == "giant" else "as it stands"
    order = sorted_by_entity(entity, np.random.default_rng(0)) if kind == "giant" else np.arange(len(x))
    here = found.orders[name]
    assert abs(np.log(here.unexplained)) > 0.3
    assert here.local.design_effect == pytest.approx(drawn(x, order, 32, 1), rel=0.1)
    if kind != "giant":  # of few entities another arrangement gives another joined batch
        assert here.joined.design_effect == pytest.approx(drawn(x, order, 32, 4), rel=0.1)
        assert "shuffled (design effect" not in verdict(found)
    assert found.orders["shuffled"].local.design_effect == pytest.approx(1, abs=1e-9)
    assert f"{name.capitalize()}, the columns' batch means scatter" in inspection_table(found)
    assert np.std(here.batch_means) == pytest.approx(here.predicted_sd, rel=0.25)


@pytest.mark.parametrize("sizes", SIZES)
def test_ordinary_logs_are_explained_by_their_entities(sizes: str) -> None:
    for order in ("sorted", "shuffled"):
        found = measured(0.4, order, SIZES[sizes], 16, 4)
        assert [o.unexplained for o in found.orders.values()] == [None] * 3


def test_it_does_not_matter_where_a_column_stands_or_what_is_missing() -> None:
    x, entity = rows_of(np.full(100, 20), 0.5, "sorted", 2)
    x[np.random.default_rng(3).random(x.shape) < 0.2] = np.nan
    here, far = (inspect(v, ["a", "b"], entity, "user", 32, 4) for v in (x, x + 1000))
    assert far.correlation["a"] == pytest.approx(here.correlation["a"], rel=1e-6)
    assert here.orders["sorted"].batch_means == pytest.approx(far.orders["sorted"].batch_means, abs=1e-6)
    assert max(here.correlation.values()) < 0.5  # a missing value says nothing of its entity


def test_columns_that_differ_are_explained_each_by_its_own_correlation() -> None:
    """The first columns are measured, and compared with what *their* correlation explains, not that of all."""
    (alike, entity), (unlike, _) = (rows_of(np.full(300, 20), rho, "sorted", 20) for rho in (0.9, 0.0))
    x = np.concatenate([alike, unlike, unlike], axis=1)
    found = inspect(x, [f"f{i}" for i in range(60)], entity, "user", 32, 4)
    assert [order.unexplained for order in found.orders.values()] == [None] * 3


def test_few_joined_batches_are_allowed_their_luck() -> None:
    """3,000 rows make six joined batches of 512, which scatter by chance alone."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        entity = rng.permutation(np.repeat(np.arange(300), 10))
        own = rng.normal(size=(300, 2))[entity]
        found = inspect(own + rng.normal(size=own.shape), ["a", "b"], entity, "user", 32, 16)
        assert found.orders["as it stands"].unexplained is None


def test_a_log_that_drifts_is_not_called_harmless_though_its_entities_are() -> None:
    rng = np.random.default_rng(0)
    entity = rng.permutation(np.repeat(np.arange(150), 20))
    x = np.linspace(-2, 2, 3000)[:, None] + rng.normal(size=(3000, 2))
    found = inspect(x, ["a", "b"], entity, "user", 32, 4)
    assert found.orders["sorted"].local.design_effect < 1.2 < found.orders["as it stands"].local.design_effect
    assert "hardly make a batch noisier" not in verdict(found)


def test_the_most_alike_features_are_listed_first_and_the_rest_counted() -> None:
    parts = [rows_of(np.full(100, 20), rho, "sorted", 1) for rho in np.linspace(0.95, 0.25, 15)]
    x, entity = np.concatenate([part for part, _ in parts], axis=1), parts[0][1]
    x[:, 14] = 1.0
    listed = inspection_table(inspect(x[:, ::-1], [f"f{i}" for i in range(14, -1, -1)], entity, "user", 32, 8))
    assert re.findall(r" (f\d+) \d", listed.splitlines()[0]) == [f"f{i}" for i in range(12)]
    assert ", and 3 more." in listed.splitlines()[0]
    few = inspection_table(inspect(x[:, -3:], ["a", "b", "none"], entity, "user", 32, 8)).splitlines()[0]
    assert few.endswith("none constant.")


def test_a_periodic_order_is_searched_rank_by_rank() -> None:
    """16 entities in blocks of 100, 16 times over: 8 and 16 readers always read the same entity, 9 do not."""
    entity = np.tile(np.repeat(np.arange(16), 100), 16)
    own = np.random.default_rng(0).normal(size=(16, 5))
    x = own[entity] + 0.8 * np.random.default_rng(1).normal(size=(len(entity), 5))
    found = inspect(x, list("abcde"), entity, "site", 32, 8)
    stands = found.orders["as it stands"]
    reading, rho = stands.reading, found.mean_correlation
    assert behind(reading, rho, 32, stands.ranks_needed).effective_rows >= 32
    assert all(behind(reading, rho, 32, ranks).effective_rows < 32 for ranks in range(1, stands.ranks_needed))
    assert stands.ranks_needed < 16
    assert "ranks read alike rows at the same time" in verdict(found)


def test_constant_columns_and_aligned_entities_are_said() -> None:
    with pytest.raises(CountError, match="constant columns only"):
        inspect(np.ones((600, 2)), ["a", "b"], np.arange(600) // 20, "user", 8, 2)
    aligned = inspection_table(measured(0.5, "sorted", np.full(100, 64), 32, 8))
    assert "All entities have 64 rows, and batches 32" in aligned
    assert "All entities have" not in inspection_table(measured(0.5, "sorted", np.full(100, 58), 32, 8))


def test_few_entities_or_a_heavy_tail_are_said_to_bias_the_correlation() -> None:
    rng, entity = np.random.default_rng(0), np.repeat(np.arange(200), 30)
    own = np.stack([rng.normal(size=200), np.exp(1.5 * rng.normal(size=200))], axis=1)
    x = 0.7 * (own / own.std(axis=0))[entity] + 0.7 * rng.normal(size=(6000, 2))
    found = inspect(x, ["even", "tailed"], entity, "user", 32, 8)
    assert list(found.low_by) == ["tailed"]
    assert re.search(r"too low where .* by about tailed \d+ % \(more in a heavy tail\)", inspection_table(found))
    few = measured(0.4, "sorted", np.full(10, 200))
    assert len(few.low_by) >= 3
    assert not measured(0.4, "sorted", np.full(500, 20)).low_by


def test_low_by_is_what_the_estimate_lacks_on_average() -> None:
    """Twelve entities drawn anew 300 times: the correlation of their world is missed by about what is said."""
    rng, entity = np.random.default_rng(0), np.repeat(np.arange(12), 60)
    found, said = [], []
    for _ in range(40):
        x = 0.8**0.5 * rng.normal(size=(12, 8))[entity] + 0.2**0.5 * rng.normal(size=(720, 8))
        inspection = inspect(x, list("abcdefgh"), entity, "user", 8, 4)
        found += inspection.correlation.values()
        said += [inspection.low_by.get(name, 0.0) for name in "abcdefgh"]
    assert np.mean(said) == pytest.approx(1 - np.mean(found) / 0.8, rel=0.35)


def test_the_picture_takes_a_typical_number_column() -> None:
    x, entity = rows_of(np.full(100, 20), 0.5, "sorted", 3)
    x[:, 1] = x[:, 0] + 30 * np.random.default_rng(2).normal(size=2000)  # nearly no correlation
    columns = ["half", "none", "also", "city", "city"]
    found = inspect(
        np.c_[x, entity % 2, entity % 2 == 0],
        ["half", "none", "also", "city=Oslo", "city=Rome"],
        entity,
        "user",
        32,
        8,
        columns,
    )
    assert found.most_alike == "city=Oslo"
    assert found.typical in ("half", "also")


FILES = {
    "sorted.csv": ("power", "sorted", ","),
    "shuffled.csv": ("equal", "shuffled", ","),
    "giant.csv": ("giant", "shuffled", ","),
    "few.csv": ("few", "sorted", ","),
    "gaps-and-text.csv": ("power", "sorted", ";"),
    "arrays.npz": ("equal", "sorted", ""),
}


def write(path: Path, sizes: str, order: str, delimiter: str) -> dict:
    x, entity = rows_of(SIZES[sizes], 0.5, order)
    clicks = (x[:, 0] + np.random.default_rng(9).normal(size=len(x)) > 0).astype(int)
    if path.suffix == ".npz":
        np.savez(path, x=x, y=clicks, entity=entity)
        return {}
    lines = [["user", "a", "b", "c", "d", "e", "city", "click"]]
    for i, row in enumerate(x):
        cells = [f"{value:.6f}" for value in row]
        if delimiter == ";" and i % 50 == 7:
            cells[1] = ""
        lines.append([f"u{entity[i]}", *cells, "Oslo" if entity[i] % 3 else "Rome", str(clicks[i])])
    path.write_text("\n".join(delimiter.join(line) for line in lines) + "\n")
    return {"entity": "user", "label": "click", "delimiter": delimiter, "missing": "impute"}


@pytest.mark.parametrize("file", FILES)
def test_one_file_has_one_figure_whoever_is_asked(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """inspect-log, advise --data and train.py, of the same columns: correlation, design effects and effective rows."""
    path, rows, ranks = tmp_path / file, 16, 4
    how = write(path, *FILES[file])
    inspect_log(str(path), LogOptions(**how), rows=rows, ranks=ranks, figure=str(tmp_path / "f.png"))
    inspected = capsys.readouterr().out
    advise(LogOptions(**how), devices=ranks, rows=rows, data=str(path))
    advised = capsys.readouterr().out
    config = sorted_batches.Config(
        task=str(path), arms=("iid+sync", "sorted+local", "sorted+sync"), seeds=1, epochs=1, rows=rows
    )
    source = Source(str(path), **how)

    def trained(comm):
        task = own_task(comm, source, rows)
        result = sorted_batches.run(comm, config, task=task)
        return (inspection_table(task.inspection), table(result)) if comm.rank == 0 else None

    seen_in_training, arms_table = launch(trained, ranks, "threads")[0]
    assert seen_in_training in inspected  # word for word: one function
    mean = float(re.search(r"mean over columns (-?[\d.]+);", inspected)[1])
    assert float(re.search(r"mean correlation over columns (-?[\d.]+)\.\n", advised)[1]) == pytest.approx(
        mean, abs=0.006
    )
    assert (
        float(re.search(r"intra-class correlation (-?[\d.]+) \(mean over columns, whole log\)", arms_table)[1]) == mean
    )

    def row(name: str) -> list[str]:
        return re.split(r"  +", re.search(rf"^{name} .*$", inspected, re.M)[0])[1:]

    # the order as it stands, in advise
    _, deff, worth, _, deff_together, worth_together = row("as it stands")
    if "as if shuffled" in advised:
        assert f"design effect {deff}" in advised
        assert f"n / deff = {worth} independent" in advised
    else:
        for place, d, e in (("Locally", deff, worth), ("Together", deff_together, worth_together)):
            line = re.search(rf"^{place}.*$", advised, re.M)[0]
            assert line.endswith(f"= {d}.")
            assert f"n / deff = {e} independent" in line
    # sorted and shuffled, in training
    for arm, name, column in (("iid+sync", "shuffled", 5), ("sorted+local", "sorted", 2), ("sorted+sync", "sorted", 5)):
        assert re.search(rf"^{re.escape(arm)} .*  \d+ -> {re.escape(row(name)[column])}$", arms_table, re.M), (
            arm,
            arms_table,
        )


def test_advise_reads_the_order_in_which_a_file_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = {}
    for order in ("sorted", "shuffled"):
        path = tmp_path / f"{order}.csv"
        how = write(path, "equal", order, ",")
        advise(LogOptions(**how), devices=32, rows=32, data=str(path))
        verdicts[order] = capsys.readouterr().out.split("\n\n")[1].split(":")[0]
    assert verdicts == {"sorted": "Worth trying", "shuffled": "Probably not needed"}


def test_the_page_of_own_logs_names_the_commands_that_there_are() -> None:
    assert "inspect-log" in (ROOT / "docs/howto/own_csv.md").read_text()
