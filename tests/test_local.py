"""The local source: which logs there are, whose they are, and what real runs of the SDK become."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import logwriter as lw
import pytest
from conftest import sdk_process
from local_runs import contents, end, header, history, put, ref, rows, small

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.errors import EmptyLog, LogError, UsageError
from wandbsync.model import CONSOLE, SYSTEM, RunRef
from wandbsync.sources import local
from wandbsync.sync import sync_local

SdkRuns = Callable[[str], Path]


def found(*folders: Path) -> list[str]:
    found = local.find(folders)
    logs, problems = found.logs, found.unreadable
    assert problems == {}
    return [log.path for log in logs]


# -- finding


def test_runs_are_found_at_any_depth_and_under_either_name(tmp_path: Path) -> None:
    online = put(tmp_path / "a" / "b", "r1", [], offline=False)
    offline = small(tmp_path / "c", "r2")
    hidden = tmp_path / "d" / ".wandb" / "run-20240101_000000-r3" / "run-r3.wandb"
    hidden.parent.mkdir(parents=True)
    hidden.touch()
    assert found(tmp_path) == sorted(map(str, [online, offline, hidden]))


def test_a_run_directory_or_a_log_itself_will_do(tmp_path: Path) -> None:
    path = small(tmp_path, "r1")
    assert found(path) == found(path.parent) == found(path, path.parent, tmp_path) == [str(path)]


def test_a_log_is_counted_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    path = small(tmp_path / "job", "r1")
    (tmp_path / "job" / "wandb" / "latest-run").symlink_to(path.parent)
    (tmp_path / "a-link.wandb").symlink_to(path)
    (path.parent / "loop").symlink_to(tmp_path)
    os.link(path, path.with_name("run-hard.wandb"))
    assert len(found(tmp_path)) == 1


def test_a_linked_wandb_folder_is_followed(tmp_path: Path) -> None:
    path = small(tmp_path / "disk", "r1")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "wandb").symlink_to(tmp_path / "disk" / "wandb")
    (tmp_path / "job" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "job" / "gone.wandb").symlink_to(tmp_path / "nowhere")
    assert found(tmp_path / "job") == [str(path)]


def test_a_stray_log_does_not_hide_the_runs_below(tmp_path: Path) -> None:
    inner = small(tmp_path, "r1")
    stray = tmp_path / "copied.wandb"
    stray.write_bytes(inner.read_bytes())
    (tmp_path / "named.wandb").mkdir()
    deep = small(tmp_path / "named.wandb", "r2")
    assert found(tmp_path) == sorted(map(str, [inner, stray, deep]))


def test_what_lies_in_the_files_of_a_run_is_no_run(tmp_path: Path) -> None:
    path = small(tmp_path, "r1")
    small(path.parent / "files", "r2")
    small(tmp_path / "node_modules", "r3")
    assert found(tmp_path) == [str(path)]


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        local.find([tmp_path / "typo"])


def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = small(tmp_path / "good", "r1"), small(tmp_path / "bad", "r2")
    really = os.scandir

    def scandir(place: str) -> Any:
        if place == str(bad.parent.parent):
            raise PermissionError(13, "Permission denied", place)
        return really(place)

    monkeypatch.setattr(os, "scandir", scandir)
    found = local.find([tmp_path])
    logs, problems = found.logs, found.unreadable
    assert [log.path for log in logs] == [str(good)]
    assert problems == {str(bad.parent.parent): f"cannot read {bad.parent.parent}: Permission denied"}


def test_a_name_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    good = small(tmp_path, "r1")
    bad = os.fsencode(tmp_path) + b"/wandb/run-\xff"
    Path(os.fsdecode(bad)).mkdir()
    Path(os.fsdecode(bad), "run-r2.wandb").write_bytes(good.read_bytes())
    found = local.find([tmp_path])
    logs, problems = found.logs, found.unreadable
    assert [log.path for log in logs] == [str(good)]
    assert all("not UTF-8" in reason for reason in problems.values()) and len(problems) == 1
    assert all(name.encode() for name in problems)


def test_the_signature_changes_with_all_that_may_be_news(tmp_path: Path) -> None:
    path = small(tmp_path, "r1")

    def signature() -> str:
        (one,) = local.find([tmp_path]).logs
        return one.signature

    seen = [signature()]
    assert signature() == seen[0]
    with path.open("ab") as file:
        file.write(b"x")
    seen.append(signature())
    (path.parent / "files").mkdir()
    seen.append(signature())
    (path.parent / "files" / "config.yaml").touch()
    seen.append(signature())
    assert len(set(seen)) == 4


# -- whose it is


def test_the_log_says_whose_it_is(tmp_path: Path) -> None:
    path = small(tmp_path, "r1", entity="me", project="mine")
    assert local.identify(str(path), entity="local").ref == ref("r1", "mine", "me")


def test_what_the_log_does_not_say_the_settings_or_the_debug_log_do(tmp_path: Path) -> None:
    path = small(tmp_path, "r1", project="")
    assert local.identify(str(path), entity="local").ref == ref("r1", "uncategorized")
    (tmp_path / "wandb" / "settings").write_text("[default]\nentity = team\nproject = proj\n")
    assert local.identify(str(path), entity="local").ref == ref("r1", "proj", "team")
    (path.parent / "logs").mkdir()
    (path.parent / "logs" / "debug.log").write_text("INFO finishing run us/other/r1\nINFO finishing run us/this/r12\n")
    assert local.identify(str(path), entity="local").ref == ref("r1", "other", "us")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/abs", "a/b", "a b\n", "ä:*?", "'; DROP TABLE runs; --", "..", "%s", "/"]
)
def test_odd_names_stay_names(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / "runs", "odd", [*header(name, project=name, entity=name), *rows(range(3)), end()])
    before = sorted(tmp_path.iterdir())
    with Cache(tmp_path / "cache") as cache:
        assert sync_local(cache, [tmp_path / "runs"]).problems == []
        (one,) = [RunRef(*row) for row in cache.con.execute("SELECT entity, project, run_id FROM runs")]
        assert one == local.identify(str(path), entity="local").ref
        assert "/" not in one.entity + one.project + one.run_id and all([one.entity, one.project, one.run_id])
        assert len(history(cache, one)) == 9
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "cache"])
    assert {path.name for path in (tmp_path / "cache").iterdir()} >= {"catalog.sqlite"}


def test_logs_of_one_run_have_different_keys_and_copies_the_same(tmp_path: Path) -> None:
    first = small(tmp_path / "a", "r1", at=1.7e9)
    resumed = small(tmp_path / "b", "r1", at=1.8e9)
    copy = tmp_path / "copy.wandb"
    copy.write_bytes(first.read_bytes())
    keys = [local.identify(str(path), entity="local").log_key for path in (first, resumed, copy)]
    assert keys[0] == keys[2] != keys[1]


def test_an_empty_log_and_an_unreadable_one_are_told_apart(tmp_path: Path) -> None:
    empty = put(tmp_path, "r1", [])
    for content in (b"", b":W&", empty.read_bytes(), empty.read_bytes() + b"\0" * 5):
        empty.write_bytes(content)
        with pytest.raises(EmptyLog):
            local.identify(str(empty), entity="local")
    with pytest.raises(LogError, match="Is a directory"):
        local.identify(str(tmp_path), entity="local")


# -- who is writing


def test_a_log_that_a_process_holds_open_is_alive(tmp_path: Path) -> None:
    path = str(small(tmp_path, "r1"))
    me = socket.gethostname()
    with open(path, "ab"):
        assert local.is_alive(path, me, local.writers())
    assert not local.is_alive(path, me, local.writers())
    assert not local.is_alive(path + "gone", me, local.writers())


def test_on_another_machine_a_log_is_alive_while_it_is_written_to(tmp_path: Path) -> None:
    path = str(small(tmp_path, "r1"))
    for host, opened in (("elsewhere", set()), (None, set()), (socket.gethostname(), None)):
        os.utime(path)
        assert local.is_alive(path, host, opened)
        os.utime(path, (0, time.time() - local.QUIET - 1))
        assert not local.is_alive(path, host, opened)


def test_a_log_of_long_ago_is_not_alive_because_it_was_copied(tmp_path: Path) -> None:
    path = str(small(tmp_path, "r1"))
    now = Path(path).stat().st_mtime
    for host, opened in (("elsewhere", set()), (None, set()), (socket.gethostname(), None)):
        assert local.is_alive(path, host, opened, now - local.COPIED + 60)
        assert local.is_alive(path, host, opened, now + 1e6), "another machine's clock"
        assert not local.is_alive(path, host, opened, now - local.COPIED - 60)
    with open(path, "ab"):
        assert local.is_alive(path, "elsewhere", local.writers(), 0.0), "somebody has it open"


@pytest.mark.parametrize("last", ["row", "line", "start"])
def test_the_last_that_a_log_tells_of_says_whether_it_is_a_copy(tmp_path: Path, last: str) -> None:
    now = time.time()
    for run_id, age in (("live", 60), ("copied", 86_400)):
        records = header(run_id, at=now - (age if last == "start" else 1e7), offline=False, host="elsewhere")
        if last == "row":
            cells = [(("x",), "1"), (("_timestamp",), str(now - age))]
            records.append(lw.record("core", 3, history=lw.history("core", cells, 0)))
        elif last == "line":
            line = lw.pb.OutputRawRecord(line="hello\n")
            line.timestamp.FromSeconds(int(now - age))
            records.append(lw.record("core", 3, output_raw=line))
        put(tmp_path / "runs", run_id, records)
    with Cache(tmp_path / "cache") as cache:
        sync_local(cache, [tmp_path / "runs"])
        states = {run["id"]: run["state"] for run in query.list_runs(cache, ("local", "demo"))}
    assert states == {"live": "running", "copied": "crashed"}


# -- names


def test_a_machine_metric_has_one_name_however_an_sdk_nests_it(tmp_path: Path) -> None:
    def sample(*items: tuple[str, str]) -> bytes:
        return lw.record(
            "core", 5, stats=lw.pb.StatsRecord(item=[lw.pb.StatsItem(key=k, value_json=v) for k, v in items])
        )

    nested, plain = ("network", '{"recv": 1.5, "sent": 2}'), ("network.recv", "3.5")
    paths = ("system", "network", "recv"), ("system.network.recv",)
    user = lw.record("core", 3, history=lw.history("core", [(paths[0], "7"), (paths[1], "8")], 0))
    logs = [[sample(nested)], [sample(plain), user], [sample(nested, ("network.recv", "5.5")), sample(plain)]]
    for k, records in enumerate(logs):
        put(tmp_path / "runs", "r1", [*header("r1", at=1.7e9 + k), *records, end()], stamp=str(k))
        with Cache(tmp_path / "cache") as cache:
            sync_local(cache, [tmp_path / "runs"])
    with Cache(tmp_path / "cache") as cache:
        assert set(query.history(cache, ref("r1"), stream=SYSTEM).column("key").to_pylist()) == {
            "system.network.recv",
            "system.network.sent",
        }
        assert history(cache, ref("r1")) == {("system.network.recv", 0): "7", ('["system.network.recv"]', 0): "8"}
        before = contents_of_system(cache)
        sync_local(cache, [tmp_path / "runs"], full=True)
        assert contents_of_system(cache) == before


def contents_of_system(cache: Cache) -> list[dict[str, Any]]:
    return query.history(cache, ref("r1"), stream=SYSTEM).to_pylist()


# -- real runs


@pytest.fixture(scope="module")
def synced(sdk_runs: SdkRuns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Cache, Any]]]:
    """The cache with one scenario in it, and what its script says it logged."""
    opened = contextlib.ExitStack()

    def sync(scenario: str) -> tuple[Cache, Any]:
        folder = sdk_runs(scenario)
        cache = opened.enter_context(Cache(tmp_path_factory.mktemp(scenario) / "cache"))
        report = sync_local(cache, [folder])
        assert report.problems == [] and report.notes == []
        told = folder / "logged.json"
        return cache, json.loads(told.read_text()) if told.exists() else None

    with opened:
        yield sync


def test_every_value_comes_back_as_it_was_logged(synced: Callable[[str], Any]) -> None:
    cache, told = synced("values")
    ours = history(cache, ref("values"))
    theirs = {}
    for step, row in told["rows"]:
        for key, value in row.items():
            if key == "nested":
                theirs["nested.a.b", step] = value["a"]["b"]
                if "c" in value:
                    theirs["nested.c", step] = value["c"]
            elif key != "empty":  # nothing to log
                theirs[key, step] = value
    assert {at: ours[at] for at in theirs} == {at: repr(value) for at, value in theirs.items()}
    others = {key for key, _ in ours.keys() - theirs.keys()}
    assert others == {"_timestamp", "_runtime", "jump", "hist", "table", "html"}
    assert ours["jump", 100] == "1"
    assert "'_type': 'histogram'" in ours["hist", 100] and "'bins': [0, 1, 2, 3]" in ours["hist", 100]
    assert "'_type': 'table-file'" in ours["table", 101] and "'_type': 'html-file'" in ours["html", 102]


def test_a_run_is_described(synced: Callable[[str], Any]) -> None:
    cache, _ = synced("values")
    run = query.get_run(cache, ref("values"))
    assert run["config"] == {
        "lr": 1e-3, "opt": {"name": "sgd"}, "none": None, "big": 2**60, "a.b": 1, "late": {"x": [1, 2]},
    }  # fmt: skip
    assert (run["name"], run["notes"], run["group"], run["job_type"]) == ("all values", "two\nlines", "g1", "train")
    assert run["tags"] == ["nightly", "grün", "late"]
    assert (run["state"], run["exit_code"], run["rows"], run["last_step"]) == ("finished", 0, 8, 102)
    assert run["host"] == socket.gethostname() and run["complete"] and 0 < run["runtime"] < 60
    names = {file["name"] for file in query.list_files(cache, ref("values"))}
    assert "requirements.txt" in names and any(name.startswith("media/table/") for name in names)


def test_machine_metrics_are_a_stream_of_their_own(synced: Callable[[str], Any]) -> None:
    cache, _ = synced("values")
    system = history(cache, ref("values"), SYSTEM)
    samples = {step for _, step in system}
    assert samples == set(range(len(samples))) and len(samples) >= 2
    keys = {key for key, _ in system}
    assert "_timestamp" in keys and {key.partition(".")[0] for key in keys - {"_timestamp"}} == {"system"}
    assert not any(key.startswith("system.") for key, _ in history(cache, ref("values")))


def test_the_summary_is_the_sdks(synced: Callable[[str], Any]) -> None:
    cache, told = synced("summary")
    ours = query.get_run(cache, ref("summary"))["summary_metrics"]
    assert {"_step", "_timestamp", "_runtime"} <= ours.keys()
    assert isinstance(ours["_runtime"], int) and 1 <= ours["_runtime"] < 60  # whole seconds, of the whole run
    ours = {key: value for key, value in ours.items() if not key.startswith("_")}
    for key in ("avg", "all"):  # a mean may differ in the last digit
        assert math.isclose(ours[key].pop("mean"), told["summary"][key].pop("mean"))
    assert ours == told["summary"]


def test_the_console_is_what_stood_on_the_screen(synced: Callable[[str], Any]) -> None:
    cache, _ = synced("console")
    lines = history(cache, ref("console"), CONSOLE)
    assert set(lines.values()) == {"'plain'", "'green and red'", "'open end'", "'Training: 100%'"}
    assert [lines["stdout", step] for key, step in sorted(lines) if key == "stdout"][1] == "'green and red'"
    assert sorted(step for _, step in lines) == [0, 1, 2, 3]
    assert [key for key, step in lines if key == "stderr"] == ["stderr"]


def test_a_resumed_run_has_the_rows_of_all_its_logs(synced: Callable[[str], Any]) -> None:
    cache, _ = synced("resume")
    ours = history(cache, ref("again"))
    assert [ours["part", step] for step in range(15)] == [str(part) for part in (0, 1, 2) for _ in range(5)]
    assert [ours["i", step] for step in range(15)] == [str(i) for _ in range(3) for i in range(5)]
    run = query.get_run(cache, ref("again"))
    assert (run["rows"], run["config"]["part"], run["state"]) == (15, 2, "finished")
    assert run["summary_metrics"]["hand"] == 1 and run["summary_metrics"]["_step"] == 14


def test_a_rewound_run_has_the_rows_that_count(synced: Callable[[str], Any]) -> None:
    cache, _ = synced("rewind")
    ours = history(cache, ref("back"))
    assert [ours["x", step] for step in range(10)] == ["0", "1", "2", "3", "4", "5", "100", "101", "102", "103"]
    assert {step for key, step in ours if key == "old"} == set(range(6))
    run = query.get_run(cache, ref("back"))
    assert (run["rows"], run["last_step"], run["forked_from"]) == (10, 9, None)
    assert "hand" not in run["summary_metrics"]


def test_a_fork_is_a_run_of_its_own(synced: Callable[[str], Any]) -> None:
    cache, _ = synced("fork")
    parent, child = history(cache, ref("parent")), history(cache, ref("child"))
    assert {step for _, step in parent} == set(range(10)) and {step for _, step in child} == {6, 7, 8, 9}
    assert query.get_run(cache, ref("child"))["forked_from"] == "parent@5"


def test_an_exception_is_a_failure(synced: Callable[[str], Any]) -> None:
    cache, _ = synced("failed")
    run = query.get_run(cache, ref("failed"))
    assert (run["state"], run["exit_code"], run["rows"]) == ("failed", 1, 1)
    assert any("CUDA out of memory, not really" in text for text in history(cache, ref("failed"), CONSOLE).values())


def test_a_killed_run_has_crashed(synced: Callable[[str], Any], sdk_runs: SdkRuns) -> None:
    cache, _ = synced("killed")
    run = query.get_run(cache, ref("killed"))
    deadline = time.monotonic() + 20
    while run["state"] == "running" and time.monotonic() < deadline:  # the SDK's second process notices a moment later
        time.sleep(0.1)
        sync_local(cache, [sdk_runs("killed")])
        run = query.get_run(cache, ref("killed"))
    assert (run["state"], run["exit_code"]) == ("crashed", None)
    ours = history(cache, ref("killed"))
    assert run["rows"] > 1000 and [ours["x", step] for step in range(run["rows"])] == list(map(str, range(run["rows"])))


def test_a_run_is_followed_while_it_is_written(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache, Cache(tmp_path / "once") as once:
        job = sdk_process("live", tmp_path / "job")
        try:
            seen: list[int] = []
            deadline = time.monotonic() + 40
            while len(seen) < 20:
                assert time.monotonic() < deadline and job.poll() is None, (tmp_path / "job" / "output.txt").read_text()
                time.sleep(0.05)
                report = sync_local(cache, [tmp_path / "job"])
                assert not report.partial
                if report.rows:
                    seen.append(query.get_run(cache, ref("live"))["rows"])
                    assert query.get_run(cache, ref("live"))["state"] == "running"
            assert seen == sorted(set(seen))
            (tmp_path / "job" / "stop").touch()
            assert job.wait(30) == 0
        finally:
            job.kill()
        sync_local(cache, [tmp_path / "job"])
        run = query.get_run(cache, ref("live"))
        told = json.loads((tmp_path / "job" / "logged.json").read_text())
        assert (run["state"], run["rows"]) == ("finished", told["rows"])
        sync_local(once, [tmp_path / "job"])
        assert contents(cache) == contents(once)
