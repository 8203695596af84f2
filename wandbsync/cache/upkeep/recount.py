"""What the catalog says of a stream, made anew from its rows: after some of them were lost, or all that was known."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...model import HISTORY
from ..metrics import measured, put_stats
from ..stats import Stat, merge


def recount(paths: Sequence[Path], stream: int) -> dict[str, Stat]:
    """The statistics of each key of a stream, from the segments that hold its rows, in the order they were logged."""
    from .. import segments

    found: dict[str, Stat] = {}
    for block in segments.merged(paths, [stream]):
        for key, stat in measured(block).get(stream, {}).items():
            found[key] = merge(found.get(key, Stat()), stat)
    return found


def put(con: sqlite3.Connection, stream: int, stats: Mapping[str, Stat], paths: Mapping[str, str]) -> None:
    """Make them what the catalog says, inside a transaction; the stream's counts too."""
    con.execute("DELETE FROM metrics WHERE stream = ?", (stream,))
    put_stats(con, stream, stats, paths)
    rows = max((stat.count for stat in stats.values()), default=0)
    con.execute(
        "UPDATE streams SET rows = ?, count = ? WHERE stream = ?",
        (rows, sum(stat.count for stat in stats.values()), stream),
    )


def put_run(con: sqlite3.Connection, run: int, revision: int, incomplete: str | None) -> None:
    """What a run says of its history, as its stream has it now; a new reason why it is incomplete, if there is one."""
    con.execute(
        "UPDATE runs SET revision = ?, incomplete = coalesce(?, incomplete), (rows, last_step) = "
        "(SELECT coalesce(max(s.rows), 0), max(m.last_step) FROM streams s LEFT JOIN metrics m USING (stream) "
        "WHERE s.run = runs.run AND s.generation = runs.generation AND s.name = ?) WHERE run = ?",
        (revision, incomplete, HISTORY, run),
    )
