"""A catalog that cannot be opened as usual is read all the same: on a full disk, in a folder that must not be written.

SQLite in WAL mode writes two files beside a database even to read it. Where they cannot be made, what the catalog
says now is copied into memory, and that is asked instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import CacheBusy

ROOM = 64 << 10  # bytes: what SQLite needs to read, and a little more


class Frozen(sqlite3.Connection):
    """A catalog as it was at one moment, in memory."""

    taken_at = 0.0  # by time.monotonic()


def obstacle(folder: Path) -> str | None:
    """Why nothing can be written there: "full" or "readonly"; None if something can."""
    import tempfile

    place = next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
    try:
        handle, path = tempfile.mkstemp(prefix=".room-", dir=place)
    except OSError as error:
        return _word(error)
    try:
        Path(path).unlink()  # it has its room without a name, and whoever is killed here leaves nothing behind
        written = os.write(handle, bytes(ROOM))
        return None if written == ROOM else "full"
    except OSError as error:
        return _word(error)
    finally:
        os.close(handle)


def _word(error: OSError) -> str | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "full"
    return "readonly" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else None


def freeze(path: Path) -> Frozen:
    """Copy a catalog into memory. Raises sqlite3.Error or OSError if that cannot be, CacheBusy if it keeps changing."""
    for _ in range(5):
        before = _stamps(path)
        frozen = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=Frozen)
        try:
            with _source(path) as source:
                source.backup(frozen)
            if _stamps(path) == before:
                frozen.execute("PRAGMA query_only = 1")
                frozen.taken_at = time.monotonic()
                return frozen
        except BaseException:
            frozen.close()
            raise
        frozen.close()
    raise CacheBusy(f"another process keeps writing to the catalog {path}")


@contextlib.contextmanager
def _source(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a catalog that needs to write nothing beside it.

    Without a log of commits beside it the file is all there is. Else both are copied to where a database can be opened.
    """
    if not _stamp(_beside(path, "-wal"))[1]:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as con:
            yield con
        return
    import shutil

    with _elsewhere() as folder:
        for suffix in ("", "-wal"):
            shutil.copyfile(_beside(path, suffix), folder / f"catalog{suffix}")
        with contextlib.closing(sqlite3.connect(folder / "catalog")) as con:
            yield con


@contextlib.contextmanager
def _elsewhere() -> Iterator[Path]:
    """A folder for a copy of a few megabytes, in memory if the system has such."""
    import tempfile

    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def _stamps(path: Path) -> list[tuple[int, int, int]]:
    """What changes when somebody commits to a catalog.

    Raises sqlite3.OperationalError if what a crash has left half done is to be undone first: a catalog on a network
    disk has a journal for that, and it takes a writer.
    """
    if _stamp(_beside(path, "-journal"))[1]:
        raise sqlite3.OperationalError("unable to open database file: a crash has left its journal")
    return [_stamp(path), _stamp(_beside(path, "-wal"))]


def _stamp(path: Path) -> tuple[int, int, int]:
    """Inode, size and time of a file, zeros if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
