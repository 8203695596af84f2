"""The `.wandb` reader, against logs of the real SDK, logs of every layout, and broken ones."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import textwrap
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import logwriter as lw
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from wandb.proto import wandb_internal_pb2 as pb

from wandbsync.errors import EmptyLog, LogError, NewerLog, NotALog, ReplacedLog
from wandbsync.model import Kind
from wandbsync.sources import runlog, vector
from wandbsync.sources.values import Keys, classify

# ---------------------------------------------------------------------------------------------------------- reading


@pytest.fixture(params=["plain", "vector"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test that uses it runs twice: on the plain path, and on the fast one even for the smallest window."""
    monkeypatch.setattr(runlog, "VECTOR_FROM", 0 if request.param == "vector" else 1 << 60)
    return str(request.param)


def read(path: Path, start: runlog.Position | None = None, size: int = 1 << 16) -> list[runlog.Window]:
    return list(runlog.windows(path, start, size=size))


def logged(rows: runlog.Rows) -> list[tuple[int, dict[tuple[str, ...], Any]]]:
    """Step and {path: Python value} of each row."""
    out: list[tuple[int, dict[tuple[str, ...], Any]]] = [(int(step), {}) for step in rows.steps]
    for i in range(len(rows.row)):
        kind, value, text = rows.kind[i], rows.value[i].item(), rows.text.get(i)
        assert (text is not None) == (kind in (Kind.JSON, Kind.BIGINT))
        if kind in (Kind.JSON, Kind.NULL):
            assert math.isnan(value)
        if kind == Kind.BIGINT:
            assert value == float(text or "")
        cell = {
            Kind.FLOAT: lambda v, t: v,
            Kind.INT: lambda v, t: int(v),
            Kind.BOOL: lambda v, t: bool(v),
            Kind.NULL: lambda v, t: None,
            Kind.JSON: lambda v, t: parsed(t),
            Kind.BIGINT: lambda v, t: int(t),
        }[Kind(kind)](value, text)
        path = rows.paths[rows.key[i]]
        assert path not in out[rows.row[i]][1], "a path twice in a row"
        out[rows.row[i]][1][path] = cell
    assert (np.diff(rows.row) >= 0).all()
    assert list(rows.text) == sorted(rows.text)
    return out


def all_logged(windows: list[runlog.Window]) -> list[tuple[int, dict[tuple[str, ...], Any]]]:
    return [row for window in windows for row in logged(window.history)]


def same(a: Any, b: Any) -> bool:
    return plain(a) == plain(b)


