"""A catalog made anew, from its daily copy and from what the segments say of themselves.

    1. aside      the damaged catalog goes to `damaged/`
    2. base       the daily copy, if it is sound; else an empty one
    3. tiles      every segment tells whose rows it has, and how many come before them: of those that are sound, as many
                  are taken as cover each stream once; a merged segment before those that it was made of
    4. recount    streams that are not as the copy has them, and their runs; these are to be read again from their
                  sources, for where the cursors stand is not known. What no source has stays, and says what it lacks

Pure but for `rebuild`: `plan` decides which segments are taken and in which order.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from ...errors import CacheError
from ...model import RunRef
from .. import catalog, losses
from ..disk import os_errors
from ..stamps import digest, stamp_of
from ..store import Cache
from ..tenants import Tenant, load_tenants
from ..usage import DAILY
from . import backup, recount
from .repair import ASIDE

LATER = 1_000_000  # commits and numbers that may have been counted since the copy, at the most
NAME = re.compile(r"L(\d+)/(\d+)-([0-9a-f]{8})\.parquet")


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one stream in one segment: values from `start` on."""

    stream: int
    file: str
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Found:
    """A sound segment on the disk."""

    file: str
    level: int
    bytes: int
    digest: str
    counts: Mapping[int, int]  # values of each stream
    tenants: Mapping[int, Tenant]


@dataclass(slots=True)
class RebuildReport:
    """What a catalog was made of."""

    copied_at: float | None  # when the copy was made; None: there was none
    segments: int
    runs: int
    again: int  # runs that are to be read again from their sources


