"""The catalog's metrics: what is known of each key of a stream, and of streams that are dropped."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .stats import Stat

if TYPE_CHECKING:
    from . import segments

STAT_COLUMNS = tuple(f.name for f in dataclasses.fields(Stat))


def measured(block: segments.Block) -> dict[int, dict[str, Stat]]:
    """What is to be known of the rows of a sorted block: stream -> key -> stat."""
    from .stats import measure

    starts = block.starts()
    heads = zip(block.stream[starts].tolist(), block.key[starts].tolist(), strict=True)
    found: dict[int, dict[str, Stat]] = {}
    for (stream, key), stat in zip(
        heads, measure(starts, block.step, block.value, block.kind, block.text), strict=True
    ):
        found.setdefault(stream, {})[block.names[key]] = stat
    return found


def stream_stats(con: sqlite3.Connection, stream: int | None) -> dict[str, Stat]:
    """What the catalog knows of each metric of a stream."""
    rows = con.execute(f"SELECT key, {', '.join(STAT_COLUMNS)} FROM metrics WHERE stream = ?", (stream,))
    return {key: _stat(fields) for key, *fields in rows}


def _stat(fields: Sequence[Any]) -> Stat:
    """A stat from what the catalog stores; SQLite has no NaN, so a first or last value that is one is kept as text."""
    if "nan" not in fields:
        return Stat(*fields)
    nan = float("nan")
    named = zip(STAT_COLUMNS, fields, strict=True)
    values: list[Any] = [nan if v == "nan" and name.endswith("_value") else v for name, v in named]
    return Stat(*values)


def stat_values(stat: Stat) -> list[Any]:
    """A stat as the catalog stores it."""
    values = [getattr(stat, name) for name in STAT_COLUMNS]
    return ["nan" if v != v else v for v in values]


def put_stats(con: sqlite3.Connection, stream: int, stats: Mapping[str, Stat], paths: Mapping[str, str | None]) -> None:
    """Store what is known of these metrics of a stream; `paths` has the JSON path of keys that are nested."""
    con.executemany(
        f"INSERT OR REPLACE INTO metrics (stream, key, path, {', '.join(STAT_COLUMNS)}) VALUES "
        f"(?, ?, ?{', ?' * len(STAT_COLUMNS)})",
        [(stream, key, paths.get(key), *stat_values(stat)) for key, stat in stats.items()],
    )


def forget_streams(con: sqlite3.Connection, run: int, *, keep: int | None) -> None:
    """Drop a run's streams of all generations but one; segments that held nothing else are to be removed."""
    streams = [
        row[0] for row in con.execute("SELECT stream FROM streams WHERE run = ? AND generation IS NOT ?", (run, keep))
    ]
    release(con, streams)
    for stream in streams:
        for table in ("metrics", "streams"):
            con.execute(f"DELETE FROM {table} WHERE stream = ?", (stream,))


def release(con: sqlite3.Connection, streams: Sequence[int]) -> None:
    """Give up the rows of streams; segments that held nothing else are to be removed."""
    touched: set[int] = set()
    for stream in streams:
        touched |= {row[0] for row in con.execute("SELECT segment FROM segment_streams WHERE stream = ?", (stream,))}
        con.execute("DELETE FROM segment_streams WHERE stream = ?", (stream,))
    con.executemany(
        "UPDATE segments SET removed_at = ? WHERE segment = ? AND removed_at IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM segment_streams x WHERE x.segment = segments.segment)",
        [(time.time(), segment) for segment in touched],
    )
