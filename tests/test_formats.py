"""Results as files: the same values in every format, told by the ending, whole or not there at all."""

from __future__ import annotations

import csv
import json
import math
import os
import pty
import random
import struct
import subprocess
import sys
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from rows import NAN, Row, number, share, text
from shell import Shell

from wandbsync import formats, query
from wandbsync.cache import Cache
from wandbsync.errors import UsageError
from wandbsync.library.export import export
from wandbsync.model import Kind, RunRecord, RunRef
from wandbsync.query.batches import Batches, listed

RUN = RunRef("me", "demo", "a")
ROWS: list[Row] = [
    *(number("loss", step, value) for step, value in enumerate([0.1, NAN, -math.inf])),
    text("note", 1, '"comma, \\"quote\\"\\n"'),
    text("hist", 2, '{"bins": [1, 2.50]}'),
    ("mixed", 0, Kind.JSON, NAN, '"word"'),
    ("mixed", 1, Kind.JSON, NAN, "[1, null]"),
]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache") as one:
        one.commit([share(RUN, one.revision(RUN), ROWS, record=RunRecord("finished", "local"))])
        yield one


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell(tmp_path_factory.mktemp("formats"))
    with Cache(shell.cache) as cache:
        for k in range(120):
            ref = RunRef("me", "demo", f"run{k:03}")
            cache.commit(
                [share(ref, cache.revision(ref), [number("loss", 0, k)], record=RunRecord("finished", "local"))]
            )
    return shell


def asked(cache: Cache, select: str, form: str, path: Path) -> str:
    formats.write(query.sql(cache, select), form, path)
    return path.read_bytes().decode()


def read_separated(path: Path, separator: str) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=separator))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "csv": lambda path: read_separated(path, ","),
    "tsv": lambda path: read_separated(path, "\t"),
    "json": lambda path: list(json.loads(path.read_text())),
    "jsonl": read_lines,
    "parquet": lambda path: pq.read_table(path).to_pylist(),
    "arrow": lambda path: pa.ipc.open_file(path).read_all().to_pylist(),
}
VALUES = {"i": 2**62, "f": 0.1 + 0.2, "s": 'ü, \t"quoted"\r\nand more', "b": True, "n": None}
SELECT = (
    "SELECT (1::BIGINT << 62) AS i, 0.1::DOUBLE + 0.2::DOUBLE AS f, "
    "'ü, ' || chr(9) || '\"quoted\"' || chr(13) || chr(10) || 'and more' AS s, true AS b, NULL::INTEGER AS n "
    "FROM range(2000)"
)


def test_every_format_reads_back(cache: Cache, tmp_path: Path) -> None:
    assert set(READERS) == set(formats.FORMATS) - {"table"}
    as_text = {name: str(value) for name, value in VALUES.items()} | {"b": "true", "n": ""}
    for form, read in READERS.items():
        path = tmp_path / f"x.{form}"
        assert formats.write(query.sql(cache, SELECT), form, path).rows == 2000
        assert read(path) == [as_text if form in ("csv", "tsv") else VALUES] * 2000, form
        assert formats.write(query.sql(cache, "SELECT 1 AS i WHERE false"), form, path).rows == 0
        assert read(path) == [], form
        again = pa.table({name: [value] for name, value in VALUES.items() if value is not None})
        formats.write(Batches(again.schema, iter(again.to_batches())), form, path)
        assert [list(row.values())[:3] for row in read(path)] == [
            list((as_text if form in ("csv", "tsv") else VALUES).values())[:3]
        ], form


def test_floats_are_the_shortest_digits_that_read_back(tmp_path: Path) -> None:
    chance = random.Random(0)
    values = [struct.unpack("<d", chance.randbytes(8))[0] for _ in range(20_000)]
    values += [0.0, -0.0, 1e15, 1e16, 1e17, 123456789012345680.0, 5e-324, 1.7976931348623157e308, 1e-5, 1e-4, 0.1, 7.0]
    for form, spelled in (("csv", repr), ("jsonl", lambda value: f'{{"v": {word(value)}}}')):
        table = pa.table({"v": values})
        formats.write(Batches(table.schema, iter(table.to_batches())), form, tmp_path / "x")
        lines = (tmp_path / "x").read_text().splitlines()
        assert lines[form == "csv" :] == [spelled(value) for value in values]


