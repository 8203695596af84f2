"""The seal of the catalog: what its files looked like when a process of ours let go of them.

    open      as sealed: it is used as it is, for two `stat`s. Else it is examined before anything is read from it
    write     under the seal's lock: it was as sealed before, so it is sealed again as it is now
    killed    between a write and its seal: the next to open it examines it, which takes a second for 10,000 runs

Examining needs no second copy of the truth: every value of the catalog stands twice in it, in its table and in an
index (`schema.twice`), and `PRAGMA integrity_check` compares the two, besides the structure of the file.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import Damaged
from . import schema

PATIENCE, CLOSING = 10.0, 0.05  # seconds that a writer waits for another to seal, and who just closes
WIDTH = 200  # bytes of a seal
REPAIR = "`wandbsync cache repair` makes it anew from its last copy, the segments and their sources"
SHOWN = 3  # faults that an error names


def ensure(path: Path, con: sqlite3.Connection | None = None) -> None:
    """See to it that a catalog is as the last of us left it, or sound all the same. Raises Damaged or sqlite3.Error.

    `con` is a copy in memory, of a catalog that cannot be opened where it is.
    """
    if holds(path):
        return
    now = _files(path)
    refuse(path, examined(path) if con is None else examine(con))
    with _locked(path, 0.0) as handle:
        if handle is not None and _files(path) == now:
            _write(handle, now)


@contextlib.contextmanager
def changing(path: Path, *, closing: bool = False) -> Iterator[None]:
    """Change a catalog's files and seal them as they are then. Raises Damaged if they were not as sealed, nor sound.

    `closing`: hardly wait, and examine nothing.
    """
    with _locked(path, CLOSING if closing else PATIENCE) as handle:
        if handle is None:
            yield
            return
        sound = _read(handle) == _files(path)
        if not sound and not closing:
            refuse(path, examined(path))
            sound = True
        yield
        if sound:
            _write(handle, _files(path))


def examined(path: Path) -> list[str]:
    """What is wrong with a catalog on the disk: another connection's memory may hold what was there before."""
    with contextlib.closing(sqlite3.connect(path)) as fresh:
        return examine(fresh)


def refuse(path: Path, faults: Sequence[str]) -> None:
    """Raise Damaged if there are faults."""
    if faults:
        more = f" and {len(faults) - SHOWN} more faults" if len(faults) > SHOWN else ""
        raise Damaged(
            f"the catalog {path} is damaged: {'; '.join(faults[:SHOWN])}{more}",
            hint=REPAIR,
        )


def examine(con: sqlite3.Connection) -> list[str]:
    """What is wrong with a catalog; nothing if it is sound."""
    schema.register(con)
    try:
        faults = [str(row[0]) for row in con.execute("PRAGMA integrity_check") if row[0] != "ok"]
        if not faults and schema.shape(con) != _shape():
            faults = ["its schema is not that of its version"]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter of names that are damaged
        if isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "unable to open" in str(error)):
            raise
        return [str(error)]
    return faults


@functools.cache
def _shape() -> list[tuple[str, ...]]:
    """What a new catalog is like, and so each of this version."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as con:
        schema.register(con)
        for version in range(1, schema.VERSION + 1):
            for statement in schema.statements(version):
                con.execute(statement)
        for statement in list(schema.twice(con)):
            con.execute(statement)
        return schema.shape(con)


# -- the seal itself


def holds(path: Path) -> bool:
    """Whether a file is as it was sealed, or being changed just now by who has the lock."""
    try:
        handle = os.open(_place(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _read(handle) == _files(path) or not _try_lock(handle, shared=True) or _read(handle) == _files(path)
    finally:
        os.close(handle)


def put(path: Path) -> None:
    """Seal a file as it is."""
    with _locked(path, CLOSING) as handle:
        if handle is not None:
            _write(handle, _files(path))


def path_of(con: sqlite3.Connection) -> Path | None:
    """The file of a connection; None if it is in memory."""
    name = con.execute("PRAGMA database_list").fetchone()[2]
    return Path(name) if name else None


def _place(path: Path) -> Path:
    return path.with_name(f"{path.name}.seal")


def _files(path: Path) -> str:
    """What moves when the catalog changes: of the database and of its log, which may be none.

    Whoever opens the log as root changes its owner, to what it is: that moves its ctime, which does not count.
    """
    database, log = _stat(path), _stat(path.with_name(f"{path.name}-wal"))
    parts = [_mark(database), str(database.st_ctime_ns) if database else "-", _mark(log)]
    return "|".join(parts)


def _mark(status: os.stat_result | None) -> str:
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}" if status is not None and status.st_size else "-"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _read(handle: int) -> str:
    return os.pread(handle, WIDTH, 0).decode(errors="replace").strip()


def _write(handle: int, seal: str) -> None:
    with contextlib.suppress(OSError):  # a full disk: it is examined the next time
        os.pwrite(handle, seal.ljust(WIDTH).encode(), 0)


def _try_lock(handle: int, *, shared: bool = False) -> bool:
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path, patience: float) -> Iterator[int | None]:
    """The handle of the seal, locked; None if it cannot be: then nothing is sealed."""
    try:
        handle = os.open(_place(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield None
        return
    try:
        deadline = time.monotonic() + patience
        while not (got := _try_lock(handle)) and time.monotonic() < deadline:
            time.sleep(0.001)
        yield handle if got else None
    finally:
        os.close(handle)
