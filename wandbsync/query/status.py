"""How the cache stands: how fresh each project is, what is incomplete, what is left alone for a while, and why."""

from __future__ import annotations

from typing import Any

from ..cache import Cache, catalog
from ..cache.eviction import EVICTED
from .lists import timestamp

SHOWN = 1000  # runs of a kind


def status(cache: Cache) -> dict[str, Any]:
    """Projects by name with their freshness; runs that go on; runs with rows missing; what could not be read.

    Rows that were removed to save space are counted (`evicted`), not missed.
    """
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        projects = cache.con.execute(
            "SELECT p.entity, p.project, count(r.run) AS runs, sum(r.state = 'running') AS running, "
            "sum(r.incomplete IS NOT NULL AND e.run IS NULL) AS incomplete, count(e.run) AS evicted, "
            "sum(r.deleted_at IS NOT NULL) AS deleted, "
            "max(c.synced_at) AS newest, min(c.synced_at) AS oldest, group_concat(DISTINCT r.source) AS sources "
            "FROM projects p LEFT JOIN runs r ON r.entity = p.entity AND r.project = p.project "
            f"LEFT JOIN checks c ON c.run = r.run LEFT {EVICTED} GROUP BY p.entity, p.project ORDER BY 1, 2"
        ).fetchall()
        runs = cache.con.execute(
            "SELECT entity, project, run_id, r.state, incomplete, coalesce(m.failures, 0) AS failures, m.retry_at, "
            f"m.reason FROM runs r LEFT JOIN mirrors m USING (run) LEFT {EVICTED} "
            "WHERE (incomplete IS NOT NULL AND e.run IS NULL) OR m.failures > 0 "
            f"ORDER BY failures DESC, r.created_at DESC LIMIT {SHOWN}"
        ).fetchall()
        going_on = cache.con.execute(
            "SELECT entity, project, run_id, state, source, rows, heartbeat_at, synced_at FROM runs LEFT JOIN checks "
            f"USING (run) WHERE {catalog.GOES_ON} AND deleted_at IS NULL ORDER BY created_at DESC LIMIT {SHOWN}"
        ).fetchall()
        size = cache.con.execute("SELECT coalesce(sum(bytes), 0) FROM segments").fetchone()[0]
        problems = cache.con.execute("SELECT * FROM problems ORDER BY subject").fetchall()
    return {
        "projects": [
            {
                "entity": row["entity"],
                "project": row["project"],
                "runs": row["runs"],
                "running": row["running"] or 0,
                "incomplete": row["incomplete"] or 0,
                "evicted": row["evicted"],
                "deleted": row["deleted"] or 0,
                "source": row["sources"],
                "synced_at": timestamp(row["newest"]),
                "oldest_synced_at": timestamp(row["oldest"]),
            }
            for row in projects
        ],
        "running": [
            {
                "entity": row["entity"],
                "project": row["project"],
                "run_id": row["run_id"],
                "state": row["state"],
                "source": row["source"],
                "rows": row["rows"],
                "heartbeat_at": timestamp(row["heartbeat_at"]),
                "synced_at": timestamp(row["synced_at"]),
            }
            for row in going_on
        ],
        "incomplete": [
            {
                "entity": row["entity"],
                "project": row["project"],
                "run_id": row["run_id"],
                "state": row["state"],
                "reason": row["incomplete"] or row["reason"],
                "failures": row["failures"],
                "retry_at": timestamp(row["retry_at"]),
            }
            for row in runs
        ],
        "problems": [
            {
                "subject": row["subject"],
                "reason": row["reason"],
                "since": timestamp(row["first_at"]),
                "last_at": timestamp(row["last_at"]),
                "attempts": row["attempts"],
            }
            for row in problems
        ],
        "cache": {"folder": str(cache.folder), "segment_bytes": size},
    }
