"""JSON rows as the server sends them, already parsed -> Columns, the same as the local source makes of the same run.

A dict is no value but more paths: {"a": {"b": 1}} is ("a", "b"). Two exceptions are one JSON value each: the empty
dict, and a dict with "_type" (media, tables, histograms). `_step` is the step of its row and no value.

The server's JSON has no NaN: "NaN", "Infinity" and "-Infinity" are floats. And it does not tell 1.0 from 1, as the SDK
did not when it sent them: a whole number is an INT however it is spelled.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...model import EXACT_INT, Columns, Kind
from ..console import Line
from ..keys import Keys

KeyPath = tuple[str, ...]

STEP = "_step"

_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DEEP = 100  # dicts within dicts; what is nested deeper is one value


# -- the values of one key


@dataclass(frozen=True, slots=True)
class Values:
    """Values of one key. All arrays have the same length n."""

    row: NDArray[np.int64]  # which row each belongs to; ascending unless said otherwise
    value: NDArray[np.float64]  # NaN where it is to be null
    kind: NDArray[np.uint8]
    text: pa.LargeStringArray | None = None  # None when all are null

    def __len__(self) -> int:
        return len(self.row)


def classified(row: NDArray[np.int64], values: Sequence[Any]) -> Values:
    """JSON values with their kinds."""
    types = set(map(type, values))
    if types <= {int, float}:
        try:
            value = np.array(values, np.float64)
        except OverflowError:
            pass
        else:
            if types == {float} or not (np.abs(value) >= EXACT_INT).any():
                return Values(row, value, number_kinds(value))
    elif types == {bool}:
        return Values(row, np.array(values, np.float64), np.full(len(values), Kind.BOOL, np.uint8))
    found = [_classify(value) for value in values]
    texts = [text for _, _, text in found]
    return Values(
        row,
        np.array([value for value, _, _ in found], np.float64),
        np.array([kind for _, kind, _ in found], np.uint8),
        pa.array(texts, pa.large_string()) if any(text is not None for text in texts) else None,
    )


def number_kinds(value: NDArray[np.float64]) -> NDArray[np.uint8]:
    """INT for whole numbers below 2**53, FLOAT for the others; -0.0, which no int can say, is a FLOAT."""
    whole = np.floor(value) == value
    if not whole.any():
        return np.full(len(value), Kind.FLOAT, np.uint8)
    whole &= np.abs(value) < EXACT_INT
    zero = value == 0
    if zero.any():
        whole &= ~(zero & np.signbit(value))
    kinds: NDArray[np.uint8] = np.where(whole, np.uint8(Kind.INT), np.uint8(Kind.FLOAT))
    return kinds


def _classify(value: Any) -> tuple[float, Kind, str | None]:
    """Value and kind of one JSON value, and its text if the value alone does not say it all."""
    if value is None:
        return math.nan, Kind.NULL, None
    if isinstance(value, bool):
        return float(value), Kind.BOOL, None
    if isinstance(value, int):
        if abs(value) <= EXACT_INT:
            return float(value), Kind.INT, None
        text = str(value)
        return float(text), Kind.BIGINT, text  # of its text, since float(10**400) is an error, and not infinite
    if isinstance(value, float):
        return value, Kind.INT if isinstance(_plain(value), int) else Kind.FLOAT, None
    try:
        return math.nan, Kind.JSON, _json_text(value)
    except RecursionError:
        return math.nan, Kind.JSON, _encoded(value)


def _json_text(value: Any) -> str:
    """The JSON text of a value, as the local source spells it."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: (name != "_type", name))
        return "{" + ", ".join(f"{json.dumps(name)}: {_json_text(value[name])}" for name in names) + "}"
    return _encoded(value if isinstance(value, str) else _plain(value))


