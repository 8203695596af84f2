"""Long rows -> one row a step, with a column for each key; in batches, so that any size passes through little memory.

    streams of some runs --columns--> what holds all values of a key --batches--> run_id, _step, key, key, ...

A column is int64 where all its numbers are integers that fit, float64 where some are not, bool, or text: strings as
they were logged, anything else as JSON, and integers of more than 64 bits as their digits. A cell is null where nothing
was logged, or None was. NaN is a number here, not null.

A step that was logged in several rows has several rows: the first holds the first value of each key, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, catalog, uses
from ..cache.rows import stream_of, streams_of
from ..errors import NotFound, nearest
from ..model import HISTORY, Kind, RunRef
from .cells import BOOL, FLOAT, INT, JSON, NOTHING, NUMBERS, STRING, TEXTS, Cells, Column, Place
from .pieces import again, pieces, steps, tables

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

CELLS = 8_000_000  # of a batch, when batches are asked for
TOGETHER = 4_000_000  # cells of small runs that are read together
FEW_ROWS = 4096  # of a batch at the least


def columns(
    cache: Cache, refs: Sequence[RunRef], keys: Sequence[str] | None = None, *, stream: str = HISTORY
) -> list[Column]:
    """The columns of some runs together: those of `keys`, in that order, or of all keys by name.

    Raises NotFound for a key that none of the runs has.
    """
    kinds: dict[str, int] = {}
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        for ref in refs:
            number = streams_of(cache, ref).get(stream)
            for key, seen in cache.con.execute("SELECT key, kinds FROM metrics WHERE stream = ?", (number,)):
                kinds[key] = kinds.get(key, 0) | seen
    if keys is None:
        keys = sorted(kinds)
    missing = [key for key in keys if key not in kinds]
    if missing:
        where = str(refs[0]) if len(refs) == 1 else f"any of the {len(refs)} runs"
        raise NotFound(f"no metric {', '.join(missing)} in {where}", hint=nearest(missing[0], kinds))
    return [Column(key, kinds[key], _holds(cache, refs, key, kinds[key], stream)) for key in dict.fromkeys(keys)]


def _holds(cache: Cache, refs: Sequence[RunRef], key: str, kinds: int, stream: str) -> str:
    """What a column of such kinds holds; where that depends on the texts, they are looked at."""
    kinds &= ~(1 << Kind.NULL)
    if not kinds:
        return NOTHING
    if kinds == 1 << Kind.BOOL:
        return BOOL
    if not kinds & ~NUMBERS:
        if kinds & 1 << Kind.FLOAT:
            return FLOAT
        if not kinds & 1 << Kind.BIGINT or all(_fit(text) for text in _texts(cache, refs, key, stream)):
            return INT
        return JSON
    if kinds == 1 << Kind.LINE:
        return STRING
    if kinds == 1 << Kind.JSON and all(_are_strings(text) for text in _texts(cache, refs, key, stream)):
        return STRING
    return JSON


def _texts(cache: Cache, refs: Sequence[RunRef], key: str, stream: str) -> Iterator[pa.ChunkedArray]:
    """The texts of a key, a row group at a time."""
    with catalog.translated(cache.folder):
        numbers = [number for ref in refs if (number := streams_of(cache, ref).get(stream)) is not None]
    yield from again(cache, numbers, partial(_texts_in, numbers=numbers, key=key))


def _texts_in(paths: Sequence[Path], *, numbers: Sequence[int], key: str) -> list[pa.ChunkedArray]:
    return [table.column("value_json").drop_null() for table in tables(paths, numbers, [key], ["value_json"])]


def _fit(texts: Any) -> bool:
    return all(-(2**63) <= int(text) < 2**63 for text in texts.to_pylist())


def _are_strings(texts: Any) -> bool:
    import pyarrow.compute as pc

    return bool(pc.all(pc.starts_with(texts, '"'), min_count=0).as_py())


def schema(found: Sequence[Column], *, x: str = "_step") -> pa.Schema:
    """`run_id`, `_step`, the key that is to be the x axis, the others."""
    import pyarrow as pa

    ahead = [("run_id", pa.string()), ("_step", pa.int64())]
    first = [one for one in found if one.key == x]
    return pa.schema([*ahead, *((one.key, one.type) for one in [*first, *(one for one in found if one.key != x)])])


def batches(
    cache: Cache,
    refs: Sequence[RunRef],
    found: Sequence[Column],
    *,
    x: str = "_step",
    stream: str = HISTORY,
    cells: int | None = CELLS,
) -> Iterator[pa.RecordBatch]:
    """The rows of some runs, run by run and in order of steps; of `schema(found, x=x)`.

    `x` other than `_step` is a key of `found`: only rows that have it. `cells`: about so many at a time; None: a large
    run in one batch. Raises NothingCached for a run whose rows were removed to save space.
    """
    import pyarrow.compute as pc

    uses.note(cache, refs)
    shown = schema(found, x=x)
    for group in _groups(_known(cache, refs, found, stream), min(cells or TOGETHER, TOGETHER)):
        for batch in _of_group(cache, group, cells, shown):
            yield batch if x == "_step" else batch.filter(pc.is_valid(batch.column(x)))


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream of a run, and the columns that it has something for."""

    ref: RunRef
    number: int
    found: tuple[Column, ...]
    every: bool  # whether these are all it has
    cells: int  # at the most


