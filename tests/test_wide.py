"""Wide histories against the long rows they are made of: every value once, nothing else, in bounded batches."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wandbsync import query
from wandbsync.cache import Cache, Share
from wandbsync.cache.compaction import compact
from wandbsync.cache.eviction import evict
from wandbsync.errors import CacheBusy, NotFound, NothingCached
from wandbsync.model import HISTORY, Columns, Kind, RunRecord, RunRef, logged
from wandbsync.query import wide

REF = RunRef("me", "demo", "r")
RECORD = RunRecord("finished", "api", created_at=1.0)


Calls = list[tuple[int, dict[str, Any]]]  # step, what was logged


def columns(calls: Calls) -> Columns:
    """Log calls as the sources hand them over."""
    rows = [(key, step, value) for step, values in calls for key, value in values.items()]
    names = list(dict.fromkeys(key for key, _, _ in rows))
    kinds, values, texts = [], [], []
    for _, _, value in rows:
        text = None
        if value is None:
            kind, number = Kind.NULL, math.nan
        elif isinstance(value, bool):
            kind, number = Kind.BOOL, float(value)
        elif isinstance(value, int):
            kind, number = (Kind.INT, float(value)) if abs(value) <= 2**53 else (Kind.BIGINT, float(value))
            text = str(value) if kind == Kind.BIGINT else None
        elif isinstance(value, float):
            kind, number = Kind.FLOAT, value
        else:
            kind, number, text = Kind.JSON, math.nan, json.dumps(value)
        kinds.append(kind)
        values.append(number)
        texts.append(text)
    return Columns(
        names,
        np.array([names.index(key) for key, _, _ in rows], np.int32),
        np.array([step for _, step, _ in rows], np.int64),
        np.array(values),
        np.array(kinds, np.uint8),
        pa.array(texts, pa.large_string()),
        len(calls),
    )


def put(cache: Cache, *parts: Calls, ref: RunRef = REF) -> None:
    for part in parts:
        assert cache.commit([Share(ref, cache.revision(ref), RECORD, {HISTORY: [columns(part)]})]) != [None]


def whole(
    cache: Cache, keys: list[str] | None = None, *refs: RunRef, cells: int | None = None, x: str = "_step"
) -> Any:
    refs = refs or (REF,)
    found = wide.columns(cache, refs, keys)
    return pa.Table.from_batches(wide.batches(cache, refs, found, cells=cells, x=x), wide.schema(found, x=x))


def expected(cache: Cache, keys: list[str] | None = None, ref: RunRef = REF) -> list[tuple[int, dict[str, Any]]]:
    """The same by the plainest way there is: (step, values), the nth value of a key at a step in its nth row."""
    cells: dict[tuple[int, int], dict[str, Any]] = defaultdict(dict)
    often: dict[tuple[str, int], int] = defaultdict(int)
    for row in query.history(cache, ref, keys).to_pylist():
        nth = often[row["key"], row["step"]]
        often[row["key"], row["step"]] += 1
        cells[row["step"], nth][row["key"]] = logged(row["kind"], row["value"], row["value_json"])
    return [(step, cells[step, nth]) for step, nth in sorted(cells)]


def same(value: Any, cell: Any, holds: str) -> bool:
    if value is None:
        return cell is None
    if holds == wide.JSON:
        return isinstance(cell, str) and repr(json.loads(cell)) == repr(value)
    if holds == wide.FLOAT:
        return isinstance(cell, float) and (repr(cell) == repr(float(value)))
    if holds == wide.INT:
        return type(cell) is int and cell == value
    return type(cell) is type(value) and cell == value


def check(
    cache: Cache, keys: list[str] | None = None, cells: int | None = None, refs: list[RunRef] | None = None
) -> None:
    refs = refs or [REF]
    holds = {one.key: one.holds for one in wide.columns(cache, refs, keys)}
    table = whole(cache, keys, *refs, cells=cells)
    wanted = [(ref.run_id, *row) for ref in refs for row in expected(cache, keys, ref)]
    assert table.select(["run_id", "_step"]).to_pylist() == [{"run_id": run, "_step": step} for run, step, _ in wanted]
    for (_, _, values), row in zip(wanted, table.to_pylist(), strict=True):
        for key, held in holds.items():
            assert same(values.get(key), row[key], held), (key, values.get(key), row[key])


VALUES = {
    "f": [0.5, math.nan, math.inf, -0.0, 1e300, None],
    "i": [0, -3, 2**53, None],
    "big": [2**60, -(2**63), 5],
    "huge": [2**70, 1],
    "b": [True, False, None],
    "s": ["a", 'q"ü', "back\\slash", "", None],
    "j": [[1, 2], {"a": None}, "text", 1, 0.5, True, None],
    "fi": [1, 2.5, True],
    "none": [None],
}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_history_is_whole(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    refs = [RunRef("me", "demo", name) for name in "abc"[: rng.randint(1, 3)]]
    histories = {ref: _history(rng) for ref in refs}
    with Cache(tmp_path_factory.mktemp("cache")) as cache:
        for number in range(4):
            for ref in refs:
                put(cache, *histories[ref][number : number + 1], ref=ref)
        known = sorted({key for parts in histories.values() for part in parts for _, some in part for key in some})
        check(cache, refs=refs)
        check(cache, refs=refs, cells=1)
        check(cache, rng.sample(known, rng.randint(1, len(known))), refs=refs)
        check(cache, refs=refs[:1])
        compact(cache, everything=True)
        check(cache, refs=refs)


def _history(rng: random.Random) -> list[Calls]:
    parts, step = [], 0
    for _ in range(rng.randint(1, 4)):
        part = []
        for _ in range(rng.randint(1, 12)):
            step += rng.choice([0, 1, 1, 1, 5])
            some = rng.sample(sorted(VALUES), rng.randint(1, len(VALUES)))
            part.append((step, {key: rng.choice(VALUES[key]) for key in some}))
        parts.append(part)
    return parts


def test_types_are_those_of_what_was_logged(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        put(cache, [(i, {key: value}) for key, values in VALUES.items() for i, value in enumerate(values)])
        schema = whole(cache).schema
        kinds = {field.name: str(field.type) for field in schema}
        assert kinds == {
            "run_id": "string", "_step": "int64", "b": "bool", "big": "int64", "f": "double", "fi": "double",
            "huge": "large_string", "i": "int64", "j": "large_string", "none": "null", "s": "large_string",
        }  # fmt: skip
        assert whole(cache, ["huge"]).column("huge").to_pylist() == [str(2**70), "1"]


def test_large_steps_are_read_in_batches_that_do_not_divide_a_step(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(wide, "FEW_ROWS", 3)
    with Cache(tmp_path) as cache:
        put(cache, [(step // 2, {"a": step}) for step in range(40)], [(20, {"b": 1.5}), (21, {"b": 2.5})])
        found = wide.columns(cache, [REF])
        batches = list(wide.batches(cache, [REF], found, cells=2))
        assert len(batches) > 5
        steps = [batch.column("_step").to_pylist() for batch in batches]
        assert all(a[-1] < b[0] for a, b in itertools.pairwise(steps))
        check(cache, cells=2)


def test_a_step_with_more_rows_than_a_batch_is_one_batch(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(wide, "FEW_ROWS", 3)
    with Cache(tmp_path) as cache:
        put(cache, [(0, {"a": 0}), *[(1, {"a": n}) for n in range(9)], (2, {"a": 2})])
        sizes = [batch.num_rows for batch in wide.batches(cache, [REF], wide.columns(cache, [REF]), cells=1)]
        assert sum(sizes) == 11 and 9 <= max(sizes) <= 10
        check(cache, cells=1)


def test_a_run_whose_rows_go_while_it_is_read_is_an_error_not_a_gap(tmp_path: Path, monkeypatch: Any) -> None:
    with Cache(tmp_path) as cache, Cache(tmp_path) as other:
        put(cache, [(step, {"a": step}) for step in range(5)])
        grids = wide.steps

        def steps(*what: Any) -> Any:
            found = grids(*what)
            assert evict(other, REF, other.revision(REF) or 0, elsewhere=True)
            return found

        monkeypatch.setattr(wide, "steps", steps)
        with pytest.raises(CacheBusy, match="rewritten"):
            whole(cache)
        with pytest.raises(NothingCached, match="removed to save space"):
            whole(cache)


def test_several_runs_share_columns(tmp_path: Path) -> None:
    other = RunRef("me", "demo", "other")
    with Cache(tmp_path) as cache:
        put(cache, [(0, {"loss": 1, "own": "x"}), (1, {"loss": 2})])
        put(cache, [(5, {"loss": 0.5, "n": 7})], ref=other)
        table = whole(cache, None, REF, other)
        assert table.to_pylist() == [
            {"run_id": "r", "_step": 0, "loss": 1.0, "n": None, "own": "x"},
            {"run_id": "r", "_step": 1, "loss": 2.0, "n": None, "own": None},
            {"run_id": "other", "_step": 5, "loss": 0.5, "n": 7, "own": None},
        ]
        assert whole(cache, ["n", "loss"], REF, other).column_names == ["run_id", "_step", "n", "loss"]


def test_another_x_axis_keeps_the_rows_that_have_it(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        put(cache, [(0, {"loss": 1.0}), (1, {"loss": 0.5, "epoch": 0})])
        table = whole(cache, ["loss", "epoch"], x="epoch")
        assert table.to_pylist() == [{"run_id": "r", "_step": 1, "epoch": 0, "loss": 0.5}]


def test_a_key_that_no_run_has_names_what_is_like_it(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        put(cache, [(0, {"loss": 1.0})])
        with pytest.raises(NotFound, match="no metric los in me/demo/r") as error:
            whole(cache, ["los"])
        assert "loss" in error.value.hint


def test_json_is_read_when_asked(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        put(cache, [(0, {"l": [1, 2], "mixed": {"a": 1}}), (1, {"l": [3], "mixed": [1]})])
        found = wide.columns(cache, [REF])
        table = wide.decoded(whole(cache), found)
        assert table.column("l").to_pylist() == [[1, 2], [3]]
        assert table.column("mixed").to_pylist() == ['{"a": 1}', "[1]"]  # no Arrow type holds both