def plain(value: Any) -> str:
    """Tells 1, 1.0 and True, 0.0 and -0.0 apart, takes one NaN for another, and knows no order in a dict."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{key!r}: {plain(below)}" for key, below in value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    return repr(value)


# ----------------------------------------------------------------------------------------------------------- oracle


def parsed(text: str) -> Any:
    return json.loads(text, parse_int=lambda n: -0.0 if n == "-0" else int(n))


def expected(records: list[bytes]) -> list[tuple[int, dict[tuple[str, ...], Any]]]:
    """What the history of these records is, decoded with the real schema and json, the slow and obvious way."""
    rows = []
    for payload in records:
        record = pb.Record.FromString(payload)
        if record.WhichOneof("record_type") != "history":
            continue
        cells: dict[tuple[str, ...], Any] = {}
        for item in record.history.item:
            path = tuple(item.nested_key) or (item.key,)
            try:
                value = parsed(item.value_json)
            except ValueError:
                value = item.value_json
            cells.update(flat(path, value))
        media = {path[:-1] for path in cells if len(path) > 1 and path[-1] == "_type"}
        whole: dict[tuple[str, ...], Any] = {}
        for path, value in sorted(cells.items(), key=lambda cell: (cell[0][-1] != "_type", cell[0])):
            owner = next((path[:n] for n in range(1, len(path)) if path[:n] in media), None)
            if owner is None:
                whole[path] = value
                continue
            into = whole.setdefault(owner, {})
            for name in path[len(owner) : -1]:
                into = into.setdefault(name, {})
            into[path[-1]] = value
        step = whole.pop(("_step",), None)
        if not isinstance(step, int) or isinstance(step, bool):
            step = record.history.step.num if record.history.HasField("step") else runlog.NO_STEP
        rows.append((step, whole))
    return rows


def flat(path: tuple[str, ...], value: Any) -> dict[tuple[str, ...], Any]:
    if isinstance(value, dict) and value and "_type" not in value:
        return {p: v for name, below in value.items() for p, v in flat((*path, name), below).items()}
    return {path: value}


# ------------------------------------------------------------------------------------------------------- strategies

NAMES = st.sampled_from(["loss", "acc", "a.b", "train/x", "Ж", "k" * 124, "k" * 130, "_runtime", "a", "b"])
NUMBER_TEXTS = [
    "-0", "0", "-0.0", "0e0", "1e5", "1e+09", "1E-7", "1e400", "-1e400", "1e-400", "5e-324", "1e2", "0.1", "NaN",
    "-Infinity", "123456789012345678.5", "0.1000000000000000055511151231257827", "2.2250738585072011e-308",
    "9007199254740992", "9007199254740993", "-9007199254740992", "1152921504606846976", "11111111111111111.0",
]  # fmt: skip
NUMBERS = st.one_of(
    st.floats().map(json.dumps),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"{x:e}"),
    st.integers().map(str),
    st.sampled_from([33, 40, 400]).map(lambda digits: "1" * digits),
    st.integers(-(2**53) - 2, 2**53 + 2).map(str),
    st.sampled_from(NUMBER_TEXTS),
)
PLAIN = st.one_of(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["true", "false", "null"]))
TEXTS = st.text(max_size=20).map(json.dumps)
JSONS = st.recursive(
    st.one_of(PLAIN, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.dictionaries(st.sampled_from(["a", "b", "_type", "ü"]), inner, max_size=3).map(
            lambda members: "{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in members.items()) + "}"
        ),
    ),
    max_leaves=6,
)
BROKEN = st.sampled_from(
    ["", "-", "nan", "[1", '{"a"', "{", '{"a": 1} 2', '"x', "1e", "0x10", "tru", "{'a': 1}", "1_0"]
)
CELL_TEXTS = st.one_of(PLAIN, PLAIN, PLAIN, TEXTS, JSONS, BROKEN)
NESTED = [("x",), ("_type",), ("d", "x"), ("d", "_type"), ("d", "path"), ("_type2",)]


@st.composite
def history_records(draw: st.DrawFn) -> bytes:
    """A history record by any writer, with any keys and values."""
    writer = draw(st.sampled_from(lw.ANY))
    step = draw(st.one_of(st.none(), st.integers(0, 300), st.integers(-3, 2**40)))
    plain = draw(st.booleans())
    cells = [((name,), draw(PLAIN if plain else CELL_TEXTS)) for name in draw(st.lists(NAMES, max_size=6))]
    if writer in lw.NEW and not plain:
        nested = draw(st.lists(st.sampled_from(NESTED), max_size=4, unique=True))
        cells += [(("nest", *below), draw(CELL_TEXTS)) for below in nested]
    if draw(st.booleans()):
        cells.append((("_step",), draw(st.sampled_from(["0", "7", "1234567", "3.5", str(2**60)]))))
    return lw.record(writer, draw(st.integers(0, 2**31)), history=lw.history(writer, cells, step))


OTHERS = st.sampled_from(
    [
        lw.record("core", 3, output_raw=pb.OutputRawRecord(output_type=1, line="hello \x82\x01 ü")),
        lw.record("old", 0, output_raw=pb.OutputRawRecord(line="")),
        lw.derived_summary(4, {("loss",): "0.5", ("a", "b"): "1"}),
        lw.record("core", 5, summary=pb.SummaryRecord(update=[pb.SummaryItem(key="best", value_json="1")])),
        lw.record("python", 6, telemetry=pb.TelemetryRecord() if hasattr(pb, "TelemetryRecord") else b""),
        lw.field(99, b"a record type of the future"),
        b"",
    ]
)
LOGS = st.lists(st.one_of(history_records(), history_records(), OTHERS), max_size=12)


# ------------------------------------------------------------------------------------------------ values and layouts


@pytest.mark.parametrize("left", range(8))
@pytest.mark.parametrize("size", [64, 1 << 20])
def test_a_last_record_across_the_other_bases_border_is_read(tmp_path: Path, left: int, size: int) -> None:
    """With `left` bytes before the border of a base 0 block, a base 7 log goes on where base 0 has padding."""
    records = [lw.record("core", 1, history=lw.history("core", lw.row(0, loss=1.0), 0))]
    start = len(lw.log(records, 7))
    room = lw.BLOCK - left - start - 7
    empty = len(lw.record("core", 0, output_raw=pb.OutputRawRecord(line="x" * 30000))) - 30000
    records.append(lw.record("core", 0, output_raw=pb.OutputRawRecord(line="x" * (room - empty))))
    assert len(lw.log(records, 7)) == lw.BLOCK - left
    records.append(b"\x12\x00")
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log(records, 7))
    assert [len(window.history.steps) for window in read(path, size=size) if len(window.history.steps)] in ([1, 1], [2])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records=LOGS, base=st.sampled_from([0, 7]), fill=st.integers(0, 400), size=st.sampled_from([64, 1000, 1 << 20]))
def test_both_ways_give_what_the_real_schema_gives(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], base: int, fill: int, size: int
) -> None:
    """Any records, across a block's border too: the plain way, the fast way and the oracle agree on every value."""
    filler = lw.record("core", 0, output_raw=pb.OutputRawRecord(line="x" * (lw.BLOCK - 200 - fill)))
    path = tmp_path_factory.mktemp("log") / "run-x.wandb"
    path.write_bytes(lw.log([filler, *records], base))
    want = expected(records)
    seen = {}
    for name, least in (("plain", 1 << 60), ("vector", 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runlog, "VECTOR_FROM", least)
            windows = read(path, size=size)
        assert same(all_logged(windows), want), name
        assert [gap for window in windows for gap in window.gaps] == []
        seen[name] = [
            [(w.position, w.printed, [(e.rows_before, e.name, str(e.message)) for e in w.events]) for w in windows]
        ]
    assert seen["plain"] == seen["vector"]


@pytest.mark.parametrize("writer", lw.WRITERS)
@pytest.mark.parametrize("width", [1, 5, 20, 1000])
def test_the_fast_way_proves_the_layouts_of_all_writers(tmp_path: Path, writer: str, width: int) -> None:
    """No row of an ordinary log needs the plain way; else it would be slow without anybody noticing."""
    rng = random.Random(width)
    rows = []
    for step in range(30):
        cells = lw.row(step, **{f"metric/{i}": rng.choice([rng.random(), rng.randint(0, 9)]) for i in range(width)})
        if writer in lw.NEW:
            rng.shuffle(cells)
        rows.append(lw.history(writer, cells, None if writer == "old" else step))
    records = [lw.record(writer, i, history=row) for i, row in enumerate(rows)]
    found = vector.records(records)
    assert [found.data[lo:hi] for lo, hi in zip(found.lo, found.hi, strict=True)] == rows
    odd = vector.history(rows, Keys()).odd
    assert odd.sum() <= (6 if writer == "typed" else 0), "82 01 may stand in a float"


@settings(max_examples=400, deadline=None)
@given(text=NUMBERS)
@example(text="9007199254740993")
def test_numbers_are_those_that_python_reads(text: str) -> None:
    """Bit for bit, whichever way."""
    value, kind, kept = classify(text)
    assert same(value, float(text))
    row = lw.history("core", [(("x",), text)], None)
    values = vector.history([row], Keys())
    if len(values.value):
        assert same(values.value.tolist(), [float(text)])
        assert (values.kind[0], values.text.get(0)) == (kind, kept)


def test_kinds(tmp_path: Path, way: str) -> None:
    texts = {
        "float": "0.5", "int": "3", "whole": "3.0", "zero": "-0", "big": str(2**60), "edge": str(2**53),
        "nan": "NaN", "inf": "-Infinity", "true": "true", "none": "null", "text": '"NaN"', "list": "[1, NaN]",
        "empty": "{}", "media": '{"_type": "table-file", "n": 1}', "deep": '{"a": {"b": 1}, "c": {}}', "bad": "oops",
    }  # fmt: skip
    path = tmp_path / "run-x.wandb"
    path.write_bytes(
        lw.log([lw.record("python", 1, history=lw.history("python", [((k,), t) for k, t in texts.items()], 4))])
    )
    (window,) = read(path)
    rows = window.history
    got = {rows.paths[k]: (Kind(rows.kind[i]).name, rows.text.get(i)) for i, k in enumerate(rows.key)}
    assert got == {
        ("float",): ("FLOAT", None),
        ("int",): ("INT", None),
        ("whole",): ("FLOAT", None),
        ("zero",): ("FLOAT", None),
        ("big",): ("BIGINT", str(2**60)),
        ("edge",): ("INT", None),
        ("nan",): ("FLOAT", None),
        ("inf",): ("FLOAT", None),
        ("true",): ("BOOL", None),
        ("none",): ("NULL", None),
        ("text",): ("JSON", '"NaN"'),
        ("list",): ("JSON", "[1, NaN]"),
        ("empty",): ("JSON", "{}"),
        ("media",): ("JSON", '{"_type": "table-file", "n": 1}'),
        ("deep", "a", "b"): ("INT", None),
        ("deep", "c"): ("JSON", "{}"),
        ("bad",): ("JSON", '"oops"'),
    }
    assert rows.steps.tolist() == [4]


def test_media_that_core_took_apart_is_put_together(tmp_path: Path, way: str) -> None:
    cells = [
        (("img", "path"), '"media/x.png"'), (("img", "_type"), '"image-file"'), (("img", "boxes", "n"), "2"),
        (("a", "img", "_type"), '"histogram"'), (("a", "img", "bins"), "[1,2.5]"), (("a", "x"), "1"),
        (("_type",), '"mine"'),
    ]  # fmt: skip
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log([lw.record("core", 1, history=lw.history("core", cells, 0))]))
    ((_, row),) = all_logged(read(path))
    assert row == {
        ("img",): {"_type": "image-file", "path": "media/x.png", "boxes": {"n": 2}},
        ("a", "img"): {"_type": "histogram", "bins": [1, 2.5]},
        ("a", "x"): 1,
        ("_type",): "mine",
    }


