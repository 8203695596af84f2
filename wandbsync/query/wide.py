"""Long rows -> one row a step, with a column for each key; in batches, so that any size passes through little memory.

    streams of some runs --columns--> what holds all values of a key --batches--> run_id, _step, key, key, ...

A column is int64 where all its numbers are integers that fit, float64 where some are not, bool, or text: strings as
they were logged, anything else as JSON, and integers of more than 64 bits as their digits. A cell is null where nothing
was logged, or None was. NaN is a number here, not null.

A step that was logged in several rows has several rows: the first holds the first value of each key, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..cache import Cache, catalog
from ..cache.disk import GONE
from ..cache.rows import streams_of
from ..errors import CacheError, NotFound
from ..model import HISTORY, Kind, RunRef, logged
from .names import nearest

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

T = TypeVar("T")
CELLS = 8_000_000  # of a batch, when batches are asked for
FEW_ROWS = 4096  # of a batch at the least
NUMBERS = 1 << Kind.FLOAT | 1 << Kind.INT | 1 << Kind.BOOL | 1 << Kind.BIGINT
TEXTS = 1 << Kind.JSON | 1 << Kind.BIGINT | 1 << Kind.LINE

INT, FLOAT, BOOL, STRING, JSON, NOTHING = "int64", "float64", "bool", "string", "json", "null"


@dataclass(frozen=True, slots=True)
class Column:
    """What a key becomes."""

    key: str
    kinds: int  # bit 1 << kind for every kind that is in one of the runs
    holds: str  # INT, FLOAT, BOOL, STRING, JSON or NOTHING

    @property
    def type(self) -> pa.DataType:
        import pyarrow as pa

        texts = {STRING: pa.large_string(), JSON: pa.large_string(), NOTHING: pa.null()}
        return texts.get(self.holds) or {INT: pa.int64(), FLOAT: pa.float64(), BOOL: pa.bool_()}[self.holds]


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
    for ref in refs:
        with catalog.translated(cache.folder):
            number = streams_of(cache, ref).get(stream)
        yield from _again(cache, ref, number, partial(_texts_in, number=number, key=key))


def _texts_in(paths: Sequence[Path], number: int | None, key: str) -> list[pa.ChunkedArray]:
    return [table.column("value_json").drop_null() for table in _rows(paths, number, [key], ["value_json"])]


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

    `x` other than `_step` is a key of `found`: only rows that have it. `cells`: so many at a time; None: a batch a run.
    """
    import pyarrow.compute as pc

    shown = schema(found, x=x)
    for ref in refs:
        for batch in _of_run(cache, ref, found, stream, cells, shown):
            yield batch if x == "_step" else batch.filter(pc.is_valid(batch.column(x)))


def _of_run(
    cache: Cache, ref: RunRef, found: Sequence[Column], stream: str, cells: int | None, shown: pa.Schema
) -> Iterator[pa.RecordBatch]:
    import numpy as np
    import pyarrow as pa

    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        number = streams_of(cache, ref).get(stream)
        known = {row[0] for row in cache.con.execute("SELECT key FROM metrics WHERE stream = ?", (number,))}
    here = [one for one in found if one.key in known]
    if number is None or not here:
        return
    grid = _grid(cache, ref, number, None if len(here) == len(known) else [one.key for one in here])
    most = len(grid) if cells is None else max(FEW_ROWS, cells // len(here))
    start = 0
    while start < len(grid):
        end = len(grid)
        if end - start > most:  # a step is not divided
            end = int(np.searchsorted(grid, grid[start + most - 1], side="right"))
        part = grid[start:end]
        between = None if len(part) == len(grid) else (int(part[0]), int(part[-1]))
        fill = partial(_filled, number=number, found=here, grid=part, between=between)
        arrays = _again(cache, ref, number, fill)
        arrays |= {"_step": pa.array(part), "run_id": pa.repeat(pa.scalar(ref.run_id), len(part))}
        yield pa.record_batch(
            [arrays.get(field.name, pa.nulls(len(part), field.type)) for field in shown], schema=shown
        )
        start = end


def _again(cache: Cache, ref: RunRef, number: int | None, read: Callable[[list[Path]], T]) -> T:
    """What `read` makes of a stream's segments; once more if they were compacted and swept since they were listed."""
    for attempt in range(5):
        with catalog.translated(cache.folder):
            paths = cache.segments_of(number)
        try:
            return read(paths)
        except FileNotFoundError as error:
            if attempt == 4:
                raise CacheError(f"a segment of {ref} is gone: {error}", hint=GONE) from error
    raise AssertionError


def _rows(
    paths: Sequence[Path],
    number: int | None,
    keys: Sequence[str] | None,
    names: Sequence[str],
    between: tuple[int, int] | None = None,
) -> Iterator[pa.Table]:
    from ..cache import segments

    for path in paths:
        yield from segments.read(path, columns=names, keys=keys, streams=[number or 0], steps=between)


def _pieces(table: pa.Table) -> Iterator[tuple[str, int, int]]:
    """The keys of a table of rows, each with where its rows begin and end."""
    import numpy as np

    key = table.column("key").combine_chunks()
    if hasattr(key, "chunk"):
        key = key.chunk(0)
    names, code = key.dictionary.to_pylist(), key.indices.to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(code)) + 1).tolist()] if len(code) else []
    for start, end in zip(starts, [*starts[1:], len(code)], strict=True):
        yield names[code[start]], start, end


