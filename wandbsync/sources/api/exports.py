"""Parquet files with rows of a history, as the server exports them: steps, and the values of a column by key path.

The same rows as JSON (rows.py), in another dress: a null was not logged; a struct is a dict without its nulls; whole
numbers are INTs, as W&B keeps every number as a double in one file and as an integer in the next. A key with values of
several types is a union, a struct whose members are named for the types; BINARY is serialized JSON, STRING is text, in
which "NaN" and the infinities are floats. W&B's own readers (weave) say so. Older exports have one column of texts for
such a key, in which what is JSON is what it spells.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import BadExport, TooLarge
from ...model import EXACT_INT, Kind
from .rows import STEP, KeyPath, Values, classified, gathered, number_kinds, with_floats
from .texts import WORDS, from_json, is_json, is_text, is_union, json_texts, logged, strings

SMALL = 8 << 20  # bytes in memory; a file below that is read at once
MAGIC = b"PAR1"
DOUBLE = pa.float64()
MOST_TIMES = 10  # times as many rows as the server counts that exports of a run may have ...
MOST_MORE = 100_000  # ... and so many more
DENSE = 256 << 20  # bytes that a file may have in memory, whatever its size
EXPANDS = 100  # times its size that a larger one may have
BLOCK = 1 << 20  # bytes of lists and dicts that are made into texts at once


Source = Path | bytes  # a file, or what one has


@dataclass(frozen=True, slots=True)
class Export:
    """A file that has been looked at. n is its number of rows."""

    source: Source
    steps: NDArray[np.int64]  # of length n, in the file's order
    sizes: Mapping[str, int]  # the columns besides `_step`, and about how many bytes each takes in memory
    nested: frozenset[str]  # the columns in which dicts may be: what is in them has names with dots
    table: pa.Table | None  # all of it, if it was read at once
    metadata: Any = field(repr=False)

    def read(self, names: Collection[str]) -> Mapping[str, pa.ChunkedArray]:
        """Some of the columns. Raises BadExport."""
        table = self.table
        if not names:
            return {}
        if table is None:
            with readable(_name(self.source)), _opened(self.source, metadata=self.metadata) as file:
                # More than asked for comes along: a column "a.b" is also found as the field b of a column "a".
                table = file.read(list(names))
        places = {name: i for i, name in enumerate(table.column_names)}
        return {name: table.column(places[name]) for name in names}


def most_rows(counted: int) -> int:
    """How many rows the exports of a run may have: of one that was rewound, more than the server counts now."""
    return MOST_TIMES * counted + MOST_MORE


def look(source: Source, *, hold: bool, most: int | None = None) -> Export:
    """Read a file's steps; with `hold` the rest of it too, if it is small.

    Raises BadExport, and TooLarge if it has more than `most` rows, or is a small file of what takes much memory.
    """
    with readable(_name(source)), _opened(source) as file:
        metadata, schema = file.metadata, file.schema_arrow
        fields = list(schema)
        count = metadata.num_rows
        _check_size(source, metadata, most)
        sizes = _sizes(metadata, fields)
        if not count:
            return Export(source, np.empty(0, np.int64), {}, frozenset(), None, metadata)
        if STEP not in sizes:
            raise BadExport(f"{_name(source)} of the exported history has no {STEP}")
        total = sum(sizes.values())
        table = file.read(use_threads=False) if hold and total <= SMALL else None
        steps = _steps(file.read([STEP]).column(STEP) if table is None else table.column(STEP))
        if len(steps) != count:
            raise BadExport(f"{_name(source)} of the exported history should have {count} rows, not {len(steps)}")
    del sizes[STEP]
    nested = frozenset(one.name for one in fields if one.name in sizes and not _is_flat(one.type))
    return Export(source, steps, sizes, nested, table, metadata)


def _is_flat(kind: pa.DataType) -> bool:
    """Whether no value of such a column is a dict with more paths."""
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _check_size(source: Source, metadata: Any, most: int | None) -> None:
    """By what the footer says, before any of it is read: both of the whole and of its parts."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    rows, size = sum(group.num_rows for group in groups), sum(group.total_byte_size for group in groups)
    if most is not None and max(rows, metadata.num_rows) > most:
        raise TooLarge(f"{_name(source)} of the exported history has {rows:,} rows, far more than the server counts")
    length = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > max(DENSE, EXPANDS * length):
        raise TooLarge(f"{_name(source)} of the exported history has {length:,} bytes that expand to {size >> 20:,} MB")