@pytest.mark.skipif(not lw.TYPED, reason="the installed SDK knows no typed values")
def test_typed_values_count_where_there_is_no_json(tmp_path: Path, way: str) -> None:
    """SDK 0.31 can write json,typed; a later one may leave the json away."""
    items = [
        pb.HistoryItem(nested_key=["none"], none=0), pb.HistoryItem(nested_key=["yes"], boolean=True),
        pb.HistoryItem(nested_key=["int"], integer=-5), pb.HistoryItem(nested_key=["big"], integer=2**60),
        pb.HistoryItem(nested_key=["float"], number=3.0), pb.HistoryItem(nested_key=["nan"], number=math.nan),
        pb.HistoryItem(nested_key=["text"], text="hi"), pb.HistoryItem(nested_key=["json"], json='{"a":[1]}'),
        pb.HistoryItem(nested_key=["both"], number=1.5, value_json="2.5"),
        pb.HistoryItem(nested_key=["_step"], integer=9),
    ]  # fmt: skip
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log([pb.Record(num=1, history=pb.HistoryRecord(item=items)).SerializeToString()]))
    ((step, row),) = all_logged(read(path))
    assert step == 9
    assert same(
        {path[-1]: value for path, value in row.items()},
        {
            "none": None,
            "yes": True,
            "int": -5,
            "big": 2**60,
            "float": 3.0,
            "nan": math.nan,
            "text": "hi",
            "a": [1],
            "both": 2.5,
        },
    )


