"""The commands with a server behind them: what they ask it, what they say when it is away, and what bad input gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import Shell
from wandb_server import HTML, Server

PIXEL = b"\x89PNG\r\n\x1a\n not much of a picture"


@pytest.fixture
def server() -> Iterator[Server]:
    """me/demo: `a` (finished, exported, named nice, with two images) and `b` (running)."""
    with Server() as one:
        loss = [1.0 / (step + 1) for step in range(1500)]
        files = {"media/images/x.png": PIXEL, "media/images/deep/x.png": PIXEL + b"2", "output.log": b"hello\n"}
        one.add_run(
            "me", "demo", "a", {"loss": loss}, exported=1000, config={"lr": 0.1}, files=files, display_name="nice"
        )
        one.add_run("me", "demo", "b", [{"loss": 1.5}, {"loss": 2.5}], state="running", tags=["best"])
        yield one


@pytest.fixture
def shell(tmp_path: Path, server: Server) -> Shell:
    shell = Shell(tmp_path)
    shell.env |= server.env
    return shell


def asked(server: Server) -> dict[str, int]:
    """How often each question was put to the server since the last time."""
    counts = {name: count.requests for name, count in server.counts.items()}
    server.reset_counts()
    return counts


def test_each_command_asks_for_what_it_needs_and_asks_once(shell: Shell, server: Server) -> None:
    def twice(*words: str) -> dict[str, int]:
        first = shell(*words)
        counts = asked(server)
        again = shell(*words)
        assert asked(server) == {}, words
        assert again.stdout.replace("downloaded", "unchanged") == first.stdout.replace("downloaded", "unchanged")
        return counts

    assert twice("list-projects", "--json") == {"Viewer": 1, "GetProjects": 1}
    assert twice("list-runs", "demo", "--json") == {"Runs": 1}
    assert twice("list-files", "me/demo", "nice", "--json").keys() <= {"Run", "RunFiles"}
    assert "HistoryPage" in twice("list-metrics", "demo", "a", "--json")
    assert "RunParquetHistory" in twice("generate-plots", "me/demo", "a,b", "--metrics", "loss")
    assert twice("download-plots", "me/demo", "a") == {"RunFiles": 1, "download": 2}
    assert twice("list-metrics", "me/demo", "b", "--json") == {}
    assert twice("sql", "SELECT count(*) FROM history") == {}


def test_what_is_listed_is_what_the_server_has(shell: Shell) -> None:
    shell("sync", "me/demo")
    by_id = {run["id"]: run for run in shell.json("list-runs", "me/demo")}
    assert (by_id["a"]["name"], by_id["a"]["rows"], by_id["a"]["complete"], by_id["a"]["source"]) == (
        "nice", 1500, True, "api",
    )  # fmt: skip
    assert (by_id["b"]["state"], by_id["b"]["tags"], by_id["b"]["rows"]) == ("running", ["best"], 2)
    loss = shell.json("list-metrics", "me/demo", "nice")["loss"]
    assert (loss["count"], loss["min"], loss["max"]) == (1500, 1 / 1500, 1)
    names = [file["name"] for file in shell.json("list-files", "demo", "a")]
    assert names == ["media/images/deep/x.png", "media/images/x.png", "output.log"]
    status = json.loads(shell("status", "--json").stdout)
    assert status["incomplete"] == status["problems"] == []
    assert "up to date: 2 runs" in shell("sync").stdout


@pytest.mark.parametrize("refuses", [False, True])
def test_a_key_that_has_expired_is_told_by_every_command_that_asks(shell: Shell, server: Server, refuses: bool) -> None:
    """Whether the server says so with 401, or as W&B does with HTTP 200 and nobody."""
    shell("sync", "me/demo")
    server.key, server.refuses_keys = "x" * 40, refuses
    for words in (
        ["sync"],
        ["sync", "me/demo"],
        ["sync", "me/demo/a"],
        ["sync", "me/*"],
        ["sync", "me/other"],
        ["list-projects", "--refresh"],
        ["list-runs", "me/demo", "--refresh"],
        ["list-metrics", "me/demo", "a", "--refresh"],
        ["list-files", "me/demo", "a", "--refresh"],
        ["sql", "SELECT 1", "--refresh"],
        ["list-runs", "me/other"],
    ):
        assert "wandb login" in shell.error(*words, code=4), words
    assert "answering from the cache" in shell("list-runs", "me/demo", "--max-age", "0s").stderr


def test_a_page_of_another_server_is_not_asked_for_here(shell: Shell, server: Server) -> None:
    page = "https://wandb.example.com/me/demo/runs/a"
    said = shell.error("sync", page, code=2)
    assert "wandb.example.com" in said and "WANDB_BASE_URL=https://wandb.example.com" in said
    assert "WANDB_BASE_URL" in shell.error("list-metrics", page, "a", code=2)
    assert server.counts == {}
    shell("sync", f"{server.url}/me/demo/runs/a")
    assert "loss" in shell("list-metrics", f"{server.url}/me/demo", "a", "--offline").stdout


def test_refresh_asks_and_offline_does_not(shell: Shell, server: Server) -> None:
    shell("sync", "me/demo")
    run = server.run("me", "demo", "b")
    server.grow(run, [{"loss": 3.5}])
    asked(server)
    assert shell.json("list-metrics", "me/demo", "b", "--offline")["loss"]["count"] == 2
    assert shell.json("list-metrics", "me/demo", "b")["loss"]["count"] == 2
    assert asked(server) == {}
    assert shell.json("list-metrics", "me/demo", "b", "--refresh")["loss"]["count"] == 3
    server.edit(run, display_name="renamed")
    assert "renamed" in {run["name"] for run in shell.json("list-runs", "me/demo", "--max-age", "0")}
    server.grow(run, [{"loss": 4.5}])
    assert "4" in shell("sql", "SELECT count(*) AS n FROM history WHERE run_id = 'b'", "--refresh").stdout


def test_targets_patterns_and_filters(shell: Shell, server: Server) -> None:
    server.add_run("some-team", "vision", "v", [{"x": 1}])
    server.add_run("some-team", "scratch", "s", [{"x": 1}])
    shell("sync", "some-team/*", "--exclude", "*/scratch", "me/demo/b")
    assert {(p["entity"], p["name"]) for p in shell.json("list-projects", "--offline")} == {
        ("some-team", "vision"), ("me", "demo"),
    }  # fmt: skip
    assert [run["id"] for run in shell.json("list-runs", "me/demo", "--offline")] == ["b"]
    shell("sync", f"{server.url}/me/demo/runs/a")
    assert len(shell.json("list-runs", "me/demo", "--offline")) == 2
    plan = shell("sync", "me/demo", "--tag", "none", "--dry-run").stdout
    assert plan == "nothing to do\n"
    assert "fetch me/demo/b anew" in shell("sync", "me/demo", "--tag", "best", "--full", "--dry-run").stdout


def test_without_the_server_the_cache_answers_and_says_so(shell: Shell, server: Server) -> None:
    shell("sync", "me/demo")
    before = shell("list-runs", "me/demo", "--json").stdout
    shell.env["WANDB_BASE_URL"] = "http://127.0.0.1:9"
    done = shell("list-runs", "me/demo", "--json", "--refresh")
    assert done.stdout == before
    assert done.stderr.startswith("answering from the cache") and "refuses the connection" in done.stderr
    assert "127.0.0.1:9" in shell.error("list-runs", "me/other", code=5)
    assert "refuses" in shell.error("sync", "me/demo", code=5)


@pytest.mark.parametrize(
    ("env", "words", "code", "says"),
    [
        ({"WANDB_API_KEY": ""}, ["sync", "me/demo"], 4, "wandb login"),
        ({"WANDB_API_KEY": ""}, ["list-runs", "me/demo", "--refresh"], 4, "wandb login"),
        ({"WANDB_API_KEY": "f" * 40}, ["sync", "me/demo"], 4, "does not accept the API key"),
        ({"WANDB_API_KEY": "f" * 40}, ["list-runs", "me/demo"], 4, "does not accept the API key"),
        ({"WANDB_API_KEY": "not a key!"}, ["sync", "me/demo"], 4, "cannot be an API key"),
        ({"WANDB_BASE_URL": "http://no.such.host.invalid"}, ["sync", "me/demo"], 5, "no.such.host.invalid"),
        ({"WANDB_BASE_URL": "nonsense"}, ["sync", "me/demo"], 2, "not the address"),
        ({}, ["sync", "nobody/demo"], 2, "no project nobody/demo"),
        ({}, ["sync", "me/nope"], 2, "no project me/nope"),
        ({}, ["sync", "me/demo/zzz"], 2, "no run zzz"),
        ({}, ["sync", "me/demo/nicer"], 2, "did you mean nice"),
        ({}, ["list-metrics", "me/demo", "nicer"], 2, "did you mean nice"),
        ({}, ["sync", "me/dmo"], 2, "did you mean me/demo"),
        ({}, ["list-runs", "me/dmo"], 2, "did you mean me/demo"),
        ({}, ["list-metrics", "me/demo", "zzz"], 2, "no run zzz"),
        ({}, ["list-runs", "me/nope"], 2, "no project me/nope"),
        ({}, ["sync", "a/b/c/d"], 2, "not a project or run"),
        ({}, ["sync", "me/none*"], 2, "no project fits"),
        ({}, ["sync", "me/demo", "--state", "tired"], 2, "tired"),
        ({}, ["sync", "me/demo", "--newer-than", "soon"], 2, "not a duration"),
    ],
)
def test_bad_input_gets_one_line(shell: Shell, env: dict[str, str], words: list[str], code: int, says: str) -> None:
    shell.env |= env
    line = shell.error(*words, code=code)
    assert says in line
    key = shell.env["WANDB_API_KEY"]
    assert not key or key not in line


def test_a_web_page_instead_of_an_answer(shell: Shell, server: Server) -> None:
    server.fail("*", times=None, status=200, body=HTML)
    line = shell.error("sync", "me/demo", code=1)
    assert "web page" in line and "proxy" in line


def test_the_key_is_nowhere_on_the_disk(shell: Shell, server: Server) -> None:
    shell("-v", "sync", "me/demo")
    shell("download-plots", "me/demo", "a")
    key = server.key.encode()
    for path in shell.folder.rglob("*"):
        assert not path.is_file() or key not in path.read_bytes(), path


def test_one_project_that_is_not_there_does_not_stop_the_others(shell: Shell) -> None:
    done = shell("sync", "me/nope", "me/demo", code=3)
    assert "synced 2 runs" in done.stdout and "no project me/nope" in done.stderr


def test_a_run_is_forgotten_and_comes_back(shell: Shell, server: Server) -> None:
    shell("sync", "me/demo")
    shell("cache", "forget", "me/demo/b")
    assert [run["id"] for run in shell.json("list-runs", "me/demo", "--offline")] == ["a"]
    shell("sync")
    assert len(shell.json("list-runs", "me/demo", "--offline")) == 2
    server.delete(server.run("me", "demo", "b"))
    assert "deleted on the server" in shell("sync").stderr
    runs = {run["id"]: run for run in shell.json("list-runs", "me/demo", "--offline")}
    assert runs["b"]["deleted_at"] and runs["b"]["rows"] == 2
    assert "nowhere else" in shell.error("cache", "forget", "me/demo/b", code=2)
    shell("cache", "forget", "me/demo/b", "--force")
