"""Claims: a project is published by one cache, which stands in `projects` and is heard of there now and then."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import WandbsyncError
from . import records, there
from .delta import Lake, Overtaken, next_number
from .here import Project, ProjectHere

PATIENCE = 8  # times that claims are made anew because others write at once


@dataclass(slots=True)
class Claims:
    """Which projects are this cache's to publish."""

    mine: list[ProjectHere] = field(default_factory=list)  # with those of the lake that the cache has no more
    new: set[Project] = field(default_factory=set)  # that were not its own before
    left: list[str] = field(default_factory=list)  # that another cache publishes, and which


def claim(
    lake: Lake,
    found: Sequence[ProjectHere],
    *,
    writer: str,
    machine: str,
    now: float,
    take_over: bool = False,
    dry_run: bool = False,
) -> Claims:
    """Claim the projects of a cache, so far as another cache does not publish them. Raises WandbsyncError."""
    for attempt in range(PATIENCE):
        number, known = there.owners(lake)
        rows = {project: row for project, (_, row) in known.items()}
        claims, changed = Claims(), False
        for project in found:
            name = "/".join(project.key[1:])
            owner, old = known.get(project.key, (None, None))
            if owner is not None and not (take_over or owner.lets(writer, now)):
                ago = max(0, int((now - owner.heard_at) // 60))
                claims.left.append(f"{name} is published by {owner.name}, heard of {ago}m ago")
                continue
            claims.mine.append(project)
            row = records.project(project, writer, machine, now)
            if owner is None or owner.writer != writer:
                claims.new.add(project.key)
            elif now - owner.heard_at <= there.HEARD and _same(row, old):
                continue
            rows[project.key], changed = row, True
        here_now = {project.key for project in found}
        claims.mine += [
            ProjectHere(key[0], row, 0, -1)
            for key, (owner, row) in known.items()
            if owner.writer == writer and key not in here_now
        ]
        if dry_run or not changed:
            return claims
        write = lake.replace("projects", functools.partial(records.table, "projects", list(rows.values())), None)
        try:
            lake.commit("projects", there.OWNERS, next_number(number), number, write)
            return claims
        except Overtaken:
            lake.pause(attempt)
    raise WandbsyncError(f"too many caches write to {lake.address} at once", hint="try again later")


def owns(lake: Lake, project: Project, writer: str) -> bool:
    """Whether a project is still this cache's to publish."""
    owner, _ = there.owners(lake)[1].get(project, (None, None))
    return owner is not None and owner.writer == writer


def _same(new: dict[str, Any], old: dict[str, Any] | None) -> bool:
    """Whether a project is as it was, but for when its owner was heard of."""
    return old is not None and all(new[name] == old.get(name) for name in new if name != "heard_at")