def test_the_last_of_two_values_for_a_key_counts(tmp_path: Path, way: str) -> None:
    cells = [(("x",), "1"), (("y",), "5"), (("x",), "2"), (("_step",), "3"), (("_step",), "4")]
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log([lw.record("core", 1, history=lw.history("core", cells, 0))]))
    assert all_logged(read(path)) == [(4, {("x",): 2, ("y",): 5})]
    both = lw.field(1, lw.item("core", ("x",), "1")) + lw.field(1, lw.item("python", ("x",), "2"))
    path.write_bytes(lw.log([lw.record("core", 1, history=both)]))
    assert all_logged(read(path)) == [(runlog.NO_STEP, {("x",): 2})]
    cells = [(("a",), '{"b": 1, "c": 1}'), (("a", "b"), "2")]
    path.write_bytes(lw.log([lw.record("core", 1, history=lw.history("core", cells, None))]))
    assert all_logged(read(path)) == [(runlog.NO_STEP, {("a", "b"): 2, ("a", "c"): 1})]


def test_a_step_is_the_item_or_the_field_or_missing(tmp_path: Path, way: str) -> None:
    rows = [
        ([(("_step",), "3")], 8),
        ([], 8),
        ([], 0),
        ([], None),
        ([(("_step",), "2.5")], 8),
        ([(("_step",), "0")], None),
    ]
    path = tmp_path / "run-x.wandb"
    path.write_bytes(
        lw.log([lw.record("core", 1, history=lw.history("core", [*cells, (("x",), "1")], s)) for cells, s in rows])
    )
    assert [step for step, _ in all_logged(read(path))] == [3, 8, 0, runlog.NO_STEP, 8, 0]


