"""Exports and live rows as one history: whatever comes in whatever pieces, each logged value is there once."""

from __future__ import annotations

import base64
import io
import json
import math
import random
import subprocess
import sys
import tempfile
import tracemalloc
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cells import Cell, cells, expected, from_wire, leaves
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shell import without_wandb
from wandb_server import Server
from wandb_server.history import wire, wire_json
from wandb_server.logged import ROWS

from wandbsync.errors import BadExport
from wandbsync.model import CONSOLE, HISTORY, SYSTEM, Columns, Kind, logged, show_path
from wandbsync.sources import local
from wandbsync.sources.api import exports
from wandbsync.sources.api import history as history_module
from wandbsync.sources.api.history import History, assemble
from wandbsync.sources.api.record import unix
from wandbsync.sources.api.rows import ConsoleLine, console_columns, event_columns
from wandbsync.sources.api.texts import json_texts
from wandbsync.sources.keys import Keys

Row = dict[str, Any]
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
FOLDER = Path(__file__).parent / "wandb_server"
current_sdk = pytest.mark.skipif(
    tuple(map(int, version("wandb").split(".")[:2])) < (0, 31), reason="the SDK is compared with as of wandb 0.31"
)


def file(folder: Path, columns: Mapping[str, Any] | pa.Table, name: str = "export", **how: Any) -> Path:
    """Write an export."""
    path = folder / f"{name}.parquet"
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(dict(columns)), path, **how)
    return path


def read(
    files: Sequence[Path], live: Sequence[Row] = (), keys: Keys | None = None, count: int | None = None, **how: Any
) -> tuple[History, list[Columns]]:
    """A history and its batches, with what must be true of all."""
    history = assemble(files, live, Keys() if keys is None else keys, count=count, **how)
    batches = list(history.batches())
    assert history.rows == len(history.steps) == sum(columns.rows for columns in batches)
    assert [columns.rows for columns in batches[1:]] == [0] * len(batches[1:])
    assert history.steps.dtype == np.int64
    assert (np.diff(history.steps) >= 0).all()
    names = [name for columns in batches for name in columns.names]
    assert len(names) == len(set(names)), "a key is in two batches"
    for columns in batches:
        for key in set(columns.key.tolist()):
            assert (np.diff(columns.step[columns.key == key]) >= 0).all()
    return history, batches


def values(batches: Sequence[Columns]) -> dict[str, list[tuple[int, Any]]]:
    """key -> (step, what was logged) in order."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for columns in batches:
        texts = [None] * len(columns) if columns.text is None else columns.text.to_pylist()
        rows = zip(
            columns.key.tolist(), columns.step.tolist(), columns.kind.tolist(), columns.value, texts, strict=True
        )
        for key, step, kind, value, text in rows:
            found.setdefault(columns.names[key], []).append((step, logged(kind, float(value), text)))
    return found


def by_key(found: Sequence[Cell]) -> dict[str, list[Cell]]:
    grouped: dict[str, list[Cell]] = {}
    for cell in found:
        grouped.setdefault(cell[0], []).append(cell)
    return grouped


# Any run in any pieces

FLOATS = st.one_of(st.floats(), st.integers(-3, 3).map(float), st.sampled_from([-0.0, 1e22, 2.0**53, 5e-324]))
WORDS = st.text(st.characters(codec="utf-8"), max_size=4).filter(lambda text: text not in ("NaN", "Infinity"))
BIG = st.integers(0, 2**64 - 1)
FLOAT, TEXT = pa.float64(), pa.string()
VIEW = pa.string_view() if int(pa.__version__.split(".")[0]) > 21 else TEXT  # older ones do not write it


@dataclass
class Kept:
    """A kind of column: the values it may have, and the types that an export may give it."""

    values: st.SearchStrategy[Any]
    types: Sequence[pa.DataType]


def columns_of(*types: pa.DataType, of: st.SearchStrategy[Any]) -> Kept:
    return Kept(of, types)


MEDIA = pa.struct(
    [("_type", TEXT), ("bins", pa.list_(FLOAT)), ("size", pa.int64()), ("of", pa.struct([("x", TEXT), ("y", FLOAT)]))]
)
NESTED = pa.struct([("b", FLOAT), ("c", pa.struct([("d", TEXT), ("e", pa.bool_())]))])
EITHER = pa.struct([("_type", TEXT), ("b", FLOAT), ("l", pa.list_(pa.int64()))])
KINDS = {
    "double": columns_of(FLOAT, of=FLOATS),
    "half": columns_of(pa.float32(), FLOAT, of=st.floats(width=32)),
    "int": columns_of(pa.int64(), of=st.sampled_from([0, -1, 2**53, -(2**53)]) | BIG.map(lambda n: n - 2**63)),
    "small": columns_of(pa.int8(), pa.int64(), pa.uint16(), FLOAT, pa.int32(), of=st.integers(0, 100)),
    "unsigned": columns_of(pa.uint64(), of=BIG),
    "flag": columns_of(pa.bool_(), of=st.booleans()),
    "text": columns_of(
        TEXT, pa.large_string(), VIEW, pa.dictionary(pa.int32(), TEXT), of=WORDS.map(lambda text: "t" + text)
    ),
    "list": columns_of(pa.list_(FLOAT), pa.large_list(FLOAT), of=st.lists(st.none() | FLOATS, max_size=3)),
    "words": columns_of(pa.list_(TEXT), pa.list_(VIEW), of=st.lists(WORDS, max_size=2)),
    "lists": columns_of(
        pa.list_(pa.list_(pa.int64())), of=st.lists(st.lists(st.integers(0, 9), max_size=2), max_size=2)
    ),
    "media": columns_of(
        MEDIA,
        of=st.fixed_dictionaries(
            {"_type": WORDS.map(lambda text: "t" + text)},
            optional={
                "bins": st.lists(FLOATS, max_size=3),
                "size": st.integers(0, 2**60),
                "of": st.fixed_dictionaries({"y": FLOATS}, optional={"x": WORDS}),
            },
        ),
    ),
    "nested": columns_of(
        NESTED,
        of=st.fixed_dictionaries(
            {"b": FLOATS}, optional={"c": st.fixed_dictionaries({"e": st.booleans()}, optional={"d": WORDS})}
        ),
    ),
    "either": columns_of(
        EITHER,
        of=st.fixed_dictionaries({"_type": st.just("t")}, optional={"b": FLOATS})
        | st.fixed_dictionaries({"b": FLOATS}, optional={"l": st.lists(st.integers(0, 3), max_size=2)}),
    ),
    "map": columns_of(pa.map_(TEXT, FLOAT), of=st.dictionaries(WORDS, FLOATS, min_size=1, max_size=2)),
    "none": columns_of(pa.null(), of=st.none()),
}


@dataclass
class Run:
    """Rows as they were logged; None: not. Each is told from all others by its `id`."""

    rows: list[Row]
    files: list[list[int]]  # which rows are in each
    live: list[int]
    seed: int


@st.composite
def runs(draw: st.DrawFn) -> Run:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), unique=True, max_size=6))
    count = draw(st.integers(0, 10))
    step, rows = draw(st.integers(0, 3)), []
    for i in range(count):
        step += draw(st.sampled_from([1, 1, 1, 0, 5, 2**33]))
        row = {"_step": step, "id": i} | {
            kind: draw(KINDS[kind].values) if draw(st.sampled_from([True, True, True, False])) else None
            for kind in kinds
        }
        if draw(st.booleans()):
            row["_timestamp"] = 1.7e9 + i
        rows.append(row)
    files = []
    for _ in range(draw(st.integers(0, 4))):
        low, high = sorted((draw(st.integers(0, count)), draw(st.integers(0, count))))
        order = list(range(low, high))
        files.append(draw(st.permutations(order)) if draw(st.booleans()) else order)
    return Run(rows, files, list(range(draw(st.integers(0, count)), count)), draw(st.integers(0, 2**32)))


def write(run: Run, folder: Path) -> list[Path]:
    chance = random.Random(run.seed)
    paths = []
    for number, lines in enumerate(run.files):
        rows = [run.rows[line] for line in lines]
        steps = pa.array([row["_step"] for row in rows], pa.int64())
        table = {"_step": steps.cast(chance.choice([pa.int64(), pa.float64()]))}
        for name in dict.fromkeys(name for row in rows for name in row if name != "_step"):
            found = [row.get(name) for row in rows]
            if name in KINDS:
                kind = chance.choice(KINDS[name].types)
                if name == "map":
                    found = [value and list(value.items()) for value in found]
                table[name] = pa.array(found, kind)
            else:
                table[name] = pa.array(found)
        names = list(table)
        chance.shuffle(names)
        ordered = {name: table[name] for name in names}
        how = {"row_group_size": chance.choice([1, 3, 100]), "use_dictionary": chance.choice([True, False])}
        paths.append(file(folder, ordered, f"{number}", **how))
    return paths


def sent(value: Any) -> Any:
    """A value as a server's JSON has it."""
    if isinstance(value, float) and value == 0 and math.copysign(1, value) < 0:
        return value
    if isinstance(value, list):
        return [sent(one) for one in value]
    return {name: sent(one) for name, one in value.items()} if isinstance(value, dict) else wire(value)


