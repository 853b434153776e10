"""A user's own log: files as other programs write them, and everything in them that must not pass without a word."""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run

from syncbn_sim.data import Source, read_log
from syncbn_sim.errors import DataError
from syncbn_sim.stats import intra_class_correlation

pl = pytest.importorskip("polars")
RNG = np.random.default_rng(0)
ROWS = 120
COLUMNS = {
    "user": [f"u{i % 9}" for i in range(ROWS)],
    "click": [i % 2 for i in range(ROWS)],
    "age": RNG.normal(size=ROWS).tolist(),
    "colour": [("red", "green", "grün, hell", 'a "b"\nc')[i % 4] for i in range(ROWS)],
    "visits": RNG.integers(0, 9, ROWS).tolist(),
}


def table(columns: dict[str, list], **options: str) -> str:
    """As Python's csv writes it."""
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return text.getvalue()


def read(path: Path, content: str | bytes = "", **options: object):
    if content:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_log(Source(**{"path": str(path), "label": "click", "entity": "user", **options}))


def zstd(path: Path) -> None:
    pl.DataFrame(COLUMNS).lazy().sink_csv(path, compression="zstd")


def pandas_csv(path: Path) -> None:
    pytest.importorskip("pandas").DataFrame(COLUMNS).to_csv(path, index=False)