def test_system_metrics(tmp_path: Path, way: str) -> None:
    """Old SDKs quoted the numbers."""
    stats = pb.StatsRecord(
        item=[
            pb.StatsItem(key=k, value_json=v)
            for k, v in [("cpu", "4.5"), ("gpu.0.temp", '"31"'), ("net", '{"sent": 7}')]
        ]
    )
    stats.timestamp.FromMilliseconds(1_700_000_000_250)
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log([lw.record("core", 1, stats=stats)]))
    (window,) = read(path)
    assert logged(window.system) == [
        (
            runlog.NO_STEP,
            {
                ("system.cpu",): 4.5,
                ("system.gpu.0.temp",): 31,
                ("system.net", "sent"): 7,
                ("_timestamp",): 1_700_000_000.25,
            },
        )
    ]
    assert not len(window.history.steps)


def test_console_and_events_know_their_place_among_the_rows(tmp_path: Path, way: str) -> None:
    line = pb.OutputRawRecord(output_type=1, line="hi")
    line.timestamp.FromMilliseconds(1_700_000_000_500)
    history = lw.history("core", lw.row(0, loss=1), 0)
    records = [
        lw.record("core", 1, run=pb.RunRecord(run_id="r")),
        lw.record("core", 2, history=history),
        lw.record("core", 3, output_raw=line),
        lw.record("core", 4, history=history),
        lw.record("old", 5, output=pb.OutputRecord(line="oh")),
        lw.derived_summary(6, {("loss",): "1"}),
        lw.record("core", 7, exit=pb.RunExitRecord(exit_code=3)),
    ]
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log(records))
    (window,) = read(path)
    assert window.printed == [
        runlog.Printed(1, "stdout", 1_700_000_000.5, "hi"),
        runlog.Printed(2, "stderr", None, "oh"),
    ]
    assert [(e.rows_before, e.name) for e in window.events] == [(0, "run"), (2, "exit")]
    assert window.events[0].message.run_id == "r"
    assert window.events[1].message.exit_code == 3


def test_summaries_are_told_apart(tmp_path: Path, way: str) -> None:
    """What a user sets, and the one summary of an old SDK, are events; what wandb-core derives per row is skipped."""
    update = [pb.SummaryItem(key="best", value_json="1")]
    records = [
        lw.record("core", 1, summary=pb.SummaryRecord(update=update)),
        lw.record("core", 1, summary=pb.SummaryRecord(update=[pb.SummaryItem(nested_key=["a", "b"], value_json="1")])),
        lw.derived_summary(2, {("_wandb", "runtime"): "0"}),
        lw.derived_summary(3, {("x" * 200,): "0"}),
        lw.record_without_info(4, pb.SummaryRecord(update=update)),
        lw.record("old", 0, summary=pb.SummaryRecord(update=update)),
        lw.record_without_info(5, pb.SummaryRecord(remove=update)),
        lw.record_without_info(6, pb.SummaryRecord()),
    ]
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log(records))
    (window,) = read(path)
    assert [len(event.message.update) for event in window.events] == [1, 1, 1, 1, 0, 0]


# ------------------------------------------------------------------------------------------ torn, damaged, replaced

FILLER = lw.record("core", 1, output_raw=pb.OutputRawRecord(line="x" * (lw.BLOCK - 500)))
SMALL = [FILLER, *(lw.record("core", i, history=lw.history("core", lw.row(i, loss=i / 7), i)) for i in range(8))]


