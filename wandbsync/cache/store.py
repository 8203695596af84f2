"""The cache as writers see it: commit rows with the cursor that vouches for them, all or nothing.

    1. write a segment beside, fsync, rename to a name that was never used before
    2. ONE transaction: compare each run's revision; name the segment, its rows, the metrics, the record, the cursor

A crash before the end of 2 leaves at most a file that nothing names; the orphan sweep removes it.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from ..errors import CacheBusy, CacheError, NothingCached
from ..model import HISTORY, Columns, Field, FileRecord, RunRecord, RunRef
from ..model.run import RECORDED
from . import catalog
from .cursors import LogCursor, MirrorCursor, Mirrored, cells, mirror_cursor
from .disk import os_errors, write_segment
from .eviction import EVICTED, LOST, missing
from .frozen import Frozen
from .metrics import forget_streams, measured, put_stats, stream_stats
from .stamps import Segment, checked, named
from .stats import Stat, merge
from .summary import summarize
from .tenants import Tenant

if TYPE_CHECKING:
    from . import segments

DERIVED = "derived"  # the folder of what can be made again
LARGE = 200_000  # values that are measured while they are being written
# What lies in a cache folder, as it begins.
PARTS = (
    "catalog",
    "derived",
    "fetch",
    "history",
    "lake",
    "locks",
    "logs",
    "media",
    "snapshots",
    "status.json",
    "tmp",
    "wandb.duckdb",
)
FROZEN = 5.0  # seconds after which a catalog that could only be copied is opened again


@dataclass(frozen=True, slots=True)
class Share:
    """What one commit brings for one run."""

    ref: RunRef
    revision: int | None  # the run's revision that this was read on top of; None: the run is not in the cache
    record: RunRecord | None  # None: as it was
    streams: Mapping[str, Sequence[Columns]] = field(default_factory=dict)  # in the order they were logged
    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of keys that are more than one name
    files: Sequence[FileRecord] | None = None  # None: as they were
    logs: Sequence[LogCursor] = ()
    forget_logs: Sequence[str] = ()  # paths that logs have moved away from
    mirror: MirrorCursor | None = None  # None: as it was
    generation: int | None = None  # a new one, to replace the present rows; None: add to the present ones
    publish: bool = True  # False: rows of a new generation that nobody is to see yet


class Cache:
    """A cache directory. Opening one makes it; nothing here waits for readers, nor they for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()  # the views in wandb.duckdb name files
        self._con: sqlite3.Connection | None = None
        self._at: tuple[int, int] | None = None  # the device and inode of its file
        self._moved = False
        self._last: sqlite3.Connection | None = None  # the one before, which somebody may hold
        self.stamps: dict[str, str] = {}  # of segments that were checked, where the catalog could not be written

    @property
    def con(self) -> sqlite3.Connection:
        con = self._con
        if con is not None and self._moved and not con.in_transaction:
            self.close()  # another one may be in its place by now
            con = None
        if isinstance(con, Frozen) and not con.in_transaction and time.monotonic() - con.taken_at > FROZEN:
            last, self._last, self._con = self._last, con, None  # there may be room by now
            if last is not None:
                catalog.close(last)
        if self._con is None:
            with os_errors(self.folder):
                files.refuse_strange_links(self.folder)
                files.private_folder(self.folder)
                files.tighten(self.folder, PARTS)
            self._con = catalog.connect(self.catalog)
            self._at = _inode(self.catalog)
        return self._con

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog.sqlite"

    def in_place(self) -> None:
        """Raise CacheError if the catalog that is open is not the one in the folder any more: that was moved."""
        if self._at != _inode(self.catalog):
            self._moved = True
            raise CacheError(f"the cache {self.folder} was moved while it was written to", hint="try again")

    @property
    def frozen(self) -> bool:
        """Whether nothing can be written, for a full disk or for want of permission: what can be read is a copy."""
        return isinstance(self.con, Frozen)

    def exists(self) -> bool:
        return (self.folder / "catalog.sqlite").exists()

    def nothing_cached(self) -> NothingCached:
        """What is to be raised where there is no catalog to answer from."""
        message = f"nothing is cached in {self.folder}"
        if not self.exists() and (self.folder / "history").is_dir():
            return NothingCached(
                f"{message}: its catalog is gone",
                hint="`wandbsync cache repair` makes it anew from the segments, which are there",
            )
        return NothingCached(message)

    def close(self) -> None:
        for con in (self._con, self._last):
            if con is not None:
                catalog.close(con)
        self._con = self._last = None
        self._moved = False

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def segment_path(self, file: str) -> Path:
        return self.folder / "history" / file

    def segments_of(self, streams: Iterable[int]) -> list[Segment]:
        """The segments that hold rows of streams, in the order they were logged; `checked` gives their files."""
        source = "segment_streams JOIN segments USING (segment) WHERE stream IN (SELECT value FROM json_each(?))"
        return named(self, source, (json.dumps(list(streams)),))

    # -- what writers ask before they read on

    def revision(self, ref: RunRef) -> int | None:
        """The run's revision, for a share to be committed on top of; None if it is not in the cache."""
        with catalog.translated(self.folder):
            return self._revision(ref)

    def _revision(self, ref: RunRef) -> int | None:
        row = self.con.execute(
            "SELECT revision FROM runs WHERE entity = ? AND project = ? AND run_id = ?", _name(ref)
        ).fetchone()
        return row[0] if row else None

    def logs(self, paths: Collection[str] | None = None) -> dict[str, tuple[RunRef, LogCursor]]:
        """Every log read so far by its path, without its state; or all logs of the runs that `paths` belong to."""
        some = (
            ""
            if paths is None
            else "WHERE run IN (SELECT run FROM logs WHERE path IN (SELECT value FROM json_each(?)))"
        )
        with catalog.translated(self.folder):
            rows = self.con.execute(
                "SELECT entity, project, run_id, path, log_key, signature, position, started_at, rewinds_to, status, "
                f"'' FROM logs JOIN runs USING (run) {some}",
                () if paths is None else (json.dumps(list(paths)),),
            ).fetchall()
        return {row[3]: (RunRef(*row[:3]), LogCursor(*row[3:])) for row in rows}

    def log_cursors(self, ref: RunRef) -> dict[str, LogCursor]:
        """The cursors of a run's logs, with their states, by path."""
        with catalog.translated(self.folder):
            rows = self.con.execute(
                "SELECT path, log_key, signature, position, started_at, rewinds_to, status, l.state FROM logs l "
                "JOIN runs r USING (run) WHERE entity = ? AND project = ? AND run_id = ?",
                _name(ref),
            ).fetchall()
        return {row[0]: LogCursor(*row) for row in rows}

    def last_steps(self, refs: Iterable[RunRef] | None = None) -> dict[RunRef, int | None]:
        """Every run in the cache, or those of some runs that are, with the last step of its history."""
        select = "SELECT entity, project, run_id, last_step FROM runs"
        with catalog.translated(self.folder):
            if refs is None:
                rows = self.con.execute(select).fetchall()
            else:
                one = f"{select} WHERE entity = ? AND project = ? AND run_id = ?"
                rows = [row for ref in refs for row in self.con.execute(one, _name(ref))]
        return {RunRef(*row[:3]): row[3] for row in rows}

    def stream_rows(self, ref: RunRef) -> tuple[dict[str, int], int | None]:
        """How many rows each stream of a run has, and the run's last step."""
        with catalog.translated(self.folder):
            rows = self.con.execute(
                "SELECT s.name, s.rows, r.last_step FROM runs r JOIN streams s ON s.run = r.run "
                "AND s.generation = r.generation WHERE r.entity = ? AND r.project = ? AND r.run_id = ?",
                _name(ref),
            ).fetchall()
        return {row[0]: row[1] for row in rows}, rows[0][2] if rows else None

    def last_value(self, ref: RunRef, key: str, step: int) -> float | None:
        """The number that a metric of a run's history has at a step, if that is its last one."""
        with catalog.translated(self.folder):
            row = self.con.execute(
                "SELECT m.last_value FROM runs r JOIN streams s ON s.run = r.run AND s.generation = r.generation JOIN "
                "metrics m ON m.stream = s.stream WHERE r.entity = ? AND r.project = ? AND r.run_id = ? "
                "AND s.name = ? AND m.key = ? AND m.last_step = ?",
                (*_name(ref), HISTORY, key, step),
            ).fetchone()
        return row[0] if row else None

    def files(self, ref: RunRef) -> list[FileRecord]:
        """The files of a run, by name."""
        with catalog.translated(self.folder):
            rows = self.con.execute(
                "SELECT f.name, f.size, f.updated_at, f.mimetype, f.md5, f.local_path FROM files f JOIN runs r "
                "USING (run) WHERE r.entity = ? AND r.project = ? AND r.run_id = ? ORDER BY f.name",
                _name(ref),
            ).fetchall()
        return [FileRecord(*row) for row in rows]

    def mirror(self, ref: RunRef) -> MirrorCursor | None:
        """How far a run has been mirrored from a server."""
        with catalog.translated(self.folder):
            row = self.con.execute(
                "SELECT m.* FROM mirrors m JOIN runs r USING (run) WHERE r.entity = ? AND r.project = ? "
                "AND r.run_id = ?",
                _name(ref),
            ).fetchone()
        return None if row is None else mirror_cursor(row)

    def problems(self) -> dict[str, tuple[str, str | None]]:
        """What could not be read last time: subject -> reason, signature."""
        with catalog.translated(self.folder):
            rows = self.con.execute("SELECT subject, reason, signature FROM problems").fetchall()
        return {row[0]: (row[1], row[2]) for row in rows}

    def mirrored(self, entity: str, project: str, run_id: str | None = None) -> dict[RunRef, Mirrored]:
        """The runs of a project in the cache, or one of them, for a sync to compare the server's listing with."""
        with catalog.translated(self.folder):
            rows = self.con.execute(
                "SELECT r.run_id, r.rows, r.incomplete, r.deleted_at, l.open, e.run IS NOT NULL AS evicted, m.* "
                f"FROM runs r LEFT {EVICTED} LEFT JOIN mirrors m USING (run) LEFT JOIN "
                "(SELECT run, max(status = 'open') AS open FROM logs GROUP BY run) l USING (run) "
                f"WHERE r.entity = ?1 AND r.project = ?2 {'' if run_id is None else 'AND r.run_id = ?3'}",
                (entity, project) if run_id is None else (entity, project, run_id),
            ).fetchall()
        return {
            RunRef(entity, project, row[0]): Mirrored(
                None if row["state"] is None else mirror_cursor(row),
                row["rows"],
                None if row["open"] is None else "open" if row["open"] else "ended",
                row["incomplete"],
                row["deleted_at"] is not None,
                bool(row["evicted"]),
            )
            for row in rows
        }

    def going_on(self, entity: str, project: str) -> int:
        """How many runs of a project, of those that its server has, go on."""
        with catalog.translated(self.folder):
            row = self.con.execute(
                "SELECT count(*) FROM runs JOIN mirrors USING (run) WHERE entity = ? AND project = ? "
                f"AND deleted_at IS NULL AND {catalog.GOES_ON}",
                (entity, project),
            ).fetchone()
        return int(row[0])

    def last_times(self, refs: Iterable[RunRef]) -> dict[str, float | None]:
        """The time of the newest row of each log of some runs (unix seconds), by path."""
        select = (
            "SELECT path, part_of(l.state, 'last_time') FROM logs l JOIN runs USING (run) "
            "WHERE entity = ? AND project = ? AND run_id = ?"
        )
        with catalog.translated(self.folder):
            return {row[0]: row[1] for ref in refs for row in self.con.execute(select, _name(ref))}

    def served(self) -> set[RunRef]:
        """The runs with local logs of which rows came from a server."""
        with catalog.translated(self.folder):
            rows = self.con.execute(
                "SELECT entity, project, run_id FROM runs JOIN mirrors m USING (run) "
                "WHERE m.fetched IS NOT NULL AND run IN (SELECT run FROM logs)"
            )
            return {RunRef(*row) for row in rows}

    def came_at(self, ref: RunRef) -> float | None:
        """When rows of a run last came in (unix seconds)."""
        with catalog.translated(self.folder):
            row = self.con.execute(
                "SELECT came_at FROM uses JOIN runs USING (run) WHERE entity = ? AND project = ? AND run_id = ?",
                _name(ref),
            ).fetchone()
        return row[0] if row else None

    def evicted(self) -> set[RunRef]:
        """The runs whose rows were removed to save space."""
        with catalog.translated(self.folder):
            rows = self.con.execute(f"SELECT entity, project, run_id FROM runs r {EVICTED}")
            return {RunRef(*row) for row in rows}

    def uploaded(self, unknown: str) -> dict[RunRef, RunRef]:
        """Runs of logs that do not say whose they are (entity `unknown`) -> the same runs as a server has them.

        The same: project, run_id, and the time of the last row.
        """
        with catalog.translated(self.folder):
            rows = self.con.execute(
                "SELECT l.project, l.run_id, s.entity FROM runs l JOIN runs s ON s.project = l.project AND "
                "s.run_id = l.run_id AND s.entity <> l.entity JOIN mirrors m ON m.run = s.run WHERE l.entity = ? AND "
                "json_extract(l.summary, '$._timestamp') = json_extract(s.summary, '$._timestamp')",
                (unknown,),
            ).fetchall()
        return {RunRef(unknown, row[0], row[1]): RunRef(row[2], row[0], row[1]) for row in rows}

    def last_time(self, ref: RunRef) -> float | None:
        """The time of a run's last row, as its summary has it (unix seconds)."""
        with catalog.translated(self.folder):
            row = self.con.execute(
                "SELECT json_extract(summary, '$._timestamp') FROM runs "
                "WHERE entity = ? AND project = ? AND run_id = ?",
                _name(ref),
            ).fetchone()
        return row[0] if row else None

    def key_paths(self, ref: RunRef, stream: str | None = None) -> dict[str, tuple[str, ...]]:
        """The shown keys of a run's present rows, with their paths; of one stream or of all."""
        with catalog.translated(self.folder):
            rows = self.con.execute(
                "SELECT m.key, m.path FROM runs r JOIN streams s ON s.run = r.run AND s.generation = r.generation "
                "JOIN metrics m ON m.stream = s.stream WHERE r.entity = ? AND r.project = ? AND r.run_id = ? "
                "AND s.name = coalesce(?, s.name)",
                (*_name(ref), stream),
            ).fetchall()
        return {key: tuple(json.loads(path)) if path else (key,) for key, path in rows}

    def new_generation(self) -> int:
        with catalog.translated(self.folder):
            return catalog.reserve(self.con, 1)

    # -- commit

    def commit(self, shares: Sequence[Share]) -> list[int | None]:
        """Commit shares of different runs together; each run's revision now.

        None for a share that lost the race with another process: read its run again.

        Raises CacheBusy or CacheError; then nothing of it is in the cache.
        """
        with catalog.translated(self.folder), os_errors(self.folder):
            _ = self.con
            self.in_place()
            waiting = dict(enumerate(shares))
            landed: dict[int, int] = {}
            while waiting:
                for i in [i for i, share in waiting.items() if self._revision(share.ref) != share.revision]:
                    del waiting[i]
                try:
                    landed = dict(zip(waiting, self._write(list(waiting.values())), strict=True))
                except _LostRace:
                    continue
                break
        return [landed.get(i) for i in range(len(shares))]

    def _write(self, shares: list[Share]) -> list[int]:
        if not shares:
            return []
        from . import segments

        numbers = self._stream_numbers(shares)
        segment = None
        stats: dict[int, dict[str, Stat]] = {}
        counts: dict[int, int] = {}
        rows = [(numbers[i, name], c) for i, s in enumerate(shares) for name in s.streams for c in s.streams[name]]
        if any(len(columns) for _, columns in rows):
            block = segments.sort(segments.block(number, columns) for number, columns in rows)
            tenants = self._tenants(shares, numbers)
            if len(block) < LARGE:
                stats = measured(block)
                segment = write_segment(self, 0, [block], tenants)
            else:
                from concurrent.futures import ThreadPoolExecutor

                with ThreadPoolExecutor(1, thread_name_prefix="measure") as pool:
                    measuring = pool.submit(measured, block)
                    segment = write_segment(self, 0, [block], tenants)
                stats = measuring.result()
            counts = {stream: sum(stat.count for stat in known.values()) for stream, known in stats.items()}
        try:
            with catalog.transaction(self.con):
                if any(self._revision(share.ref) != share.revision for share in shares):
                    raise _LostRace
                version = catalog.count_commit(self.con)
                if segment is not None:
                    segment.name(self, counts)
                return [
                    self._land(share, {n: numbers[i, n] for n in share.streams}, stats, version)
                    for i, share in enumerate(shares)
                ]
        except Exception:  # not at Ctrl-C, which may come after the COMMIT: gc removes what nothing names
            if segment is not None:
                segment.path.unlink(missing_ok=True)
            raise

    def _stream_numbers(self, shares: list[Share]) -> dict[tuple[int, str], int]:
        """The number of each share's streams: what the catalog has, new ones for new streams."""
        numbers: dict[tuple[int, str], int] = {}
        new: list[tuple[int, str]] = []
        for i, share in enumerate(shares):
            known = dict(
                self.con.execute(
                    "SELECT s.name, s.stream FROM runs r JOIN streams s ON s.run = r.run AND s.generation = "
                    "coalesce(?, r.generation) WHERE r.entity = ? AND r.project = ? AND r.run_id = ?",
                    (share.generation, *_name(share.ref)),
                ).fetchall()
            )
            for name in share.streams:
                if name in known:
                    numbers[i, name] = known[name]
                else:
                    new.append((i, name))
        if new:
            first = catalog.reserve(self.con, len(new))
            numbers.update({one: first + k for k, one in enumerate(new)})
        return numbers

    def _tenants(self, shares: list[Share], numbers: Mapping[tuple[int, str], int]) -> dict[int, Tenant]:
        """Whose rows the segment of a commit has."""
        counts = dict(
            map(
                tuple,
                self.con.execute(
                    "SELECT stream, count FROM streams WHERE stream IN (SELECT value FROM json_each(?))",
                    (json.dumps(list(numbers.values())),),
                ),
            )
        )
        generations = {
            RunRef(*row[:3]): row[3]
            for share in shares
            for row in self.con.execute(
                "SELECT entity, project, run_id, generation FROM runs WHERE entity = ? AND project = ? AND run_id = ?",
                _name(share.ref),
            )
        }
        found = {}
        for (i, name), number in numbers.items():
            share = shares[i]
            keys = {key for columns in share.streams[name] for key in columns.names}
            paths = {key: json.dumps(list(share.paths[key])) for key in keys if key in share.paths}
            generation = share.generation or generations.get(share.ref, 0)
            found[number] = Tenant(share.ref, generation, name, counts.get(number, 0), paths)
        return found

    def _land(self, share: Share, numbers: dict[str, int], stats: dict[int, dict[str, Stat]], version: int) -> int:
        con = self.con
        row = con.execute(
            "SELECT run, generation, revision FROM runs WHERE entity = ? AND project = ? AND run_id = ?",
            _name(share.ref),
        ).fetchone()
        if row is None:
            con.execute(
                "INSERT INTO runs (entity, project, run_id, state, source, generation, revision) "
                "VALUES (?, ?, ?, ?, ?, 0, ?)",  # a generation that no number is reserved for
                (*_name(share.ref), *_first(share.record), version),
            )
            return self._land(share, numbers, stats, version)
        run, revision = int(row["run"]), int(row["revision"])
        generation = share.generation or int(row["generation"])
        for name, stream in numbers.items():
            self._add(run, generation, name, stream, share, stats.get(stream, {}))
        if numbers:
            con.execute(
                "INSERT INTO uses (run, came_at) VALUES (?, ?) "
                "ON CONFLICT (run) DO UPDATE SET came_at = excluded.came_at",
                (run, time.time()),
            )
        if not share.publish:
            return revision
        if generation != row["generation"]:
            forget_streams(con, run, keep=generation)
        self._describe(run, generation, version, share, old=int(row["generation"]))
        if share.mirror is not None:
            con.execute("INSERT OR REPLACE INTO mirrors VALUES (?,?,?,?,?,?,?,?,?)", (run, *cells(share.mirror)))
        if share.files is not None:
            con.execute("DELETE FROM files WHERE run = ?", (run,))
            con.executemany(
                "INSERT INTO files (run, name, size, updated_at, mimetype, md5, local_path) VALUES (?,?,?,?,?,?,?)",
                [(run, *dataclasses.astuple(file)) for file in share.files],
            )
        con.executemany(
            "INSERT OR REPLACE INTO logs (run, path, log_key, signature, position, started_at, rewinds_to, status, "
            "state) VALUES (?,?,?,?,?,?,?,?,?)",
            [(run, *dataclasses.astuple(cursor)) for cursor in share.logs],
        )
        con.executemany("DELETE FROM logs WHERE path = ?", [(path,) for path in share.forget_logs])
        return version

    def _add(self, run: int, generation: int, name: str, stream: int, share: Share, stats: Mapping[str, Stat]) -> None:
        """Count a stream's new rows and merge what is known of its metrics."""
        con, added = self.con, share.streams[name]
        con.execute(
            "INSERT INTO streams (stream, run, generation, name, rows, count) VALUES (?,?,?,?,?,?) "
            "ON CONFLICT (stream) DO UPDATE SET rows = rows + excluded.rows, count = count + excluded.count",
            (stream, run, generation, name, sum(c.rows for c in added), sum(map(len, added))),
        )
        known = stream_stats(con, stream) if stats else {}
        merged = {key: merge(known.get(key, Stat()), stat) for key, stat in stats.items()}
        paths = {key: json.dumps(list(share.paths[key])) for key in merged if key in share.paths}
        put_stats(con, stream, merged, paths)

    def _describe(self, run: int, generation: int, revision: int, share: Share, *, old: int) -> None:
        """Write what is known of the run besides its rows; without a record, only how many rows there are.

        Where its rows were removed to save space, it stays said that they are, until a new generation brings them.
        """
        con, dump, record = self.con, catalog.dump, share.record
        stream, rows, last_step = con.execute(
            "SELECT s.stream, s.rows, max(m.last_step) FROM streams s LEFT JOIN metrics m ON m.stream = s.stream "
            "WHERE s.run = ? AND s.generation = ? AND s.name = ?",
            (run, generation, HISTORY),
        ).fetchone()
        values: dict[str, Any] = {"rows": rows or 0, "last_step": last_step, "generation": generation}
        values |= {"revision": revision, "deleted_at": None}
        summary = record.summary if record else {}
        if record and summary is None:
            nested = con.execute("SELECT key, path FROM metrics WHERE stream = ? AND path IS NOT NULL", (stream,))
            paths = {key: json.loads(path) for key, path in nested}
            summary = summarize(stream_stats(con, stream), paths, record.rules, last_step)
        if record is not None:
            values |= {one.column: _cell(one, getattr(record, one.name)) for one in RECORDED}
            values["summary"] = dump(summary)
        given_up = con.execute("SELECT reason FROM losses WHERE run = ? AND generation = ?", (run, old)).fetchone()
        if given_up and given_up[0] and generation == old and record is not None:
            values["incomplete"] = given_up[0]
        if con.execute("SELECT 1 FROM evictions WHERE run = ? AND generation = ?", (run, old)).fetchone():
            if generation != old:
                values.setdefault("incomplete", None)
            elif record is not None:
                values.pop("incomplete")
                if record.source != "local":  # its server has it, as it says, even if that was not so for a while
                    values["incomplete"] = missing(share.ref)
        con.execute(
            f"UPDATE runs SET {', '.join(f'{name} = ?' for name in values)} WHERE run = ?", (*values.values(), run)
        )
        con.execute(
            "INSERT OR IGNORE INTO projects (entity, project, source) SELECT entity, project, source FROM runs "
            "WHERE run = ?",
            (run,),
        )

    # -- changes to whole runs

    def cut(self, ref: RunRef, last: int, *, revision: int | None = None) -> None:
        """Rewind a run: drop its history after step `last`. The rows after it stay readable until the one commit.

        Raises CacheBusy if another process has committed to the run since `revision` (None: as it stands now).
        """
        from . import segments

        with catalog.translated(self.folder), os_errors(self.folder):
            con = self.con
            run, now, old, stream = con.execute(
                "SELECT r.run, r.revision, r.generation, s.stream FROM runs r LEFT JOIN streams s ON s.run = r.run AND "
                "s.generation = r.generation AND s.name = ? WHERE entity = ? AND project = ? AND run_id = ?",
                (HISTORY, *_name(ref)),
            ).fetchone()
            new = catalog.reserve(con, 1)
            stats: dict[str, Stat] = {}
            nested = {key: path for key, path in self.key_paths(ref, HISTORY).items() if path != (key,)}

            def kept() -> Iterator[segments.Block]:
                for block in segments.merged(checked(self, self.segments_of([stream])), [stream]):
                    part = segments.select(block, block.step <= last, new)
                    stats.update(measured(part).get(new, {}))
                    yield part

            tenant = Tenant(ref, new, HISTORY, 0, {key: json.dumps(list(path)) for key, path in nested.items()})
            segment = write_segment(self, 0, kept(), {new: tenant})
            rows = max((stat.count for stat in stats.values()), default=0)
            count = sum(stat.count for stat in stats.values())
            try:
                with catalog.transaction(con):
                    if self._revision(ref) != (now if revision is None else revision):
                        raise CacheBusy(f"another process is syncing {ref}")
                    version = catalog.count_commit(con)
                    paths = dict(con.execute("SELECT key, path FROM metrics WHERE stream = ?", (stream,)).fetchall())
                    con.execute(
                        "UPDATE streams SET generation = ? WHERE run = ? AND generation = ? AND name <> ?",
                        (new, run, old, HISTORY),
                    )
                    if segment is not None:
                        segment.name(self, {new: count})
                    con.execute("INSERT INTO streams VALUES (?,?,?,?,?,?)", (new, run, new, HISTORY, rows, count))
                    put_stats(con, new, stats, paths)
                    forget_streams(con, run, keep=new)
                    con.execute("UPDATE evictions SET generation = ? WHERE run = ? AND generation = ?", (new, run, old))
                    con.execute(
                        "UPDATE runs SET generation = ?, revision = ?, rows = ?, last_step = "
                        "(SELECT max(last_step) FROM metrics WHERE stream = ?) WHERE run = ?",
                        (new, version, rows, new, run),
                    )
            except Exception:
                if segment is not None:
                    segment.path.unlink(missing_ok=True)
                raise

    def rename(self, old: RunRef, new: RunRef) -> None:
        """Give a run its right name, now that it is known. Raises CacheBusy if there is a run of that name by now."""
        with catalog.translated(self.folder), catalog.transaction(self.con):
            if self._revision(new) is not None:
                raise CacheBusy(f"{old} cannot become {new}, which another process has just added")
            version = catalog.count_commit(self.con)
            self.con.execute(
                "UPDATE runs SET entity = ?, project = ?, run_id = ?, revision = ? "
                "WHERE entity = ? AND project = ? AND run_id = ?",
                (*_name(new), version, *_name(old)),
            )
            self._tidy_projects()

    def forget(self, ref: RunRef) -> None:
        """Drop a run and its rows from the cache."""
        with catalog.translated(self.folder), catalog.transaction(self.con):
            catalog.count_commit(self.con)
            found = self.con.execute(
                "SELECT run FROM runs WHERE entity = ? AND project = ? AND run_id = ?", _name(ref)
            ).fetchone()
            if found:
                forget_streams(self.con, found[0], keep=None)
                of_run = ("files", "owed_files", "logs", "checks", "mirrors", "evictions", "losses", "uses", "runs")
                for table in of_run:
                    self.con.execute(f"DELETE FROM {table} WHERE run = ?", (found[0],))
                self._tidy_projects()

    def _tidy_projects(self) -> None:
        self.con.execute(
            "INSERT OR IGNORE INTO projects (entity, project, source) SELECT DISTINCT entity, project, source FROM runs"
        )
        self.con.execute(
            "DELETE FROM projects WHERE source = 'local' AND NOT EXISTS (SELECT 1 FROM runs r WHERE "
            "r.entity = projects.entity AND r.project = projects.project)"
        )

    # -- what a sync notes besides rows

    def note_mirrors(self, cursors: Mapping[RunRef, MirrorCursor]) -> None:
        """Note how the mirroring of runs stands where nothing of the runs themselves has changed."""
        with catalog.translated(self.folder), catalog.transaction(self.con):
            self.con.executemany(
                "INSERT OR REPLACE INTO mirrors SELECT run, ?, ?, ?, ?, ?, ?, ?, ? FROM runs "
                "WHERE entity = ? AND project = ? AND run_id = ?",
                [(*cells(cursor), *_name(ref)) for ref, cursor in cursors.items()],
            )

    def deleted(self, refs: Iterable[RunRef], at: float) -> None:
        """Note that runs are gone from their server; what is in the cache stays."""
        with catalog.translated(self.folder), catalog.transaction(self.con):
            version = catalog.count_commit(self.con)
            self.con.executemany(
                "UPDATE runs AS r SET deleted_at = ?, revision = ?, incomplete = CASE WHEN EXISTS (SELECT 1 FROM "
                "evictions e WHERE e.run = r.run AND e.generation = r.generation) THEN ? ELSE incomplete END "
                "WHERE entity = ? AND project = ? AND run_id = ?",
                [(at, version, LOST, *_name(ref)) for ref in refs],
            )

    def checked(self, refs: Iterable[RunRef], at: float) -> None:
        """Note that these runs were found up to date (unix seconds)."""
        refs = list(refs)
        if not refs:
            return
        with catalog.translated(self.folder), catalog.transaction(self.con):
            catalog.count_checks(self.con)
            self.con.executemany(
                "INSERT OR REPLACE INTO checks SELECT run, ? FROM runs WHERE entity = ? AND project = ? AND run_id = ?",
                [(at, *_name(ref)) for ref in refs],
            )

    def checked_at(self, ref: RunRef) -> float | None:
        """When a run was found up to date (unix seconds)."""
        with catalog.translated(self.folder):
            row = self.con.execute(
                "SELECT synced_at FROM checks JOIN runs USING (run) WHERE entity = ? AND project = ? AND run_id = ?",
                _name(ref),
            ).fetchone()
        return row[0] if row else None

    def synced(self, kind: str, location: str, at: float) -> None:
        """Note that a whole source was synced."""
        with catalog.translated(self.folder), catalog.transaction(self.con):
            self.con.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?)", (kind, location, at))

    def sources(self, kind: str) -> dict[str, float]:
        """The places of this kind that were synced, and when (unix seconds)."""
        with catalog.translated(self.folder):
            return dict(map(tuple, self.con.execute("SELECT location, synced_at FROM sources WHERE kind = ?", (kind,))))

    def note_problems(self, found: Mapping[str, tuple[str, str | None]], gone: Iterable[str], at: float) -> None:
        """Record subjects that could not be read (subject -> reason, signature), and forget those that can be now."""
        with catalog.translated(self.folder), catalog.transaction(self.con):
            self.con.executemany("DELETE FROM problems WHERE subject = ?", [(subject,) for subject in gone])
            self.con.executemany(
                "INSERT INTO problems VALUES (?1, ?2, ?3, ?4, ?4, 1) ON CONFLICT (subject) DO UPDATE SET "
                "reason = ?2, signature = ?3, last_at = ?4, attempts = attempts + 1",
                [(subject, reason, signature, at) for subject, (reason, signature) in found.items()],
            )


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _first(record: RunRecord | None) -> tuple[str, str]:
    """State and source of a run that is being made."""
    return (record.state, record.source) if record else ("running", "local")


class _LostRace(Exception):
    """A signal between two methods here, not an error."""


def _cell(one: Field, value: Any) -> Any:
    """A value of a record as the catalog has it."""
    if one.type == "JSON":
        return catalog.dump(value)
    return catalog.dump(list(value)) if one.type.endswith("[]") else value


def _name(ref: RunRef) -> tuple[str, str, str]:
    return ref.entity, ref.project, ref.run_id
