"""The rows of one run, in the order in which they were logged.

A history is a list of pieces: dicts as the SDK sends them, or an Arrow table where a test seeds a million rows at once.
A value that was not logged is absent from a dict and null in a table; NaN and infinities are floats in both.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Row = dict[str, Any]
Rows = Any  # dicts, or columns by name, or an Arrow table
MISSING: Any = object()


class _Dicts:
    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._steps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def steps(self) -> np.ndarray:
        if self._steps is None:
            self._steps = np.array([row["_step"] for row in self.rows], dtype=np.int64)
        return self._steps

    def extend(self, rows: Iterable[Row]) -> None:
        self.rows.extend(rows)
        self._steps = None

    def take(self, lines: np.ndarray, keys: Collection[str] | None = None) -> list[Row]:
        return [self.rows[line] for line in lines]

    def keep(self, lines: np.ndarray) -> _Dicts:
        return _Dicts(self.take(lines))

    def table(self) -> pa.Table:
        rows = [flattened(row) for row in self.rows]
        names = dict.fromkeys(key for row in rows for key in row)
        return pa.table({name: _column([row.get(name) for row in rows]) for name in names})

    def counts(self) -> Counter[tuple[str, str]]:
        return Counter(pair for row in self.rows for key, value in row.items() for pair in _kinds(key, value))


class _Table:
    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.steps = table["_step"].to_numpy().astype(np.int64)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def take(self, lines: np.ndarray, keys: Collection[str] | None = None) -> list[Row]:
        part = self._table
        if keys is not None:
            tops = {key.split(".")[0] for key in keys} | set(keys)
            part = part.select([name for name in part.column_names if name in tops])
        if len(lines) and lines[-1] - lines[0] + 1 == len(lines):  # a slice copies nothing
            part = part.slice(lines[0], len(lines))
        else:
            part = part.take(pa.array(lines))
        return [{key: value for key, value in row.items() if value is not None} for row in part.to_pylist()]

    def keep(self, lines: np.ndarray) -> _Table:
        return _Table(self._table.take(pa.array(lines)))

    def table(self) -> pa.Table:
        return self._table

    def counts(self) -> Counter[tuple[str, str]]:
        sizes: Counter[tuple[str, str]] = Counter()
        for name, column in zip(self._table.column_names, self._table.columns, strict=True):
            if pa.types.is_nested(column.type):
                sizes += Counter(pair for value in column.to_pylist() for pair in _kinds(name, value))
            else:
                kind = "string" if pa.types.is_string(column.type) else "number"
                kind = "bool" if pa.types.is_boolean(column.type) else kind
                sizes[name, kind] += len(column) - column.null_count
        return sizes


class History:
    """Grows at the end, is cut when a run is rewound, and is read by line or by step."""

    def __init__(self, rows: Rows | None = None) -> None:
        self._pieces: list[_Dicts | _Table] = []
        self._keys: Row | None = None
        if rows is not None:
            self.append(rows)

    def __len__(self) -> int:
        return sum(len(piece) for piece in self._pieces)

    @property
    def last_step(self) -> int:
        """The highest step, -1 if there is none."""
        return max((int(piece.steps.max()) for piece in self._pieces if len(piece)), default=-1)

    @property
    def steps(self) -> np.ndarray:
        return np.concatenate([piece.steps for piece in self._pieces] or [np.empty(0, dtype=np.int64)])

    @property
    def last_row(self) -> Row:
        """The row logged last, empty if there is none."""
        return self._pieces[-1].take(np.array([len(self._pieces[-1]) - 1]))[0] if len(self) else {}

    def append(self, rows: Rows) -> None:
        """Add rows, columns or a table; where no `_step` is given they go on from the last one."""
        self._keys = None
        first = self.last_step + 1
        if isinstance(rows, pa.Table | Mapping):
            table = rows if isinstance(rows, pa.Table) else pa.table({key: pa.array(rows[key]) for key in rows})
            if "_step" not in table.column_names:
                table = table.append_column("_step", pa.array(np.arange(first, first + table.num_rows)))
            self._pieces.append(_Table(table))
        else:
            rows = [row if "_step" in row else {**row, "_step": first + i} for i, row in enumerate(rows)]
            if self._pieces and isinstance(self._pieces[-1], _Dicts):
                self._pieces[-1].extend(rows)
            else:
                self._pieces.append(_Dicts(rows))

    def write(self, offset: int, rows: Sequence[Row]) -> None:
        """Put rows at a line, as the file stream does: a chunk sent twice is there once."""
        if offset < len(self):
            self._keep(np.arange(len(self)) < offset)
        self.append(rows)

    def rewind(self, step: int) -> None:
        """Forget all rows after a step."""
        self._keep(self.steps <= step)

    def _keep(self, wanted: np.ndarray) -> None:
        kept, line = [], 0
        for piece in self._pieces:
            lines = np.flatnonzero(wanted[line : line + len(piece)])
            kept.append(piece if len(lines) == len(piece) else piece.keep(lines))
            line += len(piece)
        self._pieces, self._keys = [piece for piece in kept if len(piece)], None

    def between(
        self, min_step: int, max_step: int, *, from_line: int = 0, keys: Collection[str] | None = None
    ) -> list[Row]:
        """The rows with min_step <= step < max_step, in the order of lines. Keys not asked for may be missing."""
        rows: list[Row] = []
        line = 0
        for piece in self._pieces:
            inside = (piece.steps >= min_step) & (piece.steps < max_step)
            inside[: max(from_line - line, 0)] = False
            rows += piece.take(np.flatnonzero(inside), keys)
            line += len(piece)
        return rows

    def lines(self, wanted: np.ndarray) -> list[Row]:
        """The rows of some line numbers, which must ascend."""
        rows: list[Row] = []
        line = 0
        for piece in self._pieces:
            rows += piece.take(wanted[(wanted >= line) & (wanted < line + len(piece))] - line)
            line += len(piece)
        return rows

    def table(self, stop: int | None = None) -> pa.Table:
        """The first `stop` rows as one table."""
        tables = [piece.table() for piece in self._pieces]
        try:
            whole = pa.concat_tables(tables, promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid):  # a key that changed its type between two pieces
            whole = _Dicts([row for piece in self._pieces for row in piece.take(np.arange(len(piece)))]).table()
        return whole.slice(0, stop)

    def keys(self) -> Row:
        """What GraphQL's `historyKeys` says: the last step, and how often each key was logged as what."""
        if self._keys is None:
            counts: Counter[tuple[str, str]] = sum((piece.counts() for piece in self._pieces), Counter())
            keys: Row = {}
            for (key, kind), count in counts.items():
                one = keys.setdefault(key, {"typeCounts": [], "monotonic": key == "_step", "previousValue": None})
                one["typeCounts"].append({"type": kind, "count": count})
            self._keys = {"lastStep": self.last_step, "sets": [], "keys": keys}
        return self._keys


