"""A pass over a server: what it asks, what is in the cache then, and what becomes of it when things go wrong."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mirror import DEMO, Mirror, cells_of, connected, rows, rows_as_cells
from shell import without_wandb
from wandb_server import HTML, Server
from wandb_server.logged import ROWS

from wandbsync import query
from wandbsync.cache import Cache, LogCursor, MirrorCursor, Share
from wandbsync.errors import CacheBusy, NotFound, NotSignedIn, ServerError, Unreachable
from wandbsync.model import HISTORY, SYSTEM, RunRecord, RunRef
from wandbsync.plan.discovery import RunFilter
from wandbsync.sources.api.record import fingerprint, record
from wandbsync.sources.api.rows import history_columns
from wandbsync.sources.keys import Keys
from wandbsync.sync import Progress, commits, sync_local
from wandbsync.sync.listing import listed
from wandbsync.sync.server import Asked, sync_server

# -- the plain course of things


def test_a_new_project_comes_whole_and_then_only_the_listing_is_asked(server: Server, mirror: Mirror) -> None:
    files = {"media/images/a.png": b"123", "output.log": b"hello"}
    events = [{"_timestamp": 1.7e9 + i, "_runtime": i, "system.cpu": i / 2} for i in range(10)]
    one = server.add_run(
        *DEMO, "one", rows(1500), exported=1000, config={"lr": 0.1, "opt": {"name": "sgd"}}, files=files,
        events=events, console=["hello", "wörld"], tags=["a", "b"], notes="n", group="g", job_type="t",
    )  # fmt: skip
    two = server.add_run(*DEMO, "two", rows(3, odd=float("nan")), state="running", console=["x", "y"])
    report = mirror.quietly()
    assert (report.listed, report.runs, report.new_runs, report.rows) == (2, 2, 2, 1503)
    mirror.assert_same(one, two)
    assert mirror.asked == {"Runs": 1, "RunParquetHistory": 2, "export": 1, "HistoryPage": 1}
    run = query.get_run(mirror.cache, RunRef(*DEMO, "one"))
    assert (run["config"], run["notes"], run["group"]) == ({"lr": 0.1, "opt": {"name": "sgd"}}, "n", "g")
    assert mirror.console("one") == [("stdout", "hello"), ("stdout", "wörld")]
    assert mirror.console("two") == [("stdout", "x")]  # the last one may still be rewritten
    assert len(mirror.cells("one", SYSTEM)) == 30
    listed = {
        file["name"]: (file["size"], file["md5"]) for file in query.list_files(mirror.cache, RunRef(*DEMO, "one"))
    }
    assert listed == {file.name: (file.size_bytes, file.md5) for file in one.files.values()}
    for _ in range(2):
        report = mirror.quietly()
        assert (report.planned, report.runs) == ([], 0)
        assert mirror.asked == {"Runs": 1}


def test_what_has_changed_is_asked_for_and_no_more(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(50), state="running", console=["a", "b"])
    other = server.add_run(*DEMO, "other", rows(5))
    mirror.quietly()
    server.grow(run, rows(7, 50))
    assert mirror.quietly().rows == 7
    assert mirror.asked == {"Runs": 1, "HistoryPage": 1}
    server.grow(run, rows(1500, 57))
    assert mirror.quietly().rows == 1500
    assert mirror.asked["HistoryPage"] <= 6  # the first shows that there are more than a page
    server.grow(run, rows(4000, 1557))
    mirror.quietly()
    assert mirror.asked == {"Runs": 1, "RunParquetHistory": 1, "HistoryPage": 5}  # a page more for the last row
    server.edit(run, tags=["new"], display_name="renamed", notes="hm")
    assert [str(action) for action in mirror.quietly().planned] == ["describe me/demo/r (edited)"]
    assert mirror.asked == {"Runs": 1, "Run": 1}
    server.edit(run, console=[*run.console, type(run.console[0])(2, "c")])
    server.finish(run)
    mirror.quietly()
    mirror.assert_same(run, other)
    assert [line for _, line in mirror.console("r")] == ["a", "b", "c"]
    assert mirror.run("r")["tags"] == ["new"]
    mirror.quietly()
    assert mirror.asked == {"Runs": 1}


def test_samples_of_the_machine_and_files_come_as_they_are_added(server: Server, mirror: Mirror) -> None:
    def samples(first: int, count: int) -> list[dict[str, float]]:
        return [{"_timestamp": 1.7e9 + i, "system.cpu": i / 2} for i in range(first, first + count)]

    run = server.add_run(*DEMO, "r", rows(5), state="running", events=samples(0, 100))
    mirror.quietly()
    server.edit(run, events=samples(0, 130))
    server.grow(run, rows(1, 5))
    run.put("a.txt", b"1")
    mirror.quietly()
    cells = mirror.cells("r", SYSTEM)
    assert sorted(step for key, step, *_ in cells if key == "system.cpu") == list(range(130))
    assert [file["name"] for file in query.list_files(mirror.cache, RunRef(*DEMO, "r"))] == ["a.txt"]
    # More than a server gives: what comes now and then is put together, and it is said that some is left out.
    server.edit(run, events=samples(0, 25_000))
    server.finish(run)
    report = mirror.quietly()
    assert "leaves out" in report.notes[0]
    numbers = [step for key, step, *_ in mirror.cells("r", SYSTEM) if key == "system.cpu"]
    assert len(numbers) == len(set(numbers)) > 9000


def test_thousands_of_lines_and_files(server: Server, mirror: Mirror) -> None:
    lines = [f"line {i}" for i in range(2500)]
    files = {f"media/{i}.png": b"x" * i for i in range(2100)}
    run = server.add_run(*DEMO, "r", rows(1), state="running", console=lines, files=files)
    mirror.quietly()
    assert [text for _, text in mirror.console("r")] == lines[:-1]
    assert len(query.list_files(mirror.cache, RunRef(*DEMO, "r"))) == 2100
    server.edit(run, console=[type(run.console[0])(i, f"line {i}") for i in range(4000)])
    server.finish(run)
    mirror.quietly()
    assert [text for _, text in mirror.console("r")] == [f"line {i}" for i in range(4000)]
    mirror.quietly()
    assert mirror.asked == {"Runs": 1}


@pytest.mark.parametrize("exported", [None, 40, 100])
@pytest.mark.parametrize("serves", [False, True])
@pytest.mark.parametrize("regrown", [0, 10, 50, 80, 2000, 5000])
def test_a_run_that_is_rewound_and_grows_again(
    server: Server, mirror: Mirror, regrown: int, serves: bool, exported: int | None
) -> None:
    """Also past its former count between two passes, where the count does not tell."""
    server.history_serves_exported = serves
    run = server.add_run(*DEMO, "r", rows(100), state="running", exported=exported)
    mirror.quietly()
    server.rewind(run, 49)
    server.clock.advance(2)
    server.grow(run, rows(regrown, 50))
    server.edit(run, heartbeat_at=server.clock.now())
    mirror.quietly()
    mirror.assert_whole()


@pytest.mark.parametrize("upto", [None, 60, 99, 120])
def test_a_rewind_that_is_hidden_by_an_export(server: Server, mirror: Mirror, upto: int | None) -> None:
    run = server.add_run(*DEMO, "r", rows(100), state="running")
    mirror.quietly()
    server.rewind(run, 49)
    server.grow(run, rows(100, 50))
    server.clock.advance(2)
    server.edit(run, heartbeat_at=server.clock.now())
    server.export(run, upto)
    mirror.quietly()
    mirror.assert_whole()


def test_a_run_cut_between_the_listing_and_its_fetch(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(100), state="running")
    mirror.quietly()
    server.grow(run, rows(10, 100))
    cut = server.run

    def rewind_then(progress: object) -> None:
        if run.history.last_step > 50:
            server.rewind(run, 20)

    assert cut
    mirror.quietly(progress=rewind_then)
    mirror.assert_whole()


def test_another_run_under_the_old_id(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(100), config={"lr": 1}, console=["old"], exported=50)
    mirror.quietly()
    again = server.recreate(run, rows(150), config={"lr": 2}, console=["new"])
    report = mirror.quietly()
    assert [str(action) for action in report.planned] == ["fetch me/demo/r anew (re-used)"]
    mirror.assert_same(again)
    assert query.get_run(mirror.cache, RunRef(*DEMO, "r"))["config"] == {"lr": 2}
    assert mirror.console("r") == [("stdout", "new")]


def test_deleted_runs_are_marked_and_kept_and_may_come_back(server: Server, mirror: Mirror) -> None:
    kept, gone = (server.add_run(*DEMO, name, rows(5)) for name in ("kept", "gone"))
    mirror.quietly()
    before = mirror.cells("gone")
    server.delete(gone)
    report = mirror.quietly()
    assert (report.deleted, report.notes) == (1, ["deleted on the server, kept here: me/demo/gone"])
    assert mirror.run("gone")["deleted_at"] and mirror.cells("gone") == before
    assert mirror.quietly().deleted == 0 and mirror.asked == {"Runs": 1}
    server.add_run(*DEMO, "gone", gone.history.lines(np.arange(5)), created_at=gone.created_at)
    assert "back" in str(mirror.quietly().planned[0])
    mirror.assert_whole()
    assert mirror.run("kept")["rows"] == len(kept.history)


def test_many_deleted_runs_cost_few_questions(server: Server, mirror: Mirror) -> None:
    runs = [server.add_run(*DEMO, f"r{i}") for i in range(60)]
    mirror.quietly()
    for run in runs[1:]:
        server.delete(run)
    assert mirror.quietly().deleted == 59
    assert sum(mirror.asked.values()) <= 3


def test_a_run_that_slipped_from_the_listing_is_not_deleted(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(3))
    mirror.quietly()
    nothing = {"data": {"project": {"runCount": 0, "runs": {"edges": [], "pageInfo": {"hasNextPage": False}}}}}
    server.fail("Runs", status=200, body=json.dumps(nothing).encode())
    assert mirror.quietly().deleted == 0
    mirror.assert_same(run)


def test_a_fork_has_the_rows_of_its_parent(server: Server, mirror: Mirror) -> None:
    parent = server.add_run(*DEMO, "parent", rows(20))
    child = server.add_run(*DEMO, "child", [*parent.history.lines(np.arange(11)), *rows(5, 11)], state="running")
    child.config["_wandb"] = {"value": {"branch_point": {"run_id": "parent", "step": 10}}}
    mirror.quietly()
    mirror.assert_same(parent, child)
    assert mirror.run("child")["forked_from"] == "parent@10"


def test_rows_of_equal_step_are_all_kept(server: Server, mirror: Mirror) -> None:
    """Two processes that log to one run."""
    twice = [row for pair in zip(rows(30), rows(30), strict=True) for row in pair]
    live = server.add_run(*DEMO, "live", twice, state="running")
    half = server.add_run(*DEMO, "half", twice, exported=31)
    mirror.quietly()
    mirror.assert_same(live, half)
    server.grow(live, [*rows(1, 29), *rows(2, 30)])  # one more of the last step, and others after it
    mirror.sync()
    mirror.assert_same(live)


def test_values_of_every_kind(server: Server, mirror: Mirror) -> None:
    odd = [
        {"_step": 0, "f": 0.5, "i": 3, "b": True, "s": "text", "n": float("nan"), "p": float("inf"), "big": 2**60 + 1},
        {"_step": 1, "d": {"a": {"b": 1.5}, "c": "x"}, "l": [1, "a", None], "m": {"_type": "image-file", "path": "x"}},
        {"_step": 5, "f": "changed its type", "é": -0.0, "a.b": 1, "h": {"_type": "histogram", "bins": [0, 1]}},
        {"_step": 6, "none": None, "empty": {}, "i": 3.5},
    ]
    run = server.add_run(*DEMO, "r", odd)
    mirror.quietly()
    mirror.assert_same(run)


# -- exports


@pytest.mark.parametrize("serves", [False, True])
@pytest.mark.parametrize(
    "how", [{"files": 3, "shuffle": True}, {"files": 7, "double_steps": True}, {"row_group_size": 50}]
)
def test_exports_in_pieces_with_a_live_tail(
    server: Server, mirror: Mirror, how: dict[str, object], serves: bool
) -> None:
    server.history_serves_exported = serves
    run = server.add_run(*DEMO, "r", rows(3000), state="running")
    server.export(run, 1999, **how)
    mirror.quietly()
    mirror.assert_whole()
    server.grow(run, rows(3500, 3000))
    server.export(run, 4000, append=True, **how)
    mirror.quietly()
    mirror.assert_whole()
    server.finish(run)
    server.grow(run, rows(10, 6500))
    server.export(run)
    mirror.quietly()
    mirror.assert_whole()


def test_an_export_that_catches_up_with_the_cache(server: Server, mirror: Mirror) -> None:
    """The last row in the cache is exported, and pages no longer have it."""
    run = server.add_run(*DEMO, "r", rows(100), state="running")
    mirror.quietly()
    server.grow(run, rows(20, 100))
    server.export(run, 99)
    assert mirror.quietly().rows == 20
    mirror.assert_whole()
    server.grow(run, rows(20, 120))
    server.export(run)
    assert mirror.quietly().rows == 20
    mirror.assert_whole()


def test_a_large_run_is_not_downloaded_again_to_be_sure(server: Server, mirror: Mirror) -> None:
    count = 110_000
    columns = {"_step": np.arange(count), "_timestamp": 1.7e9 + np.arange(count) / 8, "loss": np.arange(count) / 7}
    run = server.add_run(*DEMO, "r", columns, state="running", exported=count)
    mirror.quietly()
    server.grow(run, rows(20, count))
    assert mirror.quietly().rows == 20
    assert mirror.asked == {"Runs": 1, "HistoryPage": 1, "RunParquetHistory": 1} or "export" not in mirror.asked
    assert mirror.run("r")["rows"] == count + 20


def test_addresses_that_expire_on_the_way(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(100))
    server.export(run, files=10)
    server.fail("export", skip=2, times=6, status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
    mirror.quietly()
    assert mirror.asked["export"] <= 10 + 6  # those that came are not fetched again
    assert mirror.asked["RunParquetHistory"] >= 2
    mirror.assert_same(run)


def test_addresses_that_never_work(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(100), exported=50)
    fault = server.fail("export", times=None, status=403)
    report = mirror.sync()
    assert [problem.subject for problem in report.problems] == ["me/demo/r"] and fault.hits <= 3
    assert not mirror.run("r")["complete"]
    server.calm()
    mirror.now += 100
    mirror.quietly()
    mirror.assert_same(run)


def test_exports_that_are_cut_short(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(500))
    server.export(run, files=3)
    server.fail("export", times=2, truncate=300)
    mirror.quietly()
    mirror.assert_same(run)


def test_an_export_that_is_no_parquet_file(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(500), exported=500)
    good, run.exports[0].data = run.exports[0].data, run.exports[0].data[:-100]
    report = mirror.sync()
    assert "cannot be read" in report.problems[0].reason
    run.exports[0].data = good
    mirror.now += 100
    mirror.quietly()
    mirror.assert_same(run)


# -- what is live


def test_sparse_steps_cost_a_handful_of_questions(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(2000, apart=500), state="running")
    mirror.quietly()
    assert sum(mirror.asked.values()) <= 5
    mirror.assert_same(run)
    server.grow(run, rows(1000, 1_000_000, apart=1000))
    mirror.quietly()
    assert sum(mirror.asked.values()) <= 6
    mirror.assert_same(run)


def test_a_hundred_thousand_live_rows(server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandbsync.sources.api.gather.LIVE_ROWS", 4_000)  # held at once
    monkeypatch.setattr("wandbsync.sources.api.pages.PAGE", 500)
    monkeypatch.setattr("wandbsync.sources.api.gather.PAGE", 500)
    columns = {"_step": np.arange(10_000) * 3, "loss": np.arange(10_000) / 7, "_timestamp": 1.7e9 + np.arange(10_000)}
    run = server.add_run(*DEMO, "r", columns, state="running", exported=2_300)
    mirror.quietly()
    assert mirror.asked["HistoryPage"] <= 17
    assert mirror.cells("r") == cells_of(run)


def test_missing_rows_among_many_live_ones(server: Server, mirror: Mirror) -> None:
    """What another process logs to the run with lower steps."""
    run = server.add_run(*DEMO, "r", rows(3000, apart=2), state="running")
    mirror.quietly()
    server.grow(run, [{"_step": 601, "late": 1}, {"_step": 4001, "late": 2}])
    mirror.sync()
    mirror.assert_same(run)


# -- older and other servers


LATE = ("eventsLineCount", "logLineCount", "useImprovedPagination", "parquetHistory", "liveData", "historyKeys",
        "events", "logLines", "files", "md5", "mimetype", "updatedAt", "sweepName", "jobType")  # fmt: skip


@pytest.mark.parametrize("serves", [False, True])
@pytest.mark.parametrize("field", [*LATE, "all of these"])
def test_a_server_without_a_field(server: Server, mirror: Mirror, field: str, serves: bool) -> None:
    if serves or field in ("all of these", "parquetHistory"):
        server.history_serves_exported = True  # else a server without exports would lose rows
    server.root.lacks = set(LATE) if field == "all of these" else {field}
    events = [{"_timestamp": 1.7e9 + i, "system.cpu": i / 2} for i in range(3)]
    one = server.add_run(
        *DEMO, "r", rows(2300, apart=3), exported=1200, console=["a", "b"], events=events, files={"x.txt": b"1"}
    )
    two = server.add_run(*DEMO, "two", rows(2), state="running", events=events)
    mirror.quietly()
    mirror.assert_same(one, two)
    if field not in ("all of these", "logLines"):
        assert [text for _, text in mirror.console("r")] == ["a", "b"]
    if field not in ("all of these", "events"):
        assert len(mirror.cells("r", SYSTEM)) == 6
    server.grow(two, rows(1100, 2))
    mirror.quietly()
    mirror.assert_same(one, two)
    mirror.quietly()
    assert mirror.asked == {"Runs": 1}


def test_pages_without_runs_are_not_the_end(server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandbsync.sources.api.client.RUNS_A_PAGE", 10)
    runs = [server.add_run(*DEMO, f"r{i}") for i in range(45)]
    server.root.hidden_pages = 8  # of runs that this user may not see
    assert mirror.quietly().listed == len(runs)
    mirror.assert_same(*runs)
    server.root.stuck = True
    with pytest.raises(ServerError, match="does not advance"):
        mirror.sync()


# -- trouble with one run


@pytest.mark.parametrize(
    ("how", "says", "attempts"),
    [
        ({"status": 500}, "500", 5),  # in one question with all else, and alone
        ({"status": 502, "body": HTML}, "502", 5),
        ({"status": 200, "body": b'{"errors": [{"message": "history is corrupt"}]}'}, "history is corrupt", 2),
        ({"status": 403, "body": b'{"errors": [{"message": "not yours"}]}'}, "not permit", 1),
        ({"latency": 1.0}, "did not answer", 2),  # the others wait meanwhile
        ({"reset": "before"}, "broke off", 3),
    ],
    ids=["500", "502", "graphql", "403", "timeout", "reset"],
)
def test_one_bad_run_does_not_hold_up_the_others(
    server: Server, tmp_path: Path, how: dict[str, object], says: str, attempts: int
) -> None:
    mirror = Mirror(tmp_path / "cache", server, connected(server, timeout=0.5, attempts=3))
    good = [server.add_run(*DEMO, f"r{i}", rows(3)) for i in range(20)]
    server.add_run(*DEMO, "bad", rows(1200), config={"lr": 7}, state="running")
    faults = [
        server.fail(operation, times=None, where={"run": "bad"}, **how)
        for operation in ("HistoryPage", "RunParquetHistory")
    ]

    def asked_of_bad() -> int:
        """How often since the last time; what is answered late is counted at once."""
        hits = sum(fault.hits for fault in faults)
        for fault in faults:
            fault.hits = 0
        return hits

    report = mirror.sync()
    assert asked_of_bad() == attempts
    assert [problem.subject for problem in report.problems] == ["me/demo/bad"]
    assert says in report.problems[0].reason
    mirror.assert_same(*good)
    here = mirror.run("bad")
    assert not here["complete"] and "did not come" in here["incomplete"]
    assert query.get_run(mirror.cache, RunRef(*DEMO, "bad"))["config"] == {"lr": 7}
    (shown,) = query.status(mirror.cache)["incomplete"]
    assert (shown["run_id"], shown["failures"]) == ("bad", 1) and shown["retry_at"]
    report = mirror.sync()  # left alone for a minute, and that is said
    assert report.partial and "leave me/demo/bad until" in report.problems[0].reason
    assert asked_of_bad() == 0
    mirror.now += 61
    assert mirror.sync().partial and asked_of_bad() > 0
    mirror.now += 61
    mirror.sync()
    assert asked_of_bad() == 0  # five minutes after the second failure
    server.calm()
    mirror.now += 300
    mirror.quietly()
    mirror.assert_whole()
    assert query.status(mirror.cache)["incomplete"] == []
    mirror.close()


def test_what_is_refused_besides_the_rows_is_tried_again(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(2000), console=["a"], files={"x": b"1"})
    answer = b'{"errors": [{"message": "no logs today"}], "data": null}'
    server.fail("RunParquetHistory", status=200, body=answer)
    server.fail("RunConsoleLogPage", times=None, status=200, body=answer)
    report = mirror.sync()
    assert "no logs today" in report.problems[0].reason
    mirror.assert_same(run)
    assert mirror.console("r") == []
    server.calm()
    mirror.now += 61
    assert "failed" in str(mirror.quietly().planned[0])
    assert mirror.console("r") == [("stdout", "a")]
    assert mirror.quietly().planned == []


def test_a_count_that_is_never_reached(server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a run is complete is what the server counts, and nothing else."""
    run = server.add_run(*DEMO, "r", rows(100), exported=50)
    run.exported_lines = 60  # ten are neither exported nor live
    report = mirror.sync()
    assert "10 of the 100 rows that the server counts did not come" in report.problems[0].reason
    assert (mirror.run("r")["rows"], mirror.run("r")["complete"]) == (90, False)
    tries = 0
    for _ in range(72):  # half-hourly, for a day and a half
        mirror.now += 1800
        mirror.sync()
        tries += len(mirror.asked) > 1
    assert 5 <= tries <= 10
    run.exported_lines = 50
    mirror.now += 86400
    mirror.quietly()
    mirror.assert_whole()


