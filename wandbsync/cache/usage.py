"""How large the parts of a cache are, and what the planner of `retention` has to know of them.

Everything that can be made again from the rest lies below `derived/`; `wandb.duckdb` too can, but is always there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..model import CONSOLE, GOING_ON, HISTORY, SYSTEM, Fingerprint, RunRef
from . import catalog, migration
from .cursors import mirror_cursor
from .disk import os_errors
from .retention import Facts, Held, Kept, Segment
from .store import DERIVED, Cache

MEDIA = "media"
DAILY = "catalog.sqlite.daily"  # a copy of the catalog that is a day old at the most
PASSING = ("tmp", "fetch", "snapshots")  # what is there only while something is under way, or open somewhere


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes by part."""

    rows: int = 0  # of all segments that count
    dead: int = 0  # of these for rows that nobody needs, about
    waiting: int = 0  # segments that gc is going to remove, commits not in the catalog's own file yet, files under way
    media: int = 0
    catalog: int = 0  # with the copies of older versions
    duckdb: int = 0
    derived: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        return self.held + self.waiting

    @property
    def held(self) -> int:
        """What counts for the quota."""
        return self.rows + self.media + self.catalog + self.duckdb + self.derived + self.other

    @property
    def reclaimable(self) -> int:
        """What is freed by waiting, compaction and gc, without losing anything."""
        return self.waiting + self.dead