Place = tuple[int, int]  # of a row: number of the piece, and of the row


def doubles(run: Run, have: set[int]) -> tuple[list[Place], dict[Place, str]]:
    """The rows of all pieces in their order, and those that an earlier piece has: "surely", or one of a pair."""

    def rank(lines: Sequence[int]) -> Any:
        steps = [run.rows[line]["_step"] for line in lines]
        return min(steps), max(steps), len(steps), zlib.crc32(np.array(steps, np.int64).data)

    pieces = [*sorted((lines for lines in run.files if lines), key=rank), run.live]
    new: list[Place] = []
    double: dict[Place, str] = {}
    for number, lines in enumerate(pieces):
        for line in lines:
            row = run.rows[line]
            if row["_step"] in have:
                continue
            new.append((number, line))
            before = [run.rows[other] for piece in pieces[:number] for other in piece]
            before = [other for other in before if other["_step"] == row["_step"]]
            if any(other.get("_timestamp", 0) == row.get("_timestamp") for other in before):
                double[number, line] = "surely"
            elif before:
                double[number, line] = "live" if number == len(pieces) - 1 else "file"
    return new, double


SPARED = [(), ("file",), ("live",), ("file", "live")]


def kept(run: Run, count: int | None, have: set[int]) -> tuple[list[int], int]:
    """The rows to be kept in order of step, and how many duplicates are dropped."""
    new, double = doubles(run, have)
    choices = [{at for at, how in double.items() if how not in spared} for spared in SPARED]
    dropped = next((some for some in choices if len(new) - len(some) == count), set(double))
    found = [line for number, line in new if (number, line) not in dropped]
    return sorted(found, key=lambda line: run.rows[line]["_step"]), len(dropped)


def want(run: Run, lines: Sequence[int]) -> list[Cell]:
    found = []
    for line in lines:
        row = {name: value for name, value in run.rows[line].items() if value is not None}
        found += [expected(show_path(path), row["_step"], value) for path, value in leaves(row)]
    return found


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(runs(), st.sampled_from(SPARED), st.sampled_from([0, 0, 0, 1, -1, None]), st.booleans(), st.data())
def test_any_run_in_any_pieces(
    run: Run, spared: Sequence[str], off: int | None, small: bool, data: st.DataObject
) -> None:
    steps = [row["_step"] for row in run.rows]
    have = set(data.draw(st.lists(st.sampled_from(steps), max_size=5))) if steps else set()
    new, double = doubles(run, have)
    count = None if off is None else len(new) - sum(how not in spared for how in double.values()) + off
    batch = data.draw(st.sampled_from([1, 7, 1000]))
    live = [{name: sent(value) for name, value in run.rows[line].items() if value is not None} for line in run.live]
    with tempfile.TemporaryDirectory() as folder:
        paths = write(run, Path(folder))
        with patch.object(exports, "SMALL", 0 if small else 1 << 20), patch.object(history_module, "READ", 50):
            history, batches = read(paths, live, count=count, have=np.array(sorted(have), np.int64), batch=batch)
    lines, dropped = kept(run, count, have)
    assert values(batches).get("id", []) == [(steps[line], line) for line in lines]
    assert by_key(cells(batches)) == by_key(want(run, lines))
    assert history.steps.tolist() == [steps[line] for line in lines]
    assert history.dropped == dropped
    total = sum(map(len, run.files)) + len(run.live)
    assert history.rows + history.dropped + history.had == total


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(runs(), st.randoms())
def test_the_order_of_the_files_does_not_matter(run: Run, chance: random.Random) -> None:
    for i, row in enumerate(run.rows):
        row["_step"] = 3 * i
    run.files = [sorted(lines) for lines in run.files]
    with tempfile.TemporaryDirectory() as folder:
        paths = write(run, Path(folder))
        first = cells(read(paths)[1])
        chance.shuffle(paths)
        assert sorted(cells(read(paths)[1]), key=repr) == sorted(first, key=repr)


