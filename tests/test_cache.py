"""The cache keeps what was committed, whatever comes between: races, crashes, full disks, compaction, gc."""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import crashing
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rows import Row, exact, number, share, stored, text

from wandbsync import query
from wandbsync.cache import Cache, LogCursor, catalog, compaction, eviction, segments, store
from wandbsync.cache.compaction import Merge, Part, compact, gc, plan
from wandbsync.cache.verify import Finding, verify
from wandbsync.errors import CacheBusy, CacheError, NewerCache, NothingCached
from wandbsync.model import CONSOLE, HISTORY, SYSTEM, FileRecord, Kind, RunRef

A, B, C = (RunRef("me", "demo", run_id) for run_id in "abc")


def add(cache: Cache, ref: RunRef, rows: list[Row], stream: str = HISTORY, **more: Any) -> int | None:
    """Commit rows on top of what is there."""
    return cache.commit([share(ref, cache.revision(ref), rows, stream, **more)])[0]


def rows_of(cache: Cache, ref: RunRef, stream: str = HISTORY) -> list[tuple[Any, ...]]:
    return stored(query.history(cache, ref, stream=stream))


def run(first: int, count: int = 3, key: str = "loss") -> list[Row]:
    return [number(key, step, step / 10) for step in range(first, first + count)]


def faults(cache: Cache) -> list[Finding]:
    return [finding for finding in verify(cache) if not finding.harmless]


def segment_files(cache: Cache) -> list[Path]:
    return sorted((cache.folder / "history").rglob("*.parquet"))


# -- commit


def test_rows_come_back_with_what_is_known_of_the_run(cache: Cache) -> None:
    file = FileRecord("media/a.png", 10, 1.5, "image/png", "md5==", "/tmp/a.png")
    cursor = LogCursor("/logs/run.wandb", "key", "1:2:3", '{"offset": 7}', 1.0, None, "open", '{"state": 1}')
    assert add(cache, A, run(0), files=[file], logs=[cursor], paths={"loss": ("loss",)}) is not None
    assert rows_of(cache, A) == exact(run(0))
    assert rows_of(cache, A, SYSTEM) == []
    assert cache.log_cursors(A) == {cursor.path: cursor}
    assert cache.logs() == {cursor.path: (A, replace(cursor, state=""))}
    assert cache.last_steps() == {A: 2}
    assert cache.stream_rows(A) == ({HISTORY: 3}, 2)
    assert [one["name"] for one in query.list_files(cache, A)] == ["media/a.png"]
    add(cache, A, [], forget_logs=[cursor.path], files=[])
    assert cache.logs() == {} and query.list_files(cache, A) == []
    assert rows_of(cache, A) == exact(run(0))


def test_streams_of_a_run_are_kept_apart(cache: Cache) -> None:
    add(cache, A, run(0))
    add(cache, A, run(0, 2, "cpu"), SYSTEM)
    line: Row = ("stdout", 0, Kind.LINE, math.nan, "hello")
    add(cache, A, [line], CONSOLE)
    assert [len(rows_of(cache, A, stream)) for stream in (HISTORY, SYSTEM, CONSOLE)] == [3, 2, 1]
    assert rows_of(cache, A, CONSOLE) == exact([line])


def test_of_two_who_read_on_top_of_the_same_revision_one_finds_out(tmp_path: Path) -> None:
    with Cache(tmp_path) as one, Cache(tmp_path) as two:
        first = add(one, A, run(0))
        assert one.commit([share(A, first, run(3))]) != [None]
        landed = two.commit([share(A, first, run(3)), share(B, None, run(0))])
        assert landed[0] is None and landed[1] is not None
        assert rows_of(one, A) == exact(run(0, 6)) and rows_of(one, B) == exact(run(0))
        with closing(one.con.execute("SELECT sum(count) FROM segments")) as total:
            assert total.fetchone()[0] == 9, "the loser's rows are not in the winner's segment"
        assert two.commit([share(A, None, run(9))]) == [None], "a new run that is not new any more"
        assert not list(verify(one))


def test_the_race_may_be_lost_after_the_segment_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(tmp_path) as one, Cache(tmp_path) as two:
        add(one, A, run(0))
        add(one, B, run(0))
        shares = [share(ref, one.revision(ref), run(3)) for ref in (A, B)]
        plain = store.write_segment

        def slow(cache: Cache, level: int, blocks: Any, tenants: Any) -> Any:
            written = plain(cache, level, blocks, tenants)
            monkeypatch.undo()
            add(two, A, run(3))  # meanwhile
            return written

        monkeypatch.setattr(store, "write_segment", slow)
        landed = one.commit(shares)
        assert landed[0] is None and landed[1] == one.revision(B)
        assert rows_of(one, A) == rows_of(one, B) == exact(run(0, 6))
        assert not list(verify(one)), "not even an orphan"


def test_a_run_forgotten_and_added_again_is_another_one(cache: Cache) -> None:
    old = add(cache, A, run(0))
    cache.forget(A)
    assert add(cache, A, run(5)) != old
    assert cache.commit([share(A, old, run(3))]) == [None]
    assert rows_of(cache, A) == exact(run(5))


