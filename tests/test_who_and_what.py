"""Whose a run is, on which machine it ran, in which sweep; what a project is; which process printed a line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from mirror import DEMO, Mirror
from wandb_server import LogLine, Server

import wandbsync
from wandbsync import query

SWEEP = (
    "method: bayes\nname: hunt\nmetric: {name: val/acc, goal: maximize}\nparameters:\n  lr: {min: 0.001, max: 0.1}\n"
)
LINES = [
    LogLine(0, "both", None, None),
    LogLine(1, "first", "info", "rank-0"),
    LogLine(2, "boom", "error", "rank-1"),
    LogLine(3, "last", "error", None),
]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        server.add_sweep(*DEMO, "sw1", SWEEP, runCountExpected=7)
        for i, acc in enumerate([0.5, 0.9, "NaN", 0.7]):
            server.add_run(
                *DEMO, f"r{i}", {"loss": [1.0]}, summary={"val/acc": acc}, sweep_name="sw1" if i else None,
                username="ann", host="node7", console=LINES,
                created_at=datetime(2024, 1, 1 + i, tzinfo=timezone.utc),
            )  # fmt: skip
        server.add_project(*DEMO).description = "all of it"
        yield server


@pytest.fixture
def api(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> wandbsync.Api:
    """With the server gone: after one sync of the project, and nobody signed in."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDBSYNC_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(mirror.cache.folder))
    mirror.quietly()
    return wandbsync.Api(cache_dir=mirror.cache.folder, offline=True)


def test_one_question_more_where_there_are_sweeps_and_none_where_nothing_changed(
    server: Server, mirror: Mirror
) -> None:
    mirror.quietly()
    assert mirror.asked["GetSweeps"] == 1 and not {"Viewer", "GetProjects"} & set(mirror.asked)
    mirror.quietly()
    assert mirror.asked == {"Runs": 1}
    server.edit(server.run(*DEMO, "r0"), sweep_name="lost")  # of a sweep that was deleted
    mirror.quietly()
    assert mirror.asked["GetSweeps"] == 1
    mirror.quietly()
    assert mirror.asked == {"Runs": 1}


def test_in_lists_sql_and_filters(mirror: Mirror) -> None:
    mirror.quietly()
    run = mirror.run("r1")
    assert (run["username"], run["user_name"], run["host"], run["sweep_id"]) == ("ann", "ann", "node7", "sw1")
    assert run["updated_at"] == run["heartbeat_at"]
    found = query.sql(mirror.cache, "SELECT username, host, updated_at = heartbeat_at FROM runs WHERE run_id = 'r1'")
    assert found.fetchall() == [("ann", "node7", True)]
    some = query.choose(
        query.all_runs(mirror.cache, DEMO), {"username": "ann", "host": "node7", "sweep": "sw1", "forked_from": None}
    )
    assert [one["id"] for one in some] == ["r1", "r2", "r3"]
    (project,) = query.list_projects(mirror.cache)
    assert (project["description"], project["total_runs"]) == ("all of it", 4) and project["created_at"]
    sweeps = "SELECT sweep_id, metric, goal, method, runs_expected, config->>'$.parameters.lr.max' FROM sweeps"
    assert query.sql(mirror.cache, sweeps).fetchall() == [("sw1", "val/acc", "maximize", "random", 7, "0.1")]


def test_the_lines_of_each_process(mirror: Mirror, api: wandbsync.Api) -> None:
    rows = "SELECT printed_to, label, text FROM console WHERE run_id = 'r0' ORDER BY line"
    told = [
        ("stdout", None, "both"),
        ("stdout", "rank-0", "first"),
        ("stderr", "rank-1", "boom"),
        ("stderr", None, "last"),
    ]
    assert query.sql(mirror.cache, rows).fetchall() == told
    lines = api.run("me/demo/r0").console_logs()
    assert [(line.level, line.label) for line in lines] == [
        ("", ""),
        ("", "rank-0"),
        ("error", "rank-1"),
        ("error", ""),
    ]


def test_with_the_server_gone(api: wandbsync.Api, tmp_path: Path) -> None:
    assert (api.viewer.username, api.viewer.entity, api.default_entity) == ("me", "me", "me")
    assert len(api.runs("demo")) == 4 and api.run("demo/r0").user.name == "ann"
    project = api.project("demo")
    assert project.created_at and project.description == "all of it"
    run = api.run("me/demo/r3")
    assert run.sweep.name == "hunt" and run.sweep.config["parameters"] == {"lr": {"min": 0.001, "max": 0.1}}
    assert (run.sweep.state, run.sweep.expected_run_count, run.sweep.order) == (
        "RUNNING",
        7,
        "-summary_metrics.val/acc",
    )
    assert [one.id for one in run.sweep.runs] == ["r1", "r2", "r3"]
    assert run.sweep.best_run().id == "r1" and run.sweep.best_run("+val/acc").id == "r3"
    assert [sweep.id for sweep in project.sweeps()] == ["sw1"] and api.run("me/demo/r0").sweep is None
    with pytest.raises(ValueError, match="Could not find sweep me/demo/sw2"):
        api.sweep("demo/sw2")
    with run.file("output.log").download(str(tmp_path / "out")) as file:
        assert file.read() == "both\nfirst\nboom\nlast\n"
    assert run.file("output.log").size == 21


def test_an_edit_that_moves_no_heartbeat_is_noticed(server: Server, mirror: Mirror) -> None:
    mirror.quietly()
    server.clock.advance(60)
    server.edit(server.run(*DEMO, "r1"), config={"lr": {"value": 5}})
    assert [str(action) for action in mirror.quietly().planned] == ["describe me/demo/r1 (edited)"]
    assert query.choose(query.all_runs(mirror.cache, DEMO), {"config.lr": 5})[0]["id"] == "r1"


def test_a_server_that_knows_nothing_of_it(server: Server, mirror: Mirror) -> None:
    """What such a server refuses is found out by asking; what it has, files and their times, is not lost by that."""
    server.root.lacks = {"user", "host", "sweeps", "totalRuns"}
    server.twist = lambda payload, status, body: (
        (400, {"errors": [{"message": 'Cannot query field "updatedAt" on type "Run".'}]})
        if "# Run.updatedAt" in payload.get("query", "")
        else (status, body)
    )
    server.run(*DEMO, "r0").put("a.txt", b"a")
    mirror.quietly()
    run = mirror.run("r0")
    assert (run["username"], run["host"], run["updated_at"], run["sweep_id"]) == (None, None, None, None)
    assert mirror.run("r1")["sweep_id"] == "sw1" and len(mirror.runs()) == 4
    assert all(file.updated_at for file in mirror.cache.files(wandbsync.model.RunRef(*DEMO, "r0")))


def test_runs_of_an_older_cache_gain_it_with_the_next_sync(mirror: Mirror) -> None:
    mirror.quietly()
    with mirror.cache.con as con:  # as a cache of version 2 is after its upgrade
        con.execute("UPDATE runs SET username = NULL, user_name = NULL, updated_at = NULL, host = NULL")
        con.execute("UPDATE mirrors SET described = json_set(described, '$[6]', 'old'), fetched = NULL")
        con.execute("UPDATE mirrors SET fetched = described")
        con.execute("DELETE FROM sweeps")
    report = mirror.quietly()
    assert {str(action) for action in report.planned} == {f"describe me/demo/r{i} (edited)" for i in range(4)}
    assert mirror.run("r2")["username"] == "ann" and report.rows == 0
    assert query.sql(mirror.cache, "SELECT count(*) FROM sweeps").fetchall() == [(1,)]
