"""Bits that rot, backups, and a house that moves: no wrong answer, nothing lost that a source still has."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flips import flips
from local_runs import end, header, put, rows, small
from rows import exact, number, share, stored
from shell import Shell

import wandbsync
from wandbsync import query
from wandbsync.cache import Cache, compaction, eviction, losses, segments
from wandbsync.cache.upkeep import backup, rebuild, repair, upkeep
from wandbsync.cache.upkeep.rebuild import Piece, order, tile
from wandbsync.cache.upkeep.scrub import scrub
from wandbsync.cache.verify import verify
from wandbsync.errors import CacheError, Damaged, NothingCached, UsageError
from wandbsync.model import RunRef
from wandbsync.sync import sync_local

A, B, C = (RunRef("me", "demo", name) for name in "abc")
SUM = "SELECT run_id, count(*), sum(value) FROM history GROUP BY 1 ORDER BY 1"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Runs a and b, of 60 and 40 rows."""
    for name, count in (("a", 60), ("b", 40)):
        put(tmp_path / "logs", name, [*header(name, entity="me"), *rows(range(count), acc=0.1), end()])
    return tmp_path / "logs"


@pytest.fixture
def filled(cache: Cache, logs: Path) -> Cache:
    """A cache with a segment of both runs."""
    sync_local(cache, [logs])
    upkeep(cache)
    return cache


def segment(cache: Cache) -> Path:
    (file,) = cache.con.execute("SELECT file FROM segments WHERE removed_at IS NULL ORDER BY segment DESC").fetchone()
    return cache.segment_path(file)


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 64
    path.write_bytes(data)


def faults(cache: Cache) -> list[str]:
    return [str(finding) for finding in verify(cache) if not finding.harmless]


# -- no wrong answer


def test_no_flipped_bit_makes_a_wrong_answer(tmp_path: Path) -> None:
    done = flips(tmp_path / "cache", tmp_path / "logs", 40, seed=random.randrange(10**6))
    assert done["told"]


