"""A cache outlives the program: what version 1 left is all there after an upgrade, whatever comes between."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dying
import pytest
from rows import exact, number, share, stored
from test_disk import mounts, on_disk

from wandbsync import query
from wandbsync.cache import Cache, catalog, migration, schema
from wandbsync.cache.compaction import gc
from wandbsync.cache.verify import verify
from wandbsync.errors import CacheBusy, CacheError, NewerCache
from wandbsync.model import CONSOLE, SYSTEM, Kind, RunRef

OLD = Path(__file__).with_name("caches") / "v1.tar.gz"  # as wandbsync 0.1 left it in November 2026
A, B, C, D = (RunRef("me", "demo", name) for name in "abcd")
LOCAL = RunRef("local", "demo", "l")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A cache of version 1."""
    return unpacked(tmp_path / "cache")


def unpacked(folder: Path) -> Path:
    with tarfile.open(OLD) as tar:
        for member in tar.getmembers():
            place = folder / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content
            place.write_bytes(content.read())
    return folder


def contents(folder: Path, name: str = "catalog.sqlite") -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of version 1."""
    with closing(sqlite3.connect(folder / name)) as con, closing(sqlite3.connect(":memory:")) as first:
        first.executescript(schema.SCHEMA)
        tables = [row[0] for row in first.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        assert len(tables) == 13
        columns = {table: ", ".join(row[1] for row in first.execute(f"PRAGMA table_info({table})")) for table in tables}
        return {one: con.execute(f"SELECT {columns[one]} FROM {one} ORDER BY 1, 2").fetchall() for one in tables}


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as con:
        return migration.version_of(con)


def is_all_there(cache: Cache) -> None:
    """Every row of every run, and what is known of them."""
    run = [number("loss", step, step / 8) for step in range(40)]
    odd = [
        number("odd", 3, math.nan), number("odd", 4, -0.0), ("big", 5, Kind.BIGINT, 1e20, "100000000000000000001"),
        ("note", 7, Kind.JSON, math.nan, '"héllo"'), ("none", 2, Kind.NULL, math.nan, None), number("val.acc", 3, 0.5),
    ]  # fmt: skip
    assert stored(query.history(cache, A)) == exact([*run, *odd])
    machine = [number("system.cpu", step, step / 8) for step in range(3)]
    assert stored(query.history(cache, A, stream=SYSTEM)) == exact(machine)
    lines = [("stdout", 0, Kind.LINE, 1.7e9, "hello"), ("stderr", 1, Kind.LINE, math.nan, "wörld")]
    assert stored(query.history(cache, A, stream=CONSOLE)) == exact(lines)
    for ref, count in ((B, 9), (C, 7), (D, 4), (LOCAL, 7)):
        assert stored(query.history(cache, ref)) == exact(run[:count]), ref
    assert query.get_run(cache, A)["config"] == {"lr": 0.1, "nested": {"a": [1, None]}}
    assert query.get_run(cache, A)["tags"] == ["x", "ü"] and query.get_run(cache, B)["incomplete"] == "1 row is missing"
    assert query.get_run(cache, D)["deleted_at"] and not query.get_run(cache, A)["deleted_at"]
    assert query.sql(cache, "SELECT count(*) FROM history").fetchall() == [(46 + 9 + 7 + 4 + 7,)]
    assert [finding for finding in verify(cache) if not finding.harmless] == []


def test_every_row_of_an_old_cache_is_there_after_an_upgrade(old: Path) -> None:
    before = contents(old)
    assert version(old / "catalog.sqlite") == 1
    with Cache(old) as cache:
        is_all_there(cache)
        assert cache.log_cursors(LOCAL)["/logs/run-l.wandb"].state == '{"state": 1}'
        seen = cache.mirror(A)
        assert seen and seen.fetched and (seen.fetched.lines, seen.fetched.described) == (40, "d1")
    assert contents(old) == before
    assert version(old / "catalog.sqlite") == schema.VERSION
    with Cache(old) as cache:
        assert cache.commit([share(A, cache.revision(A), [number("loss", 40, 5.0)])]) != [None]
        assert not [finding for finding in verify(cache) if not finding.harmless]


def test_a_new_cache_is_what_an_old_one_becomes(old: Path, tmp_path: Path) -> None:
    def shape(folder: Path) -> list[tuple[Any, ...]]:
        with Cache(folder) as cache:
            cache.last_steps()
            return sorted(map(tuple, cache.con.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")), key=str)

    assert shape(old) == shape(tmp_path / "new")


def test_the_old_catalog_is_kept_for_a_week(old: Path) -> None:
    before = contents(old)
    with Cache(old) as cache:
        cache.last_steps()
        copy = old / "catalog.sqlite.v1"
        assert contents(old, copy.name) == before and version(copy) == 1 and copy.stat().st_mode & 0o77 == 0
        gc(cache, now=copy.stat().st_mtime + migration.KEPT - 60)
        assert copy.exists()
        late = copy.stat().st_mtime + migration.KEPT + 60
        assert copy.name in gc(cache, now=late, dry_run=True).files and copy.exists()
        assert copy.name in gc(cache, now=late).files and not copy.exists()
        is_all_there(cache)


def test_a_crash_in_the_middle_leaves_a_whole_version(old: Path, tmp_path: Path) -> None:
    before = contents(old)
    command = [sys.executable, dying.__file__, str(old), "upgrade", str(tmp_path / "moments")]
    subprocess.run(command, check=True, timeout=100)
    moments = sorted((tmp_path / "moments").iterdir())
    assert len(moments) > 6
    seen = set()
    for moment in moments:
        found = version(moment / "catalog.sqlite")
        seen.add(found)
        assert contents(moment) == before, moment
        if found > 1:
            assert contents(moment, "catalog.sqlite.v1") == before, "the copy is there before anything is changed"
        with Cache(moment) as cache:
            is_all_there(cache)
        assert version(moment / "catalog.sqlite") == schema.VERSION
        assert not list(moment.glob("*.part"))
    assert seen == set(range(1, schema.VERSION + 1))


def test_several_processes_upgrade_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from wandbsync.cache import Cache, migration\n"
        "really = migration._keep\n"
        "def keep(*args): print('kept', flush=True); really(*args)\n"
        "migration._keep = keep\n"
        "print(len(Cache(Path(sys.argv[1])).last_steps()))\n"
    )
    for k in range(3):
        folder = unpacked(tmp_path / str(k))
        command = [sys.executable, "-c", script, str(folder)]
        makers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(5)]
        said = [maker.communicate(timeout=60)[0] for maker in makers]
        assert [maker.returncode for maker in makers] == [0] * 5
        assert sorted("".join(said).split()) == ["5"] * 5 + ["kept"]


def test_readers_see_the_old_schema_or_the_new_one(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has it open, and one that comes, in the middle of an upgrade."""
    heard: list[object] = []
    with closing(sqlite3.connect(old / "catalog.sqlite", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (5,)
        really = schema.statements

        def statements(number: int) -> Iterator[str]:
            yield from really(number)
            with closing(sqlite3.connect(old / "catalog.sqlite")) as other:
                heard.append(migration.version_of(other))
                heard.append(other.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'uses'").fetchone()[0])

        monkeypatch.setattr(schema, "statements", statements)
        with Cache(old) as cache:
            assert len(cache.last_steps()) == 5
        assert heard[:4] == [1, 0, 2, 1], "what a step makes is seen with its number"
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (5,)
        reader.execute("COMMIT")


def test_a_long_writer_of_the_old_version_makes_the_new_one_wait(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(old / "catalog.sqlite", isolation_level=None, check_same_thread=False)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(catalog, "BUSY_SECONDS", 0.05)
        with pytest.raises(CacheBusy):
            Cache(old).last_steps()
        monkeypatch.setattr(catalog, "BUSY_SECONDS", 10.0)
        later = threading.Timer(0.3, lambda: writer.execute("COMMIT"))
        later.start()
        with Cache(old) as cache:
            is_all_there(cache)
        later.join()


def test_a_newer_cache_stays_refused(old: Path) -> None:
    with closing(sqlite3.connect(old / "catalog.sqlite")) as con:
        con.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = (old / "catalog.sqlite").read_bytes()
    with pytest.raises(NewerCache, match=f"schema {schema.VERSION + 1}, this wandbsync knows {schema.VERSION}"):
        Cache(old).last_steps()
    assert (old / "catalog.sqlite").read_bytes() == before and not list(migration.copies(old))


def test_a_step_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old)
    first = min(schema.STEPS)
    monkeypatch.setitem(schema.STEPS, first, schema.STEPS[first] + ";\nCREATE TABLE runs (x)")
    with pytest.raises(CacheError, match="already exists"):
        Cache(old).last_steps()
    assert contents(old) == before and version(old / "catalog.sqlite") == 1
    monkeypatch.undo()
    with Cache(old) as cache:
        is_all_there(cache)


FULL = """
from test_migration import *
cache_folder = unpacked(folder / "cache")
with open(folder / "filler", "ab", buffering=0) as file:
    try:
        while file.write(bytes(4096)) == 4096:
            pass
    except OSError:
        pass
before = (cache_folder / "catalog.sqlite").read_bytes()
with Cache(cache_folder) as cache:
    assert cache.frozen
    is_all_there(cache)
    with pytest.raises(NoRoom, match="no room left"):
        cache.checked([A], 2.0)
assert (cache_folder / "catalog.sqlite").read_bytes() == before and not list(cache_folder.glob("*.v1*"))
(folder / "filler").unlink()
with Cache(cache_folder) as cache:
    assert not cache.frozen
    is_all_there(cache)
    publish.publish(cache)
assert version(cache_folder / "catalog.sqlite") == schema.VERSION
"""

READ_ONLY = """
from test_migration import *
cache_folder = unpacked(folder / "cache")
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
before = sorted(folder.rglob("*"))
with Cache(cache_folder) as cache:
    assert cache.frozen
    is_all_there(cache)
    with pytest.raises(CacheError, match="cannot write"):
        cache.checked([A], 2.0)
assert sorted(folder.rglob("*")) == before
"""


@pytest.mark.skipif(not mounts(), reason="this system lets us mount nothing")
@pytest.mark.parametrize("script", [FULL, READ_ONLY], ids=["full", "read-only"])
def test_an_old_cache_that_cannot_be_upgraded_is_read(tmp_path: Path, script: str) -> None:
    on_disk(tmp_path / "disk", "size=8m", script)


def test_without_room_for_the_copy_nothing_is_changed(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old)

    def full(path: Path, number: int) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(migration, "_keep", full)
    with Cache(old) as cache:
        assert cache.frozen
        is_all_there(cache)
    assert contents(old) == before and version(old / "catalog.sqlite") == 1
    monkeypatch.undo()
    with Cache(old) as cache:
        is_all_there(cache)
        assert not cache.frozen