def is_whole(source: Source) -> bool:
    """Whether a file begins and ends as a Parquet file does."""
    if isinstance(source, bytes):
        return len(source) > 8 and source[:4] == source[-4:] == MAGIC
    with source.open("rb") as file:
        begin = file.read(4)
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 4))
        return end > 8 and begin == file.read() == MAGIC


def _opened(source: Source, *, metadata: Any = None) -> pq.ParquetFile:
    if isinstance(source, Path) and source.stat().st_size <= SMALL // 8:
        source = source.read_bytes()  # Arrow would ask the disk several times for each column
    place = source if isinstance(source, Path) else pa.py_buffer(source)
    return pq.ParquetFile(place, metadata=metadata, page_checksum_verification=True)


def _name(source: Source) -> str:
    return f"the file {source.name}" if isinstance(source, Path) else "a file"


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Arrow's errors as ours."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadExport(f"{what} of the exported history cannot be read: {text}") from error


def _sizes(metadata: Any, fields: Sequence[pa.Field]) -> dict[str, int]:
    """About how many bytes each column takes in memory.

    The sizes that the metadata has for each column are not asked for: where those are damaged, Arrow 26 ends the
    process instead of raising an error.
    """
    plain = {one.name: 8 * metadata.num_rows for one in fields if pa.types.is_primitive(one.type)}
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    others = [one.name for one in fields if one.name not in plain]
    share = max(8 * metadata.num_rows, (total - sum(plain.values())) // max(1, len(others)))
    return plain | dict.fromkeys(others, share)


def _steps(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The steps, which may be integers or doubles; a row without one goes on from the row before it."""
    kind = column.type
    if pa.types.is_int64(kind) and not column.null_count:
        plain: NDArray[np.int64] = column.to_numpy()
        return plain
    if pa.types.is_floating(kind):
        value = column.to_numpy().astype(np.float64)  # null becomes NaN
        given = np.abs(value) < 2.0**63
    else:
        column = column.cast(pa.int64())
        given = column.is_valid().to_numpy()
        value = column.fill_null(0).to_numpy()
    if given.all():
        return np.ascontiguousarray(value, np.int64)
    steps = np.where(given, value, 0).astype(np.int64)
    for i in np.flatnonzero(~given).tolist():
        steps[i] = steps[i - 1] + 1 if i else 0
    return steps


# -- columns


def column_values(
    name: str,
    chunks: Sequence[tuple[int, pa.Array]],
    rows: NDArray[np.int64],
    *,
    mixed: bool = False,
) -> dict[KeyPath, list[Values]]:
    """The values of a column by key path, from all files that have it: number of a chunk's first row, and the chunk.

    Chunks may be of different types. The rows of each Values ascend, and no row has two values of one path.
    `rows` are 0, 1, 2 ... as far as there are rows: all columns take the numbers of theirs from there.
    `mixed`: whether the server counts values of other types than text there, so that texts may spell them.
    """
    found: dict[KeyPath, list[Values]] = {}
    for start, array in chunks:
        at = rows[start : start + len(array)]
        if array.type == DOUBLE and not array.null_count:  # as most are
            value = array.to_numpy()
            found.setdefault((name,), []).append(Values(at, value, number_kinds(value)))
            continue
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if (kind := _without_views(array.type)) != array.type:
            array = array.cast(kind)
        if mixed and is_text(array.type):
            array = array.cast(pa.large_binary())
        for path, values in _values((name,), at, array):
            found.setdefault(path, []).append(values)
    return found


def _without_views(kind: pa.DataType) -> pa.DataType:
    """A type with plain texts for views of texts, as other writers than Arrow have them: these cannot be filtered."""
    types = pa.types
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return pa.large_string() if types.is_string_view(kind) else pa.large_binary()
    if types.is_struct(kind):
        return pa.struct([one.with_type(_without_views(one.type)) for one in kind])
    if types.is_list(kind) or types.is_large_list(kind):
        make = pa.list_ if types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_without_views(kind.value_type)))
    return kind


def _values(path: KeyPath, at: NDArray[np.int64], array: pa.Array) -> Iterator[tuple[KeyPath, Values]]:
    """The values of an array of any type; `at` has the row of each element."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if is_union(kind):
        yield from _union(path, at, array)
        return
    if pa.types.is_struct(kind):
        yield from _members(path, at, array)
        return
    at, array = _given(at, array)
    if not len(at):
        return
    if pa.types.is_floating(kind):
        value = array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        yield path, Values(at, value, number_kinds(value))
    elif pa.types.is_integer(kind):
        yield path, _integers(at, array)
    elif pa.types.is_boolean(kind):
        value = array.to_numpy(zero_copy_only=False).astype(np.float64)
        yield path, Values(at, value, np.full(len(at), Kind.BOOL, np.uint8))
    elif pa.types.is_map(kind):
        yield from _maps(path, at, array)
    elif is_json(kind):
        yield from _json_values(path, at, with_floats([from_json(text) for text in array.to_pylist()]))
    elif is_text(kind):
        yield from _words(path, at, strings(array))
    else:
        yield from _texts(path, at, array)


def _members(path: KeyPath, at: NDArray[np.int64], array: pa.Array) -> Iterator[tuple[KeyPath, Values]]:
    """The values of an array of structs: those with a `_type` are one value each, the others more paths."""
    if array.type.get_field_index("_type") >= 0:
        whole = array.is_valid().to_numpy(zero_copy_only=False)
        whole &= array.field("_type").is_valid().to_numpy(zero_copy_only=False)
        if whole.any():
            yield from _texts(path, at[whole], array.filter(pa.array(whole)))
            at, array = at[~whole], array.filter(pa.array(~whole))
    for one, member in zip(array.type, array.flatten(), strict=True):
        yield from _values((*path, one.name), at, member)


def _union(path: KeyPath, at: NDArray[np.int64], array: pa.Array) -> Iterator[tuple[KeyPath, Values]]:
    """The values of a column with several types: of each row the member that is given."""
    left = np.ones(len(array), np.bool_)
    for member in sorted(array.flatten(), key=lambda one: pa.types.is_struct(one.type)):  # a struct may be all nulls
        given = member.is_valid().to_numpy(zero_copy_only=False) & left
        left &= ~given
        if given.any():
            yield from _values(path, at[given], member.filter(pa.array(given)))


def _words(path: KeyPath, at: NDArray[np.int64], array: pa.LargeStringArray) -> Iterator[tuple[KeyPath, Values]]:
    """Texts; W&B has no other way to say that a number is none, or infinite, where a column holds texts too."""
    floats = pc.is_in(array, WORDS).to_numpy(zero_copy_only=False)
    if floats.any():
        yield path, classified(at[floats], with_floats(array.filter(pa.array(floats)).to_pylist()))
        at, array = at[~floats], array.filter(pa.array(~floats))
    if len(at):
        yield from _texts(path, at, array)


def _maps(path: KeyPath, at: NDArray[np.int64], array: pa.MapArray) -> Iterator[tuple[KeyPath, Values]]:
    found = [logged({str(logged(name)): one for name, one in value}) for value in array.to_pylist()]
    some = np.array([bool(value) for value in found], np.bool_)
    yield from _json_values(path, at[some], [value for value in found if value])


def _texts(path: KeyPath, at: NDArray[np.int64], array: pa.Array) -> Iterator[tuple[KeyPath, Values]]:
    """Values that are JSON texts, made of a few megabytes at a time."""
    size = max(1, len(at) * BLOCK // max(1, array.nbytes))
    for start in range(0, len(at), size):
        rows = at[start : start + size]
        none, kind = np.full(len(rows), np.nan), np.full(len(rows), Kind.JSON, np.uint8)
        yield path, Values(rows, none, kind, json_texts(array.slice(start, size)))


def _given(at: NDArray[np.int64], array: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """Without the nulls."""
    if not array.null_count:
        return at, array
    return at[array.is_valid().to_numpy(zero_copy_only=False)], array.drop_null()


def _integers(at: NDArray[np.int64], array: pa.Array) -> Values:
    number = array.to_numpy()
    big = (number > EXACT_INT) | (number < -EXACT_INT)
    kind = np.where(big, np.uint8(Kind.BIGINT), np.uint8(Kind.INT))
    text = None
    if big.any():
        text = pc.if_else(pa.array(big), array.cast(pa.large_string()), pa.scalar(None, pa.large_string()))
    return Values(at, number.astype(np.float64), kind, text)


def _json_values(path: KeyPath, at: NDArray[np.int64], values: Sequence[Any]) -> Iterator[tuple[KeyPath, Values]]:
    """Values as JSON has them."""
    cells = gathered([{path[-1]: value} for value in values])
    for below, (numbers, some) in cells.items():
        yield (*path[:-1], *below), classified(at[np.array(numbers, np.int64)], some)
