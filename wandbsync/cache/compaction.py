"""Compaction and gc: many small segments become few large ones; what nothing names is removed after a grace.

Every flush makes one small segment of all runs it is about (L0). FAN_IN of a level are merged into the next: a run
with many rows gets a segment of its own, the small ones are packed together. Merging keeps the order of rows, so the
inputs of one merge are always neighbours in the order they were written. Readers that listed the old files go on
reading them: they stay for GRACE seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import CacheError
from . import catalog
from .store import Cache, NewSegment, os_errors, write_segment

FAN_IN = {0: 32, 1: 16, 2: 16}
LARGE_RUN = 1_000_000  # rows of one run in a merge that make it worth a segment of its own
LARGEST = 16_000_000  # rows of a segment; larger ones are left alone
WINDOW = 2_000_000  # rows held in memory at a time, unless one key alone has more
GRACE = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class Part:
    """A segment as the planner sees it; `run` is the one run in it, None when there are several."""

    segment: int
    level: int
    count: int
    run: int | None
    file: str = ""


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge these segments into level `level`."""

    parts: tuple[Part, ...]
    level: int

    def __str__(self) -> str:
        return f"merge {len(self.parts)} segments of {sum(p.count for p in self.parts):,} rows into level {self.level}"


def plan(parts: Iterable[Part], *, everything: bool = False) -> Iterator[Merge]:
    """Which segments to merge: neighbours of one level and one owner, FAN_IN at a time and at most LARGEST rows.

    `everything` merges whatever has a neighbour, for a compaction by hand.
    """
    groups: dict[tuple[int, int | None], list[Part]] = {}
    for part in sorted(parts, key=lambda p: p.segment):
        if part.level in FAN_IN or everything:
            # A flush may hold one run or twenty: what matters at level 0 is only the order.
            groups.setdefault((part.level, part.run if part.level else None), []).append(part)
    for (level, _), group in sorted(groups.items(), key=lambda item: item[1][0].segment):
        fan_in = 2 if everything else FAN_IN[level]
        chosen: list[Part] = []
        for part in [*group, None]:
            full = part is None or sum(p.count for p in chosen) + part.count > LARGEST
            if full or (len(chosen) >= FAN_IN.get(level, 2) and not everything):
                if len(chosen) >= fan_in:
                    yield Merge(tuple(chosen), min(level + 1, 3))
                chosen = []
            if part is not None:
                chosen.append(part)


