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
    names = [one.name for one in dataclasses.fields(ProjectRecord)]
    with catalog.translated(cache.folder), catalog.transaction(cache.con):
        known = {
            (row["entity"], row["project"]): dict(row)
            for row in cache.con.execute(f"SELECT {', '.join(names)}, source FROM projects")
        }
        rows = []
        for one in projects:
            told = {name: value for name in names if (value := getattr(one, name)) is not None} | {"source": "api"}
            before = known.get((one.entity, one.project), {})
            if (now := {**dict.fromkeys(names), **before, **told}) != before:
                rows.append([now[name] for name in (*names, "source")])
        if rows:
            catalog.count_checks(cache.con)
            cache.con.executemany(
                f"INSERT OR REPLACE INTO projects ({', '.join(names)}, source) VALUES ({'?, ' * len(names)}?)", rows
            )


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
