"""The lake: what is published is what the cache has, to the bit, once, whatever happens on the way."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from rows import NAN, RECORD, Row, exact, number, share, stored, text

from wandbsync import query
from wandbsync.cache import Cache, compaction
from wandbsync.errors import UsageError
from wandbsync.lake import address, plan
from wandbsync.lake.plan import Reach, RunHere, RunThere, There
from wandbsync.model import CONSOLE, HISTORY, STREAMS, SYSTEM, FileRecord, Kind, RunRef

pytest.importorskip("deltalake")
pl = pytest.importorskip("polars")

from wandbsync.lake.publish import Published, publish  # noqa: E402
from wandbsync.lake.read import Reader  # noqa: E402

A, B = RunRef("me", "demo", "a"), RunRef("me", "demo", "b")


def put(cache: Cache, ref: RunRef, rows: Iterable[Row], stream: str = HISTORY, **more: Any) -> None:
    assert None not in cache.commit([share(ref, cache.revision(ref), list(rows), stream, **more)])


def line(first: int, count: int, key: str = "loss") -> list[Row]:
    return [number(key, step, random.random()) for step in range(first, first + count)]


def bring(cache: Cache, url: str, **more: Any) -> Published:
    report = publish(cache, address.parse(url), machine=more.pop("machine", "m"), **more)
    assert report.problems == []
    return report


def planned(report: Published) -> list[str]:
    return [str(action) for action in report.planned]


def options(url: str) -> dict[str, str] | None:
    import os

    return {name: os.environ[name] for name in os.environ if name.startswith("AWS_")} if "://" in url else None


def scan(url: str, table: str) -> Any:
    """A table as Polars reads it: an engine that is not ours."""
    return pl.scan_delta(f"{url}/{table}", storage_options=options(url))


def in_lake(url: str, ref: RunRef, stream: str = HISTORY, server: str | None = None) -> list[Any]:
    """The rows of a run as Polars finds them, sorted, floats to the bit."""
    table = scan(url, stream).filter(
        (pl.col("entity") == ref.entity) & (pl.col("project") == ref.project) & (pl.col("run_id") == ref.run_id)
    )
    if server is not None:
        table = table.filter(pl.col("server") == server)
    found = stored(table.collect().to_arrow())
    return sorted(found, key=lambda row: (row[0].encode(), row[1], repr(row)))


def in_cache(cache: Cache, ref: RunRef, stream: str = HISTORY) -> list[Any]:
    found = stored(query.history(cache, ref, stream=stream))
    return sorted(found, key=lambda row: (row[0].encode(), row[1], repr(row)))


def assert_same(cache: Cache, url: str, *refs: RunRef) -> None:
    """The lake has what the cache has, and its row in `runs` says so."""
    known = {row["run_id"]: row for row in scan(url, "runs").collect().to_dicts() if row["gone_at"] is None}
    for ref in refs:
        assert in_lake(url, ref) == in_cache(cache, ref), ref
        run = query.get_run(cache, ref)
        assert known[ref.run_id]["rows"] == run["rows"]
        assert known[ref.run_id]["revision"] == cache.revision(ref)


# -- deciding


def sentences(here: list[RunHere], there: There, writer: str = "me") -> list[str]:
    return [str(action) for action in plan.plan("e/p", here, there, writer=writer)]


def here(run_id: str, revision: int, generation: int = 1, values: int = 100, *, evicted: bool = False) -> RunHere:
    return RunHere(1, run_id, revision, generation, {HISTORY: values}, evicted)


def there(run_id: str, revision: int, generation: int = 1, values: int = 100, **more: Any) -> dict[str, RunThere]:
    fields = {"bucket": "0000", "writer": "me"} | more
    return {run_id: RunThere(revision=revision, generation=generation, published={HISTORY: Reach(values, 9)}, **fields)}


@pytest.mark.parametrize(
    ("now", "before", "sentence"),
    [
        (here("a", 5), {}, "add e/p/a: 100 values (new)"),
        (here("a", 5), there("a", 5), None),
        (here("a", 6, values=130), there("a", 5), "add to e/p/a: 30 values (it grew)"),
        (here("a", 6), there("a", 5), "describe e/p/a again (its record changed)"),
        (here("a", 6, generation=2), there("a", 5), "replace e/p/a: 100 values (its rows are others)"),
        (here("a", 5), there("a", 5, writer="them"), "replace e/p/a: 100 values (another cache published it)"),
        (here("a", 6, evicted=True), there("a", 5), "describe e/p/a again (its rows are not in the cache)"),
        (here("a", 5), there("a", 5, gone=True), "replace e/p/a: 100 values (it is back)"),
    ],
)
def test_what_is_done_for_a_run(now: RunHere, before: dict[str, RunThere], sentence: str | None) -> None:
    assert sentences([now], There(before)) == ([] if sentence is None else [sentence])


def test_after_a_batch_that_did_not_end_nothing_is_added_to() -> None:
    before = There(there("a", 5) | there("same", 5), settled=False)
    assert sentences([here("a", 6, values=130), here("new", 1), here("same", 5)], before) == [
        "replace e/p/a: 130 values (a publication did not come to its end)",
        "replace e/p/new: 100 values (a publication did not come to its end)",
    ]


def test_a_run_that_the_cache_has_no_more_is_marked_once_and_only_by_its_publisher() -> None:
    assert sentences([], There(there("a", 5))) == ["mark e/p/a as gone"]
    assert sentences([], There(there("a", 5, gone=True))) == []
    assert sentences([], There(there("a", 5, writer="them"))) == []


def test_buckets_hold_256_runs_in_the_order_they_came() -> None:
    before = {f"old{i}": next(iter(there("x", 1).values())) for i in range(255)}
    actions = plan.plan("e/p", [here("n1", 1), here("n2", 1)], There(before), writer="you")
    assert [action.bucket for action in actions] == ["0000", "0001"]


def test_batches_replace_apart_and_fit_into_memory() -> None:
    news = [here(f"n{i}", 1, values=plan.BATCH_VALUES // 2) for i in range(3)]
    actions = plan.plan("e/p", [*news, here("a", 6, generation=2)], There(there("a", 5)), writer="me")
    assert [[action.run_id for action in batch] for batch in plan.batches(actions)] == [["n0", "n1"], ["n2"], ["a"]]


@pytest.mark.parametrize(
    "bad", ["", "ftp://x/y", "s3://key:secret@bucket/x", "s3:///x", "s3://b/x?secret=1", "az://u@c/x", "gs://b/x#f"]
)
def test_addresses_that_are_none(bad: str) -> None:
    with pytest.raises(UsageError) as raised:
        address.parse(bad)
    assert "secret" not in str(raised.value).replace("?secret", "") or bad.count("secret") == 0


def test_addresses() -> None:
    assert address.parse("s3://lab/wandb/").url == "s3://lab/wandb"
    assert address.parse("abfss://container@account.dfs.core.windows.net/x").folder is None
    assert address.parse("file:///tmp/x").folder == Path("/tmp/x") == address.parse("/tmp/x").folder


# -- publishing

EVERYTHING: list[Row] = [
    *line(0, 30),
    ("loss", 30, Kind.FLOAT, NAN, None),
    ("loss", 31, Kind.FLOAT, math.inf, None),
    ("loss", 32, Kind.FLOAT, -0.0, None),
    ("n", 1, Kind.INT, 2.0**53, None),
    ("n", 2, Kind.BIGINT, 2.0**60, "1152921504606846977"),
    ("ok", 1, Kind.BOOL, 1.0, None),
    ("none", 1, Kind.NULL, NAN, None),
    text("words", 1, "\"caf\\u00e9 'quoted'\""),
    text("list", -5, "[1,2,{}]"),
    number("ключ/" + "k" * 100 + "z", 3, 1.5),
    number("\U0010ffff" * 70, 4, 2.5),
]


def test_every_value_comes_back_bit_for_bit(cache: Cache, url: str) -> None:
    odd = RunRef("te am", "it's 100% a/b=c", "run 'x'")
    put(cache, odd, EVERYTHING, files=[FileRecord("a/b.png", 12, 1.7e9, "image/png", "md5==")])
    put(cache, odd, [number("system.gpu.0", 0, 3.0)], SYSTEM)
    put(cache, odd, [("stdout", 0, Kind.LINE, 1.7e9, "hello"), ("stderr", 1, Kind.LINE, NAN, "wörld")], CONSOLE)
    report = bring(cache, url)
    assert report.values == len(EVERYTHING) + 3
    for stream in STREAMS:
        assert in_lake(url, odd, stream) == in_cache(cache, odd, stream)
    if "://" not in url:  # plain columns: what Arrow wrote down of dictionaries confuses some engines
        written = pq.read_schema(next(Path(url).glob("history/server=*/**/*.parquet")))
        assert {str(field.type) for field in written} == {"string", "int64", "double", "int8"}
    assert in_lake(url, odd) == sorted(exact(EVERYTHING), key=lambda row: (row[0].encode(), row[1], repr(row)))
    run = scan(url, "runs").collect().to_dicts()[0]
    assert (run["entity"], run["project"], run["run_id"], run["display_name"]) == (*_name(odd), "Tidy run")
    files = scan(url, "files").collect().to_dicts()
    assert [(row["name"], row["size"], row["md5"]) for row in files] == [("a/b.png", 12, "md5==")]
    known = {row["key"]: row for row in scan(url, "metrics").collect().to_dicts()}
    assert (known["loss"]["count"], known["loss"]["nan_count"], known["loss"]["type"]) == (33, 1, "numeric")
    assert known.keys() >= {row[0] for row in EVERYTHING}


def _name(ref: RunRef) -> tuple[str, str, str]:
    return ref.entity, ref.project, ref.run_id


def test_the_life_of_a_run(cache: Cache, url: str) -> None:
    """Grows, is described anew, rewinds, begins anew, shrinks to nothing, is deleted; each is published once."""

    def step(sentence: str, values: int) -> None:
        report = bring(cache, url)
        assert planned(report) == [f"{sentence}"] and report.values == values
        assert_same(cache, url, A, B)
        again = bring(cache, url, full=True)
        assert (planned(again), again.commits) == ([], 0)

    put(cache, B, line(0, 7))
    bring(cache, url)
    put(cache, A, line(0, 50))
    step("add me/demo/a: 50 values (new)", 50)
    put(cache, A, line(50, 50))
    step("add to me/demo/a: 50 values (it grew)", 50)
    put(cache, A, [number("acc", 99, 1.0), number("acc", 100, 1.0)])  # a key that came late, also in a step of before
    report = bring(cache, url)
    assert planned(report) == ["add to me/demo/a: 2 values (it grew)"] and report.values == 102  # so all anew
    assert_same(cache, url, A, B)
    put(cache, A, [], record=RECORD.__class__("crashed", "local", display_name="Other", tags=("x",), summary={"a": 1}))
    step("describe me/demo/a again (its record changed)", 0)
    assert {row["state"] for row in scan(url, "runs").filter(pl.col("run_id") == "a").collect().to_dicts()} == {
        "crashed"
    }
    cache.cut(A, 9)
    step("replace me/demo/a: 10 values (its rows are others)", 10)
    put(cache, A, line(10, 3))
    step("add to me/demo/a: 3 values (it grew)", 3)
    put(cache, A, line(0, 4, "other"), generation=cache.new_generation())
    step("replace me/demo/a: 4 values (its rows are others)", 4)
    cache.cut(A, -1)
    step("replace me/demo/a: 0 values (its rows are others)", 0)
    cache.deleted([A], 1_700_000_000.0)
    step("describe me/demo/a again (its record changed)", 0)
    deleted = scan(url, "runs").filter(pl.col("deleted_at").is_not_null()).collect().to_dicts()
    assert [row["run_id"] for row in deleted] == ["a"]


def test_rows_that_were_merged_meanwhile_are_found(cache: Cache, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "FAN_IN", {0: 2, 1: 2, 2: 2})
    for k in range(6):
        put(cache, A, [*line(k * 10, 10), *line(k * 10, 10, "acc")])
        if k % 2:
            compaction.compact(cache)
        report = bring(cache, url)
        assert report.values == 20
        assert_same(cache, url, A)


def test_a_run_larger_than_memory_is_streamed(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "BATCH_VALUES", 1000)
    url = str(tmp_path / "lake")
    put(cache, A, [*line(0, 2000), *line(0, 2000, "acc")])
    assert bring(cache, url).values == 4000
    put(cache, A, [*line(2000, 1500), *line(5, 1, "late")])  # counted while it is written: refused, and done anew
    assert bring(cache, url).values == 5501
    assert_same(cache, url, A)


def test_a_run_that_is_renamed_or_forgotten_is_marked_as_gone(cache: Cache, tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    local = RunRef("local", "demo", "a")
    put(cache, local, line(0, 5))
    put(cache, B, line(0, 5))
    bring(cache, url)
    cache.rename(local, A)
    cache.forget(B)
    assert sorted(planned(bring(cache, url))) == [
        "add me/demo/a: 5 values (new)",
        "mark local/demo/a as gone",
        "mark me/demo/b as gone",
    ]
    gone = scan(url, "runs").filter(pl.col("gone_at").is_not_null()).collect()
    assert sorted(gone["run_id"].to_list()) == ["a", "b"]
    with Reader(address.parse(url)) as reader:
        reader.project("me/demo")
        assert [run["id"] for run in query.list_runs(reader.cache, ("me", "demo"))] == ["a"]
    assert planned(bring(cache, url, full=True)) == []


def test_what_was_published_stays_when_the_cache_makes_room(cache: Cache, tmp_path: Path) -> None:
    from wandbsync.cache.eviction import evict

    url = str(tmp_path / "lake")
    rows = line(0, 20)
    put(cache, A, rows)
    bring(cache, url)
    assert evict(cache, A, cache.revision(A) or 0, elsewhere=True)
    assert planned(bring(cache, url)) == ["describe me/demo/a again (its rows are not in the cache)"]
    assert len(in_lake(url, A)) == 20
    put(cache, A, line(0, 30), generation=cache.new_generation())
    assert planned(bring(cache, url)) == ["replace me/demo/a: 30 values (its rows are others)"]
    assert_same(cache, url, A)


def test_nothing_is_pruned_away_by_nan(cache: Cache, tmp_path: Path) -> None:
    """NaN is in no range: a file of small numbers and NaN must be read for `isnan` and, in DuckDB, for "greater"."""
    url = str(tmp_path / "lake")
    put(cache, A, [number("loss", 0, 1.0), number("loss", 1, NAN), number("loss", 2, 2.0)])
    bring(cache, url)
    rows = scan(url, "history")
    assert rows.filter(pl.col("value").is_nan()).collect().height == 1
    with Reader(address.parse(url)) as reader:
        for where in ("isnan(value)", "value > 100", "NOT value <= 100"):
            found = reader.sql(f"SELECT step FROM history WHERE {where}").fetchall()
            history = reader.lake.scan("history", ["step", "value"], None)
            with duckdb.connect() as con:  # DuckDB 1 says of NaN in Arrow that it is not greater, wherever it lies
                con.register("history", history)
                assert found == con.execute(f"SELECT step FROM history WHERE {where}").fetchall(), where
    log = "".join(path.read_text() for path in Path(url).glob("history/_delta_log/*.json"))
    assert '"minValues' in log.replace("\\", "") and '"value\\":' not in log


def test_an_older_table_gains_the_columns_it_lacks(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandbsync.lake import tables

    url = str(tmp_path / "lake")
    with monkeypatch.context() as older:
        for name, column in (("runs", "job_type"), ("metrics", "rest"), ("history", "value_json"), ("projects", "url")):
            columns = [one for one in tables.COLUMNS[name] if one[0] != column]
            older.setitem(tables.COLUMNS, name, columns)
        put(cache, A, line(0, 5))
        bring(cache, url)
        assert "value_json" not in scan(url, "history").collect_schema().names()
    put(cache, B, [*line(0, 5), text("t", 0, '"x"')])
    put(cache, A, line(5, 5))
    bring(cache, url)
    put(cache, A, [], record=RECORD.__class__("finished", "local", job_type="train", summary={}))
    bring(cache, url)
    assert_same(cache, url, A, B)
    for name in ("runs", "history", "projects"):
        assert set(scan(url, name).collect_schema().names()) == set(tables.schema(name).names), name
    assert scan(url, "runs").filter(pl.col("run_id") == "a").collect()["job_type"].to_list() == ["train"]
