"""The catalog: one small SQLite file that says what exists.

What the catalog does not name does not exist. A segment counts from the transaction that names it, a run's rows are
those of its streams in its present generation, and `revision` is the number of the last commit to a run, so that of two
writers who read on top of the same revision one finds out and plans again. WAL mode: readers never wait for the writer.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CacheBusy, CacheError, NewerCache, NoRoom
from .frozen import freeze, obstacle

VERSION = 1  # PRAGMA user_version; a change to SCHEMA adds a migration and counts this up
BUSY_SECONDS = 10.0
# The order in which segments are read: a merge takes the oldest of a level, what is on a higher one was logged earlier.
OLDEST_FIRST = "level DESC, segment"

SCHEMA = """
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('commits', 0), ('checks', 0), ('numbers', 0);

CREATE TABLE projects (
  entity TEXT NOT NULL, project TEXT NOT NULL, description TEXT, created_at REAL, url TEXT, source TEXT,
  PRIMARY KEY (entity, project)
) WITHOUT ROWID;

CREATE TABLE runs (
  run INTEGER PRIMARY KEY, entity TEXT NOT NULL, project TEXT NOT NULL, run_id TEXT NOT NULL,
  display_name TEXT, state TEXT NOT NULL, created_at REAL, heartbeat_at REAL, runtime REAL, exit_code INTEGER,
  tags TEXT NOT NULL DEFAULT '[]', notes TEXT, run_group TEXT, job_type TEXT, sweep_id TEXT, host TEXT, url TEXT,
  sdk_version TEXT, forked_from TEXT, source TEXT NOT NULL, incomplete TEXT,
  rows INTEGER NOT NULL DEFAULT 0, last_step INTEGER,
  generation INTEGER NOT NULL, revision INTEGER NOT NULL, deleted_at REAL,
  config TEXT NOT NULL DEFAULT '{}', summary TEXT NOT NULL DEFAULT '{}', metadata TEXT NOT NULL DEFAULT '{}',
  UNIQUE (entity, project, run_id)
);
CREATE INDEX runs_by_age ON runs (entity, project, created_at DESC);
CREATE INDEX runs_by_revision ON runs (revision, generation, entity, project, run_id);
-- Apart from `runs`, so that a sync that finds nothing new touches little.
CREATE TABLE checks (run INTEGER PRIMARY KEY, synced_at REAL NOT NULL);

CREATE TABLE streams (
  stream INTEGER PRIMARY KEY, run INTEGER NOT NULL, generation INTEGER NOT NULL, name TEXT NOT NULL,
  rows INTEGER NOT NULL, count INTEGER NOT NULL, UNIQUE (run, generation, name)
);
CREATE TABLE segments (
  segment INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, level INTEGER NOT NULL, count INTEGER NOT NULL,
  bytes INTEGER NOT NULL, digest TEXT NOT NULL, created_at REAL NOT NULL, removed_at REAL
);
CREATE TABLE segment_streams (
  stream INTEGER NOT NULL, segment INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (stream, segment)
) WITHOUT ROWID;
CREATE INDEX streams_by_segment ON segment_streams (segment);

CREATE TABLE metrics (
  stream INTEGER NOT NULL, key TEXT NOT NULL, path TEXT, kinds INTEGER NOT NULL, count INTEGER NOT NULL,
  nulls INTEGER NOT NULL, nans INTEGER NOT NULL, infinities INTEGER NOT NULL, numbers INTEGER NOT NULL,
  min REAL, max REAL, mean REAL, rest REAL, deviation REAL, first_step INTEGER, last_step INTEGER,
  first_value REAL, first_kind INTEGER, first_json TEXT, last_value REAL, last_kind INTEGER, last_json TEXT,
  PRIMARY KEY (stream, key)
) WITHOUT ROWID;

CREATE TABLE files (
  run INTEGER NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, updated_at REAL, mimetype TEXT, md5 TEXT,
  local_path TEXT, PRIMARY KEY (run, name)
) WITHOUT ROWID;

