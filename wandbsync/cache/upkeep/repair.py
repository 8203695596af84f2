"""Repair: find all that is damaged, and see that it is whole again, or that it is said what is lost.

find      compare each segment with its checksum; one that a backup has comes from there
(sync)    whoever calls this reads the runs of the others again from their logs and servers, as new generations
give up   what no source has any more: the damaged segment goes aside, the rest stays, the run says what it lacks
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import CacheBusy
from ...model import RunRef
from .. import catalog, losses
from ..disk import os_errors
from ..stamps import Segment, difference, named, note, stamp_of
from ..store import Cache
from . import recount

ASIDE = "damaged"  # where damaged files are kept, for whoever can make more of them


@dataclass(frozen=True, slots=True)
class Damage:
    """A segment that is not as it was written."""

    file: str
    why: str
    runs: tuple[RunRef, ...]  # that have rows in it

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.why}; it has rows of {', '.join(map(str, self.runs)) or 'no run'}"


def find(
    cache: Cache, *, backup: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Damage]:
    """Every damaged segment that is needed, but for those that `backup` has; the catalog says so of their runs."""
    found, sound = [], {}
    with catalog.translated(cache.folder), os_errors(cache.folder):
        held = named(cache, "segments WHERE removed_at IS NULL")
        for i, one in enumerate(held):
            if progress:
                progress(i, len(held))
            path = cache.segment_path(one.file)
            why = _difference(path, one)
            if why is not None and backup is not None and _difference(backup / "history" / one.file, one) is None:
                _put_aside(cache, one.file)
                path.parent.mkdir(mode=0o700, exist_ok=True)
                shutil.copyfile(backup / "history" / one.file, path)
                why = _difference(path, one)
            if why is None:
                sound[one.file] = stamp_of(path)
            else:
                found.append(Damage(one.file, why, tuple(losses.lost(cache, one.file, why))))
        note(cache, sound)
        losses.sound(cache, sound)
    return found


def _difference(path: Path, segment: Segment) -> str | None:
    try:
        return difference(path, segment)
    except FileNotFoundError:
        return "it is gone"


def give_up(cache: Cache, file: str) -> dict[RunRef, int]:
    """Do without a damaged segment that no source can replace: how many values each run has lost with it.

    Raises CacheBusy if another process changed one of the runs meanwhile.
    """
    with catalog.translated(cache.folder), os_errors(cache.folder):
        con = cache.con
        with catalog.snapshot(con):
            rows = con.execute(
                "SELECT s.stream, x.count, r.run, r.revision, r.entity, r.project, r.run_id FROM segments g "
                "JOIN segment_streams x ON x.segment = g.segment JOIN streams s ON s.stream = x.stream "
                "JOIN runs r ON r.run = s.run WHERE g.file = ? AND g.removed_at IS NULL",
                (file,),
            ).fetchall()
            held = {
                row["stream"]: [one for one in cache.segments_of([row["stream"]]) if one.file != file] for row in rows
            }
            paths = {
                stream: dict(
                    map(
                        tuple,
                        con.execute("SELECT key, path FROM metrics WHERE stream = ? AND path IS NOT NULL", (stream,)),
                    )
                )
                for stream in held
            }
        stats = {
            stream: recount.recount(
                [
                    cache.segment_path(one.file)
                    for one in others
                    if _difference(cache.segment_path(one.file), one) is None
                ],
                stream,
            )
            for stream, others in held.items()
        }
        lost: dict[RunRef, int] = {}
        runs = {row["run"]: (RunRef(*row[4:]), row["revision"]) for row in rows}
        for row in rows:
            lost[runs[row["run"]][0]] = lost.get(runs[row["run"]][0], 0) + row["count"]
        with catalog.transaction(con):
            for run, (ref, revision) in runs.items():
                now = con.execute("SELECT revision FROM runs WHERE run = ?", (run,)).fetchone()
                if now is None or now[0] != revision:
                    raise CacheBusy(f"another process is syncing {ref}")
            version = catalog.count_commit(con)
            con.execute(
                "DELETE FROM segment_streams WHERE segment IN (SELECT segment FROM segments WHERE file = ?)", (file,)
            )
            con.execute("DELETE FROM segments WHERE file = ?", (file,))
            for stream, known in stats.items():
                recount.put(con, stream, known, paths[stream])
            for run, (ref, _) in runs.items():
                why = f"{lost[ref]:,} values were lost with a damaged segment, and no source has them any more"
                con.execute(
                    "INSERT OR REPLACE INTO losses SELECT run, generation, ? FROM runs WHERE run = ?", (why, run)
                )
                recount.put_run(con, run, version, why)
        _put_aside(cache, file)
    losses.settle(cache)
    return lost


def _put_aside(cache: Cache, file: str) -> None:
    path, aside = cache.segment_path(file), cache.folder / ASIDE
    if path.exists():
        aside.mkdir(mode=0o700, exist_ok=True)
        path.replace(aside / path.name)
