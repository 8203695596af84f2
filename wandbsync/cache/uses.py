"""When somebody last asked for a run's rows: what the rows that go first to save space are chosen by.

It is noted when the rows of a run that is named are read or fetched, at most once an hour for each run, and only if the
catalog can be written at once: no reader ever waits for it. SQL names no runs, so it notes none. When the last rows of
a run came is noted beside it, by the commit that brings them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..model import RunRef
from . import catalog

if TYPE_CHECKING:
    from .store import Cache

HOUR = 3600.0


def note(cache: Cache, refs: Iterable[RunRef], at: float | None = None) -> None:
    """Note that the rows of runs are asked for; now, unless `at` (unix seconds) is given."""
    now = time.time() if at is None else at
    with catalog.translated(cache.folder):
        stale = [run for ref in refs if (run := _stale(cache, ref, now)) is not None]
    if stale:
        put = "INSERT INTO uses (run, asked_at) VALUES (?1, ?2) ON CONFLICT (run) DO UPDATE SET asked_at = ?2"
        catalog.try_write(cache.con, [(put, [(run, now) for run in stale])])


def _stale(cache: Cache, ref: RunRef, now: float) -> int | None:
    """The run's number if what is noted is of another hour."""
    row = cache.con.execute(
        "SELECT r.run, u.asked_at FROM runs r LEFT JOIN uses u USING (run) WHERE entity = ? AND project = ? "
        "AND run_id = ?",
        (ref.entity, ref.project, ref.run_id),
    ).fetchone()
    if row is None or (row[1] is not None and abs(now - row[1]) < HOUR):
        return None
    return int(row[0])