-- Where each `.wandb` log has been read to; `state` is the local source's own.
CREATE TABLE logs (
  path TEXT PRIMARY KEY, run INTEGER, log_key TEXT NOT NULL, signature TEXT NOT NULL, position TEXT NOT NULL,
  started_at REAL, rewinds_to INTEGER, status TEXT NOT NULL, state TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX logs_by_run ON logs (run);
-- How far each run has been mirrored from a server: what was listed when it was last described, and when its rows were
-- fetched; `state` is the server source's own.
CREATE TABLE mirrors (
  run INTEGER PRIMARY KEY, described TEXT, fetched TEXT, state TEXT NOT NULL, failures INTEGER NOT NULL, retry_at REAL,
  reason TEXT, tried TEXT, owed INTEGER NOT NULL
);
-- What could not be read, and why; gone as soon as it can.
CREATE TABLE problems (
  subject TEXT PRIMARY KEY, reason TEXT NOT NULL, signature TEXT, first_at REAL NOT NULL, last_at REAL NOT NULL,
  attempts INTEGER NOT NULL
) WITHOUT ROWID;
-- The places that were synced: a folder, a project on a server ...
CREATE TABLE sources (kind TEXT NOT NULL, location TEXT NOT NULL, synced_at REAL NOT NULL, PRIMARY KEY (kind, location))
  WITHOUT ROWID;
"""


@contextmanager
def translated(what: Path) -> Iterator[None]:
    """SQLite's errors as ours, at the one boundary where it is called."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise CacheBusy(f"another process keeps the catalog {what} locked") from error
        why = obstacle(what) if _cannot_write(error) else None
        if "full" in text or why == "full":
            raise NoRoom(f"no room left to write {what}") from error
        if "readonly" in text or "unable to open" in text or why:
            raise CacheError(
                f"cannot write {what}: {text}", hint="check the permissions, or choose another --cache-dir"
            ) from error
        raise CacheError(f"the catalog {what} failed: {text}", hint="`wandbsync cache verify` tells more") from error
    except sqlite3.DatabaseError as error:
        raise CacheError(
            f"the catalog {what} is damaged: {error}", hint="move the cache aside and sync again"
        ) from error


def _cannot_write(error: sqlite3.OperationalError) -> bool:
    """Whether an error may come of a full disk, or of a folder that must not be written."""
    return any(word in str(error) for word in ("full", "readonly", "unable to open", "disk I/O error"))


def connect(path: Path) -> sqlite3.Connection:
    """Open the catalog, making it if there is none. Raises NewerCache, CacheBusy or CacheError.

    Where nothing can be written it is a Frozen one, as the catalog stands now, of which can only be read.
    """
    with translated(path):
        con = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            try:
                version = _version(con)
            except sqlite3.OperationalError as error:
                if not _cannot_write(error) or not path.exists():
                    raise
                con.close()
                try:
                    con = freeze(path)
                except OSError:
                    raise error from None
                version = _version(con)
            con.row_factory = sqlite3.Row
            if version > VERSION:
                raise NewerCache(f"the cache {path.parent} has schema {version}, this wandbsync knows {VERSION}")
            # NORMAL: a power cut may lose the last commits, as if they had never been; they are read again.
            con.execute("PRAGMA synchronous = NORMAL")
            if version < VERSION:
                _create(con, path)
            con.execute("PRAGMA cache_size = -16000")
            con.execute("PRAGMA temp_store = MEMORY")  # a full disk has no room to sort in
        except BaseException:
            con.close()
            raise
    return con


def _version(con: sqlite3.Connection) -> int:
    return int(con.execute("PRAGMA user_version").fetchone()[0])


def _create(con: sqlite3.Connection, path: Path) -> None:
    # WAL needs memory shared between processes of one machine.
    journal = "DELETE" if on_network(path.parent) else "WAL"
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            con.execute(f"PRAGMA journal_mode = {journal}")
            break
        except sqlite3.OperationalError as error:  # SQLite does not wait here when two processes make one cache
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    with transaction(con):
        if con.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in SCHEMA.split(";\n"):
                if statement.strip():
                    con.execute(statement)
            con.execute(f"PRAGMA user_version = {VERSION}")
    path.chmod(0o600)


def on_network(folder: Path) -> bool:
    """Whether the folder lies on a network file system, as far as the kernel tells (Linux only)."""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return False
    best, kind = "", ""
    place = str(folder.resolve())
    for line in mounts:
        _, point, fstype = line.split(" ")[:3]
        if (place == point or place.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fstype
    return kind.startswith(("nfs", "cifs", "smb", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "9p", "afs"))


@contextmanager
def transaction(con: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, with the writer's lock from the start."""
    con.execute("BEGIN IMMEDIATE")
    try:
        yield
        con.execute("COMMIT")
    except BaseException:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(con: sqlite3.Connection) -> Iterator[None]:
    """Everything read inside is of one moment, whatever others commit meanwhile; snapshots may nest."""
    if con.in_transaction:
        yield
        return
    con.execute("BEGIN")
    try:
        yield
    finally:
        con.execute("COMMIT")


def reserve(con: sqlite3.Connection, count: int) -> int:
    """The first of `count` numbers that nobody else has or will get."""
    with transaction(con):
        return _advance(con, "numbers", count) - count + 1


def count_commit(con: sqlite3.Connection) -> int:
    """Number a commit; call it inside its transaction."""
    return _advance(con, "commits", 1)


def count_checks(con: sqlite3.Connection) -> None:
    """Number a note that runs are up to date; call it inside its transaction."""
    _advance(con, "checks", 1)


def version(con: sqlite3.Connection) -> tuple[int, int]:
    """How many commits and checks there were: moves with everything that the catalog tells of runs."""
    counters = dict(map(tuple, con.execute("SELECT name, value FROM counters")))
    return counters["commits"], counters["checks"]


def _advance(con: sqlite3.Connection, counter: str, by: int) -> int:
    con.execute("UPDATE counters SET value = value + ? WHERE name = ?", (by, counter))
    return int(con.execute("SELECT value FROM counters WHERE name = ?", (counter,)).fetchone()[0])


def dump(value: Any) -> str:
    """Compact JSON; NaN and infinities as W&B writes them, as strings; half a surrogate pair escaped, as it came."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except ValueError:  # of which UnicodeEncodeError is one
        text = json.dumps(plain(value), separators=(",", ":"))
    return text


def plain(value: Any) -> Any:
    """The value with NaN and infinities as the strings "NaN", "Infinity", "-Infinity", as W&B's server sends them."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
