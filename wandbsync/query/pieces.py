"""The rows of some streams as they lie in their segments, piece by piece; and which rows a run has, by its steps.

A piece is what one key of one stream has in one row group, ascending by step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..cache import Cache, catalog
from ..cache.disk import GONE
from ..cache.stamps import checked
from ..errors import CacheBusy, CacheError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

T = TypeVar("T")


def again(cache: Cache, numbers: Sequence[int], read: Callable[[list[Path]], T]) -> T:
    """What `read` makes of the segments of some streams; once more if they were compacted and swept meanwhile."""
    for attempt in range(5):
        with catalog.translated(cache.folder):
            held = cache.segments_of(numbers)
        try:
            found = read(checked(cache, held))
        except FileNotFoundError as error:
            if attempt == 4:
                raise CacheError(f"a segment is gone: {error}", hint=GONE) from error
        else:
            _check(cache, numbers)
            return found
    raise AssertionError


def _check(cache: Cache, numbers: Sequence[int]) -> None:
    """Raise CacheBusy if some of the streams are no more: fetched anew or removed while they were read."""
    with catalog.translated(cache.folder):
        count = cache.con.execute(
            "SELECT count(*) FROM streams WHERE stream IN (SELECT value FROM json_each(?))",
            (json.dumps(list(numbers)),),
        ).fetchone()[0]
    if count < len(numbers):
        raise CacheBusy("a run was rewritten while its history was read", hint="ask again")


def tables(
    paths: Sequence[Path],
    numbers: Sequence[int],
    keys: Sequence[str] | None,
    names: Sequence[str],
    *,
    between: tuple[int, int] | None = None,
) -> Iterator[pa.Table]:
    """The rows of some streams and keys, a row group at a time; `between` asks for steps."""
    from ..cache import segments

    for path in paths:
        yield from segments.read(path, columns=names, keys=keys, streams=numbers, steps=between)


def pieces(table: pa.Table) -> Iterator[tuple[int, str, int, int]]:
    """The pieces of a table with the columns `stream` and `key`: stream, key, where it begins and ends."""
    import numpy as np

    key = table.column("key").combine_chunks()
    if hasattr(key, "chunk"):
        key = key.chunk(0)
    names, code = key.dictionary.to_pylist(), key.indices.to_numpy()
    stream = table.column("stream").to_numpy()
    change = np.flatnonzero((np.diff(code) != 0) | (np.diff(stream) != 0)) + 1
    starts = [0, *change.tolist()] if len(code) else []
    for start, end in zip(starts, [*starts[1:], len(code)], strict=True):
        yield int(stream[start]), names[code[start]], start, end


# -- which rows there are


def steps(cache: Cache, numbers: Sequence[int], keys: Sequence[str] | None) -> dict[int, Ints]:
    """The steps of the rows of some streams that have one of the keys: ascending, each as often as it has rows."""
    from functools import partial

    with catalog.translated(cache.folder):
        everywhere = cache.con.execute(
            "SELECT m.key FROM metrics m JOIN streams s USING (stream) "
            "WHERE stream IN (SELECT value FROM json_each(?)) AND m.count = s.rows GROUP BY m.key HAVING count(*) = ?",
            (json.dumps(list(numbers)), len(numbers)),
        ).fetchall()
    whole = [row[0] for row in everywhere if keys is None or row[0] in keys]
    if whole:  # a key that is in each row, as `_timestamp` is, tells all by itself
        keys = whole[:1]
    found = again(cache, numbers, partial(_united, numbers=numbers, keys=keys))
    repeated = [number for number, one in found.items() if one.repeats]
    counted = again(cache, repeated, partial(_counted, numbers=repeated, keys=keys)) if repeated else {}
    return {number: one.steps for number, one in found.items()} | counted


class _Union:
    """The steps of one stream, put together piece by piece; whether a key has several values at one."""

    def __init__(self) -> None:
        import numpy as np

        self.steps: Ints = np.empty(0, np.int64)
        self.repeats = False
        self._ends: dict[str, int] = {}

    def add(self, key: str, part: Ints) -> None:
        import numpy as np

        self.repeats |= bool(part[0] <= self._ends.get(key, part[0] - 1) or (np.diff(part) <= 0).any())
        self._ends[key] = int(part[-1])
        if not len(self.steps) or part[0] > self.steps[-1]:
            self.steps = np.concatenate([self.steps, part])
        elif len(part) != len(self.steps) or not np.array_equal(part, self.steps):
            self.steps = np.union1d(self.steps, part)


def _united(paths: Sequence[Path], *, numbers: Sequence[int], keys: Sequence[str] | None) -> dict[int, _Union]:
    found = {number: _Union() for number in numbers}
    for table in tables(paths, numbers, keys, ["stream", "key", "step"]):
        step = table.column("step").to_numpy()
        for number, key, start, end in pieces(table):
            found[number].add(key, step[start:end])
    return found


def _counted(paths: Sequence[Path], *, numbers: Sequence[int], keys: Sequence[str] | None) -> dict[int, Ints]:
    """The same where a key has several values at one step: as many rows as the key that has most."""
    import numpy as np

    parts: dict[int, dict[str, list[Ints]]] = {number: {} for number in numbers}
    for table in tables(paths, numbers, keys, ["stream", "key", "step"]):
        step = table.column("step").to_numpy()
        for number, key, start, end in pieces(table):
            parts[number].setdefault(key, []).append(step[start:end])
    found = {}
    for number, by_key in parts.items():
        each, often = np.empty(0, np.int64), np.empty(0, np.int64)
        for some in by_key.values():
            own, counts = np.unique(np.concatenate(some), return_counts=True)
            both = np.union1d(each, own)
            most = np.zeros(len(both), np.int64)
            most[np.searchsorted(both, each)] = often
            at = np.searchsorted(both, own)
            most[at] = np.maximum(most[at], counts)
            each, often = both, most
        found[number] = np.repeat(each, often)
    return found
