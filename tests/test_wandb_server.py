"""The test server's contract: what the real SDK writes is what the real wandb.Api and a plain client read back."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client as http_client
import io
import json
import math
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from shell import without_wandb
from wandb_server import HTML, Server
from wandb_server.history import wire
from wandb_server.logged import ROWS

SDK = Path(__file__).with_name("wandb_server") / "sdk.py"
# Older ones (wandbsync works with 0.22 too) are served as well, but do some of this in another way or not at all.
current_sdk = pytest.mark.skipif(
    tuple(map(int, version("wandb").split(".")[:2])) < (0, 31), reason="the contract is written for wandb 0.31"
)
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
MONDAY = datetime(2024, 1, 1, tzinfo=timezone.utc)


def sdk(server: Server, folder: Path, scenario: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SDK), scenario],
        env=without_wandb() | server.env_in(folder) | env,
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
    )


def log(server: Server, folder: Path, scenario: str) -> None:
    done = sdk(server, folder, scenario)
    assert done.returncode == (scenario == "failed"), done.stderr


def ask(server: Server, folder: Path, **expressions: str) -> dict[str, Any]:
    """The values of some expressions over `api`, a real wandb.Api in another process."""
    done = sdk(server, folder, "ask", json.dumps(expressions))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def http(
    server: Server, url: str, body: Any = None, *, key: str | None = None, **headers: str
) -> tuple[int, Any, bytes]:
    """Status, headers and body of a request by a plain client that never tries again."""
    if url.startswith("/"):
        headers["Authorization"] = "Basic " + base64.b64encode(f"api:{key or server.key}".encode()).decode()
    request = urllib.request.Request(
        (server.url if url.startswith("/") else "") + url, None if body is None else json.dumps(body).encode(), headers
    )
    try:
        with DIRECT.open(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def query(server: Server, text: str, **variables: Any) -> Any:
    status, _, body = http(server, "/graphql", {"query": text, "variables": variables})
    assert status == 200, body
    assert "errors" not in json.loads(body), body
    return json.loads(body)["data"]


def run_field(server: Server, fields: str) -> Any:
    """Fields of the run me/p/r: one plain field by its value, several or nested ones as a dict."""
    run = query(server, f'query Q {{ project(name: "p", entityName: "me") {{ run(name: "r") {{ {fields} }} }} }}')
    found = run["project"]["run"]
    return next(iter(found.values())) if len(found) == 1 and "{" not in fields else found


def listed(
    server: Server, where: Any = None, order: str = "+created_at", first: int = 1000, after: str | None = None
) -> Any:
    text = """query Runs($filters: JSONString, $order: String, $first: Int, $after: String) {
      project(name: "p", entityName: "me") { runCount(filters: $filters)
        runs(filters: $filters, order: $order, first: $first, after: $after) {
          edges { node { name } cursor } pageInfo { endCursor hasNextPage } } } }"""
    filters = None if where is None else json.dumps(where)
    return query(server, text, filters=filters, order=order, first=first, after=after)["project"]


def names(project: Any) -> list[str]:
    return [edge["node"]["name"] for edge in project["runs"]["edges"]]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server to which the SDK has logged `full`; tests only add exports."""
    folder = tmp_path_factory.mktemp("logged")
    with Server() as server:
        log(server, folder, "full")
        yield server, folder


