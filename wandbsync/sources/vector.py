"""Many records at once: the fast path, in numpy and Arrow. What it cannot prove is left to the plain path (values.py).

The trick: guess where every item of every history row lies, then prove the guess. An item is

    0a LENGTH  HEAD  82 01 LENGTH VALUE  TYPED?   HEAD = (0a LENGTH key) or (12 LENGTH part of a nested key) ...

with little room for 82 01 elsewhere (in text 01 is a control character, which JSON escapes). So each 82 01 is a guess;
it says where its value ends, and there the next item must start. A row is proven if its first item starts where the row
does, each item's own length reaches just to its end, and the last one ends where the row or its step
begins: by induction there is no other way to read these bytes. A row that does not pass, say because a length is 130
(82 01), or has a key twice, is *odd*: the plain path reads it. Objects and media are cells *apart*: only they are.
Arrow then turns texts into float64 (correctly rounded, as float() does) and heads into numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..model import EXACT_INT, Kind
from . import wire
from .values import NO_STEP, STEP, Keys, Path, Rows, classify, path_of

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_VARINT, _FIXED64, _BYTES = 0, 1, 2  # wire types
_SUMMARY, _CONTROL, _UUID, _INFO = 3, 16, 19, 200  # fields of Record
_ITEM, _STEP, _NUM, _NESTED, _VALUE = 0x0A, 0x12, 0x08, 0x12, (0x82, 0x01)  # tags in a HistoryRecord
_TYPED = (0x18, 0x20, 0x28, 0x31, 0x3A, 0x42)  # none, boolean, integer, number, text, json
_PAD = bytes(64)  # so that looking a little beyond the end is harmless
_CONSTANTS = {text.encode(): classify(text)[:2] for text in ("NaN", "Infinity", "-Infinity", "true", "false", "null")}


class Unproven(ValueError):
    """These records are not laid out as any known writer does: read them the plain way."""


class Records(NamedTuple):
    """n records: in `data`, record i is field number `field[i]` of Record, with payload data[lo[i]:hi[i]].

    derived: it is a summary that wandb-core derived from the history (see runlog._derived).
    """

    data: bytes
    field: Ints
    lo: Ints
    hi: Ints
    derived: Bools


class Values(NamedTuple):
    """R rows, less the odd ones (bool[R]) and the cells apart; the other fields are as in values.Rows.

    apart: row -> the (path, text) items that are, or are part of, an object.
    """

    odd: Bools
    apart: dict[int, list[tuple[Path, str]]]
    steps: Ints
    row: Ints
    key: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    kind: npt.NDArray[np.uint8]
    text: dict[int, str]


def records(found: list[bytes]) -> Records:
    """Look into each record: which type, and where its payload lies. Raises Unproven."""
    data, d, at, end = _joined(found)
    field, lo, hi = (np.zeros(len(found), np.int64) for _ in range(3))
    info = np.zeros(len(found), np.bool_)
    for which, number, wire_type, start, after, _ in _fields(d, at, end):
        info[which[number == _INFO]] = True
        own = (wire_type == _BYTES) & (number != _CONTROL) & (number != _UUID) & (number != _INFO)
        which = which[own]
        if field[which].any():
            raise Unproven
        field[which], lo[which], hi[which] = number[own], start[own], after[own]
    nested_first = (d[lo] == _ITEM) & (d[_varints(d, lo + 1)[1]] == _NESTED) & (hi - lo > 2)
    return Records(data, field, lo, hi, (field == _SUMMARY) & ~info & nested_first)


def printed(found: list[bytes]) -> tuple[list[bool], list[float | None], list[str]]:
    """Of these OutputRecords: whether to stdout, time (unix seconds) and text of each. Raises Unproven."""
    data, d, at, end = _joined(found)
    kind, line, line_end, time, time_end, seconds, nanos = (np.zeros(len(found), np.int64) for _ in range(7))
    for which, number, wire_type, start, after, value in _fields(d, at, end):
        for field, its_type, targets in (
            (1, _VARINT, ((kind, value),)),
            (2, _BYTES, ((time, start), (time_end, after))),
            (3, _BYTES, ((line, start), (line_end, after))),
        ):
            this = (number == field) & (wire_type == its_type)
            for target, what in targets:
                target[which[this]] = what[this]
    for which, number, _, _, _, value in _fields(d, time, time_end):
        seconds[which[number == 1]] = value[number == 1]
        nanos[which[number == 2]] = value[number == 2]
    times: list[float | None] = (seconds + nanos / 1e9).tolist()
    for i in np.flatnonzero(time == 0):
        times[i] = None
    texts = [data[a:b].decode("utf-8", "replace") for a, b in zip(line.tolist(), line_end.tolist(), strict=True)]
    return (kind != 0).tolist(), times, texts


def history(rows: list[bytes], keys: Keys) -> Values:
    """The values of these HistoryRecords. Raises Unproven, DecodeError."""
    data, d, lo, hi = _joined(rows)
    if len(data) >= 1 << 31:
        raise Unproven  # offsets in Arrow have 32 bits
    odd = np.zeros(len(rows), np.bool_)

    # Guess: every 82 01 is the tag of a value.
    tag = np.flatnonzero((d[:-1] == _VALUE[0]) & (d[1:] == _VALUE[1]))
    ends = np.searchsorted(tag, hi)
    count = np.diff(ends, prepend=0)
    row = np.repeat(np.arange(len(rows)), count)
    length, text = _varints(d, tag + 2)
    end = np.minimum(text + length, len(data) - len(_PAD))  # of the value
    item_end = _typed_end(d, end)

    # Prove: from the start of the row to its end, item follows item.
    some = count > 0
    start = np.empty_like(end)
    start[1:] = item_end[:-1]
    start[(ends - count)[some]] = lo[some]
    length, head = _varints(d, start + 1)
    odd[row[(d[start] != _ITEM) | (head + length != item_end) | (head > tag)]] = True
    rest = lo.copy()
    rest[some] = item_end[ends[some] - 1]
    steps, proven = _steps(d, rest, hi)
    odd |= ~proven
    if odd.any():
        keep = ~odd[row]
        row, head, tag, text, end = row[keep], head[keep], tag[keep], text[keep], end[keep]

    # Keys: tell the distinct heads apart, and their paths. One that comes twice makes the row odd.
    dictionary = _spans(data, head, tag, pa.binary()).dictionary_encode()
    code = np.frombuffer(dictionary.indices.buffers()[1], np.int32)[: 2 * len(row) : 2]
    paths = [_path(it) for it in dictionary.dictionary.to_pylist()]
    numbers = {path: number for number, path in enumerate(dict.fromkeys(paths))}
    key = np.array([numbers[path] for path in paths], np.int64)[code]
    cells = np.sort(row * len(paths) + key)
    odd[cells[1:][cells[1:] == cells[:-1]] // max(len(paths), 1)] = True

    # Objects are apart; and so is all that shares the first name with a `_type` below it, which may be media.
    lead = d[text]
    is_object = lead == ord("{")
    nested = np.array([len(path) > 1 for path in paths], np.bool_)[code]
    media = {path[0] for path in paths if len(path) > 1 and path[-1] == "_type"}
    is_apart = is_object | np.array([path[0] in media for path in paths], np.bool_)[code]
    has_object = np.zeros(len(rows), np.bool_)
    has_object[row[is_object]] = True
    odd[row[nested & has_object[row]]] = True  # the object may hold the nested key

    # Values: numbers in one go, the others (few) one by one.
    negative = lead == ord("-")
    size = end - text
    number = (np.where(negative, d[text + 1], lead) - np.uint8(48) < 10) & (size > 0) & (size <= 32)
    which = np.flatnonzero(number)
    value = np.full(len(row), np.nan)
    kind = np.zeros(len(row), np.uint8)
    texts: dict[int, str] = {}
    value[which] = _floats(data, text[which], end[which])
    whole = which[value[which] == np.floor(value[which])]
    whole = whole[_digits(d, text[whole] + negative[whole], end[whole])]
    whole = whole[(value[whole] != 0) | ~negative[whole]]
    kind[whole] = Kind.INT
    for i in [*whole[np.abs(value[whole]) >= EXACT_INT].tolist(), *np.flatnonzero(~number & ~is_apart).tolist()]:
        piece = data[text[i] : end[i]]
        if piece in _CONSTANTS:
            value[i], kind[i] = _CONSTANTS[piece]
        else:
            value[i], kind[i], kept = classify(piece.decode("utf-8", "replace"))
            if kept is not None:
                texts[i] = kept

    # The `_step` among the items is the step; it is no value.
    is_step = key == numbers.get(STEP, -1)
    odd[row[is_step & (kind != Kind.INT)]] = True
    told = np.flatnonzero(is_step & (kind == Kind.INT))
    steps[row[told]] = value[told].astype(np.int64)
    apart: dict[int, list[tuple[Path, str]]] = {}
    for i in np.flatnonzero(is_apart & ~odd[row]).tolist():
        cell = paths[code[i]], data[text[i] : end[i]].decode("utf-8", "replace")
        apart.setdefault(int(row[i]), []).append(cell)
    keep = ~(is_step | is_apart | odd[row])
    if texts:
        place = np.cumsum(keep) - 1
        texts = {int(place[i]): texts[i] for i in sorted(texts) if keep[i]}
    row, key, value, kind = row[keep], key[keep], value[keep], kind[keep]
    used = np.zeros(len(numbers), np.bool_)
    used[key] = True
    number_of = [keys.number(path) if is_used else -1 for path, is_used in zip(numbers, used.tolist(), strict=True)]
    return Values(odd, apart, steps, row, np.array(number_of, np.int32)[key], value, kind, texts)


def merged(values: Values, more: Rows, places: Ints) -> Rows:
    """All values of all rows: `values`, and those of `more`, whose row i belongs to row places[i]."""
    if not len(places):
        return Rows(
            values.steps, values.row.astype(np.int32), values.key, values.value, values.kind, values.text, more.paths
        )
    values.steps[places] = more.steps
    row = np.concatenate([values.row, places[more.row]]).astype(np.int32)
    order = np.argsort(row, kind="stable")
    at = np.empty_like(order)
    at[order] = np.arange(len(order))
    n = len(values.row)
    text = {int(at[i]): it for i, it in values.text.items()} | {int(at[n + i]): it for i, it in more.text.items()}
    key = np.concatenate([values.key, more.key])[order]
    value = np.concatenate([values.value, more.value])[order]
    kind = np.concatenate([values.kind, more.kind])[order]
    return Rows(values.steps, row[order], key, value, kind, dict(sorted(text.items())), more.paths)


def _joined(pieces: list[bytes]) -> tuple[bytes, Bytes, Ints, Ints]:
    """The pieces one after the other, as bytes and as an array, with padding behind; where each starts, and ends."""
    data = b"".join([*pieces, _PAD])
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    ends = np.cumsum(sizes)
    return data, np.frombuffer(data, np.uint8), ends - sizes, ends


def _fields(d: Bytes, at: Ints, end: Ints) -> Iterator[tuple[Ints, Ints, Ints, Ints, Ints, Ints]]:
    """The fields of many messages d[at:end], in lock step: first the first field of each, then the second ...

    Yields, for the messages that have another field: which they are, the field's number, its wire type (varint or
    bytes; else Unproven), start and end of its content, and its value if it is a varint.
    """
    at = at.copy()
    left = np.flatnonzero(at < end)
    while left.size:
        number, start = _varints(d, at[left])
        value, start = _varints(d, start)
        wire_type = number & 7
        after = np.where(wire_type == _BYTES, start + value, start)
        if ((wire_type != _BYTES) & (wire_type != _VARINT)).any() or (after > end[left]).any():
            raise Unproven
        yield left, number >> 3, wire_type, start, after, value
        at[left] = after
        left = left[after < end[left]]


def _varints(d: Bytes, at: Ints) -> tuple[Ints, Ints]:
    """The varints at these offsets, and the offsets behind them; those of 2**56 and more "end" beyond the end of d."""
    value = d[at].astype(np.int64)
    after = at + 1
    more = np.flatnonzero(value >= 0x80)
    shift = 7
    while more.size and shift < 56:
        byte = d[after[more]].astype(np.int64)
        value[more] += (byte - 1) << shift  # -1 takes back the continuation bit of the byte before
        after[more] += 1
        more = more[byte >= 0x80]
        shift += 7
    after[more] = len(d) - len(_PAD) + 1
    return value, after


def _typed_end(d: Bytes, end: Ints) -> Ints:
    """The ends of items whose values end at `end`: behind the typed value that SDK 0.31 may add (json,typed)."""
    typed = np.flatnonzero(np.isin(d[end], _TYPED))
    if not len(typed):
        return end
    at = end[typed]
    wire_type = d[at] & 7
    value, after = _varints(d, at + 1)
    after = np.where(wire_type == _BYTES, after + value, np.where(wire_type == _FIXED64, at + 9, after))
    item_end: Ints = end.copy()
    item_end[typed] = np.minimum(after, len(d) - len(_PAD))
    return item_end


def _steps(d: Bytes, at: Ints, end: Ints) -> tuple[Ints, Bools]:
    """The step of each row from what follows its items, at:end; and whether that is nothing or just a step."""
    steps = np.full(len(at), NO_STEP)
    proven = at == end
    some = np.flatnonzero(at < end)
    at, end = at[some], end[some]
    num, after = _varints(d, at + 3)
    zero = end == at + 2  # protobuf leaves out a 0
    steps[some] = np.where(zero, 0, num)
    right = (d[at] == _STEP) & (d[at + 1] == end - at - 2) & (zero | ((d[at + 2] == _NUM) & (after == end)))
    proven[some] = right
    return steps, proven


def _spans(data: bytes, start: Ints, end: Ints, kind: pa.DataType) -> pa.Array:
    """data[start:end] of ascending spans as an Arrow array without copying: value, null, value, null ...

    The nulls are what lies between the spans; Arrow's offsets are the spans' borders, and its null bits 01010101.
    """
    borders = np.zeros(2 * len(start) + 1, np.int32)
    borders[:-1:2], borders[1::2] = start, end
    borders[-1] = borders[-2] if len(start) else 0
    valid = pa.py_buffer(b"\x55" * (len(start) // 4 + 1))
    return pa.Array.from_buffers(kind, 2 * len(start), [valid, pa.py_buffer(borders), pa.py_buffer(data)])


def _floats(data: bytes, start: Ints, end: Ints) -> npt.NDArray[np.float64]:
    try:
        cast = _spans(data, start, end, pa.string()).cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise Unproven from error
    return np.frombuffer(cast.buffers()[1], np.float64)[: 2 * len(start) : 2]


def _digits(d: Bytes, start: Ints, end: Ints) -> Bools:
    """Whether there are only digits in d[start:end], for each of these spans."""
    right = np.ones(len(start), np.bool_)
    for i in range(int(np.max(end - start, initial=0))):
        right &= (d[start + i] - np.uint8(48) < 10) | (start + i >= end)
    return right


@lru_cache(1 << 16)
def _path(head: bytes) -> Path:
    """The path that a HEAD says. Raises DecodeError."""
    return path_of(wire.HistoryItem.FromString(head))
