"""The last lines of consoles before their newlines: read with the committed ones, replaced once they are ended.

A committed row stays as it is, so a line is committed once its newline is there. Until then, of a program that crashed
for ever, it is in the state of its log, and readers add it after the committed lines: there it will be committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..model import Kind, RunRef

if TYPE_CHECKING:
    import pyarrow as pa

    from .store import Cache

# Of a run that a server was asked for, the server has the lines.
_OPEN = """
SELECT r.run AS run, r.revision AS revision, r.entity AS entity, r.project AS project, r.run_id AS run_id,
  coalesce((SELECT s.rows FROM streams s WHERE s.run = r.run AND s.generation = r.generation AND s.name = 'console'), 0)
  + row_number() OVER (PARTITION BY r.run ORDER BY json_extract(c.value, '$.time'), l.started_at, l.log_key, c.key) - 1
  AS line,
  c.key AS key, json_extract(c.value, '$.time') AS time, rtrim(json_extract(c.value, '$.text'), ' ') AS text
FROM runs r JOIN logs l ON l.run = r.run JOIN json_each(part_of(l.state, 'console')) c
WHERE l.status <> 'copy' AND trim(json_extract(c.value, '$.text'), ' ') <> ''
  AND NOT EXISTS (SELECT 1 FROM mirrors m WHERE m.run = r.run AND m.fetched IS NOT NULL)
"""
SELECT = f"SELECT run, entity, project, run_id, line, key, time, text FROM ({_OPEN} AND r.revision > :since)"
COLUMNS = (
    "run BIGINT, entity VARCHAR, project VARCHAR, run_id VARCHAR, line BIGINT, key VARCHAR, time DOUBLE, text VARCHAR"
)


def open_lines(cache: Cache, ref: RunRef, keys: Sequence[str] | None, columns: Sequence[str]) -> pa.Table:
    """A run's, as rows of its console: of some keys (None: all), with some columns."""
    import numpy as np
    import pyarrow as pa

    rows = cache.con.execute(
        f"SELECT key, line, time, text FROM ({_OPEN} AND r.entity = ? AND r.project = ? AND r.run_id = ?) ORDER BY 1",
        (ref.entity, ref.project, ref.run_id),
    ).fetchall()
    rows = [row for row in rows if keys is None or row[0] in keys]
    key, step, time, text = zip(*rows, strict=True) if rows else ((), (), (), ())
    table = pa.table(
        {
            "key": pa.array(key, pa.string()),
            "step": pa.array(step, pa.int64()),
            "value": pa.array(time, pa.float64()),
            "kind": pa.array(np.full(len(rows), Kind.LINE, np.uint8)),
            "value_json": pa.array(text, pa.string()),
        }
    )
    return table.select(list(columns))