WRITERS = {
    "a.csv": lambda path: path.write_text(table(COLUMNS), newline=""),
    "crlf.csv": lambda path: path.write_text(table(COLUMNS, lineterminator="\r\n"), newline=""),
    "quoted.csv": lambda path: path.write_text(table(COLUMNS, quoting=csv.QUOTE_ALL), newline=""),
    "bom.csv": lambda path: path.write_text(table(COLUMNS), encoding="utf-8-sig", newline=""),
    "a.tsv": lambda path: path.write_text(table(COLUMNS, delimiter="\t"), newline=""),
    "UPPER.TSV": lambda path: path.write_text(table(COLUMNS, delimiter="\t"), newline=""),
    "a[1]*.csv": lambda path: path.write_text(table(COLUMNS), newline=""),
    "a.csv.gz": lambda path: path.write_bytes(gzip.compress(table(COLUMNS).encode())),
    "a.tsv.gz": lambda path: path.write_bytes(gzip.compress(table(COLUMNS, delimiter="\t").encode())),
    "a.csv.zst": zstd,
    "polars.csv": lambda path: pl.DataFrame(COLUMNS).write_csv(path),
    "pandas.csv": pandas_csv,
    "a.parquet": lambda path: pl.DataFrame(COLUMNS).write_parquet(path),
    "category.parquet": lambda path: pl.DataFrame(COLUMNS).cast({"colour": pl.Categorical}).write_parquet(path),
    "a.ndjson": lambda path: pl.DataFrame(COLUMNS).write_ndjson(path),
    "a[1].jsonl": lambda path: pl.DataFrame(COLUMNS).write_ndjson(path),
    "a.ndjson.gz": lambda path: path.write_bytes(gzip.compress(pl.DataFrame(COLUMNS).write_ndjson().encode())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_one_log_whatever_wrote_it(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    log = read(tmp_path / name)
    np.testing.assert_array_equal(log.x[:, log.names.index("age")], COLUMNS["age"])
    np.testing.assert_array_equal(log.x[:, log.names.index("visits")], COLUMNS["visits"])
    np.testing.assert_array_equal(log.y, COLUMNS["click"])
    np.testing.assert_array_equal(log.entity, [int(user[1:]) for user in COLUMNS["user"]])
    for colour in set(COLUMNS["colour"]):
        ones = log.x[:, log.names.index(f"colour={colour}")]
        np.testing.assert_array_equal(ones, [c == colour for c in COLUMNS["colour"]])
    assert log.x.dtype == np.float64
    assert log.kind == "binary"


def test_keys_are_texts(tmp_path: Path) -> None:
    """Whole numbers merge in float32 from 2^24 on, in float64 from 2^53 on; and 007 is nobody's 7."""
    for base in (3_000_000_000, 2**53, 10**30):
        columns = {**COLUMNS, "user": [base + i // 10 for i in range(ROWS)]}
        np.testing.assert_array_equal(read(tmp_path / "k.csv", table(columns)).entity, np.arange(ROWS) // 10)
    rho = []
    for base in (0, 3_000_000_000):
        columns = {**COLUMNS, "user": [base + i // 10 for i in range(ROWS)], "age": [i // 10 for i in range(ROWS)]}
        log = read(tmp_path / "k.csv", table(columns))
        rho.append(intra_class_correlation(log.x[:, 0], log.entity))
    assert rho[0] == rho[1] > 0.99
    for keys, entities in ((["1", "guest"], 2), (["7", "007"], 2), (["1", "1.0"], 2), (["u", " u "], 1)):
        columns = {**COLUMNS, "user": [*(keys * ROWS)[: ROWS - 1], "somebody else"]}
        assert read(tmp_path / "k.csv", table(columns)).entity.max() == entities
    pl.DataFrame({**COLUMNS, "user": [2**53 + i // 10 for i in range(ROWS)]}).write_parquet(tmp_path / "k.parquet")
    np.testing.assert_array_equal(read(tmp_path / "k.parquet").entity, np.arange(ROWS) // 10)


def test_small_differences_of_large_numbers_survive(tmp_path: Path) -> None:
    """Seconds since 1970 are kept to 128 s in float32: the column was rounded before its mean was taken off."""
    seconds = [1_700_000_000 + 0.25 * i for i in range(ROWS)]
    late = read(tmp_path / "a.csv", table({**COLUMNS, "age": seconds}), features=("age",))
    early = read(tmp_path / "b.csv", table({**COLUMNS, "age": [0.25 * i for i in range(ROWS)]}), features=("age",))
    for one, other in zip(late.split(0).train.x, early.split(0).train.x, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("huge", [1e39, 1e99, -1e60])
def test_a_huge_value_stays_finite_and_is_told(huge: float, tmp_path: Path) -> None:
    log = read(tmp_path / "a.csv", table({**COLUMNS, "age": [*COLUMNS["age"][1:], huge]}))
    assert log.x[-1, 0] == huge
    assert any("'age': one value" in note and f"{huge:g}" in note for note in log.notes)
    sets = [part for seed in range(10) for part in (log.split(seed).train, log.split(seed).test)]
    assert all(np.isfinite(part.x).all() for part in sets)
    assert max(np.abs(part.x).max() for part in sets) <= 1e6
    with pytest.raises(DataError, match=r"line 150, column 'age': got '1e\+101', expected a finite number"):
        read(tmp_path / "a.csv", table({**COLUMNS, "age": [*COLUMNS["age"][1:], "1e+101"]}))


DRESSED = {
    "decimal comma": ([f"{i},5" for i in range(ROWS)], "line 2, column 'age': got '0,5'.*--decimal ,"),
    "in quotes, beside whole numbers": ([f"{i},25" if i % 3 else i for i in range(ROWS)], "line 3.*'1,25'.*--decimal ,"),
    "thousands": ([f"1,{i:03},000" for i in range(ROWS)], "line 2.*'1,000,000'.*thousands separators"),
    "apostrophes": ([f"1'{i:03}" for i in range(ROWS)], "line 2.*thousands separators"),
    "spaces": ([f"1\N{NO-BREAK SPACE}{i:03}" for i in range(ROWS)], "line 2.*thousands separators"),
    "per cent": ([f"{i}%" for i in range(ROWS)], "line 2.*'0%'.*per cent"),
    "per cent, at times": (["5 %", *range(1, ROWS)], "line 2.*'5 %'.*per cent"),
    "currency": ([f"${i}.50" for i in range(ROWS)], "line 2.*currencies"),
    "one among numbers": ([*range(ROWS - 1), "3,7"], "line 121.*'3,7'.*--decimal ,"),
    "points where commas are decimal": ([f"{i}.5" for i in range(ROWS)], "line 2.*'0.5'.*--decimal says"),
}  # fmt: skip


@pytest.mark.parametrize("name", DRESSED)
@pytest.mark.parametrize("column", ["age", "score", "click"])
def test_numbers_in_other_clothes_are_no_texts(name: str, column: str, tmp_path: Path) -> None:
    """Not hashed, not dropped as an identifier: the message says what to do."""
    values, message = DRESSED[name]
    options = {"decimal": ","} if "points" in name else {}
    columns = {"user": COLUMNS["user"], "click": COLUMNS["click"], column: values}
    with pytest.raises(DataError, match=message.replace("'age'", repr(column))):
        read(tmp_path / "a.csv", table(columns), **options)


def test_what_a_spreadsheet_of_half_europe_writes(tmp_path: Path) -> None:
    text = table({**COLUMNS, "age": [str(v).replace(".", ",") for v in COLUMNS["age"]]}, delimiter=";")
    log = read(tmp_path / "a.csv", "\ufeff" + text, delimiter=";", decimal=",")
    np.testing.assert_array_equal(log.x[:, 0], COLUMNS["age"])


def test_texts_that_look_a_little_like_numbers_stay_texts(tmp_path: Path) -> None:
    for texts in (["10.0.0.1", "10.0.0.2"], ["2026-01-02 b", "2026"], ["1-2", "3-4"], ["v1.2.3", "v2"], ["12a", "7b"]):
        columns = {**COLUMNS, "colour": (texts * ROWS)[:ROWS]}
        assert {f"colour={text}" for text in texts} < set(read(tmp_path / "a.csv", table(columns)).names)


def test_one_schema_for_the_whole_file(tmp_path: Path) -> None:
    """What the first rows look like decides nothing."""
    mixed = [*range(40), *["a", "b"] * 40]
    assert {"colour=a", "colour=7"} < set(read(tmp_path / "a.csv", table({**COLUMNS, "colour": mixed}), width=99).names)
    with pytest.raises(DataError, match="line 2, column 'colour': got 'a', expected a number"):
        read(tmp_path / "a.csv", table({**COLUMNS, "colour": ["a"] * 40 + list(range(80))}))


def test_identifiers_beyond_the_digits_of_float32(tmp_path: Path) -> None:
    for base in (5_000_000_000, 2**60):
        columns = {**COLUMNS, "request": [base + i for i in range(ROWS)], "empty": [""] * ROWS}
        log = read(tmp_path / "a.csv", table(columns))
        assert not {"request", "empty"} & set(log.names)
        assert any("'request' looks like an identifier (120 different" in note for note in log.notes)
        assert any("'empty' has no value" in note for note in log.notes)


def test_a_column_without_a_name_is_no_label(tmp_path: Path) -> None:
    """The index that pandas writes by default, in a log that is only to be measured."""
    log = read(tmp_path / "index.csv", table({"": RNG.normal(size=ROWS).tolist(), **COLUMNS}), label="")
    assert log.kind == "none"
    assert log.names[0] == ""


def test_a_tab_may_be_spelled(tmp_path: Path) -> None:
    for delimiter in ("\t", "\\t"):
        log = read(tmp_path / "a.csv", table(COLUMNS, delimiter="\t"), delimiter=delimiter)
        assert len(log.y) == ROWS
    with pytest.raises(DataError, match=r"pass --delimiter '\\t'"):
        read(tmp_path / "a.csv", table({"user": [1], "click": [2]}, delimiter="\t"))


def gappy() -> dict[str, list]:
    columns = {name: list(values) for name, values in COLUMNS.items()}
    for name, row, value in (
        ("user", 3, ""),
        ("click", 5, "NA"),
        ("age", 7, "null"),
        ("age", 5, ""),
        ("visits", 9, ""),
    ):
        columns[name][row] = value
    return columns


def test_missing_drop(tmp_path: Path) -> None:
    log = read(tmp_path / "a.csv", table(gappy()), missing="drop")
    kept = [row for row in range(ROWS) if row not in (3, 5, 7, 9)]
    np.testing.assert_array_equal(log.x[:, 0], np.array(COLUMNS["age"])[kept])
    np.testing.assert_array_equal(log.y, np.array(COLUMNS["click"])[kept])
    assert len(log.entity) == ROWS - 4
    said = "Taken out for missing values: 4 of 120 rows (1 without 'user', 1 without 'click', 2 without 'age', 1 without 'visits')."
    assert said in log.notes
    assert "Taken out" not in " ".join(read(tmp_path / "b.csv", table(COLUMNS), missing="drop").notes)
    with pytest.raises(DataError, match="no row without a gap"):
        read(tmp_path / "c.csv", table({**COLUMNS, "age": [""] * ROWS}), missing="drop", features=("age", "visits"))


def test_missing_values_of_npz(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(30, 2)), "y": np.arange(30) % 2, "entity": np.arange(30) / 3 // 1}
    arrays["x"][4, 1], arrays["entity"][6] = np.nan, np.nan
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=r"row 6 \(from 0\), column 'entity': got a missing value"):
        read(tmp_path / "a.npz", label="", entity="")
    log = read(tmp_path / "a.npz", label="", entity="", missing="drop")
    np.testing.assert_array_equal(log.x, np.delete(arrays["x"], [4, 6], axis=0))
    arrays["entity"][6] = 2
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=r"row 4 \(from 0\), column 'x\[1\]': got missing values"):
        read(tmp_path / "a.npz", label="", entity="")
    assert np.isfinite(read(tmp_path / "a.npz", label="", entity="", missing="impute").split(0).train.x).all()


def test_a_cut_npz_is_explained(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", x=RNG.normal(size=(30, 2)), y=np.arange(30) % 2, entity=np.arange(30) // 3)
        whole = (tmp_path / "a.npz").read_bytes()
        for length in range(0, len(whole), 37):
            with pytest.raises(DataError, match=r"unreadable|no array"):
                read(tmp_path / "cut.npz", whole[:length] or b" ", label="", entity="")


LINES = "user,click,age,note\n" + "".join(f"u{i % 3},{i % 2},{i}.5,ok\n" for i in range(12))
BAD: dict[str, tuple[str, str | bytes, dict, str]] = {
    "after a field of three lines": (
        "a.csv", LINES.replace("2.5,ok", '2.5,"a\nb\nc"').replace("7.5", "old"), {}, "line 11, column 'age'"),
    "behind a field of three lines": (
        "a.csv", "note,user,click,age\n" + 'x,u0,0,1.5\n' * 3 + '"a\nb\nc",u1,1,old\n', {}, "line 7, column 'age'"),
    "after blank lines": (
        "a.csv", LINES.replace("u1,1,1.5", "\n\nu1,1,1.5").replace("7.5", "old"), {}, "line 11, column 'age'"),
    "short, unread": (
        "a.csv", LINES.replace("7.5,ok", "7.5"), {"features": ("age",)}, "line 9: got 3 fields, expected 4"),
    "long, unread": (
        "a.csv", LINES.replace("7.5,ok", "7.5,ok,ok"), {"features": ("age",)}, "line 9: got 5 fields, expected 4"),
    "short, last": ("a.csv", LINES + "u1,1", {}, "line 14: got 2 fields"),
    "inches, unread": (
        "a.csv", LINES.replace("5.5,ok", '5.5,5\'10"').replace("7.5,ok", '7.5,6\'1"'), {"features": ("age",)}, "line 7: got a quote"),
    "open quote in the middle": (
        "a.csv", LINES.replace("7.5,ok", '7.5,"ok'), {}, "line 9: got unreadable text.*never closed"),
    "latin-1, packed": (
        "a.csv.gz", gzip.compress(LINES.replace("7.5,ok", "7.5,\xe9").encode("latin-1")), {}, "line 9: got the byte 0xe9"),
    "latin-1, unread": (
        "a.csv", LINES.replace("7.5,ok", "7.5,\xe9").encode("latin-1"), {"features": ("age",)}, "line 9: got the byte 0xe9"),
    "UTF-16": ("a.csv", LINES.encode("utf-16"), {}, "line 1: got the byte 0xff, which is not UTF-8"),
    "cut while packed": ("a.csv.gz", gzip.compress(LINES.encode())[:-20], {}, "expected a readable file|unreadable"),
    "not packed at all": ("a.csv.gz", b"\x1f\x8bno", {}, "expected a readable file"),
    "line ends of old Macs": ("a.csv", LINES.replace("\n", "\r"), {}, "old Macs|new-line character"),
    "no parquet": ("a.parquet", LINES, {}, "a.parquet.*expected a readable file"),
    "delimiters above the header": ("a.csv", ",,,\n" + LINES, {}, "line 1: got delimiters alone, expected a header"),
    "a bad JSON line": (
        "a.ndjson", '{"user":1,"click":0,"age":1}\n{"user":1,\n', {}, "line 2: got unreadable text.*one JSON object per line"),
    "damaged while packed": (
        "a.csv.gz", gzip.compress(LINES.encode())[:30] + b"x" * 40, {}, "expected a readable file"),
    "a bad JSON line below a blank one": (
        "a.ndjson", '{"user":1,"click":0,"age":1}\n\n{"user":1,\n', {}, "line 3: got unreadable text"),
    "a JSON list": ("a.ndjson", "[1]\n", {}, "expected a readable file"),
    "nested JSON": (
        "a.ndjson", '{"user":1,"click":0,"age":{"a":1}}\n' * 3, {}, "column 'age': got values of type Struct"),
    "text among JSON numbers": (
        "a.ndjson", '{"user":1,"click":0,"age":1}\n' * 3 + '{"user":2,"click":1,"age":"old"}\n', {}, "row 4, column 'age': got 'old'"),
    "only blank rows": ("a.csv", "user,click,age\n,,\n\n,,\n", {}, "got a header and no rows"),
    "one field of a megabyte": ("a.csv", LINES + f"u1,1,1.5,{'x' * 2**20}\n", {}, "line 14: got unreadable text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_explained(name: str, tmp_path: Path) -> None:
    file, content, options, message = BAD[name]
    with pytest.raises(DataError, match=message):
        read(tmp_path / file, content, **options)


def test_bad_values_of_typed_files(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({**COLUMNS, "age": [1.0, np.inf, *[2.0] * (ROWS - 2)]}).write_parquet(path)
    with pytest.raises(DataError, match="row 2, column 'age': got 'inf', expected a finite number"):
        read(path)
    pl.DataFrame({**COLUMNS, "age": [1.0, np.nan, None, *[2.0] * (ROWS - 3)]}).write_parquet(path)
    with pytest.raises(DataError, match=r"row 2, column 'age': got missing values in 'age': 2 \(first in row 2\)"):
        read(path)
    assert np.isnan(read(path, missing="impute").x[1:3, 0]).all()
    flags = {**COLUMNS, "age": [i % 2 == 0 for i in range(ROWS)], "click": [i % 3 == 0 for i in range(ROWS)]}
    pl.DataFrame(flags).write_parquet(path)
    log = read(path)
    np.testing.assert_array_equal(log.x[:, 0], flags["age"])
    np.testing.assert_array_equal(log.y, flags["click"])


def test_blank_rows_are_passed_over_aloud(tmp_path: Path) -> None:
    log = read(tmp_path / "a.csv", LINES + "\n,,,\n")
    assert len(log.y) == 12
    assert "Passed over: 2 blank rows." in log.notes


def test_folders_and_pipes_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.parquet").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("folder.csv", "folder.parquet", "pipe.csv"):
        with pytest.raises(DataError, match="a folder or a pipe, expected a file"):
            read(tmp_path / name)


def test_without_polars_only_npz_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(LINES)
    np.savez(tmp_path / "a.npz", x=np.ones((4, 1)), y=[0, 1, 0, 1], entity=[0, 0, 1, 1])
    code = """
import sys; sys.modules["polars"] = None
from syncbn_sim.data import Source, read_log
print(len(read_log(Source(sys.argv[1] + ".npz")).y))
read_log(Source(sys.argv[1] + ".csv", "click", "user"))
"""
    done = run([sys.executable, "-c", code, str(tmp_path / "a")])
    assert done.stdout == "4\n"
    assert "MissingDependencyError" in done.stderr
    assert "pip install 'syncbn-sim[data]'" in done.stderr


def test_one_file_imports_polars() -> None:
    found = [path for path in (ROOT / "syncbn_sim").rglob("*.py") if "import polars" in path.read_text()]
    assert found == [ROOT / "syncbn_sim/data/tables.py"]


# Not getrusage: its peak counts that of the process which started this one.
MEASURE = """
import sys, time
from pathlib import Path
from syncbn_sim.data import Source, read_log
start = time.perf_counter()
log = read_log(Source(sys.argv[1], "click", "user"))
seconds = time.perf_counter() - start
log.split(0)
print(seconds, *log.x.shape, int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 2**20)
"""
BY_HAND = """
import csv, sys, time
start = time.perf_counter()
with open(sys.argv[1], newline="") as file:
    next(file)
    for user, *numbers in csv.reader(file):
        list(map(float, numbers))
print(time.perf_counter() - start)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("rows", "gibibytes"), [(1_000_000, 1.5), (5_000_000, 6)])
def test_large_files_are_read_in_time_and_memory(rows: int, gibibytes: float, tmp_path: Path) -> None:
    """20 columns, in processes of their own, and sooner than Python parts the fields and makes floats of them."""
    path, rng = tmp_path / "big.csv", np.random.default_rng(0)
    columns = {"user": [f"u{u}" for u in rng.integers(0, rows // 12, rows)], "click": rng.integers(0, 2, rows)}
    pl.DataFrame({**columns, **{f"f{i}": rng.normal(size=rows).round(5) for i in range(18)}}).write_csv(path)
    times: dict[str, list[float]] = {MEASURE: [], BY_HAND: []}
    for code in (MEASURE, BY_HAND, MEASURE, BY_HAND):
        done = run([sys.executable, "-c", code, str(path)], seconds=400)
        assert done.returncode == 0, done.stderr
        seconds, *found = map(float, done.stdout.split())
        times[code].append(seconds)
        if code == MEASURE:
            assert found[:2] == [rows, 18]
            assert found[2] < gibibytes
    assert min(times[MEASURE]) < min(times[BY_HAND])