def sample(count: int, samples: int) -> np.ndarray:
    """`samples` of `count` line numbers, evenly spread, first and last among them."""
    if samples >= count:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, max(samples, 0)).round().astype(np.int64))


def wire(value: Any) -> Any:
    """A value as the server's JSON has it: integral floats are ints; NaN and infinities are strings."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict):
        return {key: wire(item) for key, item in value.items()}
    if isinstance(value, list):
        return [wire(item) for item in value]
    return value


def wire_json(value: Any) -> str:
    return json.dumps(wire(value), separators=(",", ":"))


def flattened(row: Row, above: str = "") -> Row:
    """A row with a name for each value: a dict is names with dots, but for the empty one and those with a `_type`."""
    found: Row = {}
    for name, value in row.items():
        if isinstance(value, dict) and value and "_type" not in value:
            found |= flattened(value, f"{above}{name}.")
        else:
            found[above + name] = value
    return found


def dig(values: Any, path: str) -> Any:
    """What is under a dotted path, where keys may have dots of their own; MISSING if nothing is."""
    if not isinstance(values, Mapping):
        return MISSING
    if path in values:
        return values[path]
    parts = path.split(".")
    for i in range(1, len(parts)):
        found = dig(values.get(".".join(parts[:i])), ".".join(parts[i:]))
        if found is not MISSING:
            return found
    return MISSING


def _kinds(key: str, value: Any) -> Iterable[tuple[str, str]]:
    """The types under which W&B counts a value: by its name with dots, a dict that is no value by what is in it."""
    for name, item in flattened({key: value}).items():
        yield name, _type(item)


def _type(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("_type", "map"))
    names = {str: "string", bool: "bool", list: "list", type(None): "nil"}
    return names.get(type(value), "number")


# -- columns of an export, as W&B's own readers expect them ("history store union")

MEMBERS = ("float64", "utf8", "bool", "list", "struct", "binary")


def _column(values: list[Any]) -> pa.Array:
    """Values of one type as a column of it; of several as a struct with a member for each, one of them given a row.

    What Parquet cannot hold is serialized JSON, which its BINARY tells from text. In a union NaN is the text "NaN".
    """
    try:
        array = _united(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return _binary(values)
    return _binary(values) if _has_empty_struct(array.type) else array


def _united(values: list[Any]) -> pa.Array:
    members = {name: [value if _member(value) == name else None for value in values] for name in MEMBERS}
    given = {name: some for name, some in members.items() if any(one is not None for one in some)}
    if len(given) < 2:
        (name,) = given or ("float64",)
        return _plain(name, values)
    floats = given.get("float64", ())
    for i, value in enumerate(floats):
        if isinstance(value, float) and not math.isfinite(value):
            given.setdefault("utf8", [None] * len(values))[i] = wire(value)
            given["float64"][i] = None
    arrays = [_plain(name, some) for name, some in given.items()]
    missing = pa.array([value is None for value in values])
    return pa.StructArray.from_arrays(arrays, [f"_type_{name}" for name in given], mask=missing)


def _member(value: Any) -> str | None:
    if value is None:
        return None
    return {str: "utf8", bool: "bool", list: "list", dict: "struct"}.get(type(value), "float64")


def _plain(name: str, values: list[Any]) -> pa.Array:
    """Values of one type, or None."""
    if name == "list":
        items = [item for value in values for item in value or ()]
        ends = np.cumsum([0, *(len(value or ()) for value in values)])
        missing = pa.array([value is None for value in values])
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), _united(items), mask=missing)
    if name == "struct":
        names = dict.fromkeys(key for value in values for key in value or ())
        arrays = [_united([None if value is None else value.get(key) for value in values]) for key in names]
        return pa.StructArray.from_arrays(arrays, list(names), mask=pa.array([value is None for value in values]))
    return pa.array(values)


def _binary(values: list[Any]) -> pa.Array:
    return pa.array([None if value is None else json.dumps(wire(value)).encode() for value in values], pa.binary())


def _has_empty_struct(kind: pa.DataType) -> bool:
    children = [kind.field(i).type for i in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not children) or any(map(_has_empty_struct, children))
