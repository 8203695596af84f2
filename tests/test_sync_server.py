"""A pass over a server: what it asks, what is in the cache then, and what becomes of it when things go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mirror import DEMO, Mirror, cells_of, connected, rows
from wandb_server import HTML, Server

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.errors import CacheBusy, NotFound, NotSignedIn, Unreachable
from wandbsync.model import CONSOLE, HISTORY, SYSTEM, RunRef
from wandbsync.sync import commits


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        one.add_project(*DEMO)
        yield one


@pytest.fixture
def mirror(tmp_path: Path, server: Server) -> Iterator[Mirror]:
    one = Mirror(tmp_path / "cache", server)
    yield one
    one.close()


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
    listed = {file["name"]: (file["size"], file["md5"]) for file in query.list_files(mirror.cache, RunRef(*DEMO, "one"))}
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
def test_exports_in_pieces_with_a_live_tail(server: Server, mirror: Mirror, how: dict[str, object], serves: bool) -> None:
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
    server.root.empty_pages = {"MTA=", "MzA="}
    assert mirror.quietly().listed == len(runs)
    mirror.assert_same(*runs)


# -- trouble with one run


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"status": 500}, "500"),
        ({"status": 502, "body": HTML}, "502"),
        ({"status": 200, "body": b'{"errors": [{"message": "history is corrupt"}], "data": null}'}, "history is corrupt"),
        ({"status": 403, "body": b'{"errors": [{"message": "not yours"}]}'}, "not permit"),
        ({"latency": 1.0}, "did not answer"),
        ({"reset": "before"}, "broke off"),
    ],
    ids=["500", "502", "graphql", "403", "timeout", "reset"],
)
def test_one_bad_run_does_not_hold_up_the_others(
    server: Server, tmp_path: Path, how: dict[str, object], says: str
) -> None:
    mirror = Mirror(tmp_path / "cache", server, connected(server, timeout=0.5, attempts=2))
    good = [server.add_run(*DEMO, f"r{i}", rows(3)) for i in range(20)]
    bad = server.add_run(*DEMO, "bad", rows(1200), config={"lr": 7}, state="running")
    for operation in ("HistoryPage", "RunParquetHistory"):
        server.fail(operation, times=None, where={"run": "bad"}, **how)

    def asked_of_bad() -> int:
        return sum(request.variables.get("run") == "bad" for request in server.requests)

    report = mirror.sync()
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


def test_the_server_goes_away_in_the_middle(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "RUNS", 1)
    for i in range(30):
        server.add_run(*DEMO, f"r{i}", rows(3))

    def pull_the_plug(progress: object) -> None:
        if len(mirror.runs()) >= 8 and not plug:
            plug.append(server.fail("*", times=None, reset="before"))

    plug: list[object] = []
    with pytest.raises(Unreachable):
        mirror.sync(progress=pull_the_plug)
    there = sum(run["complete"] for run in mirror.runs().values())
    assert 8 <= there < 30
    server.calm()
    mirror.api = connected(server)
    mirror.quietly()
    assert mirror.asked["RunParquetHistory"] == 30 - there
    mirror.assert_whole()


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