# Duplicates


def numbered(folder: Path, name: str, steps: Sequence[int], tag: int, **more: Any) -> Path:
    return file(folder, {"_step": steps, "x": [100 * tag + i for i in range(len(steps))], **more}, name)


def test_overlapping_files_and_a_live_tail_that_begins_too_early(tmp_path: Path) -> None:
    files = [numbered(tmp_path, "new", [3, 4, 5, 6], 1), numbered(tmp_path, "old", [0, 1, 2, 3, 4], 0)]
    live = [{"_step": step, "x": 200 + step} for step in (5, 6, 7)]
    history, batches = read(files, live, count=8)
    assert (history.rows, history.dropped, history.had) == (8, 4, 0)
    assert [x for _, x in values(batches)["x"]] == [0, 1, 2, 3, 4, 102, 103, 207]
    assert history.names == ["x"]


def test_two_rows_of_one_step_stay_two_and_their_order(tmp_path: Path) -> None:
    assert values(read([numbered(tmp_path, "a", [1, 0, 1, 0], 0)], count=4)[1])["x"] == [(0, 1), (0, 3), (1, 0), (1, 2)]
    live = [{"_step": 2, "x": 1}, {"_step": 2, "x": 2}]
    assert values(read([], live)[1])["x"] == [(2, 1), (2, 2)]


def test_a_pair_that_the_end_of_a_file_has_parted_is_kept_if_the_count_says_so(tmp_path: Path) -> None:
    files = [numbered(tmp_path, "a", [0, 1], 0), numbered(tmp_path, "b", [1, 2], 1)]
    assert read(files, count=4)[0].rows == 4
    assert values(read(files, count=4)[1])["x"] == [(0, 0), (1, 1), (1, 100), (2, 101)]
    for count in (3, None, 5):
        assert read(files, count=count)[0].rows == 3
    live = [{"_step": step, "x": 200 + step} for step in (2, 3)]  # a true duplicate besides
    assert values(read(files, live, count=5)[1])["x"] == [(0, 0), (1, 1), (1, 100), (2, 101), (3, 203)]
    assert read(files, live, count=6)[0].rows == 6
    again = [numbered(tmp_path, "c", [0, 1], 0), numbered(tmp_path, "d", [0, 1, 2], 1)]  # and the pair may be live
    assert values(read(again, live, count=5)[1])["x"] == [(0, 0), (1, 1), (2, 102), (2, 202), (3, 203)]
    one = [numbered(tmp_path, "c", [0, 1], 0)]
    assert values(read(one, [{"_step": 1, "x": 9}], count=3)[1])["x"] == [(0, 0), (1, 1), (1, 9)]


def test_the_same_file_twice_does_not_make_up_for_a_lost_one(tmp_path: Path) -> None:
    """The SDK's own reader gives 100 rows for these 100: 50 twice."""
    whole = {"_step": np.arange(50), "_timestamp": 1.7e9 + np.arange(50), "x": np.arange(50)}
    files = [file(tmp_path, whole, "a"), file(tmp_path, whole, "b")]
    history, _ = read(files, count=100)
    assert (history.rows, history.dropped) == (50, 50)
    assert read(files, count=50)[0].rows == 50


def test_rows_whose_step_the_cache_has_are_left_out(tmp_path: Path) -> None:
    path = numbered(tmp_path, "a", [0, 1, 2, 3, 3], 0)
    live = [{"_step": step, "x": step} for step in (3, 4, 5)]
    history, batches = read([path], live, have=np.array([5, 1, 0], np.int64), count=4)
    assert (history.rows, history.dropped, history.had) == (4, 1, 3)
    assert values(batches)["x"] == [(2, 2), (3, 3), (3, 4), (4, 4)]
    history, batches = read([path], live, have=np.arange(10), count=0)
    assert (history.rows, history.had, batches) == (0, 8, [])
    assert read([path], have=np.empty(0, np.int64))[0].rows == 5


def test_live_rows_have_their_floats(tmp_path: Path) -> None:
    live = [{"_step": 1, "x": "NaN"}, {"_step": 2, "x": "-Infinity"}, {"_step": 3, "x": ["Infinity"]}]
    found = values(read([numbered(tmp_path, "a", [0], 0)], live)[1])["x"]
    assert repr(found) == "[(0, 0), (1, nan), (2, -inf), (3, [inf])]"


def test_batches_can_be_read_twice(tmp_path: Path) -> None:
    history = assemble([numbered(tmp_path, "a", [0, 1], 0)], [{"_step": 2, "y": 1}], Keys(), count=3)
    assert cells(history.batches()) == cells(history.batches())


# Steps


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.string()])
def test_steps_of_any_type(tmp_path: Path, kind: pa.DataType) -> None:
    path = file(tmp_path, {"_step": pa.array([3, 1, 2], pa.int64()).cast(kind), "x": [30.5, 10.5, 20.5]})
    assert values(read([path])[1]) == {"x": [(1, 10.5), (2, 20.5), (3, 30.5)]}


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64()])
def test_rows_without_a_step_go_on_from_the_row_before(tmp_path: Path, kind: pa.DataType) -> None:
    path = file(tmp_path, {"_step": pa.array([None, None, 7, None, 9], kind), "x": [0, 1, 2, 3, 4]})
    assert read([path])[0].steps.tolist() == [0, 1, 7, 8, 9]
    path = file(tmp_path, {"_step": [0.0, math.nan, math.inf, 5.0], "x": [0, 1, 2, 3]})
    assert read([path])[0].steps.tolist() == [0, 1, 2, 5]


