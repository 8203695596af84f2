"""The rows of a run: whole histories as Arrow, one metric as numpy, read from the segments that the catalog names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..cache import Cache, catalog, uses
from ..cache.rows import reading, steps, streams_of, tables
from ..model import HISTORY, NUMBERS, SYSTEM, RunRef

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

GROUP = 1_000_000  # values at a time


def row_schema() -> pa.Schema:
    """The columns of rows."""
    import pyarrow as pa

    kinds = {"key": pa.string(), "step": pa.int64(), "value": pa.float64(), "kind": pa.uint8()}
    return pa.schema([*kinds.items(), ("value_json", pa.large_string())])


def history(cache: Cache, ref: RunRef, keys: Sequence[str] | None = None, *, stream: str = HISTORY) -> pa.Table:
    """Every row of a run: key, step, value, kind, value_json; sorted by key and step. `keys` None for all.

    Rows of one step are in the order they were logged. Raises NothingCached if they were removed to save space, and
    CacheError if they cannot be read.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    uses.note(cache, [ref])
    schema = row_schema()
    found = [table.cast(schema) for table in tables(cache, ref, stream, keys, schema.names)]
    if not found:
        return schema.empty_table()
    table = pa.concat_tables(found)
    if len(found) > 1:
        names = pa.array(sorted(table.column("key").unique().to_pylist()), pa.string())
        rank = pc.index_in(table.column("key"), names).to_numpy()
        table = table.take(pa.array(np.lexsort((table.column("step").to_numpy(), rank))))
    return table


def long(
    cache: Cache, refs: Sequence[RunRef], keys: Sequence[str] | None = None, *, stream: str = HISTORY
) -> Iterator[pa.Table]:
    """The same of some runs with their `run_id` in front, run by run, some keys at a time. `keys` in that order."""
    import pyarrow as pa

    for ref in refs:
        with catalog.translated(cache.folder):
            counts = dict(
                cache.con.execute(
                    "SELECT key, count FROM metrics WHERE stream = ? ORDER BY key",
                    (streams_of(cache, ref).get(stream),),
                )
            )
        wanted = [key for key in (counts if keys is None else dict.fromkeys(keys)) if key in counts]
        for some in _groups(wanted, counts):
            table = history(cache, ref, some, stream=stream)
            if keys is not None and len(some) > 1:
                table = table.take(_order(table, some))
            yield table.add_column(0, "run_id", pa.repeat(pa.scalar(ref.run_id), table.num_rows))


def long_schema() -> pa.Schema:
    """The columns of `long`."""
    import pyarrow as pa

    return row_schema().insert(0, pa.field("run_id", pa.string()))


def _groups(keys: Sequence[str], counts: Mapping[str, int]) -> Iterator[list[str]]:
    """Keys that have about GROUP values together, or one that has more."""
    some: list[str] = []
    for key in keys:
        if some and sum(counts[one] for one in some) + counts[key] > GROUP:
            yield some
            some = []
        some.append(key)
    if some:
        yield some


def _order(table: pa.Table, keys: Sequence[str]) -> pa.Array:
    """The rows of a sorted table in the order of some keys."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rank = pc.index_in(table.column("key"), pa.array(keys, pa.string())).to_numpy()
    return pa.array(np.argsort(rank, kind="stable"))


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
            steps, values = (column.to_numpy() for column in table.columns)
            end = filled + len(steps)
            if end > len(step):  # there are more than a moment ago
                step, value = np.resize(step[:filled], end), np.resize(value[:filled], end)
            step[filled:end], value[filled:end] = steps, values
            filled = end
        return step[:filled], value[:filled]

    step, value = reading(cache, ref, stream, [key], ["step", "value"], gather, kinds=NUMBERS)
    if not all(bool((one[1:] >= one[:-1]).all()) for one in _pieces(step)):
        order = np.argsort(step, kind="stable")
        step, value = step[order], value[order]
    return step, value


def _pieces(values: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Neighbours in the processor's cache, all pairs of them."""
    return (values[start : start + 65_537] for start in range(0, len(values), 65_536))


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
