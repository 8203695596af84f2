"""Verify: is the cache what the catalog says it is?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

from . import catalog
from .compaction import orphans
from .stats import Stat, measure, merge
from .store import OLDEST_FIRST, Cache, os_errors, stream_stats


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what kind, with which file or run, and how."""

    problem: str  # missing | altered | orphan | count | metrics
    subject: str
    detail: str
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.problem}: {self.subject}: {self.detail}"


def verify(cache: Cache, *, quick: bool = False, progress: Callable[[int, int], None] | None = None) -> Iterator[Finding]:
    """Check every segment against the catalog: there, unaltered, with as many rows, and metrics as a recompute has them.

    `quick` compares sizes only. An orphan is harmless: gc removes it.
    """
    from . import segments

    with catalog.translated(cache.folder), os_errors(cache.folder):
        con = cache.con
        con.execute("BEGIN")  # one view of the catalog, while others go on committing
        try:
            listed = con.execute("SELECT * FROM segments WHERE removed_at IS NULL ORDER BY " + OLDEST_FIRST).fetchall()
            held: dict[int, dict[int, int]] = {}
            for segment, stream, count in con.execute("SELECT segment, stream, count FROM segment_streams"):
                held.setdefault(segment, {})[stream] = count
            streams = con.execute(
                "SELECT s.*, r.entity || '/' || r.project || '/' || r.run_id AS name_of_run FROM streams s "
                "JOIN runs r ON r.run = s.run"
            ).fetchall()
            known = {row["stream"]: stream_stats(con, row["stream"]) for row in streams} if not quick else {}
        finally:
            con.execute("COMMIT")
        found: dict[int, dict[str, Stat]] = {}
        for i, row in enumerate(listed):
            if progress:
                progress(i, len(listed))
            path, file = cache.segment_path(row["file"]), row["file"]
            try:
                size, digest = (path.stat().st_size, row["digest"]) if quick else segments.digest(path)
            except FileNotFoundError:
                yield Finding("missing", file, f"{row['count']:,} rows are gone")
                continue
            if size != row["bytes"] or digest != row["digest"]:
                yield Finding("altered", file, f"{size:,} bytes, {row['bytes']:,} were written; its digest differs")
                continue
            if quick:
                continue
            counts: dict[int, int] = {}
            wanted = held.get(row["segment"], {})
            for table in segments.read(path):
                block = segments.to_block(table)
                starts = block.starts()
                heads = zip(block.stream[starts].tolist(), block.key[starts].tolist(), strict=True)
                for (stream, key), stat in zip(
                    heads, measure(starts, block.step, block.value, block.kind, block.text), strict=True
                ):
                    if stream in wanted:  # rows of a replaced generation are dead: nobody counts them
                        counts[stream] = counts.get(stream, 0) + stat.count
                        stats = found.setdefault(stream, {})
                        stats[block.names[key]] = merge(stats.get(block.names[key], Stat()), stat)
            if counts != wanted:
                total = sum(counts.values())
                yield Finding("count", file, f"{total:,} rows of its runs, the catalog says {sum(wanted.values()):,}")
        for row in streams:
            subject = f"{row['name_of_run']} ({row['name']})"
            total = sum(counts.get(row["stream"], 0) for counts in held.values())
            if total != row["count"]:
                yield Finding("count", subject, f"segments hold {total:,} rows, the catalog says {row['count']:,}")
            if quick:
                continue
            here, there = found.get(row["stream"], {}), known[row["stream"]]
            wrong = sorted(key for key in here.keys() | there.keys() if not _alike(here.get(key), there.get(key)))
            if wrong:
                yield Finding("metrics", subject, f"{len(wrong)} differ from a recompute: {', '.join(wrong[:5])}")
        for file in orphans(cache):
            yield Finding("orphan", file, "no run needs it; `wandbsync cache gc` removes it", harmless=True)


def _alike(a: Stat | None, b: Stat | None) -> bool:
    """Equal, but for the last digits of mean and spread, which depend on the order of adding up."""
    if a is None or b is None:
        return False
    return all(_same(x, y) for x, y in zip(astuple(a), astuple(b), strict=True))


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, float) and isinstance(y, float):
        return x == y or (x != x and y != y) or math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-12)
    return bool(x == y)
