"""What is thought of a daemon by its last words, what is read of them, and how `wandbsync status` tells it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from local_runs import small
from shell import Shell

from wandbsync import status
from wandbsync.status import (
    HUNG,
    LATE,
    OFTEN,
    SLACK,
    Job,
    Live,
    Server,
    Snapshot,
    Source,
    Verdict,
    is_fresh,
    kept,
    read,
    verdict,
    write,
)

NOW = 1_800_000_000.0
FRESH = Source("local", "/runs", fresh_at=NOW - 60, interval=300.0)
FINE = Snapshot(
    7, "here", "0.1.0", NOW - 999, NOW - 1,
    sources=[FRESH, Source("api", "https://w me/demo", NOW - 5, 60.0, NOW + 55, running=2)],
    jobs=[Job("scan folders", "waiting", NOW + 9, seconds=0.5, times=3)],
    live=[Live("me/demo/r", "/runs/r.wandb", NOW - 1, 0.3)],
    server=Server("https://w", True, NOW - 99),
)  # fmt: skip


def judged(**changes: Any) -> Verdict:
    return verdict(replace(FINE, **changes), alive=True, now=NOW)


# -- the verdict


def test_all_is_well() -> None:
    assert judged() == Verdict("ok") and judged().exit_code == 0
    assert judged(server=None, sources=[], jobs=[], live=[]).word == "ok"  # nothing to do is done well


@pytest.mark.parametrize(
    ("changes", "word", "reason"),
    [
        ({"written_at": NOW - HUNG - 1}, "failing", "the daemon has said nothing for 61 s"),
        ({"config_problem": "daemon.poll: no"}, "failing", "the changed config is not in force: daemon.poll: no"),
        ({"sources": [replace(FRESH, failures=OFTEN, error="no")]}, "failing", "/runs failed 3 times: no"),
        ({"jobs": [Job("look", "waiting", failures=OFTEN, error="no")]}, "failing", "look failed 3 times: no"),
        ({"server": Server("https://w", False, NOW, "no")}, "stale", "https://w is away: no"),
        ({"sources": [replace(FRESH, fresh_at=None)]}, "stale", "/runs was not synced yet"),
        ({"sources": [replace(FRESH, fresh_at=NOW - 331)]}, "stale", "/runs was last synced 331 s ago"),
        ({"live": [Live("me/demo/r", "x", NOW, LATE + 1)]}, "stale", "me/demo/r lags 11 s behind"),
    ],
)
def test_what_is_not_well_is_told(changes: dict[str, Any], word: str, reason: str) -> None:
    found = judged(**changes)
    assert (found.word, found.reasons) == (word, (reason,))
    assert found.exit_code == {"stale": 10, "failing": 11}[word]


@pytest.mark.parametrize(
    "changes",
    [
        {"written_at": NOW - HUNG + 1},
        {"sources": [replace(FRESH, failures=OFTEN - 1, error="no")]},
        {"jobs": [Job("look", "waiting", failures=OFTEN - 1, error="no")]},
        {"server": Server("https://w", None)},
        {"sources": [replace(FRESH, fresh_at=NOW - 300 - SLACK)]},
        {"live": [Live("me/demo/r", "x", NOW, LATE)]},
    ],
)
def test_what_may_be_so_is_well(changes: dict[str, Any]) -> None:
    assert judged(**changes).word == "ok"


def test_failing_is_told_before_stale() -> None:
    found = judged(config_problem="no", server=Server("https://w", False, NOW, "no"))
    assert found.word == "failing" and len(found.reasons) == 2 and found.reasons[0].startswith("the changed config")


def test_stopped() -> None:
    never = verdict(None, alive=False, now=NOW)
    assert (never.word, never.exit_code, never.reasons) == ("stopped", 12, ("no daemon is running",))
    once = verdict(FINE, alive=False, now=NOW + 9)
    assert once.reasons == ("no daemon is running; the last one wrote its status 10 s ago",)
    assert verdict(FINE, alive=False, now=NOW - 99).reasons[0].endswith("0 s ago")
    assert verdict(None, alive=True, now=NOW) == Verdict("stale", ("the daemon has only just started",))


def test_fresh_by_a_clock_that_was_set() -> None:
    assert is_fresh(replace(FRESH, fresh_at=NOW + SLACK), NOW)
    assert not is_fresh(replace(FRESH, fresh_at=NOW + SLACK + 1), NOW)


# -- reading and writing


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    write(tmp_path, FINE)
    assert read(tmp_path) == FINE
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    write(tmp_path, replace(FINE, server=None))
    assert read(tmp_path) == replace(FINE, server=None)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"x"', "{}", '{"pid": 1}', "\x00\x01", "\xff" * 9])
def test_what_is_no_status_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_bytes(text.encode("latin-1"))
    assert read(tmp_path) is None


def test_a_torn_status_is_none(tmp_path: Path) -> None:
    write(tmp_path, FINE)
    whole = (tmp_path / "status.json").read_bytes()
    for cut in range(0, len(whole) - 1, 7):
        (tmp_path / "status.json").write_bytes(whole[:cut])
        assert read(tmp_path) is None


def test_a_status_that_rots_is_none(tmp_path: Path) -> None:
    write(tmp_path, FINE)
    whole = (tmp_path / "status.json").read_bytes()
    for at in range(0, 8 * len(whole), 97):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        (tmp_path / "status.json").write_bytes(damaged)
        assert read(tmp_path) in (None, FINE), at


def test_what_another_version_wrote_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    newer = asdict(FINE) | {"mood": "good"}
    newer["sources"][0]["colour"] = "green"
    newer["server"]["colour"] = "green"
    (tmp_path / "status.json").write_text(json.dumps(newer))
    assert read(tmp_path) == FINE
    older = asdict(FINE)
    del older["memory"], older["jobs"][0]["times"]
    (tmp_path / "status.json").write_text(json.dumps(older))
    found = read(tmp_path)
    assert found and found.jobs[0].times == 0
    del older["live"]
    (tmp_path / "status.json").write_text(json.dumps(older))
    assert read(tmp_path) is None


def test_values_of_another_kind_are_no_status(tmp_path: Path) -> None:
    for name, value in (("sources", [3]), ("sources", None), ("server", "here"), ("written_at", "now"), ("jobs", {})):
        (tmp_path / "status.json").write_text(json.dumps(asdict(FINE) | {name: value}))
        found = read(tmp_path)
        if found is not None:  # then it can be judged
            verdict(found, alive=True, now=NOW)


# -- what is kept fresh


@contextmanager
def locked(folder: Path, note: str = "7 on here") -> Iterator[None]:
    """As a daemon holds its lock."""
    lock = status.lock_of(folder)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(note)
        file.flush()
        yield


def test_kept_is_what_a_daemon_at_work_keeps(tmp_path: Path) -> None:
    late = Source("api", "https://w me/late", NOW - 999, 60.0)
    write(tmp_path, replace(FINE, sources=[*FINE.sources, late]))
    assert kept(tmp_path, now=NOW) == status.Kept()  # nobody has the lock
    with locked(tmp_path):
        assert status.of(tmp_path)[1]
        found = kept(tmp_path, now=NOW)
        assert found == status.Kept(frozenset({"/runs"}), frozenset({"https://w me/demo"}))
        assert kept(tmp_path, now=NOW + HUNG + 1) == status.Kept()
        assert kept(tmp_path, now=NOW - HUNG - 9) == status.Kept()
        write(tmp_path, replace(FINE, stopping=True))
        assert kept(tmp_path, now=NOW) == status.Kept()
        (tmp_path / "status.json").unlink()
        assert kept(tmp_path, now=NOW) == status.Kept()
    assert not status.of(tmp_path)[1]


# -- the command


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    small(tmp_path / "runs", "r1")
    shell("sync", "--local", "runs")
    return shell


def test_without_a_daemon_the_cache_is_kept_by_hand(shell: Shell) -> None:
    assert "stopped" not in shell("status", code=0).stdout
    told = shell.json("status")
    assert (told["verdict"], told["daemon"]) == ("stopped", None) and told["projects"][0]["runs"] == 1
    assert shell.error("--cache-dir", "none", "status", code=5)


def test_the_exit_code_is_the_verdict(shell: Shell) -> None:
    now = time.time()
    fine = replace(
        FINE, pid=os.getpid(), written_at=now, started_at=now - 7200, live=[Live("me/demo/r", "x", now, 0.25)],
        sources=[replace(one, fresh_at=now - 5, next_at=now + 55, interval=3600.0) for one in FINE.sources],
    )  # fmt: skip
    with locked(shell.cache, f"{os.getpid()} on here"):
        assert "stale: the daemon has only just started" in shell("status", code=10).stdout
        write(shell.cache, fine)
        text = shell("status", code=0).stdout
        assert f"daemon {os.getpid()}, started 2h ago" in text and "https://w me/demo" in text
        assert "live: me/demo/r, 0.2 s" in text and "https://w: 0 requests" in text
        told = shell.json("status")
        assert (told["verdict"], told["reasons"]) == ("ok", [])
        daemon = told["daemon"]
        assert daemon["alive"] is True and daemon["pid"] == os.getpid()
        assert daemon["sources"][1]["fresh_at"].startswith("20") and daemon["sources"][1]["running"] == 2
        assert daemon["live"][0]["lag"] == 0.25 and daemon["server"]["reachable"] is True
        assert {"running", "incomplete", "problems", "cache"} <= told.keys()
        write(shell.cache, replace(fine, server=Server("https://w", False, now, "nobody answers")))
        assert "stale: https://w is away: nobody answers" in shell("status", code=10).stdout
        write(shell.cache, replace(fine, written_at=now - 999))
        assert "failing: the daemon has said nothing" in shell("status", code=11).stdout
    assert "stopped: no daemon is running; the last one wrote" in shell("status", code=12).stdout