def test_four_processes_mirror_the_same_runs(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from rows import number, share; from wandbsync.cache import Cache\n"
        "from wandbsync.cache.compaction import compact; from wandbsync.cache import compaction\n"
        "from wandbsync.model import RunRef\n"
        "compaction.FAN_IN = {0: 4, 1: 3, 2: 3}\n"
        "cache = Cache(Path(sys.argv[1])); refs = [RunRef('e', 'p', r) for r in 'xyz']\n"
        "while True:\n"
        "    shares = []\n"
        "    for ref in refs:\n"
        "        revision = cache.revision(ref); last = cache.stream_rows(ref)[1] if revision else None\n"
        "        step = 0 if last is None else last + 1\n"
        "        if step < 12: shares.append(share(ref, revision, [number('a', step, step * 1.0)]))\n"
        "    if not shares: break\n"
        "    cache.commit(shares); compact(cache)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "c")], env=env) for _ in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    with Cache(tmp_path / "c") as cache:
        expected = exact([number("a", step, step * 1.0) for step in range(12)])
        assert [rows_of(cache, RunRef("e", "p", run_id)) for run_id in "xyz"] == [expected] * 3
        assert not faults(cache)


# -- a new generation


def test_staged_rows_are_seen_when_published_and_the_old_ones_are_gone(cache: Cache) -> None:
    revision = add(cache, A, run(0))
    add(cache, A, run(0, 2, "cpu"), SYSTEM)
    revision, new = cache.revision(A), cache.new_generation()
    assert cache.commit([share(A, revision, run(100), generation=new, publish=False)]) == [revision]
    compact(cache, everything=True)
    assert rows_of(cache, A) == exact(run(0))
    assert query.sql(cache, "SELECT count(*) FROM history").fetchall() == [(3,)]
    assert cache.commit([share(A, revision, run(103), generation=new)]) != [None]
    assert rows_of(cache, A) == exact(run(100, 6))
    assert cache.con.execute("SELECT count(*) FROM streams").fetchone()[0] == 1, "in the same instant"
    assert rows_of(cache, A, SYSTEM) == [], "a generation replaces all streams"
    assert set(query.list_metrics(cache, A)) == {"loss"}
    assert query.sql(cache, "SELECT count(*) FROM history").fetchall() == [(6,)]
    gc(cache, grace=0)
    assert rows_of(cache, A) == exact(run(100, 6)) and not list(verify(cache))


def test_staged_rows_lose_to_a_commit_meanwhile(cache: Cache) -> None:
    revision, new = add(cache, A, run(0)), cache.new_generation()
    cache.commit([share(A, revision, run(100), generation=new, publish=False)])
    add(cache, A, run(3))
    assert cache.commit([share(A, revision, run(103), generation=new)]) == [None]
    assert rows_of(cache, A) == exact(run(0, 6))


def test_staged_rows_of_a_writer_that_never_came_back_are_given_up(cache: Cache) -> None:
    revision, new = add(cache, A, run(0)), cache.new_generation()
    cache.commit([share(A, revision, run(100), generation=new, publish=False)])
    gc(cache, grace=0)
    assert cache.con.execute("SELECT count(*) FROM streams").fetchone()[0] == 2
    tomorrow = cache.con.execute("SELECT max(created_at) FROM segments").fetchone()[0] + compaction.ABANDONED
    gc(cache, grace=0, now=tomorrow)
    assert cache.con.execute("SELECT count(*) FROM streams").fetchone()[0] == 1
    assert len(segment_files(cache)) == 1
    assert cache.commit([share(A, revision, run(103), generation=new)]) == [None], "it came back after all"
    assert rows_of(cache, A) == exact(run(0)) and not list(verify(cache))


# -- whole runs


def test_cut_drops_the_history_after_a_step(cache: Cache) -> None:
    add(cache, A, [*run(0, 5), *run(0, 5, "acc"), number("late", 4, 1.0)], paths={"acc": ("a", "cc")})
    add(cache, A, run(5))
    add(cache, A, run(0, 9, "cpu"), SYSTEM)
    add(cache, B, run(0))
    before = cache.revision(A)
    cache.cut(A, 2)
    assert rows_of(cache, A) == exact([*run(0), *run(0, 3, "acc")])
    assert len(rows_of(cache, A, SYSTEM)) == 9 and rows_of(cache, B) == exact(run(0))
    assert set(query.list_metrics(cache, A)) == {"loss", "acc"} and cache.last_steps()[A] == 2
    assert cache.key_paths(A)["acc"] == ("a", "cc")
    assert cache.commit([share(A, before, run(7))]) == [None]
    assert add(cache, A, run(3)) is not None
    assert rows_of(cache, A) == exact([*run(0, 6), *run(0, 3, "acc")])
    assert not list(verify(cache))


def test_cut_before_the_first_step_leaves_nothing_of_the_history(cache: Cache) -> None:
    add(cache, A, run(5))
    cache.cut(A, 4)
    assert rows_of(cache, A) == [] and query.list_metrics(cache, A) == {}
    assert cache.stream_rows(A) == ({HISTORY: 0}, None)
    cache.cut(A, 4)
    add(cache, A, run(0))
    assert rows_of(cache, A) == exact(run(0)) and not list(verify(cache))


def test_cut_while_a_new_generation_is_staged(cache: Cache) -> None:
    add(cache, A, run(0, 5))
    add(cache, A, run(0, 2, "cpu"), SYSTEM)
    revision, new = cache.revision(A), cache.new_generation()
    cache.commit([share(A, revision, run(9, 1, "cpu"), SYSTEM, generation=new, publish=False)])
    cache.cut(A, 2)
    assert rows_of(cache, A) == exact(run(0)) and len(rows_of(cache, A, SYSTEM)) == 2
    assert cache.commit([share(A, revision, run(0), generation=new)]) == [None]


def test_cut_loses_to_a_commit_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(tmp_path) as one, Cache(tmp_path) as two:
        add(one, A, run(0, 5))
        plain = store.write_segment

        def slow(*args: Any) -> Any:
            written = plain(*args)
            monkeypatch.undo()
            add(two, A, run(5))
            return written

        monkeypatch.setattr(store, "write_segment", slow)
        with pytest.raises(CacheBusy):
            one.cut(A, 2)
        assert rows_of(one, A) == exact(run(0, 8)) and not list(verify(one))


def test_cut_loses_to_a_commit_since_it_was_planned(cache: Cache) -> None:
    add(cache, A, run(0, 5))
    planned = cache.revision(A)
    add(cache, A, run(5))
    with pytest.raises(CacheBusy):
        cache.cut(A, 2, revision=planned)
    assert rows_of(cache, A) == exact(run(0, 8))


def test_rename_moves_a_run_and_never_onto_another(cache: Cache) -> None:
    add(cache, A, run(0))
    add(cache, B, run(5))
    before, new = cache.revision(A), RunRef("team", "real", "a")
    cache.rename(A, new)
    assert cache.revision(A) is None and rows_of(cache, new) == exact(run(0))
    assert [(p["entity"], p["name"]) for p in query.list_projects(cache)] == [("me", "demo"), ("team", "real")]
    assert cache.commit([share(new, before, run(3))]) == [None]
    with pytest.raises(CacheBusy, match="cannot become me/demo/b"):
        cache.rename(new, B)
    assert rows_of(cache, B) == exact(run(5))
    cache.rename(B, replace(new, run_id="b2"))
    assert rows_of(cache, replace(new, run_id="b2")) == exact(run(5))
    assert [p["entity"] for p in query.list_projects(cache)] == ["team"]


def test_forget_leaves_nothing_of_a_run(cache: Cache) -> None:
    cache.commit([share(A, None, run(0), files=[FileRecord("a", 1)]), share(B, None, run(0))])
    cache.checked([A, B], 1.0)
    cache.forget(A)
    cache.forget(A)
    assert cache.last_steps() == {B: 2} and rows_of(cache, B) == exact(run(0))
    for table in ("files", "checks"):
        assert cache.con.execute(f"SELECT count(*) FROM {table} WHERE run = 1").fetchone()[0] == 0
    assert not faults(cache)
    cache.forget(B)
    gc(cache, grace=0)
    assert segment_files(cache) == [] and not list(verify(cache)) and query.list_projects(cache) == []


# -- compaction: the plan


def part(segment: int, level: int, count: int, *runs: int) -> Part:
    return Part(segment, level, count, frozenset(runs))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "FAN_IN", {0: 3, 1: 2, 2: 2})
    monkeypatch.setattr(compaction, "LARGE_RUN", 50)
    monkeypatch.setattr(compaction, "LARGEST", 100)