def live_parts(cache: Cache) -> list[Part]:
    """The segments the catalog names now."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT g.segment, g.level, g.count, g.file, count(DISTINCT s.run) AS runs, min(s.run) AS run "
            "FROM segments g JOIN segment_streams x ON x.segment = g.segment JOIN streams s ON s.stream = x.stream "
            "WHERE g.removed_at IS NULL GROUP BY g.segment"
        ).fetchall()
    return [Part(r["segment"], r["level"], r["count"], r["run"] if r["runs"] == 1 else None, r["file"]) for r in rows]


def compact(cache: Cache, *, everything: bool = False) -> list[Merge]:
    """Merge what is due; the merges done. Safe beside any number of writers and readers."""
    done = []
    with catalog.translated(cache.folder), os_errors(cache.folder):
        while True:
            todo = [m for m in plan(live_parts(cache), everything=everything) if m not in done]
            if not todo:
                return done
            for merge in todo:
                if _merge(cache, merge):
                    done.append(merge)
            if everything:
                return done


def _merge(cache: Cache, merge: Merge) -> bool:
    """Carry out one merge; False if another process was first."""
    from . import segments

    numbers = [part.segment for part in merge.parts]
    marks = ",".join("?" * len(numbers))
    owners: dict[int, int] = {}
    counts: dict[int, int] = {}
    for stream, run, count in cache.con.execute(
        f"SELECT x.stream, s.run, sum(x.count) FROM segment_streams x JOIN streams s ON s.stream = x.stream "
        f"WHERE x.segment IN ({marks}) GROUP BY x.stream",
        numbers,
    ):
        owners[stream], counts[stream] = run, count
    rows: dict[int, int] = {}
    for stream, run in owners.items():
        rows[run] = rows.get(run, 0) + counts[stream]
    small = [stream for stream, run in owners.items() if rows[run] < LARGE_RUN]
    outputs = [[s for s, run in owners.items() if run == big] for big in sorted(rows) if rows[big] >= LARGE_RUN]
    if small:
        outputs.append(small)

    def blocks(streams: list[int]) -> Iterator[segments.Block]:
        for between in windows(segments.key_ranges(cache.segment_path(p.file) for p in merge.parts)):
            inputs = [
                segments.to_block(table)
                for part in merge.parts
                for table in segments.read(cache.segment_path(part.file), streams=streams, between=between)
            ]
            if inputs:
                yield segments.sort(inputs)

    written: list[NewSegment] = []
    try:
        for streams in outputs:
            written.append(write_segment(cache, merge.level, blocks(streams)))
        with catalog.transaction(cache.con):
            still = cache.con.execute(
                f"SELECT count(*) FROM segments WHERE segment IN ({marks}) AND removed_at IS NULL", numbers
            ).fetchone()[0]
            if still != len(numbers):
                raise _Overtaken
            alive = {
                row[0]
                for row in cache.con.execute(f"SELECT DISTINCT stream FROM segment_streams WHERE segment IN ({marks})", numbers)
            }
            for streams, new in zip(outputs, written, strict=True):
                new.name(cache.con, {s: counts[s] for s in streams if s in alive})
            cache.con.execute(f"DELETE FROM segment_streams WHERE segment IN ({marks})", numbers)
            cache.con.execute(
                f"UPDATE segments SET removed_at = ? WHERE segment IN ({marks})", (time.time(), *numbers)
            )
            catalog.count_commit(cache.con)
    except (_Overtaken, FileNotFoundError):
        for new in written:
            new.path.unlink(missing_ok=True)
        return False
    except BaseException:
        for new in written:
            new.path.unlink(missing_ok=True)
        raise
    return True


class _Overtaken(Exception):  # noqa: N818 - a signal within `_merge`
    pass


def windows(ranges: Iterable[tuple[str, str, int]]) -> Iterator[tuple[str, str]]:
    """Cut the keys into ranges of about WINDOW rows; `ranges` has first key, last key and rows of each row group.

    No two ranges share a key, and together they hold all.
    """
    ends = sorted((last, rows) for _, last, rows in ranges)
    total = 0
    low = ""
    for i, (last, rows) in enumerate(ends):
        total += rows
        if (total >= WINDOW or i == len(ends) - 1) and last >= low:
            yield low, last
            low, total = last + "\0", 0


@dataclass(frozen=True, slots=True)
class Swept:
    """What gc removed, or would remove."""

    files: list[str]
    bytes: int


def gc(cache: Cache, *, grace: float = GRACE, dry_run: bool = False, now: float | None = None) -> Swept:
    """Remove segments replaced more than `grace` seconds ago, and files that nothing names and nobody is writing."""
    now = time.time() if now is None else now
    files: list[str] = []
    size = 0
    with catalog.translated(cache.folder), os_errors(cache.folder):
        con = cache.con
        old = con.execute("SELECT segment, file, bytes FROM segments WHERE removed_at <= ?", (now - grace,)).fetchall()
        if old and not dry_run:
            # The commits that replaced these files must be on the disk before the files go.
            con.execute("PRAGMA wal_checkpoint(FULL)")
        for row in old:
            files.append(row["file"])
            size += row["bytes"]
            if not dry_run:
                cache.segment_path(row["file"]).unlink(missing_ok=True)
        if old and not dry_run:
            with catalog.transaction(con):
                con.executemany("DELETE FROM segments WHERE segment = ?", [(row["segment"],) for row in old])
        for file in orphans(cache):
            path = cache.folder / file
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if status.st_mtime <= now - grace:
                files.append(file)
                size += status.st_size
                if not dry_run:
                    path.unlink(missing_ok=True)
    return Swept(files, size)


def orphans(cache: Cache) -> list[str]:
    """Files below history/ and tmp/ that the catalog does not name, relative to the cache."""
    found = [
        os.path.relpath(os.path.join(folder, name), cache.folder)
        for place in ("history", "tmp")
        for folder, _, names in os.walk(cache.folder / place)
        for name in names
    ]
    if not found:
        return []
    # Asked after the walk: a file found before it was named is not an orphan.
    named = {os.path.join("history", row[0]) for row in cache.con.execute("SELECT file FROM segments")}
    return sorted(set(found) - named)


def missing(cache: Cache, file: str) -> CacheError:
    return CacheError(f"the segment {file} is gone from {cache.folder}", hint="`wandbsync cache verify` tells more")
