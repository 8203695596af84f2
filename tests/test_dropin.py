"""The drop-in where there is no SDK to compare with: local runs, runs that go on, rows that are not here, bad names."""

from __future__ import annotations

import doctest
import importlib
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_library import jobs
from test_wide import put
from wandb_server import Server

import wandbsync
from wandbsync.cache import Cache
from wandbsync.cache.eviction import evict
from wandbsync.model import RunRef


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT", "WANDBSYNC_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WANDBSYNC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as one:
        for name, value in one.env.items():
            monkeypatch.setenv(name, value)
        yield one


def test_local_runs_are_runs_too(tmp_path: Path) -> None:
    wandbsync.open().sync(local=jobs(tmp_path / "jobs"))
    api = wandbsync.Api()
    (run,) = api.runs("local/demo", {"config.lr": 0.1})
    assert (run.id, run.state, run.created_at, run.lastHistoryStep) == ("eager", "finished", "2023-11-14T22:13:20Z", 3)
    assert [row["loss"] for row in run.scan_history()] == [1, 0.75, 0.5, 0.25]
    assert run.summary["loss"] == run.summary.loss == 0.25 and "loss" in run.summary
    assert api.runs("local/demo")[-1].id == "steady"
    with pytest.raises(wandbsync.UsageError, match="local run"):
        run.url  # noqa: B018
    module = importlib.import_module("wandbsync.dropin.api")
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, "api", globs={}):
        said: list[str] = []
        doctest.DocTestRunner().run(test, out=said.append)
        assert not said, "".join(said)


def test_a_run_that_goes_on_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    going = server.add_run("me", "demo", "a", [{"x": 1}], state="running")
    run = wandbsync.Api(max_age=3600).run("me/demo/a")
    naps: list[float] = []

    def sleep(seconds: float) -> None:  # of everybody: the transport sleeps too
        naps.extend([seconds] * (seconds == 5))
        if len(naps) == 2:
            server.finish(going)

    monkeypatch.setattr("wandbsync.dropin.run.time.sleep", sleep)
    run.wait_until_finished()
    assert (run.state, naps) == ("finished", [5, 5])
    server.edit(going, display_name="other")
    name = run.name
    assert wandbsync.Api(offline=True).run("me/demo/a").load(force=True)["displayName"] == name  # nobody was asked
    assert wandbsync.Api(max_age=3600).run("me/demo/a").load(force=True)["displayName"] == "other"
    server.add_run("me", "demo", "b", [{"x": 1}], state="running")
    wandbsync.Api().run("me/demo/b")
    with pytest.raises(wandbsync.NotMirrored, match="goes on"):
        wandbsync.Api(offline=True).run("me/demo/b").wait_until_finished()


