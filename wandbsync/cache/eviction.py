"""Rows removed to save space. The run stays, with all that is known of it, and says that they are missing.

    evict    the run's rows go from the catalog in one transaction; segments that held nothing else are to be removed
    rewrite  a segment without the rows that nobody needs any more, in the place of the old one

The streams of an evicted run get new numbers, and their statistics go on under these. What lies in segments under the
old numbers is dead for everybody, with whatever it may be merged.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..model import RunRef
from . import catalog
from .disk import os_errors, write_segment
from .metrics import forget_streams, release
from .stamps import checked, named
from .tenants import tenants_of

if TYPE_CHECKING:
    from .store import Cache

# Joined to `runs r`: whose rows were removed, and have not come again.
EVICTED = "JOIN evictions e ON e.run = r.run AND e.generation = r.generation"
LOST = "its rows were removed to save space, and no server has all of them"


def missing(ref: RunRef) -> str:
    """Why the rows of an evicted run are not here."""
    return f"its rows were removed to save space; `wandbsync sync {ref}` fetches them again"


def absence(cache: Cache, ref: RunRef) -> str | None:
    """Why a run's rows are not here, if they were removed to save space and have not come again."""
    found = cache.con.execute(
        f"SELECT incomplete FROM runs r {EVICTED} WHERE entity = ? AND project = ? AND run_id = ?",
        (ref.entity, ref.project, ref.run_id),
    ).fetchone()
    return found[0] if found else None


def evict(cache: Cache, ref: RunRef, revision: int, *, elsewhere: bool) -> bool:
    """Remove a run's rows; `elsewhere`: its server still has them. False if another process changed the run."""
    con = cache.con
    with catalog.translated(cache.folder), catalog.transaction(con):
        row = con.execute(
            "SELECT run, generation FROM runs WHERE entity = ? AND project = ? AND run_id = ? AND revision = ?",
            (ref.entity, ref.project, ref.run_id, revision),
        ).fetchone()
        if row is None:
            return False
        run, generation = row
        version = catalog.count_commit(con)
        forget_streams(con, run, keep=generation)
        streams = [one for (one,) in con.execute("SELECT stream FROM streams WHERE run = ?", (run,))]
        first = catalog.take_numbers(con, len(streams))
        release(con, streams)
        for new, old in enumerate(streams, first):
            for table in ("metrics", "streams"):
                con.execute(f"UPDATE {table} SET stream = ? WHERE stream = ?", (new, old))
        con.execute("INSERT OR REPLACE INTO evictions VALUES (?, ?)", (run, generation))
        con.execute(
            "UPDATE runs SET incomplete = ?, revision = ? WHERE run = ?",
            (missing(ref) if elsewhere else LOST, version, run),
        )
    return True


def rewrite(cache: Cache, segment: int) -> int:
    """Write a segment anew without its dead rows; the bytes saved, 0 if another process was first.

    It keeps its number, and so its place among those that hold rows of the same runs.
    """
    from . import segments

    con = cache.con
    with catalog.translated(cache.folder), os_errors(cache.folder):
        with catalog.snapshot(con):
            old = con.execute("SELECT * FROM segments WHERE segment = ? AND removed_at IS NULL", (segment,)).fetchone()
            counts = dict(
                map(tuple, con.execute("SELECT stream, count FROM segment_streams WHERE segment = ?", (segment,)))
            )
            tenants = tenants_of(cache, counts, segment)
        if old is None:
            return 0
        try:
            paths = checked(cache, named(cache, "segments WHERE segment = ? AND removed_at IS NULL", (segment,)))
            new = write_segment(cache, old["level"], segments.merged(paths, list(counts)), tenants)
        except FileNotFoundError:  # merged and swept meanwhile; if not, verify tells
            return 0
        if new is None:
            return 0
        try:
            with catalog.transaction(con):
                there = con.execute("SELECT file, removed_at FROM segments WHERE segment = ?", (segment,)).fetchone()
                if there is None or tuple(there) != (old["file"], None):
                    raise _Overtaken
                now = time.time()
                cache.in_place()
                new.path.stat()  # gc may have taken it for an orphan, if this process slept for long
                con.execute(
                    "UPDATE segments SET file = ?, count = ?, bytes = ?, digest = ?, created_at = ?, stamp = ?, "
                    "checked_at = ? WHERE segment = ?",
                    (new.file, sum(counts.values()), new.bytes, new.digest, now, new.stamp, now, segment),
                )
                con.execute(
                    "INSERT INTO segments (segment, file, level, count, bytes, digest, created_at, removed_at, stamp) "
                    "VALUES (?,?,?,?,?,?,?,?,?)",
                    (new.number, *tuple(old)[1:7], now, old["stamp"]),
                )
                catalog.count_commit(con)
        except Exception as error:
            new.path.unlink(missing_ok=True)
            if isinstance(error, _Overtaken):
                return 0
            raise
    return int(old["bytes"]) - new.bytes


class _Overtaken(Exception):
    """A signal within `rewrite`, not an error."""
