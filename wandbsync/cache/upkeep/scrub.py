"""Scrub: read what nobody asked for, so that a bit that rots on the disk is found while its source still has the rows.

A slice at a time, the segments that were not checked for longest, from the disk and not from memory; once in a week
each. The catalog once a day, before its daily copy is made.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from ...errors import Damaged
from .. import catalog, seal
from ..disk import os_errors
from ..stamps import Segment, check, note, stamp_of
from ..store import Cache
from . import backup

WEEK = 7 * 86_400.0
SLICE = 64 << 20  # bytes at a time, at least


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What a slice found."""

    segments: int
    bytes: int
    damage: tuple[str, ...] = ()


def scrub(cache: Cache, *, now: float, every: float = WEEK, pause: float = 600.0) -> ScrubReport:
    """Check the next slice; as large as it takes for all to have their turn in `every` seconds, one each `pause`."""
    with catalog.translated(cache.folder), os_errors(cache.folder):
        total = cache.con.execute("SELECT coalesce(sum(bytes), 0) FROM segments WHERE removed_at IS NULL").fetchone()[0]
        rows = cache.con.execute(
            "SELECT file, bytes, digest, stamp FROM segments WHERE removed_at IS NULL "
            "AND coalesce(checked_at, 0) NOT BETWEEN ? AND ? ORDER BY coalesce(checked_at, 0)",
            (now - every, now),
        ).fetchall()
        most, done = max(SLICE, int(2 * total * pause / every)), 0
        sound: dict[str, str] = {}
        damage = []
        for row in rows:
            if done >= most:
                break
            one, path = Segment(*row), cache.segment_path(row["file"])
            done += one.bytes
            with contextlib.suppress(FileNotFoundError):  # merged and swept meanwhile
                stamp = stamp_of(path)
                _forget(path)
                try:
                    check(cache, one)
                    sound[one.file] = stamp
                except Damaged as error:
                    damage.append(error.line())
        note(cache, sound)
        if backup.due(cache, now):
            try:
                seal.refuse(cache.catalog, seal.examined(cache.catalog))
                backup.daily(cache)
            except Damaged as error:
                damage.append(error.line())
    return ScrubReport(len(sound), done, tuple(damage))


def _forget(path: Path) -> None:
    """Let the system read a file from the disk, not from memory."""
    if hasattr(os, "posix_fadvise"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
