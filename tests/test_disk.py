"""The cache on a full disk, and where nothing may be written: what is in it is read all the same.

For real, on a disk that the test mounts for itself, where the system lets it; and with the errors alone everywhere.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rows import exact, number, share, stored

from wandbsync import query
from wandbsync.cache import Cache, catalog, compaction, frozen, publish, store, upkeep
from wandbsync.errors import CacheBusy, CacheError, NoRoom
from wandbsync.model import RunRef

A = RunRef("me", "demo", "a")
ROWS = [number("loss", step, step / 8) for step in range(9)]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "it's %41 #cache") as one:
        add(one)
        yield one


def add(cache: Cache, rows: object = None) -> None:
    assert cache.commit([share(A, cache.revision(A), ROWS if rows is None else rows)]) != [None]  # type: ignore[arg-type]


def answers(cache: Cache, rows: int = 9) -> None:
    """Every way to read says what there is."""
    assert [one["name"] for one in query.list_projects(cache)] == ["demo"]
    assert query.get_run(cache, A)["rows"] == rows
    assert query.series(cache, A, "loss")[0].tolist() == list(range(rows))
    assert query.sql(cache, "SELECT count(*) FROM history").fetchall() == [(rows,)]
    assert query.sql(cache, "SELECT rows FROM runs").fetchall() == [(rows,)]


def crashed(cache: Cache) -> None:
    """Leave the catalog as a process does that was killed: with what it committed last beside it."""
    add(cache, [number("loss", 9, 1.0)])
    names = [cache.folder / f"catalog.sqlite{suffix}" for suffix in ("", "-wal")]
    for path in names:
        shutil.copyfile(path, f"{path}.kept")
    cache.close()
    for path in names:
        Path(f"{path}.kept").rename(path)


# -- for real


def mounts() -> bool:
    words = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/tmp"]
    return bool(shutil.which("unshare")) and subprocess.run(words, capture_output=True).returncode == 0


def on_disk(folder: Path, options: str, script: str) -> None:
    """Run a script with this module's names and `folder` where a disk of its own is mounted."""
    folder.mkdir()
    preface = "import os, shutil, subprocess; from pathlib import Path; import pytest; from test_disk import *\n"
    code = f"{preface}folder = Path({str(folder)!r})\n{script}"
    command = f'mount -t tmpfs -o {options} none "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", command, "sh", str(folder), sys.executable, code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


FULL = """
def fill():
    with open(folder / "filler", "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass

with Cache(folder / "cache") as cache:
    add(cache)
    publish.publish(cache)
    if stale:
        cache.checked([A], 1.0)
    crashed(cache) if wal else cache.close()
    rows = 10 if wal else 9
    fill()
    assert frozen.obstacle(folder) == "full" and cache.frozen
    answers(cache, rows)
    with pytest.raises(NoRoom, match="no room left"):
        add(cache, [number("loss", rows, 1.0)])
    with pytest.raises(NoRoom, match="no room left"):
        cache.checked([A], 2.0)
    with pytest.raises(NoRoom):
        publish.publish(cache)
    assert compaction.gc(cache, dry_run=True).files == []
    swept = upkeep.sweep(cache).swept
    assert swept.files == ["wandb.duckdb"] and swept.bytes > 10_000
    add(cache, [number("loss", rows, 1.0)])
    answers(cache, rows + 1)
    (folder / "filler").unlink()
    answers(cache, rows + 1)
    publish.publish(cache)
    assert not cache.frozen and not list(verify(cache))
"""


@pytest.mark.skipif(not mounts(), reason="this system lets us mount nothing")
@pytest.mark.parametrize(("stale", "wal"), [(False, False), (True, False), (True, True)])
def test_a_full_disk_is_read_and_gc_makes_room(tmp_path: Path, stale: bool, wal: bool) -> None:
    script = f"from wandbsync.cache.verify import verify\nstale, wal = {stale}, {wal}\n{FULL}"
    on_disk(tmp_path / "disk", "size=8m", script)


READ_ONLY = """
with Cache(folder / "cache") as cache:
    add(cache)
    if published:
        publish.publish(cache)
    crashed(cache) if wal else cache.close()
    rows = 10 if wal else 9
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    assert frozen.obstacle(folder) == "readonly" and cache.frozen
    before = sorted(folder.rglob("*"))
    answers(cache, rows)
    for attempt in (lambda: add(cache), lambda: cache.checked([A], 2.0), lambda: upkeep.sweep(cache)):
        with pytest.raises(CacheError, match="cannot") as caught:
            attempt()
        assert "--cache-dir" in caught.value.line()
    assert sorted(folder.rglob("*")) == before
"""


@pytest.mark.skipif(not mounts(), reason="this system lets us mount nothing")
@pytest.mark.parametrize(("published", "wal"), [(True, False), (False, False), (False, True)])
def test_a_disk_that_must_not_be_written_is_read(tmp_path: Path, published: bool, wal: bool) -> None:
    on_disk(tmp_path / "disk", "size=8m", f"published, wal = {published}, {wal}\n{READ_ONLY}")


