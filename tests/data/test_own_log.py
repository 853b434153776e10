"""A user's own log: what is read from good files, and what is said of bad ones."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from conftest import run, run_mpi

from syncbn_sim import data
from syncbn_sim.comm import launch
from syncbn_sim.data import Source, read_log
from syncbn_sim.diagnostics.inspect_log import inspect
from syncbn_sim.diagnostics.inspection import worst
from syncbn_sim.errors import ArgumentError, DataError
from syncbn_sim.experiments import sorted_batches
from syncbn_sim.experiments.tasks import own_task

SCRIPT = "mpi_examples/train.py"


def write_csv(path: Path, header: list[str], rows: list) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def log_rows(n: int = 60, users: int = 6) -> list[list]:
    rng = np.random.default_rng(0)
    return [[f"u{i % users}", i % 2, f"{rng.normal():.4f}", ["red", "green", "blue"][i % 3]] for i in range(n)]


HEADER = ["user", "click", "age", "colour"]


def test_reads_numbers_text_labels_and_entities(tmp_path: Path) -> None:
    log = read_log(Source(write_csv(tmp_path / "a.csv", HEADER, log_rows()), "click", "user"))
    assert log.x.shape == (60, 4)
    assert log.names[0] == "age"
    assert sorted(log.names[1:]) == ["colour=blue", "colour=green", "colour=red"]
    np.testing.assert_allclose(log.x[:, 0], [float(row[2]) for row in log_rows()], rtol=1e-6)
    np.testing.assert_array_equal(log.x[:, log.names.index("colour=red")], [row[3] == "red" for row in log_rows()])
    np.testing.assert_array_equal(log.y, [row[1] for row in log_rows()])
    assert log.kind == "binary"
    np.testing.assert_array_equal(log.entity[:6] == log.entity[6:12], True)
    assert len(np.unique(log.entity)) == 6
    assert any("binary label" in note for note in log.notes)


def test_passes_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv(tmp_path / "a.csv", HEADER, log_rows(59))
    whole = read_log(Source(path, "click", "user"))
    monkeypatch.setattr("syncbn_sim.data.tables.CELLS", 100)
    seen: list[int] = []
    parts = read_log(Source(path, "click", "user"), seen.append)
    np.testing.assert_array_equal(parts.x, whole.x)
    np.testing.assert_array_equal(parts.entity, whole.entity)
    assert len(seen) == 4  # a first look, then 59 rows of 4 columns in three passes
    assert seen[-1] == Path(path).stat().st_size


def test_features_quotes_delimiters_and_byte_order_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.csv"
    path.write_text('\ufeffuser;click;"a;b";c\nu1;0;1.5;2\nu2;1;"2.5";3\n\nu1;1;3.5;4\n', encoding="utf-8")
    log = read_log(Source(str(path), "click", "user", features=("a;b",), delimiter=";"))
    assert log.names == ["a;b"]
    np.testing.assert_array_equal(log.x[:, 0], [1.5, 2.5, 3.5])


def test_label_kinds_are_chosen_by_the_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for values, kind, said in (
        (["yes", "no"] * 30, "binary", "no, yes"),
        (["b", "c", "a"] * 20, "classes", "a, b, c"),
        ([1, 2, 3, 7] * 15, "classes", "accuracy"),
        (rng.normal(size=60).tolist(), "numbers", r"R^2"),
        ([0.5, 1.5, 2.5] * 20, "numbers", "numeric"),
    ):
        rows = [[row[0], value, row[2], row[3]] for row, value in zip(log_rows(), values, strict=True)]
        log = read_log(Source(write_csv(tmp_path / "k.csv", HEADER, rows), "click", "user"))
        assert log.kind == kind
        assert any(said in note for note in log.notes)
        if kind == "classes":
            order = sorted(set(values))
            np.testing.assert_array_equal(log.y, [order.index(v) for v in values])


def test_dates_and_identifiers_are_left_out_aloud_unless_named(tmp_path: Path) -> None:
    rows = [[f"u{i % 9}", i % 2, i * 0.5, f"2026-01-{i % 28 + 1:02d}", f"req-{i}", 1000 + i] for i in range(200)]
    header = ["user", "click", "age", "day", "request", "row"]
    path = write_csv(tmp_path / "a.csv", header, rows)
    log = read_log(Source(path, "click", "user"))
    assert log.names == ["age"]
    said = " ".join(log.notes)
    assert "'day' looks like a date" in said
    assert "'request' looks like an identifier" in said
    assert "'row' looks like an identifier" in said
    assert read_log(Source(path, "click", "user", features=("row", "age"))).names == ["row", "age"]


def test_wide_text_is_hashed_the_same_way_every_time(tmp_path: Path) -> None:
    rows = [[row[0], row[1], row[2], f"word{i % 50}"] for i, row in enumerate(log_rows(200))]
    path = write_csv(tmp_path / "a.csv", HEADER, rows)
    log = read_log(Source(path, "click", "user", width=16))
    assert log.names == ["age", *(f"colour#{b}" for b in range(16))]
    assert (log.x[:, 1:].sum(1) == 1).all()
    np.testing.assert_array_equal(log.x[:50, 1:], log.x[50:100, 1:])
    code = f"from syncbn_sim.data import *; print(read_log(Source({path!r}, 'click', 'user', width=16)).x[:, 1:].argmax(1).tolist())"
    assert json.loads(run([sys.executable, "-c", code]).stdout) == log.x[:, 1:].argmax(1).tolist()


def test_hash_buckets_are_pinned(tmp_path: Path) -> None:
    """A model that was trained on hashed columns has to find each text where it was; a missing one is in bucket 0."""
    words = [f"word{i % 40}" for i in range(200)]
    rows = [[*row[:3], word] for row, word in zip(log_rows(200), words, strict=True)]
    rows[7][3] = words[7] = ""
    path = write_csv(tmp_path / "a.csv", HEADER, rows)
    log = read_log(Source(path, "click", "user", width=16, missing="impute"))
    digests = [blake2b(word.encode(), digest_size=8).digest() for word in words]
    expected = [
        int.from_bytes(digest, "little") % 16 if word else 0 for digest, word in zip(digests, words, strict=True)
    ]
    assert [log.names[1 + place] for place in log.x[:, 1:].argmax(axis=1)] == [
        f"colour#{bucket}" for bucket in expected
    ]
    assert expected[:3] == [7, 5, 13]


def test_limits_are_where_they_are_said_to_be(tmp_path: Path) -> None:
    """One-hot up to `width` texts, classes up to 20, and an identifier is what has over 100 and over 90 % different values."""

    def read(texts: list[str], labels: list[int], width: int = 8) -> data.Log:
        rows = [[f"u{i % 6}", label, text] for i, (text, label) in enumerate(zip(texts, labels, strict=True))]
        return read_log(Source(write_csv(tmp_path / "a.csv", ["user", "y", "text"], rows), "y", "user", width=width))

    clicks = [i % 2 for i in range(400)]
    for texts, names in ((8, "text=t"), (9, "text#")):
        assert all(name.startswith(names) for name in read([f"t{i % texts}" for i in range(400)], clicks).names)
    for labels, kind in ((20, "classes"), (21, "numbers")):
        assert read(["a", "b"] * 200, [i % labels for i in range(400)]).kind == kind
    for rows, texts in ((100, 100), (400, 300)):  # few rows, or far from all different
        assert read([f"t{i % texts}" for i in range(rows)], clicks[:rows]).names[0] == "text#0"


def test_missing_values_are_imputed_on_request(tmp_path: Path) -> None:
    rows = log_rows()
    rows[3][2], rows[5][3] = "", "NA"
    path = write_csv(tmp_path / "a.csv", HEADER, rows)
    log = read_log(Source(path, "click", "user", missing="impute"))
    assert np.isnan(log.x[3, 0])
    assert log.x[5, log.names.index("colour=(missing)")] == 1
    split = log.split(0)
    assert np.isfinite(split.train.x).all()
    assert np.isfinite(split.test.x).all()
    assert any("1 of 'age', 1 of 'colour'" in note for note in log.notes)


def test_split_is_by_entity_and_standardised_by_the_training_part(tmp_path: Path) -> None:
    log = read_log(Source(write_csv(tmp_path / "a.csv", HEADER, log_rows(400, users=20)), "click", "user"))
    splits = [log.split(seed, np.float64) for seed in (0, 0, 1)]
    first = splits[0]
    assert len(np.unique(first.test.entity)) == 4
    assert not set(first.test.entity) & set(first.train.entity)
    np.testing.assert_allclose(first.train.x[:, 0].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(first.train.x[:, 0].std(), 1)
    assert set(np.unique(first.train.x[:, 1:])) == {0.0, 1.0}  # one-hot columns stay as they are
    np.testing.assert_array_equal(splits[1].test.x, first.test.x)
    assert set(splits[2].test.entity) != set(first.test.entity)


def test_test_rows_are_standardised_as_the_training_rows_are() -> None:
    """By the training rows' mean and sd, and what is missing stands at the training mean: nothing of the test rows comes in."""
    rng, entity = np.random.default_rng(0), np.repeat(np.arange(10), 8)
    x = rng.normal(size=(80, 1)) + 5.0 * (entity == 3)[:, None] + entity[:, None]
    x[::7] = np.nan
    split = data.Log(x, ["a"], ["a"], np.array([True]), entity % 2.0, "binary", entity).split(0, np.float64)
    train, test = (x[np.isin(entity, part.entity), 0] for part in (split.train, split.test))
    assert np.isnan(train).any()
    assert np.isnan(test).any()
    for column, part in ((train, split.train), (test, split.test)):
        expected = np.nan_to_num((column - np.nanmean(train)) / np.nanstd(train))
        np.testing.assert_allclose(part.x[:, 0], expected, atol=1e-12)


