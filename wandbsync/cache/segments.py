"""Segments: immutable Parquet files of long rows, written once and never again.

Every segment holds `stream` int32, `key`, `step` int64, `value` float64, `kind` uint8, `value_json`, sorted by key,
then stream, then step (rows of one step stay in the order they were logged). So the one metric that a query asks for
lies together, whether the file holds one long run or a thousand short ones, and row groups can be skipped by their
statistics. `stream` is a number of the catalog's: it stands for one stream of one run in one generation.

`value` has no statistics on purpose: with them DuckDB 2.0 answers `isnan(value)` with no rows.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CacheError
from ..files import private_opener
from ..model import Kind

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from ..model import Columns

ROW_GROUP = 131_072  # rows at the most
OWN_GROUP = 65_536  # a key with as many rows gets row groups of its own
WINDOW = 2_000_000  # rows that a merge holds in memory

ABOUT = "wandbsync"  # the key of what a file says of itself
COLUMNS = ("stream", "key", "step", "value", "kind", "value_json")
_CHOOSING = (0, 1, 2, 4)  # of these, those that rows are chosen by


@dataclass(frozen=True, slots=True)
class Block:
    """Long rows of any streams. Arrays are aligned, of length n."""

    names: Sequence[str]
    key: NDArray[np.int32]  # index into `names`
    stream: NDArray[np.int32]
    step: NDArray[np.int64]
    value: NDArray[np.float64]  # NaN where it is to be null
    kind: NDArray[np.uint8]
    text: pa.LargeStringArray | None  # None when all are null

    def __len__(self) -> int:
        return len(self.key)

    def starts(self) -> NDArray[np.int64]:
        """Where each (key, stream) begins; the block must be sorted."""
        import numpy as np

        if not len(self):
            return np.empty(0, np.int64)
        change = (np.diff(self.key) != 0) | (np.diff(self.stream) != 0)
        return np.concatenate(([0], np.flatnonzero(change) + 1)).astype(np.int64)


def block(stream: int, columns: Columns) -> Block:
    """The rows of one stream as a block, in the order they were logged."""
    import numpy as np

    number = np.full(len(columns), stream, np.int32)
    return Block(columns.names, columns.key, number, columns.step, columns.value, columns.kind, columns.text)


def select(part: Block, wanted: NDArray[np.bool_], stream: int) -> Block:
    """Some of the rows, as another stream's."""
    import numpy as np
    import pyarrow as pa

    text = None if part.text is None else part.text.filter(pa.array(wanted))
    number = np.full(int(wanted.sum()), stream, np.int32)
    return Block(part.names, part.key[wanted], number, part.step[wanted], part.value[wanted], part.kind[wanted], text)


def sort(blocks: Iterable[Block]) -> Block:
    """All rows in the order of a segment; blocks come in the order in which they were logged."""
    import numpy as np
    import pyarrow as pa

    parts = [part for part in blocks if len(part)]
    names = sorted({name for part in parts for name in part.names})  # code points sort as UTF-8 does
    if not parts:
        none = np.empty(0, np.int32)
        return Block(names, none, none, np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8), None)
    rank = {name: i for i, name in enumerate(names)}
    ranks = [np.array([rank[name] for name in part.names], np.int32) for part in parts]
    text = any(part.text is not None for part in parts)
    texts = [pa.nulls(len(part), pa.large_string()) if part.text is None else part.text for part in parts if text]
    pieces = _in_order(parts, ranks)
    if pieces is not None:
        size = [end - start for _, start, end in pieces]
        return Block(
            names,
            np.repeat(np.array([ranks[i][parts[i].key[start]] for i, start, _ in pieces], np.int32), size),
            np.repeat(np.array([parts[i].stream[start] for i, start, _ in pieces], np.int32), size),
            np.concatenate([parts[i].step[start:end] for i, start, end in pieces]),
            np.concatenate([parts[i].value[start:end] for i, start, end in pieces]),
            np.concatenate([parts[i].kind[start:end] for i, start, end in pieces]),
            pa.concat_arrays([texts[i][start:end] for i, start, end in pieces]) if text else None,
        )
    key = np.concatenate([rank[part.key] for part, rank in zip(parts, ranks, strict=True)])
    stream = np.concatenate([part.stream for part in parts])
    step = np.concatenate([part.step for part in parts])
    order = np.lexsort((step, stream, key))
    return Block(
        names,
        key[order],
        stream[order],
        step[order],
        np.concatenate([part.value for part in parts])[order],
        np.concatenate([part.kind for part in parts])[order],
        pa.concat_arrays(texts).take(pa.array(order)) if text else None,
    )


