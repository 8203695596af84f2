"""Compaction and gc: many small segments become few large ones; what nothing names is removed after a grace.

Every flush makes one small segment of all runs it is about (level 0). FAN_IN of a level are merged into the next: a run
with many rows gets a segment of its own, the small ones are packed together. Readers that listed the old files go on
reading them: they stay for GRACE seconds.

Rows of one step are told apart by their order alone, so a merge must not change it. Segments are read from the highest
level down, on one level by number. So a merge takes the oldest segments of a level, of all those that share runs, and
the new one gets the highest number on the next level: nothing of these runs is overtaken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Damaged
from ..files import sync
from . import catalog, migration, snapshots
from .disk import NewSegment, os_errors, write_segment
from .metrics import forget_streams
from .stamps import checked, named
from .store import Cache
from .tenants import tenants_of

if TYPE_CHECKING:
    from . import segments

FAN_IN = {0: 32, 1: 16, 2: 16}
TOP = 3  # the highest level
LARGE_RUN = 1_000_000  # rows of one run in a merge that make it worth a segment of its own
LARGEST = 16_000_000  # rows of a merge, unless it is one segment alone
GRACE = 600.0  # seconds
ABANDONED = 86_400.0  # seconds without a commit after which rows that were never published are given up


@dataclass(frozen=True, slots=True)
class Part:
    """A segment as the planner sees it."""

    segment: int
    level: int
    count: int  # rows
    runs: frozenset[int]


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge these segments, oldest first, into level `level`. One alone is not written anew, just counted there."""

    parts: tuple[Part, ...]
    level: int

    def __str__(self) -> str:
        rows = sum(part.count for part in self.parts)
        if len(self.parts) == 1:
            return f"lift segment {self.parts[0].segment} of {rows:,} rows to level {self.level}"
        numbers = ", ".join(str(part.segment) for part in self.parts)
        return f"merge segments {numbers} of {rows:,} rows into level {self.level}"


def plan(parts: Iterable[Part], *, everything: bool = False) -> Iterator[Merge]:
    """Which segments to merge: of one level and one owner the oldest, FAN_IN at a time and at most LARGEST rows.

    `everything`, for a compaction by hand: all below the top, into the top; then the newest there that fit together.
    """
    parts = sorted(parts, key=lambda part: (-part.level, part.segment))
    below = [part for part in parts if part.level < TOP]
    if not everything:
        for level, fan_in in FAN_IN.items():
            for group in _owned([part for part in below if part.level == level]):
                yield from (Merge(chunk, level + 1) for chunk in _chunks(group, fan_in))
    elif below:
        for group in _owned(below):
            yield from (Merge(chunk, TOP) for chunk in _chunks(group, None))
    else:
        for group in _owned(parts):
            newest: list[Part] = []
            for part in reversed(group):
                if sum(p.count for p in newest) + part.count > LARGEST:
                    break
                newest.insert(0, part)
            if len(newest) > 1:
                yield Merge(tuple(newest), TOP)


def _owned(parts: list[Part]) -> list[list[Part]]:
    """The segments in groups that share no run: those of each large run that is in no others here, and all the rest."""
    shared = frozenset().union(*(part.runs for part in parts if len(part.runs) > 1))
    alone: dict[frozenset[int], list[Part]] = {}
    for part in parts:
        if not part.runs & shared:
            alone.setdefault(part.runs, []).append(part)
    large = {runs: own for runs, own in alone.items() if sum(part.count for part in own) >= LARGE_RUN}
    rest = [part for part in parts if part.runs not in large]
    return [*large.values(), *([rest] if rest else [])]


def _chunks(group: list[Part], fan_in: int | None) -> Iterator[tuple[Part, ...]]:
    """The group from its oldest on: `fan_in` at a time, fewer if they are large; None: all that fit together."""
    chunk: list[Part] = []
    for part in group:
        if chunk and (len(chunk) == fan_in or sum(p.count for p in chunk) + part.count > LARGEST):
            yield tuple(chunk)
            chunk = []
        chunk.append(part)
    if chunk and (fan_in is None or len(chunk) == fan_in):
        yield tuple(chunk)