def own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what the SDK adds."""
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def as_json(value: Any) -> str:
    """Values to compare, NaN equal to NaN."""
    return json.dumps(value, sort_keys=True)


# What the SDK writes


@current_sdk
def test_the_sdk_logs_a_run_and_every_value_arrives(logged: tuple[Server, Path]) -> None:
    run = logged[0].run("me", "demo", "full")
    assert (run.state, run.exit_code) == ("finished", 0)
    assert (run.display_name, run.notes, run.group, run.job_type) == ("a bit of everything", "two\nlines", "g", "train")
    assert run.tags == ["nightly", "grün"]
    config = {key: item["value"] for key, item in run.config.items() if key != "_wandb"}
    assert config == {"lr": 3e-4, "opt": {"name": "adam", "betas": [0.9, 0.999]}, "none": None, "a.b": 1}
    assert {metric.get("1") or metric.get("2") for metric in run.config["_wandb"]["value"]["m"]} >= {"loss", "val/*"}
    rows = run.history.lines(np.arange(len(run.history)))
    assert as_json([wire(row) for row in own(rows[:2000])]) == as_json([wire(row) for row in ROWS])
    assert [row["_step"] for row in rows] == list(range(2002))
    assert rows[2000]["hist"]["_type"] == "histogram"
    assert run.summary["loss"]["min"] == 1 / 2000
    assert run.summary["by hand"] == {"x": 1}
    assert [line.line for line in run.console] == ["a line", "a bad line"]
    assert [line.level for line in run.console] == [None, "error"]
    assert run.events
    assert "system.cpu" in str(run.events)
    assert {"config.yaml", "output.log", "wandb-metadata.json", "wandb-summary.json"} <= set(run.files)
    assert rows[2001]["image"]["path"] in run.files
    assert run.files[rows[2001]["image"]["path"]].data.startswith(b"\x89PNG")


def test_the_sdk_is_served_without_a_single_error(logged: tuple[Server, Path]) -> None:
    assert {request.operation for request in logged[0].requests if request.status not in (200, 206, 307)} == set()


def test_a_run_that_raises_is_failed(server: Server, tmp_path: Path) -> None:
    log(server, tmp_path, "failed")
    run = server.run("me", "demo", "failed")
    assert (run.state, run.exit_code, len(run.history)) == ("failed", 1, 1)


def test_resume_rewind_and_fork(server: Server, tmp_path: Path) -> None:
    log(server, tmp_path, "branches")
    again, child = server.run("me", "demo", "again"), server.run("me", "demo", "child")
    rows = again.history.between(0, 100)
    assert [(row["_step"], row["x"]) for row in rows] == [
        *((i, i) for i in range(10)),
        (10, 100),
        (11, 101),
        (12, 2000),
    ]
    assert [(row["_step"], row["x"]) for row in child.history.between(0, 100)] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 1000),
    ]


@current_sdk
def test_wandb_sync_brings_an_offline_run(server: Server, tmp_path: Path) -> None:
    log(server, tmp_path, "offline")
    run = server.run("me", "demo", "offline")
    assert (run.state, run.tags, run.config["lr"]["value"]) == ("finished", ["late"], 1)
    assert [row["x"] for row in run.history.between(0, 1000)] == list(range(300))
    assert [line.line for line in run.console] == ["an offline line"]


def test_the_sdk_gets_a_run_across_a_bad_line(server: Server, tmp_path: Path) -> None:
    server.fail("UpsertBucket", status=429, retry_after=0.1)
    server.fail("file_stream", skip=1, reset="after")  # the rows have come, the answer has not: they are sent again
    server.fail("upload", status=500)
    log(server, tmp_path, "steady")
    run = server.run("me", "demo", "steady")
    assert [row["x"] for row in run.history.between(0, 100)] == list(range(50))
    assert run.state == "finished"
    assert {0, 429, 500} <= {request.status for request in server.requests}


# What wandb.Api reads


@current_sdk
def test_the_api_reads_all_there_is(logged: tuple[Server, Path], tmp_path: Path) -> None:
    server = logged[0]
    run = server.run("me", "demo", "full")
    answers = ask(
        server,
        tmp_path,
        viewer="[api.viewer.username, api.default_entity, list(api.viewer.teams)]",
        projects="[[p.entity, p.name] for p in api.projects('me')]",
        run="api.run('me/demo/full')",
        facts="[run.id, run.name, run.state, run.tags, run.notes, run.group, run.job_type, run.user.username]",
        config="run.config",
        minimum="run.summary['loss']['min']",
        sampled="run.history(samples=100, pandas=False)",
        nested="run.history(keys=['nested.a.b', 'rare'], pandas=False)",
        system="run.history(stream='events', pandas=False)",
        last="run.lastHistoryStep",
        scan="list(run.scan_history())",
        one_key="list(run.scan_history(keys=['rare'], min_step=500, max_step=1501))",
        console="[asdict(line) for line in run.console_logs(per_page=1)]",
        tail="[line.content for line in run.console_logs(last=1)]",
        files="[[f.name, f.size, f.md5, f.updated_at] for f in run.files(per_page=2)]",
        like="[f.name for f in run.files(pattern='media/images/%.png')]",
        picture="Path(run.file(like[0]).download(root='got', replace=True).name).read_bytes().hex()",
        metadata="run.metadata['program']",
    )
    assert answers["viewer"] == ["me", "me", ["some-team"]]
    assert answers["projects"] == [["me", "demo"]]
    assert answers["facts"][:4] == ["full", "a bit of everything", "finished", ["nightly", "grün"]]
    assert answers["facts"][4:] == ["two\nlines", "g", "train", "me"]
    assert answers["config"] == {"lr": 3e-4, "opt": {"name": "adam", "betas": [0.9, 0.999]}, "none": None, "a.b": 1}
    assert answers["minimum"] == 1 / 2000
    assert len(answers["sampled"]) == 100
    assert [answers["sampled"][0]["_step"], answers["sampled"][-1]["_step"], answers["last"]] == [0, 2001, 2001]
    assert [row["nested.a.b"] for row in answers["nested"]] == [i / 7 for i in range(0, 2000, 100)]
    assert as_json(answers["system"]) == as_json([wire(event) for event in run.events])
    assert as_json(own(answers["scan"][:2000])) == as_json([wire(row) for row in ROWS])
    assert len(answers["scan"]) == 2002
    assert [row["rare"] for row in answers["one_key"]] == list(range(500, 1501, 100))
    assert [line["content"] for line in answers["console"]] == ["a line", "a bad line"]
    assert [line["level"] for line in answers["console"]] == ["", "error"]
    assert answers["tail"] == ["a bad line"]
    assert [name for name, *_ in answers["files"]] == sorted(run.files)
    for name, size, md5, _ in answers["files"]:
        assert (size, md5) == (
            len(run.files[name].data),
            base64.b64encode(hashlib.md5(run.files[name].data).digest()).decode(),
        )
    assert bytes.fromhex(answers["picture"]) == run.files[answers["like"][0]].data
    assert answers["metadata"] == str(SDK)


@current_sdk
def test_exports_the_live_tail_and_both_ways_of_history(logged: tuple[Server, Path], tmp_path: Path) -> None:
    server = logged[0]
    run = server.run("me", "demo", "full")
    reads = {
        "run": "api.run('me/demo/full')",
        "whole": "list(run.scan_history(use_cache=False))",
        "loss": "list(run.scan_history(keys=['loss'], use_cache=False))",
    }
    server.export(run, 1199, files=3, shuffle=True)
    downloads = "asdict(run.download_history_exports('exports', require_complete_history=False))"
    answers = ask(server, tmp_path, **reads, refused="run.download_history_exports('no')", some=downloads)
    assert answers["refused"].startswith("IncompleteRunHistoryError")
    assert (len(answers["some"]["paths"]), answers["some"]["contains_live_data"]) == (3, True)
    assert [row["_step"] for row in answers["whole"]] == list(range(2002))
    assert [row["loss"] for row in answers["loss"]] == [row["loss"] for row in ROWS]
    assert as_json([row["odd"] for row in answers["whole"][:2000]]) == as_json(
        [row["odd"] if i < 1200 else wire(row["odd"]) for i, row in enumerate(ROWS)]
    )

    server.history_serves_exported = True
    doubled = ask(server, tmp_path, **reads)
    server.history_serves_exported = False
    assert [len(doubled["whole"]), len(doubled["loss"])] == [2202, 2200]  # what the SDK makes of such a server

    server.export(run, files=2)
    complete = ask(server, tmp_path, **reads, all="asdict(run.download_history_exports('exports'))")
    assert [row["_step"] for row in complete["whole"]] == list(range(2002))
    assert not complete["all"]["contains_live_data"]
    tables = [pq.read_table(tmp_path / path) for path in complete["all"]["paths"]]
    assert sorted(step for table in tables for step in table["_step"].to_pylist()) == list(range(2002))
    assert all("Authorization" not in request.headers for request in server.requests if request.operation == "export")


def test_the_api_lists_runs_in_pages_with_filters_and_orders(server: Server, tmp_path: Path) -> None:
    for i in range(120):
        server.add_run("me", "p", f"r{i:03}", config={"lr": i}, created_at=MONDAY + timedelta(minutes=i))
    answers = ask(
        server,
        tmp_path,
        all="[run.id for run in api.runs('me/p', per_page=50)]",
        some="[run.id for run in api.runs('me/p', filters={'config.lr': {'$gte': 110}}, order='-config.lr.value')]",
        count="len(api.runs('me/p'))",
        missing="api.run('me/p/nope')",
        no_project="list(api.runs('me/nope'))",
    )
    assert answers["all"] == [f"r{i:03}" for i in range(120)]
    assert answers["some"] == [f"r{i:03}" for i in range(119, 109, -1)]
    assert answers["count"] == 120
    assert "Could not find run" in answers["missing"]
    assert "project not found" in answers["no_project"]
    assert server.counts["Runs"].requests == 3 + 1 + 1  # the SDK remembers the first listing


@current_sdk
def test_the_api_edits_stops_and_deletes(server: Server, tmp_path: Path) -> None:
    run = server.add_run("me", "p", "r", [{"x": 1}], config={"lr": 1})
    beat = run.heartbeat_at
    ask(server, tmp_path, run="api.run('me/p/r')", tag="run.tags.append('new')", edit="run.update()", stop="run.stop()")
    assert (run.tags, run.stopped, run.state, run.config["lr"]["value"]) == (["new"], True, "finished", 1)
    assert run.heartbeat_at == beat
    ask(server, tmp_path, run="api.run('me/p/r')", gone="run.delete()")
    assert names(listed(server)) == []


# What a plain client sees


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "a b c d"),
        ({"state": "finished"}, "a b d"),
        ({"state": {"$in": ["running", "crashed"]}}, "c"),
        ({"state": {"$nin": ["finished"]}}, "c"),
        ({"state": {"$ne": "finished"}}, "c"),
        ({"name": "a"}, "a"),
        ({"display_name": {"$regex": "^Run [ab]"}}, "a b"),
        ({"displayName": {"$not": {"$regex": "[ab]$"}}}, "c d"),
        ({"tags": "x"}, "a b"),
        ({"tags": {"$in": ["y", "z"]}}, "b c"),
        ({"$and": [{"tags": "x"}, {"tags": "y"}]}, "b"),
        ({"config.lr": {"$gt": 1, "$lte": 3}}, "b c"),
        ({"config.lr.value": 2}, "b"),
        ({"config.opt.name": "adam"}, "a"),
        ({"config.opt.value.name": "adam"}, "a"),
        ({"config.a.b": 7}, "d"),
        ({"config.opt": {"$exists": False}}, "b c d"),
        ({"summary_metrics.loss": {"$lt": 0.5}}, "c"),
        ({"summary_metrics.loss": {"$gte": 0.5}}, "a b"),
        ({"$or": [{"config.lr": 1}, {"config.lr": "4"}]}, "a d"),
        ({"$not": {"config.lr": 1}}, "b c d"),
        ({"createdAt": {"$gt": "2024-01-01T00:01:00Z"}}, "c d"),
        ({"created_at": {"$lt": "2024-01-01T00:01:00"}}, "a"),
        ({"config.lr": {"$gt": 3}}, ""),  # "4" is no number
    ],
)
def test_filters(server: Server, where: Any, expected: str) -> None:
    server.add_run("me", "p", "a", display_name="Run a", tags=["x"], created_at=MONDAY,
                   config={"lr": 1, "opt": {"name": "adam"}}, summary={"loss": 1.5})  # fmt: skip
    server.add_run("me", "p", "b", display_name="Run b", tags=["x", "y"], created_at=MONDAY + timedelta(minutes=1),
                   config={"lr": 2}, summary={"loss": 0.5})  # fmt: skip
    server.add_run("me", "p", "c", display_name="Run c", tags=["z"], created_at=MONDAY + timedelta(minutes=2),
                   config={"lr": 3}, summary={"loss": 0.25}, state="running")  # fmt: skip
    server.add_run("me", "p", "d", display_name="Run d", created_at=MONDAY + timedelta(minutes=3),
                   config={"lr": "4", "a.b": 7})  # fmt: skip
    assert names(listed(server, where)) == expected.split()
    assert listed(server, where)["runCount"] == len(expected.split())


def test_orders_pages_and_what_an_insertion_does_to_them(server: Server) -> None:
    for i, loss in enumerate([3, 1, None, 2]):
        summary = {} if loss is None else {"loss": loss}
        server.add_run("me", "p", f"r{i}", created_at=MONDAY + timedelta(days=i), summary=summary, config={"n": -i})
    assert names(listed(server, order="+created_at")) == ["r0", "r1", "r2", "r3"]
    assert names(listed(server, order="-created_at")) == ["r3", "r2", "r1", "r0"]
    assert names(listed(server, order="-config.n.value")) == ["r0", "r1", "r2", "r3"]
    assert names(listed(server, order="+summary_metrics.loss")) == ["r1", "r3", "r0", "r2"]
    assert names(listed(server, order="-summary_metrics.loss")) == ["r0", "r3", "r1", "r2"]
    page = listed(server, order="-created_at", first=2)
    assert (names(page), page["runs"]["pageInfo"]["hasNextPage"]) == (["r3", "r2"], True)
    server.add_run("me", "p", "new")
    cursor = page["runs"]["pageInfo"]["endCursor"]
    page = listed(server, order="-created_at", first=2, after=cursor)
    assert (names(page), page["runs"]["pageInfo"]["hasNextPage"]) == (["r2", "r1"], True)  # r2 twice


def test_pages_of_what_the_user_may_not_see_are_empty(server: Server) -> None:
    server.add_run("me", "p", "r")
    server.root.hidden_pages = 2
    cursors: list[Any] = [None]
    while len(cursors) < 3:
        page = listed(server, after=cursors[-1])
        assert (names(page), page["runs"]["pageInfo"]["hasNextPage"]) == ([], True)
        cursors.append(page["runs"]["pageInfo"]["endCursor"])
    assert len(set(cursors)) == 3
    assert names(listed(server, after=cursors[-1])) == ["r"]


def test_one_bad_run_and_too_many_records_spoil_an_answer(server: Server) -> None:
    runs = [server.add_run("me", "p", f"r{i}", [{"x": 1}]) for i in range(3)]
    query_text = 'query Q { project(name: "p", entityName: "me") { runs { edges { node { name summaryMetrics } } } } }'
    server.root.most_records = 2
    assert http(server, "/graphql", {"query": query_text})[::2] == (502, HTML)
    server.root.most_records = 3
    assert http(server, "/graphql", {"query": query_text})[0] == 200
    server.poison(runs[1], "summary")
    status, _, body = http(server, "/graphql", {"query": query_text})
    assert (status, json.loads(body)["data"]) == (500, {"project": None})
    server.poison(runs[0])
    text = '{ project(name: "p", entityName: "me") { run(name: "r0") { history(samples: 1) } } }'
    status, _, body = http(server, "/graphql", {"query": text})
    assert (status, json.loads(body)["errors"][0]["message"]) == (500, "run not found for history loading: me/p/r0")


def test_what_the_schema_does_not_have_is_an_error(server: Server) -> None:
    server.add_run("me", "p", "r")
    status, _, body = http(server, "/graphql", {"query": "{ viewer { shoeSize } }"})
    assert (status, json.loads(body)["errors"][0]["message"]) == (400, "Cannot query field 'shoeSize' on type 'User'.")
    assert http(server, "/graphql", {"query": "{ viewer { "})[0] == 400
    fields = query(server, '{ __type(name: "Run") { fields { name } } }')["__type"]["fields"]
    assert {"name": "historyLineCount"} in fields
    for where in ({"shoeSize": 1}, {"state": {"$like": "x"}}):
        text = 'query Q($f: JSONString) { project(name: "p", entityName: "me") { runCount(filters: $f) } }'
        _, _, body = http(server, "/graphql", {"query": text, "variables": {"f": json.dumps(where)}})
        assert "unknown" in json.loads(body)["errors"][0]["message"]


def test_what_is_not_there_is_refused(server: Server) -> None:
    server.add_run("me", "p", "r")
    for text in (
        'mutation U { upsertBucket(input: {entityName: "stranger", modelName: "p", name: "r"}) { inserted } }',
        'mutation R { rewindRun(input: {projectName: "p", runName: "s", metricName: "_step", metricValue: 1}) '
        "{ rewoundRun { id } } }",
        'mutation D { deleteRun(input: {id: "nonsense"}) { clientMutationId } }',
        '{ project(name: "p", entityName: "me") { bucket(name: "s") { id } } }',
    ):
        status, _, body = http(server, "/graphql", {"query": text})
        assert (status, "not found" in json.loads(body)["errors"][0]["message"]) == (404, True)
    assert query(server, '{ project(name: "p", entityName: "me") { run(name: "s") { id } } }') == {
        "project": {"run": None}
    }
    status, _, body = http(server, "/graphql", {"query": '{ project(name: "q") { id } }'})
    answer = json.loads(body)
    assert (status, answer["data"]) == (404, {"project": None})
    assert [(one["message"], one["path"]) for one in answer["errors"]] == [("project not found", ["project"])]


def test_keys_are_asked_for(server: Server, tmp_path: Path) -> None:
    body = {"query": "{ viewer { username } }"}
    assert http(server, "/graphql", body)[0] == 200
    nobody = (200, {"data": {"viewer": None}})
    for status, _, text in (http(server, "/graphql", body, key="x" * 40), http(server, server.url + "/graphql", body)):
        assert (status, json.loads(text)) == nobody
    assert http(server, server.url + "/files/me/p/r/a.txt")[0] == 401
    server.add_run("me", "p", "r")
    old, server.key = server.key, "y" * 40
    assert json.loads(http(server, "/graphql", body, key=old)[2]) == nobody[1]
    assert run_field(server, "id")
    server.refuses_keys = True
    assert http(server, "/graphql", body, key=old)[0] == 401
    refused = sdk(server, tmp_path, "ask", json.dumps({"who": "api.viewer.username"}), WANDB_API_KEY=old)
    assert "user is not logged in" in refused.stderr


def test_history_by_pages_keys_and_samples(server: Server) -> None:
    rows = [{"loss": float(i), "odd": math.nan, "n": {"x": i}} | ({"rare": i} if i % 3 == 0 else {}) for i in range(10)]
    run = server.add_run("me", "p", "r", rows, exported=4)
    page = [json.loads(row) for row in run_field(server, "history(minStep: 2, maxStep: 6, samples: 10)")]
    assert page == [
        {"loss": i, "odd": "NaN", "n": {"x": i}, "_step": i} | ({"rare": i} if i == 3 else {}) for i in (4, 5)
    ]
    server.history_serves_exported = True
    page = [json.loads(row) for row in run_field(server, "history(minStep: 2, maxStep: 6, samples: 10)")]
    assert [row["_step"] for row in page] == [2, 3, 4, 5]
    server.history_serves_exported = False
    sampled = [json.loads(row)["_step"] for row in run_field(server, "history(samples: 4)")]
    assert sampled == [0, 3, 6, 9]
    spec = json.dumps(json.dumps({"keys": ["_step", "rare", "n.x"], "minStep": 0, "maxStep": 6, "samples": 100}))
    sampled = run_field(server, f"sampledHistory(specs: [{spec}])")["sampledHistory"]
    assert sampled == [[{"_step": 6, "rare": 6, "n.x": 6}]]  # maxStep is inclusive here
    live = run_field(server, 'parquetHistory(liveKeys: ["_step"]) { parquetUrls liveData }')["parquetHistory"]
    assert live["liveData"] == [{"_step": step} for step in range(4, 10)]
    keys = run_field(server, "historyKeys")
    assert (keys["lastStep"], keys["keys"]["rare"]) == (
        9,
        {"typeCounts": [{"type": "number", "count": 4}], "monotonic": False, "previousValue": None},
    )
    assert "n.x" in keys["keys"]
    table = pq.read_table(io.BytesIO(http(server, live["parquetUrls"][0])[2]))
    assert table.num_rows == 4
    assert table["rare"].to_pylist() == [0, None, None, 3]
    assert all(math.isnan(value) for value in table["odd"].to_pylist())
    assert run.exported_lines == 4


def test_exports_come_in_several_files_in_any_order(server: Server) -> None:
    run = server.add_run("me", "p", "r", {"loss": np.arange(100) / 7})
    server.export(run, 59, files=3, shuffle=True, double_steps=True)
    orders, contents = set(), set()
    for _ in range(20):
        urls = run_field(server, 'parquetHistory(liveKeys: ["_step"]) { parquetUrls }')["parquetHistory"]["parquetUrls"]
        orders.add(tuple(url.partition("?")[0] for url in urls))
    assert len(orders) > 1
    for url in urls:
        table = pq.read_table(io.BytesIO(http(server, url)[2]))
        assert str(table.schema.field("_step").type) == "double"
        contents |= set(table["_step"].to_pylist())
    assert contents == set(range(60))
    server.export(run, append=True)
    assert (len(run.exports), run.exported_lines) == (4, 100)
    assert sum(pq.read_table(io.BytesIO(export.data)).num_rows for export in run.exports) == 100
    server.rewind(run, 30)
    assert (run.exports, len(run.history)) == ([], 31)
    server.export(run)
    server.grow(run, [{"loss": 1}])
    assert (len(run.exports), run.exported_lines, run.history.last_step) == (1, 31, 31)


def _member(value: dict[str, Any]) -> Any:
    """The one member of a history store union that is given."""
    (found,) = [one for name, one in value.items() if one is not None and name.startswith("_type_")]
    return found


def test_odd_columns_survive_an_export(server: Server) -> None:
    histogram = {"_type": "histogram", "bins": [0.0, 1.0], "values": [3]}
    rows = [
        {"mixed": 1, "empty": {}, "hist": histogram, "big": 2**70, "int or float": 1}
        | {"nested": {"a": 1.0}, "list": [1.0, "x"], "nan": math.nan},
        {"mixed": "two", "int or float": 2.5, "flag": True, "none": None, "nan": "text"},
    ]
    run = server.add_run("me", "p", "r", rows)
    server.grow(run, {"mixed": np.arange(2), "late": ["x", "y"]})
    server.export(run)
    table = pq.read_table(io.BytesIO(run.exports[0].data))
    assert [_member(value) for value in table["mixed"].to_pylist()] == [1.0, "two", 0.0, 1.0]
    assert table["hist"].to_pylist() == [histogram, None, None, None]
    assert table["empty"].to_pylist() == [b"{}", None, None, None]
    assert table["big"].to_pylist() == [str(2**70).encode(), None, None, None]
    assert table["nested.a"].to_pylist() == [1.0, None, None, None]
    assert [_member(value) for value in table["list"].to_pylist()[0]] == [1.0, "x"]
    assert [_member(value) for value in table["nan"].to_pylist()[:2]] == ["NaN", "text"]
    assert table["int or float"].to_pylist() == [1.0, 2.5, None, None]
    assert table["late"].to_pylist() == [None, None, "x", "y"]
    assert table["_step"].to_pylist() == [0, 1, 2, 3]


def test_grow_finish_rewind_delete_and_recreate(server: Server) -> None:
    fields = "state createdAt heartbeatAt historyLineCount eventsLineCount logLineCount summaryMetrics historyKeys"
    run = server.add_run("me", "p", "r", [{"x": 1}], state="running", console=["hello"], events=[{"system.cpu": 1}])
    first = run_field(server, fields)
    assert (first["state"], first["historyLineCount"], first["eventsLineCount"], first["logLineCount"]) == (
        "running",
        1,
        1,
        1,
    )
    server.clock.advance(10)
    server.grow(run, [{"x": 2}, {"x": 3, "_step": 50}])
    grown = run_field(server, fields)
    assert (grown["historyLineCount"], grown["historyKeys"]["lastStep"]) == (3, 50)
    assert json.loads(grown["summaryMetrics"])["x"] == 3
    assert grown["heartbeatAt"] > first["heartbeatAt"]
    assert names(listed(server, {"state": "crashed"})) == []
    server.clock.advance(301)
    assert run_field(server, "state") == "crashed"
    assert names(listed(server, {"state": "crashed"})) == ["r"]
    server.finish(run)
    assert run_field(server, "state") == "finished"
    server.rewind(run, 1)
    assert run_field(server, fields)["historyLineCount"] == 2
    quiet = run_field(server, "heartbeatAt")
    server.clock.advance(10)
    server.edit(run, tags=["edited"])
    assert run_field(server, "tags heartbeatAt") == {"tags": ["edited"], "heartbeatAt": quiet}
    again = server.recreate(run, [{"y": 1}])
    assert again.id == run.id
    assert run_field(server, "createdAt") > first["createdAt"]
    server.delete(again)
    assert query(server, '{ project(name: "p", entityName: "me") { run(name: "r") { id } } }')["project"]["run"] is None


def test_files_console_and_system_metrics(server: Server) -> None:
    files = {"output.log": b"log", "media/a_1.png": b"png", "media/b.json": b"{}"}
    server.add_run("me", "p", "r", files=files, console=[f"line {i}" for i in range(5)],
                   events=[{"_timestamp": i, "system.cpu": i / 2} for i in range(100)])  # fmt: skip
    page = run_field(
        server, 'files(first: 1, pattern: "media/%") { edges { node { name } } pageInfo { endCursor hasNextPage } }'
    )
    assert page["files"]["edges"][0]["node"]["name"] == "media/a_1.png"
    assert page["files"]["pageInfo"]["hasNextPage"]
    one = run_field(server, 'files(pattern: "media/_.json") { edges { node { name } } }')
    assert [edge["node"]["name"] for edge in one["files"]["edges"]] == ["media/b.json"]
    found = run_field(
        server, 'files(names: ["media/b.json"]) { edges { node { url directUrl md5 sizeBytes mimetype } } }'
    )
    node = found["files"]["edges"][0]["node"]
    assert (node["sizeBytes"], node["mimetype"]) == (2, "application/json")
    assert node["md5"] == base64.b64encode(hashlib.md5(b"{}").digest()).decode()
    assert http(server, node["directUrl"])[2] == b"{}"
    assert http(server, node["url"].removeprefix(server.url))[2] == b"{}"
    assert http(server, node["directUrl"], Range="bytes=1-")[::2] == (206, b"}")
    sampled = [json.loads(event)["system.cpu"] for event in run_field(server, "events(samples: 3)")]
    assert len(sampled) == 3
    assert (sampled[0], sampled[-1]) == (0, 49.5)
    lines = "edges { node { number line } } pageInfo { endCursor hasNextPage }"
    page = run_field(server, f"logLines(first: 2, useImprovedPagination: true) {{ {lines} }}")["logLines"]
    cursor = page["pageInfo"]["endCursor"]
    page = run_field(server, f'logLines(first: 2, after: "{cursor}", useImprovedPagination: true) {{ {lines} }}')[
        "logLines"
    ]
    assert [edge["node"]["line"] for edge in page["edges"]] == ["line 2", "line 3"]
    tail = run_field(server, f"logLines(first: 1, last: 2) {{ {lines} }}")["logLines"]
    assert [edge["node"]["number"] for edge in tail["edges"]] == [3, 4]


def test_the_file_stream_by_hand(server: Server) -> None:
    run = server.add_run("me", "p", "r", state="running")

    def send(files: dict[str, tuple[int, list[Any]]], **more: Any) -> Any:
        chunks = {
            name: {
                "offset": offset,
                "content": [item if isinstance(item, str) else json.dumps(item) for item in content],
            }
            for name, (offset, content) in files.items()
        }
        status, _, body = http(server, "/files/me/p/r/file_stream", {"files": chunks} | more)
        assert status == 200
        return json.loads(body)

    send({"wandb-history.jsonl": (0, [{"_step": 0}, {"_step": 1}]), "wandb-events.jsonl": (0, [{"system.cpu": 1}])})
    send({"wandb-history.jsonl": (2, [{"_step": 2}]), "wandb-events.jsonl": (1, [{"system.cpu": 2}])})
    send({"wandb-history.jsonl": (2, [{"_step": 2}])})  # the answer was lost
    assert run_field(server, "historyLineCount eventsLineCount") == {"historyLineCount": 3, "eventsLineCount": 2}
    assert [event["system.cpu"] for event in run.events] == [1, 2]
    send({"output.log": (0, ["2024-01-01T00:00:00.000000 one", "ERROR 2024-01-01T00:00:00.000000 50%"])})
    send({"output.log": (3, [{"content": "four", "level": "error", "ts": "2024-01-01T00:00:00.000000"}])})
    send({"output.log": (1, ["ERROR 2024-01-01T00:00:00.000000 100%"])})  # a progress bar
    console = [("one", None), ("100%", "error"), ("", None), ("four", "error")]
    assert [(line.line, line.level) for line in run.console] == console
    run.stopped = True
    assert send({"wandb-summary.json": (0, [{"best": 1}])})["stopped"]
    assert (run.summary, run.state) == ({"best": 1}, "running")
    send({}, preempting=True)
    assert run.state == "preempting"
    send({}, complete=True, exitcode=3)
    assert (run.state, run.exit_code) == ("failed", 3)
    assert http(server, "/files/me/p/nope/file_stream", {})[0] == 404


# Faults, limits, counts

WHO = {"query": "query Who { viewer { username } }"}


def test_scripted_statuses_headers_and_bodies(server: Server) -> None:
    fault = server.fail("Who", skip=1, times=2, status=429, retry_after=3, headers={"RateLimit-Remaining": "0"})
    answers = [http(server, "/graphql", WHO) for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 429, 429, 200]
    assert (answers[1][1]["Retry-After"], answers[1][1]["RateLimit-Remaining"], fault.hits) == ("3", "0", 2)
    server.fail("W*", status=502, body=HTML)
    status, headers, body = http(server, "/graphql", WHO)
    assert (status, headers["Content-Type"], body) == (502, "text/html", HTML)
    server.fail("Who", status=200, body=HTML, times=None)
    assert http(server, "/graphql", WHO)[2] == http(server, "/graphql", WHO)[2] == HTML
    server.calm()
    assert http(server, "/graphql", WHO)[0] == 200


def test_reset_truncated_and_late(server: Server) -> None:
    server.fail("Who", reset="before")
    with pytest.raises((ConnectionResetError, urllib.error.URLError)):
        http(server, "/graphql", WHO)
    server.fail("UpsertBucket", reset="after")
    create = 'mutation UpsertBucket { upsertBucket(input: {modelName: "p", name: "r"}) { inserted } }'
    with pytest.raises((ConnectionResetError, urllib.error.URLError)):
        http(server, "/graphql", {"query": create})
    assert server.run("me", "p", "r").state == "running"  # the work was done all the same
    server.fail("Who", truncate=10)
    with pytest.raises(http_client.IncompleteRead):
        http(server, "/graphql", WHO)
    server.fail("Who", latency=0.3)
    began = time.monotonic()
    assert http(server, "/graphql", WHO)[0] == 200
    assert time.monotonic() - began > 0.3
    assert [request.status for request in server.requests] == [0, 0, 200, 200]


def test_a_rate_limit_really_limits(server: Server) -> None:
    limit = server.limit("Who", rate=10, burst=3)
    first = [http(server, "/graphql", WHO) for _ in range(4)]
    assert [status for status, _, _ in first] == [200, 200, 200, 429]
    assert [headers["RateLimit-Remaining"] for _, headers, _ in first] == ["2", "1", "0", "0"]
    assert first[3][1]["Retry-After"] == "1"
    assert first[3][1]["RateLimit-Limit"] == "3"
    time.sleep(0.15)
    assert http(server, "/graphql", WHO)[0] == 200
    assert limit.refused == 1
    assert http(server, "/graphql", {"query": "{ viewer { id } }"})[0] == 200
    server.calm()
    server.limit(rate=0.1, burst=1, retry_after=False)
    assert [http(server, "/graphql", WHO)[0] for _ in range(2)] == [200, 429]
    assert http(server, "/graphql", WHO)[1]["Retry-After"] is None


def test_signed_urls_expire_and_serve_one_method(server: Server) -> None:
    server.add_run("me", "p", "r", {"x": np.arange(10)}, exported=10, files={"a.txt": b"a"})
    ask_url = 'parquetHistory(liveKeys: ["_step"]) { parquetUrls }'
    (url,) = run_field(server, ask_url)["parquetHistory"]["parquetUrls"]
    assert http(server, url)[0] == 200
    assert http(server, url.replace("signature=", "signature=0"))[0] == 403
    server.expire_urls()
    status, _, body = http(server, url)
    assert (status, b"Request has expired" in body) == (403, True)
    (url,) = run_field(server, ask_url)["parquetHistory"]["parquetUrls"]
    assert http(server, url)[0] == 200
    server.clock.advance(4000)
    assert http(server, url)[0] == 403
    (url,) = run_field(server, ask_url)["parquetHistory"]["parquetUrls"]
    server.export(server.run("me", "p", "r"))
    assert http(server, url)[0] == 404
    upload = server.signer.url("files", "me", "p", "r", "a.txt", method="PUT")
    assert http(server, upload)[0] == 403


def test_requests_and_bytes_are_counted(server: Server) -> None:
    server.add_run("me", "p", "r", files={"a.txt": b"a" * 1000})
    threads = [threading.Thread(target=http, args=(server, "/graphql", WHO)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    http(server, "/files/me/p/r/a.txt")
    counts = server.counts
    assert {name: count.requests for name, count in counts.items()} == {"Who": 20, "file": 1, "download": 1}
    assert counts["download"].bytes_out == 1000
    assert counts["Who"].bytes_in == 20 * len(json.dumps(WHO))
    assert server.requests[0].variables == {}
    server.reset_counts()
    assert server.counts == {}
    server.gzip = True
    text = "{ __schema { types { name fields { name } } } }"
    _, headers, body = http(server, "/graphql", {"query": text}, **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).startswith(b'{"data"')


def test_large_histories_are_seeded_in_no_time(server: Server) -> None:
    began = time.monotonic()
    columns = {f"m{i}": np.arange(200_000) / (i + 1) for i in range(20)}
    run = server.add_run("me", "p", "r", columns, exported=150_000)
    for i in range(2_000):
        server.add_run("me", "many", f"r{i}", {"x": columns["m0"][:1000]}, config={"lr": i})
    assert time.monotonic() - began < 10
    assert len(run_field(server, "history(minStep: 199000, maxStep: 200000, samples: 1000)")) == 1000
    assert run.history.keys()["keys"]["m19"]["typeCounts"] == [{"type": "number", "count": 200_000}]
