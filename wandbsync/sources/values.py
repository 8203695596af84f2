"""The items of a history row -> columns of values. The plain path: one item after the other, easy to trust.

Every value travels as JSON text, and its text decides its kind (model.Kind):

    -?digits                  INT, BIGINT beyond 2**53; but -0 is the float -0.0
    any other number          FLOAT; NaN, Infinity and -Infinity (which JSON lacks, but the SDK writes) too
    true, false / null        BOOL / NULL
    anything else             JSON, kept as it stands; text that is not JSON is kept as a JSON string

A JSON object is no value but more paths: {"a": {"b": 1}} is ("a", "b"). Two exceptions are one JSON value each: the
empty object, and an object with "_type" (media, tables, histograms). wandb-core takes the latter apart before it writes
them, [img, _type] [img, path] ...: they are put together again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model import EXACT_INT, Kind
from . import wire
from .nesting import NESTING, is_deep

Path = tuple[str, ...]

NO_STEP = -(1 << 63)
STEP: Path = ("_step",)

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
DIGITS = 4300  # of an integer that Python reads; a longer one is kept as text
_CONSTANTS = {
    "NaN": (math.nan, Kind.FLOAT),
    "Infinity": (math.inf, Kind.FLOAT),
    "-Infinity": (-math.inf, Kind.FLOAT),
    "true": (1.0, Kind.BOOL),
    "false": (0.0, Kind.BOOL),
    "null": (math.nan, Kind.NULL),
}
_DECODER = json.JSONDecoder(parse_int=float, strict=False)  # float: int() refuses more than 4,300 digits


@dataclass(frozen=True, slots=True)
class Rows:
    """The values of R rows, in log order (rows ascending; within a row in no promised order; no path twice in a row).

    steps: int64[R], the step of each row; NO_STEP where the log has none.
    row: int32[n], the row of each value. key: int32[n], an index into `paths`.
    value: float64[n], NaN for the kinds NULL and JSON. kind: uint8[n], model.Kind.
    text: value index -> JSON text (kind JSON) or digits (BIGINT), ascending; the other kinds need none.
    paths: the key paths met so far; it grows over the life of a reader, and an index keeps its meaning.
    """

    steps: npt.NDArray[np.int64]
    row: npt.NDArray[np.int32]
    key: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    kind: npt.NDArray[np.uint8]
    text: dict[int, str]
    paths: list[Path]


class Keys:
    """Key paths, numbered in the order they are met."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self._number: dict[Path, int] = {}

    def number(self, path: Path) -> int:
        found = self._number.get(path)
        if found is None:
            found = self._number[path] = len(self.paths)
            self.paths.append(path)
        return found


class Table:
    """Rows under construction."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.steps: list[int] = []
        self.row: list[int] = []
        self.key: list[int] = []
        self.value: list[float] = []
        self.kind: list[int] = []
        self.text: dict[int, str] = {}

    def add(self, cells: dict[Path, str], step: int | None) -> None:
        """Append a row; `step` is what its step field says, if it has one. The `_step` among the cells beats it."""
        row = len(self.steps)
        own_step = cells.pop(STEP, None)
        if own_step is not None and _is_int64(own_step):
            step = int(own_step)
        self.steps.append(NO_STEP if step is None else step)
        for path, text in cells.items():
            value, kind, kept = classify(text)
            if kept is not None:
                self.text[len(self.value)] = kept
            self.row.append(row)
            self.key.append(self.keys.number(path))
            self.value.append(value)
            self.kind.append(kind)

    def rows(self) -> Rows:
        return Rows(
            np.array(self.steps, np.int64),
            np.array(self.row, np.int32),
            np.array(self.key, np.int32),
            np.array(self.value, np.float64),
            np.array(self.kind, np.uint8),
            self.text,
            self.keys.paths,
        )


def classify(text: str) -> tuple[float, Kind, str | None]:
    """The value and kind of a JSON text, and the text itself if the value alone does not say it all."""
    number = _NUMBER.fullmatch(text)
    if number:
        value = float(text)
        if len(text) > DIGITS and number.lastindex is None:
            return math.nan, Kind.JSON, json.dumps(text)
        if number.lastindex is not None or (value == 0 and text[0] == "-"):
            return value, Kind.FLOAT, None
        if abs(value) < EXACT_INT or (abs(value) == EXACT_INT and abs(int(text)) == EXACT_INT):
            return value, Kind.INT, None
        return value, Kind.BIGINT, text
    if text in _CONSTANTS:
        return *_CONSTANTS[text], None
    return math.nan, Kind.JSON, text if _is_json(text) else json.dumps(text)


def history_row(payload: bytes) -> tuple[dict[Path, str], int | None]:
    """Path -> JSON text of a HistoryRecord, and its step field; of two items with one path the last counts.

    Raises DecodeError, as does system_row.
    """
    message = wire.HistoryRecord.FromString(payload)
    items = ((path_of(item), (item.value_json or _typed(item)).decode("utf-8", "replace")) for item in message.item)
    return cells_of(items), message.step.num if message.HasField("step") else None


def path_of(item: Any) -> Path:
    """The path of a HistoryItem: its nested key, or else its key."""
    path = tuple([name.decode("utf-8", "replace") for name in item.nested_key or [item.key]])
    return path if len(path) <= NESTING else (".".join(path),)


def cells_of(items: Iterable[tuple[Path, str]]) -> dict[Path, str]:
    """Path -> JSON text of the items of one row: objects taken apart, and media put together."""
    cells: dict[Path, str] = {}
    parts = False
    for path, text in items:
        if text.startswith("{") and not is_deep(text):
            cells.update((path + rest, leaf) for rest, leaf in leaves(text))
        else:
            cells[path] = text
        parts = parts or (path[-1] == "_type" and len(path) > 1)
    return _assembled(cells) if parts else cells


def leaves(text: str) -> Iterator[tuple[Path, str]]:
    """The values in a JSON object as (path, text): everything but objects, and the objects that are one value."""
    try:
        members = dict(_members(text))
    except (ValueError, RecursionError):
        members = {}  # {}, or not JSON after all
    if not members or "_type" in members:
        yield (), text
        return
    for name, value in members.items():
        if value.startswith("{"):
            yield from (((name, *rest), leaf) for rest, leaf in leaves(value))
        else:
            yield (name,), value


_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER_MEMBER = re.compile(
    r'"([^"\\\x00-\x1f]*)"[ \t\r\n]*:[ \t\r\n]*'
    r"(-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|true|false|null|NaN|-?Infinity)[ \t\r\n]*([,}])[ \t\r\n]*"
)


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Name and verbatim text of each member of a JSON object; ValueError if it is not one."""
    at, after = _sign(text, 0, "{"), "{"
    if text[at : at + 1] == "}":
        at, after = _sign(text, at, "}"), "}"
    while after != "}":
        number = _NUMBER_MEMBER.match(text, at)  # what follows would do for these too, at a third of the speed
        if number:
            name, value, after = number.groups()
            at = number.end()
        else:
            name, at = _DECODER.raw_decode(text, at)
            if not isinstance(name, str):
                raise ValueError(f"no name before {at}")
            start = _sign(text, at, ":")
            _, at = _DECODER.raw_decode(text, start)
            value = text[start:at]
            behind = _sign(text, at, ",}")
            after, at = text[_space(text, at)], behind
        yield name, value
    if at != len(text):
        raise ValueError(f"more after {at}")