def test_large_steps_are_exact(tmp_path: Path) -> None:
    steps = [2**53 + 1, 2**62 + 1]
    assert read([file(tmp_path, {"_step": steps, "x": [1, 2]})])[0].steps.tolist() == steps


def test_nothing_at_all(tmp_path: Path) -> None:
    for files, live in (([], []), ([file(tmp_path, pa.table({}))], []), ([file(tmp_path, {"_step": [], "x": []})], [])):
        history, batches = read(files, live, count=0)
        assert (history.rows, batches, history.names) == (0, [], [])
    history, batches = read([file(tmp_path, {"_step": [0, 1]})], [{"_step": 2}])
    assert (history.rows, len(batches), len(batches[0]), batches[0].rows) == (3, 1, 0, 3)


# What a column may be


def test_a_column_changes_its_type_from_file_to_file(tmp_path: Path) -> None:
    columns = [
        pa.array([1, 2**60], pa.int64()),
        pa.array([0.5, 4.0]),
        pa.array(["word", None]),
        pa.array([None, True]),
        pa.array([None, None], pa.null()),
        pa.array([[1.0], []]),
        pa.array([{"_type": "t", "v": 1}, None]),
        pa.array([{"deep": 1.5}, {"deep": None}]),
        pa.array(["again", "again"]).dictionary_encode(),
    ]
    files = [file(tmp_path, {"_step": [2 * i, 2 * i + 1], "x": column}, str(i)) for i, column in enumerate(columns)]
    found = values(read(files[::-1], [{"_step": 99, "x": {"deep": {"er": 1}}}])[1])
    assert found == {
        "x": [
            (0, 1), (1, 2**60), (2, 0.5), (3, 4), (4, "word"), (7, True), (10, [1]), (11, []),
            (12, {"_type": "t", "v": 1}), (16, "again"), (17, "again"),
        ],
        "x.deep": [(14, 1.5)],
        "x.deep.er": [(99, 1)],
    }  # fmt: skip
    assert [type(value) for _, value in found["x"]][:4] == [int, int, float, int]


def test_row_groups_of_a_column_that_stay_apart(tmp_path: Path) -> None:
    words = pa.array([f"t{i}" for i in range(10)]).dictionary_encode()
    for small in (0, 1 << 20):
        with patch.object(exports, "SMALL", small):
            files = [
                file(tmp_path, {"_step": np.arange(10) + 10 * i, "x": words}, str(i), row_group_size=3) for i in (1, 0)
            ]
            assert values(read(files)[1])["x"] == [(i, f"t{i % 10}") for i in range(20)]


def test_dots_in_a_name_and_nested_names_stay_apart(tmp_path: Path) -> None:
    """Parquet itself spells both the same, and reading "a" brings "a.b" along."""
    table = {"a.b": [1.5], "a": [{"b": 2.5, "c": 3.5}], "_step": [0], "a.b.c": [[1.0]], "": [7], "_step.x": [8]}
    for small in (0, 1 << 20):
        with patch.object(exports, "SMALL", small), patch.object(history_module, "READ", 1):
            found = values(read([file(tmp_path, table)])[1])
        assert found == {
            "a.b": [(0, 1.5)], '["a","b"]': [(0, 2.5)], "a.c": [(0, 3.5)], "a.b.c": [(0, [1])], "": [(0, 7)],
            "_step.x": [(0, 8)],
        }  # fmt: skip


def test_a_server_that_spells_nested_names_with_dots_in_its_exports(tmp_path: Path) -> None:
    path = file(tmp_path, {"_step": [0, 1], "val.acc": [0.5, None], "val.loss": [1.5, 2.5], "lit.eral": [1, 2]})
    live = [{"_step": 2, "val": {"acc": 0.75, "new": 1}, "lit.eral": 3}]
    keys = Keys()
    found = values(read([path], live, keys)[1])
    assert found == {
        "val.acc": [(0, 0.5), (2, 0.75)], "val.loss": [(0, 1.5), (1, 2.5)], "val.new": [(2, 1)],
        "lit.eral": [(0, 1), (1, 2), (2, 3)],
    }  # fmt: skip
    assert set(keys.names.values()) == found.keys()
    later = Keys({"val.acc": ("val.acc",), "lit.eral": ("lit", "eral")})
    assert values(read([path], live, later)[1]).keys() == found.keys()
    both = [{"_step": 2, "val": {"acc": 1}, "val.acc": 2}]
    found = values(read([path], both)[1])
    assert (found["val.acc"], found['["val","acc"]']) == ([(0, 0.5), (2, 2)], [(2, 1)])


def test_a_struct_without_anything_in_it_is_nothing(tmp_path: Path) -> None:
    kind = pa.struct([("a", FLOAT), ("b", pa.struct([("c", FLOAT)]))])
    column = pa.array([{"a": None, "b": None}, None, {"a": None, "b": {"c": None}}, {"a": 1.5}], kind)
    empty = pa.array([[], None, None, [("k", None)]], pa.map_(TEXT, FLOAT))
    assert values(read([file(tmp_path, {"_step": range(4), "x": column, "m": empty})])[1]) == {"x.a": [(3, 1.5)]}


def test_odd_types_are_texts_rather_than_errors(tmp_path: Path) -> None:
    from datetime import datetime
    from decimal import Decimal

    table = pa.table(
        {
            "_step": [0, 1],
            "binary": pa.array([b"caf\xc3\xa9", b"\xff"], pa.binary()),
            "fixed": pa.array([b"ab", None], pa.binary(2)),
            "decimal": pa.array([Decimal("1.50"), None]),
            "time": pa.array([datetime(2024, 1, 2), None]),
            "map": pa.array([[(1, "x")], None], pa.map_(pa.int64(), TEXT)),
            "list": pa.array([[datetime(2024, 1, 2)], [None]]),
            "bytes": pa.array([[b"x"], []], pa.list_(pa.binary())),
        }
    )
    assert values(read([file(tmp_path, table)])[1]) == {
        "binary": [(0, "café"), (1, "\ufffd")],
        "fixed": [(0, "ab")],
        "decimal": [(0, "1.50")],
        "time": [(0, "2024-01-02 00:00:00")],
        "map.1": [(0, "x")],
        "list": [(0, ["2024-01-02 00:00:00"]), (1, [None])],
        "bytes": [(0, ["x"]), (1, [])],
    }


