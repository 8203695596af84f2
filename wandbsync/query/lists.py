"""Projects, runs, files and the cache itself, as the catalog has them: dicts ready for JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..cache import Cache, catalog
from ..errors import NotFound, UsageError
from ..model import FIELDS, STATES, RunRef, is_time
from ..model.run import HEAVY

if TYPE_CHECKING:
    from ..cache.retention import Limits


def timestamp(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC; None for what is no time."""
    if seconds is None or not is_time(seconds):
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def list_projects(cache: Cache, *, entity: str | None = None, limit: int | None = 100) -> list[dict[str, Any]]:
    """The projects in the cache, by name."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT p.*, count(r.run) AS runs, max(c.synced_at) AS synced_at, min(r.incomplete IS NULL) AS complete "
            "FROM projects p LEFT JOIN runs r ON r.entity = p.entity AND r.project = p.project "
            "LEFT JOIN checks c ON c.run = r.run WHERE ?1 IS NULL OR p.entity = ?1 "
            "GROUP BY p.entity, p.project ORDER BY p.entity, p.project LIMIT ?2",
            (entity, -1 if limit is None else limit),
        ).fetchall()
    return [
        {
            "name": row["project"],
            "entity": row["entity"],
            "description": row["description"],
            "created_at": timestamp(row["created_at"]),
            "updated_at": timestamp(row["updated_at"]),
            "total_runs": row["total_runs"],
            "url": row["url"],
            "runs": row["runs"],
            "source": row["source"],
            "synced_at": timestamp(row["synced_at"]),
            "complete": bool(row["complete"]),
        }
        for row in rows
    ]


def list_runs(
    cache: Cache, project: tuple[str, str], *, state: str | None = None, limit: int | None = 100
) -> list[dict[str, Any]]:
    """The runs of a project, newest first; `limit` None for all. Raises UsageError for a state that no run can have."""
    if state is not None and state not in STATES:
        raise UsageError(f"no run is ever {state!r}", hint=f"states are {', '.join(STATES)}")
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            f"{_RUNS} WHERE entity = ?1 AND project = ?2 "
            "AND (?3 IS NULL OR state = ?3) ORDER BY created_at DESC, run DESC LIMIT ?4",
            (*project, state, -1 if limit is None else limit),
        ).fetchall()
    return [_run(row) for row in rows]


def all_runs(cache: Cache, project: tuple[str, str]) -> list[dict[str, Any]]:
    """Every run of a project as `get_run` has it, oldest first; those deleted on their server are there too."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            f"{_RUNS} WHERE entity = ? AND project = ? ORDER BY created_at, run",
            project,
        ).fetchall()
    return [_whole(row) for row in rows]


def count_runs(cache: Cache, project: tuple[str, str], *, state: str | None = None) -> int:
    """How many runs `list_runs` would list without a limit."""
    with catalog.translated(cache.folder):
        row = cache.con.execute(
            "SELECT count(*) FROM runs WHERE entity = ?1 AND project = ?2 AND (?3 IS NULL OR state = ?3)",
            (*project, state),
        ).fetchone()
    return int(row[0])


def get_run(cache: Cache, ref: RunRef) -> dict[str, Any]:
    """One run as `list_runs` lists it, and its config."""
    with catalog.translated(cache.folder):
        row = cache.con.execute(
            f"{_RUNS} WHERE entity = ? AND project = ? AND run_id = ?",
            (ref.entity, ref.project, ref.run_id),
        ).fetchone()
    if row is None:
        raise NotFound(f"no run {ref} in the cache")
    return _whole(row)


def _whole(row: Any) -> dict[str, Any]:
    metadata = json.loads(row["metadata"])
    metadata.pop("_wandb", None)  # see own_summaries
    return {**_run(row), "config": json.loads(row["config"]), "metadata": metadata}


def gaps(cache: Cache, refs: Iterable[RunRef]) -> dict[RunRef, tuple[int, str]]:
    """Of some runs those that lack rows: how many they have, and why not all."""
    found = {}
    with catalog.translated(cache.folder):
        for ref in refs:
            row = cache.con.execute(
                "SELECT rows, incomplete FROM runs WHERE entity = ? AND project = ? AND run_id = ? "
                "AND incomplete IS NOT NULL",
                (ref.entity, ref.project, ref.run_id),
            ).fetchone()
            if row is not None:
                found[ref] = (row[0], row[1])
    return found


