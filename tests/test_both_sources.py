"""One run as a log here and on the server: one run in the cache, each row once, in whatever order they come."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import logwriter as lw
import pytest
from local_runs import contents, end, header, history, put, ref
from shell import without_wandb
from wandb_server import Run, Server

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.model import RunRef
from wandbsync.sources.api import Login, connect
from wandbsync.sync import SyncReport, sync_local
from wandbsync.sync.server import Asked, sync_server

X = ref("r1", entity="me")
SDK = Path(__file__).with_name("wandb_server") / "sdk.py"


class Both:
    """A cache, a folder of logs and a server."""

    def __init__(self, folder: Path, server: Server, cache: Cache) -> None:
        self.folder, self.server, self.cache = folder, server, cache
        self.api = connect(Login(server.url, server.key, "me"))

    def local(self, **how: Any) -> SyncReport:
        return sync_local(self.cache, [self.folder], **how)

    def remote(self) -> SyncReport:
        return sync_server(self.cache, self.api, [Asked("me", "demo")])

    def run(self) -> dict[str, Any]:
        """The run as it is listed; it has to be the only one."""
        (project,) = query.list_projects(self.cache)
        (found,) = query.list_runs(self.cache, (project["entity"], project["name"]))
        return query.get_run(self.cache, RunRef(project["entity"], project["name"], found["id"]))

    def xs(self) -> dict[int, float]:
        """Step -> x; fails if a step is there twice."""
        return {step: float(value) for (key, step), value in history(self.cache, X).items() if key == "x"}


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    (tmp_path / "logs").mkdir()
    with Server() as server, Cache(tmp_path / "cache") as cache:
        one = Both(tmp_path / "logs", server, cache)
        yield one
        one.api.transport.close()


def logged(steps: range, *, late: float = 0.0) -> list[bytes]:
    def cells(i: int) -> list[tuple[tuple[str, ...], str]]:
        return [(("x",), repr(i / 3)), (("_timestamp",), repr(1.7e9 + i + late)), (("_step",), str(i))]

    return [lw.record("core", 3 + i, history=lw.history("core", cells(i), i)) for i in steps]


def uploaded(steps: range) -> list[dict[str, Any]]:
    return [{"_step": i, "x": i / 3, "_timestamp": 1.7e9 + i} for i in steps]


def log(both: Both, steps: range, *, ended: bool = True, stamp: str = "20240101_000000", **fields: Any) -> Path:
    records = [*header("r1", **({"entity": "me"} | fields)), *logged(steps), *([end()] if ended else [])]
    return put(both.folder, "r1", records, stamp=stamp, offline=False)


def on_server(both: Both, steps: range, **fields: Any) -> Run:
    return both.server.add_run("me", "demo", "r1", uploaded(steps), **({"display_name": "by hand"} | fields))


@pytest.mark.parametrize(
    "order", [*itertools.permutations(["local", "remote"]), ("local", "remote", "local", "remote")]
)
@pytest.mark.parametrize("entity", ["me", ""])
def test_the_same_run_is_one_run(both: Both, order: tuple[str, ...], entity: str) -> None:
    log(both, range(50), entity=entity)
    on_server(both, range(50), exported=30)
    for source in order:
        getattr(both, source)()
    assert both.xs() == {i: i / 3 for i in range(50)}
    run = both.run()
    assert (run["entity"], run["rows"], run["complete"], run["state"]) == ("me", 50, True, "finished")
    assert run["name"] == "by hand" and run["url"]  # the server's record has the last word
    before = contents(both.cache)
    both.server.reset_counts()
    both.local(), both.remote(), both.local(), both.remote()
    assert contents(both.cache) == before
    assert both.server.counts.keys() <= {"Runs", "Run"}


@pytest.mark.parametrize("order", list(itertools.permutations(["local", "remote"])))
@pytest.mark.parametrize("exported", [0, 30, 50])
@pytest.mark.parametrize("flat", [False, True])
def test_a_nested_name_and_a_name_with_dots_are_one_key(
    both: Both, order: tuple[str, ...], exported: int, flat: bool
) -> None:
    """A log has the path of a nested name, the server's exports (and its pages, where it says so) have it with dots."""

    def cells(i: int) -> list[tuple[tuple[str, ...], str]]:
        return [(("train", "acc"), repr(i + 0.25)), (("lit.eral",), str(i)), (("_timestamp",), repr(1.7e9 + i))]

    records = [
        lw.record("core", 3 + i, history=lw.history("core", [*cells(i), (("_step",), str(i))], i)) for i in range(60)
    ]
    path = put(both.folder, "r1", [*header("r1", entity="me"), *records[:35]], offline=False)
    rows = [{"_step": i, "lit.eral": i, "_timestamp": 1.7e9 + i} for i in range(50)]
    for i, row in enumerate(rows):
        row |= {"train.acc": i + 0.25} if flat else {"train": {"acc": i + 0.25}}
    both.server.add_run("me", "demo", "r1", rows, exported=exported)
    for source in order:
        getattr(both, source)()
    path.write_bytes(lw.log([*header("r1", entity="me"), *records, end()]))
    both.local(), both.remote()
    found = history(both.cache, X)
    assert {key for key, _ in found} == {"train.acc", "lit.eral", "_timestamp"}
    assert {step: value for (key, step), value in found.items() if key == "train.acc"} == {
        i: repr(i + 0.25) for i in range(60)
    }
    assert both.run()["rows"] == 60