@pytest.mark.parametrize("base", [0, 7])
def test_torn_at_every_byte_then_resumed(tmp_path: Path, base: int, way: str) -> None:
    """A prefix of the file gives a prefix of the rows, without a gap; going on from there gives the rest, once."""
    whole = lw.log(SMALL, base)
    want = expected(SMALL)
    path = tmp_path / "run-x.wandb"
    for cut in range(len(whole) - 900, len(whole) + 1):
        path.write_bytes(whole[:cut])
        before = read(path)
        got = all_logged(before)
        assert got == want[: len(got)]
        path.write_bytes(whole)
        after = read(path, before[-1].position if before else None)
        assert got + all_logged(after) == want
        assert not any(window.gaps for window in before + after)


def test_resume_from_every_window(tmp_path: Path, way: str) -> None:
    records = [lw.record("python", i, history=lw.history("python", lw.row(i, loss=i / 7), i)) for i in range(1200)]
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log(records))
    windows = read(path, size=9000)
    assert len(windows) > 10
    want = expected(records)
    seen = 0
    for window in windows:
        seen += len(window.history.steps)
        assert all_logged(read(path, window.position, size=1 << 20)) == want[seen:]
    assert seen == len(want)
    assert read(path, windows[-1].position) == []


@pytest.mark.parametrize("base", [0, 7])
def test_damage_costs_what_it_hits_and_is_told(tmp_path: Path, base: int, way: str) -> None:
    """Flip bytes anywhere: no crash, no wrong value, and rows are missing only where a gap says so, or at the end."""
    records = [
        lw.record("core", i, history=lw.history("core", lw.row(i, loss=i / 7, text="x" * (i % 90)), i))
        for i in range(500)
    ]
    whole = lw.log(records, base)
    want = dict(expected(records))
    path = tmp_path / "run-x.wandb"
    rng = random.Random(base)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3, 30])):
            at = rng.randrange(7, len(whole))
            size = rng.choice([1, 1, 200])
            damaged[at : at + size] = rng.randbytes(rng.choice([size, size, size, 1]))
        path.write_bytes(damaged)
        windows = read(path)
        rows = all_logged(windows)
        assert all(same(want[step], cells) for step, cells in rows)
        steps = [step for step, _ in rows]
        assert steps == sorted(set(steps))
        gaps = [gap for window in windows for gap in window.gaps]
        assert all(a.end <= b.start for a, b in pairwise(gaps)) and all(g.start < g.end for g in gaps)
        if not gaps:
            assert steps == list(range(len(steps)))


def test_damage_in_one_record_costs_only_that(tmp_path: Path, way: str) -> None:
    records = [lw.record("core", i, history=lw.history("core", lw.row(i), i)) for i in range(9)]
    whole = lw.log(records)
    at = whole.index(records[4])
    path = tmp_path / "run-x.wandb"
    path.write_bytes(whole[: at + 20] + b"!" + whole[at + 21 :])
    (first, second) = read(path)
    assert [step for step, _ in all_logged([first, second])] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert second.gaps == (runlog.Gap(at - 7, at + len(records[4]), "wrong checksum"),)


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xff\xff",
        lw.record("core", 2, history=b"\x0a\xff"),
        # its item says it goes on where the next record starts
        lw.record("core", 2, history=lw.history("core", [(("x",), "1.25")], None)[:-1]),
        lw.record("core", 3, exit=b"\x08"),
        lw.record("core", 3, output_raw=b"\x0a"),
    ],
)
def test_a_record_that_is_no_message_is_a_gap(tmp_path: Path, way: str, junk: bytes) -> None:
    good = lw.record("core", 1, history=lw.history("core", lw.row(1), 1))
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log([good, junk, good]))
    (window,) = read(path)
    assert len(window.history.steps) == 2
    start = 7 + 7 + len(good)
    assert window.gaps == (runlog.Gap(start, start + 7 + len(junk), "not a record"),)


