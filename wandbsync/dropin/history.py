"""Histories as lists of dicts, with the values that the SDK hands out.

A float that is a whole number comes as int, as JSON between the server and the SDK has it. Sampled histories have NaN
and infinities as the strings "NaN", "Infinity", "-Infinity", as the SDK's do; scans have them as floats, as its scans
of exported rows do. A row has the keys that were logged in it, nested as they were logged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..model import EXACT_INT, Kind
from ..query.filters import MISSING, dig

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Row = dict[str, Any]
Paths = Mapping[str, Sequence[str]]  # shown key -> its nested names
AHEAD = 2_000  # rows of a scan made at a time


def whole(value: float) -> Any:
    """A float as the server's JSON has it."""
    return int(value) if value.is_integer() and abs(value) < EXACT_INT else value


def worded(value: float) -> Any:
    """The same, where what is not finite is said in words."""
    if math.isfinite(value):
        return whole(value)
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


class Lines:
    """The rows of a run, told apart by step and, where a step has several, by the order they were logged in."""

    def __init__(self, table: pa.Table, paths: Paths, *, stepped: bool = True) -> None:
        """`table`: long rows sorted by key and step. `stepped`: whether a row says its `_step`."""
        import numpy as np

        self.table, self.paths, self.stepped = table, paths, stepped
        step = table.column("step").to_numpy()
        key = table.column("key").combine_chunks().dictionary_encode()
        key = key.combine_chunks() if hasattr(key, "combine_chunks") else key
        self._names, self._code = key.dictionary.to_pylist(), key.indices.to_numpy()
        again = np.zeros(len(step), np.bool_)
        again[1:] = (step[1:] == step[:-1]) & (self._code[1:] == self._code[:-1])
        self.steps, self._line = np.unique(step, return_inverse=True)
        if again.any():
            count = np.arange(len(step))
            nth = count - np.maximum.accumulate(np.where(again, 0, count))
            at, self._line = np.unique(np.column_stack([step, nth]), axis=0, return_inverse=True)
            self.steps, self._line = at[:, 0], self._line.ravel()

    def __len__(self) -> int:
        return len(self.steps)

    def rows(self, lines: NDArray[np.int64], number: Callable[[float], Any]) -> list[Row]:
        """Some rows, by their ascending line numbers; `number` makes a value of a float."""
        import numpy as np
        import pyarrow as pa

        place = np.full(len(self.steps), -1, np.int64)
        place[lines] = np.arange(len(lines))
        wanted = np.flatnonzero(place[self._line] >= 0) if len(lines) < len(self) else np.arange(len(self._line))
        part = self.table if len(wanted) == len(self._line) else self.table.take(pa.array(wanted))
        rows: list[Row] = (
            [{"_step": step} for step in self.steps[lines].tolist()] if self.stepped else [{} for _ in lines]
        )
        cells = zip(
            place[self._line[wanted]].tolist(),
            self._code[wanted].tolist(),
            part.column("kind").to_pylist(),
            part.column("value").to_pylist(),
            part.column("value_json").to_pylist(),
            strict=True,
        )
        paths = [self.paths.get(name, (name,)) for name in self._names]
        read = _reader(number)
        for line, code, kind, value, text in cells:
            row, path = rows[line], paths[code]
            for name in path[:-1]:
                row = row.setdefault(name, {})
            row[path[-1]] = number(value) if kind == Kind.FLOAT else read(kind, value, text)
        return rows


def _reader(number: Callable[[float], Any]) -> Callable[[int, Any, Any], Any]:
    decoder = json.JSONDecoder(parse_float=lambda text: number(float(text)))

    def read(kind: int, value: Any, text: Any) -> Any:
        if kind == Kind.INT:
            return int(value)
        if kind == Kind.BOOL:
            return bool(value)
        if text is None:
            return None
        return int(text) if kind == Kind.BIGINT else decoder.decode(text)

    return read


def sampled(count: int, samples: int) -> NDArray[np.int64]:
    """`samples` of `count` line numbers, evenly spread, first and last among them; all if there are no more."""
    import numpy as np

    if samples >= count:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, max(samples, 0)).round().astype(np.int64))


def columns(rows: Iterable[Row], keys: Sequence[str]) -> list[Row]:
    """Those keys of the rows that have a value for each."""
    found = ({key: dig(row, key) for key in keys} for row in rows)
    return [row for row in found if not any(value is MISSING or value is None for value in row.values())]


def known(keys: Sequence[str], paths: Paths) -> list[str]:
    """The shown keys that are needed to give some keys, which may name a part of a nested one, or all below a name."""
    return [
        shown
        for shown in paths
        if any(key == shown or shown.startswith(f"{key}.") or key.startswith(f"{shown}.") for key in keys)
    ]


class HistoryScan(Iterator[Row]):
    """All rows from `min_step` to before `stop`, in order of steps; begins anew with each `for`."""

    def __init__(
        self, run: Any, read: Callable[[], Lines], *, keys: list[str] | None, min_step: int, stop: int, page_size: int
    ) -> None:
        self.run, self.keys, self.min_step, self.page_size = run, keys, min_step, page_size
        self._stop, self._read = stop, read
        self._lines: Lines | None = None
        self._rows = iter(())  # type: Iterator[Row]

    @property
    def max_step(self) -> int:
        """The highest step that can come."""
        return self._stop - 1

    def __iter__(self) -> HistoryScan:
        self._lines = None
        return self

    def __next__(self) -> Row:
        if self._lines is None:
            self._lines = self._read()
            self._rows = self._all(self._lines)
        return next(self._rows)

    def _all(self, lines: Lines) -> Iterator[Row]:
        import numpy as np

        first, last = np.searchsorted(lines.steps, [self.min_step, self._stop])
        for start in range(int(first), int(last), AHEAD):
            rows = lines.rows(np.arange(start, min(start + AHEAD, int(last))), whole)
            if self.keys:
                rows = columns(rows, [*self.keys, *(["_step"] if "_step" not in self.keys else [])])
            yield from rows