def test_rows_that_are_too_many_are_not_complete(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(100))
    double = Server.run
    assert double
    server.export(run)
    run.exports.append(type(run.exports[0])("copy.parquet", run.exports[0].data))
    mirror.quietly()
    mirror.assert_same(run)  # what comes twice is there once
    run.history._keep(np.arange(100) < 90)
    run.exported_lines = 90
    server.clock.advance(5)
    server.edit(run, heartbeat_at=server.clock.now())
    report = mirror.sync()
    assert "10 more than the server counts" in report.problems[0].reason
    assert not mirror.run("r")["complete"]


# -- trouble with the server


def test_the_server_goes_away_in_the_middle(server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RUNS", 1)
    for i in range(30):
        server.add_run(*DEMO, f"r{i}", rows(3))

    def pull_the_plug(progress: object) -> None:
        if len(mirror.runs()) >= 8 and not plug:
            plug.append(server.fail("*", times=None, reset="before"))

    plug: list[object] = []
    with pytest.raises(Unreachable):
        mirror.sync(progress=pull_the_plug)
    there = {name for name, run in mirror.runs().items() if run["complete"]}
    assert 8 <= len(there) < 30
    server.calm()
    mirror.api = connected(server)
    mirror.quietly()
    # By run: a question of the first pass may arrive only now.
    asked = {request.variables["run"] for request in server.requests if request.operation == "RunParquetHistory"}
    assert asked == {f"r{i}" for i in range(30)} - there
    mirror.assert_whole()


def test_a_server_in_trouble_is_not_the_fault_of_the_runs(server: Server, mirror: Mirror) -> None:
    for i in range(30):
        server.add_run(*DEMO, f"r{i}", rows(3))
    server.fail("Run*", skip=9, times=None, status=503)
    server.fail("Viewer", times=None, status=503)
    with pytest.raises(Unreachable, match="503"):
        mirror.sync()
    assert all(run["complete"] for run in mirror.runs().values())
    assert query.status(mirror.cache)["incomplete"] == []


def test_a_key_that_is_withdrawn_in_the_middle(server: Server, mirror: Mirror) -> None:
    for i in range(30):
        server.add_run(*DEMO, f"r{i}", rows(3))
    with pytest.raises(NotSignedIn):
        mirror.sync(progress=lambda at: setattr(server, "key", "x" * 40) if at.runs_done > 5 else None)
    assert sum(run["complete"] for run in mirror.runs().values()) >= 6  # what came is there


def test_what_is_deleted_while_it_is_fetched(server: Server, mirror: Mirror) -> None:
    runs = [server.add_run(*DEMO, f"r{i:02}", rows(3), state="running") for i in range(20)]
    mirror.quietly()
    for run in runs:
        server.grow(run, rows(3, 3))

    def delete(progress: object) -> None:
        for run in runs[15:]:
            if run.name in run.project.runs:
                server.delete(run)

    server.latency = 0.005
    report = mirror.quietly(progress=delete)
    assert report.deleted == 5
    mirror.assert_whole()


def test_a_storm_of_refusals(server: Server, tmp_path: Path) -> None:
    """A limit that is for real: all arrives, and hardly anything is refused."""
    limit = server.limit(rate=40, burst=8)
    runs = [server.add_run(*DEMO, f"r{i}", rows(3)) for i in range(50)]
    mirror = Mirror(tmp_path / "cache", server, connected(server, fast=False))
    report = mirror.quietly()
    mirror.assert_same(*runs)
    assert limit.refused <= 3
    assert report.waited > 0
    mirror.close()


def test_refusals_without_a_word(server: Server, mirror: Mirror) -> None:
    runs = [server.add_run(*DEMO, f"r{i}", rows(3)) for i in range(30)]
    fault = server.fail("RunParquetHistory", times=6, status=429, body=b"")
    mirror.quietly()
    assert fault.hits == 6
    mirror.assert_same(*runs)


# -- killed, interrupted, side by side


def script(folder: Path, server: Server, *lines: str) -> subprocess.Popen[str]:
    """A pass over me/demo in a process of its own."""
    code = "\n".join(
        [
            "import sys",
            "from pathlib import Path",
            "from wandbsync.cache import Cache",
            "from wandbsync.sources.api import Login, connect",
            "from wandbsync.sync import commits",
            "from wandbsync.sync.server import Asked, Terms, sync_server",
            f"api = connect(Login({server.url!r}, {server.key!r}, 'me'))",
            "def told(at): print(at.runs_done, flush=True)",
            *lines,
            f"sync_server(Cache(Path({str(folder)!r})), api, [Asked('me', 'demo')], Terms(progress=told))",
        ]
    )
    env, pipe = without_wandb() | server.env, subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True, env=env)


