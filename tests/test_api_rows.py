"""JSON rows of the server as long rows: what the local source makes of the same run, value by value."""

from __future__ import annotations

import json
import math
from typing import Any

import cells as oracle
import numpy as np
from cells import cells, expected, from_wire
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wandbsync.model import Columns, Kind, logged
from wandbsync.sources.api.rows import ConsoleLine, console_columns, event_columns, history_columns
from wandbsync.sources.console import rendered
from wandbsync.sources.keys import Keys
from wandbsync.sources.values import cells_of, classify

NAMES = st.sampled_from(["a", "b", "a.b", "loss", "_type", "", "ü/x", "\ud83d", "_step"])
NUMBERS = st.one_of(
    st.floats(),
    st.integers(-5, 5).map(float),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**53, 2**53 + 1, -(2**53), -(2**53) - 1, 2**63, 10**400, 2.0**53, -0.0, 1e22, 5e-324]),
)
SCALARS = st.one_of(
    NUMBERS, st.none(), st.booleans(), st.text(max_size=5), st.sampled_from(["NaN", "Infinity", "-Infinity", "\ud83d"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=6)


def with_steps(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "_step": 10 * i} for i, row in enumerate(rows)]


def one(value: Any) -> tuple[Any, ...]:
    """Kind, value and text of a single value."""
    (row,) = rows_of(history_columns([{"x": value, "_step": 0}], Keys()))
    return row[2:]


def rows_of(columns: Columns) -> list[tuple[Any, ...]]:
    texts = [None] * len(columns) if columns.text is None else columns.text.to_pylist()
    names = [columns.names[key] for key in columns.key.tolist()]
    found = zip(names, columns.step.tolist(), columns.kind.tolist(), columns.value.tolist(), texts, strict=True)
    return list(found)


# History


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text takes its time
@given(ROWS)
def test_any_rows_come_out_value_by_value(rows: list[dict[str, Any]]) -> None:
    rows = with_steps(rows)
    keys = Keys()
    columns = history_columns(rows, keys)
    assert columns.rows == len(rows)
    found = cells(columns)
    want = [(path, row["_step"], from_wire(value)) for row in rows for path, value in oracle.leaves(row)]
    assert {keys.names[path] for path, _, _ in want} == set(columns.names)
    assert len(set(columns.names)) == len(columns.names)
    assert sorted(found, key=repr) == sorted((expected(keys.show(p), s, v) for p, s, v in want), key=repr)
    by_key: dict[str, list[int]] = {}
    for name, step, *_ in found:
        by_key.setdefault(name, []).append(step)
    assert all(steps == sorted(set(steps)) for steps in by_key.values())


CORE_NUMBERS = st.one_of(
    st.floats(allow_nan=True).map(lambda x: int(x) if oracle.is_whole(x) else x), st.integers(-(2**60), 2**60)
)
CORE_NAMES = st.sampled_from(["a", "b", "a.b", "loss", "_type", "ü/x"])
CORE_VALUES = st.recursive(
    st.one_of(CORE_NUMBERS, st.none(), st.booleans(), st.text(st.characters(codec="utf-8"), max_size=5)).filter(
        lambda value: value not in ("NaN", "Infinity", "-Infinity")
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CORE_NAMES, inner, min_size=1, max_size=3),
    max_leaves=8,
)


def tame(value: Any) -> Any:
    """Without dicts for a `_type`, which is a word in life."""
    if isinstance(value, dict):
        return {name: "word" if name == "_type" else tame(one) for name, one in value.items()}
    return [tame(one) for one in value] if isinstance(value, list) else value


def written_by_core(row: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """The items of a history record as wandb-core writes them: dicts taken apart, `_type` or not."""
    items: list[tuple[tuple[str, ...], str]] = []
    for name, value in row.items():
        if isinstance(value, dict):
            items += written_by_core(value, (*above, name))
        else:
            items.append(((*above, name), json.dumps(value, ensure_ascii=False, separators=(",", ":"))))
    return items


@given(st.dictionaries(CORE_NAMES, CORE_VALUES, max_size=4).map(tame))
def test_a_row_is_what_the_local_source_makes_of_it_to_the_letter(row: dict[str, Any]) -> None:
    local, keys = Keys(), Keys()
    want = []
    for path, text in cells_of(written_by_core(row)).items():
        value, kind, kept = classify(text)
        want.append((local.show(path), 7, int(kind), repr(value), kept))
    columns = history_columns([{**row, "_step": 7}], keys)
    found = [(*cell[:3], repr(cell[3]), cell[4]) for cell in rows_of(columns)]
    if set(local.names.values()) == set(keys.names.values()):  # else two keys look alike, and another came first
        assert sorted(found, key=repr) == sorted(want, key=repr)
    assert len(found) == len(want)


def test_every_kind_of_value() -> None:
    assert one(1.5) == (Kind.FLOAT, 1.5, None)
    assert one(3) == one(3.0) == (Kind.INT, 3.0, None)
    assert one(2**53) == (Kind.INT, 2.0**53, None)
    assert one(2**53 + 1) == (Kind.BIGINT, 2.0**53, "9007199254740993")
    assert one(2.0**53) == (Kind.FLOAT, 2.0**53, None)
    assert one(-(2**63)) == (Kind.BIGINT, -(2.0**63), "-9223372036854775808")
    assert one(True) == (Kind.BOOL, 1.0, None)
    assert one("Infinity") == (Kind.FLOAT, math.inf, None)
    assert one("-Infinity") == (Kind.FLOAT, -math.inf, None)
    assert repr(one("NaN")) == repr((int(Kind.FLOAT), math.nan, None))
    assert repr(one(-0.0)) == repr((int(Kind.FLOAT), -0.0, None))
    for value, text in {
        "": '""',
        'a "b"\n\u2028ü': '"a \\"b\\"\\n\u2028ü"',
        "nan": '"nan"',
        "\ud83d": '"\\ud83d"',
    }.items():
        kind, number, kept = one(value)
        assert (kind, math.isnan(number), kept) == (Kind.JSON, True, text)
    assert one([1.0, "NaN", None, {"b": 2.5, "a": [True]}])[2] == '[1,NaN,null,{"b":2.5,"a":[true]}]'
    assert one({})[2] == "{}"
    assert one({"z": [1.0, 2], "_type": "t", "A": {"y": {}, "_type": 1}})[2] == (
        '{"_type": "t", "A": {"_type": 1, "y": {}}, "z": [1,2]}'
    )
    kind, number, kept = one(None)
    assert (kind, math.isnan(number), kept) == (Kind.NULL, True, None)


def test_dicts_are_paths_and_equal_looking_keys_stay_apart() -> None:
    keys = Keys()
    rows = [
        {"_step": 0, "a": {"b": {"c": 1}, "e": {}}},
        {"_step": 1, "a.b.c": 2, "a": {"b": {"c": 3}}},
        {"_step": 2, "a": {"_type": "html-file", "b": 1}},
        {"_step": 3, "a": 4},
    ]
    assert [(name, step, logged(*rest)) for name, step, *rest in rows_of(history_columns(rows, keys))] == [
        ("a", 2, {"_type": "html-file", "b": 1}),
        ("a", 3, 4),
        ("a.b.c", 0, 1),
        ("a.b.c", 1, 3),
        ("a.e", 0, {}),
        ('["a.b.c"]', 1, 2),
    ]
    assert keys.paths == {"a.b.c": ("a", "b", "c"), "a.e": ("a", "e"), '["a.b.c"]': ("a.b.c",)}


def test_keys_that_are_known_keep_their_names() -> None:
    keys = Keys({'["a","b"]': ("a", "b"), "a.b": ("a.b",)})
    assert history_columns([{"_step": 0, "a": {"b": 1}}], keys).names == ['["a","b"]']


def test_steps_in_every_dress() -> None:
    rows = [{"_step": 3.0, "x": 0}, {"x": 1}, {"_step": None, "x": 2}, {"_step": 2**40, "x": 3}, {"_step": "7", "x": 4}]
    assert history_columns(rows, Keys()).step.tolist() == [3, 4, 5, 2**40, 7]
    assert history_columns([{"x": 0}, {"x": 1}, {"_step": "NaN", "x": 1}], Keys()).step.tolist() == [0, 1, 2]


def test_no_rows_and_rows_without_values() -> None:
    for rows in ([], [{"_step": 4}], [{}, {}]):
        columns = history_columns(rows, Keys())
        assert (len(columns), columns.rows, columns.text) == (0, len(rows), None)
        assert cells(columns) == []


def test_dicts_as_deep_as_json_gets() -> None:
    for depth in (50, 99, 101, 300):
        text = '{"_step": 0, "x": ' + '{"x": ' * depth + "1" + "}" * depth + "}"
        (row,) = rows_of(history_columns([json.loads(text)], Keys()))
        assert row[0].startswith("x.x.x")
        assert row[2:] == (Kind.INT, 1.0, None) if depth < 100 else row[2] == Kind.JSON
    deep = json.loads('{"_step": 0, "x": {"_type": 1, "x": ' + "[" * 800 + "]" * 800 + "}}")
    (row,) = rows_of(history_columns([deep], Keys()))
    assert row[2] == Kind.JSON


def test_a_hundred_thousand_rows_are_read_in_no_time() -> None:
    rows = [{"_step": i, "x": i / 3, "y": i, "rare": None} for i in range(100_000)]
    columns = history_columns(rows, Keys())
    assert np.array_equal(columns.value[: len(rows)], np.arange(100_000) / 3)
    assert len(columns) == 300_000


# Machine metrics


def test_samples_of_the_machine_are_numbered_floats() -> None:
    events = [
        {"_wandb": True, "_timestamp": 1.7e9, "_runtime": 1, "system.cpu": 5, "system.gpu.0.temp": 41.5},
        {"_wandb": True, "_timestamp": 1.7e9 + 2, "_runtime": 3.5, "system.cpu": "12.50", "system.gpu": "a name"},
        {"_timestamp": 1.7e9 + 4, "system.cpu": "NaN", "system": {"cpu": 3}, "system.big": 2**70},
    ]
    keys = Keys()
    found = {(name, step): (kind, value) for name, step, kind, value, _ in rows_of(event_columns(events, 7, keys))}
    assert found.pop(("system.gpu", 8))[0] == Kind.JSON
    assert found.pop(("system.big", 9)) == (Kind.BIGINT, 2.0**70)
    assert {kind for kind, _ in found.values()} == {Kind.FLOAT}
    assert repr({at: value for at, (_, value) in found.items()}) == repr(
        {
            ("_timestamp", 7): 1.7e9,
            ("_timestamp", 8): 1.7e9 + 2,
            ("_timestamp", 9): 1.7e9 + 4,
            ("_runtime", 7): 1.0,
            ("_runtime", 8): 3.5,
            ("system.cpu", 7): 5.0,
            ("system.cpu", 8): 12.5,
            ("system.cpu", 9): math.nan,
            ("system.gpu.0.temp", 7): 41.5,
            ('["system","cpu"]', 9): 3.0,
        }
    )
    assert event_columns(events, 7, Keys()).rows == 3
    assert len(event_columns([], 7, Keys())) == 0


# Console


def test_console_lines_are_those_that_stood_on_the_screen() -> None:
    lines = [
        ConsoleLine("plain", 1.5),
        ConsoleLine("\r 0%\r100%", None, "error"),
        ConsoleLine("\x1b[32mgreen\x1b[0m  ", 2.5, "", "rank0"),
        ConsoleLine("", 3.5, "info"),
        ConsoleLine("half \ud83d", 4.5, "error", "rank1"),
    ]
    columns = console_columns(lines, 40)
    assert columns.rows == 5
    assert repr(rows_of(columns)) == repr(
        [
            ("stdout", 40, int(Kind.LINE), 1.5, "plain"),
            ("stderr", 41, int(Kind.LINE), math.nan, "100%"),
            ("stdout:rank0", 42, int(Kind.LINE), 2.5, "green"),
            ("stdout", 43, int(Kind.LINE), 3.5, ""),
            ("stderr:rank1", 44, int(Kind.LINE), 4.5, "half ?"),
        ]
    )
    assert cells(console_columns([], 3)) == []


@given(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20))
def test_a_line_is_shown_as_the_local_source_shows_it(text: str) -> None:
    shown = rows_of(console_columns([ConsoleLine(text)], 0))[0][4]
    assert [shown] == [line for _, _, line in rendered([("stdout", None, text + "\n")])]