def test_a_test_set_has_an_entity_however_few_there_are() -> None:
    entity = np.array([0, 0, 1, 1])
    split = data.Log(np.ones((4, 1)), ["a"], ["a"], np.array([True]), entity, "binary", entity).split(0)
    assert len(split.test) == len(split.train) == 2


GOOD = "user,click,age,colour\n" + "".join(f"u{i % 3},{i % 2},{i}.5,red\n" for i in range(12))
BAD: dict[str, tuple[str | bytes, dict, str]] = {
    "empty file": ("", {}, "an empty file"),
    "header only": ("user,click,age\n", {}, "line 1: got a header and no rows"),
    "missing column": (GOOD, {"entity": "usr"}, "column 'usr': got no such column.*Did you mean 'user'"),
    "missing label": (GOOD, {"label": "sale"}, "column 'sale': got no such column, expected one of user, click"),
    "missing feature": (GOOD, {"features": ("age", "size")}, "column 'size'"),
    "text in a number": (GOOD.replace("7.5", "old"), {}, "line 9, column 'age': got 'old', expected a number"),
    "infinite number": (GOOD.replace("7.5", "inf"), {}, "line 9, column 'age': got 'inf'"),
    "missing value": (GOOD.replace("7.5", ""), {}, r"line 9, column 'age': got missing values in 'age': 1 \(first in line 9\).*impute"),
    "missing text": (GOOD.replace("4.5,red", "4.5,?"), {}, "line 6, column 'colour'"),
    "missing label value": (GOOD.replace("u1,1,1.5", "u1,nan,1.5"), {}, "line 3, column 'click': got a missing value.*--missing drop"),
    "missing entity": (GOOD.replace("u1,1,1.5", ",1,1.5"), {}, "line 3, column 'user': got a missing value.*--missing drop"),
    "one class": (GOOD.replace(",0,", ",1,"), {}, "column 'click': got one class"),
    "one entity": (GOOD.replace("u1", "u0").replace("u2", "u0"), {}, "column 'user': got one entity"),
    "long line": (GOOD.replace("7.5,red", "7.5,red,"), {}, "line 9: got 5 fields, expected 4"),
    "short line": (GOOD.replace("7.5,red", "7.5"), {}, "line 9: got 3 fields, expected 4"),
    "wrong delimiter": (GOOD.replace(",", ";"), {}, "line 1: got one column.*pass --delimiter ';'"),
    "wrong encoding": (GOOD.replace("red", "r\xe9d").encode("latin-1"), {}, "line 2: got the byte 0xe9, which is not UTF-8"),
    "huge field": (GOOD + "u1,1,1.5," + "x" * 200_000 + "\n", {}, "line 14: got unreadable text.*field limit"),
    "open quote": (GOOD + 'u1,1,1.5,"red\n', {}, "unreadable text.*never closed"),
    "binary file": (b"PK\x03\x04\x00\x00user,click\n", {}, "line 1|unreadable"),
    "column twice": ("user,click,age,age\nu,1,2,3\n", {}, "line 1, column 'age': got the same name twice"),
    "text label with many values": (
        "user,click,age\n" + "".join(f"u{i % 3},w{i},1.5\n" for i in range(40)), {}, "column 'click': got 40 different texts"),
    "nothing to learn from": (
        "user,click,day\n" + "".join(f"u{i % 3},{i % 2},2026-01-0{i % 9 + 1}\n" for i in range(12)), {}, "no feature"),
    "label is entity": (GOOD, {"entity": "click"}, "one column in two parts"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_explained(name: str, tmp_path: Path) -> None:
    content, change, message = BAD[name]
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_log(Source(**{"path": str(path), "label": "click", "entity": "user", **change}))


def test_bad_sources_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv.*No such file"):
        read_log(Source(str(tmp_path / "nowhere.csv"), "a", "b"))
    for change, message in (
        ({"entity": ""}, "--entity user_id"),
        ({"missing": "forget"}, "missing: got 'forget', expected refuse or impute or drop"),
        ({"width": 1}, "width"),
        ({"decimal": ";"}, "decimal"),
        ({"delimiter": "ab"}, "one ASCII character"),
        ({"delimiter": "§"}, "one ASCII character"),
        ({"delimiter": '"'}, "one ASCII character"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Source(**{"path": "a.csv", "label": "a", "entity": "b", **change})


def test_npz(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good = {"x": rng.normal(size=(30, 2)), "y": np.arange(30) % 2, "entity": np.arange(30) // 3}
    np.savez(tmp_path / "a.npz", **good)
    log = read_log(Source(str(tmp_path / "a.npz")))
    np.testing.assert_allclose(log.x, good["x"], rtol=1e-6)
    for change, message in (
        ({"x": good["x"][:5]}, "shapes"), ({"y": np.full(30, np.nan)}, "column 'y': got a missing value"),
        ({"y": np.full(30, np.inf)}, "got inf in y, row 0"),
        ({"x": good["x"].astype(str)}, "expected numbers"),
        ({"entity": np.array([{}] * 30)}, "unreadable"), ({"x": None}, "no array 'x'|unreadable"),
    ):  # fmt: skip
        arrays = {**good, **change}
        np.savez(tmp_path / "b.npz", **{name: value for name, value in arrays.items() if value is not None})
        with pytest.raises(DataError, match=message):
            read_log(Source(str(tmp_path / "b.npz")))
    (tmp_path / "c.npz").write_text("no zip")
    with pytest.raises(DataError, match="unreadable"):
        read_log(Source(str(tmp_path / "c.npz")))


def test_inspect_log_command(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", HEADER, log_rows(600, users=30))
    command = [str(Path(sys.executable).parent / "syncbn-sim"), "inspect-log"]
    figure = tmp_path / "f.png"
    done = run(
        [
            *command,
            path,
            "--label",
            "click",
            "--entity",
            "user",
            "--rows",
            "16",
            "--ranks",
            "4",
            "--figure",
            str(figure),
        ]
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "600 rows of 30 entities (user)",
        "Intra-class correlation by user",
        "as it stands",
        "shuffled",
        "16 rows are worth",
        "on 4 ranks: S",
        "64 rows are worth",
    ):
        assert words in done.stdout
    assert figure.read_bytes()[:4] == b"\x89PNG"
    bare = run([*command, path, "--entity", "user", "--figure", str(figure)])
    assert bare.returncode == 0, bare.stderr
    assert "click" in bare.stdout  # without a label it is a feature like the others
    bad = run([*command, path, "--label", "clik", "--entity", "user", "--figure", str(tmp_path / "g.png")])
    assert bad.returncode != 0
    assert "Did you mean 'click'" in bad.stderr
    assert "Traceback" not in bad.stderr
    assert not (tmp_path / "g.png").exists()


def with_key(name: str, tmp_path: Path) -> str:
    """scikit-learn's data with a made-up key: rows of one class are dealt to a few clinics, so keys and classes go together."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    clinic = [f"clinic-{label}-{i % 8}" for i, label in enumerate(y)]
    rows = [[key, *map(repr, map(float, row)), int(label)] for key, row, label in zip(clinic, x, y, strict=True)]
    return write_csv(tmp_path / f"{name}.csv", ["clinic", *(f"f{i}" for i in range(x.shape[1])), "diagnosis"], rows)


@pytest.mark.parametrize(("name", "metric"), [("wine", "accuracy"), ("breast_cancer", "auc")])
@pytest.mark.parametrize("backend", ["threads", "mpi"])
def test_real_data_end_to_end(name: str, metric: str, backend: str, tmp_path: Path) -> None:
    path, out = with_key(name, tmp_path), tmp_path / "runs"
    options = [
        "--task",
        path,
        "--label",
        "diagnosis",
        "--entity",
        "clinic",
        "--rows",
        "4",
        "--epochs",
        "2",
        "--seeds",
        "2",
    ]
    options += ["--arms", "iid+sync,sorted+local,sorted+sync", "--out", str(out)]
    done = run_mpi(4, SCRIPT, *options) if backend == "mpi" else run([sys.executable, SCRIPT, "--ranks", "4", *options])
    assert done.returncode == 0, done.stderr
    assert "(clinic)" in done.stdout
    assert "sorted by clinic" in done.stdout
    folder = next(out.iterdir())
    assert folder.name.startswith(name)
    (result,) = json.loads((folder / "result.json").read_text())
    assert set(result["arms"]["sorted+sync"]) >= {metric}
    assert 0.4 < result["arms"]["iid+sync"][metric]["mean"] <= 1
    assert (result["config"]["log"]["label"], result["config"]["log"]["entity"]) == ("diagnosis", "clinic")
    again = run([sys.executable, SCRIPT, "--config", str(folder / "config.toml"), "--json", "--out", str(out)])
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)[0]["config"]["rows"] == 4


def test_numeric_label_is_judged_by_r_squared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.3 * rng.normal(size=2000)
    np.savez(tmp_path / "n.npz", x=x, y=y, entity=np.arange(2000) // 10)

    def on_rank(comm):
        task = own_task(comm, Source(str(tmp_path / "n.npz")))
        return sorted_batches.run(
            comm, sorted_batches.Config(task="n.npz", arms=("iid+sync",), seeds=1, epochs=8), task=task
        )

    result = launch(on_rank, 2)[0]
    assert result.metric == "r2"
    assert result.arms["iid+sync"]["r2"].mean > 0.9


def test_bad_files_under_mpirun_end_all_with_one_message(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(GOOD.replace("7.5", "old"))
    out = tmp_path / "runs"
    done = run_mpi(3, SCRIPT, "--task", str(path), "--label", "click", "--entity", "user", "--out", str(out))
    assert done.returncode != 0
    assert done.stderr.count("line 9, column 'age': got 'old'") == 1
    assert "Traceback" not in done.stderr
    small = run(
        [
            sys.executable,
            SCRIPT,
            "--task",
            write_csv(path, HEADER, log_rows()),
            "--label",
            "click",
            "--entity",
            "user",
            "--out",
            str(out),
        ]
    )
    assert small.returncode != 0
    assert "got 32 rows on each of 8 ranks, but 60 rows in all" in small.stderr
    assert not out.exists()


def test_request_log_written_and_read_back_is_the_same_log(tmp_path: Path) -> None:
    split = data.request_log(6000, 100, seed=0)
    rows = [
        [f"u{u}", int(y), *map(repr, map(float, x))]
        for u, y, x in zip(split.train.entity, split.train.y, split.train.x, strict=True)
    ]
    log = read_log(
        Source(write_csv(tmp_path / "r.csv", ["user", "click", *(f"f{i}" for i in range(24))], rows), "click", "user")
    )
    np.testing.assert_array_equal(log.x, split.train.x)
    np.testing.assert_array_equal(log.y, split.train.y)
    assert len(np.unique(log.entity)) == len(np.unique(split.train.entity))
    assert asdict(inspect(log.x, log.names, log.entity, "user", 32, 8))["mean_correlation"] == pytest.approx(
        0.62, abs=0.05
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_request_log_from_a_file_shows_the_main_jobs_effect(tmp_path: Path) -> None:
    split = data.request_log(102_400, 25_600, seed=0)
    joined = {k: np.concatenate([getattr(split.train, k), getattr(split.test, k)]) for k in ("x", "y")}
    entity = np.concatenate([split.train.entity, split.test.entity + split.train.entity.max() + 1])
    np.savez(tmp_path / "r.npz", **joined, entity=entity)

    def on_rank(comm):
        task = own_task(comm, Source(str(tmp_path / "r.npz")))
        arms = ("iid+local", "iid+sync", "sorted+local", "sorted+sync")
        return sorted_batches.run(comm, sorted_batches.Config(task="r.npz", arms=arms, seeds=3), task=task)

    result = launch(on_rank, 8)[0]
    assert result.differences["sorted+local"].mean < -0.006
    assert result.recovery.mean > 0.6


def test_many_features_of_one_text_column_do_not_hide_an_alike_number() -> None:
    """32 hashed features of a column that says nothing about the entity count as one."""
    rng = np.random.default_rng(0)
    entity = np.repeat(np.arange(200), 20)
    age = rng.normal(size=200)[entity] + 0.1 * rng.normal(size=len(entity))
    page = np.eye(32)[rng.integers(0, 32, len(entity))]
    names = ["age", *(f"page#{b}" for b in range(32))]
    found = inspect(np.column_stack([age, page]), names, entity, "user", 32, 8, ["age", *["page"] * 32])
    assert found.mean_correlation == pytest.approx(found.correlation["age"] / 2, abs=0.01)
    assert "'age' alone (correlation 0.99)" in worst(found)
