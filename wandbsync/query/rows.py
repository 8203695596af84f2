"""The rows of a run: whole histories as Arrow, one metric as numpy, read from the segments that the catalog names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..cache import Cache, catalog, uses
from ..cache.rows import reading, steps, streams_of, tables
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


def series(
    cache: Cache, ref: RunRef, key: str, *, stream: str | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The numbers of one metric: steps and values, ascending by step; None and text are left out.

    `stream` None: that of the machine for what is named so and was not logged by the run itself, else the history.
    Integers beyond 2**53 come as the nearest float64.
    """
    import numpy as np

    uses.note(cache, [ref])
    if key == "_step":
        step = steps(cache, ref)
        return step, step.astype(np.float64)
    stream = stream or stream_with(cache, ref, key)
    with catalog.translated(cache.folder):
        expected = _count(cache, streams_of(cache, ref).get(stream), key)

    def gather(tables: Iterator[pa.Table]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All in two arrays, made once: to hold ten million values twice takes longer than to read them."""
        step, value, filled = np.empty(expected, np.int64), np.empty(expected), 0
        for table in tables:
            steps, values = _numeric(table)
            end = filled + len(steps)
            if end > len(step):  # there are more than a moment ago
                step, value = np.resize(step[:filled], end), np.resize(value[:filled], end)
            step[filled:end], value[filled:end] = steps, values
            filled = end
        return step[:filled], value[:filled]

    step, value = reading(cache, ref, stream, [key], ["step", "value", "kind"], gather)
    if not all(bool((one[1:] >= one[:-1]).all()) for one in _pieces(step)):
        order = np.argsort(step, kind="stable")
        step, value = step[order], value[order]
    return step, value


def _pieces(values: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Neighbours in the processor's cache, all pairs of them."""
    return (values[start : start + 65_537] for start in range(0, len(values), 65_536))


def _numeric(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    step, value, kind = (table.column(name).to_numpy() for name in ("step", "value", "kind"))
    if kind.max(initial=0) <= Kind.BOOL:
        return step, value
    plain = (kind <= Kind.BOOL) | (kind == Kind.BIGINT)
    return step[plain], value[plain]


def stream_with(cache: Cache, ref: RunRef, key: str) -> str:
    """The stream a metric is in: the machine's if it is named so, and was not logged by the run itself."""
    if not key.startswith("system."):
        return HISTORY
    with catalog.translated(cache.folder):
        return HISTORY if _has(cache, streams_of(cache, ref).get(HISTORY), key) else SYSTEM


def _has(cache: Cache, stream: int | None, key: str) -> bool:
    return _count(cache, stream, key) > 0


def _count(cache: Cache, stream: int | None, key: str) -> int:
    """How often a metric was logged."""
    found = cache.con.execute("SELECT count FROM metrics WHERE stream = ? AND key = ?", (stream, key)).fetchone()
    return 0 if found is None else int(found[0])