def _in_order(parts: Sequence[Block], ranks: Sequence[NDArray[np.int32]]) -> list[tuple[int, int, int]] | None:
    """Which part, first row and end of the pieces that, end to end, are in the order of a segment.

    None if there is no such order, or none of pieces that are worth it: most rows come key after key.
    """
    starts = [part.starts() for part in parts]
    if 16 * sum(map(len, starts)) > sum(map(len, parts)):
        return None
    pieces: list[tuple[int, int, int, int, int, int]] = []  # rank, stream, first step, part, start, end
    for i, (part, start) in enumerate(zip(parts, starts, strict=True)):
        later = part.step[1:] >= part.step[:-1]
        later[start[1:] - 1] = True
        if not later.all():
            return None
        end = [*start[1:].tolist(), len(part)]
        some = ranks[i][part.key[start]].tolist(), part.stream[start].tolist(), part.step[start].tolist()
        pieces += zip(*some, itertools.repeat(i), start.tolist(), end, strict=False)
    pieces.sort(key=lambda piece: piece[:2])  # those of one key and stream stay in the order they were logged
    for a, b in itertools.pairwise(pieces):
        if a[:2] == b[:2] and b[2] < parts[a[3]].step[a[5] - 1]:
            return None
    return [piece[3:] for piece in pieces]


def cuts(key: NDArray[np.int32]) -> list[int]:
    """Where row groups end: at ROW_GROUP rows, and around every key that has OWN_GROUP rows or more."""
    import numpy as np

    marks: list[int] = []
    group = start = 0  # where the open row group and the key at hand begin
    for end in [*(np.flatnonzero(np.diff(key)) + 1).tolist(), len(key)]:
        if end - start >= OWN_GROUP:
            if start > group:
                marks.append(start)
            marks += range(start + ROW_GROUP, end, ROW_GROUP)
            marks.append(end)
            group = end
        elif end - group > ROW_GROUP:
            marks.append(start)
            group = start
        start = end
    if len(key) > group:
        marks.append(len(key))
    return marks


