"""A segment is checked before its first use since it changed, and that is remembered.

A stamp is what the file system says of a file. It moves with whatever happens to the file through it: another bit, a
copy put in its place, a link. While a segment has the stamp that was noted when it was written or checked last, it is
taken as it is, which costs one `stat`; else its checksum is compared first, whoever reads it, and the new stamp noted.
Bits that rot on the disk move no stamp: the daemon's scrub finds them (`upkeep.scrub`).

Checksums are CRC-32, which finds every flip of a few bits and is 4 times as fast as BLAKE2 (4 GB/s to 0.9).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Damaged
from . import catalog

if TYPE_CHECKING:
    from .store import Cache

NAMED = 3  # runs that an error names


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as the catalog names it."""

    file: str
    bytes: int
    digest: str
    stamp: str | None  # when it was written or checked last; None: in an older version


def stamp_of(path: Path) -> str:
    """What moves when a file changes: inode, size, and the times of its last changes. Raises FileNotFoundError."""
    status = path.stat()
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def digest(path: Path, like: str = "crc32:") -> tuple[int, str]:
    """Size in bytes and checksum of a file; `like` another one, as version 2 had BLAKE2."""
    size, crc, blake = 0, 0, None
    if not like.startswith("crc32:"):
        import hashlib

        blake = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            size += len(chunk)
            if blake is None:
                crc = zlib.crc32(chunk, crc)
            else:
                blake.update(chunk)
    return size, f"crc32:{crc:08x}" if blake is None else blake.hexdigest()


def named(cache: Cache, source: str, parameters: Sequence[object] = ()) -> list[Segment]:
    """The segments `source` (what follows FROM) tells of, in the order in which they are read. Raises sqlite3.Error."""
    rows = cache.con.execute(
        f"SELECT DISTINCT file, bytes, digest, stamp, level, segment FROM {source} ORDER BY {catalog.OLDEST_FIRST}",
        parameters,
    )
    return [Segment(*row[:4]) for row in rows]


def checked(cache: Cache, segments: Sequence[Segment]) -> list[Path]:
    """The files of segments, each as it was written.

    Raises Damaged, and FileNotFoundError if one is gone: list again, it may have been merged.
    """
    paths, found = [], {}
    for one in segments:
        path = cache.segment_path(one.file)
        stamp = stamp_of(path)
        if stamp not in (one.stamp, cache.stamps.get(one.file)):
            check(cache, one)
            found[one.file] = stamp
        paths.append(path)
    if found:
        note(cache, found)
    return paths


def check(cache: Cache, segment: Segment) -> None:
    """Compare a segment's checksum. Raises FileNotFoundError, or Damaged; then the catalog says that it is."""
    why = difference(cache.segment_path(segment.file), segment)
    if why is not None:
        from .losses import lost

        runs = lost(cache, segment.file, why)
        more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
        about = f" of {', '.join(map(str, runs[:NAMED]))}{more}" if runs else ""
        raise Damaged(f"the segment {cache.segment_path(segment.file)}{about} is damaged: {why}")


def difference(path: Path, segment: Segment) -> str | None:
    """How a file differs from the segment that was written; None if it does not. Raises FileNotFoundError."""
    try:
        size, found = digest(path, segment.digest)
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if size != segment.bytes:
        return f"it has {size:,} bytes, {segment.bytes:,} were written"
    return None if found == segment.digest else "its checksum is not that of what was written"


def note(cache: Cache, stamps: dict[str, str]) -> None:
    """Remember that segments with these stamps are as they were written: in the catalog if nobody writes to it now."""
    now = time.time()
    rows = [(stamp, now, file) for file, stamp in stamps.items()]
    if not catalog.try_write(cache.con, [("UPDATE segments SET stamp = ?, checked_at = ? WHERE file = ?", rows)]):
        cache.stamps |= stamps