def test_a_damaged_segment_is_told_with_its_runs_and_what_to_do(filled: Cache, logs: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    path = segment(filled)
    before = shell("sql", "--offline", "--format", "csv", SUM).stdout
    flip(path)
    for words in (["sql", "--offline", SUM], ["export", "me/demo", "-o", "x.csv", "--offline"]):
        told = shell.error(*words, code=1)
        assert path.name in told and "me/demo/a" in told and "cache repair" in told
    assert shell("sql", "--offline", "SELECT count(*) FROM runs", "--format", "csv").stdout.split()[1] == "2"
    assert f"segment {path.parent.name}/{path.name}" in str(shell.json("status")["problems"])
    assert shell("cache", "verify", code=1).stdout.startswith("altered: ")
    told = shell("cache", "repair").stdout
    assert "read again: me/demo/a" in told and "read again: me/demo/b" in told
    assert shell("cache", "verify").stdout.endswith("the cache is sound\n")
    assert shell("sql", "--offline", "--format", "csv", SUM).stdout == before
    assert shell.json("status")["problems"] == []


def test_a_segment_is_checked_once(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandbsync.cache import stamps

    seen: list[str] = []
    really = stamps.check
    monkeypatch.setattr(stamps, "check", lambda cache, one: (seen.append(one.file), really(cache, one))[1])
    query.sql(filled, SUM).fetchall()
    assert seen == [], "what was written by us is known"
    os.utime(segment(filled))
    for _ in range(2):
        with Cache(filled.folder) as other:
            query.history(other, A)
            query.sql(other, SUM).fetchall()
    assert len(seen) == 1


def test_the_catalog_is_examined_only_if_somebody_else_changed_it(
    filled: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandbsync.cache import seal

    seen: list[object] = []
    really = seal.examine
    monkeypatch.setattr(seal, "examine", lambda con: (seen.append(con), really(con))[1])
    for k in range(3):
        with Cache(filled.folder) as other:
            other.commit([share(B, other.revision(B), [number("more", k, 1.0)])])
            query.list_runs(other, ("me", "demo"))
    filled.close()
    assert seen == []
    with closing(sqlite3.connect(filled.folder / "catalog.sqlite")) as con, con:
        con.execute("UPDATE checks SET synced_at = synced_at + 1")
    for _ in range(2):
        with Cache(filled.folder) as other:
            query.list_runs(other, ("me", "demo"))
    assert len(seen) == 1, "what is consistent is believed"


def test_a_value_that_rots_in_the_catalog_is_told(filled: Cache) -> None:
    """SQLite itself has no checksums: a digit of a number is as good as another to it."""
    filled.con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    filled.close()
    path = filled.folder / "catalog.sqlite"
    whole = path.read_bytes()
    for word in (b"me/demo"[:2] + b"demo", b"finished", b"20240101", b'"producer', b"acc"):
        at = whole.find(word)
        while at >= 0:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(Damaged, match="damaged"):
                Cache(filled.folder).last_steps()
            at = whole.find(word, at + 1)
    path.write_bytes(whole)
    assert len(Cache(filled.folder).last_steps()) == 2


def test_the_scrub_finds_what_moved_no_stamp(filled: Cache) -> None:
    path = segment(filled)
    flip(path)
    filled.con.execute("UPDATE segments SET stamp = ?", (__import__("wandbsync").cache.stamps.stamp_of(path),))
    assert scrub(filled, now=time.time()).damage == (), "its turn has not come"
    assert path.name in scrub(filled, now=time.time() + 8 * 86_400).damage[0]
    assert losses.damaged(filled) == [f"{path.parent.name}/{path.name}"]


# -- repair


def test_rows_that_no_source_has_are_named_and_the_rest_stays(cache: Cache) -> None:
    cache.commit([share(A, None, [number("loss", step, 1.0) for step in range(5)])])
    cache.commit([share(A, cache.revision(A), [number("loss", step, 2.0) for step in range(5, 8)])])
    flip(segment(cache))
    (damage,) = repair.find(cache)
    assert damage.runs == (A,)
    assert repair.give_up(cache, damage.file) == {A: 3}
    assert stored(query.history(cache, A)) == exact([number("loss", step, 1.0) for step in range(5)])
    assert query.get_run(cache, A)["incomplete"].startswith("3 values were lost") and not faults(cache)
    assert [one.name for one in (cache.folder / "damaged").iterdir()] == [damage.file.split("/")[1]]


@pytest.mark.parametrize("copied", [True, False])
def test_a_catalog_is_made_anew_from_its_segments(cache: Cache, logs: Path, copied: bool) -> None:
    """Merged, renamed, rewound and replaced runs, with a copy of the day before and without."""
    for k in range(40):
        cache.commit([share(ref, cache.revision(ref), [number("loss", k, k + 0.5)]) for ref in (A, C)])
    compaction.compact(cache)
    cache.cut(C, 20)
    if copied:
        backup.daily(cache)
    cache.commit([share(A, cache.revision(A), [number("val.x", 40, -0.0)], paths={"val.x": ("val", "x")})])
    generation = cache.new_generation()
    cache.commit([share(B, None, [number("b", 0, 9.0)], generation=generation)])
    compaction.compact(cache, everything=True)
    before = {ref: stored(query.history(cache, ref)) for ref in (A, B, C)}
    cache.close()
    for path in cache.folder.glob("catalog.sqlite*"):
        if path.name != "catalog.sqlite.daily":
            path.unlink()
    assert rebuild.needed(cache.folder)
    done = rebuild.rebuild(cache.folder)
    assert done.runs == 3 and (done.copied_at is not None) == copied
    assert {ref: stored(query.history(cache, ref)) for ref in (A, B, C)} == before and not faults(cache)
    assert cache.key_paths(A)["val.x"] == ("val", "x")
    assert query.get_run(cache, C)["incomplete"] is None if copied else True
    assert losses.runs(cache) == ({A, B} if copied else {A, B, C})
    cache.commit([share(A, cache.revision(A), [number("loss", 50, 1.0)])])
    assert not faults(cache)


def test_a_deleted_catalog_comes_back_with_its_sources(filled: Cache, logs: Path, tmp_path: Path) -> None:
    before = {ref: stored(query.history(filled, ref)) for ref in (A, B)}
    filled.close()
    for path in filled.folder.glob("catalog.sqlite*"):
        path.unlink()
    with pytest.raises(NothingCached) as raised:
        wandbsync.open(filled.folder, offline=True).runs("me/demo")
    assert "cache repair" in raised.value.line()
    shell = Shell(tmp_path)
    (tmp_path / "settings.toml").write_text(f'[local]\nfolders = ["{logs}"]\n')
    told = shell("--config", "settings.toml", "cache", "repair", "--offline").stdout
    assert "made anew" in told and "read again: me/demo/a" in told
    assert {ref: stored(query.history(filled, ref)) for ref in (A, B)} == before and not faults(filled)
    assert [run["state"] for run in query.list_runs(filled, ("me", "demo"))] == ["finished"] * 2


def test_tiles_cover_a_stream_once() -> None:
    merged, late = Piece(1, "m", 0, 30), Piece(1, "z", 30, 5)
    assert tile([Piece(1, "a", 0, 10), late, merged, Piece(1, "b", 10, 20)]) == [merged, late]
    assert tile([Piece(1, "a", 0, 10), Piece(1, "c", 20, 5)]) == [Piece(1, "a", 0, 10), Piece(1, "c", 20, 5)]
    placed = order([[merged, late], [Piece(2, "z", 0, 1), Piece(2, "k", 1, 1)]], {"m": 1, "z": 2, "k": 3})
    assert placed == [("m", 1), ("z", 1), ("k", 1)]


# -- backup, and moving house


def test_a_backup_is_incremental_and_comes_back(filled: Cache, logs: Path, tmp_path: Path) -> None:
    to = tmp_path / "backup"
    assert backup.backup(filled, to).added == 1
    small(logs, "d", entity="me")
    sync_local(filled, [logs])
    assert backup.backup(filled, to).added == 1
    compaction.compact(filled, everything=True)
    done = backup.backup(filled, to)
    assert (done.segments, done.added, done.removed) == (1, 1, 2)
    before = query.sql(filled, SUM).fetchall()
    restored = Cache(tmp_path / "new")
    backup.restore(to, restored.folder)
    assert query.sql(restored, SUM).fetchall() == before and not faults(restored)
    with pytest.raises(UsageError, match="there is a cache"):
        backup.restore(to, restored.folder)
    with pytest.raises(UsageError, match="no backup"):
        backup.backup(filled, logs)
    next((to / "history").rglob("*.parquet")).write_bytes(b"x")
    with pytest.raises(CacheError, match=r"the backup .* is damaged"):
        backup.restore(to, tmp_path / "other")


def test_a_segment_comes_back_from_a_backup(filled: Cache, logs: Path, tmp_path: Path) -> None:
    backup.backup(filled, tmp_path / "backup")
    path = segment(filled)
    whole = path.read_bytes()
    path.unlink()  # linked: what is flipped here is flipped there
    path.write_bytes(whole[:-1] + b"x")
    assert repair.find(filled, backup=tmp_path / "backup") == [] and not faults(filled)


WRITER = """
import sys
from pathlib import Path
from rows import number, share
from wandbsync.cache import Cache
from wandbsync.cache.compaction import compact
from wandbsync.model import RunRef
ref = RunRef("me", "demo", "w")
with Cache(Path(sys.argv[1])) as cache:
    for k in range(100_000):
        cache.commit([share(ref, cache.revision(ref), [number("loss", k, k / 7)])])
        if k % 40 == 39:
            compact(cache)
        if k == 5:
            print("ready", flush=True)
"""


def writer(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder)]
    started = subprocess.Popen(
        command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    return started


def whole_steps(cache: Cache) -> int:
    """How many rows of the writer there are: from the first one on without a gap, each as it was written."""
    found = stored(query.history(cache, RunRef("me", "demo", "w")))
    assert found == exact([number("loss", k, k / 7) for k in range(len(found))]) and not faults(cache)
    return len(found)


def test_a_backup_beside_a_writer_that_is_killed(tmp_path: Path) -> None:
    process = writer(tmp_path / "cache")
    cache = Cache(tmp_path / "cache")
    for k in range(3):
        backup.backup(cache, tmp_path / "backup")
        if k == 1:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    restored = Cache(tmp_path / "restored")
    backup.restore(tmp_path / "backup", restored.folder)
    assert whole_steps(restored) == whole_steps(cache) > 5


def test_a_cache_that_moves_under_a_writer_is_sound(tmp_path: Path) -> None:
    for k in range(3):
        old, moved = tmp_path / f"cache{k}", tmp_path / f"moved{k}"
        process = writer(old)
        time.sleep(0.05 * k)
        (tmp_path / f"next{k}" / "tmp").mkdir(parents=True)
        (tmp_path / f"next{k}" / "history" / "L0").mkdir(parents=True)
        if k == 2:
            with Cache(tmp_path / "next2") as other:
                assert other.last_steps() == {}
        old.rename(moved)
        if k:  # where another has begun a cache in its place
            (tmp_path / f"next{k}").rename(old)
        try:
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 1 and ("was moved while it was written to" in told or "is gone" in told), told
        assert whole_steps(Cache(moved)) > 5 and Cache(old).exists() == (k == 2)


@pytest.mark.parametrize("work", ["commit", "compact", "rewrite"])
def test_a_segment_that_went_into_another_cache_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    """The folder moves after the catalog was read and before the segment is written, and another is in its place."""
    folder, moved = tmp_path / "cache", tmp_path / "moved"
    cache, logged = Cache(folder), [number("loss", k, k / 7) for k in range(8)]
    for k in range(4):
        cache.commit([share(ref, cache.revision(ref), logged[2 * k : 2 * k + 2]) for ref in (A, B)])
    works = {
        "commit": lambda: cache.commit([share(A, cache.revision(A), [number("loss", 8, 1.0)])]),
        "compact": lambda: compaction.compact(cache, everything=True),
        "rewrite": lambda: eviction.rewrite(
            cache, cache.con.execute("SELECT min(segment) FROM segments").fetchone()[0]
        ),
    }
    if work == "rewrite":
        cache.con.execute("DELETE FROM segment_streams WHERE stream = (SELECT max(stream) FROM streams)")
    really = segments.write

    def elsewhere(path: Path, blocks: Iterable[segments.Block], *more: Any) -> bool:
        monkeypatch.setattr(segments, "write", really)
        held = list(blocks)
        folder.rename(moved)
        with Cache(folder) as other:
            other.commit([share(C, None, [number("loss", 0, 1.0)])])
        for level in range(4):
            (folder / "history" / f"L{level}").mkdir(exist_ok=True)
        return really(path, held, *more)

    monkeypatch.setattr(segments, "write", elsewhere)
    with pytest.raises(CacheError, match="was moved while it was written to"):
        works[work]()
    for place, refs in ((moved, (A,)), (folder, (C,))):
        with Cache(place) as one:
            assert not [str(finding) for finding in verify(one) if not finding.harmless and work != "rewrite"]
            assert stored(query.history(one, refs[0])) == exact(logged if place == moved else [number("loss", 0, 1.0)])
