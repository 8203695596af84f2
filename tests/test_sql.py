"""SQL reads the cache, all of it, exactly, and nothing else; `wandb.duckdb` is there for everybody."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import run as run_process
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from rows import NAN, Row, bits, exact, number, share, text

from wandbsync import formats, query
from wandbsync.cache import Cache, compaction, layout, publish
from wandbsync.cache.stamps import Segment
from wandbsync.errors import CacheBusy, CacheError, Damaged, UsageError, WandbsyncError
from wandbsync.model import CONSOLE, SYSTEM, FileRecord, Kind, RunRecord, RunRef

A, B = RunRef("me", "demo", "a"), RunRef("me", "demo", "b's")
ROWS: list[Row] = [
    number("loss", 0, 0.1),
    number("loss", 1, NAN),
    number("loss", 2, -math.inf),
    number("zero", 0, -0.0),
    ("n", 0, Kind.INT, 7.0, None),
    ("big", 0, Kind.BIGINT, 1e20, "100000000000000000001"),
    ("gone", 0, Kind.NULL, NAN, None),
    text("note", 1, '"ünïcode, \\"quoted\\"\\n"'),
]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "it's a cache") as one:
        record = RunRecord(
            "finished", "local", display_name="nice", created_at=1e9, tags=("x", "y"), group="g", config={"lr": 0.5}
        )
        add(one, A, ROWS, record=record, files=[FileRecord("a.png", 3, 1e9)])
        add(one, B, [number("loss", 0, 5.0)])
        yield one


def add(cache: Cache, ref: RunRef, rows: list[Row], stream: str = "history", **more: Any) -> None:
    assert cache.commit([share(ref, cache.revision(ref), rows, stream, **more)]) != [None]


def ask(cache: Cache, question: str) -> list[tuple[Any, ...]]:
    return list(query.sql(cache, question).fetchall())


# -- what it says


def test_the_view_of_the_history_is_the_history(cache: Cache) -> None:
    for k in range(3):
        add(cache, A, [number("loss", 3 + k, k)])
        if k == 1:
            compaction.compact(cache, everything=True)
    select = "SELECT key, step, kind, value, value_json FROM history WHERE run_id = '{}' ORDER BY encode(key), step"
    found = [(k, s, kind, bits(v), j) for k, s, kind, v, j in ask(cache, select.format("a"))]
    assert found == exact([*ROWS, *(number("loss", 3 + k, k) for k in range(3))])
    assert ask(cache, "SELECT run_id, value FROM history WHERE run_id = 'b''s'") == [("b's", 5.0)]
    assert ask(cache, "SELECT step FROM history WHERE isnan(value)") == [(1,)]
    assert ask(cache, "SELECT key FROM history WHERE value IS NULL ORDER BY 1") == [("gone",), ("note",)]


def test_streams_have_views_of_their_own(cache: Cache) -> None:
    add(cache, A, [number("system.cpu", 0, 50.0)], SYSTEM)
    add(cache, A, [("stdout", 0, Kind.LINE, 1e9, "hello"), ("stderr", 1, Kind.LINE, NAN, "")], CONSOLE)
    assert ask(cache, "SELECT run_id, key, value FROM system") == [("a", "system.cpu", 50.0)]
    assert ask(cache, "SELECT line, printed_to, epoch(time), text FROM console ORDER BY line") == [
        (0, "stdout", 1e9, "hello"),
        (1, "stderr", None, ""),
    ]
    assert ask(cache, "SELECT DISTINCT stream FROM metrics ORDER BY 1") == [("history",), ("system",)]


def test_the_tables_say_what_the_lists_say(cache: Cache) -> None:
    cache.checked([A], 1e9 + 5)
    assert ask(cache, "SELECT entity, project, runs FROM projects") == [("me", "demo", 2)]
    (run,) = ask(
        cache,
        'SELECT display_name, state, epoch(created_at), epoch(synced_at), tags, "group", complete, rows, last_step, '
        "config->>'lr' FROM runs WHERE run_id = 'a'",
    )
    assert run == ("nice", "finished", 1e9, 1e9 + 5, ["x", "y"], "g", True, 3, 2, "0.5")
    assert ask(cache, "SELECT name, size, epoch(updated_at) FROM files") == [("a.png", 3, 1e9)]
    columns = ("type", "count", "non_null_count", "min", "max", "mean", "std", "first_step", "last_step")
    for ref in (A, B):
        told = query.list_metrics(cache, ref)
        shown = query.sql(cache, f"SELECT key, {', '.join(columns)} FROM metrics WHERE run_id = $${ref.run_id}$$")
        assert {row[0]: row[1:] for row in shown.fetchall()} == {
            key: tuple(entry.get(column) for column in columns) for key, entry in told.items()
        }
    add(cache, B, [number("loss", 9, NAN)])
    assert ask(cache, "SELECT isnan(last_value), nan_count FROM metrics WHERE run_id = 'b''s'") == [(True, 1)]


def test_the_description_is_what_is_there(cache: Cache) -> None:
    for name, (_, columns) in {**layout.TABLES, **layout.VIEWS}.items():
        there = [(row[0], row[1]) for row in ask(cache, f"DESCRIBE {name}")]
        loosely = {"INTEGER": "BIGINT"}
        assert [(c, loosely.get(k, k)) for c, k, _ in columns] == [(c, loosely.get(k, k)) for c, k in there], name
    assert {row[0] for row in ask(cache, "SHOW TABLES")} == {*layout.TABLES, *layout.VIEWS}
    assert "loss" not in layout.describe() and "history: " in layout.describe()


def test_an_empty_cache_has_empty_tables(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        for name in {*layout.TABLES, *layout.VIEWS} - {"cache"}:
            assert ask(cache, f"SELECT * FROM {name}") == []


def test_rows_that_were_replaced_or_not_published_are_not_there(cache: Cache) -> None:
    new, revision = cache.new_generation(), cache.revision(B)
    cache.commit([share(B, revision, [number("loss", 0, 6.0)], generation=new, publish=False)])
    assert ask(cache, "SELECT value FROM history WHERE run_id <> 'a'") == [(5.0,)]
    cache.commit([share(B, revision, [], generation=new)])
    assert ask(cache, "SELECT value FROM history WHERE run_id <> 'a'") == [(6.0,)]
    assert ask(cache, "SELECT max FROM metrics WHERE run_id <> 'a'") == [(6.0,)]


# -- what it must not do


@pytest.mark.parametrize(
    "question",
    [
        "SELECT 1",
        "WITH x AS (SELECT 1 AS y) SELECT * FROM x",
        "FROM runs",
        "TABLE runs",
        "VALUES (1)",
        "SHOW TABLES",
        "DESCRIBE runs",
        "SUMMARIZE SELECT rows FROM runs",
        "EXPLAIN SELECT 1",
        "explain analyze SELECT count(*) FROM history",
        "PIVOT history ON key USING max(value) GROUP BY run_id",
        "FROM (PIVOT history ON key USING max(value) GROUP BY run_id)",
        "  -- a comment\n SELECT 1 /* and another */ ;",
        "SELECT * FROM history WHERE key LIKE 'lo%' ORDER BY step LIMIT 3",
    ],
)
def test_questions_are_answered(cache: Cache, question: str) -> None:
    assert query.sql(cache, question).fetchall()


@pytest.mark.parametrize(
    "attempt",
    [
        "CREATE TABLE x AS SELECT 1",
        "CREATE TEMP TABLE x AS SELECT 1",
        "CREATE OR REPLACE MACRO f(x) AS x",
        "INSERT INTO projects SELECT * FROM projects",
        "DELETE FROM inside.runs",
        "UPDATE projects SET url = 'x'",
        "DROP VIEW runs",
        "ALTER TABLE projects ADD COLUMN x INTEGER",
        "TRUNCATE projects",
        "COPY (SELECT 1) TO '{out}'",
        "COPY (SELECT 1) TO '{segment}'",
        "COPY (PIVOT history ON key USING max(value)) TO '{inside}' (FORMAT csv)",
        "(COPY (PIVOT history ON key USING max(value)) TO '{inside}')",
        "/* from */ COPY (PIVOT history ON key USING max(value)) TO '{inside}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{inside}'",
        "EXPLAIN/**/ANALYZE/**/COPY(SELECT/**/1)TO'{inside}'",
        "explain analyze/**/copy (select 1) to '{inside}'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{inside}'",
        "EXPLAIN ANALYZE EXPLAIN ANALYZE COPY (SELECT 1) TO '{inside}'",
        "EXPORT DATABASE '{out}'",
        "IMPORT DATABASE '{out}'",
        "ATTACH '{out}' AS x",
        "ATTACH ':memory:' AS x",
        "ATTACH '{catalog}' AS x (TYPE sqlite)",
        "DETACH wandb",
        "USE memory",
        "SET threads = 1",
        "SET enable_external_access = true",
        "SET GLOBAL allowed_directories = ['/']",
        "RESET lock_configuration",
        "PRAGMA threads = 1",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "CALL enable_logging(storage = 'file', storage_path = '{out}')",
        "FROM enable_logging('QueryLog', storage = 'file', storage_config = {{'path': '{out}'}})",
        "LOAD httpfs",
        "INSTALL httpfs",
        "FORCE INSTALL sqlite",
        "CHECKPOINT",
        "FROM force_checkpoint('wandb')",
        "VACUUM",
        "BEGIN",
        "PREPARE x AS SELECT 1",
        "EXECUTE x",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY (SELECT 1) TO '{out}'",
        "WITH x AS (INSERT INTO projects VALUES ('a') RETURNING *) SELECT * FROM x",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{inside}''')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_text('{beside}')",
        "SELECT * FROM read_blob('{catalog}')",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_json('{secret}')",
        "SELECT * FROM sniff_csv('{secret}')",
        "SELECT * FROM parquet_metadata('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM glob('{beside}*')",
        "SELECT * FROM sqlite_scan('{catalog}', 'runs')",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "SELECT * FROM duckdb_secrets()",
        "CREATE SECRET (TYPE s3)",
        "SELECT getenv('HOME')",
        "SELECT * FROM which_secret('s3://x', 's3')",
        "",
        "   ",
        "-- nothing",
        "SELEC 1",
        "SELECT * FROM nowhere",
        "SELECT * FROM statements",
    ],
)
def test_attempts_are_refused_and_leave_no_trace(cache: Cache, tmp_path: Path, attempt: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a,b\n1,2\n")
    query.sql(cache, "SELECT 1")
    before = everything_in(tmp_path)
    history = cache.folder / "history"
    places = {
        "out": tmp_path / "out",
        "secret": secret,
        "inside": history / "stolen.parquet",
        "segment": next(history.rglob("*.parquet")),
        "beside": f"{history}/../../secret.txt",
        "catalog": cache.folder / "catalog.sqlite",
    }
    wanted = attempt.format(**{name: str(place).replace("'", "''") for name, place in places.items()})
    if duckdb.__version__ < "2" and ("_secret" in attempt or attempt.startswith(("PRAGMA d", "FROM enable_l"))):
        pytest.skip("DuckDB 1 allows this: it tells nothing and writes nothing")
    with pytest.raises(UsageError) as caught:
        formats.write(query.sql(cache, wanted), "csv", tmp_path / "answer")
    assert caught.value.exit_code == 2 and "\n" not in caught.value.line()
    assert everything_in(tmp_path) == before
    assert ask(cache, "SELECT count(*) FROM projects") == [(1,)]


def everything_in(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if not path.name.endswith(("-shm", "-wal"))}


def test_python_variables_are_no_tables(cache: Cache) -> None:
    frame = pq.read_table(next((cache.folder / "history").rglob("*.parquet")))
    with pytest.raises(UsageError, match="frame"):
        query.sql(cache, "SELECT * FROM frame")
    assert frame.num_rows


def test_a_query_may_be_larger_than_memory_without_leaving_the_cache(cache: Cache, tmp_path: Path) -> None:
    with publish.connect(cache) as con:
        (place,) = con.execute("SELECT current_setting('temp_directory')").fetchall()[0]
    assert Path(place) == (cache.folder / "tmp").resolve()


# -- wandb.duckdb


def stamp(cache: Cache) -> tuple[int, int]:
    status = (cache.folder / publish.FILE).stat()
    return status.st_ino, status.st_mtime_ns


def test_it_is_published_when_stale_and_not_when_fresh(cache: Cache) -> None:
    ask(cache, "SELECT 1")
    fresh = stamp(cache)
    ask(cache, "SELECT 1")
    assert stamp(cache) == fresh
    add(cache, B, [number("loss", 1, 6.0)])
    assert ask(cache, "SELECT count(*) FROM history WHERE run_id <> 'a'") == [(2,)]
    fresh = stamp(cache)
    cache.checked([B], 1.0)
    assert ask(cache, "SELECT epoch(synced_at) FROM runs WHERE run_id <> 'a'") == [(1.0,)]
    assert stamp(cache) != fresh
    fresh = stamp(cache)
    cache.checked([], 2.0)
    assert len(ask(cache, "FROM runs")) == 2 and stamp(cache) == fresh


def test_what_is_kept_from_the_last_time_equals_what_is_made_anew(cache: Cache) -> None:
    """Publish after every kind of change, on top of the last; then once from nothing."""

    def everything() -> dict[str, list[Any]]:
        names = {*layout.TABLES, *layout.VIEWS} - {"cache"}
        return {name: sorted(map(repr, ask(cache, f"FROM {name}"))) for name in names}

    new = RunRef("team", "other", "c")
    changes = [
        lambda: add(cache, new, [number("x", 0, 1.0)]),
        lambda: add(cache, A, [number("loss", 9, 2.0)], record=RunRecord("failed", "local", display_name="renamed")),
        lambda: cache.rename(new, RunRef("team", "third", "c")),
        lambda: cache.cut(A, 1),
        lambda: add(cache, B, [number("y", 0, 1.0)], generation=cache.new_generation()),
        lambda: compaction.compact(cache, everything=True),
        lambda: compaction.gc(cache, grace=0),
        lambda: cache.checked([A, B], 5.0),
        lambda: cache.forget(B),
    ]
    for change in changes:
        change()
        kept = everything()
        (cache.folder / publish.FILE).unlink()
        assert everything() == kept
    assert len(kept["runs"]) == 2


@pytest.mark.parametrize("content", [b"", b"not a database" * 999, "other layout"])
def test_an_old_file_that_cannot_be_used_is_made_anew(cache: Cache, content: bytes | str) -> None:
    path = cache.folder / publish.FILE
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        ask(cache, "SELECT 1")
        with duckdb.connect(str(path)) as con:
            con.execute("UPDATE inside.published SET layout = 'older'; DROP VIEW runs; CREATE TABLE runs AS SELECT 1")
    assert len(ask(cache, "SELECT run_id FROM runs")) == 2
    assert not list((cache.folder / "tmp").iterdir())


def test_anybody_can_open_it_from_anywhere(cache: Cache, tmp_path: Path) -> None:
    path = publish.publish(cache)
    script = (
        "import duckdb, sys; con = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(con.sql('SELECT run_id, value FROM history WHERE step = 0 ORDER BY ALL').fetchall()[-1])\n"
        "con = duckdb.connect(); con.execute('ATTACH $$' + sys.argv[1] + '$$ AS mine (READ_ONLY)')\n"
        "print(con.sql('SELECT count(*) FROM mine.metrics').fetchall())"
    )
    (tmp_path / "elsewhere").mkdir()
    done = run_process(
        [sys.executable, "-c", script, str(path)],
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ['("b\'s", 5.0)', "[(7,)]"]


def test_open_readers_are_not_disturbed(cache: Cache) -> None:
    old = query.sql(cache, "SELECT count(*) FROM history")
    with duckdb.connect(str(cache.folder / publish.FILE), read_only=True) as plain:
        add(cache, B, [number("loss", 1, 6.0)])
        compaction.compact(cache, everything=True)
        new = query.sql(cache, "SELECT count(*) FROM history")
        assert new.fetchall() == [(10,)], "the same process, while the old one is open"
        assert old.fetchall() == [(9,)]
        assert plain.execute("SELECT count(*) FROM history").fetchall() == [(9,)]


def test_a_folder_that_moved_is_published_anew(cache: Cache, tmp_path: Path) -> None:
    ask(cache, "SELECT 1")
    cache.close()
    moved = cache.folder.rename(tmp_path / "moved")
    with Cache(moved) as again:
        assert ask(again, "SELECT count(*) FROM history") == [(9,)]


def test_a_folder_that_cannot_be_written_is_read(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object, **how: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(publish, "_write", write)
    assert ask(cache, "SELECT count(*) FROM history") == [(9,)]
    with pytest.raises(UsageError):
        ask(cache, "SELECT * FROM '/etc/passwd'")
    assert not (cache.folder / publish.FILE).exists()


@pytest.mark.parametrize("published", [True, False])
def test_a_segment_that_is_gone_is_told(cache: Cache, published: bool) -> None:
    add(cache, B, [number("loss", 1, 6.0)])
    if published:
        publish.publish(cache)
    gone = max((cache.folder / "history").rglob("*.parquet"))
    whole = gone.read_bytes()
    gone.unlink()
    with pytest.raises(CacheError, match=f"a segment of the cache is gone: .*{gone.name}") as caught:
        ask(cache, "SELECT max(value) FROM history")
    assert caught.value.exit_code == 1 and "verify" in caught.value.hint and "sync --full" in caught.value.hint
    if published:
        assert len(ask(cache, "FROM runs")) == 2, "what needs no rows is answered"
        gone.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(Damaged, match=f"{gone.name} of .* is damaged: it has") as caught:
            ask(cache, "SELECT max(value) FROM history")
        assert "repair" in caught.value.hint
        assert len(ask(cache, "FROM runs")) == 2
    gone.write_bytes(whole)
    assert ask(cache, "SELECT count(*) FROM history") == [(10,)]


def test_segments_that_are_swept_while_a_query_runs_are_told(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = query.sql(cache, "SELECT count(*) FROM history")
    for k in range(2):
        add(cache, A, [number("loss", 3 + k, k)])
    compaction.compact(cache, everything=True)
    compaction.gc(cache, grace=-5)
    with pytest.raises(CacheBusy, match="compacted"):
        answer.fetchall()
    assert ask(cache, "SELECT count(*) FROM history") == [(11,)]


def test_segments_that_are_swept_while_it_is_published_are_listed_again(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, listed = publish._files, []

    def files(cache: Cache) -> list[Segment]:
        found = really(cache)
        if not listed:
            with Cache(cache.folder) as other:
                compaction.compact(other, everything=True)
            for one in found:
                cache.segment_path(one.file).unlink()
        listed.append(found)
        return found

    add(cache, A, [number("loss", 3, 0.0)])
    monkeypatch.setattr(publish, "_files", files)
    publish.publish(cache)
    assert len(listed) == 3 and listed[0] != listed[1] == listed[2]
    monkeypatch.undo()
    with duckdb.connect(str(cache.folder / publish.FILE), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM history").fetchall() == [(10,)]


# -- how results are written

ODD = (
    "SELECT i, CASE i WHEN 0 THEN 'nan'::DOUBLE WHEN 1 THEN '-inf'::DOUBLE ELSE 0.1::DOUBLE + 0.2::DOUBLE END AS f, "
    "CASE i WHEN 1 THEN NULL ELSE 'a,\"b\"' END AS s, DATE '2024-01-02' AS d, TIMESTAMP '2024-01-02 03:04:05.5' AS t, "
    "[1.5, NULL, 'nan'::DOUBLE] AS l, {'x': 1, 'y': [true]} AS st, '{\"k\": [1, null]}'::JSON AS j, "
    "sum(i) OVER () AS h, 1.50::DECIMAL(9, 2) AS c, true AS b FROM range(3) r(i) ORDER BY i"
)


def written(cache: Cache, question: str, form: str, path: Path) -> str:
    shown = formats.write(query.sql(cache, question), form, path)
    assert shown.more is False
    return path.read_text()


def test_json_is_json(cache: Cache, tmp_path: Path) -> None:
    def constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    rows = json.loads(written(cache, ODD, "json", tmp_path / "x.json"), parse_constant=constant)
    assert [row["f"] for row in rows] == ["NaN", "-Infinity", 0.1 + 0.2]
    assert rows[1]["s"] is None
    assert rows[2] == {
        "i": 2, "f": 0.30000000000000004, "s": 'a,"b"', "d": "2024-01-02", "t": "2024-01-02T03:04:05.500000",
        "l": [1.5, None, "NaN"], "st": {"x": 1, "y": [True]}, "j": {"k": [1, None]}, "h": 3, "c": 1.5, "b": True,
    }  # fmt: skip
    assert json.loads(written(cache, "FROM runs WHERE false", "json", tmp_path / "x.json")) == []
    (run,) = json.loads(written(cache, "FROM runs WHERE run_id = 'a'", "json", tmp_path / "x.json"))
    assert (
        run["config"] == {"lr": 0.5} and run["tags"] == ["x", "y"] and run["created_at"].startswith("2001-09-09T01:46")
    )


def test_csv_keeps_floats_exactly(cache: Cache, tmp_path: Path) -> None:
    header, *rows = csv.reader(io.StringIO(written(cache, ODD, "csv", tmp_path / "x.csv")))
    assert header == ["i", "f", "s", "d", "t", "l", "st", "j", "h", "c", "b"]
    assert [row[1] for row in rows] == ["nan", "-inf", "0.30000000000000004"]
    assert rows[2][2:5] == ['a,"b"', "2024-01-02", "2024-01-02 03:04:05.500000"]
    assert json.loads(rows[2][5]) == [1.5, None, "NaN"] and rows[2][8:10] == ["3", "1.50"]
    assert written(cache, "SELECT 1 AS a WHERE false", "csv", tmp_path / "x.csv") == "a\n"


def test_parquet_keeps_everything(cache: Cache, tmp_path: Path) -> None:
    question = "SELECT key, step, value, kind, value_json FROM history ORDER BY ALL"
    shown = formats.write(query.sql(cache, question), "parquet", tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    assert shown.rows == table.num_rows == 9
    cells = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
    assert [(k, s, bits(v), kind, j) for k, s, v, kind, j in cells] == [
        (k, s, bits(v), kind, j) for k, s, v, kind, j in ask(cache, question)
    ]
    empty = formats.write(
        query.sql(cache, "SELECT key, value FROM history WHERE false"), "parquet", tmp_path / "y.parquet"
    )
    assert empty.rows == 0 and pq.read_schema(tmp_path / "y.parquet").names == ["key", "value"]
    with pytest.raises(UsageError, match="not for the terminal"):
        formats.write(query.sql(cache, "SELECT 1"), "parquet", None)


def test_a_table_stops_at_its_limit(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    shown = formats.write(query.sql(cache, "SELECT * FROM range(10) r(i)"), "table", None, limit=4)
    assert (shown.rows, shown.more) == (4, True)
    out = capsys.readouterr().out
    assert "i" in out and "3" in out and "4" not in out
    assert formats.write(query.sql(cache, "SELECT * FROM range(4) r(i)"), "table", None, limit=4).more is False
    assert formats.write(query.sql(cache, "SELECT 1 AS lonely WHERE false"), "table", None).rows == 0
    assert "lonely" in capsys.readouterr().out


@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_query_that_fails_on_the_way_leaves_the_old_file(cache: Cache, tmp_path: Path, form: str) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    late = "SELECT CASE i WHEN 900000 THEN error('boom') ELSE i::VARCHAR END FROM range(1000000) r(i)"
    for failing in ("SELECT (key || 'x')::INTEGER FROM history", late):
        with pytest.raises(UsageError, match="the query failed"):
            formats.write(query.sql(cache, failing), form, path)
    assert path.read_text() == "before" and [one.name for one in tmp_path.iterdir() if "x" in one.name] == ["x"]
    with pytest.raises(WandbsyncError, match="cannot write"):
        formats.write(query.sql(cache, "SELECT 1"), form, tmp_path / "no" / "such" / "folder")


def test_columns_of_one_name_are_told_apart(cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = 'SELECT 1 AS a, 2 AS a, 3 AS "A", 4 AS a_1'
    names = ["a", "a_1", "A_2", "a_1_1"]
    assert json.loads(written(cache, question, "json", tmp_path / "x")) == [dict(zip(names, range(1, 5), strict=True))]
    assert written(cache, question, "csv", tmp_path / "x") == "a,a_1,A_2,a_1_1\n1,2,3,4\n"
    formats.write(query.sql(cache, question), "parquet", tmp_path / "x")
    assert pq.read_table(tmp_path / "x").to_pylist() == [dict(zip(names, range(1, 5), strict=True))]
    formats.write(query.sql(cache, question), "table", None)
    assert capsys.readouterr().out.split()[:4] == names


def test_an_explained_plan_is_printed_as_it_is_drawn(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    question = "EXPLAIN SELECT key, count(*) FROM history GROUP BY key"
    ((_, plan),) = ask(cache, question)
    assert plan.count("\n") > 5
    formats.write(query.sql(cache, question), "table", None)
    assert capsys.readouterr().out == plan.rstrip() + "\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("rows", [1, 300_000])
@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_output_that_cannot_be_written_is_told(cache: Cache, form: str, rows: int) -> None:
    """And not once more by Python, when it ends."""
    script = (
        "import sys; from pathlib import Path\n"
        "from wandbsync import formats, query; from wandbsync.cache import Cache\n"
        "from wandbsync.errors import WandbsyncError\n"
        "try:\n    formats.write(query.sql(Cache(Path(sys.argv[1])), sys.argv[2]), sys.argv[3], None)\n"
        "except WandbsyncError as error:\n    print(error, file=sys.stderr)\n"
    )
    words = [sys.executable, "-c", script, str(cache.folder), f"SELECT i FROM range({rows}) r(i)", form]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = run_process(words, env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "cannot write the output: No space left on device\n" and done.returncode == 0


# For seconds it has no row to give, and DuckDB's own thread for it no moment to look for signals.
ENDLESS = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b WHERE a.range % 7 < b.range % 11"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_ctrl_c_stops_a_query_at_once(cache: Cache, tmp_path: Path, form: str) -> None:
    script = (
        "import signal, sys; from wandbsync.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv = ['wandbsync', *sys.argv[1:]]; main()"
    )
    words = [sys.executable, "-c", script, "--cache-dir", str(cache.folder), "sql", "--offline", ENDLESS]
    output = [] if form != "parquet" else ["-o", str(tmp_path / "x")]
    publish.publish(cache)
    job = subprocess.Popen(
        [*words, "--format", form, *output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        time.sleep(2.5)
        assert job.poll() is None
        job.send_signal(signal.SIGINT)
        _, said = job.communicate(timeout=10)
    finally:
        job.kill()
    assert job.returncode == 130 and said.strip().startswith("interrupted"), said
    assert not [path for path in tmp_path.iterdir() if "x" in path.name]


CALLS = {
    "fetchall": lambda answer: answer.fetchall(),
    "batches": lambda answer: list(answer.batches(100)[1]),
    "project": lambda answer: list(answer.project("#1::VARCHAR")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_interrupts_the_wait_ends_the_query(cache: Cache, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    """An error raised by a handler of a signal, SIGTERM too, comes through as it is; the connection stays usable."""

    def stop(*_: object) -> None:
        raise WandbsyncError("stopped")

    answer = query.sql(cache, ENDLESS)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        began = time.monotonic()
        with pytest.raises(WandbsyncError, match="stopped"):
            call(answer)
        assert time.monotonic() - began < 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert answer.beside.con.sql("SELECT 7").fetchall() == [(7,)]


def test_ctrl_c_while_duckdb_publishes_is_ctrl_c(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise RuntimeError("Query interrupted")  # DuckDB's way to tell

    monkeypatch.setattr(publish, "fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish.publish(cache)
    with pytest.raises(KeyboardInterrupt):
        query.sql(cache, "SELECT 1")
    assert not list((cache.folder / "tmp").iterdir())
