"""A segment on the disk: written beside, made durable, then named in the catalog inside the commit's transaction."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..errors import CacheError, NoRoom, WandbsyncError
from . import catalog, stamps
from .tenants import Tenant, dump_tenants

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
    stamp: str

    def name(self, cache: Cache, counts: Mapping[int, int]) -> None:
        """Name it in the catalog, inside a transaction; `counts` has the rows of each stream in it.

        Raises CacheError if the catalog was moved away from its folder meanwhile, which would name a segment that is
        elsewhere, and FileNotFoundError if gc took it for an orphan, as when this process slept for long.
        """
        cache.in_place()
        self.path.stat()
        con, now = cache.con, time.time()
        con.execute(
            "INSERT INTO segments (segment, file, level, count, bytes, digest, created_at, stamp, checked_at) "
            "VALUES (?,?,?,?,?,?,?,?,?)",
            (
                self.number,
                self.file,
                self.level,
                sum(counts.values()),
                self.bytes,
                self.digest,
                now,
                self.stamp,
                now,
            ),
        )
        con.executemany(
            "INSERT INTO segment_streams (segment, stream, count) VALUES (?, ?, ?)",
            [(self.number, stream, count) for stream, count in counts.items()],
        )


def write_segment(
    cache: Cache, level: int, blocks: Iterable[segments.Block], tenants: Mapping[int, Tenant]
) -> NewSegment | None:
    """Write a segment under a name that was never used before, durable, not yet named in the catalog.

    It says of itself whose the rows are, and its name ends with its checksum, so that it can be understood and trusted
    without a catalog (`upkeep.rebuild`). None if the blocks hold no row.
    """
    import secrets

    from . import segments

    number = catalog.reserve(cache.con, 1)
    beside = cache.folder / "tmp" / f"L{level}-{number:08d}-{secrets.token_hex(3)}.parquet"
    place = cache.segment_path(f"L{level}")
    for folder in (place.parent, place, beside.parent):
        if not folder.is_dir():  # the cache itself is not made: if it is gone, it was moved
            folder.mkdir(mode=files.PRIVATE_FOLDER, exist_ok=True)
            files.sync(folder.parent)
    try:
        if not segments.write(beside, blocks, dump_tenants(tenants)):
            beside.unlink()
            return None
        size, digest = stamps.digest(beside)
        file = f"L{level}/{number:08d}-{digest.removeprefix('crc32:')}.parquet"
        path = cache.segment_path(file)
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    files.sync(path.parent)
    return NewSegment(number, path, file, level, size, digest, stamps.stamp_of(path))