# -- which rows there are


def _grid(cache: Cache, ref: RunRef, number: int, keys: Sequence[str] | None) -> Ints:
    """The steps of the rows, ascending, each as often as it has rows."""
    with catalog.translated(cache.folder):
        everywhere = cache.con.execute(
            "SELECT m.key FROM metrics m JOIN streams s USING (stream) WHERE stream = ? AND m.count = s.rows LIMIT 1",
            (number,),
        ).fetchone()
    if keys is None and everywhere:  # a key that is in each row, as `_timestamp` is, tells all by itself
        keys = [everywhere[0]]
    if keys is not None and len(keys) == 1:
        return _again(cache, ref, number, partial(_steps, number=number, keys=keys))
    return _again(cache, ref, number, partial(_union, number=number, keys=keys))


def _steps(paths: Sequence[Path], number: int, keys: Sequence[str]) -> Ints:
    import numpy as np

    parts = [table.column("step").to_numpy() for table in _rows(paths, number, keys, ["step"])]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]), kind="stable")


def _union(paths: Sequence[Path], number: int, keys: Sequence[str] | None) -> Ints:
    import numpy as np

    grid = np.empty(0, np.int64)
    ends: dict[str, int] = {}
    for table in _rows(paths, number, keys, ["key", "step"]):
        step = table.column("step").to_numpy()
        for key, start, end in _pieces(table):
            part = step[start:end]
            if part[0] <= ends.get(key, part[0] - 1) or (np.diff(part) <= 0).any():
                return _union_with_repeats(paths, number, keys)
            ends[key] = int(part[-1])
            if len(part) != len(grid) or not np.array_equal(part, grid):
                grid = np.union1d(grid, part)
    return grid


def _union_with_repeats(paths: Sequence[Path], number: int, keys: Sequence[str] | None) -> Ints:
    """The same where a key has several values at one step."""
    import numpy as np

    parts: dict[str, list[Ints]] = {}
    for table in _rows(paths, number, keys, ["key", "step"]):
        step = table.column("step").to_numpy()
        for key, start, end in _pieces(table):
            parts.setdefault(key, []).append(step[start:end])
    grid, often = np.empty(0, np.int64), np.empty(0, np.int64)
    for some in parts.values():
        steps, counts = np.unique(np.concatenate(some), return_counts=True)
        both = np.union1d(grid, steps)
        most = np.zeros(len(both), np.int64)
        most[np.searchsorted(both, grid)] = often
        at = np.searchsorted(both, steps)
        most[at] = np.maximum(most[at], counts)
        grid, often = both, most
    return np.repeat(grid, often)


# -- what is in their cells


def _filled(
    paths: Sequence[Path],
    number: int,
    found: Sequence[Column],
    grid: Ints,
    between: tuple[int, int] | None,
) -> dict[str, pa.Array]:
    """The columns of a run for the steps of `grid`."""
    texts = any(one.kinds & TEXTS and one.holds != FLOAT for one in found)
    names = ["key", "step", "value", "kind", *(["value_json"] if texts else [])]
    cells = {one.key: _Cells(one, grid) for one in found}
    for table in _rows(paths, number, list(cells), names, between):
        step = table.column("step").to_numpy()
        value, kind = table.column("value").to_numpy(), table.column("kind").to_numpy()
        for key, start, end in _pieces(table):
            text = table.column("value_json").slice(start, end - start) if texts else None
            cells[key].put(step[start:end], value[start:end], kind[start:end], text)
    return {key: one.array() for key, one in cells.items()}