def sentences(*parts: Part, everything: bool = False) -> list[str]:
    return [str(merge) for merge in plan(parts, everything=everything)]


@pytest.mark.usefixtures("small")
def test_plan_merges_the_oldest_of_a_level() -> None:
    two = [part(1, 0, 10, 1), part(2, 0, 10, 2)]
    assert sentences(*two) == []
    assert sentences(*two, part(3, 0, 10, 3)) == ["merge segments 1, 2, 3 of 30 rows into level 1"]
    assert sentences(part(9, 0, 1, 1), part(4, 0, 1, 1), *two) == ["merge segments 1, 2, 4 of 21 rows into level 1"]
    assert sentences(part(1, 1, 5, 1, 2), part(2, 1, 5, 1, 3), part(3, 0, 1, 1)) == [
        "merge segments 1, 2 of 10 rows into level 2"
    ]
    assert sentences(part(1, 3, 5, 1), part(2, 3, 5, 1), part(3, 3, 5, 1)) == [], "the top stays as it is"


@pytest.mark.usefixtures("small")
def test_plan_keeps_a_large_run_to_itself_unless_others_hold_it_too() -> None:
    large = [part(1, 1, 60, 7), part(3, 1, 30, 7)]
    others = [part(2, 1, 5, 1, 2), part(4, 1, 5, 1, 2)]
    assert sentences(*large, *others) == [
        "merge segments 1, 3 of 90 rows into level 2",
        "merge segments 2, 4 of 10 rows into level 2",
    ]
    assert sentences(*large, part(2, 1, 5, 1, 7)) == ["merge segments 1, 2 of 65 rows into level 2"]


@pytest.mark.usefixtures("small")
def test_plan_lifts_what_is_too_large_to_merge_and_never_passes_it() -> None:
    assert sentences(part(1, 0, 90, 1), part(2, 0, 20, 1), part(3, 0, 1, 1), part(4, 0, 1, 1)) == [
        "lift segment 1 of 90 rows to level 1",
        "merge segments 2, 3, 4 of 22 rows into level 1",
    ]
    assert sentences(part(1, 0, 60, 1), part(2, 0, 40, 1), part(3, 0, 1, 1)) == [
        "merge segments 1, 2 of 100 rows into level 1"
    ]


@pytest.mark.usefixtures("small")
def test_plan_of_everything_goes_to_the_top_and_comes_to_an_end() -> None:
    parts = [part(9, 3, 10, 1, 2), part(1, 0, 10, 1), part(2, 1, 10, 1, 2), part(3, 0, 10, 2)]
    assert sentences(*parts, everything=True) == ["merge segments 2, 1, 3 of 30 rows into level 3"]
    top = [part(9, 3, 10, 1, 2), part(10, 3, 30, 1, 2)]
    assert sentences(*top, everything=True) == ["merge segments 9, 10 of 40 rows into level 3"]
    assert sentences(part(11, 3, 40, 1, 2), everything=True) == []
    assert sentences(part(1, 3, 80, 1, 2), part(2, 3, 30, 1, 2), part(3, 3, 40, 1, 2), everything=True) == [
        "merge segments 2, 3 of 70 rows into level 3"
    ], "only the newest: what stays was there before"


