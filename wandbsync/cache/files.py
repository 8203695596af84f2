"""What the catalog has of files that are mirrored with a run: which are still to come, and what its metadata file says.

Their bytes lie in `media/`, each under its MD5.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..model import FileRecord, RunRef
from . import catalog
from .store import Cache

METADATA = "wandb-metadata.json"


def owe(cache: Cache, refs: Iterable[RunRef], *, retry_at: float, failed: bool = False) -> None:
    """Note runs whose files are still to come, not before a time (unix seconds)."""
    with catalog.translated(cache.folder), catalog.transaction(cache.con):
        cache.con.executemany(
            "INSERT INTO owed_files SELECT run, ?, ? FROM runs WHERE entity = ? AND project = ? AND run_id = ? "
            "ON CONFLICT (run) DO UPDATE SET retry_at = excluded.retry_at, failures = "
            "CASE WHEN excluded.failures THEN failures + 1 ELSE failures END",
            [(retry_at, int(failed), ref.entity, ref.project, ref.run_id) for ref in refs],
        )


def paid(cache: Cache, refs: Iterable[RunRef]) -> None:
    """Note runs all of whose files have come."""
    with catalog.translated(cache.folder), catalog.transaction(cache.con):
        before = cache.con.total_changes
        cache.con.executemany(
            "DELETE FROM owed_files WHERE run = (SELECT run FROM runs WHERE entity = ? AND project = ? AND run_id = ?)",
            [(ref.entity, ref.project, ref.run_id) for ref in refs],
        )
        if cache.con.total_changes > before:
            catalog.count_checks(cache.con)  # SQL says where they are


def owed(cache: Cache, entity: str, project: str) -> dict[RunRef, tuple[float, int]]:
    """The runs of a project whose files are still to come: not before when, and how often that has failed."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT run_id, retry_at, failures FROM owed_files JOIN runs USING (run) WHERE entity = ? AND project = ? "
            "AND deleted_at IS NULL",
            (entity, project),
        ).fetchall()
    return {RunRef(entity, project, row[0]): (row[1], row[2]) for row in rows}


def server_files(cache: Cache, refs: Collection[RunRef]) -> dict[RunRef, list[FileRecord]]:
    """The files of some runs that only their server has, as far as their content is known by its MD5."""
    return {
        ref: [file for file in cache.files(ref) if file.md5 is not None and file.local_path is None] for ref in refs
    }


def read_metadata(path: Path) -> dict[str, Any]:
    """What a metadata file says; {} if that is no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def put_metadata(cache: Cache, found: Mapping[RunRef, Mapping[str, Any]]) -> None:
    """Add what the metadata files of runs say to what is known of them; what is known stays."""
    if not found:
        return
    with catalog.translated(cache.folder), catalog.transaction(cache.con):
        revision = catalog.count_commit(cache.con)
        for ref, metadata in found.items():
            name = ref.entity, ref.project, ref.run_id
            row = cache.con.execute(
                "SELECT run, metadata FROM runs WHERE entity = ? AND project = ? AND run_id = ?", name
            ).fetchone()
            if row is not None:
                text = catalog.dump({**metadata, **json.loads(row["metadata"])})
                cache.con.execute(
                    "UPDATE runs SET metadata = ?, revision = ? WHERE run = ?", (text, revision, row["run"])
                )
