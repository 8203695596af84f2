"""The rows of a run: whole histories as Arrow, one metric as numpy, read from the segments that the catalog names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..cache import Cache, catalog, uses
from ..cache.rows import steps, streams_of, tables
from ..model import HISTORY, SYSTEM, Kind, RunRef

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


def history(cache: Cache, ref: RunRef, keys: Sequence[str] | None = None, *, stream: str = HISTORY) -> pa.Table:
    """Every row of a run: key, step, value, kind, value_json; sorted by key and step. `keys` None for all.

    Rows of one step are in the order they were logged. Raises NothingCached if they were removed to save space, and
    CacheError if they cannot be read.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    uses.note(cache, [ref])

    schema = pa.schema(
        [
            ("key", pa.string()),
            ("step", pa.int64()),
            ("value", pa.float64()),
            ("kind", pa.uint8()),
            ("value_json", pa.large_string()),
        ]
    )
    found = [table.cast(schema) for table in tables(cache, ref, stream, keys, schema.names)]
    if not found:
        return schema.empty_table()
    table = pa.concat_tables(found)
    if len(found) > 1:
        names = pa.array(sorted(table.column("key").unique().to_pylist()), pa.string())
        rank = pc.index_in(table.column("key"), names).to_numpy()
        table = table.take(pa.array(np.lexsort((table.column("step").to_numpy(), rank))))
    return table


def series(cache: Cache, ref: RunRef, key: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The numbers of one metric: steps and values, ascending by step; None and text are left out.

    Integers beyond 2**53 come as the nearest float64.
    """
    import numpy as np

    stream = HISTORY
    uses.note(cache, [ref])
    if key == "_step":
        step = steps(cache, ref)
        return step, step.astype(np.float64)
    with catalog.translated(cache.folder):
        numbers = streams_of(cache, ref)
        if key.startswith("system.") and not _has(cache, numbers.get(HISTORY), key):
            stream = SYSTEM
    found = tables(cache, ref, stream, [key], ["step", "value", "kind"])
    if not found:
        return np.empty(0, np.int64), np.empty(0)
    step = np.concatenate([t.column("step").to_numpy() for t in found])
    value = np.concatenate([t.column("value").to_numpy() for t in found])
    kind = np.concatenate([t.column("kind").to_numpy() for t in found])
    plain = (kind != Kind.NULL) & (kind != Kind.JSON) & (kind != Kind.LINE)
    if not plain.all():
        step, value = step[plain], value[plain]
    if len(step) > 1 and (np.diff(step) < 0).any():
        order = np.argsort(step, kind="stable")
        step, value = step[order], value[order]
    return step, value


def _has(cache: Cache, stream: int | None, key: str) -> bool:
    found = cache.con.execute("SELECT 1 FROM metrics WHERE stream = ? AND key = ?", (stream, key)).fetchone()
    return found is not None
