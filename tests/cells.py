"""What rows of JSON are as long rows, in plain Python: the oracle for all that the API source makes of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rows import bits

from wandbsync.model import Columns, Kind

Path = tuple[str, ...]
Cell = tuple[str, int, int, Any, str | None]  # key, step, kind, value to the bit (None: null), JSON

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def cells(columns: Columns | Iterable[Columns]) -> list[Cell]:
    """Long rows as they come."""
    if not isinstance(columns, Columns):
        return [row for one in columns for row in cells(one)]
    c = columns
    assert len(c.key) == len(c.step) == len(c.value) == len(c.kind)
    assert (c.key.dtype, c.step.dtype, c.value.dtype, c.kind.dtype) == ("int32", "int64", "float64", "uint8")
    texts = [None] * len(c) if c.text is None else c.text.to_pylist()
    assert c.text is None or (str(c.text.type) == "large_string" and len(c.text) == len(c))
    names = [c.names[key] for key in c.key.tolist()]
    found = zip(names, c.step.tolist(), c.kind.tolist(), c.value.tolist(), texts, strict=True)
    return [cell(*one) for one in found]


def cell(name: str, step: int, kind: int, value: float, text: str | None) -> Cell:
    if kind in (Kind.NULL, Kind.JSON):
        assert math.isnan(value)
        return name, step, kind, None, None if text is None else spelled(json.loads(text))
    return name, step, kind, bits(value), text


def expected(name: str, step: int, value: Any) -> Cell:
    """The long row that a JSON value is."""
    if value is None:
        return name, step, Kind.NULL, None, None
    if isinstance(value, bool):
        return name, step, Kind.BOOL, bits(float(value)), None
    if isinstance(value, int) and abs(value) > 2**53:
        return name, step, Kind.BIGINT, bits(float(str(value))), str(value)
    if isinstance(value, float | int):
        return name, step, Kind.INT if is_whole(value) else Kind.FLOAT, bits(float(value)), None
    return name, step, Kind.JSON, None, spelled(value)


def is_whole(value: float) -> bool:
    if isinstance(value, int):
        return True
    return math.isfinite(value) and value == int(value) and abs(value) < 2**53 and str(value) != "-0.0"


def spelled(value: Any) -> str:
    """A JSON value, to compare: 1.0 is 1, the order of names does not count."""
    return json.dumps(_rounded(value), sort_keys=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, float) and value == 0:
        return 0
    if isinstance(value, float) and is_whole(value):
        return int(value)
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return {name: _rounded(one) for name, one in value.items()} if isinstance(value, dict) else value


def leaves(row: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The values of a row by path: dicts are more paths, unless they are empty or have a `_type`."""
    for name, value in row.items():
        path = (*above, name)
        if isinstance(value, dict) and value and "_type" not in value:
            yield from leaves(value, path)
        elif path != ("_step",):
            yield path, value


def from_wire(value: Any) -> Any:
    """A value with the floats that the server spells as words."""
    if isinstance(value, str):
        return WORDS.get(value, value)
    if isinstance(value, list):
        return [from_wire(one) for one in value]
    return {name: from_wire(one) for name, one in value.items()} if isinstance(value, dict) else value