def test_zeros_at_the_end_are_a_tail_and_in_the_middle_a_gap(tmp_path: Path, way: str) -> None:
    records = [lw.record("core", i, history=lw.history("core", lw.row(i), i)) for i in range(2000)]
    whole = lw.log(records)
    path = tmp_path / "run-x.wandb"
    cut = 3 * lw.BLOCK + 1234
    path.write_bytes(whole[:cut] + bytes(lw.BLOCK))
    before = read(path)
    assert not any(window.gaps for window in before)
    path.write_bytes(whole)
    assert all_logged(before + read(path, before[-1].position)) == expected(records)
    path.write_bytes(whole[:cut] + bytes(100) + whole[cut + 100 :])
    windows = read(path)
    assert [gap.start < cut < gap.end <= 4 * lw.BLOCK + 200 for window in windows for gap in window.gaps] == [True]


def test_a_record_of_25_megabytes(tmp_path: Path, way: str) -> None:
    cells = [*lw.row(1), (("text",), json.dumps("y" * (25 << 20)))]
    records = [
        lw.record("core", 1, history=lw.history("core", lw.row(0), 0)),
        lw.record("core", 2, history=lw.history("core", cells, 1)),
        lw.record("core", 3, history=lw.history("core", lw.row(2), 2)),
    ]
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log(records))
    rows = all_logged(read(path, size=2 << 20))
    assert [step for step, _ in rows] == [0, 1, 2]
    assert rows[1][1]["text",] == "y" * (25 << 20)


def test_read_while_a_job_writes(tmp_path: Path, way: str) -> None:
    """Written in pieces that end anywhere, read again and again: every row arrives, once and whole."""
    records = [lw.record("core", i, history=lw.history("core", lw.row(i, loss=i / 7), i)) for i in range(1500)]
    whole = lw.log(records)
    path = tmp_path / "run-x.wandb"
    path.write_bytes(b"")
    done = threading.Event()

    def write() -> None:
        rng = random.Random(1)
        at = 0
        with open(path, "ab", buffering=0) as file:
            while at < len(whole):
                size = rng.choice([3, 50, 4096, 9000])
                file.write(whole[at : at + size])
                at += size
                time.sleep(0.001)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    windows: list[runlog.Window] = []
    last = False
    while True:
        try:
            windows += read(path, windows[-1].position if windows else None)
        except EmptyLog:
            assert not windows
        if last:
            break
        last = done.is_set()
    writer.join()
    assert all_logged(windows) == expected(records)
    assert not any(window.gaps for window in windows)


