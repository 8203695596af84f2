"""Rows that a damaged segment held. Readers refuse it; whatever syncs the run next reads all of it again.

found    the segment and why is a problem that `status` tells; its runs have a loss in their present generation
mended   the run's rows come again as a new generation: then nobody needs the segment, and gc takes it
given up `cache repair`, for what no source has any more: the rest stays, and the run says what it lacks
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..model import RunRef
from . import catalog

if TYPE_CHECKING:
    from .store import Cache

LOSE = (
    "INSERT INTO losses SELECT run, generation, NULL FROM runs WHERE run = ? ON CONFLICT (run) DO UPDATE SET "
    "generation = excluded.generation, reason = NULL WHERE generation <> excluded.generation"
)
# Joined to `runs r`: which have lost rows that did not come again.
HAS_LOST = "JOIN losses x ON x.run = r.run AND x.generation = r.generation"


FOUND = (
    "INSERT INTO problems VALUES (?1, ?2, NULL, ?3, ?3, 1) ON CONFLICT (subject) DO UPDATE SET reason = ?2, "
    "last_at = ?3, attempts = attempts + 1"
)
OWE = (
    "UPDATE mirrors SET owed = 1, failures = max(failures, 1), retry_at = NULL, "
    "reason = 'a segment with its rows is damaged' WHERE run = ? AND fetched IS NOT NULL"
)


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
    catalog.try_write(cache.con, [(FOUND, [(subject(file), f"damaged: {why}", now)]), (LOSE, runs), (OWE, runs)])
    return [RunRef(*row[1:]) for row in rows]


def runs(cache: Cache) -> set[RunRef]:
    """The runs that lost rows and can be read again."""
    with catalog.translated(cache.folder):
        return {
            RunRef(*row)
            for row in cache.con.execute(
                f"SELECT entity, project, run_id FROM runs r {HAS_LOST} WHERE r.deleted_at IS NULL"
            )
        }


def damaged(cache: Cache) -> list[str]:
    """The segments that are known to be damaged and still needed."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT file FROM segments JOIN problems ON subject = 'segment ' || file WHERE removed_at IS NULL "
            "ORDER BY file"
        )
        return [row[0] for row in rows]


def settle(cache: Cache) -> None:
    """Forget what was mended: losses of runs whose rows came again, and segments that nobody needs any more."""
    with catalog.translated(cache.folder):
        mended = cache.con.execute(
            "SELECT x.run FROM losses x LEFT JOIN runs r ON r.run = x.run AND r.generation = x.generation "
            "WHERE r.run IS NULL OR (r.incomplete IS NULL AND NOT EXISTS (SELECT 1 FROM streams s "
            "JOIN segment_streams y USING (stream) JOIN segments g USING (segment) JOIN problems p "
            "ON p.subject = 'segment ' || g.file WHERE s.run = x.run))"
        ).fetchall()
        gone = cache.con.execute(
            "SELECT subject FROM problems WHERE subject LIKE 'segment L%' AND NOT EXISTS "
            "(SELECT 1 FROM segments WHERE removed_at IS NULL AND subject = 'segment ' || file)"
        ).fetchall()
        if mended or gone:
            with catalog.transaction(cache.con):
                cache.con.executemany("DELETE FROM losses WHERE run = ?", mended)
                cache.con.executemany("DELETE FROM problems WHERE subject = ?", gone)


def sound(cache: Cache, files: Iterable[str]) -> None:
    """Forget that these segments were damaged: they are as they were written."""
    with catalog.translated(cache.folder):
        known = set(damaged(cache))
        mended = [(subject(file),) for file in files if file in known]
        if mended:
            with catalog.transaction(cache.con):
                cache.con.executemany("DELETE FROM problems WHERE subject = ?", mended)
        if known and not damaged(cache):  # nobody has to read anything again
            with catalog.transaction(cache.con):
                cache.con.execute("DELETE FROM losses WHERE reason IS NULL")