def write(path: Path, blocks: Iterable[Block], about: str = "") -> int:
    """Write sorted blocks, each key in one block only, to a new file and make it durable; the number of rows.

    `about` goes with them, for whoever has the file alone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("stream", pa.int32()),
            ("key", pa.dictionary(pa.int32(), pa.string())),
            ("step", pa.int64()),
            ("value", pa.float64()),
            ("kind", pa.uint8()),
            ("value_json", pa.large_string()),
        ]
    )
    rows = 0
    with (
        open(path, "xb", opener=private_opener) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["stream", "key", "kind"],
            column_encoding={"step": "DELTA_BINARY_PACKED", "value": "BYTE_STREAM_SPLIT"},
            write_statistics=["stream", "key", "step"],
            write_page_checksum=True,
            store_schema=False,
        ) as writer,
    ):
        for part in blocks:
            start = 0
            for end in cuts(part.key):
                writer.write_table(pa.table(_arrays(part, start, end), schema=schema), row_group_size=end - start)
                start = end
            rows += len(part)
        writer.add_key_value_metadata({ABOUT: about})
        writer.close()
        file.flush()
        os.fsync(file.fileno())
    return rows


def _arrays(part: Block, start: int, end: int) -> list[pa.Array]:
    import numpy as np
    import pyarrow as pa

    # A dictionary of just the keys in this row group: its statistics must not cover others.
    low, high = int(part.key[start]), int(part.key[end - 1]) + 1
    names = pa.array(part.names[low:high], pa.string())
    kind, value = part.kind[start:end], part.value[start:end]
    empty = (kind == Kind.NULL) | (kind == Kind.JSON) | ((kind == Kind.LINE) & np.isnan(value))
    return [
        pa.array(part.stream[start:end]),
        pa.DictionaryArray.from_arrays(pa.array(part.key[start:end] - low), names),
        pa.array(part.step[start:end]),
        pa.array(value, mask=empty) if empty.any() else pa.array(value),
        pa.array(kind),
        pa.nulls(end - start, pa.large_string()) if part.text is None else part.text[start:end],
    ]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Arrow's errors as ours; a file that is gone stays a FileNotFoundError."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError) as error:  # KeyError: a column's name is damaged
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CacheError(
            f"the segment {path} cannot be read: {text}", hint="`wandbsync cache verify` tells more"
        ) from error


def about(path: Path) -> str:
    """What a segment says of itself; empty if it is of an older version. Errors as `read`."""
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path) as file:
        return str((file.metadata.metadata or {}).get(ABOUT.encode(), b"").decode())


def _within(stats: Any) -> tuple[Any, Any] | None:
    """The least and greatest of a column in a row group; None if not known, as for keys of more than 4 kB."""
    return (stats.min, stats.max) if stats is not None and stats.has_min_max else None


def key_ranges(paths: Iterable[Path]) -> list[tuple[str, str, int]]:
    """First key, last key and rows of every row group, for a merge to plan with."""
    import pyarrow.parquet as pq

    ranges = []
    for path in paths:
        with _readable(path), pq.ParquetFile(path, read_dictionary=["key"]) as file:
            for i in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(i)
                within = _within(group.column(1).statistics)
                if within is None:
                    names = file.read_row_group(i, columns=["key"]).column("key").unique().to_pylist()
                    within = min(names), max(names)
                ranges.append((*within, group.num_rows))
    return ranges


def windows(ranges: Iterable[tuple[str, str, int]], rows: int) -> Iterator[tuple[str, str]]:
    """Cut the keys into ranges of about so many rows; `ranges` has first key, last key and rows of each row group.

    No two of the ranges that come out share a key, and together they hold all.
    """
    ends = sorted((last, count) for _, last, count in ranges)
    total = 0
    low = ""
    for i, (last, count) in enumerate(ends):
        total += count
        if (total >= rows or i == len(ends) - 1) and last >= low:
            yield low, last
            low, total = last + "\0", 0


def merged(paths: Sequence[Path], streams: Sequence[int], *, after: int | None = None) -> Iterator[Block]:
    """All rows of these streams in the order of a segment; of equal steps, those of the first path come first.

    With `after`, only those of later steps.

    Held in memory: WINDOW rows at a time, or all of one key if that has more. Errors as in `read`.
    """
    steps = None if after is None else (after + 1, 2**63 - 1)
    for between in windows(key_ranges(paths), WINDOW):
        parts = [
            to_block(table) for path in paths for table in read(path, streams=streams, between=between, steps=steps)
        ]
        if parts:
            yield sort(parts)


def read(
    path: Path,
    *,
    columns: Sequence[str] = COLUMNS,
    keys: Sequence[str] | None = None,
    streams: Sequence[int] | None = None,
    between: tuple[str, str] | None = None,
    steps: tuple[int, int] | None = None,
    kinds: Sequence[int] | None = None,
) -> Iterator[pa.Table]:
    """The rows of these keys, streams and kinds, a row group at a time, in the segment's order.

    `between` asks for the keys from the first to the second, both included; `steps` likewise. None asks for all.
    A file that is gone raises FileNotFoundError: list the segments again. A damaged one raises CacheError.
    """
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path, read_dictionary=["key"], page_checksum_verification=True) as file:
        for i in range(file.metadata.num_row_groups):
            masks = _masks(file.metadata.row_group(i), keys, streams, between, steps, kinds)
            if masks is None:
                continue
            needed = list(dict.fromkeys([*columns, *masks]))
            table = file.read_row_group(i, columns=needed, use_threads=False)
            for name, mask in masks.items():
                table = table.filter(mask(table.column(name)))
            if table.num_rows:
                yield table.select(list(columns))


def _masks(
    group: Any,
    keys: Sequence[str] | None,
    streams: Sequence[int] | None,
    between: tuple[str, str] | None,
    steps: tuple[int, int] | None,
    kinds: Sequence[int] | None,
) -> dict[str, Callable[[pa.ChunkedArray], Any]] | None:
    """By which columns the rows of a row group have to be chosen, and how; None if no row can be asked for.

    Where its statistics say that all rows are asked for, a column need not be read.
    """
    stream, key, step, kind = (_within(group.column(i).statistics) for i in _CHOOSING)
    masks: dict[str, Callable[[pa.ChunkedArray], Any]] = {}
    if keys is not None:
        if key and not any(key[0] <= one <= key[1] for one in keys):
            return None
        if not key or key[0] != key[1]:
            masks["key"] = lambda column: _of_keys(column, keys, between)
    if between is not None:
        if key and (key[1] < between[0] or key[0] > between[1]):
            return None
        if not key or key[0] < between[0] or key[1] > between[1]:
            masks["key"] = lambda column: _of_keys(column, keys, between)
    if steps is not None:
        if step and (step[1] < steps[0] or step[0] > steps[1]):
            return None
        if not step or step[0] < steps[0] or step[1] > steps[1]:
            masks["step"] = lambda column: (column.to_numpy() >= steps[0]) & (column.to_numpy() <= steps[1])
    for name, wanted, there in (("stream", streams, stream), ("kind", kinds, kind)):
        if wanted is not None:
            if there and not any(there[0] <= one <= there[1] for one in wanted):
                return None
            if not there or not _holds(wanted, *there):
                masks[name] = partial(_among, wanted)
    return masks


def _among(wanted: Sequence[int], column: pa.ChunkedArray) -> Any:
    import numpy as np

    return np.isin(column.to_numpy(), wanted)


def _holds(wanted: Sequence[int], low: int, high: int) -> bool:
    """Whether all numbers from low to high are among some."""
    return high - low < len(wanted) and all(one in wanted for one in range(low, high + 1))


def _of_keys(column: pa.ChunkedArray, keys: Sequence[str] | None, between: tuple[str, str] | None) -> Any:
    import numpy as np

    whole = column.combine_chunks()
    names = whole.dictionary.to_pylist()
    asked = set(keys) if keys is not None else None
    wanted = [
        (asked is None or name in asked) and (between is None or between[0] <= name <= between[1]) for name in names
    ]
    return np.array(wanted, bool)[whole.indices.to_numpy()]


def to_block(table: pa.Table) -> Block:
    """A table of all columns as a block, for sorting and writing it again."""
    import pyarrow as pa

    key = table.column("key").combine_chunks()
    if isinstance(key, pa.ChunkedArray):
        key = key.chunk(0)
    text = table.column("value_json")
    return Block(
        key.dictionary.to_pylist(),
        key.indices.to_numpy(),
        table.column("stream").to_numpy(),
        table.column("step").to_numpy(),
        table.column("value").to_numpy(),  # null becomes NaN
        table.column("kind").to_numpy(),
        None if text.null_count == len(text) else text.cast(pa.large_string()).combine_chunks(),
    )