# -- with the errors alone


@pytest.fixture
def unwritable(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """SQLite and DuckDB cannot write beside the catalog, as on a full disk."""
    cache.close()
    really = catalog.version_of

    def version(con: sqlite3.Connection) -> int:
        if not isinstance(con, frozen.Frozen):
            raise sqlite3.OperationalError("disk I/O error")
        return really(con)

    def write(*_: object, **how: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "version_of", version)
        patch.setattr(catalog, "obstacle", lambda _: "full")
        patch.setattr(publish, "_write", write)
        yield patch


@pytest.mark.parametrize("wal", [False, True])
def test_without_room_the_catalog_is_read_from_memory(cache: Cache, unwritable: pytest.MonkeyPatch, wal: bool) -> None:
    if wal:
        with unwritable.context() as patch:
            patch.setattr(catalog, "version_of", lambda con: con.execute("PRAGMA user_version").fetchone()[0])
            crashed(cache)
    assert cache.frozen
    assert cache.con.execute("PRAGMA temp_store").fetchone()[0] == 2, "nor is there room to sort in"
    answers(cache, 10 if wal else 9)
    with pytest.raises(NoRoom, match="no room left") as caught:
        add(cache)
    assert "wandbsync cache gc" in caught.value.line()
    with publish.connect(cache) as con:
        (place,) = con.execute("SELECT current_setting('temp_directory')").fetchall()[0]
    assert not Path(place).is_relative_to(cache.folder.resolve())


def test_as_soon_as_there_is_room_the_catalog_is_opened_again(
    cache: Cache, unwritable: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.frozen
    unwritable.undo()
    assert cache.frozen, "not at every question"
    monkeypatch.setattr(store, "FROZEN", 0.0)
    add(cache, [number("loss", 9, 1.0)])
    assert not cache.frozen and query.get_run(cache, A)["rows"] == 10


def test_a_catalog_that_is_written_meanwhile_is_copied_again(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.folder / "catalog.sqlite"
    cache.close()
    really, copies = frozen._stamps, iter(range(3))

    def stamps(path: Path) -> list[tuple[int, int, int]]:
        if next(copies, None) == 1:
            with Cache(cache.folder) as other:
                add(other, [number("loss", 9, 1.0)])
        return really(path)

    monkeypatch.setattr(frozen, "_stamps", stamps)
    con = frozen.freeze(path)
    assert con.execute("SELECT rows FROM runs").fetchone() == (10,)
    con.close()
    busy = iter(range(99))
    monkeypatch.setattr(frozen, "_stamps", lambda _: [(next(busy), 0, 0)])
    with pytest.raises(CacheBusy):
        frozen.freeze(path)


def test_what_a_crash_left_half_done_is_not_taken_for_the_catalog(cache: Cache) -> None:
    path = cache.folder / "catalog.sqlite"
    cache.close()
    path.with_name("catalog.sqlite-journal").write_bytes(b"x" * 512)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        frozen.freeze(path)


def test_a_cache_that_cannot_be_made_for_want_of_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(catalog, "version_of", fails)
    with pytest.raises(CacheError, match="cannot write"):
        Cache(tmp_path / "cache").last_steps()
    monkeypatch.setattr(catalog, "obstacle", lambda _: "full")
    with pytest.raises(NoRoom, match="no room left"):
        Cache(tmp_path / "cache").last_steps()


def test_what_stands_in_the_way_of_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert frozen.obstacle(tmp_path) is None and frozen.obstacle(tmp_path / "not" / "yet") is None
    for code, word in ((28, "full"), (122, "full"), (30, "readonly"), (13, "readonly"), (5, None)):

        def write(handle: int, data: bytes, code: int = code) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "write", write)
        assert frozen.obstacle(tmp_path) == word
    assert not list(tmp_path.iterdir())


def test_gc_on_a_full_disk_takes_what_nothing_needs(cache: Cache, unwritable: pytest.MonkeyPatch) -> None:
    orphan = cache.folder / "history" / "L0" / "orphan.parquet"
    orphan.write_bytes(b"left by a crash")
    os.utime(orphan, (0, 0))
    (cache.folder / publish.FILE).write_bytes(b"old")
    swept = upkeep.sweep(cache).swept
    assert swept.files == ["wandb.duckdb", "history/L0/orphan.parquet"] and swept.bytes == 3 + 15
    assert not orphan.exists()
    with pytest.raises(NoRoom, match="no room left") as caught:
        upkeep.sweep(cache)
    assert "nothing here to remove" in caught.value.line()
    answers(cache)


def test_gc_by_hand_publishes_first(cache: Cache) -> None:
    (cache.folder / "tmp" / "half.parquet").write_bytes(b"half")
    assert upkeep.sweep(cache, dry_run=True).swept == compaction.Swept([], 0, young=1)
    assert not (cache.folder / publish.FILE).exists()
    swept = upkeep.sweep(cache).swept
    assert swept == compaction.Swept([], 0, young=1) and (cache.folder / publish.FILE).exists()
    assert stored(query.history(cache, A)) == exact(ROWS)
