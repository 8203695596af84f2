"""Readers that stay: a DuckDB connection that is kept open beside syncs, merges and gc; and other DuckDBs than ours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from local_runs import header, put, rows

import wandbsync
from wandbsync.cache import Cache, compaction, publish, snapshots
from wandbsync.errors import NothingCached
from wandbsync.sync import sync_local

COUNT = "SELECT count(*), max(step) FROM history WHERE key = 'x'"
READER = f"""
import duckdb, sys
con = duckdb.connect(sys.argv[1], read_only=True)
for _ in sys.stdin:
    print(con.execute({COUNT!r}).fetchall(), flush=True)
"""


def logged(top: Path, cache: Cache, count: int) -> None:
    put(top, "r1", [*header("r1"), *rows(range(count))])
    sync_local(cache, [top])


def hours_later(cache: Cache, hours: float) -> list[str]:
    """Merge all that can be, and remove what nothing needs."""
    compaction.compact(cache, everything=True)
    publish.publish(cache)
    return compaction.gc(cache, now=time.time() + hours * 3600).files


@contextmanager
def reader(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Somebody's notebook: a connection to the file itself, kept open."""
    words = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin
        process.stdin.close()


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin and process.stdout
    print(file=process.stdin, flush=True)
    return process.stdout.readline().strip()


def test_a_file_that_is_kept_open_keeps_its_answers(cache: Cache, top: Path) -> None:
    """It used to break for good with the first merge; the segments it names now stay for as long as it is open."""
    logged(top, cache, 3)
    logged(top, cache, 5)
    with reader(publish.publish(cache)) as notebook:
        assert ask(notebook) == "[(5, 4)]"
        logged(top, cache, 9)
        hours_later(cache, 5)
        assert ask(notebook) == "[(5, 4)]"  # old, and it says so: `SELECT written_at FROM cache`
        assert len(list((cache.folder / snapshots.FOLDER).iterdir())) == 1
        with reader(cache.folder / publish.FILE) as other:
            assert ask(other) == "[(9, 8)]"
    assert [name for name in hours_later(cache, 5) if name.startswith("history/")]  # closed: they go
    assert not list((cache.folder / snapshots.FOLDER).iterdir())


def test_what_nobody_has_open_leaves_nothing(cache: Cache, top: Path) -> None:
    for count in (3, 5, 7):
        logged(top, cache, count)
        publish.publish(cache)
    assert not list((cache.folder / snapshots.FOLDER).iterdir())


def test_a_forgotten_notebook_does_not_fill_the_disk(cache: Cache, top: Path) -> None:
    logged(top, cache, 3)
    logged(top, cache, 5)
    with reader(publish.publish(cache)) as notebook:
        ask(notebook)
        logged(top, cache, 9)
        assert [name for name in hours_later(cache, 24 * 8) if name.startswith("history/")]


def test_connect_answers_from_the_cache_as_it_stands(cache: Cache, top: Path) -> None:
    logged(top, cache, 3)
    with wandbsync.connect(cache.folder) as con:
        assert con.execute(COUNT).fetchall() == [(3, 2)]
        con.execute("CREATE TEMP MACRO twice(x) AS 2 * x")
        first = con.execute("SELECT written_at FROM cache").fetchall()
        relation = con.sql("SELECT twice(count(*)) FROM history WHERE key = 'x'")
        logged(top, cache, 7)
        hours_later(cache, 5)
        assert con.execute(COUNT).fetchall() == [(7, 6)]
        assert relation.fetchall() == [(14,)]
        assert con.execute("SELECT written_at FROM cache").fetchall() > first
        assert con.sql(COUNT).fetchall() == con.query(COUNT).fetchall() == [(7, 6)]
        with pytest.raises(duckdb.Error):
            con.execute("DELETE FROM projects")


def test_connect_without_a_cache_says_so(tmp_path: Path) -> None:
    with pytest.raises(NothingCached, match="nothing is cached"):
        wandbsync.connect(tmp_path / "none")


def test_the_columns_say_what_they_are(cache: Cache, top: Path) -> None:
    logged(top, cache, 3)
    with duckdb.connect(str(publish.publish(cache)), read_only=True) as con:
        said = dict(con.execute("SELECT table_name || '.' || column_name, comment FROM duckdb_columns()").fetchall())
        assert said["history.key"] == "the metric; nested names joined by dots"
        assert said["runs.display_name"] == "the name people see" and said["files.size"] == "bytes"


def test_the_file_is_of_a_format_that_every_duckdb_opens(cache: Cache, top: Path) -> None:
    """DuckDB 1.0 to 1.4 read version 64 of its files; after a second publication, too, which begins with a copy."""
    for count in (3, 5):
        logged(top, cache, count)
        path = publish.publish(cache)
        with path.open("rb") as file:
            start = file.read(20)
        assert start[8:12] == b"DUCK" and int.from_bytes(start[12:20], "little") == 64


@pytest.mark.skipif("OLD_DUCKDB" not in os.environ, reason="names folders that hold older DuckDB packages")
def test_older_duckdbs_read_it(cache: Cache, top: Path) -> None:
    logged(top, cache, 5)
    path = publish.publish(cache)
    for folder in os.environ["OLD_DUCKDB"].split(os.pathsep):
        env = os.environ | {"PYTHONPATH": folder}
        words = [sys.executable, "-S", "-c", READER, str(path)]
        assert subprocess.run(words, env=env, input="\n", capture_output=True, text=True).stdout == "[(5, 4)]\n", folder