def test_texts_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    texts = {
        "formatted": ["0.50", "1.25"],
        "numbers": ["1", "2"],
        "objects": ['{"a": 1}', '{"a": 2, "b": 3}'],
        "lists": ["[1, 2]", "[]"],
        "quoted": ['"a"', '"b"'],
        "truths": ["true", "false"],
        "nothing": ["null", "null"],
        "something": ["null", '[1, "a"]'],
        "mixed but not JSON": ["1", "two"],
        "spaces": [" ", ""],
    }
    found = values(read([file(tmp_path, {"_step": [0, 1], **texts})])[1])
    assert found == {name: list(enumerate(some)) for name, some in texts.items()}


def test_words_for_floats_are_floats_as_in_live_rows(tmp_path: Path) -> None:
    """A column of a run whose loss has diverged holds nothing else, and another file of the same run has doubles."""
    files = [
        file(tmp_path, {"_step": [0, 1], "loss": [0.5, 1.0]}, "a"),
        file(tmp_path, {"_step": [2, 3], "loss": ["NaN", "Infinity"], "all": [["-Infinity", "x"], []]}, "b"),
    ]
    found = values(read(files)[1])
    assert str(found["loss"]) == "[(0, 0.5), (1, 1), (2, nan), (3, inf)]"
    assert found["all"] == [(2, [-math.inf, "x"]), (3, [])]


# Of five rows with one key each: the same values as W&B spells them in its exports
SPELLED: dict[str, tuple[list[Any], Any]] = {
    "a union": (
        [0.5, "bad", True, [1, "x"], {"_type": "t", "v": 1}],
        pa.StructArray.from_arrays(
            [
                pa.array([None] * 4 + [{"_type": "t", "v": 1.0}]),
                pa.array([0.5] + [None] * 4),
                pa.array([None, "bad", None, None, None]),
                pa.array([None, None, True, None, None]),
                pa.array([None] * 3 + [[{"_type_float64": 1.0}, {"_type_utf8": "x"}]] + [None]),
            ],
            ["_type_struct", "_type_float64", "_type_utf8", "_type_bool", "_type_list"],
        ),
    ),
    "a union whose structs are no nulls": (
        [0.5, {"v": 1.0}, 2, {"v": 3}, "x"],
        pa.StructArray.from_arrays(
            [
                pa.array([{"v": None}, {"v": 1.0}, {"v": None}, {"v": 3.0}, {"v": None}]),
                pa.array([0.5, None, 2.0, None, None]),
                pa.array([None] * 4 + ["x"]),
            ],
            ["_type_struct", "_type_float64", "_type_utf8"],
        ),
    ),
    "numbers that are none": (
        [math.nan, 0.5, -math.inf, None, "NaN of sorts"],
        pa.StructArray.from_arrays(
            [
                pa.array([None, 0.5, None, None, None]),
                pa.array(["NaN", None, "-Infinity", None, "NaN of sorts"]),
            ],
            ["_type_float64", "_type_utf8"],
        ),
    ),
    "serialized JSON": (
        [1.5, "1.5", {"deep": {"er": 2}}, [{"a": 1}, "x"], {"_type": "image-file", "path": "a.png"}],
        pa.array(
            [b"1.5", b'"1.5"', b'{"deep": {"er": 2}}', b'[{"a": 1}, "x"]', b'{"_type": "image-file", "path": "a.png"}']
        ),
    ),
    "a union with serialized JSON": (
        [1.5, {}, None, [1], "x"],
        pa.StructArray.from_arrays(
            [pa.array([1.5] + [None] * 4), pa.array([None, b"{}", None, b"[1]", b'"x"'])],
            ["_type_float64", "_type_binary"],
        ),
    ),
    "texts": (["1", "null", '"q"', "", "[1]"], pa.array(["1", "null", '"q"', "", "[1]"])),
    "a dictionary": (["a", "b", "a", None, "b"], pa.array(["a", "b", "a", None, "b"]).dictionary_encode()),
}


