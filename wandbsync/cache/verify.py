"""Verify: is the cache what the catalog says it is?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace

from ..model import HISTORY
from . import catalog, seal
from .compaction import orphans
from .disk import os_errors
from .eviction import EVICTED
from .losses import lost
from .metrics import measured, stream_stats
from .stamps import Segment, difference, note, stamp_of
from .stats import Stat, merge
from .store import Cache


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what kind, with which file or run, and how."""

    problem: str  # missing | altered | orphan | count | metrics
    subject: str
    detail: str
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.problem}: {self.subject}: {self.detail}"


def verify(
    cache: Cache, *, quick: bool = False, progress: Callable[[int, int], None] | None = None
) -> Iterator[Finding]:
    """Check the catalog and each segment: there, unaltered, as many rows as it says, metrics as a recompute has them.

    `quick` compares sizes only. An orphan is harmless: gc removes it. Rows that were removed to save space are not
    missed, and what is known of them cannot be recomputed.
    """
    from . import segments

    with catalog.translated(cache.folder), os_errors(cache.folder):
        con = cache.con
        if not quick and not cache.frozen:
            yield from (Finding("altered", cache.catalog.name, fault) for fault in seal.examined(cache.catalog))
        with catalog.snapshot(con):
            listed = con.execute(
                "SELECT * FROM segments WHERE removed_at IS NULL ORDER BY " + catalog.OLDEST_FIRST
            ).fetchall()
            held: dict[int, dict[int, int]] = {}
            for segment, stream, count in con.execute("SELECT segment, stream, count FROM segment_streams"):
                held.setdefault(segment, {})[stream] = count
            streams = con.execute(
                "SELECT s.*, r.entity || '/' || r.project || '/' || r.run_id AS name_of_run, r.rows AS rows_of_run, "
                "s.generation = r.generation AS present, e.run IS NOT NULL AS evicted FROM streams s JOIN runs r "
                f"ON r.run = s.run LEFT {EVICTED}"
            ).fetchall()
            known = {row["stream"]: stream_stats(con, row["stream"]) for row in streams} if not quick else {}
        found: dict[int, dict[str, Stat]] = {}
        sound: dict[str, str] = {}
        unread: set[int] = set()  # streams of which not all rows could be looked at
        for i, row in enumerate(listed):
            if progress:
                progress(i, len(listed))
            path, file, wanted = cache.segment_path(row["file"]), row["file"], held.get(row["segment"], {})
            try:
                if quick:
                    why = None if path.stat().st_size == row["bytes"] else "another size than was written"
                else:
                    stamp = stamp_of(path)
                    why = difference(path, Segment(file, row["bytes"], row["digest"], None))
            except FileNotFoundError:
                unread |= wanted.keys()
                if _is_named(cache, file):  # else it was compacted and swept meanwhile
                    lost(cache, file, "it is gone")
                    yield Finding("missing", file, f"{row['count']:,} rows are gone")
                continue
            if why is not None:
                unread |= wanted.keys()
                lost(cache, file, why)
                yield Finding("altered", file, why)
                continue
            if not quick:
                sound[file] = stamp
            if row["count"] < sum(wanted.values()):  # more: rows of what was replaced since, which are dead
                yield Finding("count", file, f"{row['count']:,} rows, its runs have {sum(wanted.values()):,} there")
            if quick:
                continue
            counts: dict[int, int] = {}
            for table in segments.read(path, streams=list(wanted)):  # others are of a replaced generation: dead
                for stream, stats in measured(segments.to_block(table)).items():
                    counts[stream] = counts.get(stream, 0) + sum(stat.count for stat in stats.values())
                    so_far = found.setdefault(stream, {})
                    so_far.update({key: merge(so_far.get(key, Stat()), stat) for key, stat in stats.items()})
            if counts != wanted:
                total = sum(counts.values())
                yield Finding("count", file, f"{total:,} rows of its runs, the catalog says {sum(wanted.values()):,}")
        if sound:
            note(cache, sound)
        for row in streams:
            subject = f"{row['name_of_run']} ({row['name']})"
            total = sum(counts.get(row["stream"], 0) for counts in held.values())
            if total != row["count"] and not (row["evicted"] and total < row["count"]):
                yield Finding("count", subject, f"segments hold {total:,} rows, the catalog says {row['count']:,}")
            if row["name"] == HISTORY and row["present"] and row["rows"] != row["rows_of_run"]:
                yield Finding("count", subject, f"{row['rows']:,} log calls, the run says {row['rows_of_run']:,}")
            if quick or row["stream"] in unread or row["evicted"]:
                continue
            here, there = found.get(row["stream"], {}), known[row["stream"]]
            wrong = sorted(key for key in here.keys() | there.keys() if not _alike(here.get(key), there.get(key)))
            if wrong:
                yield Finding("metrics", subject, f"{len(wrong)} differ from a recompute: {', '.join(wrong[:5])}")
        for file in orphans(cache):
            yield Finding("orphan", file, "no run needs it; `wandbsync cache gc` removes it", harmless=True)


def _is_named(cache: Cache, file: str) -> bool:
    found = cache.con.execute("SELECT 1 FROM segments WHERE file = ? AND removed_at IS NULL", (file,)).fetchone()
    return found is not None


def _alike(a: Stat | None, b: Stat | None) -> bool:
    """Equal, but for the last digits of mean and spread, which depend on the order of adding up."""
    if a is None or b is None or _exact(a) != _exact(b):
        return False
    if a.mean is None or b.mean is None or a.deviation is None or b.deviation is None:
        return (a.mean, a.deviation) == (b.mean, b.deviation)
    top = max(abs(a.min or 0.0), abs(a.max or 0.0))
    return math.isclose(a.mean, b.mean, rel_tol=1e-9, abs_tol=top * 1e-12) and math.isclose(
        a.deviation, b.deviation, rel_tol=1e-6, abs_tol=top * 1e-15
    )


def _exact(stat: Stat) -> tuple[object, ...]:
    """All that does not depend on the order of adding up; NaN as text, to be equal to itself."""
    fields = astuple(replace(stat, mean=None, rest=None, deviation=None))
    return tuple("nan" if value != value else value for value in fields)