def _known(cache: Cache, refs: Sequence[RunRef], found: Sequence[Column], stream: str) -> Iterator[_Stream]:
    for ref in refs:
        with catalog.translated(cache.folder), catalog.snapshot(cache.con):
            number = stream_of(cache, ref, stream)
            known = dict(cache.con.execute("SELECT key, count FROM metrics WHERE stream = ?", (number,)).fetchall())
        here = tuple(one for one in found if one.key in known)
        if number is not None and here:
            most = max(known[one.key] for one in here) * len(here)
            yield _Stream(ref, number, here, len(here) == len(known), most)


def _groups(streams: Iterator[_Stream], cells: int) -> Iterator[list[_Stream]]:
    """Streams that are read together: those of small runs lie beside each other in the segments."""
    group: list[_Stream] = []
    total = 0
    for one in streams:
        if group and total + one.cells > cells:
            yield group
            group, total = [], 0
        group.append(one)
        total += one.cells
    if group:
        yield group


def _of_group(cache: Cache, group: Sequence[_Stream], cells: int | None, shown: pa.Schema) -> Iterator[pa.RecordBatch]:
    import numpy as np

    found = list(dict.fromkeys(column for one in group for column in one.found))
    keys = None if all(one.every for one in group) else [column.key for column in found]
    grids = steps(cache, [one.number for one in group], keys)
    if len(group) > 1 or cells is None:
        yield _batch(cache, group, grids, found, keys, shown)
        return
    (one,) = group
    grid = grids[one.number]
    most, start = max(FEW_ROWS, cells // len(found)), 0
    while start < len(grid):
        end = len(grid)
        if end - start > most:  # a step is not divided
            end = int(np.searchsorted(grid, grid[start + most - 1], side="right"))
        yield _batch(cache, group, {one.number: grid[start:end]}, found, keys, shown, part=end - start < len(grid))
        start = end


def _batch(
    cache: Cache,
    group: Sequence[_Stream],
    grids: Mapping[int, Ints],
    found: Sequence[Column],
    keys: Sequence[str] | None,
    shown: pa.Schema,
    *,
    part: bool = False,
) -> pa.RecordBatch:
    """The rows of the steps in `grids`; `part`: there are others."""
    import numpy as np
    import pyarrow as pa

    numbers = [one.number for one in group]
    sizes = [len(grids[number]) for number in numbers]
    places, first = {}, 0
    for number, size in zip(numbers, sizes, strict=True):
        grid = grids[number]
        places[number] = Place(grid, first, bool(size > 1 and (grid[1:] == grid[:-1]).any()))
        first += size
    whole = np.concatenate([grids[number] for number in numbers]) if len(numbers) > 1 else grids[numbers[0]]
    between = (int(whole[0]), int(whole[-1])) if part else None
    fill = partial(_filled, places=places, found=found, keys=keys, size=first, between=between)
    arrays = again(cache, numbers, fill)
    ids = pa.array([one.ref.run_id for one in group], pa.string())
    arrays |= {"_step": pa.array(whole), "run_id": ids.take(pa.array(np.repeat(np.arange(len(group)), sizes)))}
    return pa.record_batch([arrays.get(field.name, pa.nulls(first, field.type)) for field in shown], schema=shown)


def _filled(
    paths: Sequence[Path],
    *,
    places: Mapping[int, Place],
    found: Sequence[Column],
    keys: Sequence[str] | None,
    size: int,
    between: tuple[int, int] | None,
) -> dict[str, pa.Array]:
    texts = any(one.kinds & TEXTS and one.holds != FLOAT for one in found)
    names = ["stream", "key", "step", "value", "kind", *(["value_json"] if texts else [])]
    repeats = any(place.repeats for place in places.values())
    cells = {one.key: Cells(one, size, repeats=repeats) for one in found}
    for table in tables(paths, list(places), keys, names, between=between):
        step = table.column("step").to_numpy()
        value, kind = table.column("value").to_numpy(), table.column("kind").to_numpy()
        for number, key, start, end in pieces(table):
            one = cells[key]
            at = places[number].cells(step[start:end], one.taken)
            text = table.column("value_json").slice(start, end - start) if texts else None
            one.put(at, value[start:end], kind[start:end], text)
    return {key: one.array() for key, one in cells.items()}


def decoded(table: pa.Table, found: Sequence[Column]) -> pa.Table:
    """The same with JSON read: lists, structs and maps as Arrow has them; text where rows differ too much for that."""
    import pyarrow as pa

    kinds: Mapping[str, str] = {one.key: one.holds for one in found}
    for i, field in enumerate(table.schema):
        if kinds.get(field.name) == JSON:
            values = [None if text is None else json.loads(text) for text in table.column(i).to_pylist()]
            try:
                array = pa.array(values)
            except (pa.ArrowException, OverflowError, UnicodeEncodeError):
                continue
            table = table.set_column(i, field.name, array)
    return table