def test_killed_at_any_moment_it_goes_on_where_it_was(server: Server, mirror: Mirror) -> None:
    runs = [server.add_run(*DEMO, f"r{i:02}", rows(40), exported=20) for i in range(40)]
    server.latency = 0.002
    done: set[str] = set()
    for kill in (3, 11, 19, 30):
        process = script(mirror.cache.folder, server, "commits.RUNS = 3")
        assert process.stdout
        for line in process.stdout:
            if int(line) >= kill:
                process.kill()
                break
        process.wait()
        process.communicate()
        there = {name for name, run in mirror.runs().items() if run["complete"]}
        asked = Counter(request.variables.get("run") for request in server.requests)
        server.reset_counts()
        if kill > 3:
            assert not any(asked[name] for name in done), "what was committed is not fetched again"
            assert there >= done
        done = there
    assert done
    mirror.quietly()
    mirror.assert_same(*runs)
    mirror.assert_whole()
    assert list((mirror.cache.folder / "fetch").iterdir()) == []  # nor is anything left behind


def test_ctrl_c_ends_it_at_once_even_while_a_request_hangs(server: Server, mirror: Mirror) -> None:
    for i in range(12):
        server.add_run(*DEMO, f"r{i:02}", rows(3))
    server.fail("RunParquetHistory", times=None, skip=5, latency=30.0)
    process = script(mirror.cache.folder, server)
    assert process.stdout
    for line in process.stdout:
        if int(line) >= 5:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate()
    assert time.monotonic() - began < 4  # 0.1 s; much more where others want the machine, too
    assert process.returncode != 0
    assert sum(run["complete"] for run in mirror.runs().values()) == 5  # what came stays


