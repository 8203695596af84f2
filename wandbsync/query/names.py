"""What people write, as what the catalog has: a project, a run; and near matches for what it has not."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ..cache import Cache, catalog
from ..errors import NotFound, UsageError, nearest
from ..model import RunRef
from ..targets import parse

LOCAL = "local"  # whose runs are that do not say it


def find_project(cache: Cache, spec: str, *, default_entity: str | None = None) -> tuple[str, str]:
    """`entity/project`, or `project` alone, as (entity, project). Raises NotFound with near matches.

    Of a project whose runs do and do not name their entity, the one that is named.
    """
    return find_projects(cache, spec, default_entity=default_entity)[0]


def find_projects(cache: Cache, spec: str, *, default_entity: str | None = None) -> list[tuple[str, str]]:
    """The same, and if the entity is not given also the project of that name whose runs do not name theirs."""
    target = parse(spec)
    if target.run is not None:
        raise UsageError(f"{spec!r} is not a project", hint="write entity/project, or project alone")
    parts = [part for part in (target.entity, target.project) if part]
    with catalog.translated(cache.folder):
        known = [(row[0], row[1]) for row in cache.con.execute("SELECT entity, project FROM projects ORDER BY 1, 2")]
    if len(parts) == 2:
        if (parts[0], parts[1]) in known:
            return [(parts[0], parts[1])]
    else:
        matches = [one for one in known if one[1] == parts[0]]
        first = [one for one in matches if one[0] == default_entity]
        first = first or [one for one in matches if one[0] != LOCAL] or matches
        if len(first) > 1:
            names = " and ".join("/".join(one) for one in matches)
            raise UsageError(f"the project {parts[0]} exists more than once", hint=f"choose one of {names}")
        if first:
            return first + [one for one in matches if one[0] == LOCAL and one not in first]
    raise NotFound(f"no project {'/'.join(parts)} in the cache", hint=nearest("/".join(parts), map("/".join, known)))


def find_run(cache: Cache, project: tuple[str, str], name: str) -> RunRef:
    """A run of a project by its run_id, or else by its display name. Raises NotFound with near matches."""
    name = name.strip()
    with catalog.translated(cache.folder):
        itself = "SELECT 1 FROM runs WHERE entity = ? AND project = ? AND run_id = ?"
        if cache.con.execute(itself, (*project, name)).fetchone():
            return RunRef(*project, name)
        rows = cache.con.execute(
            "SELECT run_id, display_name FROM runs WHERE entity = ? AND project = ? ORDER BY created_at DESC", project
        ).fetchall()
    named = [row[0] for row in rows if row[1] == name]
    if len(named) > 1:
        raise UsageError(f"{len(named)} runs are named {name}", hint=f"use a run id: {', '.join(named[:8])}")
    if named:
        return RunRef(*project, named[0])
    known = [text for row in rows for text in dict.fromkeys(row) if text]
    hint = nearest(name, known)
    if project[0] != LOCAL:
        with contextlib.suppress(NotFound):
            hint = f"{find_run(cache, (LOCAL, project[1]), name)} is a run that does not say whose it is"
    raise NotFound(f"no run {name} in {'/'.join(project)}", hint=hint)


def is_pattern(name: str) -> bool:
    """Whether a name may stand for several runs: *, ? and [] as a shell has them."""
    return any(char in name for char in "*?[")


def find_runs(cache: Cache, project: tuple[str, str], names: Sequence[str]) -> list[RunRef]:
    """The runs of a project by their run_ids, display names, or patterns of either; each once, in this order.

    Those that fit a pattern are in the order in which they were made. A name that a run really has is no pattern.
    Raises NotFound for a name or pattern that no run has.
    """
    found: list[RunRef] = []
    for name in names:
        found += _fitting(cache, project, name.strip()) if is_pattern(name) else [find_run(cache, project, name)]
    return list(dict.fromkeys(found))


def _fitting(cache: Cache, project: tuple[str, str], pattern: str) -> list[RunRef]:
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT run_id, display_name FROM runs WHERE entity = ? AND project = ? AND deleted_at IS NULL "
            "ORDER BY created_at, run",
            project,
        ).fetchall()
    itself = [row[0] for row in rows if pattern in row]
    fitting = itself or [row[0] for row in rows if any(fnmatchcase(text, pattern) for text in row if text)]
    if not fitting:
        raise NotFound(f"none of {len(rows)} runs in {'/'.join(project)} fits {pattern}")
    return [RunRef(*project, run_id) for run_id in fitting]


def run_refs(cache: Cache, project: tuple[str, str]) -> list[RunRef]:
    """The runs of a project, the first made first."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT run_id FROM runs WHERE entity = ? AND project = ? AND deleted_at IS NULL ORDER BY created_at, run",
            project,
        ).fetchall()
    return [RunRef(*project, row[0]) for row in rows]


def run_names(cache: Cache, spec: str, *, default_entity: str | None = None) -> set[str]:
    """The run_ids and display names of a project; none if it is not in the cache."""
    if not cache.exists():
        return set()
    try:
        project = find_project(cache, spec, default_entity=default_entity)
    except (NotFound, UsageError):
        return set()
    with catalog.translated(cache.folder):
        rows = cache.con.execute("SELECT run_id, display_name FROM runs WHERE entity = ? AND project = ?", project)
        return {text for row in rows for text in row if text}