def word(value: float) -> str:
    if math.isnan(value):
        return '"NaN"'
    return repr(value) if math.isfinite(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def test_null_is_not_empty(cache: Cache, tmp_path: Path) -> None:
    two = "SELECT * FROM (VALUES (NULL, 1), ('', 2), ('a', 3)) t(s, i)"
    assert asked(cache, two, "csv", tmp_path / "x") == 's,i\n,1\n"",2\na,3\n'
    one = "SELECT * FROM (VALUES (NULL), ('a')) t(s)"
    assert asked(cache, one, "csv", tmp_path / "x") == 's\n""\na\n', "an empty line would be no row"
    assert asked(cache, two, "jsonl", tmp_path / "x").splitlines()[:2] == ['{"s": null, "i": 1}', '{"s": "", "i": 2}']


JSON = {  # DuckDB's expression -> the value
    "[1.5, NULL, 'nan'::DOUBLE, '-inf'::DOUBLE]": [1.5, None, "NaN", "-Infinity"],
    "[]::DOUBLE[]": [],
    "[[TIMESTAMP '2024-01-02 03:04:05.5'], NULL]": [["2024-01-02T03:04:05.500000"], None],
    "[1, 2]::INTEGER[2]": [1, 2],
    """{'x': 1, 'it''s "q"': [{'y': 'inf'::DOUBLE}]}""": {"x": 1, 'it\'s "q"': [{"y": "Infinity"}]},
    "NULL::STRUCT(a INTEGER)": None,
    """MAP {'a"b': [0.5::DOUBLE], 'c': NULL}""": {'a"b': [0.5], "c": None},
    """'{"a": [NaN, -Infinity, "NaN, \\" Infinity"], "b": 1.0}'::JSON""": {
        "a": ["NaN", "-Infinity", 'NaN, " Infinity'],
        "b": 1.0,
    },
    "('{\"a\":' || chr(10) || '12345678901234567890123}')::JSON": {"a": 12345678901234567890123},
    "'null'::JSON": None,
    "0.50::DECIMAL(2, 2)": 0.5,
    "(-12345678901234567890)::HUGEINT": -12345678901234567890,
    "0.1::FLOAT": 0.10000000149011612,
    "TIMESTAMPTZ '2024-01-02 05:04:05+02'": "2024-01-02T03:04:05+00:00",
    "TIMESTAMP_NS '2024-01-02 03:04:05.123456789'": "2024-01-02 03:04:05.123456789",
    "'infinity'::TIMESTAMP": "infinity",
    "'a' || chr(0) || chr(31) || '/\\é'": "a\0\x1f/\\é",
    "'\\xAA'::BLOB": "\\xAA",
    "NULL": None,
}


def test_json_has_every_kind_of_value_on_one_line(cache: Cache, tmp_path: Path) -> None:
    def constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    select = ", ".join(f"{expression} AS c{i}" for i, expression in enumerate(JSON))
    for times in (1, 3000):  # a constant, and a column
        line = asked(cache, f"SELECT {select} FROM range({times})", "jsonl", tmp_path / "x").split("\n")
        assert len(line) == times + 1
        found = json.loads(line[-2], parse_constant=constant)
        assert dict(zip(JSON, found.values(), strict=True)) == JSON
    cells = next(csv.reader(asked(cache, f"SELECT {select}", "csv", tmp_path / "x").splitlines()[1:]))
    assert json.loads(cells[4]) == list(JSON.values())[4]


def test_the_order_of_a_query_is_kept(cache: Cache, tmp_path: Path) -> None:
    select = "SELECT i FROM range(300000) r(i) ORDER BY hash(i)"
    assert asked(cache, select, "csv", tmp_path / "x").split()[1:] == [
        str(i) for (i,) in query.sql(cache, select).fetchall()
    ]


def test_an_export_says_the_same_in_every_format(cache: Cache, tmp_path: Path) -> None:
    for wide in (False, True):
        found = {}
        for form, read in READERS.items():
            formats.write(export(cache, [RUN], wide=wide), form, tmp_path / form)
            found[form] = read(tmp_path / form)
        assert found["json"] == found["jsonl"] and found["csv"] == found["tsv"]
        assert str(found["parquet"]) == str(found["arrow"]) and len(found["csv"]) == len(found["json"])
    assert [row["loss"] for row in found["json"]] == [0.1, "NaN", "-Infinity"]
    assert [row["note"] for row in found["json"]] == [None, 'comma, "quote"\n', None]
    assert [row["mixed"] for row in found["json"]] == ["word", [1, None], None], "JSON is a value, not a string"
    assert found["csv"][2]["hist"] == '{"bins": [1, 2.50]}'


def test_lists_become_columns(tmp_path: Path) -> None:
    rows = [{"id": "a", "tags": ["x"], "summary": {"loss": NAN}, "last": 1}, {"id": "b", "tags": [], "summary": {}}]
    rows[1]["last"] = "word"
    formats.write(listed(rows), "jsonl", tmp_path / "x")
    assert read_lines(tmp_path / "x") == [rows[0] | {"summary": {"loss": "NaN"}}, rows[1]]
    for form, read in READERS.items():
        formats.write(listed([]), form, tmp_path / "x")
        assert read(tmp_path / "x") == []


# -- which format, and where to


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("x.csv", "csv"),
        ("x.TSV", "tsv"),
        ("a.b.ndjson", "jsonl"),
        ("x.feather", "arrow"),
        ("x.pq", "parquet"),
        ("x.txt", "table"),
        (None, "csv"),
    ],
)
def test_the_ending_says_the_format(file: str | None, form: str) -> None:
    path = None if file is None else Path(file)
    assert formats.chosen(None, path, "csv") == form
    assert formats.chosen("json", path, "csv") == "json"


