"""Rows that a damaged segment held. Readers refuse it; whatever syncs the run next reads all of it again.

found    the segment and why is a problem that `status` tells; its runs have a loss in their present generation
mended   the run's rows come again as a new generation: then nobody needs the segment, and gc takes it
given up `cache repair`, for what no source has any more: the rest stays, and the run says what it lacks
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..model import RunRef
from . import catalog

if TYPE_CHECKING:
    from .store import Cache

# Joined to `runs r`: which have lost rows that did not come again.
LOST = "JOIN losses x ON x.run = r.run AND x.generation = r.generation"


def subject(file: str) -> str:
    """A damaged segment among the problems."""
    return f"segment {file}"


def lost(cache: Cache, file: str, why: str) -> list[RunRef]:
    """Note that a segment is damaged or gone, if the catalog can be written just now; the runs it has rows of.

    Of a server's runs, all rows are owed: they wait for no time, and come anew.
    """
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT DISTINCT r.run, r.entity, r.project, r.run_id FROM segments g JOIN segment_streams x "
            "ON x.segment = g.segment JOIN streams s ON s.stream = x.stream JOIN runs r ON r.run = s.run "
            "WHERE g.file = ? ORDER BY r.entity, r.project, r.run_id",
            (file,),
        ).fetchall()
    runs, now = [(row[0],) for row in rows], time.time()
    catalog.try_write(
        cache.con,
        [
            (
                "INSERT INTO problems VALUES (?1, ?2, NULL, ?3, ?3, 1) ON CONFLICT (subject) DO UPDATE SET "
                "reason = ?2, last_at = ?3, attempts = attempts + 1",
                [(subject(file), f"damaged: {why}", now)],
            ),
            ("INSERT OR REPLACE INTO losses SELECT run, generation FROM runs WHERE run = ?", runs),
            (
                "UPDATE mirrors SET owed = 1, failures = max(failures, 1), retry_at = NULL, "
                "reason = 'a segment with its rows is damaged' WHERE run = ? AND fetched IS NOT NULL",
                runs,
            ),
        ],
    )
    return [RunRef(*row[1:]) for row in rows]