@pytest.mark.parametrize("name", SPELLED)
@pytest.mark.parametrize("parts", [1, 5])
def test_every_spelling_of_w_and_b_s_exports(tmp_path: Path, name: str, parts: int) -> None:
    """What is live comes as JSON, what is exported as this: the same values under the same key."""
    logged_values, column = SPELLED[name]
    whole = pa.table({"_step": np.arange(5.0), "m": column})
    files = [file(tmp_path, whole.slice(i * 5 // parts, 5 // parts), str(i)) for i in range(parts)]
    live = [{"_step": i, "m": wire(value)} for i, value in enumerate(logged_values) if value is not None]
    found, wanted = cells(read(files, mixed={"m"} if name == "serialized JSON" else ())[1]), cells(read([], live)[1])
    assert sorted(found, key=repr) == sorted(wanted, key=repr)


def test_half_of_a_key_is_a_union_and_half_is_live(tmp_path: Path) -> None:
    column = SPELLED["a union"][1].slice(0, 2)
    found = values(read([file(tmp_path, {"_step": [0.0, 1.0], "m": column})], [{"_step": 2.0, "m": 1.5}])[1])
    assert found == {"m": [(0, 0.5), (1, "bad"), (2, 1.5)]}


def test_json_in_texts_of_older_exports_is_what_it_spells(tmp_path: Path) -> None:
    """Where the server counts values of other types under the key."""
    columns = {
        "mixed": [1, "two", 2.5, None],
        "truth": [True, 2, None, False],
        "empty": [{}, None, {}, {}],
        "list": [[1, "a", None], [2, 3], None, []],
        "dict": [{"a": 1, "b": {"c": math.nan}}, {"a": "x", "b": None}, {"b": {"c": 2}}, None],
        "big": [2**70, 1, None, None],
        "media": [{"_type": "t", "v": [1, "a"]}, {"_type": "t"}, {"_type": "u", "v": 1}, None],
        "plain media": [{"_type": "t", "v": 1}, None, {"_type": "t", "v": 2}, None],
    }
    table = {name: [None if one is None else json.dumps(one) for one in some] for name, some in columns.items()}
    whole = pa.table({"_step": range(4), **table})
    parts = [file(tmp_path, whole.slice(i, 1), str(i)) for i in range(4)]
    rows = [{name: some[i] for name, some in columns.items() if some[i] is not None} for i in range(4)]
    wanted = [expected(show_path(path), i, value) for i, row in enumerate(rows) for path, value in leaves(row)]
    for files in ([file(tmp_path, whole)], parts):
        assert by_key(cells(read(files, mixed=columns)[1])) == by_key(wanted)


def test_what_the_server_counts_settles_what_a_text_is(tmp_path: Path) -> None:
    table = {
        "_step": [0, 1],
        "number": ["0.5", "2"],
        "text": ["0.5", "2"],
        "word": ["a", "2"],
        "dict": ['{"a": 1}'] * 2,
    }
    found = values(read([file(tmp_path, table)], mixed={"number", "word", "dict"})[1])
    assert found == {
        "number": [(0, 0.5), (1, 2)], "text": [(0, "0.5"), (1, "2")], "word": [(0, "a"), (1, 2)],
        "dict.a": [(0, 1), (1, 1)],
    }  # fmt: skip


def test_json_texts_to_the_letter() -> None:
    inner = pa.struct([("b", pa.int64()), ("a", pa.list_(FLOAT)), ("n", FLOAT)])
    kind = pa.struct(
        [
            ("z", pa.list_(FLOAT)),
            ("_type", TEXT),
            ("A", pa.struct([("x", pa.struct([("y", pa.bool_())]))])),
            ("l", pa.list_(inner)),
        ]
    )
    array = pa.array(
        [
            {"z": [1.0, 0.5, None, math.nan, -math.inf, math.inf, -0.0, 1e22], "_type": "h", "A": {"x": {"y": None}}},
            None,
            {"z": None, "_type": 'ü "q"\n\x01', "A": {"x": {"y": True}}, "l": [{"b": 1, "a": [], "n": None}, {}, None]},
        ],
        kind,
    )
    texts = [
        '{"_type": "h", "z": [1,0.5,null,NaN,-Infinity,Infinity,-0,1e+22]}',
        None,
        '{"_type": "ü \\"q\\"\\n\\u0001", "A": {"x": {"y": true}}, "l": [{"b":1,"a":[]},{},null]}',
    ]
    assert json_texts(array).to_pylist() == texts
    assert json_texts(array.slice(1)).to_pylist() == texts[1:]
    assert json_texts(array.slice(3)).to_pylist() == []
    for text in ("", "\x00", "\x01", "\n", "\\", '"', "\x7f", "ü"):
        assert json_texts(pa.array([text])).to_pylist() == [json.dumps(text, ensure_ascii=False)]
    pairs = pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2))
    assert json_texts(pairs.slice(1)).to_pylist() == [None, "[3,null]"]
    assert json_texts(pa.array([[b"\xff\\"], []])).to_pylist() == ['["\ufffd\\\\"]', "[]"]


JSON = st.recursive(
    st.none() | st.booleans() | FLOATS | st.integers(-(2**63), 2**63 - 1) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abü_ ", max_size=2), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(JSON, max_size=4), st.integers(0, 3), st.integers(0, 3))
def test_json_texts_of_any_array(found: list[Any], start: int, stop: int) -> None:
    try:
        array = pa.array(found)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return
    array = array.slice(start, stop)

    def without(value: Any, *, top: bool = True) -> Any:
        if isinstance(value, list):
            return [without(one) for one in value]
        if isinstance(value, dict):
            members = {name: without(one) for name, one in value.items()}
            return {name: one for name, one in members.items() if one is not None and one != {}}
        return value

    texts = json_texts(array)
    assert len(texts) == len(array)
    for text, value in zip(texts.to_pylist(), array.to_pylist(), strict=True):
        if value is None:
            assert text is None
        else:
            assert expected("x", 0, [json.loads(text)]) == expected("x", 0, [without(value)])


# Damage


def test_files_that_are_no_exports(tmp_path: Path) -> None:
    good = file(tmp_path, {"_step": np.arange(100), "x": np.arange(100) / 7, "t": ["text"] * 100}).read_bytes()
    path = tmp_path / "export.parquet"
    for bad in (b"", b"PAR1", b"<html>sign in</html>", good[:-1], good[: len(good) // 2], good[:50] + good[60:]):
        path.write_bytes(bad)
        with pytest.raises(BadExport, match=r"the file export\.parquet of the exported history cannot be read: "):
            read([path])
    path.unlink()
    with pytest.raises(BadExport):
        read([path])
    with pytest.raises(BadExport, match="has no _step"):
        read([file(tmp_path, {"x": [1, 2]})])
    with pytest.raises(BadExport):
        read([file(tmp_path, {"_step": ["one", "two"]})])


def test_damage_never_goes_further_than_an_error(tmp_path: Path) -> None:
    table = pa.table(
        {
            "_step": np.arange(50),
            "x": np.arange(50) / 7,
            "t": [f"text {i}" for i in range(50)],
            "h": [{"_type": "histogram", "bins": [1.5, 2.0], "values": [1]}] * 50,
            "n": [{"a": {"b": i}} for i in range(50)],
            "m": pa.array([[("k", 1.5)]] * 50, pa.map_(TEXT, FLOAT)),
        }
    )
    good = file(tmp_path, table, row_group_size=20).read_bytes()
    chance = random.Random(0)
    path = tmp_path / "damaged.parquet"
    outcomes: Counter[str] = Counter()
    for number in range(300):
        bad = bytearray(good)
        for _ in range(chance.choice([1, 1, 3])):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        path.write_bytes(bad)
        with patch.object(exports, "SMALL", number % 2 << 20):
            try:
                read([path])
                outcomes["read"] += 1
            except BadExport:
                outcomes["bad"] += 1
    assert outcomes["bad"] > 50


def test_a_file_that_goes_bad_while_it_is_read(tmp_path: Path) -> None:
    path = file(tmp_path, {"_step": np.arange(1000), **{f"m{i}": np.arange(1000) / 7 for i in range(5)}})
    with patch.object(exports, "SMALL", 0), patch.object(history_module, "READ", 1):
        history = assemble([path], [], Keys(), count=None, batch=1)
        batches = history.batches()
        next(batches)
        path.write_bytes(b"PAR1")
        with pytest.raises(BadExport):
            list(batches)


# Size


def test_batches_are_about_as_large_as_asked_for(tmp_path: Path) -> None:
    path = file(tmp_path, {"_step": np.arange(1000), **{f"m{i}": np.arange(1000) / 7 for i in range(10)}})
    _, batches = read([path], batch=3000)
    assert [len(columns) for columns in batches] == [3000, 3000, 3000, 1000]
    assert [len(columns) for columns in read([path], batch=1)[1]] == [1000] * 10
    assert [len(columns) for columns in read([path], batch=10**9)[1]] == [10_000]


def test_memory_is_that_of_some_columns_and_not_of_the_file(tmp_path: Path) -> None:
    """20 metrics of 300,000 rows are 48 MB; at no time are more than a few of them in memory."""
    table = {"_step": np.arange(300_000), **{f"m{i}": np.random.default_rng(i).normal(size=300_000) for i in range(20)}}
    path = file(tmp_path, table, use_dictionary=False)
    del table
    history = assemble([path], [], Keys(), count=300_000, batch=300_000)
    before = pa.total_allocated_bytes()
    peak = 0
    with patch.object(history_module, "READ", 5 << 20):
        tracemalloc.start()
        for columns in history.batches():
            assert len(columns) == 300_000
            peak = max(peak, pa.total_allocated_bytes() - before)
        numpy_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 << 20
    assert numpy_peak < 40 << 20


# Real runs

SCRIPT = """
import math, time, wandb
run = wandb.init(project="demo", id="odd", settings=wandb.Settings(silent=True, x_stats_sampling_interval=0.1))
for i in range(300):
    run.log({
        "loss": 1 / (i + 1), "whole": float(i), "special": [math.nan, math.inf, -math.inf, -0.0, 1e22, 5e-324][i % 6],
        "big": 2**53 + 1 + i, "huge": 2**70, "flag": i % 2 == 0, "text": f'{i} "q" ü \\n',
        "number in a text": f"{i:.2f}",
        "nested": {"a": {"b": i / 7, "t": "x"}, "n": i}, "list": [1, 2.5, None], "lists": [[1], [2, 3]],
        "mixed list": [1, "a", None], "mixed": i if i % 2 else f"text {i}", "empty": {}, "none": None,
        "lit.eral": i, "ne.sted": {"lit.eral": -i}, "hist": wandb.Histogram([i, i + 1, i + 1.5]),
        "sometimes": {"v": i} if i % 3 else 5,
    } | ({"rare": i} if i % 100 == 7 else {}), step=3 * i)
run.log({"html": wandb.Html("<b>x</b>"), "table": wandb.Table(columns=["a"], data=[[1], [2]])})
print("a line"); time.sleep(0.4)
run.finish()
"""


def sdk(server: Server, folder: Path, words: Sequence[str], stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env=without_wandb() | server.env_in(folder),
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server to which the SDK has logged `full` and `odd`; tests only change what is exported."""
    folder = tmp_path_factory.mktemp("written")
    with Server() as server:
        sdk(server, folder, [str(FOLDER / "sdk.py"), "full"])
        (folder / "odd.py").write_text(SCRIPT)
        sdk(server, folder, ["odd.py"])
        yield server, folder


def asked(server: Server, run_id: str, fields: str) -> Any:
    """Fields of a run, over HTTP."""
    query = f'query Q {{ project(name: "demo", entityName: "me") {{ run(name: "{run_id}") {{ {fields} }} }} }}'
    token = base64.b64encode(f"api:{server.key}".encode()).decode()
    request = urllib.request.Request(
        server.url + "/graphql", json.dumps({"query": query}).encode(), {"Authorization": f"Basic {token}"}
    )
    with DIRECT.open(request) as answer:
        return json.load(answer)["data"]["project"]["run"]


def fetched(server: Server, folder: Path, run_id: str) -> tuple[list[Path], list[Row], int]:
    """Exports, live rows and the count of rows."""
    page = "history(minStep: 0, maxStep: 100000, samples: 100000)"
    run = asked(server, run_id, f'historyLineCount parquetHistory(liveKeys: ["_step"]) {{ parquetUrls }} {page}')
    paths = []
    for number, url in enumerate(run["parquetHistory"]["parquetUrls"]):
        paths.append(folder / f"got-{number}.parquet")
        with DIRECT.open(url) as answer:
            paths[-1].write_bytes(answer.read())
    return paths, [json.loads(row) for row in run["history"]], run["historyLineCount"]


def locally(folder: Path, run_id: str, stream: str = HISTORY) -> list[Cell]:
    """What the local source makes of the log that the SDK wrote on the way."""
    (log,) = folder.glob(f"wandb/run-*/run-{run_id}.wandb")
    reader = local.LogReader(str(log), local.RunSoFar(), local.LogState())
    return cells([piece.streams[stream] for piece in reader.pieces() if stream in piece.streams])


def same_names(found: list[Cell]) -> dict[str, list[Cell]]:
    """By key, for comparison: which of two equal-looking keys comes first is the reader's luck."""
    names = {"lit.eral": "lit", '["lit.eral"]': "lit", '["lit","eral"]': "lit"}
    renamed = [(names.get(name, name), *rest) for name, *rest in found]
    return by_key(sorted(renamed, key=lambda cell: (cell[0], cell[1], repr(cell))))


@current_sdk
@pytest.mark.parametrize("run_id", ["full", "odd"])
def test_machine_metrics_and_console_are_those_of_the_log(written: tuple[Server, Path], run_id: str) -> None:
    server, folder = written
    run = asked(
        server, run_id, "events(samples: 10000) logLines(last: 100) { edges { node { line level timestamp } } }"
    )
    events = [json.loads(event) for event in run["events"]]
    found = by_key(cells(event_columns(events, 0, Keys())))
    assert len(found.pop("_runtime")) == len(events) > 2
    assert found == by_key(locally(folder, run_id, SYSTEM))
    lines = [
        ConsoleLine(node["line"], unix(node["timestamp"]), node["level"] or "")
        for node in (edge["node"] for edge in run["logLines"]["edges"])
    ]
    shown = [(name, step, kind, text) for name, step, kind, _, text in cells(console_columns(lines, 0))]
    log = [(name, step, kind, text) for name, step, kind, _, text in locally(folder, run_id, CONSOLE)]
    assert shown == log
    assert [text for *_, text in shown] == (["a line", "a bad line"] if run_id == "full" else ["a line"])


STATES: dict[str, dict[str, Any] | None] = {
    "live": None,
    "partly exported": {"upto_step": 600, "files": 3, "shuffle": True},
    "exported": {"files": 2, "row_group_size": 50},
    "exported twice": {"upto_step": 600, "serves": True},
}


def export(server: Server, run_id: str, state: str) -> int:
    """Bring a run into a state; how many rows are exported."""
    run = server.run("me", "demo", run_id)
    how = dict(STATES[state] or {})
    server.history_serves_exported = bool(how.pop("serves", False))
    if STATES[state] is None:
        run.drop_exports()
    else:
        server.export(run, how.pop("upto_step", None), **how)
    return run.exported_lines


@current_sdk
@pytest.mark.parametrize("state", list(STATES))
@pytest.mark.parametrize("run_id", ["full", "odd"])
def test_the_server_and_the_local_log_tell_the_same(
    written: tuple[Server, Path], tmp_path: Path, run_id: str, state: str
) -> None:
    server, folder = written
    exported = export(server, run_id, state)
    files, live, count = fetched(server, tmp_path, run_id)
    assert bool(files) == (exported > 0)
    history, batches = read(files, live, count=count)
    assert history.rows == count
    assert bool(history.dropped) == (state == "exported twice")
    found, log = same_names(cells(batches)), same_names(locally(folder, run_id))
    edge = sorted(history.steps.tolist())[exported - 1] if exported else -1
    for key, rows in log.items():
        # A log has -0.0, which the SDK sends as 0; an export has no nulls, and floats for integers beyond 2**63.
        rows = [row for row in rows if row[2] != Kind.NULL or row[1] > edge]
        if key == "special":
            rows = [("special", step, Kind.INT, bits_of(0.0), None) if v == bits_of(-0.0) else (k, step, kind, v, t)
                    for k, step, kind, v, t in rows]  # fmt: skip
        assert found.get(key, []) == rows, key
    assert found.keys() == log.keys() - ({"none"} if state == "exported" else set())


def bits_of(value: float) -> Any:
    return expected("x", 0, value)[3]


@current_sdk
@pytest.mark.parametrize("state", list(STATES))
def test_the_server_and_scan_history_tell_the_same(written: tuple[Server, Path], tmp_path: Path, state: str) -> None:
    server, _ = written
    exported = export(server, "odd", state)
    files, live, count = fetched(server, tmp_path, "odd")
    _, batches = read(files, live, count=count)
    questions = json.dumps({"run": "api.run('me/demo/odd')", "scan": "list(run.scan_history(use_cache=False))"})
    scan = json.loads(sdk(server, tmp_path, [str(FOLDER / "sdk.py"), "ask"], questions))["scan"]
    if state == "exported twice":  # known to be wrong there: it gives these rows twice
        assert len(scan) == count + exported
        scan = list({row["_step"]: row for row in sorted(scan, key=len)}.values())  # those of the exports
    assert len(scan) == count
    wanted: list[Cell] = []
    for row in scan:
        is_live = row["_step"] > 3 * (exported - 1) if exported else True
        for path, value in leaves({name: one for name, one in row.items() if is_live or one is not None}):
            value = from_wire(value) if is_live else value
            wanted.append(expected(show_path(path), row["_step"], value))
    # Of a column with several types the SDK gives the struct that Parquet has, and of serialized JSON its text.
    beyond_it = ("mixed", "sometimes", "empty", "huge")
    ours, scanned = ([one for one in some if not one[0].startswith(beyond_it)] for some in (cells(batches), wanted))
    assert same_names(ours) == same_names(scanned)


@current_sdk
def test_what_was_logged_is_there(written: tuple[Server, Path], tmp_path: Path) -> None:
    server, _ = written
    for state in STATES:
        export(server, "full", state)
        files, live, count = fetched(server, tmp_path, "full")
        found = values(read(files, live, count=count)[1])
        for key in ("loss", "whole", "odd", "flag", "big", "text", "list", "rare"):
            wanted = [(i, row[key]) for i, row in enumerate(ROWS) if key in row]
            assert json.dumps(found[key]) == json.dumps(wanted) or found[key] == wanted, (state, key)
        assert found["nested.a.b"] == [(i, i / 7) for i in range(2000)]
        assert [step for step, _ in found["hist"]] == [2000]
        assert found["image"][0][1]["_type"] == "image-file"


def test_a_table_of_any_size_with_the_test_server_s_own_writer(tmp_path: Path) -> None:
    with Server() as server:
        rows = [{"x": i / 3, "n": {"a": i}, "t": "x" * (i % 5)} for i in range(500)]
        run = server.add_run("me", "demo", "r", rows, exported=400)
        server.export(run, 399, files=7, shuffle=True, double_steps=True, row_group_size=13)
        paths = []
        for number, one in enumerate(run.exports):
            paths.append(tmp_path / f"{number}.parquet")
            paths[-1].write_bytes(one.data)
            assert pq.read_table(io.BytesIO(one.data)).num_rows
        live = [json.loads(wire_json(row)) for row in run.history.between(0, 1000, from_line=400)]
        history, batches = read(paths, live, count=500)
        assert (history.rows, history.dropped) == (500, 0)
        assert values(batches) == {
            "x": [(i, i / 3) for i in range(500)],
            "n.a": [(i, i) for i in range(500)],
            "t": [(i, "x" * (i % 5)) for i in range(500)],
        }
