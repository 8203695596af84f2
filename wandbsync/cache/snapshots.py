"""Former `wandb.duckdb` files that somebody still has open: the segments they name stay for as long.

A DuckDB client goes on reading the file it opened, whatever is published meanwhile, and holds the kernel's lock on it
until it closes it. So such a file gets a second name when it is replaced:

    CACHE/snapshots/<nanoseconds>.duckdb

A client in the very process that publishes cannot be told from it: `wandbsync.connect()` is for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import files

FOLDER = "snapshots"
LONGEST = 7 * 86_400.0  # seconds; a forgotten notebook does not fill the disk for ever
_READ_BEFORE = 600.0  # seconds that a snapshot may be older than its file: it was written in the meantime


@contextmanager
def outlived(path: Path) -> Iterator[None]:
    """Around the replacement of a published file: it keeps a name if somebody has it open. Best effort."""
    other = path.parent / FOLDER / f"{time.time_ns()}.duckdb"
    with contextlib.suppress(OSError):
        files.private_folder(other.parent)
        other.hardlink_to(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if not _is_open(other):
                other.unlink()


def oldest(folder: Path, *, now: float) -> float | None:
    """From when the oldest snapshot is that somebody has open, in unix seconds; forgets those that nobody has."""
    found = []
    for path in (folder / FOLDER).glob("*.duckdb"):
        with contextlib.suppress(OSError):
            written_at = path.stat().st_mtime
            if now - written_at < LONGEST and _is_open(path):
                found.append(written_at - _READ_BEFORE)
            else:
                path.unlink()
    return min(found, default=None)


def _is_open(path: Path) -> bool:
    """Whether another process reads it."""
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
