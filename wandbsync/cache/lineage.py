"""Forks: whose rows a run goes on from, and up to which step.

run fork, forked from parent@20    fork: all its rows    parent: those up to step 20, as far as fork has none there
"""

from __future__ import annotations

from ..model import RunRef
from . import catalog
from .store import Cache

# (run, entity, project, run_id, source_id, until, up): of each run itself and its ancestors, the last step whose rows
# count; null for all. `up` is "run_id@step" of the next one. Rows of a step that a younger one has are not taken twice:
# some servers give a fork its parent's rows. A hundred generations, should a chain lead back to itself.
_FIRST = (  # its first step; asked for of forks alone
    "CASE WHEN r.forked_from IS NOT NULL THEN (SELECT min(m.first_step) FROM streams s JOIN metrics m USING (stream) "
    "WHERE s.run = r.run AND s.generation = r.generation AND s.name = 'history') END"
)
_PARENT = "substr(rtrim(l.up, '0123456789'), 1, length(rtrim(l.up, '0123456789')) - 1)"
_STEP = "CAST(substr(l.up, length(rtrim(l.up, '0123456789')) + 1) AS INTEGER)"
LINEAGE = f"""
WITH RECURSIVE lineage (run, entity, project, run_id, source_id, until, up, first, depth) AS (
  SELECT r.run, r.entity, r.project, r.run_id, r.run_id, NULL, r.forked_from, {_FIRST}, 0 FROM runs r
  UNION ALL
  SELECT l.run, l.entity, l.project, l.run_id, r.run_id,
    min({_STEP}, coalesce(l.until, {_STEP}), coalesce(l.first - 1, {_STEP})), r.forked_from,
    min(coalesce({_FIRST}, l.first), coalesce(l.first, {_FIRST})), l.depth + 1
  FROM lineage l JOIN runs r ON r.entity = l.entity AND r.project = l.project AND r.run_id = {_PARENT}
  WHERE l.up IS NOT NULL AND l.depth < 100
)
"""
SELECT = f"{LINEAGE} SELECT entity, project, run_id, source_id, until FROM lineage"


def lineage(cache: Cache, ref: RunRef) -> list[tuple[RunRef, int | None]]:
    """A run and its ancestors in the cache, with the last step that counts of each (None: all); the youngest first."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            f"{LINEAGE} SELECT source_id, until FROM lineage WHERE entity = ? AND project = ? AND run_id = ? "
            "ORDER BY depth",
            (ref.entity, ref.project, ref.run_id),
        ).fetchall()
    return [(RunRef(ref.entity, ref.project, row[0]), row[1]) for row in rows]


def parent(cache: Cache, ref: RunRef) -> RunRef | None:
    """The run that a run was forked from, here or not."""
    with catalog.translated(cache.folder):
        row = cache.con.execute(
            "SELECT forked_from FROM runs WHERE entity = ? AND project = ? AND run_id = ?",
            (ref.entity, ref.project, ref.run_id),
        ).fetchone()
    return RunRef(ref.entity, ref.project, row[0].rpartition("@")[0]) if row and row[0] else None