def test_histories_that_are_not_here_are_refused_not_empty(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.add_run("me", "demo", "a", [{"x": 1}])
    server.add_run("me", "demo", "b", [{"x": 2}])
    assert len(wandbsync.Api().runs("me/demo")) == 2  # listed, not fetched
    offline = wandbsync.Api(offline=True)
    with pytest.raises(wandbsync.NothingCached, match="no history here") as error:
        offline.run("me/demo/a").history(pandas=False)
    assert "wandbsync sync me/demo/a" in error.value.hint
    with pytest.raises(wandbsync.NothingCached):
        offline.run("me/demo/a").scan_history()
    mirror = wandbsync.open(offline=True)
    with pytest.raises(wandbsync.NothingCached):
        mirror.history("me/demo/a")
    assert mirror.history("me/demo").num_rows == 0 and "without the histories of 2 runs" in caplog.text
    wandbsync.Api().run("me/demo/a").history(pandas=False)
    assert mirror.history("me/demo").num_rows == 1
    with pytest.raises(wandbsync.NothingCached):
        mirror.history(mirror.runs("me/demo"))


def test_rows_removed_to_save_space_come_again_or_are_refused(server: Server) -> None:
    server.add_run("me", "demo", "a", [{"x": 1}, {"x": 2}])
    mirror, api = wandbsync.open(), wandbsync.Api()
    assert mirror.history("me/demo/a").num_rows == 2 and len(list(api.run("me/demo/a").scan_history())) == 2

    def remove() -> None:
        ref = RunRef("me", "demo", "a")
        with Cache(mirror.cache_dir) as cache:
            assert evict(cache, ref, cache.revision(ref) or 0, elsewhere=True)

    for ask in (
        lambda: mirror.history("me/demo/a").num_rows,
        lambda: mirror.history("me/demo").num_rows,
        lambda: mirror.history("me/demo", wide=False).num_rows,
        lambda: len(list(api.run("me/demo/a").scan_history())),
    ):
        remove()
        assert ask() == 2
    remove()
    offline = wandbsync.open(offline=True)
    for words in ("me/demo/a", "me/demo"):
        with pytest.raises(wandbsync.NothingCached, match="removed to save space"):
            offline.history(words)
    assert offline.metrics("me/demo/a")["x"]["count"] == 2


def test_a_step_that_was_logged_twice_has_two_rows(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        put(cache, [(0, {"a": 1, "b": 1.0}), (0, {"a": 2}), (1, {"a": 3, "b": None})])
    run = wandbsync.Api(offline=True).run("me/demo/r")
    rows = [{"_step": 0, "a": 1, "b": 1}, {"_step": 0, "a": 2}, {"_step": 1, "a": 3, "b": None}]
    assert list(run.scan_history()) == rows == run.history(pandas=False)
    assert run.history(pandas=False, samples=2) == [rows[0], rows[2]]
    assert list(run.scan_history(keys=["a"], max_step=1)) == [{"a": 1, "_step": 0}, {"a": 2, "_step": 0}]


def test_deleted_runs_can_be_had_by_their_id(server: Server) -> None:
    gone = server.add_run("me", "demo", "a", [{"x": 1}])
    server.add_run("me", "demo", "b", [{"x": 2}])
    mirror = wandbsync.open()
    mirror.sync("me/demo")
    server.delete(gone)
    mirror.sync("me/demo")
    api = wandbsync.Api()
    assert [run.id for run in api.runs("me/demo")] == ["b"]
    assert list(wandbsync.Api(offline=True).run("me/demo/a").scan_history()) == [{"_step": 0, "x": 1}]


def test_names_of_files_do_not_leave_the_folder(server: Server, tmp_path: Path) -> None:
    files = {"../evil.txt": b"x", "ok/../../evil.txt": b"x", "a/b.txt": b"good"}
    server.add_run("me", "demo", "a", [{"x": 1}], files=files)
    run = wandbsync.Api().run("me/demo/a")
    (tmp_path / "root").mkdir()
    for name in ("../evil.txt", "ok/../../evil.txt"):
        with pytest.raises(wandbsync.UsageError, match="would leave"):
            run.file(name).download(root=str(tmp_path / "root"))
    with run.file("a/b.txt").download(root=str(tmp_path / "root")) as opened:
        assert opened.read() == "good"
    assert not (tmp_path / "evil.txt").exists()
    with pytest.raises(ValueError, match="there already"):
        run.file("a/b.txt").download(root=str(tmp_path / "root"))
    with pytest.raises(IndexError):
        run.file("nothing.txt")
    with pytest.raises(ValueError, match="not by both"):
        run.files(names=["a"], pattern="%")
    (tmp_path / "other").mkdir()
    offline = wandbsync.Api(offline=True).run("me/demo/a")
    with offline.file("a/b.txt").download(root=str(tmp_path / "other")) as opened:
        assert opened.read() == "good"  # kept by its md5
    assert [path.name for path in (tmp_path / "root").rglob("*")] == ["a", "b.txt"]


def test_a_file_that_is_not_here_is_an_error_offline(server: Server, tmp_path: Path) -> None:
    server.add_run("me", "demo", "a", [{"x": 1}], files={"x.bin": b"1"})
    assert len(wandbsync.Api().run("me/demo/a").files()) == 1
    with pytest.raises(wandbsync.NothingCached):
        wandbsync.Api(offline=True).run("me/demo/a").file("x.bin").download()
    assert not (tmp_path / "x.bin").exists() and wandbsync.Api(offline=True).run("me/demo/a").metadata is None


def test_settings_say_whose_and_which(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_run("me", "demo", "a", [{"x": 1}])
    assert wandbsync.Api({"entity": "me", "project": "demo"}).run("a").id == "a"
    monkeypatch.setenv("WANDB_PROJECT", "demo")
    assert [run.id for run in wandbsync.Api().runs()] == ["a"]
    monkeypatch.setenv("WANDB_ENTITY", "some-team")
    with pytest.raises(ValueError, match="Could not find project demo"):
        wandbsync.Api().runs()[0]
    monkeypatch.delenv("WANDB_PROJECT")
    with pytest.raises(ValueError, match="missing project"):
        wandbsync.Api().run("a")


def test_threads_and_children_share_an_api(server: Server) -> None:
    for i in range(6):
        server.add_run("me", "demo", f"r{i}", [{"x": i}])
    api = wandbsync.Api()
    runs = api.runs("me/demo")
    found: dict[str, Any] = {}
    threads = [
        threading.Thread(target=lambda run=run: found.update({run.id: list(run.scan_history())})) for run in runs[:]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"r{i}": [{"_step": 0, "x": i}] for i in range(6)}
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_last, [api.run(f"me/demo/r{i}") for i in range(3)]) == [0, 0, 0]


def _last(run: Any) -> int:
    step: int = run.lastHistoryStep
    return step