def tile(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces of one stream that hold each of its values once, in order; of two that begin together the longer."""
    taken: list[Piece] = []
    end = 0
    for one in sorted(pieces, key=lambda piece: (piece.start, -piece.count)):
        if one.start >= end:
            taken.append(one)
            end = one.start + one.count
    return taken


def order(tiles: Iterable[list[Piece]], levels: Mapping[str, int]) -> list[tuple[str, int]]:
    """The segments of all tiles, each after those whose rows come before its own, with the level it is to have."""
    before: dict[str, set[str]] = {}
    for pieces in tiles:
        for i, piece in enumerate(pieces):
            before.setdefault(piece.file, set()).update({pieces[i - 1].file} if i else ())
    placed: dict[str, int] = {}
    for file in TopologicalSorter(before).static_order():
        placed[file] = min([levels[file], *(placed[one] for one in before[file])])
    return list(placed.items())


def needed(folder: Path) -> bool:
    """Whether a cache has rows, and no catalog that can be opened. Raises CacheError if it cannot be read at all."""
    if not (folder / "catalog.sqlite").exists():
        return any((folder / "history").rglob("*.parquet"))
    from ...errors import Damaged

    try:
        with Cache(folder) as cache:
            _ = cache.con
    except Damaged:
        return True
    return False


def rebuild(folder: Path) -> RebuildReport:
    """Make the catalog of a cache anew. Nobody else may have it open. Raises CacheError."""
    with os_errors(folder), catalog.translated(folder):
        beside = folder / "tmp" / "rebuilt.sqlite"
        beside.parent.mkdir(mode=0o700, exist_ok=True)
        for path in beside.parent.glob("rebuilt.sqlite*"):
            path.unlink()
        copy = folder / DAILY
        copied_at = copy.stat().st_mtime if backup.sound_copy(copy) else None
        if copied_at is not None:
            shutil.copyfile(copy, beside)
        con = catalog.connect(beside)
        try:
            done = _fill(con, folder, copied_at)
        finally:
            catalog.close(con)
        aside = folder / ASIDE
        for suffix in ("", "-wal", "-shm"):
            old = folder / f"catalog.sqlite{suffix}"
            if old.exists():
                aside.mkdir(mode=0o700, exist_ok=True)
                old.replace(aside / f"{time.time():.0f}-{old.name}")
        (folder / "catalog.sqlite.seal").unlink(missing_ok=True)
        beside.replace(folder / "catalog.sqlite")
        for path in beside.parent.glob("rebuilt.sqlite*"):
            path.unlink()
    backup.settle_in(folder, ())
    return done


def _fill(con: sqlite3.Connection, folder: Path, copied_at: float | None) -> RebuildReport:
    known = {row["file"]: dict(row) for row in con.execute("SELECT * FROM segments WHERE removed_at IS NULL")}
    starts = _starts(con)
    found = list(_sound(folder / "history", known))
    streams: dict[int, Tenant] = {}
    pieces: dict[int, list[Piece]] = {}
    for one in found:
        streams |= one.tenants
        for stream, count in one.counts.items():
            start = one.tenants[stream].start if stream in one.tenants else starts.get((one.file, stream))
            if start is not None:
                pieces.setdefault(stream, []).append(Piece(stream, one.file, start, count))
    tiles = {stream: tile(some) for stream, some in pieces.items()}
    had = {row["stream"]: row["count"] for row in con.execute("SELECT stream, count FROM streams")}
    with catalog.transaction(con):
        _count_on(con, found, streams)
        runs = _runs(con, streams, tiles, had)
        alive = {row[0] for row in con.execute("SELECT stream FROM streams")}
        tiles = {stream: some for stream, some in tiles.items() if stream in alive}
        levels, by_file = {one.file: one.level for one in found}, {one.file: one for one in found}
        con.execute("DELETE FROM segment_streams")
        con.execute("DELETE FROM segments")
        con.execute("DELETE FROM problems WHERE subject LIKE 'segment L%'")
        placed = order(tiles.values(), levels)
        first = catalog.take_numbers(con, len(placed))
        for number, (file, level) in enumerate(placed, first):
            one = by_file[file]
            now, path = time.time(), folder / "history" / file
            con.execute(
                "INSERT INTO segments (segment, file, level, count, bytes, digest, created_at, stamp, checked_at) "
                "VALUES (?,?,?,?,?,?,?,?,?)",
                (number, file, level, sum(one.counts.values()), one.bytes, one.digest, now, stamp_of(path), now),
            )
            con.executemany(
                "INSERT INTO segment_streams (segment, stream, count) VALUES (?, ?, ?)",
                [(number, p.stream, p.count) for some in tiles.values() for p in some if p.file == file],
            )
        again = _recount(con, folder, streams, tiles, had, runs)
    total = con.execute("SELECT count(*) FROM runs").fetchone()[0]
    return RebuildReport(copied_at, len(placed), total, again)


def _starts(con: sqlite3.Connection) -> dict[tuple[str, int], int]:
    """How many values of a stream lie before each segment, as the copy has it: for segments that do not say."""
    ends: dict[int, int] = {}
    starts = {}
    for file, stream, count in con.execute(
        "SELECT g.file, x.stream, x.count FROM segments g JOIN segment_streams x ON x.segment = g.segment "
        "WHERE g.removed_at IS NULL ORDER BY g.level DESC, g.segment"
    ):
        starts[file, stream] = ends.get(stream, 0)
        ends[stream] = ends.get(stream, 0) + count
    return starts


def _sound(history: Path, known: Mapping[str, Mapping[str, object]]) -> Iterator[Found]:
    """The segments on the disk that are as they were written, by the catalog's word or that of their names."""
    import pyarrow.compute as pc

    from .. import segments

    for path in sorted(history.rglob("*.parquet")):
        file = path.relative_to(history).as_posix()
        name = NAME.fullmatch(file)
        row = known.get(file)
        size, crc = digest(path)
        if row is not None:
            size, crc = digest(path, str(row["digest"]))
            if crc != row["digest"]:
                continue
        elif name is None or crc != f"crc32:{name[3]}":
            continue  # of version 2 and not in the copy: nobody can tell whose rows it has
        with contextlib.suppress(CacheError, ValueError):
            counts: dict[int, int] = {}
            for table in segments.read(path, columns=["stream"]):
                for one in pc.value_counts(table.column("stream")).to_pylist():
                    counts[one["values"]] = counts.get(one["values"], 0) + one["counts"]
            level = int(str(row["level"])) if row is not None else int(file[1 : file.index("/")])
            yield Found(file, level, size, crc, counts, load_tenants(segments.about(path)))


def _count_on(con: sqlite3.Connection, found: Iterable[Found], streams: Iterable[int]) -> None:
    """No number is given twice, and whoever noted a commit sees that there were others."""
    highest = max([0, *streams, *(int(one.file.split("/")[1].split("-")[0]) for one in found)])
    con.execute("UPDATE counters SET value = max(value, ?) + ? WHERE name = 'numbers'", (highest, LATER))
    con.execute("UPDATE counters SET value = value + ? WHERE name IN ('commits', 'checks')", (LATER,))


def _runs(
    con: sqlite3.Connection, streams: Mapping[int, Tenant], tiles: Mapping[int, list[Piece]], had: Mapping[int, int]
) -> dict[int, RunRef]:
    """See to it that there is a run for each stream that counts, in its right generation; the runs by their numbers.

    A generation that came since the copy counts if the one before it is not whole any more.
    """
    whole: dict[int, bool] = {}
    for run, stream in con.execute(
        "SELECT s.run, s.stream FROM streams s JOIN runs r ON r.run = s.run AND r.generation = s.generation"
    ):
        complete = sum(piece.count for piece in tiles.get(stream, [])) >= had[stream]
        whole[run] = whole.get(run, True) and complete
    evicted = {row[0] for row in con.execute("SELECT run FROM evictions JOIN runs USING (run, generation)")}
    newest: dict[RunRef, int] = {}
    for stream, tenant in streams.items():
        if stream not in had:
            newest[tenant.ref] = max(newest.get(tenant.ref, -1), tenant.generation)
    for ref, generation in newest.items():
        name = (ref.entity, ref.project, ref.run_id)
        row = con.execute(
            "SELECT run, generation FROM runs WHERE entity = ? AND project = ? AND run_id = ?", name
        ).fetchone()
        if row is None:
            con.execute(
                "INSERT INTO runs (entity, project, run_id, state, source, generation, revision) "
                "VALUES (?, ?, ?, 'crashed', 'local', ?, 0)",
                (*name, generation),
            )
            con.execute("INSERT OR IGNORE INTO projects (entity, project, source) VALUES (?, ?, 'local')", name[:2])
        elif generation > row["generation"] and not whole.get(row["run"], False) and row["run"] not in evicted:
            con.execute("UPDATE runs SET generation = ? WHERE run = ?", (generation, row["run"]))
    runs = {
        row["run"]: (RunRef(row["entity"], row["project"], row["run_id"]), row["generation"])
        for row in con.execute("SELECT run, entity, project, run_id, generation FROM runs")
    }
    numbers = {(ref, generation): run for run, (ref, generation) in runs.items()}
    con.execute(
        "DELETE FROM streams WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.run = streams.run "
        "AND r.generation = streams.generation)"
    )
    con.execute("DELETE FROM metrics WHERE stream NOT IN (SELECT stream FROM streams)")
    for stream, tenant in sorted(streams.items()):
        current = numbers.get((tenant.ref, tenant.generation))
        if stream not in had and current is not None:
            con.execute(
                "INSERT OR IGNORE INTO streams VALUES (?, ?, ?, ?, 0, 0)",
                (stream, current, tenant.generation, tenant.name),
            )
    return {run: ref for run, (ref, _) in runs.items()}


def _recount(
    con: sqlite3.Connection,
    folder: Path,
    streams: Mapping[int, Tenant],
    tiles: Mapping[int, list[Piece]],
    had: Mapping[int, int],
    runs: Mapping[int, RunRef],
) -> int:
    """Bring up to date what is said of streams and runs that are not as the copy has them; how many runs that are."""
    evicted = {row[0] for row in con.execute("SELECT run FROM evictions JOIN runs USING (run, generation)")}
    changed: dict[int, int] = {}  # run -> values that are missing
    for stream, run in con.execute("SELECT stream, run FROM streams").fetchall():
        some = tiles.get(stream, [])
        count = sum(piece.count for piece in some)
        if run in evicted and not some:
            continue
        if count == had.get(stream) and (not some or some[-1].start + some[-1].count == count):
            continue
        paths = dict(
            map(tuple, con.execute("SELECT key, path FROM metrics WHERE stream = ? AND path IS NOT NULL", (stream,)))
        )
        paths |= streams[stream].paths if stream in streams else {}
        recount.put(con, stream, recount.recount([folder / "history" / piece.file for piece in some], stream), paths)
        end = max([had.get(stream, 0), *(piece.start + piece.count for piece in some)])
        changed[run] = changed.get(run, 0) + end - count
    unknown = {row[0] for row in con.execute("SELECT run FROM runs WHERE revision = 0")}
    for run in changed.keys() | unknown:
        lost = changed.get(run, 0)
        why = [f"{lost:,} of its values were lost with a damaged segment"] if lost else []
        why += ["what else was known of it was lost with the catalog"] if run in unknown else []
        why += ["the catalog was made anew"] if not why else []
        recount.put_run(con, run, catalog.count_commit(con), f"{'; '.join(why)}: a sync reads it again")
        con.execute(losses.LOSE, (run,))
        con.execute(losses.OWE, (run,))
    return len(changed.keys() | unknown)