def test_two_processes_do_not_mirror_one_project_at_once(server: Server, mirror: Mirror, tmp_path: Path) -> None:
    runs = [server.add_run(*DEMO, f"r{i:02}", rows(3)) for i in range(5)]
    other = Mirror(mirror.cache.folder, server)
    errors = []

    def meanwhile(progress: object) -> None:
        with pytest.raises(CacheBusy) as error:
            sync_server(other.cache, other.api, [Asked(*DEMO)])
        errors.append(error.value.line())

    mirror.quietly(progress=meanwhile)
    assert str(os.getpid()) in errors[0] and "me/demo" in errors[0]
    mirror.assert_same(*runs)
    assert other.quietly().planned == []
    other.close()


def test_who_asks_for_a_run_does_not_wait_for_its_project(server: Server, mirror: Mirror) -> None:
    runs = [server.add_run(*DEMO, f"r{i:02}", rows(3)) for i in range(5)]
    other = Mirror(mirror.cache.folder, server)
    asked = []

    def meanwhile(progress: object) -> None:
        if not asked:
            asked.append("r03")
            sync_server(other.cache, other.api, [Asked(*DEMO, ("r03",))])
            other.assert_same(runs[3])

    mirror.sync(progress=meanwhile)
    assert asked
    mirror.assert_same(*runs)
    assert other.quietly().planned == []
    other.close()