@pytest.mark.parametrize("words", [["sql", "SELECT 1"], ["export", "me/demo"], ["list-runs", "me/demo"]])
def test_an_unknown_ending_is_refused(shell: Shell, words: list[str]) -> None:
    assert ".jsonl" in shell.error(*words, "--offline", "-o", "x.foo", code=2)
    assert not (shell.folder / "x.foo").exists()


def test_spreadsheets_are_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="not written") as refused:
        formats.chosen(None, Path("x.xlsx"), "csv")
    assert "x.csv" in refused.value.line()
    with pytest.raises(UsageError, match="without an ending"):
        formats.chosen(None, Path("results"), "csv")


def test_a_file_is_whole(shell: Shell) -> None:
    for words in (["sql", "FROM range(120)"], ["list-runs", "demo"]):
        for name in ("x.txt", "x.tsv"):
            shell("-q", *words, "--offline", "-o", name)
            head = 2 if name == "x.txt" else 1
            assert len((shell.folder / name).read_text().splitlines()) == 120 + head
    done = shell("list-runs", "demo", "--offline", "-o", "x.jsonl", "--limit", "3")
    assert len(read_lines(shell.folder / "x.jsonl")) == 3 and "3 of 120" in done.stderr


def test_what_is_no_file_is_written_and_stays(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    formats.write(query.sql(cache, "SELECT 1 AS a"), "csv", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text() == "a\n1\n"
    formats.write(query.sql(cache, "SELECT 1 AS a"), "csv", Path(os.devnull))
    assert not Path(os.devnull).is_file()


def on_a_terminal(shell: Shell, *words: str) -> str:
    screen, side = pty.openpty()
    tty.setraw(side)
    done = subprocess.run(
        [sys.executable, "-m", "wandbsync", *words], cwd=shell.folder, env=shell.env | {"COLUMNS": "80"}, stdout=side,
        stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(side)
    with suppress(OSError):  # Linux tells the end so
        return os.read(screen, 100_000).decode() if done.returncode == 0 else done.stderr
    return ""


def test_long_texts_are_cut_with_a_mark_on_a_terminal_only(shell: Shell) -> None:
    select = "SELECT repeat('x', 300) AS s, 170141183460469231731687303715884105727::HUGEINT AS n, ['a', 'b'] AS l"
    line = on_a_terminal(shell, "sql", select, "--offline").splitlines()[-1]
    assert line.split("  ") == ["x" * 39 + "…", str(2**127 - 1), '["a", "b"]']
    assert "x" * 300 in shell("sql", select, "--offline").stdout
    for form in ("csv", "json"):
        assert "x" * 300 in on_a_terminal(shell, "sql", select, "--offline", "--format", form)


def test_a_query_that_fails_prints_nothing(shell: Shell) -> None:
    for form in ("csv", "json", "table"):
        assert "failed" in shell.error("sql", "SELECT 'x'::INTEGER", "--format", form, "--offline", code=2)


# -- the commands


def test_global_options_stand_after_the_command_too(shell: Shell, tmp_path: Path) -> None:
    assert "nothing is cached" in shell("list-runs", "demo", "--offline", "--cache-dir", str(tmp_path), code=5).stderr
    assert shell("--cache-dir", str(tmp_path), "cache", "info", "--cache-dir", str(shell.cache)).stdout
    assert shell("list-runs", "demo", "--limit", "1", "--offline", "-q").stderr == ""
    assert "answering from" in shell("list-runs", "demo", "--limit", "1", "--offline", "--verbose").stderr
    assert "no.toml" in shell.error("config", "check", "--config", "no.toml", code=2)


@pytest.mark.parametrize(
    "words", ["--help", "sql --help", "status", "cache info", "-q list-runs demo --json", "export demo"]
)
def test_a_reader_who_leaves_is_no_failure(shell: Shell, words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "wandbsync", *words.split()], cwd=shell.folder, env=shell.env, stdout=write,
            stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
