"""The rows of a run: whole histories as Arrow, one metric as numpy, read from the segments that the catalog names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..cache import Cache, catalog
from ..errors import CacheError
from ..model import HISTORY, SYSTEM, Kind, RunRef

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


def history(cache: Cache, ref: RunRef, keys: Sequence[str] | None = None, *, stream: str = HISTORY) -> pa.Table:
    """Every row of a run: key, step, value, kind, value_json; sorted by key and step. `keys` None for all.

    Rows of one step are in the order they were logged. Raises CacheError if they cannot be read.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = pa.schema(
        [
            ("key", pa.string()),
            ("step", pa.int64()),
            ("value", pa.float64()),
            ("kind", pa.uint8()),
            ("value_json", pa.large_string()),
        ]
    )
    tables = [table.cast(schema) for table in _tables(cache, ref, stream, keys, schema.names)]
    if not tables:
        return schema.empty_table()
    table = pa.concat_tables(tables)
    if len(tables) > 1:
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
    if key == "_step":
        return all_steps(cache, ref)
    with catalog.translated(cache.folder):
        streams = streams_of(cache, ref)
        if key.startswith("system.") and not _has(cache, streams.get(HISTORY), key):
            stream = SYSTEM
    tables = list(_tables(cache, ref, stream, [key], ["step", "value", "kind"]))
    if not tables:
        return np.empty(0, np.int64), np.empty(0)
    step = np.concatenate([t.column("step").to_numpy() for t in tables])
    value = np.concatenate([t.column("value").to_numpy() for t in tables])
    kind = np.concatenate([t.column("kind").to_numpy() for t in tables])
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


def all_steps(cache: Cache, ref: RunRef) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The steps of all rows; taken from a metric that is in each of them, as _timestamp is, if there is one."""
    import numpy as np

    with catalog.translated(cache.folder):
        found = cache.con.execute(
            "SELECT m.key FROM runs r JOIN streams s ON s.run = r.run AND s.generation = r.generation JOIN metrics m "
            "ON m.stream = s.stream WHERE r.entity = ? AND r.project = ? AND r.run_id = ? AND s.name = ? "
            "AND m.count = s.rows LIMIT 1",
            (ref.entity, ref.project, ref.run_id, HISTORY),
        ).fetchone()
    tables = _tables(cache, ref, HISTORY, [found[0]] if found else None, ["step"])
    steps = [table.column("step").to_numpy() for table in tables]
    step = np.unique(np.concatenate(steps)) if steps else np.empty(0, np.int64)
    return step, step.astype(np.float64)


def streams_of(cache: Cache, ref: RunRef) -> dict[str, int]:
    """The numbers of a run's streams in the catalog, by name."""
    rows = cache.con.execute(
        "SELECT s.name, s.stream FROM runs r JOIN streams s ON s.run = r.run AND s.generation = r.generation "
        "WHERE r.entity = ? AND r.project = ? AND r.run_id = ?",
        (ref.entity, ref.project, ref.run_id),
    )
    return {row[0]: row[1] for row in rows}


def _tables(
    cache: Cache, ref: RunRef, stream: str, keys: Sequence[str] | None, columns: Sequence[str]
) -> list[pa.Table]:
    """The rows of a run's stream, segment by segment, oldest first. Raises CacheError if one cannot be read."""
    from ..cache import segments

    for attempt in range(5):
        with catalog.translated(cache.folder), catalog.snapshot(cache.con):
            number = streams_of(cache, ref).get(stream)
            paths = cache.segments_of(number)
        try:
            return [
                table
                for path in paths
                for table in segments.read(
                    path, columns=columns, keys=keys, streams=None if number is None else [number]
                )
            ]
        except FileNotFoundError as error:  # compacted and swept since they were listed: list again
            if attempt == 4:
                raise CacheError(
                    f"a segment of {ref} is gone: {error}", hint="`wandbsync cache verify` tells more"
                ) from error
    raise AssertionError
