"""One pass, many passes, passes cut short, passes at once: each row comes in exactly once, whatever happens."""

from __future__ import annotations

import builtins
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import logwriter as lw
import pytest
from local_runs import contents, end, fresh, header, history, put, ref, rows, said, small
from shell import without_wandb

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.errors import CacheError, LogError, UsageError
from wandbsync.model import RunRef
from wandbsync.sources import local, runlog
from wandbsync.sync import SyncReport, commits, sync_local
from wandbsync.sync import local as sync

SdkRuns = Callable[[str], Path]


def steps(cache: Cache, run_id: str, **names: str) -> list[int]:
    return [step for key, step in sorted(history(cache, ref(run_id, **names))) if key == "x"]


def planned(report: SyncReport) -> list[str]:
    return [str(action).replace("local/demo/", "").rpartition("(")[2] for action in report.planned]


# -- one pass, and the next


def test_a_pass_reports_what_it_did(top: Path, cache: Cache) -> None:
    small(top, "r1"), small(top, "r2", 7)
    report = sync_local(cache, [top])
    assert (report.logs, report.runs, report.new_runs, report.rows, report.values) == (2, 2, 2, 12, 36)
    assert (
        report.problems == []
        and not report.partial
        and report.bytes_read == sum(path.stat().st_size for path in top.rglob("*.wandb"))
    )
    again = sync_local(cache, [top])
    assert (again.logs, again.runs, again.rows, again.planned) == (2, 0, 0, [])