@pytest.mark.usefixtures("small")
def test_plan_never_lets_a_merge_overtake_rows_of_the_same_run() -> None:
    for seed in range(300):
        pick = random.Random(seed)
        parts = [
            part(n, pick.choice([0, 0, 0, 1, 2, 3]), pick.choice([5, 30, 60, 95]), *pick.choices(range(5), k=k))
            for n, k in enumerate(pick.choices([1, 1, 2, 4], k=12))
        ]
        for everything in (False, True):
            now = parts
            for fresh, merge in enumerate(plan(parts, everything=everything), 100):
                now = merged(now, merge, fresh)


def merged(parts: list[Part], merge: Merge, number: int) -> list[Part]:
    """The segments after a merge; what is read after the new one was read after all that went into it."""
    new = part(
        number, merge.level, sum(p.count for p in merge.parts), *frozenset().union(*(p.runs for p in merge.parts))
    )
    others = [one for one in parts if one not in merge.parts]
    assert len(others) == len(parts) - len(merge.parts)
    for other in others:
        for one in merge.parts:
            if one.runs & other.runs:
                assert (read_at(other) > read_at(new)) == (read_at(other) > read_at(one)), (str(merge), other)
    return [*others, new]


def read_at(one: Part) -> tuple[int, int]:
    return -one.level, one.segment


# -- compaction: the doing


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("everything", [False, True])
def test_compaction_changes_no_row_nor_its_order(
    cache: Cache, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "WINDOW", 7)
    for k in range(27):
        rows = [number("a", 5, float(k)), *run(k), text("note", 5, f'"{k}"')]
        shares = [share(A, cache.revision(A), rows * 3)]
        if k % 4 == 0:
            shares.append(share(B, cache.revision(B), rows))
        if k == 13:
            shares.append(share(C, None, rows, CONSOLE))
        cache.commit(shares)
        if not everything:
            before = [rows_of(cache, ref, stream) for ref in (A, B, C) for stream in (HISTORY, CONSOLE)]
            compact(cache)
            assert [rows_of(cache, ref, stream) for ref in (A, B, C) for stream in (HISTORY, CONSOLE)] == before
    before = [rows_of(cache, ref, stream) for ref in (A, B, C) for stream in (HISTORY, CONSOLE)]
    done = compact(cache, everything=everything)
    assert [rows_of(cache, ref, stream) for ref in (A, B, C) for stream in (HISTORY, CONSOLE)] == before
    assert bool(done) == everything and compact(cache, everything=everything) == []
    levels = {level for (level,) in cache.con.execute("SELECT level FROM segments WHERE removed_at IS NULL")}
    assert levels == {3} if everything else 3 in levels
    assert len(compaction.live_parts(cache)) < 10
    gc(cache, grace=0)
    assert [rows_of(cache, ref, stream) for ref in (A, B, C) for stream in (HISTORY, CONSOLE)] == before
    assert not list(verify(cache))


@pytest.mark.usefixtures("small")
def test_a_large_run_gets_a_segment_of_its_own(cache: Cache) -> None:
    for k in range(3):
        cache.commit([share(A, cache.revision(A), run(k * 20, 20)), share(B, cache.revision(B), run(k))])
    compact(cache)
    parts = compaction.live_parts(cache)
    assert sorted((one.level, one.count, len(one.runs)) for one in parts) == [(1, 9, 1), (1, 60, 1)]
    assert rows_of(cache, A) == exact(run(0, 60))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("many", [20, 2])  # with a segment of its own, and packed with another
