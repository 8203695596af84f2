"""The rows of one run, from the segments that the catalog names at that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from ..errors import CacheError, NothingCached
from ..model import CONSOLE, HISTORY, RunRef
from . import catalog
from .disk import GONE
from .eviction import absence
from .open_lines import open_lines
from .stamps import checked

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from .store import Cache

T = TypeVar("T")


def tables(
    cache: Cache, ref: RunRef, stream: str, keys: Sequence[str] | None, columns: Sequence[str]
) -> list[pa.Table]:
    """The rows of a run's stream, segment by segment, oldest first; of a console also the lines that are not ended.

    Raises NothingCached if they were removed to save space, CacheError if a segment cannot be read.
    """
    return reading(cache, ref, stream, keys, columns, list)


def reading(
    cache: Cache,
    ref: RunRef,
    stream: str,
    keys: Sequence[str] | None,
    columns: Sequence[str],
    use: Callable[[Iterator[pa.Table]], T],
    *,
    kinds: Sequence[int] | None = None,
) -> T:
    """What `use` makes of the same tables, one at a time; it may have to begin anew. Errors as `tables`.

    `kinds` asks for values of these kinds alone.
    """
    from . import segments

    for attempt in range(5):
        with catalog.translated(cache.folder), catalog.snapshot(cache.con):
            number = stream_of(cache, ref, stream)
            held = cache.segments_of([] if number is None else [number])
            added = [open_lines(cache, ref, keys, columns)] if stream == CONSOLE else []
        try:
            paths, streams = checked(cache, held), None if number is None else [number]
            found = (
                table
                for path in paths
                for table in segments.read(path, columns=columns, keys=keys, streams=streams, kinds=kinds)
            )
            return use(chain(found, added))
        except FileNotFoundError as error:  # compacted and swept since they were listed: list again
            if attempt == 4:
                raise CacheError(f"a segment of {ref} is gone: {error}", hint=GONE) from error
    raise AssertionError


def steps(cache: Cache, ref: RunRef) -> NDArray[np.int64]:
    """The steps of all rows of a run, each once, ascending.

    They are taken from a metric that is in each row, as `_timestamp` is, if there is one.
    """
    import numpy as np

    with catalog.translated(cache.folder):
        found = cache.con.execute(
            "SELECT m.key FROM runs r JOIN streams s ON s.run = r.run AND s.generation = r.generation JOIN metrics m "
            "ON m.stream = s.stream WHERE r.entity = ? AND r.project = ? AND r.run_id = ? AND s.name = ? "
            "AND m.count = s.rows LIMIT 1",
            (ref.entity, ref.project, ref.run_id, HISTORY),
        ).fetchone()
    parts = tables(cache, ref, HISTORY, [found[0]] if found else None, ["step"])
    return np.unique(np.concatenate([part.column("step").to_numpy() for part in parts] or [np.empty(0, np.int64)]))


def stream_of(cache: Cache, ref: RunRef, stream: str) -> int | None:
    """The number of a run's stream, None if it has none. Raises NothingCached if its rows were removed."""
    if why := absence(cache, ref):
        raise NothingCached(f"{ref} cannot be read: {why}", hint="")
    return streams_of(cache, ref).get(stream)


def streams_of(cache: Cache, ref: RunRef) -> dict[str, int]:
    """The numbers of a run's streams in the catalog, by name."""
    rows = cache.con.execute(
        "SELECT s.name, s.stream FROM runs r JOIN streams s ON s.run = r.run AND s.generation = r.generation "
        "WHERE r.entity = ? AND r.project = ? AND r.run_id = ?",
        (ref.entity, ref.project, ref.run_id),
    )
    return {row[0]: row[1] for row in rows}
