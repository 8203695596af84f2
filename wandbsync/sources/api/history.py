"""Exports and live rows -> one history: in order of step, without duplicates, counted.

A *piece* is an exported file, or all the live rows. A server may give a row in two pieces (an old export beside a new
one, a live tail that begins before the export ends), so a row whose step an earlier piece has is a duplicate. But two
rows of one step in one piece are two rows (two processes logged to one run), and the end of a file may part such a
pair: what the server counts decides.

    assemble: look at each file, read its steps -> which rows are kept, and the place of each
    batches:  read some columns of all files -> put their values in place -> key after key
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...model import Columns, show_path
from ..keys import Keys
from .exports import Export, Source, column_values, look, readable
from .rows import STEP, KeyPath, Values, classified, gathered, joined, row_steps, with_floats

HOLD = 64 << 20  # bytes of small files that are held in memory
READ = 32 << 20  # bytes of columns that are read from the other files at once
STAMP = "_timestamp"


@dataclass(frozen=True, slots=True)
class History:
    """The rows of a run, or those that were asked for. R is the number of rows kept."""

    rows: int  # R
    dropped: int  # duplicates that were left out
    had: int  # rows that were left out because the cache has their step
    steps: NDArray[np.int64]  # of length R, ascending
    names: Sequence[str]  # about which keys there are: their first names
    _pieces: _Pieces
    _place: NDArray[np.int64] | None  # where each row of the pieces comes, -1 for nowhere; None: all where they are
    _keys: Keys
    _batch: int

    def batches(self) -> Iterator[Columns]:
        """The values, key after key: each key whole in one batch, about as many values in each as was asked for.

        Only the first has a number of rows. Files are read again on the way, so they must stay where they are until
        the end. Raises BadExport.
        """
        rows = self.rows
        waiting: list[tuple[str, Values]] = []
        values = 0
        for path, parts in self._pieces.columns():
            found = self._placed(parts)
            if not len(found):
                continue
            if waiting and values + len(found) > self._batch:
                yield joined(waiting, self.steps, rows)
                rows, waiting, values = 0, [], 0
            waiting.append((self._keys.show(path), found))
            values += len(found)
        if waiting or rows:
            yield joined(waiting, self.steps, rows)

    def _placed(self, parts: Sequence[Values]) -> Values:
        """The values of one key that are kept, in order of step."""
        found = parts[0] if len(parts) == 1 else _merged(parts)
        row, value, kind, text = found.row, found.value, found.kind, found.text
        if self._place is not None:
            row = self._place[row]
            kept = row >= 0
            if not kept.all():
                row, value, kind = row[kept], value[kept], kind[kept]
                text = None if text is None else text.filter(pa.array(kept))
        if (row[1:] < row[:-1]).any():
            order = np.argsort(row, kind="stable")
            row, value, kind = row[order], value[order], kind[order]
            text = None if text is None else text.take(pa.array(order))
        return Values(row, value, kind, text)


def assemble(
    files: Sequence[Source],
    live: Sequence[Mapping[str, Any]],
    keys: Keys,
    *,
    count: int | None,
    have: NDArray[np.int64] | None = None,
    mixed: Collection[str] = (),
    most: int | None = None,
    batch: int = 1_000_000,
) -> History:
    """One history from exported files, in any order, and live rows.

    `have`: steps that the cache has already; rows of these are left out. `count`: how many rows should remain; None if
    nobody knows. `mixed`: keys of which the server says that other values than texts were logged.
    `most`: how many rows the files may have. Raises BadExport, TooLarge.
    """
    pieces = _Pieces.of(files, live, keys, mixed, most)
    steps = pieces.steps()
    order = None if (steps[1:] >= steps[:-1]).all() else np.argsort(steps, kind="stable")
    ordered = steps if order is None else steps[order]
    new = np.ones(len(ordered), np.bool_) if have is None else ~np.isin(ordered, have)
    single = len(pieces.files) + bool(len(pieces.live_steps)) < 2
    drop = np.zeros_like(new) if single else new & _repeats(pieces.numbers(order), ordered)
    if count is not None and drop.any():
        drop = _without_pairs(drop, pieces, order, ordered, int(new.sum()) - count)
    keep = new & ~drop
    kept = int(keep.sum())
    place = None
    if order is not None or kept < len(keep):
        place = np.full(len(keep), -1, np.int64)
        place[np.flatnonzero(keep) if order is None else order[keep]] = np.arange(kept)
    had = len(new) - int(new.sum())
    return History(kept, int(drop.sum()), had, ordered[keep], list(pieces.columns_of), pieces, place, keys, batch)


def _repeats(piece: NDArray[np.int64], *sorted_by: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are in an earlier piece too. They are sorted by what makes them equal, then by piece."""
    starts = np.ones(len(piece), np.bool_)
    starts[1:] = np.any([one[1:] != one[:-1] for one in sorted_by], axis=0)
    start = np.maximum.accumulate(np.where(starts, np.arange(len(piece)), 0))
    repeats: NDArray[np.bool_] = piece != piece[start]
    return repeats


