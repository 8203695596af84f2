"""What people ask of the cache: names, lists, metrics, histories, single series."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from datetime import date, datetime, timedelta, timezone
from subprocess import run as run_process
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rows import NAN, Row, exact, number, share, stored, text

import wandbsync
from wandbsync import query
from wandbsync.cache import Cache, compaction
from wandbsync.cli import main_group
from wandbsync.errors import CacheError, Damaged, NotFound, UsageError
from wandbsync.model import CONSOLE, FIELDS, SYSTEM, FileRecord, Kind, RunRecord, RunRef

DEMO = ("me", "demo")
A, B = RunRef(*DEMO, "abc123"), RunRef(*DEMO, "def456")


def add(cache: Cache, ref: RunRef, rows: list[Row], stream: str = "history", **more: object) -> None:
    assert cache.commit([share(ref, cache.revision(ref), rows, stream, **more)]) != [None]


def named(display_name: str, **more: object) -> RunRecord:
    return RunRecord("finished", "local", display_name=display_name, **more)  # type: ignore[arg-type]


# -- names


def test_a_project_is_found_by_its_name(cache: Cache) -> None:
    for entity, project in (("me", "demo"), ("team", "demo"), ("team", "vision")):
        add(cache, RunRef(entity, project, "r"), [])
    assert query.find_project(cache, "me/demo") == query.find_project(cache, " me/demo/ ") == ("me", "demo")
    assert query.find_project(cache, "vision") == ("team", "vision")
    assert query.find_project(cache, "demo", default_entity="team") == ("team", "demo")
    with pytest.raises(UsageError, match="more than once") as caught:
        query.find_project(cache, "demo")
    assert "me/demo and team/demo" in caught.value.hint
    with pytest.raises(UsageError):
        query.find_project(cache, "demo", default_entity="nobody")


def test_a_project_of_which_some_runs_do_not_say_whose_they_are(cache: Cache) -> None:
    add(cache, RunRef("me", "demo", "said"), [])
    add(cache, RunRef("local", "demo", "unsaid"), [])
    add(cache, RunRef("local", "own", "alone"), [])
    assert query.find_projects(cache, "demo") == [("me", "demo"), ("local", "demo")]
    assert query.find_project(cache, "demo") == ("me", "demo") and query.find_project(cache, "own") == ("local", "own")
    assert query.find_projects(cache, "demo", default_entity="local") == [("local", "demo")]
    assert query.find_projects(cache, "me/demo") == [("me", "demo")]
    listed = CliRunner().invoke(
        main_group, ["list-runs", "demo", "--offline", "--json", "--cache-dir", str(cache.folder)]
    )
    assert {run["id"] for run in json.loads(listed.stdout)} == {"said", "unsaid"}, listed.output
    assert "local/demo" in listed.stderr
    assert len(wandbsync.open(cache.folder, offline=True).runs("demo")) == 2
    with pytest.raises(NotFound) as caught:
        query.find_run(cache, ("me", "demo"), "unsaid")
    assert "local/demo/unsaid" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("visoin", "team/vision"),
        ("team/visio", "team/vision"),
        ("Vision", "team/vision"),
        ("me/vision", "team/vision"),
        ("zzz", "there is me/demo, team/vision"),
    ],
)
def test_a_project_that_is_not_there_has_near_matches(cache: Cache, asked: str, hint: str) -> None:
    add(cache, A, [])
    add(cache, RunRef("team", "vision", "r"), [])
    with pytest.raises(NotFound, match=asked) as caught:
        query.find_project(cache, asked)
    assert hint in caught.value.hint


@pytest.mark.parametrize("spec", ["", "/", "a//b", "a/b/c", "a/ /b"])
def test_what_is_no_project(cache: Cache, spec: str) -> None:
    with pytest.raises(UsageError, match="not a project"):
        query.find_project(cache, spec)


def test_an_empty_cache_says_what_to_do(cache: Cache) -> None:
    with pytest.raises(NotFound) as caught:
        query.find_project(cache, "demo")
    assert "wandbsync sync" in caught.value.hint


def test_a_run_is_found_by_its_id_or_else_its_name(cache: Cache) -> None:
    add(cache, A, [], record=named("lucky-owl-7"))
    add(cache, B, [], record=named("abc123"))
    twins = [RunRef(*DEMO, "t1"), RunRef(*DEMO, "t2")]
    for one in twins:
        add(cache, one, [], record=named("twin"))
    assert query.find_run(cache, DEMO, "abc123") == A, "the id goes first"
    assert query.find_run(cache, DEMO, " lucky-owl-7 ") == A
    with pytest.raises(UsageError, match="2 runs are named twin") as caught:
        query.find_run(cache, DEMO, "twin")
    assert "t1" in caught.value.hint and "t2" in caught.value.hint
    with pytest.raises(NotFound, match="no run lucky-owl") as caught:
        query.find_run(cache, DEMO, "lucky-owl")
    assert "lucky-owl-7" in caught.value.hint
    with pytest.raises(NotFound):
        query.find_run(cache, ("me", "other"), "abc123")


# -- lists


def test_list_projects(cache: Cache) -> None:
    add(cache, A, [])
    add(cache, B, [], record=named("x", incomplete="damaged"))
    add(cache, RunRef("team", "zoo", "r"), [])
    cache.checked([A], 1_700_000_000.5)
    first, second = query.list_projects(cache)
    assert first == {
        "name": "demo",
        "entity": "me",
        "description": None,
        "created_at": None,
        "updated_at": None,
        "total_runs": None,
        "url": None,
        "runs": 2,
        "source": "local",
        "synced_at": "2023-11-14T22:13:20.500Z",
        "complete": False,
    }
    assert (second["name"], second["complete"], second["synced_at"]) == ("zoo", True, None)
    assert [p["name"] for p in query.list_projects(cache, entity="team")] == ["zoo"]
    assert len(query.list_projects(cache, limit=1)) == 1 and len(query.list_projects(cache, limit=None)) == 2


def test_list_runs_keeps_its_promises(cache: Cache) -> None:
    record = RunRecord(
        "failed", "local", display_name="nice", created_at=1e9, heartbeat_at=1e9 + 60, tags=("a", "b"), notes="n",
        group="g", job_type="train", sweep_id="s", host="h", exit_code=1, runtime=60.5, url="https://x",
        config={"lr": 1}, metadata={"git": "x"}, forked_from="x@3", incomplete="2 damaged places",
        username="ann", user_name="Ann", updated_at=1e9,
        summary={"loss": math.nan, "d": {"e": 1}},
    )  # fmt: skip
    add(cache, A, [number("loss", 7, 1.0)], record=record)
    cache.checked([A], 1e9 + 61)
    (run,) = query.list_runs(cache, DEMO)
    assert run == {
        "id": "abc123", "name": "nice", "entity": "me", "project": "demo", "state": "failed",
        "created_at": "2001-09-09T01:46:40.000Z", "heartbeat_at": "2001-09-09T01:47:40.000Z", "runtime": 60.5,
        "exit_code": 1, "tags": ["a", "b"], "notes": "n", "group": "g", "job_type": "train", "sweep_id": "s",
        "host": "h", "username": "ann", "user_name": "Ann", "updated_at": "2001-09-09T01:46:40.000Z",
        "forked_from": "x@3", "url": "https://x", "rows": 1, "last_step": 7,
        "summary_metrics": {"loss": "NaN", "d": {"e": 1}}, "source": "local",
        "synced_at": "2001-09-09T01:47:41.000Z", "complete": False, "incomplete": "2 damaged places",
        "deleted_at": None,
    }  # fmt: skip
    json.dumps(run, allow_nan=False)
    assert query.get_run(cache, A) == run | {"config": {"lr": 1}, "metadata": {"git": "x"}}
    with pytest.raises(NotFound):
        query.get_run(cache, B)


def test_a_field_of_runs_is_in_the_record_and_in_the_catalog(cache: Cache) -> None:
    """What `model/run.py` says must be done for a new field: forgotten, it is told here and not by a user."""
    types = {"TIMESTAMP": "REAL", "DOUBLE": "REAL", "BIGINT": "INTEGER"}
    columns = {row["name"]: row["type"] for row in cache.con.execute("PRAGMA table_info(runs)")}
    kept = [one for one in FIELDS if one.of in ("name", "record", "cache")]
    assert {one.column: types.get(one.type, "TEXT") for one in kept} == {
        one.column: columns[one.column] for one in kept
    }
    assert {one.name for one in FIELDS if one.of == "record"} == {one.name for one in dataclasses.fields(RunRecord)} - {
        "rules"
    }


def test_list_runs_newest_first_by_state_with_a_limit(cache: Cache) -> None:
    for k in range(6):
        record = RunRecord("running" if k % 2 else "finished", "local", created_at=1e9 + k)
        add(cache, RunRef(*DEMO, f"r{k}"), [], record=record)
    assert [run["id"] for run in query.list_runs(cache, DEMO, limit=3)] == ["r5", "r4", "r3"]
    assert [run["id"] for run in query.list_runs(cache, DEMO, state="finished")] == ["r4", "r2", "r0"]
    assert query.count_runs(cache, DEMO, state="finished") == 3 and query.count_runs(cache, DEMO) == 6
    assert query.list_runs(cache, DEMO)[0]["name"] == "r5", "a run without a name goes by its id"
    assert query.list_runs(cache, ("no", "such")) == []


def test_list_files(cache: Cache) -> None:
    files = [FileRecord("z.txt", 3), FileRecord("media/a.png", 9, 1e9, "image/png", "md5", "/here/a.png")]
    add(cache, A, [], files=files)
    assert query.list_files(cache, A) == [
        {"name": "media/a.png", "size": 9, "mimetype": "image/png", "updated_at": "2001-09-09T01:46:40.000Z",
         "md5": "md5", "local_path": "/here/a.png", "source": "local", "synced_at": None, "complete": True},
        {"name": "z.txt", "size": 3, "mimetype": None, "updated_at": None,
         "md5": None, "local_path": None, "source": "local", "synced_at": None, "complete": True},
    ]  # fmt: skip


def test_lists_need_neither_arrow_nor_duckdb(cache: Cache) -> None:
    add(cache, A, [number("loss", 0, 1.0)])
    script = (
        "import sys; from pathlib import Path; from wandbsync.cache import Cache; from wandbsync import query\n"
        "with Cache(Path(sys.argv[1])) as c:\n"
        "    ref = query.find_run(c, query.find_project(c, 'demo'), 'abc123'); query.list_runs(c, ('me', 'demo'))\n"
        "    query.list_metrics(c, ref); query.list_files(c, ref); query.list_projects(c)\n"
        "print([name for name in ('numpy', 'pyarrow', 'duckdb', 'wandb') if name in sys.modules])"
    )
    done = run_process([sys.executable, "-c", script, str(cache.folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- metrics


def test_list_metrics_keeps_its_promises(cache: Cache) -> None:
    add(cache, A, [*(number("loss", s, v) for s, v in enumerate([3.0, 1.0, NAN, math.inf])), text("note", 2, '"hi"')])
    add(cache, A, [number("loss", 4, 2.0), ("loss", 5, Kind.NULL, NAN, None), number("_runtime", 1, 1.0)])
    metrics = query.list_metrics(cache, A)
    freshness = {"source": "local", "synced_at": None, "complete": True}
    assert metrics == {
        "loss": {
            "type": "numeric", "count": 6, "non_null_count": 5, "min": 1.0, "max": 3.0, "mean": 2.0, "std": 1.0,
            "nan_count": 1, "infinite_count": 1, "last": 2.0, "first_step": 0, "last_step": 4, **freshness,
        },
        "note": {
            "type": "string", "count": 1, "non_null_count": 1, "last": "hi", "first_step": 2, "last_step": 2,
            **freshness,
        },
    }  # fmt: skip


def test_list_metrics_with_the_system(cache: Cache) -> None:
    rows = [number("_timestamp", s, 1e9 + s) for s in (0, 2, 4)] + [number("system/gpu", 0, 1.0)]
    add(cache, A, rows)
    add(cache, A, [number("system.cpu", s, 50.0) for s in range(9)], SYSTEM)
    assert query.list_metrics(cache, A) == {}
    metrics = query.list_metrics(cache, A, include_system=True)
    assert list(metrics) == ["_step", "_timestamp", "system.cpu", "system/gpu"]
    for promised in ("type", "count", "non_null_count", "min", "max", "mean", "std"):
        assert all(promised in entry for entry in metrics.values())
    step = metrics["_step"]
    assert [step[name] for name in ("count", "min", "max", "mean", "std", "last")] == [3, 0.0, 4.0, 2.0, 2.0, 4]
    add(cache, B, [number("x", 0, 1.0), number("y", 6, 1.0)])
    step = query.list_metrics(cache, B, include_system=True)["_step"]
    assert (step["count"], step["mean"]) == (2, 3.0), "even if no metric is in every row"


@pytest.mark.parametrize(
    ("row", "kind", "last"),
    [
        (number("x", 0, 1.5), "numeric", 1.5),
        (("x", 0, Kind.INT, 3.0, None), "numeric", 3),
        (("x", 0, Kind.BIGINT, 1e20, "100000000000000000001"), "numeric", 100000000000000000001),
        (("x", 0, Kind.BOOL, 1.0, None), "boolean", True),
        (("x", 0, Kind.NULL, NAN, None), "null", None),
        (text("x", 0, '"s"'), "string", "s"),
        (text("x", 0, "[1,2]"), "list", [1, 2]),
        (text("x", 0, '{"a":1}'), "object", {"a": 1}),
        (text("x", 0, '{"_type":"image-file","path":"p"}'), "image-file", {"_type": "image-file", "path": "p"}),
    ],
)
def test_types_of_metrics(cache: Cache, row: Row, kind: str, last: object) -> None:
    add(cache, A, [row])
    entry = query.list_metrics(cache, A)["x"]
    assert entry["type"] == kind and entry["last"] == last and type(entry["last"]) is type(last)
    assert query.sql(cache, "SELECT type FROM metrics").fetchall() == [(kind,)]


def test_metrics_to_draw(cache: Cache) -> None:
    add(cache, A, [number("train/loss", 0, 1.0), text("note", 0, '"x"'), ("ok", 0, Kind.BOOL, 1.0, None)])
    add(cache, B, [text("words", 0, '""'), number("acc", 0, 1.0), number("note", 0, 1.0)])

    def chosen(*names: str, everything: bool = False) -> list[str]:
        return query.plot_metrics(cache, [A, B], names, all_metrics=everything, include_system=False)

    assert chosen("acc", "train/loss", "acc") == ["acc", "train/loss"]
    assert chosen("note", everything=True) == ["note", "ok", "train/loss", "acc"]
    assert chosen(everything=True) == ["note", "ok", "train/loss", "acc"], "a number in one of the runs"
    with pytest.raises(NotFound, match="no metric loss in any of the 2 runs") as caught:
        chosen("loss")
    assert "train/loss" in caught.value.hint
    with pytest.raises(UsageError, match="no metric to draw"):
        chosen()
    assert chosen("_step") == ["_step"]


# -- rows


def long_run(cache: Cache) -> list[Row]:
    """A run of several commits that overlap, over several levels."""
    rows: list[Row] = []
    for k in range(6):
        batch = [number("loss", k * 4 + s, k + s / 10) for s in range(6)]
        batch += [text("note", k, f'"{k}"'), number("", k, -0.0), ("loss", k * 4, Kind.NULL, NAN, None)]
        add(cache, A, batch)
        rows += batch
        if k in (2, 4):
            compaction.compact(cache, everything=True)
    add(cache, A, [number("system.cpu", s, s * 1.0) for s in range(3)], SYSTEM)
    add(cache, B, [number("loss", 0, 99.0)])
    return rows


def test_history_is_every_row_in_order(cache: Cache) -> None:
    rows = long_run(cache)
    table = query.history(cache, A)
    assert stored(table) == exact(rows)
    assert stored(query.history(cache, A, ["note", ""])) == exact([row for row in rows if row[0] in ("note", "")])
    assert query.history(cache, A, ["nope"]).num_rows == 0 and query.history(cache, A, []).num_rows == 0
    assert query.history(cache, A, stream=SYSTEM).num_rows == 3
    assert query.history(cache, A, stream=CONSOLE).schema == table.schema == query.history(cache, B).schema
    assert query.history(cache, RunRef("no", "such", "run")).num_rows == 0


def test_series_are_the_numbers_of_a_metric_by_step(cache: Cache) -> None:
    rows = sorted((row for row in long_run(cache) if row[0] == "loss" and row[2] == Kind.FLOAT), key=lambda row: row[1])
    step, value = query.series(cache, A, "loss")
    assert step.tolist() == [row[1] for row in rows] and value.tolist() == [row[3] for row in rows]
    assert (step.dtype, value.dtype) == (np.int64, np.float64)
    assert query.series(cache, A, "note")[0].tolist() == []
    assert query.series(cache, A, "nope")[0].tolist() == []
    assert query.series(cache, A, "system.cpu")[1].tolist() == [0.0, 1.0, 2.0]
    every = sorted({row[1] for row in long_run(cache)})
    assert query.series(cache, A, "_step")[0].tolist() == every == query.series(cache, A, "_step")[1].tolist()


def test_series_keep_nan_and_numbers_of_all_kinds(cache: Cache) -> None:
    add(
        cache,
        A,
        [
            number("x", 0, NAN),
            number("x", 1, -math.inf),
            ("x", 2, Kind.INT, 7.0, None),
            ("x", 3, Kind.BOOL, 1.0, None),
            ("x", 4, Kind.BIGINT, 1e20, "100000000000000000001"),
            ("x", 5, Kind.NULL, NAN, None),
            text("x", 6, '"seven"'),
        ],
    )
    step, value = query.series(cache, A, "x")
    assert step.tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(value[0]) and value[1:].tolist() == [-math.inf, 7.0, 1.0, 1e20]


def test_a_metric_called_like_the_system_goes_first(cache: Cache) -> None:
    add(cache, A, [number("system.cpu", 0, 1.0)])
    add(cache, A, [number("system.cpu", 0, 2.0)], SYSTEM)
    assert query.series(cache, A, "system.cpu")[1].tolist() == [1.0]
    assert query.list_metrics(cache, A, include_system=True)["system.cpu"]["last"] == 1.0


def test_a_new_generation_is_read_instead_of_the_old(cache: Cache) -> None:
    add(cache, A, [number("old", 0, 1.0)])
    add(cache, A, [number("new", 0, 2.0)], generation=cache.new_generation())
    assert query.series(cache, A, "old")[0].tolist() == [] and list(query.list_metrics(cache, A)) == ["new"]
    assert stored(query.history(cache, A)) == exact([number("new", 0, 2.0)])


def test_damage_is_said_and_not_shown_as_no_rows(cache: Cache) -> None:
    add(cache, A, [number("loss", s, s * 0.1) for s in range(100)])
    (path,) = (cache.folder / "history").rglob("*.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    for ask in (lambda: query.history(cache, A), lambda: query.series(cache, A, "loss")):
        with pytest.raises(Damaged, match=f"{path.name} of {A} is damaged") as caught:
            ask()
        assert "repair" in caught.value.hint
    path.unlink()
    with pytest.raises(CacheError, match="is gone"):
        query.history(cache, A)


def test_cache_info(cache: Cache) -> None:
    rows = long_run(cache)
    info = query.cache_info(cache)
    assert (info["projects"], info["runs"], info["values"]) == (1, 2, len(rows) + 3 + 1)
    assert info["total_bytes"] > info["segment_bytes"] > 0 and info["journal"] == "wal"


# -- filters and orders


SCORES = {"a": 0.1, "n": "NaN", "b": 0.9, "t": "good", "i": "Infinity", "l": [3, {"deep": 4}], "m": None}
SOME = [  # made a day after the other
    {
        "id": name,
        "config": {"list": [name, {"n": at}]},
        "summary_metrics": {"acc": score},
        "created_at": f"2026-02-0{at}",
    }
    for at, (name, score) in enumerate(SCORES.items(), 1)
]


@pytest.mark.parametrize(
    ("filters", "order", "expected"),
    [
        ({}, "-summary_metrics.acc", "ibatnlm"),  # numbers, texts, and what has no order
        ({}, "+summary_metrics.acc", "abitnlm"),
        ({"summary_metrics.acc": {"$gt": 0.5}}, None, "bil"),  # one item of a list is enough
        ({"summary_metrics.acc": math.inf}, None, "i"),
        ({"createdAt": {"$gte": datetime(2026, 2, 6)}}, None, "lm"),
        ({"createdAt": {"$lt": datetime(2026, 2, 2, 1, tzinfo=timezone(timedelta(hours=2)))}}, None, "a"),
        ({"createdAt": {"$in": [date(2026, 2, 3), "2026-02-01T00:00:00z"]}}, None, "ab"),
        ({"config.list.0": "t"}, None, "t"),
        ({"config.list.1.n": {"$lte": 2}, "summary_metrics.acc.1.deep": {"$exists": False}}, "-config.list.0", "na"),
        ({"config.list.2": {"$exists": True}}, None, ""),
    ],
)
def test_runs_are_chosen_and_ordered(filters: Any, order: str | None, expected: str) -> None:
    assert "".join(run["id"] for run in query.choose(SOME, filters, order)) == expected


def test_a_state_that_no_run_can_have_is_an_error(cache: Cache) -> None:
    add(cache, A, [])
    with pytest.raises(UsageError, match="no run is ever 'runing'"):
        query.list_runs(cache, DEMO, state="runing")
