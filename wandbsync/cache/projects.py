"""What the catalog has of projects and sweeps besides their runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from ..model import ProjectRecord, SweepRecord
from . import catalog
from .store import Cache


def put_projects(cache: Cache, projects: Iterable[ProjectRecord]) -> None:
    """Note projects of a server; what it does not say stays as it was."""
    with catalog.translated(cache.folder), catalog.transaction(cache.con):
        before = cache.con.total_changes
        cache.con.executemany(
            "INSERT INTO projects (entity, project, description, created_at, updated_at, total_runs, url, source) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 'api') ON CONFLICT (entity, project) DO UPDATE SET "
            "(description, created_at, updated_at, total_runs, url, source) = "
            "(coalesce(excluded.description, description), coalesce(excluded.created_at, created_at), "
            "coalesce(excluded.updated_at, updated_at), coalesce(excluded.total_runs, total_runs), excluded.url, 'api') "
            "WHERE (excluded.description, excluded.created_at, excluded.updated_at, excluded.total_runs, excluded.url, "
            "'api') IS NOT (description, created_at, updated_at, total_runs, url, source)",
            [dataclasses.astuple(one) for one in projects],
        )
        if cache.con.total_changes > before:
            catalog.count_checks(cache.con)


def put_sweeps(cache: Cache, sweeps: Iterable[SweepRecord]) -> None:
    """Note sweeps as their server has them now."""
    names = [one.name for one in dataclasses.fields(SweepRecord)]
    with catalog.translated(cache.folder), catalog.transaction(cache.con):
        catalog.count_checks(cache.con)
        cache.con.executemany(
            f"INSERT OR REPLACE INTO sweeps ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            [
                [catalog.dump(one.config) if name == "config" else getattr(one, name) for name in names]
                for one in sweeps
            ],
        )


def sweeps(cache: Cache, entity: str, project: str) -> dict[str, SweepRecord]:
    """The sweeps of a project by their ids, the oldest first."""
    names = [one.name for one in dataclasses.fields(SweepRecord)]
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            f"SELECT {', '.join(names)} FROM sweeps WHERE entity = ? AND project = ? ORDER BY created_at, sweep_id",
            (entity, project),
        ).fetchall()
    return {row["sweep_id"]: SweepRecord(**{**dict(row), "config": json.loads(row["config"])}) for row in rows}