def test_what_was_replaced_while_merging_is_not_named(cache: Cache, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    for k in range(3):
        cache.commit([share(A, cache.revision(A), run(k * many, many)), share(B, cache.revision(B), run(k * 3))])
    plain = compaction.write_segment

    def slow(*args: Any) -> Any:
        written = plain(*args)
        monkeypatch.setattr(compaction, "write_segment", plain)
        with Cache(cache.folder) as other:
            other.forget(A)
        return written

    monkeypatch.setattr(compaction, "write_segment", slow)
    compact(cache)
    assert rows_of(cache, B) == exact(run(0, 9)) and not faults(cache)
    gc(cache, grace=0)
    assert rows_of(cache, B) == exact(run(0, 9)) and not list(verify(cache))
    assert len(segment_files(cache)) == 1
    cache.forget(B)
    gc(cache, grace=0)
    assert segment_files(cache) == [], "nothing holds on to the rows of what is gone"


@pytest.mark.usefixtures("small")
def test_two_compactions_at_once_do_the_work_once(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(3):
        add(cache, A, run(k))
    before, plain = rows_of(cache, A), compaction.write_segment

    def slow(*args: Any) -> Any:
        written = plain(*args)
        monkeypatch.setattr(compaction, "write_segment", plain)
        with Cache(cache.folder) as other:
            assert len(compact(other)) == 1
        return written

    monkeypatch.setattr(compaction, "write_segment", slow)
    assert compact(cache) == []
    assert rows_of(cache, A) == before and not list(verify(cache))


@pytest.mark.usefixtures("small")
def test_a_merge_of_a_segment_that_is_gone_fails_and_does_not_hang(cache: Cache) -> None:
    for k in range(3):
        add(cache, A, run(k))
    segment_files(cache)[1].unlink()
    with pytest.raises(CacheError, match="gone"):
        compact(cache)


# -- gc


@pytest.mark.usefixtures("small")
def test_gc_waits_for_the_grace_and_takes_orphans(cache: Cache) -> None:
    for k in range(3):
        add(cache, A, run(k * 3))
    compact(cache)
    (cache.folder / "history" / "L0" / "orphan.parquet").write_bytes(b"left by a crash")
    (cache.folder / "tmp" / "half.parquet").write_bytes(b"half")
    assert [finding.problem for finding in verify(cache)] == ["orphan", "orphan"]
    early = gc(cache)
    assert (early.files, early.bytes, early.young) == ([], 0, 5) and gc(cache, dry_run=True) == early
    would = gc(cache, grace=0, dry_run=True)
    assert len(would.files) == 5 and len(segment_files(cache)) == 5
    swept = gc(cache, grace=0)
    assert swept == would and swept.bytes > 0
    assert len(segment_files(cache)) == 1 and not list(verify(cache))
    assert rows_of(cache, A) == exact(run(0, 9))
    assert gc(cache, grace=0).files == []


def test_a_segment_swept_before_it_was_named_is_not_named(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    add(cache, A, run(0))
    plain = store.write_segment

    def asleep(*args: Any) -> Any:
        written = plain(*args)
        with Cache(cache.folder) as other:
            assert len(gc(other, grace=-5).files) == 1
        return written

    monkeypatch.setattr(store, "write_segment", asleep)
    with pytest.raises(CacheError):
        add(cache, A, run(3))
    monkeypatch.undo()
    assert rows_of(cache, A) == exact(run(0)) and not faults(cache)


@pytest.mark.usefixtures("small")
def test_a_reader_whose_files_were_swept_lists_again(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(3):
        add(cache, A, run(k * 3))
    plain, swept = segments.read, []

    def late(path: Path, **which: Any) -> Any:
        if not swept:
            swept.append(True)
            with Cache(cache.folder) as other:
                compact(other)
                gc(other, grace=0)
        return plain(path, **which)

    monkeypatch.setattr(segments, "read", late)
    assert rows_of(cache, A) == exact(run(0, 9)) and swept


def test_a_reader_sees_a_run_before_or_after_a_replacement_never_between(tmp_path: Path) -> None:
    """Readers in a thread, while a writer replaces, cuts, compacts and sweeps all the time."""
    with Cache(tmp_path / "c") as cache:
        add(cache, A, run(0))
        seen: list[int] = []
        failures: list[BaseException] = []
        stop = threading.Event()

        def look() -> None:
            try:
                with Cache(tmp_path / "c") as mine:
                    while not stop.is_set():
                        seen.append(len(rows_of(mine, A)))
                        assert query.list_metrics(mine, A)["loss"]["count"] in (3, 4, 5)
            except BaseException as error:
                failures.append(error)

        reader = threading.Thread(target=look)
        reader.start()
        for k in range(40):
            rows = run(0, 3 + k % 2)
            cache.commit([share(A, cache.revision(A), rows, generation=cache.new_generation())])
            if k % 5 == 0:
                add(cache, A, run(4, 1))
                cache.cut(A, 2)
            compact(cache, everything=True)
            gc(cache, grace=0)
        stop.set()
        reader.join()
        assert not failures and set(seen) <= {3, 4, 5} and len(seen) > 5


# -- verify


def test_verify_finds_each_damage_and_nothing_else(cache: Cache) -> None:
    for ref in (A, B):
        add(cache, ref, [*run(0, 50), number("other", 3, math.nan)])
        add(cache, ref, run(0, 5, "cpu"), SYSTEM)
    assert list(verify(cache)) == [] and list(verify(cache, quick=True)) == []
    first = cache.segment_path(cache.con.execute("SELECT min(file) FROM segments").fetchone()[0])
    whole = first.read_bytes()
    spoiled = {
        "missing": None,
        "altered": whole[:100] + bytes([whole[100] ^ 1]) + whole[101:],
        "altered ": whole[:-20],
    }
    for problem, content in spoiled.items():
        first.unlink()
        if content is not None:
            first.write_bytes(content)
        assert [(f.problem, f.harmless) for f in verify(cache)] == [(problem.strip(), False)]
        if len(content or b"") != len(whole):
            assert [f.problem for f in verify(cache, quick=True)] == [problem.strip()]
        first.write_bytes(whole)
    assert list(verify(cache)) == []


@pytest.mark.parametrize(
    ("damage", "problems"),
    [
        ("UPDATE segment_streams SET count = count + 1 WHERE segment = (SELECT min(segment) FROM segments)", {"count"}),
        ("UPDATE streams SET count = count - 1 WHERE name = 'history'", {"count"}),
        ("UPDATE runs SET rows = rows + 1", {"count"}),
        ("UPDATE segments SET count = 1", {"count"}),
        ("DELETE FROM segment_streams", {"count", "metrics"}),
        ("UPDATE metrics SET max = 99 WHERE key = 'loss'", {"metrics"}),
        ("UPDATE metrics SET mean = mean * 1.0001 WHERE key = 'loss'", {"metrics"}),
        ("UPDATE metrics SET deviation = deviation * 1.0001 WHERE key = 'loss'", {"metrics"}),
        ("UPDATE metrics SET last_value = 7 WHERE key = 'odd'", {"metrics"}),
        ("UPDATE metrics SET nans = 0 WHERE key = 'odd'", {"metrics"}),
        ("UPDATE metrics SET last_json = '\"b\"' WHERE key = 'note'", {"metrics"}),
        ("DELETE FROM metrics WHERE key = 'loss'", {"metrics"}),
    ],
)
def test_verify_finds_what_is_wrong_in_the_catalog(cache: Cache, damage: str, problems: set[str]) -> None:
    add(cache, A, [*run(1, 50), number("odd", 3, math.nan), text("note", 0, '"a"')])
    assert list(verify(cache)) == []
    assert cache.con.execute(damage).rowcount
    assert {finding.problem for finding in verify(cache) if not finding.harmless} == problems


def test_verify_is_not_misled_by_rounding(cache: Cache) -> None:
    values = [1e300, -1e300, 1e15, 1e15 + 0.125, 0.1, -0.3, 1e-300, 5e-324] * 5
    for k in range(40):
        add(cache, A, [number("a", k, values[k]), number("b", k, 0.1), number("c", -k, 1e15 + values[k % 8] / 1e308)])
    assert list(verify(cache)) == []


def test_verify_beside_a_compaction_and_gc(cache: Cache, small: None) -> None:
    for k in range(6):
        add(cache, A, run(k * 3))

    def sweep(at: int, of: int) -> None:
        with Cache(cache.folder) as other:
            compact(other, everything=True)
            gc(other, grace=0)

    assert list(verify(cache, progress=sweep)) == []


# -- crashes, full disks, damage


@pytest.mark.parametrize(("first", "last"), [(1, 40), (40, 75), (75, 500)])
def test_a_writer_may_die_at_any_moment(tmp_path: Path, first: int, last: int) -> None:
    command = [sys.executable, crashing.__file__, str(tmp_path), str(first), str(last)]
    subprocess.run(command, check=True, timeout=100)
    states = [{ref: exact(rows) for ref, rows in state.items()} for state in crashing.states()]
    moments = sorted(tmp_path.iterdir())
    assert len(moments) > 20
    for moment in moments:
        done = moment / "done"
        reported = done.stat().st_size if done.exists() else 0
        with Cache(moment / "cache") as cache:
            assert not faults(cache), moment
            found = {ref.run_id: rows_of(cache, ref) for ref in cache.last_steps()}
            assert found in [{r.run_id: rows for r, rows in s.items()} for s in states[reported : reported + 2]], moment
            for ref in cache.last_steps():
                assert add(cache, ref, run(1000)) is not None
            gc(cache, grace=-5)
            assert not list(verify(cache)), moment


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.usefixtures("small")
def test_a_full_disk_loses_nothing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    add(cache, A, run(0, 1))
    add(cache, A, run(1, 1))
    add(cache, A, run(2, 1))
    attempts: list[Callable[[], object]] = [
        lambda: add(cache, A, run(3)),
        lambda: cache.cut(A, 1),
        lambda: compact(cache),
    ]
    for attempt in attempts:
        with monkeypatch.context() as patch, pytest.raises(CacheError, match="no room left") as caught:
            patch.setattr(segments.os, "fsync", full)
            attempt()
        assert "free some" in caught.value.line()
    assert rows_of(cache, A) == exact(run(0)) and not list(verify(cache)), "nothing is left lying about"
    add(cache, A, run(3))
    assert len(compact(cache)) == 1 and rows_of(cache, A) == exact(run(0, 6))


def test_a_full_disk_under_the_catalog_loses_nothing(cache: Cache) -> None:
    add(cache, A, run(0))
    pages = cache.con.execute("PRAGMA page_count").fetchone()[0]
    cache.con.execute(f"PRAGMA max_page_count = {pages}")
    many = [number(f"key{i}", 0, 1.0) for i in range(5000)]
    with pytest.raises(CacheError, match="no room left"):
        add(cache, B, many)
    assert not cache.con.in_transaction
    cache.con.execute("PRAGMA max_page_count = 1000000")
    assert rows_of(cache, A) == exact(run(0)) and not list(verify(cache)) and cache.revision(B) is None
    add(cache, B, many)
    assert not list(verify(cache))


def test_ctrl_c_after_the_commit_does_not_take_the_rows_along(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = catalog.transaction

    class Interrupted:
        def __init__(self, con: sqlite3.Connection) -> None:
            self.inner = plain(con)

        def __enter__(self) -> None:
            self.inner.__enter__()

        def __exit__(self, *what: Any) -> None:
            self.inner.__exit__(*what)
            raise KeyboardInterrupt

    add(cache, A, run(0))
    shares = [share(A, cache.revision(A), run(3))]
    monkeypatch.setattr(catalog, "reserve", lambda con, count: 1000)
    monkeypatch.setattr(catalog, "transaction", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.commit(shares)
    monkeypatch.undo()
    assert rows_of(cache, A) == exact(run(0, 6)) and not list(verify(cache))


def test_a_failed_commit_leaves_no_transaction_open(cache: Cache) -> None:
    with pytest.raises(sqlite3.OperationalError), catalog.transaction(cache.con):
        cache.con.execute("ROLLBACK")  # then COMMIT fails
    with pytest.raises(ZeroDivisionError), catalog.transaction(cache.con):
        raise ZeroDivisionError
    add(cache, A, run(0))
    assert rows_of(cache, A) == exact(run(0))


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at" * 50, b"SQLite format 3\0" + b"x" * 90]
)
def test_a_damaged_catalog_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(content)
    with pytest.raises(CacheError, match=r"damaged|not a database|malformed") as caught:
        Cache(tmp_path).last_steps()
    assert "cache repair" in caught.value.line()


def test_a_catalog_damaged_inside_says_so(cache: Cache) -> None:
    for k in range(30):
        add(cache, RunRef("e", "p", f"r{k}"), run(0))
    cache.con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cache.close()
    path = cache.folder / "catalog.sqlite"
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(CacheError, match="damaged"):
        query.list_runs(cache, ("e", "p"))


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        add(cache, A, run(0))
        cache.con.execute(f"PRAGMA user_version = {catalog.VERSION + 1}")
    with pytest.raises(NewerCache) as caught:
        Cache(tmp_path).last_steps()
    assert "upgrade" in caught.value.line()


def test_a_locked_catalog_is_busy_and_readers_do_not_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(tmp_path) as holder:
        add(holder, A, run(0))
        holder.con.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(catalog, "BUSY_SECONDS", 0.05)
        with Cache(tmp_path) as other:
            assert rows_of(other, A) == exact(run(0))
            assert len(query.list_runs(other, ("me", "demo"))) == 1
            with pytest.raises(CacheBusy):
                add(other, A, run(3))
            holder.con.execute("ROLLBACK")
            add(other, A, run(3))
            assert rows_of(other, A) == exact(run(0, 6)) and not list(verify(other))


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot use the cache"):
        Cache(tmp_path / "file" / "cache").last_steps()
    with Cache(tmp_path / "cache") as cache:
        add(cache, A, run(0))
        cache.con.execute("PRAGMA query_only = 1")
        with pytest.raises(CacheError, match="cannot write") as caught:
            add(cache, A, run(3))
        assert "--cache-dir" in caught.value.line()
        assert rows_of(cache, A) == exact(run(0))


def test_many_processes_may_make_the_same_cache(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from wandbsync.cache import Cache; Cache(Path(sys.argv[1])).last_steps()"
    )
    for k in range(3):
        makers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / str(k))]) for _ in range(6)]
        assert [maker.wait(60) for maker in makers] == [0] * 6


def test_the_cache_is_for_its_owner_alone(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        add(cache, A, run(0))
        assert cache.folder.stat().st_mode & 0o77 == 0
        assert (cache.folder / "catalog.sqlite").stat().st_mode & 0o77 == 0


def test_problems_and_sources_are_noted(cache: Cache) -> None:
    cache.note_problems({"/x": ("bad", "1:2")}, (), 5.0)
    cache.note_problems({"/x": ("worse", "1:3"), "/y": ("bad", None)}, (), 6.0)
    assert cache.problems() == {"/x": ("worse", "1:3"), "/y": ("bad", None)}
    cache.note_problems({}, ["/x"], 7.0)
    assert cache.problems() == {"/y": ("bad", None)}
    cache.synced("local", "/runs", 1.0)
    cache.synced("local", "/runs", 2.0)
    assert cache.sources("local") == {"/runs": 2.0} and cache.sources("api") == {}


# -- all of it, at random

RUNS = [RunRef("me", "demo", f"run{i}") for i in range(4)]
SMALL_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["loss", "acc", "", "k" * 4200]),
        st.integers(0, 6),
        st.sampled_from(
            [
                (Kind.FLOAT, 0.1, None),
                (Kind.FLOAT, math.nan, None),
                (Kind.FLOAT, -0.0, None),
                (Kind.INT, 3.0, None),
                (Kind.NULL, math.nan, None),
                (Kind.JSON, math.nan, '"text"'),
                (Kind.BIGINT, 1e20, "100000000000000000001"),
            ]
        ),
    ).map(lambda row: (row[0], row[1], *row[2])),
    min_size=1,
    max_size=8,
)
COUNTS = (
    "SELECT stream, sum(count)::BIGINT FROM metrics WHERE project = '{ref.project}' AND run_id = '{ref.run_id}' "
    "GROUP BY stream"
)
STREAM_NAMES = st.sampled_from([HISTORY, HISTORY, SYSTEM])
Streams = dict[str, list[Row]]