def test_rows_that_only_the_server_has_are_added(both: Both) -> None:
    """A run begun elsewhere, gone on here, and finished elsewhere."""
    log(both, range(20, 40))
    on_server(both, range(60), exported=10)
    both.local()
    assert len(both.xs()) == 20
    both.remote()
    assert both.xs() == {i: i / 3 for i in range(60)}
    assert (both.run()["complete"], both.run()["rows"]) == (True, 60)
    both.local()
    assert len(both.xs()) == 60


def test_rows_that_only_the_log_has_stay(both: Both) -> None:
    """An upload that did not come to its end."""
    log(both, range(40))
    on_server(both, range(25), state="crashed")
    both.remote(), both.local(), both.remote()
    assert both.xs() == {i: i / 3 for i in range(40)}
    assert both.run()["state"] == "finished"


def test_a_run_that_is_logged_here_is_read_from_its_log(both: Both) -> None:
    path = log(both, range(30), ended=False)
    run = on_server(both, range(20), state="running")
    with path.open("ab"):  # somebody writes to it
        both.local()
        both.server.reset_counts()
        both.remote()
        assert both.server.counts.keys() == {"Runs"}
        assert (both.run()["state"], both.run()["source"]) == ("running", "local")
        path.write_bytes(lw.log([*header("r1", entity="me"), *logged(range(35))]))
        both.local()
    path.write_bytes(lw.log([*header("r1", entity="me"), *logged(range(35)), end()]))
    both.local()
    both.server.grow(run, uploaded(range(20, 35)))
    both.server.finish(run)
    both.remote()
    assert both.xs() == {i: i / 3 for i in range(35)}
    assert (both.run()["source"], both.run()["complete"]) == ("both", True)


def test_different_rows_of_one_step_are_both_kept(both: Both) -> None:
    """Two processes under one id, each on its own: what is no duplicate is not taken for one."""
    on_server(both, range(10))
    both.remote()
    records = [*header("r1", entity="me"), *logged(range(5, 8), late=1000.0), end()]
    put(both.folder, "r1", records, offline=False)
    both.local()
    steps, _ = query.series(both.cache, X, "x")
    assert sorted(steps.tolist()) == sorted([*range(10), *range(5, 8)])


def test_reading_the_logs_anew_brings_the_servers_rows_back(both: Both) -> None:
    log(both, range(20, 40))
    on_server(both, range(60))
    both.local(), both.remote()
    both.local(full=True)
    both.remote()
    assert both.xs() == {i: i / 3 for i in range(60)} and both.run()["complete"]


def test_files_say_what_they_are_and_where(both: Both) -> None:
    path = log(both, range(3))
    files = path.parent / "files"
    files.mkdir()
    (files / "a.txt").write_text("hello")
    (files / "here.txt").write_text("only here")
    on_server(both, range(3), files={"a.txt": b"hello", "there.txt": b"only there"})
    for first, second in (both.local, both.remote), (both.remote, both.local):
        first(), second()
        found = {file.name: file for file in both.cache.files(X)}
        assert found.keys() == {"a.txt", "here.txt", "there.txt"}
        assert found["a.txt"].md5 == "XUFAKrxLKna5cZ2REBfFkg==" and found["a.txt"].local_path == str(files / "a.txt")
        assert found["there.txt"].local_path is None and found["here.txt"].md5 is None
        both.cache.forget(X)


@pytest.mark.skipif(
    tuple(map(int, version("wandb").split(".")[:2])) < (0, 31), reason="the test server is written for wandb 0.31"
)
@pytest.mark.parametrize("first", ["local", "remote"])
def test_an_offline_run_of_the_real_sdk_uploaded_later(both: Both, first: str, tmp_path: Path) -> None:
    """`wandb sync`, of a log that does not say whose it is."""
    command, env = [sys.executable, str(SDK), "offline"], without_wandb() | both.server.env_in(tmp_path)
    subprocess.run(command, env=env, cwd=both.folder, check=True, timeout=120)
    both.folder = Path(both.folder)
    order: list[Callable[[], SyncReport]] = [both.local, both.remote]
    for source in order if first == "local" else order[::-1]:
        source()
    one = RunRef("me", "demo", "offline")
    values = {step: value for (key, step), value in history(both.cache, one).items() if key == "x"}
    assert values == {i: str(i) for i in range(300)}
    assert (both.run()["entity"], both.run()["complete"], both.run()["tags"]) == ("me", True, ["late"])
    lines = [text for _, text in history(both.cache, one, "console").items()]
    assert len(lines) == len(set(lines)) == 1