def measure(cache: Cache) -> Sizes:
    """How large the parts are: the disk's sizes, the catalog's word for what counts."""
    with catalog.translated(cache.folder), os_errors(cache.folder):
        rows, dead = cache.con.execute(
            "SELECT coalesce(sum(bytes), 0), coalesce(sum(bytes - bytes * coalesce(alive, 0) / max(count, 1)), 0) "
            "FROM segments LEFT JOIN (SELECT segment, sum(count) AS alive FROM segment_streams GROUP BY segment) "
            "USING (segment) WHERE removed_at IS NULL"
        ).fetchone()
        pages = [cache.con.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")]
        found: dict[str, int] = {}
        for entry in _entries(cache.folder):
            inside = _files(entry.path) if entry.is_dir(follow_symlinks=False) else [entry]
            found[entry.name] = sum(_size(one) for one in inside)
    parts = {"media": found.pop(MEDIA, 0), "derived": found.pop(DERIVED, 0), "duckdb": found.pop("wandb.duckdb", 0)}
    history = found.pop("history", 0)
    waiting = max(history - rows, 0) + sum(found.pop(name, 0) for name in PASSING)
    copies = sum(found.pop(path.name, 0) for path in migration.copies(cache.folder)) + found.pop(DAILY, 0)
    copies += sum(found.pop(name) for name in list(found) if name.endswith(".seal"))
    on_disk = sum(found.pop(name) for name in list(found) if name.startswith("catalog.sqlite"))
    catalog_bytes = pages[0] * pages[1]
    waiting += max(on_disk - catalog_bytes, 0)
    return Sizes(rows, dead, waiting, catalog=catalog_bytes + copies, other=sum(found.values()), **parts)


def facts(cache: Cache, sizes: Sizes) -> Facts:
    """What the planner has to know, as things stand now."""
    with catalog.translated(cache.folder), os_errors(cache.folder):
        with catalog.snapshot(cache.con):
            segments, runs = _segments(cache), _runs(cache)
        derived = [Kept(path, size, used) for path, size, used in _kept(cache, DERIVED)]
        media = list(_media(cache))
    here = set().union(*(one.runs for one in segments))
    return Facts(sizes.held, derived, media, segments, [run for run in runs if run.ref in here])


def _segments(cache: Cache) -> list[Segment]:
    rows = cache.con.execute(
        "SELECT g.segment, g.bytes, g.count, r.entity, r.project, r.run_id, sum(x.count) FROM segments g "
        "JOIN segment_streams x USING (segment) JOIN streams s USING (stream) JOIN runs r USING (run) "
        "WHERE g.removed_at IS NULL GROUP BY g.segment, r.run"
    )
    found: dict[tuple[int, int, int], dict[RunRef, int]] = {}
    for *segment, entity, project, run_id, count in rows:
        found.setdefault((segment[0], segment[1], segment[2]), {})[RunRef(entity, project, run_id)] = count
    return [Segment(*segment, runs) for segment, runs in found.items()]


def _runs(cache: Cache) -> Iterator[Held]:
    """The runs that have rows, or had."""
    counted: dict[int, dict[str, int]] = {}
    for run, name, count in cache.con.execute(
        "SELECT s.run, s.name, s.rows FROM streams s JOIN runs r ON r.run = s.run AND r.generation = s.generation"
    ):
        counted.setdefault(run, {})[name] = count
    rows = cache.con.execute(
        "SELECT r.run, r.entity, r.project, r.run_id, r.revision, r.state AS now, r.created_at, r.heartbeat_at, "
        "r.incomplete, r.deleted_at, u.asked_at, u.came_at, l.run IS NOT NULL AS local, l.open, m.* "
        "FROM runs r LEFT JOIN uses u USING (run) LEFT JOIN mirrors m USING (run) LEFT JOIN "
        "(SELECT run, max(status = 'open') AS open FROM logs GROUP BY run) l USING (run)"
    ).fetchall()
    for row in rows:
        cursor = None if row["state"] is None else mirror_cursor(row)
        seen = (cursor.fetched or cursor.described) if cursor else None
        streams = counted.get(row[0], {})
        whole = row["incomplete"] is None and (cursor is None or not cursor.failures)
        yield Held(
            RunRef(row["entity"], row["project"], row["run_id"]),
            row["revision"],
            max(row["asked_at"] or 0.0, row["heartbeat_at"] or row["created_at"] or 0.0),
            row["asked_at"],
            row["came_at"] or 0.0,
            ended=row["now"] not in GOING_ON and not row["open"],
            listed=seen is not None and row["deleted_at"] is None,
            whole=whole and seen is not None and _has_all(seen, streams, strict=bool(row["local"])),
            samples=streams.get(SYSTEM, 0),
        )


def _has_all(seen: Fingerprint, streams: dict[str, int], *, strict: bool) -> bool:
    """Whether a server has every row that is here. `strict`: they did not come from there, so all is counted."""
    if not seen.ended or seen.lines != streams.get(HISTORY, 0):
        return False
    return not strict or (
        (seen.events or 0) >= streams.get(SYSTEM, 0) and (seen.console or 0) >= streams.get(CONSOLE, 0)
    )


def _media(cache: Cache) -> Iterator[Kept]:
    """The files kept by their MD5; those that no server's run lists any more are nowhere else."""
    kept = list(_kept(cache, MEDIA))
    if not kept:
        return
    listed = {
        name
        for (text,) in cache.con.execute(
            "SELECT DISTINCT f.md5 FROM files f JOIN runs r USING (run) JOIN mirrors m USING (run) "
            "WHERE f.md5 IS NOT NULL AND r.deleted_at IS NULL AND m.described IS NOT NULL"
        )
        if (name := _hex(text))
    }
    for path, size, used in kept:
        parts = path.split("/")
        if len(parts) == 3 and len(parts[2]) == 32:  # else it is under way
            yield Kept(path, size, used, parts[2] in listed)


def _hex(md5: str) -> str | None:
    """A digest in W&B's words, base64 or hex, as the name of its file."""
    if len(md5) == 32:
        return md5.lower()
    import base64
    import binascii

    try:
        return base64.b64decode(md5, validate=True).hex()
    except (ValueError, binascii.Error):
        return None


def _kept(cache: Cache, part: str) -> Iterator[tuple[str, int, float]]:
    """The files below a folder of the cache: path, bytes, and when they were last used."""
    for entry in _files(str(cache.folder / part)):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        path = Path(entry.path).relative_to(cache.folder).as_posix()
        yield path, status.st_size, min(status.st_mtime, time.time())


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    """The files at any depth; one that vanishes meanwhile may be among them."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        else:
            yield entry


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