class CacheMachine(RuleBasedStateMachine):
    """Random histories of a cache, checked against a dict."""

    count = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/tmp")
        self.folder = base / f"wandbsync-test-{os.getpid()}-{next(self.count)}"
        self.cache = Cache(self.folder)
        self.model: dict[RunRef, Streams] = {}
        self.staged: dict[RunRef, tuple[int, int | None, Streams]] = {}
        self.renamed = 0
        self.serial = 0.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(compaction, "FAN_IN", {0: 3, 1: 2, 2: 2})
        self.patch.setattr(compaction, "LARGE_RUN", 25)
        self.patch.setattr(compaction, "LARGEST", 60)
        self.patch.setattr(segments, "WINDOW", 6)
        self.patch.setattr(segments, "ROW_GROUP", 8)
        self.patch.setattr(segments, "OWN_GROUP", 4)

    def teardown(self) -> None:
        try:
            self.everything_is_there()
            assert not faults(self.cache)
        finally:
            self.patch.undo()
            self.cache.close()
            shutil.rmtree(self.folder)

    def marked(self, rows: list[Row]) -> list[Row]:
        """The rows and one more with a number of its own at a step that others have too, to tell their order by."""
        self.serial += 1
        return [*rows, number("loss", 3, self.serial)]

    @rule(runs=st.sets(st.sampled_from(RUNS), min_size=1), rows=SMALL_ROWS, stream=STREAM_NAMES)
    def commit(self, runs: set[RunRef], rows: list[Row], stream: str) -> None:
        batches = {ref: self.marked(rows) for ref in sorted(runs)}
        landed = self.cache.commit([share(ref, self.cache.revision(ref), b, stream) for ref, b in batches.items()])
        assert None not in landed
        for ref, added in batches.items():
            self.model.setdefault(ref, {}).setdefault(stream, []).extend(added)

    @rule(ref=st.sampled_from(RUNS), rows=SMALL_ROWS)
    def lose(self, ref: RunRef, rows: list[Row]) -> None:
        assert self.cache.commit([share(ref, (self.cache.revision(ref) or 0) + 1, rows)]) == [None]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), rows=SMALL_ROWS, stream=STREAM_NAMES)
    def stage(self, data: st.DataObject, rows: list[Row], stream: str) -> None:
        ref = data.draw(st.sampled_from(sorted(self.model)))
        if ref not in self.staged:
            self.staged[ref] = (self.cache.new_generation(), self.cache.revision(ref), {})
        generation, revision, streams = self.staged[ref]
        rows = self.marked(rows)
        landed = self.cache.commit([share(ref, revision, rows, stream, generation=generation, publish=False)])
        if revision == self.cache.revision(ref):
            assert landed == [revision]
            streams.setdefault(stream, []).extend(rows)
        else:
            assert landed == [None]
            del self.staged[ref]

    @precondition(lambda self: self.staged)
    @rule(data=st.data(), rows=SMALL_ROWS)
    def publish(self, data: st.DataObject, rows: list[Row]) -> None:
        ref = data.draw(st.sampled_from(sorted(self.staged)))
        generation, revision, streams = self.staged.pop(ref)
        current = self.cache.revision(ref)
        landed = self.cache.commit([share(ref, revision, rows, generation=generation)])
        if revision != current:
            assert landed == [None]
        else:
            assert landed != [None]
            streams.setdefault(HISTORY, []).extend(rows)
            self.model[ref] = streams

    @precondition(lambda self: self.model)
    @rule(data=st.data(), last=st.integers(-1, 6))
    def cut(self, data: st.DataObject, last: int) -> None:
        ref = data.draw(st.sampled_from(sorted(self.model)))
        self.cache.cut(ref, last)
        self.model[ref][HISTORY] = [row for row in self.model[ref].get(HISTORY, []) if row[1] <= last]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(sorted(self.model)))
        self.renamed += 1
        new = replace(ref, project=f"other{self.renamed}")
        self.cache.rename(ref, new)
        self.model[new] = self.model.pop(ref)
        self.staged.pop(ref, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(sorted(self.model)))
        self.cache.forget(ref)
        del self.model[ref]
        self.staged.pop(ref, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(sorted(self.model)))
        before = self.cache.revision(ref)
        assert before and eviction.evict(self.cache, ref, before, elsewhere=True)
        assert self.cache.commit([share(ref, before, [number("loss", 1, 1.0)])]) == [None], "nobody adds to it"
        assert ref in self.cache.evicted() and not query.get_run(self.cache, ref)["complete"]
        known = {stream: len(exact(rows)) for stream, rows in self.model[ref].items() if rows}
        counts = dict(query.sql(self.cache, COUNTS.format(ref=ref)).fetchall())
        assert counts == known, "what is known of them stays"
        for stream in (HISTORY, SYSTEM):
            with pytest.raises(NothingCached):
                rows_of(self.cache, ref, stream)
        rows = self.marked([])
        new = self.cache.new_generation()
        assert self.cache.commit([share(ref, self.cache.revision(ref), rows, generation=new)]) != [None]
        self.model[ref] = {HISTORY: rows}
        self.staged.pop(ref, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def rewrite(self, data: st.DataObject) -> None:
        listed = self.cache.con.execute("SELECT segment FROM segments WHERE removed_at IS NULL").fetchall()
        if listed:
            eviction.rewrite(self.cache, data.draw(st.sampled_from([row[0] for row in listed])))

    @rule(everything=st.booleans())
    def compact(self, everything: bool) -> None:
        compact(self.cache, everything=everything)

    @rule()
    def sweep(self) -> None:
        gc(self.cache, grace=-5)
        assert not list(verify(self.cache))

    @rule()
    def reopen(self) -> None:
        self.cache.close()

    @rule()
    def verify(self) -> None:
        assert not faults(self.cache)

    @invariant()
    def everything_is_there(self) -> None:
        assert set(self.cache.last_steps()) == set(self.model)
        for ref, streams in self.model.items():
            for stream in (HISTORY, SYSTEM):
                assert rows_of(self.cache, ref, stream) == exact(streams.get(stream, [])), (ref, stream)


CacheMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
test_a_cache_at_random = CacheMachine.TestCase


@pytest.mark.usefixtures("small")
def test_compacting_everything_comes_to_an_end(cache: Cache) -> None:
    """Merged, the two newest at the top come apart again: a large run, and a small one that an old one holds."""
    for a, b in ((40, 40), (30, 30), (30, 0)):
        shares = [(A, a), (B, b)]
        cache.commit([share(ref, cache.revision(ref), run(0, count)) for ref, count in shares if count])
        compact(cache, everything=True)
    compact(cache, everything=True)
    assert len(rows_of(cache, A)) == 100 and len(rows_of(cache, B)) == 70 and not list(verify(cache))


def test_a_new_cache_may_be_made_by_several_at_once(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def make(folder: Path, start: threading.Barrier) -> None:
        start.wait()
        try:
            with Cache(folder) as cache:
                assert cache.logs() == {}
        except BaseException as error:
            failed.append(error)

    for i in range(30):
        start = threading.Barrier(6)
        threads = [threading.Thread(target=make, args=(tmp_path / str(i), start)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