def test_a_second_pass_over_an_unchanged_tree_opens_nothing(
    top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        small(top, f"r{i}")
    put(top, "not-a-log", []).write_bytes(b"something else entirely")
    put(top, "newer", []).write_bytes(b":W&B\xe1\xbe\x01 and more")
    first = sync_local(cache, [top])
    opened: list[str] = []
    watched = threading.Event()

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if watched.is_set() and event == "open":
            opened.append(str(args[0]))

    sys.addaudithook(watch)
    watched.set()
    second = sync_local(cache, [top])
    watched.clear()
    assert [path for path in opened if path.startswith(str(top))] == []
    assert [p.reason for p in second.problems] == [p.reason for p in first.problems] and len(second.problems) == 2
    watched.set()
    put(top, "r9", [])
    watched.clear()
    assert any(path.startswith(str(top)) for path in opened)  # the trap does catch


def test_a_dry_run_says_and_does_nothing(top: Path, cache: Cache) -> None:
    path = small(top, "r1")
    report = sync_local(cache, [top], dry_run=True)
    assert [str(a) for a in report.planned] == [f"read local/demo/r1 from byte 0 of {path} (new)"]
    assert not cache.folder.exists()
    sync_local(cache, [top])
    before = contents(cache)
    small(top, "r2")
    assert len(sync_local(cache, [top], dry_run=True).planned) == 1
    assert contents(cache) == before


def test_a_log_without_rows_is_a_run(top: Path, cache: Cache) -> None:
    put(top, "r1", [*header("r1"), end()])
    sync_local(cache, [top])
    run = query.get_run(cache, ref("r1"))
    assert (run["state"], run["rows"], run["last_step"]) == ("finished", 0, None)


# -- several logs


def test_one_id_in_two_projects_is_two_runs(top: Path, cache: Cache) -> None:
    small(top / "a", "r1", 3)
    small(top / "b", "r1", 4, project="other")
    small(top / "c", "r1", 5, entity="me")
    sync_local(cache, [top])
    assert [len(steps(cache, "r1", **names)) for names in ({}, {"project": "other"}, {"entity": "me"})] == [3, 4, 5]


def test_an_offline_resume_goes_on_after_the_rows_there_are(top: Path, cache: Cache) -> None:
    put(top, "r1", [*header("r1", at=1e9), *rows(range(5)), end(1)], stamp="1")
    sync_local(cache, [top])
    path = put(top, "r1", [*header("r1", at=2e9)], stamp="2")
    sync_local(cache, [top])  # it is known before its first row is
    assert query.get_run(cache, ref("r1"))["state"] != "failed"
    with path.open("ab") as file:
        file.write(continued(path, [*rows(range(3)), end()]))
    sync_local(cache, [top])
    assert steps(cache, "r1") == list(range(8))
    before = contents(cache)
    sync_local(cache, [top], full=True)
    assert contents(cache) == before


def continued(path: Path, records: list[bytes]) -> bytes:
    import logwriter as lw

    start = path.read_bytes()
    return lw.append(start, records)[len(start) :]


def test_an_online_resume_says_itself_where_it_goes_on(top: Path, cache: Cache) -> None:
    put(top, "r1", [*header("r1", at=1e9, offline=False), *rows(range(5))], stamp="1", offline=False)
    put(top, "r1", [*header("r1", at=2e9, offline=False), *rows(range(5, 8)), end()], stamp="2", offline=False)
    sync_local(cache, [top])
    assert steps(cache, "r1") == list(range(8))
    assert query.get_run(cache, ref("r1"))["state"] == "finished"


def test_an_earlier_log_found_later_comes_first(top: Path, cache: Cache) -> None:
    put(top / "b", "r1", [*header("r1", at=2e9), *rows(range(3), later=1), end()])
    sync_local(cache, [top])
    put(top / "a", "r1", [*header("r1", at=1e9), *rows(range(5)), end()])
    report = sync_local(cache, [top])
    assert planned(report) == ["again)", "again)"]
    assert steps(cache, "r1") == list(range(8))
    assert {step for key, step in history(cache, ref("r1")) if key == "later"} == {5, 6, 7}
    assert sync_local(cache, [top]).planned == []


def test_logs_that_overlap_leave_the_last_step_where_it_was(top: Path, cache: Cache) -> None:
    for at, some in ((1e9, range(10)), (2e9, range(12, 14)), (3e9, range(11, 12))):
        put(top, "r1", [*header("r1", at=at, offline=False), *rows(some), end()], stamp=str(at), offline=False)
    put(top, "r1", [*header("r1", at=4e9), *rows(range(2)), end()])
    sync_local(cache, [top])
    assert steps(cache, "r1") == [*range(10), 11, 12, 13, 14, 15]


def test_rows_without_a_step_are_counted_on(top: Path, cache: Cache) -> None:
    import logwriter as lw

    def stepless(n: int) -> list[bytes]:
        return [lw.record("core", i, history=lw.history("core", [(("x",), str(i))], None)) for i in range(n)]

    for stamp in ("1", "2"):
        put(top, "r1", [*header("r1", at=float(stamp)), *stepless(4)], stamp=stamp, offline=False)
    sync_local(cache, [top])
    assert steps(cache, "r1") == list(range(8))


@pytest.mark.parametrize("together", [True, False])
def test_a_rewind_voids_what_came_after(top: Path, cache: Cache, together: bool) -> None:
    first = put(top, "r1", [*header("r1", at=1e9), *rows(range(10), old=1), end()], stamp="1")
    if not together:
        sync_local(cache, [top])
    put(top, "r1", [*header("r1", at=2e9, rewinds_to=5), *rows(range(6, 9), new=1), end()], stamp="2")
    report = sync_local(cache, [top])
    assert report.notes == ([] if together else ["local/demo/r1 was rewound to step 5"])
    ours = history(cache, ref("r1"))
    assert {step for key, step in ours if key == "old"} == set(range(6))
    assert {step for key, step in ours if key == "new"} == {6, 7, 8}
    assert query.get_run(cache, ref("r1"))["rows"] == 9
    with first.open("ab") as file:  # the void part goes on growing
        file.write(continued(first, rows(range(10, 12), old=1)))
    sync_local(cache, [top])
    assert steps(cache, "r1") == list(range(9))
    before = contents(cache)
    sync_local(cache, [top], full=True)
    assert contents(cache) == before


def test_a_moved_log_is_not_read_again(top: Path, cache: Cache) -> None:
    small(top / "a", "r1")
    sync_local(cache, [top])
    (top / "a").rename(top / "b")
    report = sync_local(cache, [top])
    assert planned(report) == ["moved)"] and report.rows == 0
    assert steps(cache, "r1") == list(range(5))
    assert sync_local(cache, [top]).planned == []


def test_a_copy_is_read_once_and_takes_over_when_it_has_more(top: Path, cache: Cache) -> None:
    path = put(top / "a", "r1", [*header("r1"), *rows(range(5))])
    shutil.copytree(top / "a", top / "b")
    assert sync_local(cache, [top]).rows == 5
    assert sync_local(cache, [top / "a"]).rows == sync_local(cache, [top]).rows == 0
    with (top / "b" / path.relative_to(top / "a")).open("ab") as file:
        file.write(continued(path, [*rows(range(5, 7)), end()]))
    assert sync_local(cache, [top]).rows == 2
    assert steps(cache, "r1") == list(range(7))
    assert sync_local(cache, [top]).planned == []


def test_logs_that_vanish_leave_their_rows(top: Path, cache: Cache) -> None:
    small(top, "r1"), small(top, "r2")
    sync_local(cache, [top])
    before = contents(cache)
    shutil.rmtree(top)
    top.mkdir()
    for full in (False, True):
        assert sync_local(cache, [top], full=full).problems == []
        assert contents(cache) == before


# -- whose run it is, learned later


def test_an_entity_learned_later_renames_the_run(top: Path, cache: Cache) -> None:
    path = put(top, "r1", [*header("r1"), *rows(range(5))])
    sync_local(cache, [top])
    (path.parent / "logs").mkdir()
    (path.parent / "logs" / "debug.log").write_text("finishing run me/demo/r1\n")
    with path.open("ab") as file:
        file.write(continued(path, [*rows(range(5, 6)), end()]))
    sync_local(cache, [top])
    assert list(contents(cache)) == ["me/demo/r1"] and steps(cache, "r1", entity="me") == list(range(6))


def test_logs_side_by_side_belong_to_whom_one_of_them_belongs(top: Path, cache: Cache) -> None:
    put(top, "r1", [*header("r1", at=1e9), *rows(range(5)), end(1)], stamp="1")
    sync_local(cache, [top])
    path = put(top, "r1", [*header("r1", at=2e9), *rows(range(3)), end()], stamp="2")
    (path.parent / "debug.log").write_text("finishing run me/demo/r1\n")
    small(top / "elsewhere", "r1", 2)
    sync_local(cache, [top])
    small(top, "r2", 2, entity="you", stamp="3"), small(top, "r2", 2, entity="us", stamp="4")
    sync_local(cache, [top])
    assert list(contents(cache)) == ["local/demo/r1", "me/demo/r1", "us/demo/r2", "you/demo/r2"]
    assert steps(cache, "r1", entity="me") == list(range(8)) and steps(cache, "r1") == [0, 1]
    assert sync_local(cache, [top]).planned == []


# -- what cannot be read


BAD = {
    "empty": (b"", True, "nothing has been written"),
    "half a header": (b":W&B", True, "nothing has been written"),
    "no record": (b":W&B\xe1\xbe\x00", True, "no whole run record"),
    "another file": (b"PK\x03\x04 not a log", False, "is not a W&B log"),
    "newer": (b":W&B\xe1\xbe\x01and more", False, "log format version 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_log_is_told_in_one_line_and_the_others_are_done(top: Path, cache: Cache, name: str) -> None:
    content, harmless, reason = BAD[name]
    small(top, "r0"), small(top, "r2")
    path = put(top, "r1", [])
    path.write_bytes(content)
    for _ in range(2):
        report = sync_local(cache, [top])
        (problem,) = report.problems
        assert reason in problem.reason and str(path) in problem.reason and "\n" not in problem.reason
        assert problem.harmless == harmless and report.partial != harmless
    assert list(contents(cache)) == ["local/demo/r0", "local/demo/r2"]
    put(top, "r1", [*header("r1"), *rows(range(5)), end()])  # it was only early
    assert sync_local(cache, [top]).problems == []
    assert sync_local(cache, [top]).problems == [] and cache.problems() == {}
    assert len(contents(cache)) == 3


def test_an_upgrade_tries_a_newer_log_again(top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    put(top, "r1", []).write_bytes(BAD["newer"][0])
    sync_local(cache, [top])
    tried: list[str] = []
    really = local.identify
    monkeypatch.setattr(local, "identify", lambda path, **how: tried.append(path) or really(path, **how))
    sync_local(cache, [top])
    assert tried == []
    monkeypatch.setattr(sync, "__version__", "99")
    sync_local(cache, [top])
    assert len(tried) == 1


def test_a_log_that_cannot_be_opened_is_read_as_soon_as_it_can(
    top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = small(top, "r1")
    small(top, "r2")
    really = builtins.open

    def refuse(file: Any, *args: Any, **how: Any) -> Any:
        if str(file) == str(shut):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return really(file, *args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        for _ in range(2):
            report = sync_local(cache, [top])
            assert [p.reason for p in report.problems] == [f"cannot read {shut}: Permission denied"]
    assert list(contents(cache)) == ["local/demo/r2"]
    assert sync_local(cache, [top]).rows == 5  # though nothing about the file has changed
    assert cache.problems() == {} or sync_local(cache, [top]).problems == []


def test_a_log_that_fails_in_the_middle_is_read_on(top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small(top, "r1", 2000)
    really = runlog.windows

    def failing(name: Any, start: Any = None, **how: Any) -> Iterator[Any]:
        for i, window in enumerate(really(name, start, size=20_000)):
            if i == 2:
                raise LogError(f"cannot read {name}: Input/output error")
            yield window

    with monkeypatch.context() as patch:
        patch.setattr(runlog, "windows", failing)
        report = sync_local(cache, [top])
    assert report.partial and 0 < report.rows < 2000
    report = sync_local(cache, [top])
    assert report.problems == [] or str(path) in report.problems[0].subject
    assert steps(cache, "r1") == list(range(2000))
    assert sync_local(cache, [top]).planned == []


def test_a_log_that_vanishes_between_listing_and_reading_leaves_no_run(
    top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small(top, "r1")
    small(top, "r2")
    really = sync.plan

    def then(*args: Any, **how: Any) -> Any:
        actions = list(really(*args, **how))
        path.unlink(missing_ok=True)
        return actions

    monkeypatch.setattr(sync, "plan", then)
    report = sync_local(cache, [top])
    assert "No such file" in report.problems[0].reason
    assert list(contents(cache)) == ["local/demo/r2"]


def test_damage_in_the_middle_is_told_and_what_follows_is_read(top: Path, cache: Cache) -> None:
    path = small(top, "r1", 3000)
    data = bytearray(path.read_bytes())
    data[70_000:70_050] = bytes(50)
    path.write_bytes(data)
    report = sync_local(cache, [top])
    assert report.partial and f"of {path} cannot be read: " in report.problems[0].reason
    run = query.get_run(cache, ref("r1"))
    assert not run["complete"] and "damaged" in run["incomplete"]
    assert 2000 < run["rows"] < 3000 and steps(cache, "r1")[-1] == 2999


def test_a_log_that_was_replaced_keeps_its_rows_until_it_is_read_in_full(top: Path, cache: Cache) -> None:
    path = small(top, "r1", 50, entity="me")
    sync_local(cache, [top])
    with path.open("r+b") as file:  # the same file, another content
        file.truncate()
        file.write(small(top / "other", "r1", 70, entity="me").read_bytes())
    shutil.rmtree(top / "other")
    report = sync_local(cache, [top])
    assert "is not the file that was read before" in report.problems[0].reason
    assert steps(cache, "r1", entity="me") == list(range(50))
    assert sync_local(cache, [top]).partial
    for _ in range(2):
        report = sync_local(cache, [top], full=True)
        assert report.problems == [] and report.notes == []
        assert steps(cache, "r1", entity="me") == list(range(70))
    report = sync_local(cache, [top])
    assert report.problems == [] and report.planned == [] and cache.problems() == {}


def test_a_log_that_was_cut_off_is_read_in_full_and_that_is_all(top: Path, cache: Cache) -> None:
    path = small(top, "r1", 3000)
    data = path.read_bytes()
    sync_local(cache, [top])
    path.write_bytes(data[: len(data) // 2])
    assert sync_local(cache, [top]).partial
    assert len(steps(cache, "r1")) == 3000
    assert not sync_local(cache, [top], full=True).partial
    assert 1000 < len(steps(cache, "r1")) < 2000
    assert not sync_local(cache, [top]).partial
    damaged = bytearray(data)
    damaged[70_000:70_050] = bytes(50)
    path.write_bytes(damaged)  # what is wrong with it now is told, what was wrong before is not
    (problem,) = sync_local(cache, [top], full=True).problems
    assert "cannot be read" in problem.reason and cache.problems() == {}


# -- the same run again


def again(top: Path, at: float = 1.8e9, *, offline: bool = True, count: int = 3) -> Path:
    """The job is run again under the same id, and its first log is gone from the disk."""
    shutil.rmtree(top)
    records = [*header("r1", at=at, offline=offline), *rows(range(count)), end()]
    return put(top, "r1", records, stamp="2", offline=offline)


@pytest.mark.parametrize("offline", [True, False])
def test_a_run_that_goes_on_after_a_log_that_is_gone_says_so(top: Path, cache: Cache, offline: bool) -> None:
    small(top, "r1", 5), small(top / "other", "r2")
    assert sync_local(cache, [top]).notes == []
    again(top, offline=offline)
    report = sync_local(cache, [top])
    assert report.notes[-1] == (
        "local/demo/r1 goes on after 5 rows whose log is gone; "
        "`wandbsync cache forget local/demo/r1 --force` and a sync start it anew"
    )
    # Online, it says itself that its steps begin anew.
    assert [note.split(" begins ")[1] for note in report.notes[:-1]] == (
        []
        if offline
        else ["at step 0, not after step 4, up to which an earlier log goes; steps that both have are there twice"]
    )
    assert query.get_run(cache, ref("r1"))["rows"] == 8 and not report.partial
    assert sync_local(cache, [top]).notes == []
    cache.forget(ref("r1"))
    assert sync_local(cache, [top]).notes == [] and steps(cache, "r1") == [0, 1, 2]


def test_a_log_in_the_place_of_another_says_so(top: Path, cache: Cache) -> None:
    path = small(top, "r1", 5)
    sync_local(cache, [top])
    other = small(top / "new", "r1", 3, at=1.8e9)
    other.replace(path)
    assert ["goes on after 5 rows" in note for note in sync_local(cache, [top]).notes] == [True]


def test_a_run_that_is_resumed_or_moved_needs_no_note(top: Path, cache: Cache) -> None:
    first = small(top / "a", "r1", 5)
    sync_local(cache, [top])
    put(top / "b", "r1", [*header("r1", at=1.8e9), *rows(range(3)), end()], stamp="2")
    assert sync_local(cache, [top / "b"]).notes == [], "the first log is there, if not in this folder"
    put(top / "c", "r1", [*header("r1", at=1.9e9), *rows(range(3)), end()], stamp="3")
    moved = top / "moved" / first.name
    moved.parent.mkdir()
    first.rename(moved)
    shutil.rmtree(top / "b")
    assert sync_local(cache, [top]).notes == []
    assert query.get_run(cache, ref("r1"))["rows"] == 11
    moved.unlink()
    assert sync_local(cache, [top]).notes == [], "nothing is new"


def test_a_full_sync_says_what_it_cannot_read_again(top: Path, cache: Cache) -> None:
    small(top, "r1", 5), small(top, "r2", 5)
    sync_local(cache, [top])
    path = again(top)
    sync_local(cache, [top])
    report = sync_local(cache, [top], full=True)
    assert report.notes == ["local/demo/r1 is not read again: a log of it is not here, and the rows are kept"]
    assert len(contents(cache)) == 2 and query.get_run(cache, ref("r1"))["rows"] == 8
    path.unlink()
    small(top, "r3")
    assert sync_local(cache, [top], full=True).notes == []


# -- folders that are not there


def test_a_folder_that_is_not_there_does_not_stop_the_others(top: Path, cache: Cache, tmp_path: Path) -> None:
    small(top, "r1")
    typo = tmp_path / "typo"
    report = sync_local(cache, [typo, top])
    assert [(p.subject, p.reason, p.harmless) for p in report.problems] == [
        (str(typo), f"there is no folder {typo}", False)
    ]
    assert report.partial and list(contents(cache)) == ["local/demo/r1"]
    assert list(cache.sources("local")) == [str(top)], "a mistake is not remembered"
    with pytest.raises(UsageError, match="no folder"):
        sync_local(cache, [typo])


def test_a_folder_that_is_not_there_any_more_is_told(top: Path, cache: Cache, tmp_path: Path) -> None:
    small(top, "r1"), small(tmp_path / "more", "r2")
    sync_local(cache, [top, tmp_path / "more"])
    shutil.rmtree(tmp_path / "more")
    for folders in ([top, tmp_path / "more"], [tmp_path / "more"]):
        (problem,) = sync_local(cache, folders).problems
        assert (
            problem.harmless
            and problem.reason == f"there is no folder {problem.subject} any more; what was read " + ("there is kept")
        )
    assert len(contents(cache)) == 2 and len(cache.sources("local")) == 2
    with Cache(tmp_path / "new") as new, pytest.raises(UsageError):
        sync_local(new, [tmp_path / "more"], dry_run=True)


def test_what_is_no_file_is_no_log(top: Path, cache: Cache) -> None:
    """Nobody writes to the pipes: to open one would be to wait for ever."""
    path = small(top, "r1", project="")
    os.mkfifo(top / "wandb" / "run-x.wandb")
    os.mkfifo(top / "wandb" / "settings")
    os.mkfifo(path.parent / "debug.log")
    (path.parent / "files").mkdir()
    for name in ("wandb-metadata.json", "output.log"):
        os.mkfifo(path.parent / "files" / name)
    (top / "linked.wandb").symlink_to(top / "wandb" / "run-x.wandb")
    report = sync_local(cache, [top])
    assert report.logs == 1 and report.problems == []
    assert query.list_files(cache, ref("r1", "uncategorized")) == []
    assert sync_local(cache, [top / "wandb" / "run-x.wandb"]).logs == 0


# -- in parts


def test_a_log_read_as_it_grows_is_the_log_read_once(sdk_runs: SdkRuns, top: Path, cache: Cache) -> None:
    for scenario in ("values", "summary", "console"):
        (source,) = sdk_runs(scenario).glob("wandb/offline-run-*/*.wandb")
        data = source.read_bytes()
        path = top / scenario / source.parent.name / source.name
        path.parent.mkdir(parents=True)
        for part in range(1, 21):
            path.write_bytes(data[: len(data) * part // 20])
            report = sync_local(cache, [top])
            assert not report.partial, report.problems
    assert contents(cache) == fresh(top)


def test_wherever_a_log_is_torn_each_row_comes_once(top: Path, tmp_path: Path) -> None:
    records = [
        *header("r1"),
        *rows(range(3), text="t" * 20),
        said("one\n\x1b[3"),
        said("1mtwo"),
        *rows(range(3, 5)),
        end(),
    ]
    path = put(top, "r1", records)
    data = path.read_bytes()
    expected = fresh(top)
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        with Cache(tmp_path / f"cache{cut}") as cache:
            assert not sync_local(cache, [top]).partial
            path.write_bytes(data)
            sync_local(cache, [top])
            assert contents(cache) == expected, cut
        shutil.rmtree(cache.folder)


def test_a_large_log_is_committed_in_parts(top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "VALUES", 500)
    really = runlog.windows
    monkeypatch.setattr(runlog, "windows", lambda path, start=None, **how: really(path, start, size=5000, **how))
    small(top, "r1", 1000), small(top, "r2", 10)
    made: list[int] = []
    committing = Cache.commit
    monkeypatch.setattr(Cache, "commit", lambda self, shares: made.append(len(shares)) or committing(self, shares))
    report = sync_local(cache, [top])
    assert len(made) > 5 and (report.runs, report.new_runs, report.rows, report.values) == (2, 2, 1010, 3030)
    assert steps(cache, "r1") == list(range(1000))
    before = contents(cache)
    sync_local(cache, [top], full=True)
    assert contents(cache) == before


def test_reading_everything_again_shows_the_old_rows_until_it_is_done(
    top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "VALUES", 500)
    really = runlog.windows
    monkeypatch.setattr(runlog, "windows", lambda path, start=None, **how: really(path, start, size=5000, **how))
    small(top, "r1", 1000)
    sync_local(cache, [top])
    before = contents(cache)

    def interrupt(progress: sync.Progress) -> None:
        if progress.rows > 700:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync_local(cache, [top], full=True, progress=interrupt)
    assert contents(cache) == before
    assert sync_local(cache, [top]).planned == []
    sync_local(cache, [top], full=True)
    assert contents(cache) == before


def test_a_full_disk_loses_nothing(top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RUNS", 2)
    for i in range(7):
        small(top, f"r{i}")
    written: list[Path] = []
    really = Path.rename

    def rename(a: Path, b: Path) -> Path:
        written.append(b)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(CacheError, match="no room left"):
            sync_local(cache, [top])
    assert len(contents(cache)) == 4  # two commits of two
    assert sync_local(cache, [top]).rows == 3 * 5
    assert len(contents(cache)) == 7


# -- at once, and killed


def many(top: Path, runs: int = 60) -> None:
    for i in range(runs):
        small(top / f"job{i % 7}", f"r{i:03}", 20 + i)
    put(top, "big", [*header("big"), *rows(range(5000)), end()])
    put(top, "back", [*header("back", at=1e9), *rows(range(50)), end()], stamp="1")
    put(top, "back", [*header("back", at=2e9, rewinds_to=20), *rows(range(21, 30)), end()], stamp="2")


def command(top: Path, cache: Cache) -> subprocess.Popen[str]:
    env = without_wandb() | {"HOME": str(top)}
    words = [sys.executable, "-m", "wandbsync", "--cache-dir", str(cache.folder), "sync", "--local", str(top)]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_syncs_at_the_same_time_double_nothing(top: Path, cache: Cache) -> None:
    many(top)
    jobs = [command(top, cache) for _ in range(3)]
    for job in jobs:
        said, _ = job.communicate(timeout=60)
        assert job.returncode == 0, said
        assert "error" not in said and "Traceback" not in said
    sync_local(cache, [top])
    assert contents(cache) == fresh(top)


def test_a_sync_overtaken_at_any_point_leaves_the_rest_to_the_other(
    top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process syncs the same tree right after this one has planned: this one's plan is stale throughout."""
    put(top, "back", [*header("back", at=1e9), *rows(range(50)), end()], stamp="1")
    grown = put(top, "grows", [*header("grows"), *rows(range(10))])
    sync_local(cache, [top])
    many(top, 5)
    with grown.open("ab") as file:
        file.write(continued(grown, [*rows(range(10, 20)), end()]))
    really = sync.plan

    def then(*args: Any, **how: Any) -> Any:
        actions = list(really(*args, **how))
        monkeypatch.setattr(sync, "plan", really)
        with Cache(cache.folder) as other:
            sync_local(other, [top])
        return actions

    monkeypatch.setattr(sync, "plan", then)
    report = sync_local(cache, [top])
    assert report.rows == 0 and report.runs == 0 and report.problems == []
    assert len(report.notes) == 1 and "another process is syncing" in report.notes[0]
    assert sync_local(cache, [top]).planned == []
    assert contents(cache) == fresh(top)


@pytest.mark.slow
def test_killed_syncs_lose_and_double_nothing(top: Path, cache: Cache, tmp_path: Path) -> None:
    many(top, 100)
    chance = random.Random(7)
    killed = 0
    started = time.monotonic()
    job = command(top, Cache(tmp_path / "measure"))
    job.communicate(timeout=60)
    whole = time.monotonic() - started
    for round in range(40):
        if killed == 12 or time.monotonic() > started + 40:  # a busy machine makes it fewer
            break
        job = command(top, cache)
        time.sleep(whole * chance.uniform(0.2, 0.9))
        job.send_signal(signal.SIGKILL)
        job.communicate(timeout=60)
        killed += job.returncode == -signal.SIGKILL
        for path in top.rglob("run-r*.wandb"):  # and there is always something new to read
            if chance.random() < 0.1:
                with path.open("ab") as file:
                    file.write(continued(path, rows(range(1000 + 3 * round, 1003 + 3 * round))))
    assert killed >= 3
    sync_local(cache, [top])
    assert contents(cache) == fresh(top)


def test_an_interrupted_pass_keeps_what_it_committed(top: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RUNS", 1)
    for i in range(5):
        small(top, f"r{i}")

    def interrupt(progress: sync.Progress) -> None:
        if progress.runs_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync_local(cache, [top], progress=interrupt)
    assert len(contents(cache)) == 3
    sync_local(cache, [top])
    assert len(contents(cache)) == 5


def test_progress_arrives_where_it_said_it_would(top: Path, cache: Cache) -> None:
    small(top, "r1", 500), small(top, "r2", 500)
    seen: list[tuple[int, ...]] = []
    sync_local(
        cache, [top], progress=lambda p: seen.append((p.bytes_done, p.bytes_total, p.runs_done, p.runs_total, p.rows))
    )
    assert seen == sorted(seen) and seen[-1] == (seen[0][1], seen[0][1], 2, 2, 1000)


def test_half_a_surrogate_pair_is_kept_as_it_came(tmp_path: Path) -> None:
    run = lw.pb.RunRecord(run_id="half", project="p")
    run.config.update.add(key="emoji", value_json='"\\ud83d"')
    row = lw.history("core", [*lw.row(0, loss=1.0), (("text",), '"\\ud83d"')], 0)
    folder = tmp_path / "wandb" / "run-20240101_000000-half"
    folder.mkdir(parents=True)
    records = [lw.record("core", 1, run=run), lw.record("core", 2, history=row)]
    (folder / "run-half.wandb").write_bytes(lw.log(records))
    with Cache(tmp_path / "cache") as cache:
        assert sync_local(cache, [tmp_path]).problems == []
        assert query.get_run(cache, RunRef("local", "p", "half"))["config"] == {"emoji": "\ud83d"}
        (text,) = query.history(cache, RunRef("local", "p", "half"), ["text"]).to_pylist()
        assert json.loads(text["value_json"]) == "\ud83d"