def _without_pairs(
    drop: NDArray[np.bool_], pieces: _Pieces, order: NDArray[np.int64] | None, ordered: NDArray[np.int64], excess: int
) -> NDArray[np.bool_]:
    """What to drop of the duplicates, if `excess` rows are more than there should be.

    All, unless just as many remain as there should be if some are kept: those between files, those of the live rows,
    or both. One with the time of its double as well is a duplicate in any case.
    """
    if int(drop.sum()) == excess:
        return drop
    piece, stamp = pieces.numbers(order), pieces.stamps(order)
    by_time = np.lexsort((piece, stamp, ordered))
    same = np.empty_like(drop)
    same[by_time] = _repeats(piece[by_time], ordered[by_time], stamp[by_time])
    is_live = piece == len(pieces.files)
    for pairs in (~is_live, is_live, np.ones_like(drop)):
        less = drop & (same | ~pairs)
        if int(less.sum()) == excess:
            return less
    return drop


def _merged(parts: Sequence[Values]) -> Values:
    text = None
    if any(part.text is not None for part in parts):
        nothing = [pa.nulls(len(part), pa.large_string()) if part.text is None else part.text for part in parts]
        text = pa.concat_arrays(nothing)
    return Values(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.kind for part in parts]),
        text,
    )


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Files by their first step, then the live rows. The rows are numbered through all of them."""

    files: list[Export]
    first: list[int]  # the number of each file's first row, and that of the first live row
    rows: NDArray[np.int64]  # the numbers of the files' rows
    live_steps: NDArray[np.int64]
    live: dict[str, dict[KeyPath, tuple[list[int], list[Any]]]]  # group -> path -> which live rows, their values
    # group, the name of a key or of a column with dicts -> the columns that belong to it
    columns_of: dict[str, list[str]]
    keys: Keys
    mixed: Collection[str]

    @classmethod
    def of(
        cls,
        files: Sequence[Source],
        live: Sequence[Mapping[str, Any]],
        keys: Keys,
        mixed: Collection[str],
        most: int | None,
    ) -> _Pieces:
        exports: list[Export] = []
        held = 0
        for source in files:
            export = look(source, hold=held < HOLD, most=most)
            most = None if most is None else most - len(export.steps)
            if len(export.steps):
                exports.append(export)
                held += 0 if export.table is None else sum(export.sizes.values())
        exports.sort(key=_rank)
        first = np.cumsum([0, *(len(export.steps) for export in exports)]).tolist()
        columns = list(dict.fromkeys(name for export in exports for name in export.sizes))
        cells = gathered(live)
        cells.pop((STEP,), None)
        nested = frozenset(name for export in exports for name in export.nested)
        columns_of: dict[str, list[str]] = {}
        for name in columns:
            columns_of.setdefault(_group_of(name, nested), []).append(name)
        by_name: dict[str, dict[KeyPath, tuple[list[int], list[Any]]]] = {}
        for path, some in cells.items():
            group = _group_of(show_path(path), nested)
            columns_of.setdefault(group, [])
            by_name.setdefault(group, {})[path] = some
        rows = np.arange(first[-1], dtype=np.int64)
        return cls(exports, first, rows, row_steps(live), by_name, columns_of, keys, mixed)

    def steps(self) -> NDArray[np.int64]:
        """The step of each row."""
        return np.concatenate([*(export.steps for export in self.files), self.live_steps])

    def numbers(self, order: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """The number of the piece of each row, the rows in this order."""
        sizes = [*(len(export.steps) for export in self.files), len(self.live_steps)]
        numbers = np.repeat(np.arange(len(sizes)), sizes)
        return numbers if order is None else numbers[order]

    def stamps(self, order: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """The `_timestamp` of each row, NaN where it has none, the rows in this order."""
        stamps = np.full(self.first[-1] + len(self.live_steps), np.nan)
        for _, parts in self._values(STAMP, self._read([STAMP])):
            for found in parts:
                stamps[found.row] = found.value
        return stamps if order is None else stamps[order]

    def columns(self) -> Iterator[tuple[KeyPath, list[Values]]]:
        """The values of each key, in parts; their rows are numbered through all pieces. Raises BadExport."""
        group: list[str] = []
        size = 0
        for name, columns in self.columns_of.items():
            more = sum(export.sizes.get(one, 0) for export in self.files if export.table is None for one in columns)
            if group and size + more > READ:
                yield from self._group(group)
                group, size = [], 0
            group.append(name)
            size += more
        yield from self._group(group)

    def _group(self, names: Sequence[str]) -> Iterator[tuple[KeyPath, list[Values]]]:
        read = self._read([column for name in names for column in self.columns_of[name]])
        for name in names:
            yield from self._values(name, read)

    def _read(self, columns: Sequence[str]) -> list[Mapping[str, pa.ChunkedArray]]:
        return [export.read([name for name in columns if name in export.sizes]) for export in self.files]

    def _values(
        self, name: str, read: Sequence[Mapping[str, pa.ChunkedArray]]
    ) -> Iterator[tuple[KeyPath, list[Values]]]:
        """The values of all keys of this group."""
        found: dict[KeyPath, list[Values]] = {}
        for column in self.columns_of.get(name, ()):
            of_files = zip(self.first, read, strict=False)
            chunks = _chunks((start, some[column]) for start, some in of_files if column in some)
            with readable(f"the column {column}"):
                of_column = column_values(column, chunks, self.rows, mixed=column in self.mixed)
            for path, parts in of_column.items():
                found.setdefault(path, []).extend(parts)
        for path, (numbers, values) in self.live.get(name, {}).items():
            row = np.array(numbers, np.int64) + self.first[-1]
            found.setdefault(path, []).append(classified(row, with_floats(values)))
        yield from _one_key(found, self.keys).items()


def _rank(export: Export) -> tuple[int, int, int, int]:
    """The place of a file among the others, the same in whatever order they are given."""
    steps = export.steps
    return int(steps.min()), int(steps.max()), len(steps), zlib.crc32(steps.data)


def _group_of(name: str, nested: Collection[str]) -> str:
    """Where a key of this name belongs: to the column with dicts in which it may be found as well, or to itself."""
    parts = name.split(".")
    return next((above for i in range(1, len(parts)) if (above := ".".join(parts[:i])) in nested), name)


def _one_key(found: dict[KeyPath, list[Values]], keys: Keys) -> dict[KeyPath, list[Values]]:
    """The values by key, where {"a": {"b": 1}} and a column "a.b" are one: W&B writes the one as the other.

    They stay two if a row has both.
    """
    if len(found) == 1:
        ((path, parts),) = found.items()
        return {keys.same(path): parts}
    spelled: dict[str, list[KeyPath]] = {}
    for path in found:
        spelled.setdefault(show_path(path), []).append(path)
    together: dict[KeyPath, list[Values]] = {}
    for paths in spelled.values():
        parts = [values for path in paths for values in found[path]]
        if len(paths) > 1 and _twice(parts):
            together |= {path: found[path] for path in paths}
        else:
            together[keys.same(paths[0])] = parts
    return together


def _twice(parts: Sequence[Values]) -> bool:
    """Whether a row has two of these values."""
    rows = np.concatenate([values.row for values in parts])
    return len(np.unique(rows)) < len(rows)


def _chunks(columns: Iterator[tuple[int, pa.ChunkedArray]]) -> list[tuple[int, pa.Array]]:
    """Columns as arrays with the number of their first row; what is plain and adjoins is put together."""
    found: list[tuple[int, list[pa.Array]]] = []
    end = -1
    for start, column in columns:
        for chunk in column.chunks:
            if start == end and chunk.type == found[-1][1][0].type and pa.types.is_primitive(chunk.type):
                found[-1][1].append(chunk)
            else:
                found.append((start, [chunk]))
            end = start = start + len(chunk)
    return [(start, some[0] if len(some) == 1 else pa.concat_arrays(some)) for start, some in found]