def _sign(text: str, at: int, signs: str) -> int:
    """Where it goes on behind one of these signs, which must come next."""
    at = _space(text, at)
    if at == len(text) or text[at] not in signs:
        raise ValueError(f"none of {signs} at {at}")
    return _space(text, at + 1)


def _space(text: str, at: int) -> int:
    """Where the white space from `at` on ends."""
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _assembled(cells: dict[Path, str]) -> dict[Path, str]:
    """The cells with every object that has a `_type` member put together: one cell of JSON text at its path."""
    media = {path[:-1] for path in cells if path[-1] == "_type" and len(path) > 1}
    whole: dict[Path, str] = {}
    objects: dict[Path, dict[Path, str]] = {}
    for path, text in cells.items():
        owner = next((path[:n] for n in range(1, len(path)) if path[:n] in media), None)
        if owner is None:
            whole[path] = text
        else:
            objects.setdefault(owner, {})[path[len(owner) :]] = text
    for owner, members in objects.items():
        whole[owner] = _object(members)
    return whole


def _object(members: dict[Path, str]) -> str:
    """The text of a JSON object with these members, `_type` first and the others in order of name."""
    below: dict[str, dict[Path, str]] = {}
    for path, text in members.items():
        below.setdefault(path[0], {})[path[1:]] = text
    texts = {name: _object(rest) if () not in rest else _valid(rest[()]) for name, rest in below.items()}
    order = sorted(texts, key=lambda name: (name != "_type", name))
    return "{" + ", ".join(f"{json.dumps(name)}: {texts[name]}" for name in order) + "}"


def _valid(text: str) -> str:
    return text if _is_json(text) else json.dumps(text)


def _is_json(text: str) -> bool:
    if is_deep(text):
        return False
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_int64(text: str) -> bool:
    return re.fullmatch("-?[0-9]{1,19}", text) is not None and -(1 << 63) < int(text) < 1 << 63


def _typed(item: Any) -> bytes:
    """The JSON text of an item that has only the typed value (SDK 0.31, json,typed); b"" if it has none."""
    which = item.WhichOneof("value")
    if which is None:
        return b""
    value = getattr(item, which)
    if which == "json":
        return bytes(value)
    if which == "none":
        return b"null"
    if which == "text":
        value = value.decode("utf-8", "replace")
    return json.dumps(value).encode()


def system_row(payload: bytes) -> dict[Path, str]:
    """Path -> JSON text of a StatsRecord, its time too; numbers that old SDKs wrote in quotes lose them."""
    message = wire.StatsRecord.FromString(payload)
    cells: dict[Path, str] = {}
    for item in message.item:
        path = ("system." + item.key.decode("utf-8", "replace"),)
        text = item.value_json.decode("utf-8", "replace")
        if text[:1] == text[-1:] == '"' and (_NUMBER.fullmatch(text[1:-1]) or text[1:-1] in _CONSTANTS):
            text = text[1:-1]
        if text.startswith("{") and not is_deep(text):
            cells.update((path + rest, leaf) for rest, leaf in leaves(text))
        else:
            cells[path] = text
    if message.HasField("timestamp"):
        cells["_timestamp",] = repr(wire.seconds(message.timestamp))
    return cells
