"""Absurd logs: the one thing is named or kept as text, and everything else is done."""

from __future__ import annotations

import ctypes
import errno
import json
import socket
from pathlib import Path
from typing import Any

import logwriter as lw
import pytest
from local_runs import end, header, history, put, ref, rows, small
from wandb.proto import wandb_internal_pb2 as pb

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.query.points import axis_of, points
from wandbsync.sources import local, runlog
from wandbsync.sync import sync_local
from wandbsync.watch import Watch

DEEP = ("[" * 3000 + "]" * 3000, '{"a":' * 900 + "1" + "}" * 900, "9" * 100_000)


def config(key: str, text: str) -> bytes:
    return lw.record("core", 3, config=pb.ConfigRecord(update=[pb.ConfigItem(key=key, value_json=text)]))


def logged(text: str, **more: str) -> bytes:
    cells = [(("odd",), text), (("_step",), "0"), *(((key,), value) for key, value in more.items())]
    return lw.record("core", 3, history=lw.history("core", cells, 0))


@pytest.mark.parametrize("text", DEEP, ids=["list", "object", "integer"])
def test_a_value_that_no_reader_can_follow_is_kept_as_text(top: Path, cache: Cache, text: str) -> None:
    small(top, "good")
    summary = pb.SummaryRecord(update=[pb.SummaryItem(nested_key=["s"] * 3000, value_json=text)])
    put(top, "odd", [*header("odd"), config("odd", text), logged(text), lw.record("core", 4, summary=summary), end()])
    report = sync_local(cache, [top])
    assert report.runs == 2 and report.problems == []
    assert history(cache, ref("odd"))["odd", 0] == repr(text)
    run = query.get_run(cache, ref("odd"))
    assert run["config"]["odd"] == text and run["summary_metrics"]["odd"] == text
    json.dumps(run)


@pytest.mark.parametrize("seconds", [1.2e12, 9.2e18, -1e15])
def test_what_is_outside_of_all_years_is_no_time(top: Path, cache: Cache, seconds: float) -> None:
    put(top, "odd", [*header("odd", at=seconds), logged("1", _timestamp="1e300", _runtime="1e308"), end()])
    put(top, "ms", [*header("ms"), logged("2", _timestamp="1.7e12"), *rows(range(1, 3)), end()], stamp="2")
    assert sync_local(cache, [top]).problems == []
    assert {run["id"]: run["created_at"] for run in query.list_runs(cache, ("local", "demo"))}["odd"] is None
    assert history(cache, ref("ms"))["_timestamp", 0] == "1700000000000.0"  # the value itself stays
    x, _, without = points(cache, ref("ms"), "_runtime", "time")
    assert list(x) == [1.7e9 + 1 / 3, 1.7e9 + 2 / 3] and without == 0


def test_a_link_that_cannot_be_followed_is_named_and_hides_nothing(top: Path) -> None:
    small(top, "r1")
    (top / "loop").symlink_to("loop")
    (top / "dangling").symlink_to("/nowhere")
    found = local.find([top])
    assert len(found.logs) == 1 and list(found.unreadable) == [str(top / "loop")]
    assert found.unreadable[str(top / "loop")].startswith("cannot follow the link ")


def test_without_an_inotify_instance_left_the_logs_are_polled(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inotify = pytest.importorskip("watchdog.observers.inotify_c")

    def none_left(*_: Any) -> int:
        ctypes.set_errno(errno.EMFILE)
        return -1

    monkeypatch.setattr(inotify, "inotify_init", none_left)
    path, said = small(top, "r1"), []
    watch = Watch(poll=0.01, say=said.append)
    try:
        watch.watch([str(path)], local.find([top]))
        assert watch.wait(5).written == {str(path)}
        assert [text.split(" (")[0] for text in said] == ["no file events; polling every 0.01 s"]
    finally:
        watch.stop()


def test_a_glob_of_define_metric_does_not_reach_machine_metrics(top: Path, cache: Cache) -> None:
    star = pb.MetricRecord(glob_name="*", step_metric="x")
    stats = pb.StatsRecord(item=[pb.StatsItem(key="cpu", value_json="5")])
    records = [lw.record("core", 3, metric=star), *rows(range(3), loss=1), lw.record("core", 9, stats=stats), end()]
    put(top, "r1", [*header("r1"), *records])
    sync_local(cache, [top])
    assert axis_of(cache, [ref("r1")], "loss") == "x"
    assert axis_of(cache, [ref("r1")], "system.cpu") == "sample"


def test_a_run_that_was_preempted_and_went_is_preempted(top: Path, cache: Cache) -> None:
    leaving = lw.record("core", 4, preempting=pb.RunPreemptingRecord())
    put(top, "r1", [*header("r1", host=socket.gethostname()), *rows(range(3)), leaving])
    sync_local(cache, [top])
    assert query.get_run(cache, ref("r1"))["state"] == "preempted"


@pytest.mark.parametrize("goes_on", [True, False])
def test_an_absurdly_large_record_is_named(
    cache: Cache, top: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    monkeypatch.setattr(runlog, "LARGEST", 4 << 20)
    text = json.dumps("a" * (5 << 20))
    huge = lw.record("core", 9, history=lw.history("core", [(("x",), text), (("_step",), "5")], 5))
    put(top, "huge", [*header("huge"), *rows(range(5)), huge, *([*rows(range(6, 8)), end()] if goes_on else [])])
    small(top, "other")
    report = sync_local(cache, [top])
    assert any("larger than" in one.reason and "run-huge.wandb" in one.reason for one in report.problems)
    assert len(history(cache, ref("other"))) == 3 * 5
    steps = {step for key, step in history(cache, ref("huge")) if key == "x"}
    assert steps == {0, 1, 2, 3, 4} | ({6, 7} if goes_on else set())
    assert query.get_run(cache, ref("huge"))["complete"] is False
    if not goes_on:  # what is written later is read
        put(top, "huge", [*header("huge"), *rows(range(5)), huge, *rows(range(6, 9)), end()])
        sync_local(cache, [top])
        assert ("x", 8) in history(cache, ref("huge"))


def test_a_log_that_invents_names_without_end_is_named(
    cache: Cache, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MOST_KEYS", 50)
    path = put(top, "names", [*header("names"), *rows(range(5))])
    small(top, "other")
    assert sync_local(cache, [top]).problems == []
    put(
        top,
        "names",
        [*header("names"), *rows(range(5)), *(one for i in range(5, 90) for one in rows([i], **{f"k{i}": i}))],
    )
    for _ in range(2):  # and the next time, too
        (problem,) = sync_local(cache, [top]).problems
        assert problem.subject == str(path) and "more than 50 metrics" in problem.reason
        run = query.get_run(cache, ref("names"))
        assert run["rows"] == 5 and run["complete"] is False and "more than 50 metrics" in run["incomplete"]
    assert len(history(cache, ref("other"))) == 3 * 5