def _encoded(value: Any) -> str:
    text = _ENCODE(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half a character, which JSON can spell and UTF-8 cannot
            return json.dumps(value, separators=(",", ":"))
    return text


def _plain(value: Any) -> Any:
    """A value with its whole numbers as ints."""
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < EXACT_INT and (value or math.copysign(1, value) > 0)
        return int(value) if whole else value
    if isinstance(value, list):
        return value if {float, list, dict}.isdisjoint(map(type, value)) else [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def with_floats(values: Sequence[Any]) -> Sequence[Any]:
    """Values with the floats that JSON has no number for."""
    if {str, list, dict}.isdisjoint(map(type, values)):
        return values
    try:
        return [_with_floats(value) for value in values]
    except RecursionError:
        return values


def _with_floats(value: Any) -> Any:
    if isinstance(value, str):
        return _CONSTANTS.get(value, value)
    if isinstance(value, list):
        return [_with_floats(one) for one in value]
    if isinstance(value, dict):
        return {name: _with_floats(one) for name, one in value.items()}
    return value


# -- rows


def gathered(rows: Sequence[Mapping[str, Any]]) -> dict[KeyPath, tuple[list[int], list[Any]]]:
    """The values of rows by key path: number of the row, ascending, and the value; paths in the order they are met."""
    return _gathered((), range(len(rows)), rows)


def _gathered(
    above: KeyPath, numbers: Sequence[int], rows: Sequence[Mapping[str, Any]]
) -> dict[KeyPath, tuple[list[int], list[Any]]]:
    columns: dict[str, tuple[list[int], list[Any]]] = {}
    for number, row in zip(numbers, rows, strict=True):
        for name, value in row.items():
            try:
                at, values = columns[name]
            except KeyError:
                at, values = columns[name] = [], []
            at.append(number)
            values.append(value)
    found: dict[KeyPath, tuple[list[int], list[Any]]] = {}
    for name, (at, values) in columns.items():
        path = (*above, name)
        if dict not in set(map(type, values)) or len(path) > _DEEP:
            found[path] = at, values
            continue
        deeper = [type(value) is dict and bool(value) and "_type" not in value for value in values]
        if not all(deeper):
            found[path] = (
                [number for number, deep in zip(at, deeper, strict=True) if not deep],
                [value for value, deep in zip(values, deeper, strict=True) if not deep],
            )
        if any(deeper):
            found |= _gathered(
                path,
                [number for number, deep in zip(at, deeper, strict=True) if deep],
                [value for value, deep in zip(values, deeper, strict=True) if deep],
            )
    return found


LARGEST_STEP = 2**62  # what is beyond is no step that an SDK counts


def row_steps(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """The step of each row; one without goes on from the row before it."""
    steps: list[int] = []
    last = -1
    for row in rows:
        try:
            step = int(row.get(STEP))  # type: ignore[arg-type]
            last = step if abs(step) <= LARGEST_STEP else last + 1
        except (TypeError, ValueError, OverflowError):
            last += 1
        steps.append(last)
    return np.array(steps, np.int64)


def joined(parts: Sequence[tuple[str, Values]], steps: NDArray[np.int64], rows: int) -> Columns:
    """Key after key as Columns; `steps` has the step of each row."""
    names = [name for name, _ in parts]
    sizes = [len(values) for _, values in parts]
    texts = [values.text for _, values in parts]
    text = None
    if any(one is not None for one in texts):
        nothing = [
            pa.nulls(size, pa.large_string()) if one is None else one for one, size in zip(texts, sizes, strict=True)
        ]
        text = pa.concat_arrays(nothing)
    return Columns(
        names,
        np.repeat(np.arange(len(names), dtype=np.int32), sizes),
        steps[_end_to_end([values.row for _, values in parts], np.int64)],
        _end_to_end([values.value for _, values in parts], np.float64),
        _end_to_end([values.kind for _, values in parts], np.uint8),
        text,
        rows,
    )


def _end_to_end(parts: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, kind)


def history_columns(rows: Sequence[Mapping[str, Any]], keys: Keys) -> Columns:
    """Rows of the history. They come with ascending steps; the values of each key keep that order."""
    parts = [
        (keys.show(path), classified(np.array(at, np.int64), with_floats(values)))
        for path, (at, values) in gathered(rows).items()
        if path != (STEP,)
    ]
    return joined(parts, row_steps(rows), len(rows))


def event_columns(events: Sequence[Mapping[str, Any]], first: int, keys: Keys) -> Columns:
    """Samples of the machine, numbered from `first`, all of whose numbers are FLOATs.

    The server adds `_runtime` to what the log has. Its `_wandb`, which says that this is a sample, is left out.
    """
    parts = []
    for path, (at, values) in gathered(events).items():
        if path != ("_wandb",):
            found = classified(np.array(at, np.int64), [_measured(value) for value in values])
            kind = np.where(found.kind == Kind.INT, np.uint8(Kind.FLOAT), found.kind)
            parts.append((keys.show(path), Values(found.row, found.value, kind, found.text)))
    return joined(parts, np.arange(first, first + len(events), dtype=np.int64), len(events))


def _measured(value: Any) -> Any:
    """A sample's value; old SDKs put numbers in quotes."""
    if isinstance(value, str) and (_NUMBER.fullmatch(value) or value in _CONSTANTS):
        return float(value)
    return value


# -- console


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """A line that the program printed; `label` names the process if several write to the run."""

    text: str
    time: float | None = None  # unix seconds
    level: str = ""  # "error": it went to stderr
    label: str = ""


def console_columns(lines: Sequence[ConsoleLine], first: int) -> Columns:
    """Lines of the console, numbered from `first`, as they stand on the screen."""
    count = len(lines)
    keys = [("stderr" if line.level == "error" else "stdout") + f":{line.label}" * bool(line.label) for line in lines]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return Columns(
        list(number),
        np.fromiter((number[key] for key in keys), np.int32, count),
        np.arange(first, first + count, dtype=np.int64),
        np.array([math.nan if line.time is None else line.time for line in lines], np.float64),
        np.full(count, Kind.LINE, np.uint8),
        pa.array([_shown(line.text) for line in lines], pa.large_string()),
        count,
    )


def _shown(text: str) -> str:
    line = Line()
    line.write(text)
    return line.end().encode("utf-8", "replace").decode()