class _Cells:
    """One column while it is being filled."""

    def __init__(self, column: Column, grid: Ints) -> None:
        import numpy as np

        self.column, self.grid = column, grid
        self.repeats = bool(len(grid) > 1 and (grid[1:] == grid[:-1]).any())
        kinds = {INT: np.int64, FLOAT: np.float64, BOOL: np.bool_}
        self.numbers: NDArray[Any] | None = np.zeros(len(grid), kinds[column.holds]) if column.holds in kinds else None
        self.seen = np.zeros(len(grid), np.bool_)  # cells that have a value
        self.taken = self.seen if not self.repeats else np.zeros(len(grid), np.bool_)  # or None, which was logged too
        self.texts: list[tuple[Ints, pa.Array]] = []

    def put(self, step: Ints, value: Any, kind: Any, text: Any) -> None:
        import numpy as np

        at: Any = self._places(step)
        if self.repeats:
            self.taken[at] = True
        given = kind != Kind.NULL
        if not given.all():
            if isinstance(at, slice):
                at = np.arange(at.start, at.stop)
            at, value, kind = at[given], value[given], kind[given]
            text = text.filter(given) if text is not None else None
        if not len(value):
            return
        self.seen[at] = True
        if self.numbers is None:
            if isinstance(at, slice):
                at = np.arange(at.start, at.stop)
            self.texts.append((at, self._words(value, kind, text)))
        elif self.column.holds == INT and (big := kind == Kind.BIGINT).any():
            at = np.arange(at.start, at.stop) if isinstance(at, slice) else at
            self.numbers[at[~big]] = value[~big].astype(np.int64)
            self.numbers[at[big]] = [int(digits) for digits in text.filter(big).to_pylist()]
        else:
            self.numbers[at] = value if self.column.holds == FLOAT else value.astype(self.numbers.dtype)

    def _places(self, step: Ints) -> slice | Ints:
        """The rows of the grid that values of these ascending steps belong to."""
        import numpy as np

        first = int(np.searchsorted(self.grid, step[0]))
        if not self.repeats:
            if np.array_equal(self.grid[first : first + len(step)], step):
                return slice(first, first + len(step))
            return np.searchsorted(self.grid, step)
        each, back, counts = np.unique(step, return_inverse=True, return_counts=True)
        base = np.searchsorted(self.grid, each)
        while (full := self.taken[base]).any():  # by values that came in an earlier piece
            base[full] += 1
        nth = np.arange(len(step)) - np.repeat(np.cumsum(counts) - counts, counts)
        return base[back] + nth

    def _words(self, value: Any, kind: Any, text: Any) -> pa.Array:
        import pyarrow as pa

        text = text.combine_chunks().cast(pa.large_string())
        text = text.chunk(0) if isinstance(text, pa.ChunkedArray) else text
        if self.column.holds == STRING:
            return text if self.column.kinds & 1 << Kind.LINE else _strings(text)
        if not ((kind != Kind.JSON) & (kind != Kind.BIGINT)).any():
            return text
        cells = zip(kind.tolist(), value.tolist(), text.to_pylist(), strict=True)
        return pa.array(
            [catalog.dump(logged(*cell)) if cell[2] is None else cell[2] for cell in cells], pa.large_string()
        )

    def array(self) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        if self.column.holds == NOTHING:
            return pa.nulls(len(self.grid))
        if self.numbers is not None:
            return pa.array(self.numbers) if self.seen.all() else pa.array(self.numbers, mask=~self.seen)
        if not self.texts:
            return pa.nulls(len(self.grid), pa.large_string())
        words = pa.concat_arrays([text for _, text in self.texts])
        index = np.zeros(len(self.grid), np.int64)
        index[np.concatenate([at for at, _ in self.texts])] = np.arange(len(words))
        return words.take(pa.array(index, mask=~self.seen))


def _strings(text: pa.Array) -> pa.Array:
    """JSON texts of strings as the strings."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(pc.match_substring(text, "\\"), min_count=0).as_py():
        return pc.utf8_slice_codeunits(text, 1, -1)
    return pa.array([_string(one) for one in text.to_pylist()], pa.large_string())


def _string(text: str | None) -> str | None:
    if text is None:
        return None
    string: str = json.loads(text)
    try:
        string.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which Arrow has no room for: as it was sent
        return text
    return string


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
