"""A segment on the disk: written beside, made durable, then named in the catalog inside the commit's transaction."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..errors import CacheError, NoRoom, WandbsyncError
from . import catalog

if TYPE_CHECKING:
    from . import segments
    from .store import Cache

GONE = "`wandbsync cache verify` tells more; `wandbsync sync --full` reads what it held anew"


@contextmanager
def os_errors(folder: Path) -> Iterator[None]:
    """The disk's errors as ours."""
    try:
        yield
    except WandbsyncError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom(f"no room left in the cache {folder}") from error
        if isinstance(error, FileNotFoundError):
            raise CacheError(f"a file of the cache is gone: {error}", hint=GONE) from error
        raise CacheError(
            f"cannot use the cache {folder}: {error.strerror or error}",
            hint="check the permissions, or choose another --cache-dir",
        ) from error


@dataclass(frozen=True, slots=True)
class NewSegment:
    """A segment on the disk that the catalog does not name yet."""

    number: int
    path: Path
    file: str
    level: int
    bytes: int
    digest: str

    def name(self, con: sqlite3.Connection, counts: Mapping[int, int]) -> None:
        """Name it in the catalog, inside a transaction; `counts` has the rows of each stream in it.

        Raises FileNotFoundError if gc took it for an orphan, as when this process slept for long.
        """
        self.path.stat()
        con.execute(
            "INSERT INTO segments (segment, file, level, count, bytes, digest, created_at) VALUES (?,?,?,?,?,?,?)",
            (self.number, self.file, self.level, sum(counts.values()), self.bytes, self.digest, time.time()),
        )
        con.executemany(
            "INSERT INTO segment_streams (segment, stream, count) VALUES (?, ?, ?)",
            [(self.number, stream, count) for stream, count in counts.items()],
        )


def write_segment(cache: Cache, level: int, blocks: Iterable[segments.Block]) -> NewSegment | None:
    """Write a segment under a name that was never used before, durable, not yet named in the catalog.

    None if the blocks hold no row.
    """
    import secrets

    from . import segments

    number = catalog.reserve(cache.con, 1)
    file = f"L{level}/{number:08d}-{secrets.token_hex(3)}.parquet"
    path, beside = cache.segment_path(file), cache.folder / "tmp" / file.replace("/", "-")
    for folder in (path.parent, beside.parent):
        if not folder.is_dir():
            files.private_folder(folder)
            files.sync(folder.parent)
            files.sync(cache.folder)
    try:
        if not segments.write(beside, blocks):
            beside.unlink()
            return None
        size, digest = segments.digest(beside)
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    files.sync(path.parent)
    return NewSegment(number, path, file, level, size, digest)