def test_files_that_are_no_log(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    for content, error in [
        (b"", EmptyLog),
        (lw.MAGIC[:3], EmptyLog),
        (lw.MAGIC[:6], EmptyLog),
        (b":W&C", NotALog),
        (b"PK\x03\x04 something else", NotALog),
        (lw.MAGIC[:6] + b"\1" + b"rest", NewerLog),
    ]:
        path.write_bytes(content)
        with pytest.raises(error, match="run-x"):
            read(path)
        with pytest.raises(error):
            runlog.head(path)
    path.write_bytes(lw.MAGIC)
    assert read(path) == []
    with pytest.raises(EmptyLog):
        runlog.head(path)
    with pytest.raises(LogError, match=r"cannot read .*absent"):
        read(tmp_path / "absent.wandb")
    with pytest.raises(LogError, match="cannot read"):
        read(tmp_path)


def test_another_file_in_its_place_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(lw.log(SMALL))
    position = read(path)[-1].position
    for other in (
        lw.log(SMALL[:-3]),
        lw.log([SMALL[3], *SMALL]),
        lw.log([FILLER.replace(b"xx", b"yy"), *reversed(SMALL[1:])]),
    ):
        path.write_bytes(other)
        with pytest.raises(ReplacedLog, match="run-x"):
            read(path, position)


# ------------------------------------------------------------------------------------------------------------- head


def run_record(**fields: Any) -> bytes:
    run = pb.RunRecord(run_id="abc", **fields)
    run.start_time.FromMilliseconds(1_700_000_000_250)
    return lw.record("core", 2, run=run)


def test_head(tmp_path: Path) -> None:
    header = lw.record("core", 1, header=pb.HeaderRecord(version_info=pb.VersionInfo(producer="0.31.0")))
    run = pb.RunRecord(run_id="abc", entity="me", project="demo", display_name="calm-sea-1")
    run.start_time.FromMilliseconds(1_700_000_000_250)
    run.telemetry.feature.offline = True
    run.branch_point.run, run.branch_point.value = "parent", 41
    path = tmp_path / "run-abc.wandb"
    path.write_bytes(lw.log([header, lw.record("core", 2, run=run), *SMALL]))
    head = runlog.head(path)
    assert head == runlog.Head("abc", "me", "demo", "calm-sea-1", 1_700_000_000.25, ("parent", 41), True, head.key)
    path.write_bytes(lw.log([header, lw.record("core", 2, run=run)]))
    assert runlog.head(path).key == head.key, "a shorter copy of the same log"
    run.start_time.FromMilliseconds(1_700_000_000_251)
    path.write_bytes(lw.log([header, lw.record("core", 2, run=run)]))
    assert runlog.head(path).key != head.key, "the log of a resumed run"


def test_head_of_an_old_and_of_a_headless_log(tmp_path: Path) -> None:
    run = pb.RunRecord(run_id="abc")
    path = tmp_path / "run-xyz.wandb"
    path.write_bytes(lw.log([lw.record("old", 0, header=pb.HeaderRecord()), lw.record("old", 0, run=run)]))
    assert (runlog.head(path).run_id, runlog.head(path).start_time) == ("abc", None)
    path.write_bytes(lw.log(SMALL))
    assert (runlog.head(path).run_id, runlog.head(path).project) == ("xyz", "")


# --------------------------------------------------------------------------------------------------------- real SDK

JOB = """
    import math, sys, wandb
    run = wandb.init(project="demo", dir=sys.argv[1], mode="offline", config={"lr": 0.1}, id="real1", name="calm")
    run.define_metric("acc", summary="max")
    for i in range(400):
        run.log({"loss": 1 / (i + 1), "acc": i, "d": {"a": {"b": i / 3}}, "dot.ted": i, "nan": math.nan,
                 "inf": math.inf, "none": None, "yes": True, "text": "hü", "list": [1, 2.5], "big": 2**60, "empty": {}})
        print("line", i)
    run.log({"h": wandb.Histogram(np_histogram=([1, 2], [0.5, 1, 2]))})
    run.summary["best"] = 3.5
    run.config.update({"late": 1})
    run.finish(exit_code=3)
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("real")
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(JOB), str(where)],
        check=True,
        capture_output=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "HOME": str(where), "WANDB_SILENT": "true"},
    )
    (path,) = where.glob("wandb/offline-run-*/run-*.wandb")
    return path


def test_a_log_of_the_real_sdk(real: Path, way: str) -> None:
    windows = read(real, size=1 << 17)
    rows = all_logged(windows)
    assert [step for step, _ in rows] == list(range(401))
    for i, (_, row) in enumerate(rows[:-1]):
        clock = {path: row.pop(path) for path in [("_timestamp",), ("_runtime",)]}
        assert all(isinstance(value, float) for value in clock.values())
        want = {
            ("loss",): 1 if i == 0 else 1 / (i + 1), ("acc",): i, ("d", "a", "b"): i // 3 if i % 3 == 0 else i / 3,
            ("dot.ted",): i, ("nan",): math.nan, ("inf",): math.inf, ("none",): None, ("yes",): True,
            ("text",): "hü", ("list",): [1, 2.5], ("big",): 2**60,
        }  # fmt: skip
        assert same(row, want)
    assert rows[-1][1]["h",] == {"_type": "histogram", "values": [1, 2], "bins": [0.5, 1, 2]}
    printed = "".join(piece.text for window in windows for piece in window.printed if piece.stream == "stdout")
    assert "".join(f"line {i}\n" for i in range(400)) in printed
    events = [event for window in windows for event in window.events]
    summaries = [(item.key, item.value_json) for e in events if e.name == "summary" for item in e.message.update]
    assert ("best", "3.5") in summaries
    assert all(key == "best" for key, _ in summaries), "what wandb-core derives is skipped"
    assert {"header", "run", "config", "metric", "exit"} <= {event.name for event in events}
    assert next(e for e in events if e.name == "exit").message.exit_code == 3
    head = runlog.head(real)
    assert (head.run_id, head.project, head.display_name, head.offline) == ("real1", "demo", "calm", True)
    assert head.start_time is not None