def test_two_processes_that_get_in_each_others_way_double_nothing(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there are no locks."""
    run = server.add_run(*DEMO, "r", rows(30), state="running")
    mirror.quietly()
    server.grow(run, rows(5, 30))
    other = Mirror(mirror.cache.folder, server)
    monkeypatch.setattr("wandbsync.sync.server.workplace", lambda folder, what: contextlib.nullcontext(folder / "x"))
    late = []

    def meanwhile(at: Progress) -> None:
        if at.runs_done and not late:  # fetched, but not committed
            late.append(other.quietly())

    report = mirror.sync(progress=meanwhile)
    assert late[0].rows == 5
    assert "another process" in report.notes[0]
    mirror.assert_same(run)
    other.close()


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_what_is_downloaded_goes_as_soon_as_it_is_committed(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr("wandbsync.sources.api.gather.HOLD", held)
    for i in range(40):
        server.export(server.add_run(*DEMO, f"r{i:02}", rows(20)), files=3)
    downloads = mirror.cache.folder / "fetch"
    most = 0

    def look(progress: object) -> None:
        nonlocal most
        most = max(most, sum(path.is_file() for path in downloads.rglob("*")))

    left = downloads / "0123456789abcdef"  # by a process that is no more
    left.mkdir(parents=True)
    (left / "x.parquet").write_bytes(b"x")
    server.latency = 0.002
    mirror.quietly(progress=look)
    assert 0 < most <= 3 * 13 if not held else most == 0
    assert list(downloads.iterdir()) == []


# -- large runs


def test_a_large_run_comes_in_parts_and_shows_when_it_is_whole(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "VALUES", 1000)
    monkeypatch.setattr("wandbsync.sources.api.gather.BATCH", 1000)
    shown: list[tuple[int, int, bool]] = []
    commit = Cache.commit

    def watched(cache: Cache, shares: Any) -> Any:
        landed = commit(cache, shares)
        if mirror.runs():
            shown.append((mirror.run("r")["rows"], len(mirror.cells("r")), mirror.run("r")["complete"]))
        return landed

    monkeypatch.setattr(Cache, "commit", watched)
    columns = {f"m{i}": np.arange(900) * 1.5 for i in range(8)} | {"_timestamp": 1.7e9 + np.arange(900)}
    run = server.add_run(*DEMO, "r", columns, exported=900, config={"lr": 1}, console=["a"])
    report = mirror.quietly()
    assert (report.rows, report.values, report.new_runs) == (900, 900 * 9 + 1, 1)
    assert len(shown) > 3 and set(shown[:-1]) == {(0, 0, False)}
    mirror.assert_same(run)
    assert mirror.console("r") == [("stdout", "a")]
    shown.clear()
    server.clock.advance(2)
    server.recreate(run, {name: column + 1 for name, column in columns.items()}, exported=900)
    mirror.quietly()
    assert len(shown) > 3 and set(shown[:-1]) == {(900, 8100, True)}  # the old rows, until the new ones are there
    mirror.assert_whole()


def test_a_large_run_that_breaks_off_in_the_middle(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "VALUES", 1000)
    monkeypatch.setattr("wandbsync.sources.api.gather.LIVE_ROWS", 1000)
    old = server.add_run(*DEMO, "old", rows(100))
    mirror.quietly()
    before = mirror.cells("old")
    server.recreate(old, rows(5000))
    server.add_run(*DEMO, "new", rows(5000), config={"lr": 1})
    server.fail("HistoryPage", times=None, skip=3, status=500, where={"run": "old"})
    server.fail("HistoryPage", times=None, skip=3, status=500, where={"run": "new"})
    assert len(mirror.sync().problems) == 2
    assert mirror.cells("old") == before
    assert (mirror.run("new")["rows"], mirror.run("new")["complete"]) == (0, False)
    server.calm()
    mirror.now += 61
    mirror.quietly()
    mirror.assert_whole()


def test_too_many_rows_to_be_added_at_once_are_fetched_anew_in_parts(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "VALUES", 500)
    monkeypatch.setattr("wandbsync.sync.arrivals.APPEND_VALUES", 2000)
    run = server.add_run(*DEMO, "r", rows(100), state="running", console=["a", "b"])
    mirror.quietly()
    server.grow(run, rows(300, 100))
    assert mirror.quietly().rows == 300
    server.grow(run, rows(4000, 400))
    server.export(run, 2000)
    server.finish(run)
    assert mirror.quietly().rows == 4400
    mirror.assert_whole()
    assert mirror.console("r") == [("stdout", "a"), ("stdout", "b")]


# -- many runs


def test_of_many_unchanged_runs_only_the_listing_is_asked(server: Server, mirror: Mirror) -> None:
    for i in range(2500):
        server.add_run(*DEMO, f"r{i}", state="running" if i % 100 == 0 else "finished")
    nodes = listed(mirror.api, *DEMO, records=True)
    mirror.cache.commit(
        [
            Share(ref, None, record(node, ref, "", incomplete=None), mirror=MirrorCursor(seen, seen))
            for ref, node in nodes.items()
            for seen in [fingerprint(node)]
        ]
    )
    report = mirror.quietly()
    assert (report.listed, report.planned) == (2500, [])
    assert mirror.asked == {"Runs": 3}
    assert query.status(mirror.cache)["projects"][0]["oldest_synced_at"]


# -- what is asked for


def test_a_dry_run_says_what_it_would_do_and_does_nothing(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(3), created_at=datetime(2024, 1, 1, tzinfo=timezone.utc))
    server.add_run(*DEMO, "new", rows(3))
    assert [str(one) for one in mirror.quietly(dry_run=True).planned] == [
        "fetch me/demo/new (new)", "fetch me/demo/r (new)",
    ]  # fmt: skip
    assert not mirror.cache.folder.exists() and mirror.asked == {"Runs": 1}
    mirror.quietly()
    server.grow(run, rows(1, 3))
    assert [str(one) for one in mirror.quietly(dry_run=True).planned] == ["fetch me/demo/r (grown)"]
    assert mirror.run("r")["rows"] == 3


def test_full_fetches_everything_anew(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(30), exported=20)
    mirror.quietly()
    run.history._pieces[0].rows[3]["loss"] = 42.0  # nothing tells
    assert mirror.quietly().planned == []
    assert [str(one) for one in mirror.quietly(full=True).planned] == ["fetch me/demo/r anew (again)"]
    run.exports.clear()
    run.exported_lines = 0
    mirror.quietly(full=True)
    mirror.assert_whole()


def test_runs_asked_for_by_id_or_display_name(server: Server, mirror: Mirror) -> None:
    one = server.add_run(*DEMO, "one", rows(3), display_name="nice")
    same = server.add_run(*DEMO, "two", rows(3), display_name="nice")
    server.add_run(*DEMO, "three", rows(3))
    mirror.quietly("one")
    assert mirror.asked == {"Run": 1, "RunParquetHistory": 1}
    assert mirror.runs().keys() == {"one"}
    mirror.quietly("nice")
    mirror.assert_same(one, same)
    one.put("late.txt", b"1")  # which no listing tells
    mirror.quietly("one")
    assert [file["name"] for file in query.list_files(mirror.cache, RunRef(*DEMO, "one"))] == ["late.txt"]
    with pytest.raises(NotFound, match="no run nope in me/demo"):
        mirror.sync("nope")
    with pytest.raises(NotFound, match="no project me/nope"):
        mirror.sync("one", project="nope")


def test_one_name_that_is_not_there_does_not_stop_the_others(server: Server, mirror: Mirror) -> None:
    runs = [server.add_run(*DEMO, name, rows(3)) for name in ("a", "b")]
    assert [problem.subject for problem in mirror.sync("a", "nope", "b").problems] == ["me/demo/nope"]
    mirror.assert_same(*runs)
    server.delete(runs[0])
    server.grow(runs[1], rows(2, 3))
    report = mirror.quietly("a", "b")
    assert report.deleted == 1 and mirror.run("a")["deleted_at"]
    assert mirror.run("b")["rows"] == 5
    assert mirror.quietly("a").deleted == 0  # and is in the cache: nothing to complain about


def test_without_rows_only_what_a_listing_tells(server: Server, mirror: Mirror) -> None:
    runs = [server.add_run(*DEMO, f"r{i}", rows(3), config={"lr": i}) for i in range(150)]
    mirror.quietly(rows=False)
    assert mirror.asked == {"Runs": 2}
    ref = RunRef(*DEMO, "r7")
    run = query.get_run(mirror.cache, ref)
    assert (run["config"], run["rows"], run["complete"]) == ({"lr": 7}, 0, False)
    assert mirror.cache.checked_at(ref) == mirror.now
    mirror.quietly("r7")
    mirror.now += 100
    server.grow(runs[7], rows(2, 3))
    mirror.quietly(rows=False)
    assert mirror.asked == {"Runs": 1, "Run": 1}
    assert mirror.cache.checked_at(ref) == mirror.now - 100  # its rows are older than that
    assert mirror.cache.checked_at(RunRef(*DEMO, "r8")) == mirror.now
    for run_ in runs[50:]:
        server.edit(run_, tags=["x"])
    mirror.quietly(rows=False)
    assert mirror.asked == {"Runs": 2}  # the records of many come together
    mirror.quietly()
    mirror.assert_whole()


def test_a_filter_follows_what_it_has_brought_to_the_end(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(3), state="running")
    server.add_run(*DEMO, "other", rows(3))
    mirror.quietly(only=RunFilter(states=("running",)))
    assert mirror.runs().keys() == {"r"}
    server.grow(run, rows(3, 3))
    server.finish(run)
    mirror.quietly(only=RunFilter(states=("running",)))
    mirror.assert_same(run)


def test_a_project_that_is_not_there(server: Server, mirror: Mirror) -> None:
    with pytest.raises(NotFound, match="no project me/nope"):
        mirror.sync(project="nope")


# -- two sources


@pytest.mark.parametrize("local", ["open", "ended"])
def test_rows_that_are_missing_beside_a_local_log(server: Server, mirror: Mirror, local: str) -> None:
    """The log's rows stay as they are; those of other steps are added."""
    run = server.add_run(*DEMO, "r", rows(100), exported=60, console=["there"], config={"lr": 1})
    ref = RunRef(*DEMO, "r")
    mine = [row for row in run.history.lines(np.arange(100)) if row["_step"] % 3]
    columns = history_columns(mine, Keys())
    cursor = LogCursor("x.wandb", "x", "1", "{}", 1.0, None, local, "{}")
    begun = RunRecord("running" if local == "open" else "finished", "local", summary={}, config={"lr": 0})
    mirror.cache.commit([Share(ref, None, begun, {HISTORY: [columns]}, logs=[cursor])])
    assert [str(one) for one in mirror.quietly().planned] == ["fetch me/demo/r (elsewhere)"]
    assert mirror.cells("r") == cells_of(run)
    got = query.get_run(mirror.cache, ref)
    assert (got["rows"], got["source"], got["config"]) == (
        (100, "both", {"lr": 1}) if local == "ended" else (100, "local", {"lr": 0})
    )
    assert mirror.console("r") == []  # the log knows better
    assert mirror.quietly().planned == []


# -- what the real SDK writes, and what it reads


SDK = Path(__file__).with_name("wandb_server") / "sdk.py"


def test_runs_of_the_sdk(server: Server, mirror: Mirror, tmp_path: Path) -> None:
    """Everything in one, an offline one that was uploaded, one that was resumed, forked and rewound."""
    for process in [sdk(server, tmp_path / name, name) for name in ("full", "offline", "branches")]:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    mirror.quietly()
    mirror.assert_whole()
    every_value_that_was_logged_is_there(mirror)
    it_has_what_the_public_api_has(mirror, tmp_path / "ask")
    the_logs_tell_the_same(mirror, tmp_path)


def sdk(server: Server, folder: Path, scenario: str) -> subprocess.Popen[str]:
    folder.mkdir()
    env = without_wandb() | server.env_in(folder)
    pipe = subprocess.PIPE
    command = [sys.executable, str(SDK), scenario]
    return subprocess.Popen(command, env=env, cwd=folder, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def every_value_that_was_logged_is_there(mirror: Mirror) -> None:
    mine = [one for one in mirror.cells("full") if not one[0].startswith("_")]
    expected = rows_as_cells({**row, "_step": i} for i, row in enumerate(ROWS))
    assert [one for one in mine if one[1] < 2000] == expected
    assert {one[0] for one in mine if one[1] >= 2000} == {"hist", "html", "image", "table"}
    offline = rows_as_cells({"x": i, "odd": math.nan, "_step": i} for i in range(300))
    assert [one for one in mirror.cells("offline") if not one[0].startswith("_")] == offline
    xs = {name: query.series(mirror.cache, RunRef(*DEMO, name), "x")[1].tolist() for name in ("again", "child")}
    assert xs == {"again": [*range(10), 100, 101, 2000], "child": [0, 1, 2, 3, 1000]}
    assert [mirror.run(name)["forked_from"] for name in ("again", "child")] == [None, "again@3"]


def it_has_what_the_public_api_has(mirror: Mirror, folder: Path) -> None:
    process = sdk(mirror.server, folder, "ask")
    answers, errors = process.communicate(
        json.dumps(
            {
                "runs": "{run.id: run for run in api.runs('me/demo')}",
                "rows": "{id: list(run.scan_history(use_cache=False)) for id, run in runs.items()}",
                "facts": "{id: [run.name, run.state, run.tags, run.notes, run.group, run.job_type, run.config] "
                "for id, run in runs.items()}",
                "summary": "{id: run.summary_metrics for id, run in runs.items()}",
                "files": "{id: [[file.name, file.size, file.md5] for file in run.files()] for id, run in runs.items()}",
                "lines": "{id: [[one.level, one.content] for one in run.console_logs()] for id, run in runs.items()}",
                "system": "{id: run.history(stream='events', pandas=False, samples=9999) for id, run in runs.items()}",
            }
        )
    )
    assert process.returncode == 0, errors
    theirs = json.loads(answers)
    assert theirs["rows"].keys() == {"full", "offline", "again", "child"}
    for run_id, found in theirs["rows"].items():
        ref = RunRef(*DEMO, run_id)
        here = query.get_run(mirror.cache, ref)
        assert mirror.cells(run_id) == rows_as_cells(found)
        assert [here[name] for name in FACTS] == theirs["facts"][run_id]
        summary = {key: value for key, value in theirs["summary"][run_id].items() if key != "_wandb"}
        assert json.dumps(here["summary_metrics"], sort_keys=True) == json.dumps(summary, sort_keys=True)
        files = [[file["name"], file["size"], file["md5"]] for file in query.list_files(mirror.cache, ref)]
        assert files == sorted(theirs["files"][run_id])
        lines = [["error" if stream == "stderr" else "", text] for stream, text in mirror.console(run_id)]
        assert lines == theirs["lines"][run_id]
        numbers = {(key, step) for key, step, *_ in mirror.cells(run_id, SYSTEM)}
        assert numbers == {(key, i) for i, one in enumerate(theirs["system"][run_id]) for key in one if key != "_wandb"}


FACTS = ("name", "state", "tags", "notes", "group", "job_type", "config")


def the_logs_tell_the_same(mirror: Mirror, folder: Path) -> None:
    with Cache(folder / "local") as cache:
        sync_local(cache, [folder], entity="me")
        local = Mirror.__new__(Mirror)
        local.cache = cache
        for run_id in ("full", "offline", "again"):
            here, there = (query.get_run(one, RunRef(*DEMO, run_id)) for one in (cache, mirror.cache))
            assert local.cells(run_id) == mirror.cells(run_id)
            same = ["rows", "state", "tags", "notes", "config", "forked_from", "sdk_version"]
            # On a busy machine the SDK may end a resumed run before it has sent these once more.
            if run_id != "again" or there["host"] is not None:
                same += ["metadata", "host"]
            assert {name: here[name] for name in same if name in here} == {
                name: there[name] for name in same if name in there
            }
            assert local.console(run_id) == mirror.console(run_id)