def live_parts(cache: Cache) -> list[Part]:
    """The segments the catalog names now."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT g.segment, g.level, g.count, s.run FROM segments g JOIN segment_streams x ON x.segment = g.segment "
            "JOIN streams s ON s.stream = x.stream WHERE g.removed_at IS NULL"
        ).fetchall()
    found: dict[tuple[int, int, int], set[int]] = {}
    for segment, level, count, run in rows:
        found.setdefault((segment, level, count), set()).add(run)
    return [Part(*one, frozenset(runs)) for one, runs in found.items()]


def compact(cache: Cache, *, everything: bool = False, check: Callable[[], object] = lambda: None) -> list[Merge]:
    """Merge what is due; the merges done. Safe beside any number of writers and readers.

    `check` is called again and again; what it raises ends the merge, as if it had not been begun. Raises CacheError if
    a segment is gone, and Damaged if one is, when all others are merged; what it is about stays as it is.
    """
    done: list[Merge] = []
    damaged: Damaged | None = None
    with catalog.translated(cache.folder), os_errors(cache.folder):
        while todo := list(plan(live_parts(cache), everything=everything)):
            before = catalog.version(cache.con)
            for merge in todo:
                check()
                try:
                    if _lift(cache, merge) if len(merge.parts) == 1 else _merge(cache, merge, check):
                        done.append(merge)
                except Damaged as error:
                    damaged = error
            # A round at the top ends it: what it takes apart again, large runs from small, it could merge for ever.
            at_top = all(part.level == TOP for merge in todo for part in merge.parts)
            if at_top or catalog.version(cache.con) == before:
                break
    if damaged is not None:
        raise damaged
    return done


def _lift(cache: Cache, merge: Merge) -> bool:
    """Count a segment to another level, as the newest there; False if another process was first."""
    old, new = merge.parts[0].segment, catalog.reserve(cache.con, 1)
    with catalog.transaction(cache.con):
        found = cache.con.execute(
            "UPDATE segments SET segment = ?, level = ? WHERE segment = ? AND removed_at IS NULL",
            (new, merge.level, old),
        ).rowcount
        if found:
            cache.con.execute("UPDATE segment_streams SET segment = ? WHERE segment = ?", (new, old))
            catalog.count_commit(cache.con)
    return bool(found)


def _merge(cache: Cache, merge: Merge, check: Callable[[], object]) -> bool:
    """Carry out one merge; False if another process was first."""
    from . import segments

    numbers = [part.segment for part in merge.parts]
    some = f"segment IN ({','.join('?' * len(numbers))})"
    with catalog.snapshot(cache.con):
        inputs = named(cache, f"segments WHERE {some} AND removed_at IS NULL", numbers)
        held = cache.con.execute(
            f"SELECT x.stream, s.run, sum(x.count) FROM segment_streams x JOIN streams s ON s.stream = x.stream "
            f"WHERE x.{some} GROUP BY x.stream",
            numbers,
        ).fetchall()
        tenants = tenants_of(cache, [row[0] for row in held], numbers[0])
    if len(inputs) < len(numbers):
        return False
    counts = {stream: count for stream, _, count in held}
    written: list[tuple[list[int], NewSegment]] = []
    try:
        paths = checked(cache, inputs)
        for streams in _outputs([tuple(row) for row in held]):
            whose = {stream: tenants[stream] for stream in streams if stream in tenants}
            new = write_segment(cache, merge.level, _checked(segments.merged(paths, streams), check), whose)
            if new is not None:
                written.append((streams, new))
        with catalog.transaction(cache.con):
            if not _all_there(cache, numbers):
                raise _Overtaken
            alive = {row[0] for row in cache.con.execute(f"SELECT stream FROM segment_streams WHERE {some}", numbers)}
            for streams, new in written:
                if not alive.isdisjoint(streams):  # else its runs were replaced meanwhile, and gc takes the file
                    new.name(cache, {stream: counts[stream] for stream in streams if stream in alive})
            cache.con.execute(f"DELETE FROM segment_streams WHERE {some}", numbers)
            cache.con.execute(f"UPDATE segments SET removed_at = ? WHERE {some}", (time.time(), *numbers))
            catalog.count_commit(cache.con)
    except Exception as error:
        for _, new in written:
            new.path.unlink(missing_ok=True)
        gone = isinstance(error, FileNotFoundError) and not _all_there(cache, numbers)
        if gone or isinstance(error, _Overtaken):
            return False
        raise
    return True


def _checked(blocks: Iterable[segments.Block], check: Callable[[], object]) -> Iterator[segments.Block]:
    for block in blocks:
        check()
        yield block


class _Overtaken(Exception):
    """A signal within `_merge`, not an error."""


def _all_there(cache: Cache, numbers: list[int]) -> bool:
    """Whether nobody has replaced any of these segments."""
    marks = ",".join("?" * len(numbers))
    there = cache.con.execute(
        f"SELECT count(*) FROM segments WHERE segment IN ({marks}) AND removed_at IS NULL", numbers
    ).fetchone()
    return int(there[0]) == len(numbers)


def _outputs(held: list[tuple[int, int, int]]) -> list[list[int]]:
    """The streams of each new segment, from (stream, run, rows): one for each large run, and one for all others."""
    rows: dict[int, int] = {}
    for _, run, count in held:
        rows[run] = rows.get(run, 0) + count
    owners = [[run] for run in sorted(rows) if rows[run] >= LARGE_RUN]
    owners.append([run for run in rows if rows[run] < LARGE_RUN])
    return [[stream for stream, run, _ in held if run in runs] for runs in owners if runs]


@dataclass(frozen=True, slots=True)
class Swept:
    """What gc removed, or would remove; `young` files are not needed either, but not old enough yet."""

    files: list[str]
    bytes: int
    young: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(self.files + other.files, self.bytes + other.bytes, other.young)


def gc(
    cache: Cache,
    *,
    grace: float = GRACE,
    replaced: float | None = None,
    dry_run: bool = False,
    now: float | None = None,
) -> Swept:
    """Remove segments replaced more than `grace` seconds ago, and files that nothing names and nobody is writing.

    What a former `wandb.duckdb` names stays while somebody has that open. `replaced` is another grace for the segments,
    which nobody is writing in any case. A week after an upgrade the copy of
    the catalog as it was before goes, too.

    On a full disk, where the catalog cannot be written, it will name the removed segments until the next time.
    """
    now = time.time() if now is None else now
    swept: dict[str, int] = {}
    young = 0
    with catalog.translated(cache.folder), os_errors(cache.folder):
        con, reads = cache.con, dry_run or cache.frozen
        if not reads:
            _give_up(cache, now - ABANDONED)
        # The commits that replaced these files must be on the disk before the files go.
        if not dry_run and (log := cache.folder / "catalog.sqlite-wal").exists():
            sync(log)
        held = snapshots.oldest(cache.folder, now=now)
        if not reads:
            catalog.checkpoint(con, cache.catalog)
        # Inside, so that no process names a file while it is taken for an orphan.
        with catalog.snapshot(con) if reads else catalog.transaction(con):
            old = con.execute("SELECT segment, file, bytes, removed_at FROM segments WHERE removed_at IS NOT NULL")
            for segment, file, size, removed_at in old.fetchall():
                in_use = held is not None and removed_at > held and replaced != 0.0
                if in_use or removed_at > now - (grace if replaced is None else replaced):
                    young += 1
                    continue
                if cache.segment_path(file).exists():
                    swept[f"history/{file}"] = size
                if not dry_run:
                    cache.segment_path(file).unlink(missing_ok=True)
                if not reads:
                    con.execute("DELETE FROM segments WHERE segment = ?", (segment,))
            for file in orphans(cache):
                try:
                    status = (cache.folder / file).stat()
                except FileNotFoundError:
                    continue
                if file in swept:
                    continue
                if status.st_mtime > now - grace:
                    young += 1
                    continue
                swept[file] = status.st_size
                if not dry_run:
                    (cache.folder / file).unlink(missing_ok=True)
        for copy in migration.copies(cache.folder):
            status = copy.stat()
            if status.st_mtime <= now - migration.KEPT:
                swept[copy.name] = status.st_size
                if not dry_run:
                    copy.unlink()
    return Swept(list(swept), sum(swept.values()), young)


def _give_up(cache: Cache, before: float) -> None:
    """Drop rows of new generations whose writer is gone. Should it come back, it finds the run changed."""
    con = cache.con
    with catalog.transaction(con):
        runs = con.execute(
            "SELECT r.run, r.generation FROM runs r JOIN streams s ON s.run = r.run AND s.generation <> r.generation "
            "LEFT JOIN segment_streams x ON x.stream = s.stream LEFT JOIN segments g ON g.segment = x.segment "
            "GROUP BY r.run HAVING coalesce(max(g.created_at), 0) <= ?",
            (before,),
        ).fetchall()
        for run, generation in runs:
            forget_streams(con, run, keep=generation)
            con.execute("UPDATE runs SET revision = ? WHERE run = ?", (catalog.count_commit(con), run))


def orphans(cache: Cache) -> list[str]:
    """Files below history/ and tmp/ that the catalog does not name, relative to the cache."""
    found = [
        path.relative_to(cache.folder).as_posix()
        for place in ("history", "tmp")
        for path in (cache.folder / place).rglob("*")
        if not path.is_dir()
    ]
    if not found:
        return []
    # Asked after the walk: a file found before it was named is not an orphan.
    named = {f"history/{row[0]}" for row in cache.con.execute("SELECT file FROM segments")}
    return sorted(set(found) - named)
