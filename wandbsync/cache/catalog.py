"""The catalog: one small SQLite file that says what exists.

What the catalog does not name does not exist. A segment counts from the transaction that names it, a run's rows are
those of its streams in its present generation, and `revision` is the number of the last commit to a run, so that of two
writers who read on top of the same revision one finds out and plans again. WAL mode: readers never wait for the writer.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from .. import files
from ..errors import CacheBusy, CacheError, Damaged, NewerCache, NoRoom
from ..model import FIELDS, GOING_ON
from . import schema, seal
from .frozen import Frozen, freeze, obstacle
from .migration import upgrade, version_of
from .schema import VERSION

BUSY_SECONDS = 10.0
LOG = 4 << 20  # bytes of the log of commits that are worth a checkpoint
# The order in which segments are read: a merge takes the oldest of a level, what is on a higher one was logged earlier.
OLDEST_FIRST = "level DESC, segment"
RUN = ", ".join(f'{one.shown} AS "{one.name}"' for one in FIELDS)  # of `runs` and `checks`, as people see a run
GOES_ON = f"runs.state IN ({', '.join(map(repr, GOING_ON))})"  # of a run, as its source tells


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
        raise Damaged(f"the catalog {what} is damaged: {error}", hint=seal.REPAIR) from error


def _cannot_write(error: sqlite3.OperationalError) -> bool:
    """Whether an error may come of a full disk, or of a folder that must not be written."""
    return any(word in str(error) for word in ("full", "readonly", "unable to open", "disk I/O error"))


def connect(path: Path) -> sqlite3.Connection:
    """Open the catalog, making it if there is none. Raises NewerCache, CacheBusy or CacheError.

    Where nothing can be written it is a Frozen one, as the catalog stands now, of which can only be read.
    """
    with translated(path):
        if not path.exists():  # what SQLite puts beside it has its mode
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, files.PRIVATE))
        con = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            try:
                # NORMAL: a power cut may lose the last commits, as if they had never been; they are read again.
                con.execute("PRAGMA synchronous = NORMAL")
                con.execute("PRAGMA wal_autocheckpoint = 0")  # `transaction` does it, under the seal
                _bring_up(con, path)
                seal.ensure(path)
            except sqlite3.OperationalError as error:
                if not _cannot_write(error) or not path.exists():
                    raise
                con.close()
                try:
                    con = freeze(path)
                except OSError:
                    raise error from None
                if not version_of(con):
                    raise
                _bring_up(con, path)
                seal.ensure(path, con)
            schema.register(con)
            con.row_factory = sqlite3.Row
            con.execute("PRAGMA cache_size = -16000")
            con.execute("PRAGMA journal_size_limit = 4000000")  # a long commit's log would keep its size for ever
            con.execute("PRAGMA temp_store = MEMORY")  # a full disk has no room to sort in
        except UnicodeDecodeError as error:  # of names that are damaged, which SQLite tells as they are
            close(con)
            raise Damaged(f"the catalog {path} is damaged: {error}", hint=seal.REPAIR) from error
        except BaseException:
            close(con)
            raise
    return con


def close(con: sqlite3.Connection) -> None:
    """Close a catalog. The last to do so moves what was committed into the database."""
    path = None if isinstance(con, Frozen) else seal.path_of(con)
    if path is None or not path.exists():  # it may have been moved
        con.close()
        return
    with seal.changing(path, closing=True):
        con.close()


def _bring_up(con: sqlite3.Connection, path: Path) -> None:
    """See to it that the catalog is of our version. Raises NewerCache or sqlite3.Error."""
    version = version_of(con)
    if version > VERSION:
        raise NewerCache(f"the cache {path.parent} has schema {version}, this wandbsync knows {VERSION}")
    if version == 0:
        choose_journal(con, path)
    if version < VERSION:
        upgrade(con, path)


def choose_journal(con: sqlite3.Connection, path: Path) -> None:
    """How commits are made durable, for a catalog that is new in its place."""
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
    """All of it or nothing, with the writer's lock from the start. Raises Damaged if somebody else changed the file."""
    path = seal.path_of(con)
    if path and not path.exists():
        raise CacheError(f"the catalog {path} was moved while it was written to", hint="try again")
    con.execute("BEGIN IMMEDIATE")
    try:
        with seal.changing(path) if path else nullcontext():
            yield
            con.execute("COMMIT")
    except BaseException:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise
    if path and _size(path.with_name(f"{path.name}-wal")) > LOG:
        checkpoint(con, path)


def checkpoint(con: sqlite3.Connection, path: Path) -> None:
    """Move what was committed into the database, as far as no reader needs it as it was."""
    with seal.changing(path):
        con.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def try_write(con: sqlite3.Connection, work: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> bool:
    """Statements and the rows to run each for, in one transaction, if nobody else writes just now: it waits for none.

    False if nothing was done: a reader that wants to note something goes on without.
    """
    if isinstance(con, Frozen) or con.in_transaction:
        return False
    try:
        con.execute("PRAGMA busy_timeout = 0")
        with transaction(con):
            for statement, rows in work:
                con.executemany(statement, rows)
    except sqlite3.Error:
        return False
    finally:
        con.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    return True


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
        return take_numbers(con, count)


def take_numbers(con: sqlite3.Connection, count: int) -> int:
    """The same; call it inside a transaction."""
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
