"""Arrow arrays -> the JSON text of each element, as the local source spells it, without making Python objects of them.

Histograms are what this is for: a hundred numbers each, and often more of them than anything else.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .rows import with_floats

TEXT = pa.large_string()
UNION = "_type_"  # how the names of a union's members begin: _type_float64, _type_utf8, _type_struct ...
WORDS = pa.array(["NaN", "Infinity", "-Infinity"], TEXT)
_PLAIN = {bool, int, float, str, type(None)}


def json_texts(array: pa.Array, *, inner: bool = False) -> pa.LargeStringArray:
    """Null for null. A struct is an object without its nulls and without what is empty then.

    `inner`: as it stands within a list, where the local source keeps the order of names and the SDK's spacing.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return json_texts(array.dictionary_decode(), inner=inner)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return array.cast(TEXT)
    if pa.types.is_floating(kind):
        return _floats(array.cast(pa.float64()))
    if is_json(kind):
        return _parsed(array, inner)
    if is_text(kind):
        return quoted(strings(array))
    if is_union(kind):
        return _members(array, inner)
    if pa.types.is_struct(kind):
        return _objects(array, inner)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(array)
    texts = [None if value is None else json.dumps(logged(value), ensure_ascii=False) for value in array.to_pylist()]
    return pa.array(texts, TEXT)


def is_text(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def is_json(kind: pa.DataType) -> bool:
    """Whether W&B has serialized JSON there: in BINARY, while STRING holds texts as they are."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_union(kind: pa.DataType) -> bool:
    """Whether this is what W&B has for values of several types: a struct with a member for each, one of them given."""
    return bool(pa.types.is_struct(kind)) and kind.num_fields > 0 and all(one.name.startswith(UNION) for one in kind)


def from_json(text: bytes) -> Any:
    """What a cell of serialized JSON holds; one that is none is a text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.decode("utf-8", "replace")


def strings(array: pa.Array) -> pa.LargeStringArray:
    """An array of texts, what is not UTF-8 replaced."""
    texts = array.cast(pa.large_binary())
    try:
        return texts.cast(TEXT)
    except pa.ArrowInvalid:
        decoded = [None if text is None else text.decode("utf-8", "replace") for text in texts.to_pylist()]
        return pa.array(decoded, TEXT)


def quoted(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Texts in quotes, but for the words that stand for a float."""
    words = pc.is_in(texts, WORDS)
    if pc.any(words).as_py():
        return pc.if_else(words, texts, quoted(pc.if_else(words, pa.scalar(None, TEXT), texts)))
    if not pc.any(pc.match_substring_regex(texts, r'["\\\x00-\x1f]')).as_py():
        return _around('"', texts, '"')
    return pa.array(
        [None if text is None else json.dumps(text, ensure_ascii=False) for text in texts.to_pylist()], TEXT
    )


def logged(value: Any) -> Any:
    """What Arrow gives as a Python value, as JSON has it: dicts without what is null."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        members = {name: logged(member) for name, member in value.items()}
        return {name: member for name, member in members.items() if member is not None and member != {}}
    if isinstance(value, (list, tuple)):
        return [logged(one) for one in value]
    return logged(from_json(value)) if isinstance(value, bytes) else str(value)


def _parsed(array: pa.Array, inner: bool) -> pa.LargeStringArray:
    dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":") if inner else None).encode
    texts = [None if text is None else dump(with_floats([from_json(text)])[0]) for text in array.to_pylist()]
    return pa.array(texts, TEXT)


def _members(array: pa.StructArray, inner: bool) -> pa.LargeStringArray:
    """The one member of each that is given."""
    members = sorted(array.flatten(), key=lambda one: pa.types.is_struct(one.type))  # a struct may be all nulls
    return pc.coalesce(*(json_texts(member, inner=inner) for member in members), pa.scalar(None, TEXT))


def _floats(value: pa.DoubleArray) -> pa.LargeStringArray:
    texts = value.cast(TEXT)  # the shortest that gives the same float
    if not pc.all(pc.is_finite(value)).as_py():
        for arrow, ours in (("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")):
            texts = pc.if_else(pc.equal(texts, arrow), ours, texts)
    return texts


def _lists(array: pa.Array) -> pa.LargeStringArray:
    sizes = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = pa.array(np.concatenate(([0], np.cumsum(sizes))), pa.int32())
    elements = pc.fill_null(json_texts(array.flatten(), inner=True), "null").cast(pa.string())
    joined = _around("[", pc.binary_join(pa.ListArray.from_arrays(ends, elements), ","), "]")
    return pc.if_else(array.is_valid(), joined, pa.scalar(None, TEXT))


def _objects(array: pa.StructArray, inner: bool) -> pa.LargeStringArray:
    names = [one.name for one in array.type]
    order = range(len(names)) if inner else sorted(range(len(names)), key=lambda i: (names[i] != "_type", names[i]))
    fields = array.flatten()
    separator, colon = (",", ":") if inner else (", ", ": ")
    members = []
    for i in order:
        texts = json_texts(fields[i], inner=inner)
        if pa.types.is_struct(fields[i].type):
            texts = pc.if_else(pc.equal(texts, "{}"), pa.scalar(None, TEXT), texts)
        name = json.dumps(names[i], ensure_ascii=not inner)
        members.append(pc.fill_null(_around(f"{separator}{name}{colon}", texts, ""), ""))
    # null_handling="skip" would spare us the first separator, but loses all rows if all are null (Arrow 26).
    joined = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*members, pa.scalar("", TEXT)), len(separator))
    return pc.if_else(array.is_valid(), _around("{", joined, "}"), pa.scalar(None, TEXT))


def _around(before: str, texts: pa.Array, after: str) -> pa.LargeStringArray:
    return pc.binary_join_element_wise(
        pa.scalar(before, TEXT), texts.cast(TEXT), pa.scalar(after, TEXT), pa.scalar("", TEXT)
    )
