"""Backups: a folder that is a cache itself, made beside whoever writes and brought up to date by the next.

    catalog   copied as it stands at one moment, by SQLite's own means; daily, a copy stays in the cache, too
    segments  never change: those that the copy names are linked, or copied to another disk, if they are not there yet
    the rest  media of runs, likewise; what is derived is made again

What the copy does not name any more is removed at last, so a backup that was interrupted is the one before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import CacheError, Damaged, NothingCached, UsageError
from ...files import replacing, sync
from .. import catalog, schema, seal
from ..disk import os_errors
from ..stamps import Segment, difference, note, stamp_of
from ..store import Cache
from ..usage import DAILY, MEDIA

DAY = 86_400.0
TRIES = 5  # at segments that are merged and swept meanwhile


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup did."""

    segments: int  # that it has now
    added: int
    removed: int
    bytes: int  # added


def copy_catalog(cache: Cache, to: Path) -> None:
    """Copy the catalog as it stands at one moment, durably, in the place of what is at `to`."""
    with (
        catalog.translated(cache.folder),
        os_errors(to.parent),
        replacing(to, private=True, durable=True) as beside,
        contextlib.closing(sqlite3.connect(beside)) as copy,
    ):
        cache.con.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")


def due(cache: Cache, now: float) -> bool:
    """Whether the copy of the catalog in the cache is a day old, or there is none."""
    try:
        return not 0 <= now - (cache.folder / DAILY).stat().st_mtime < DAY
    except FileNotFoundError:
        return not cache.frozen


def daily(cache: Cache) -> None:
    """Keep a copy of the catalog in the cache."""
    seal.ensure(cache.catalog)
    copy_catalog(cache, cache.folder / DAILY)


def sound_copy(path: Path) -> bool:
    """Whether there is a copy of a catalog that is sound, and of this version."""
    if not path.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as con:
            return con.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION and not seal.examine(con)
    except sqlite3.Error:
        return False


def segments_in(path: Path) -> list[Segment]:
    """The segments that a copy of a catalog names. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as con:
        rows = con.execute("SELECT file, bytes, digest, stamp FROM segments WHERE removed_at IS NULL").fetchall()
    return [Segment(*row) for row in rows]


def backup(cache: Cache, to: Path) -> Backup:
    """Bring a backup of a cache up to date, from nothing too. Safe beside whoever writes; raises as any reader does."""
    to = to.expanduser().absolute()
    if to == cache.folder or cache.folder in to.parents:
        raise UsageError(f"{to} lies in the cache itself")
    if to.exists() and any(to.iterdir()) and not (to / "catalog.sqlite").exists() and not (to / "history").is_dir():
        raise UsageError(f"{to} is no backup, and not empty", hint="name a new folder")
    for _ in range(TRIES):
        with contextlib.suppress(FileNotFoundError):  # a segment was merged and swept since the catalog was copied
            return _backup(cache, to)
    raise CacheError(f"a segment of the cache {cache.folder} is gone", hint="`wandbsync cache repair` first")


def _backup(cache: Cache, to: Path) -> Backup:
    (to / "history").mkdir(mode=0o700, parents=True, exist_ok=True)
    copy_catalog(cache, to / "catalog.sqlite.new")
    held = segments_in(to / "catalog.sqlite.new")
    added = size = 0
    stamps = {}
    for one in held:
        source, place = cache.segment_path(one.file), to / "history" / one.file
        if place.exists() and place.stat().st_size == one.bytes:
            continue
        place.parent.mkdir(mode=0o700, exist_ok=True)
        before = stamp_of(source)
        _link(source, place)
        if one.stamp != before:  # not checked since it changed
            why = difference(place, one)
            if why is not None:
                place.unlink()
                raise CacheError(f"the segment {source} is damaged: {why}", hint="`wandbsync cache repair` first")
        stamps[one.file] = stamp_of(source)  # a link moves the stamp
        added, size = added + 1, size + one.bytes
    note(cache, stamps)
    _link_all(cache.folder / MEDIA, to / MEDIA)
    (to / "catalog.sqlite.new").replace(to / "catalog.sqlite")
    for suffix in ("-wal", "-shm", ".seal"):
        (to / f"catalog.sqlite{suffix}").unlink(missing_ok=True)
    seal.put(to / "catalog.sqlite")
    sync(to)
    wanted, removed = {one.file for one in held}, 0
    for path in (to / "history").rglob("*"):
        if path.is_file() and path.relative_to(to / "history").as_posix() not in wanted:
            path.unlink()
            removed += 1
    return Backup(len(held), added, removed, size)


def _link(source: Path, to: Path) -> None:
    """A second name for a file that never changes, or a copy where that cannot be."""
    beside = to.with_name(f".{to.name}.part")
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, beside)
        sync(beside)
    beside.replace(to)
    beside.unlink(missing_ok=True)  # of two names of one file, `replace` leaves both


def _link_all(source: Path, to: Path) -> None:
    for path in source.rglob("*"):
        place = to / path.relative_to(source)
        if path.is_file() and not path.is_symlink() and not place.exists():
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                _link(path, place)


def settle_in(folder: Path, held: Sequence[Segment]) -> None:
    """Make a catalog that was copied into a folder the one of a cache; `held` are its segments, checked there."""
    with Cache(folder) as cache:
        with catalog.translated(folder):
            catalog.choose_journal(cache.con, cache.catalog)
            with catalog.transaction(cache.con):
                cache.con.execute("DELETE FROM segments WHERE removed_at IS NOT NULL")
        note(cache, {one.file: stamp_of(cache.segment_path(one.file)) for one in held})


def restore(source: Path, to: Path) -> Backup:
    """Make a cache of a backup, where there is none. Each segment is compared with its checksum on the way.

    Raises UsageError if there is a cache, NothingCached if there is no backup, and CacheError if it is damaged.
    """
    source, to = source.expanduser().absolute(), to.expanduser().absolute()
    if not (source / "catalog.sqlite").exists():
        raise NothingCached(f"{source} is no backup", hint="`wandbsync cache backup DIR` makes one")
    if (to / "catalog.sqlite").exists():
        raise UsageError(f"there is a cache in {to}", hint="move it aside, or choose another --cache-dir")
    with os_errors(to):
        (to / "history").mkdir(mode=0o700, parents=True, exist_ok=True)
        with catalog.translated(source):
            held = segments_in(source / "catalog.sqlite")
        size = 0
        for one in held:
            place = to / "history" / one.file
            place.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(source / "history" / one.file, place)
            if why := difference(place, one):
                place.unlink()
                raise CacheError(f"the backup {source} is damaged: {one.file}: {why}", hint="try another backup")
            size += one.bytes
        if (source / MEDIA).is_dir():
            shutil.copytree(source / MEDIA, to / MEDIA, dirs_exist_ok=True)
        beside = to / "catalog.sqlite.part"
        shutil.copyfile(source / "catalog.sqlite", beside)
        sync(beside)
        beside.replace(to / "catalog.sqlite")
        sync(to)
    try:
        settle_in(to, held)
    except Damaged as error:
        (to / "catalog.sqlite").unlink()
        raise CacheError(f"the backup {source} is damaged: {error}", hint="try another backup") from error
    return Backup(len(held), len(held), 0, size)
