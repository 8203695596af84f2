"""How values are spelled in text, as expressions that DuckDB computes for millions of rows in all its threads.

Floats are the shortest digits that read back as the same float: DuckDB and Python write the same.
"""

from __future__ import annotations

import json
from typing import Any

INTEGERS = {
    *("tinyint", "smallint", "integer", "bigint", "hugeint"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"),
}
FLOATS = {"float", "double"}
TIMES = {"timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"}
NESTED = {"list", "array", "struct", "map"}


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def csv_cell(cell: str, kind: Any, separator: str) -> str:
    """The text of `cell`, an expression of the DuckDB type `kind`, in CSV; null where that is null.

    What is empty is in quotes, which tells it from null. What is nested is JSON.
    """
    if kind.id in FLOATS:
        return f"CASE WHEN isnan({cell}) THEN 'nan' ELSE {cell}::DOUBLE::VARCHAR END"
    if kind.id in NESTED and str(kind) != "JSON":
        return _quoted(f"CASE WHEN {cell} IS NOT NULL THEN {json_value(cell, kind)} END", separator)
    if kind.id in TIMES:
        return _time(cell, kind.id)
    if kind.id == "decimal":
        return _decimal(cell)
    if kind.id in INTEGERS or kind.id in ("boolean", "date"):
        return f"{cell}::VARCHAR"
    return _quoted(f"{cell}::VARCHAR", separator)


def json_value(cell: str, kind: Any, depth: int = 0) -> str:
    """The same in JSON; the word null where it is null.

    NaN and infinities are strings, as W&B's server sends them; times are as ISO 8601 has them, what else JSON has no
    word for is as DuckDB writes it. A column of JSON is the value itself, not a string.
    """
    return f"CASE WHEN {cell} IS NULL THEN 'null' ELSE {_json_value(cell, kind, depth)} END"


def _json_value(cell: str, kind: Any, depth: int) -> str:
    if str(kind) == "JSON":
        return _json_text(f"{cell}::VARCHAR")
    if kind.id in FLOATS:
        return (
            f"CASE WHEN isfinite({cell}) THEN {cell}::DOUBLE::VARCHAR WHEN isnan({cell}) THEN '\"NaN\"' "
            f"WHEN {cell} > 0 THEN '\"Infinity\"' ELSE '\"-Infinity\"' END"
        )
    if kind.id in INTEGERS or kind.id == "boolean":
        return f"{cell}::VARCHAR"
    if kind.id == "decimal":
        return _decimal(cell)
    if kind.id in TIMES:
        return f"""concat('"', replace({_time(cell, kind.id)}, ' ', 'T'), '"')"""
    if kind.id in NESTED:
        kinds, one = dict(kind.children), f"x{depth}"  # a name of its own for the element at each depth
        if kind.id in ("list", "array"):
            return _joined("[", f"{cell}::{kinds['child']}[]", one, json_value(one, kinds["child"], depth + 1), "]")
        if kind.id == "map":
            key, value = f"to_json({one}.key::VARCHAR)::VARCHAR", json_value(f"{one}.value", kinds["value"], depth + 1)
            return _joined("{", f"map_entries({cell})", one, f"concat({key}, ': ', {value})", "}")
        if all(kinds):
            members = {
                name: json_value(f"struct_extract({cell}, {literal(name)})", child, depth)
                for name, child in kinds.items()
            }
            return f"concat({json_object(members)})"
    return f"to_json({cell}::VARCHAR)::VARCHAR"


def json_object(members: dict[str, str]) -> str:
    """The pieces of an object, for `concat`, of the JSON of its members."""
    pieces: list[str] = []
    for name, value in members.items():
        before = ", " if pieces else "{"
        pieces.append(f"{literal(f'{before}{json.dumps(name, ensure_ascii=False)}: ')}, {value}")
    return ", ".join([*pieces, "'}'"])


def _joined(before: str, items: str, one: str, text: str, after: str) -> str:
    return f"concat('{before}', array_to_string(list_transform({items}, lambda {one}: {text}), ', '), '{after}')"


def _json_text(text: str) -> str:
    """JSON as it is, digits and all; on one line, and NaN and infinities, which DuckDB lets pass, as strings."""
    # Strings, and what stands between them: only there NaN is not a number.
    tokens = f"""regexp_extract_all(json({text}), '"(?:[^"\\\\]|\\\\.)*"|[^"]+')"""
    named = "CASE WHEN x[1] = '\"' THEN x ELSE regexp_replace(x, '-?(NaN|Infinity)', '\"\\0\"', 'g') END"
    return (
        f"CASE WHEN NOT json_valid({text}) THEN to_json({text})::VARCHAR "
        f"WHEN regexp_matches({text}, 'NaN|Infinity|\\n|\\r') "
        f"THEN array_to_string(list_transform({tokens}, lambda x: {named}), '') ELSE {text} END"
    )


def _quoted(text: str, separator: str) -> str:
    special = " OR ".join(f"contains({text}, {one})" for one in (literal(separator), "'\"'", "chr(10)", "chr(13)"))
    return f"""CASE WHEN {special} OR {text} = '' THEN concat('"', replace({text}, '"', '""'), '"') ELSE {text} END"""


def _time(cell: str, kind: str) -> str:
    """As Python writes it: no fraction of a second, or six digits. One without a zone is left so."""
    zone = "+00:00" if kind == "timestamp with time zone" else ""
    plain = f"make_timestamp(epoch_us({cell}))" if zone else f"{cell}::TIMESTAMP"
    return (
        f"CASE WHEN NOT isfinite({cell}) THEN {cell}::VARCHAR WHEN epoch_us({cell}) % 1000000 = 0 "
        f"THEN {plain}::VARCHAR || '{zone}' ELSE strftime({plain}, '%Y-%m-%d %H:%M:%S.%f{zone}') END"
    )


def _decimal(cell: str) -> str:
    """With a digit before the point, which DuckDB leaves out where there is no room for one."""
    return f"regexp_replace({cell}::VARCHAR, '^(-?)[.]', '\\10.')"