def own_summaries(cache: Cache, project: tuple[str, str], run_id: str | None = None) -> dict[str, dict[str, Any]]:
    """What a server's W&B keeps of its own in the summaries of runs (`_wandb`), by run_id, where it does."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT run_id, json_extract(metadata, '$._wandb') FROM runs WHERE entity = ?1 AND project = ?2 "
            "AND (?3 IS NULL OR run_id = ?3) AND json_extract(metadata, '$._wandb') IS NOT NULL",
            (*project, run_id),
        ).fetchall()
    return {row[0]: json.loads(row[1]) for row in rows}


def _run(row: Any) -> dict[str, Any]:
    return {shown: row[name] if read is None else read(row[name]) for shown, name, read in _LISTED}


# What the catalog has of a type -> as JSON has it.
_READ: dict[str, Callable[[Any], Any]] = {
    "TIMESTAMP": timestamp, "BOOLEAN": bool, "JSON": json.loads, "VARCHAR[]": json.loads,
}  # fmt: skip
_LISTED = [
    (one.in_json, one.name, _READ.get(one.type)) for one in FIELDS if one.json is not None and one.name not in HEAVY
]
_RUNS = f"SELECT {catalog.RUN} FROM runs LEFT JOIN checks USING (run)"


def list_files(cache: Cache, ref: RunRef) -> list[dict[str, Any]]:
    """The files of a run, by name."""
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        run = get_run(cache, ref)
        rows = cache.con.execute(
            "SELECT f.* FROM files f JOIN runs r ON r.run = f.run WHERE r.entity = ? AND r.project = ? "
            "AND r.run_id = ? ORDER BY f.name",
            (ref.entity, ref.project, ref.run_id),
        ).fetchall()
    return [
        {
            "name": row["name"],
            "size": row["size"],
            "mimetype": row["mimetype"],
            "updated_at": timestamp(row["updated_at"]),
            "md5": row["md5"],
            "local_path": row["local_path"],
            **{name: run[name] for name in ("source", "synced_at", "complete")},
        }
        for row in rows
    ]


def cache_info(cache: Cache, limits: Limits | None = None) -> dict[str, Any]:
    """What is in the cache, how large each part of it is, and by how much that is more than it may be.

    `over_bytes` leaves out what is reclaimable by waiting alone.
    """
    from ..cache import usage

    sizes, most = usage.measure(cache), limits.max_size if limits else None
    with catalog.translated(cache.folder):
        one = cache.con.execute(
            "SELECT (SELECT count(*) FROM projects), (SELECT count(*) FROM runs), "
            "(SELECT coalesce(sum(rows), 0) FROM runs), (SELECT count(*) FROM segments WHERE removed_at IS NULL), "
            "(SELECT coalesce(sum(count), 0) FROM segments WHERE removed_at IS NULL), "
            "(SELECT count(*) FROM evictions JOIN runs USING (run, generation)), "
            "(SELECT max(synced_at) FROM checks), (SELECT count(*) FROM problems)"
        ).fetchone()
        journal = cache.con.execute("PRAGMA journal_mode").fetchone()[0]
    return {
        "folder": str(cache.folder),
        "projects": one[0],
        "runs": one[1],
        "rows": one[2],
        "values": one[4],
        "segments": one[3],
        "evicted_runs": one[5],
        "total_bytes": sizes.total,
        "segment_bytes": sizes.rows,
        "media_bytes": sizes.media,
        "catalog_bytes": sizes.catalog,
        "duckdb_bytes": sizes.duckdb,
        "derived_bytes": sizes.derived,
        "other_bytes": sizes.other,
        "reclaimable_bytes": sizes.reclaimable,
        "max_size_bytes": most,
        "over_bytes": 0 if most is None else max(0, sizes.held - most),
        "journal": journal,
        "problems": one[7],
        "synced_at": timestamp(one[6]),
    }
