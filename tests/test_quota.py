"""A cache kept within its limits: what goes, that it comes back when it is asked for, and what never goes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dying
import logwriter as lw
import pytest
from local_runs import end, header, put
from mirror import DEMO, Mirror, cells_of, rows
from rows import exact, number, share, stored
from shell import Shell
from test_both_sources import Both, log, logged, on_server
from test_both_sources import uploaded as same_rows
from test_disk import mounts, on_disk
from wandb_server import Run, Server

from wandbsync import query
from wandbsync.cache import Cache, MirrorCursor, compaction, eviction, publish, retention, usage, uses
from wandbsync.cache.retention import Limits, Short
from wandbsync.cache.upkeep import Freed, make_room, sweep, upkeep
from wandbsync.cache.verify import verify
from wandbsync.errors import NothingCached
from wandbsync.model import Fingerprint, RunRef
from wandbsync.plan.discovery import RunFilter
from wandbsync.sync import sync_local
from wandbsync.sync.server import Asked, sync_server

NOTHING = Limits(0)
OLD, MID, NEW = (RunRef(*DEMO, name) for name in ("old", "mid", "new"))


def finished(server: Server, name: str, day: int, count: int = 300, **fields: Any) -> Run:
    """A run that gave its last sign of life on a day of November, and whose rows take some room."""
    logged = [row | {f"noise{n}": random.random() for n in range(20)} for row in rows(count, note="x" * 20)]
    run = server.add_run(*DEMO, name, logged, **({"console": ["a", "b"]} | fields))
    server.edit(run, heartbeat_at=datetime(2023, 11, day, 12, tzinfo=timezone.utc))
    return run


@pytest.fixture
def three(server: Server, mirror: Mirror) -> list[Run]:
    """Mirrored together, so they share a segment."""
    runs = [finished(server, name, day) for name, day in (("old", 1), ("mid", 5), ("new", 9))]
    mirror.quietly()
    return runs


def sound(cache: Cache) -> None:
    assert [finding for finding in verify(cache) if not finding.harmless] == []


def without_rows(mirror: Mirror, run: Run) -> None:
    """All that is known of a run is there, its rows are not, and everybody says so."""
    one, ref = mirror.run(run.name), RunRef(*DEMO, run.name)
    assert (one["rows"], one["name"], one["state"], one["complete"]) == (300, run.display_name, "finished", False)
    says = f"its rows were removed to save space; `wandbsync sync me/demo/{run.name}` fetches them again"
    assert one["incomplete"] == says and one["summary_metrics"]["i"] == 299
    loss = query.list_metrics(mirror.cache, ref, include_system=True)["loss"]
    assert (loss["count"], loss["min"], loss["max"], loss["complete"]) == (300, 1 / 300, 1, False)
    for read in (lambda: query.history(mirror.cache, ref), lambda: query.series(mirror.cache, ref, "loss")):
        with pytest.raises(NothingCached, match="fetches them again"):
            read()
    for view in ("history", "console"):
        text = f"SELECT count(*) FROM {view} WHERE run_id = '{run.name}'"
        assert query.sql(mirror.cache, text).fetchall() == [(0,)]
    assert query.sql(mirror.cache, f"SELECT complete, rows FROM runs WHERE run_id = '{run.name}'").fetchall() == [
        (False, 300)
    ]
    text = f"SELECT count, max FROM metrics WHERE run_id = '{run.name}' AND key = 'loss'"
    assert query.sql(mirror.cache, text).fetchall() == [(300, 1.0)]


def nobody_asked(cache: Cache) -> None:
    """As if no rows had been read by these tests."""
    cache.con.execute("UPDATE uses SET asked_at = NULL")


def rows_size(cache: Cache) -> int:
    sizes = usage.measure(cache)
    return sizes.rows - sizes.dead


# -- the plain course of things


def test_the_oldest_rows_go_and_come_back_when_they_are_asked_for(mirror: Mirror, three: list[Run]) -> None:
    old, mid, new = three
    cache = mirror.cache
    sizes = usage.measure(cache)
    limit = sizes.held - sizes.rows // 4
    before = {name: mirror.cells(name) for name in ("mid", "new")}
    would = make_room(cache, Limits(limit), dry_run=True)
    (segment,) = cache.con.execute("SELECT segment FROM segments").fetchone()
    assert [str(action).split(",")[0] for action in would.actions] == [
        "remove the rows of me/demo/old",
        f"rewrite segment {segment} without its dead rows",
    ]
    mirror.assert_whole()
    nobody_asked(cache)
    freed = make_room(cache, Limits(limit))
    assert list(map(str, freed.actions)) == list(map(str, would.actions)) and freed.short is None
    assert usage.measure(cache).held <= limit and freed.bytes > sizes.rows // 5
    assert make_room(cache, Limits(limit)) == Freed(), "nothing more to do"
    without_rows(mirror, old)
    mirror.assert_same(mid, new)
    assert {name: mirror.cells(name) for name in before} == before
    sound(cache)
    assert mirror.quietly().planned == [] and mirror.asked == {"Runs": 1}
    status = query.status(cache)
    assert status["incomplete"] == [] and status["projects"][0]["runs"] == 3
    assert (status["projects"][0]["incomplete"], status["projects"][0]["evicted"]) == (0, 1)
    assert [str(action) for action in mirror.quietly("old").planned] == ["fetch me/demo/old anew (removed)"]
    mirror.assert_whole()
    assert mirror.quietly().planned == []
    compaction.gc(cache, grace=0)
    mirror.assert_whole()


def test_evicting_and_syncing_never_is_a_loop(server: Server, mirror: Mirror, three: list[Run]) -> None:
    old, mid, _ = three
    for _ in range(3):
        assert mirror.quietly().planned == []
        make_room(mirror.cache, NOTHING)
        upkeep(mirror.cache, NOTHING)
        assert rows_size(mirror.cache) == 0
    server.edit(old, display_name="renamed", heartbeat_at=datetime(2023, 11, 10, tzinfo=timezone.utc))
    assert [str(action) for action in mirror.quietly().planned] == ["describe me/demo/old (changed)"]
    without_rows(mirror, old)
    assert mirror.quietly().planned == []
    # It went on: then all of it is fetched again, and may go again when it has ended.
    server.edit(old, declared="running", heartbeat_at=server.clock.now())
    assert [str(action) for action in mirror.quietly().planned] == ["describe me/demo/old (changed)"]
    assert mirror.run("old")["state"] == "running"
    server.grow(old, rows(5, 300, note="y"))
    assert [str(action) for action in mirror.quietly().planned] == ["fetch me/demo/old anew (grown)"]
    mirror.assert_same(old)
    nobody_asked(mirror.cache)
    assert make_room(mirror.cache, NOTHING).actions == [], "still running"
    server.finish(old)
    mirror.quietly()
    assert make_room(mirror.cache, NOTHING).runs == 1
    assert mirror.quietly().planned == []
    # Fewer rows, or another run of that name.
    server.rewind(mid, 99)
    assert [str(action) for action in mirror.quietly().planned] == ["fetch me/demo/mid anew (rewound)"]
    mirror.assert_same(mid)
    other = server.recreate(server.run(*DEMO, "new"), rows(300))
    assert [str(action) for action in mirror.quietly().planned] == ["fetch me/demo/new anew (re-used)"]
    mirror.assert_same(other)
    sound(mirror.cache)


def test_full_brings_everything_back(mirror: Mirror, three: list[Run]) -> None:
    make_room(mirror.cache, NOTHING)
    assert len(mirror.quietly(full=True).planned) == 3
    mirror.assert_whole()


def test_a_filtered_sync_does_not_look_after_evicted_runs(mirror: Mirror, three: list[Run]) -> None:
    make_room(mirror.cache, NOTHING)
    assert mirror.quietly(only=RunFilter(("running",), (), None)).listed == 0


def test_what_is_asked_for_stays_for_a_while(mirror: Mirror, three: list[Run]) -> None:
    query.series(mirror.cache, OLD, "loss")
    now = usage_noted(mirror.cache, OLD)
    freed = make_room(mirror.cache, NOTHING, now=now + 60)
    assert [action.ref for action in freed.actions if isinstance(action, retention.Evict)] == [MID, NEW]
    assert freed.short and "1 run: in use" in str(freed.short)
    mirror.assert_same(three[0])
    assert make_room(mirror.cache, NOTHING, now=now + retention.IN_USE + 60).runs == 1
    mirror.sync("old")
    assert abs((usage_noted(mirror.cache, OLD) or 0) - max(mirror.now, now)) < 1, "fetching it by name is asking"


def usage_noted(cache: Cache, ref: RunRef) -> float:
    return float(
        cache.con.execute("SELECT asked_at FROM uses JOIN runs USING (run) WHERE run_id = ?", (ref.run_id,)).fetchone()[
            0
        ]
    )


def test_readers_note_a_use_once_an_hour_and_never_wait(mirror: Mirror, three: list[Run]) -> None:
    cache = mirror.cache
    uses.note(cache, [OLD], 1e9)
    changes = cache.con.total_changes
    uses.note(cache, [OLD], 1e9 + uses.HOUR - 1)
    assert cache.con.total_changes == changes
    uses.note(cache, [OLD], 1e9 + uses.HOUR)
    assert usage_noted(cache, OLD) == 1e9 + uses.HOUR
    with Cache(cache.folder) as writer:
        writer.con.execute("BEGIN IMMEDIATE")
        said: list[str] = []
        cache.con.set_trace_callback(said.append)
        uses.note(cache, [OLD, MID], 2e9)
        cache.con.set_trace_callback(None)
        assert said.index("PRAGMA busy_timeout = 0") < said.index("BEGIN IMMEDIATE"), "not for ten seconds"
        assert len(query.series(cache, NEW, "loss")[0]) == 300
        writer.con.execute("ROLLBACK")
    assert usage_noted(cache, OLD) == 1e9 + uses.HOUR
    uses.note(cache, [OLD], 2e9)
    assert usage_noted(cache, OLD) == 2e9
    assert cache.con.execute("PRAGMA busy_timeout").fetchone()[0] == 10_000


# -- what never goes


def test_rows_that_are_nowhere_else_stay_unless_forced(server: Server, mirror: Mirror, three: list[Run]) -> None:
    cache = mirror.cache
    server.add_run(*DEMO, "running", rows(5), state="running")
    mirror.quietly()
    server.delete(three[0])
    mirror.sync()
    assert mirror.run("old")["deleted_at"]
    folder = cache.folder.parent / "logs"
    put(folder, "l1", [*header("l1"), *some_rows(range(50)), end()])
    sync_local(cache, [folder])
    local = RunRef("local", "demo", "l1")
    before = query.history(cache, local)
    nobody_asked(cache)
    freed = make_room(cache, NOTHING)
    assert [action.ref for action in freed.actions if isinstance(action, retention.Evict)] == [MID, NEW]
    assert "2 runs: only here" in str(freed.short) and "1 run: still running" in str(freed.short)
    assert query.history(cache, local).equals(before) and mirror.cells("old") == cells_of(three[0])
    sound(cache)
    freed = make_room(cache, NOTHING, force=True)
    gone = {str(action.ref): action.only_here for action in freed.actions if isinstance(action, retention.Evict)}
    assert gone == {"me/demo/old": "only here", "local/demo/l1": "only here"}
    assert isinstance(freed.short, Short) and "still running" in str(freed.short)
    assert query.get_run(cache, local)["incomplete"] == eviction.LOST
    assert query.list_metrics(cache, local)["x"]["count"] == 50
    with pytest.raises(NothingCached, match="no server has all of them"):
        query.history(cache, local)
    sound(cache)
    assert sync_local(cache, [folder]).planned == []
    sync_local(cache, [folder], full=True)
    assert query.history(cache, local).equals(before), "its log still had them"


def some_rows(steps: range) -> list[bytes]:
    return [
        lw.record("core", 3 + i, history=lw.history("core", [(("x",), str(i)), (("_step",), str(i))], i)) for i in steps
    ]


def test_a_run_deleted_after_its_rows_were_removed_says_that_they_are_lost(
    server: Server, mirror: Mirror, three: list[Run]
) -> None:
    make_room(mirror.cache, NOTHING)
    server.delete(three[0])
    mirror.sync()
    one = mirror.run("old")
    assert one["deleted_at"] and one["incomplete"] == eviction.LOST and one["rows"] == 300
    mirror.cache.deleted([MID], 1.0)
    assert mirror.run("mid")["incomplete"] == eviction.LOST
    assert [str(action) for action in mirror.quietly().planned] == ["describe me/demo/mid (back)"]
    without_rows(mirror, three[1])
    sound(mirror.cache)


def test_a_run_that_is_not_whole_stays(mirror: Mirror, three: list[Run]) -> None:
    cache = mirror.cache
    cache.con.execute("UPDATE runs SET incomplete = 'a row is doubled' WHERE run_id = 'old'")
    seen = cache.mirror(MID)
    assert seen
    cache.note_mirrors({MID: replace(seen, failures=1, reason="its console did not come")})
    freed = make_room(cache, NOTHING)
    assert [action.ref for action in freed.actions if isinstance(action, retention.Evict)] == [NEW]
    assert "2 runs: not all on its server" in str(freed.short)


def test_more_machine_metrics_than_a_server_gives_again(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(5), state="running")
    for count in (9000, 18_000):
        server.edit(run, events=[{"_timestamp": 1.7e9 + i, "system.cpu": i / 2} for i in range(count)])
        server.grow(run, rows(1, len(run.history)))
        mirror.sync()
    server.finish(run)
    mirror.sync()
    freed = make_room(mirror.cache, NOTHING)
    assert freed.runs == 0 and "more machine metrics" in str(freed.short)


# -- a run that is a log here, and on the server


def test_a_run_that_is_here_as_a_log_goes_only_if_its_server_has_all_of_it(tmp_path: Path, server: Server) -> None:
    (tmp_path / "logs").mkdir()
    with Cache(tmp_path / "cache") as cache:
        both = Both(tmp_path / "logs", server, cache)
        path = log(both, range(50))
        run = on_server(both, range(40), state="running")
        both.local(), both.remote()
        assert make_room(cache, NOTHING).runs == 0
        server.grow(run, same_rows(range(40, 50)))
        server.finish(run)
        both.remote()
        assert make_room(cache, NOTHING).runs == 1
        both.local(), both.remote(), both.local(), both.remote()
        assert not both.run()["complete"] and both.run()["rows"] == 50
        sound(cache)
        sync_server(cache, both.api, [Asked("me", "demo", ("r1",))])
        assert both.xs() == {i: i / 3 for i in range(50)} and both.run()["complete"]
        # Once more, and now the job is resumed here: its log is read again as a whole.
        assert make_room(cache, NOTHING, force=True).runs == 1
        path.write_bytes(lw.log([*header("r1", entity="me"), *logged(range(60)), end()]))
        both.local()
        assert both.xs() == {i: i / 3 for i in range(60)} and both.run()["complete"]
        sound(cache)
        both.api.transport.close()


def test_a_log_that_turns_up_brings_back_an_evicted_run(tmp_path: Path, server: Server) -> None:
    (tmp_path / "logs").mkdir()
    with Cache(tmp_path / "cache") as cache:
        both = Both(tmp_path / "logs", server, cache)
        on_server(both, range(50))
        both.remote()
        assert make_room(cache, NOTHING).runs == 1
        log(both, range(50))
        both.local(), both.remote()
        assert both.xs() == {i: i / 3 for i in range(50)} and both.run()["complete"]
        sound(cache)
        both.api.transport.close()


@pytest.mark.parametrize("mirrored", [False, True])
def test_rows_that_come_to_a_run_whose_rows_were_removed_do_not_make_it_look_whole(
    tmp_path: Path, mirrored: bool
) -> None:
    """Forced; and of its two logs one is gone, so that it cannot be read again as a whole."""
    with Cache(tmp_path / "cache") as cache:
        folder = tmp_path / "logs"
        first = put(folder, "l1", [*header("l1"), *some_rows(range(50)), end()], stamp="20240101_000000")
        again = header("l1", at=1.7e9 + 1000)
        second = put(folder, "l1", [*again, *some_rows(range(50, 60))], stamp="20240102_000000")
        sync_local(cache, [folder])
        if mirrored:
            seen = Fingerprint("running", "2023-11-14T12:00:00Z", None, 40)
            cache.note_mirrors({RunRef("local", "demo", "l1"): MirrorCursor(seen, seen)})
        assert make_room(cache, NOTHING, force=True).runs == 1
        first.unlink()
        second.write_bytes(lw.log([*again, *some_rows(range(50, 70)), end()]))
        sync_local(cache, [folder])
        ref = RunRef("local", "demo", "l1")
        one = query.get_run(cache, ref)
        assert (one["rows"], one["incomplete"], one["complete"]) == (70, eviction.LOST, False)
        assert query.list_metrics(cache, ref)["x"]["count"] == 70
        with pytest.raises(NothingCached):
            query.history(cache, ref)
        compaction.compact(cache, everything=True)
        compaction.gc(cache, grace=0)
        sound(cache)
        assert make_room(cache, NOTHING, force=True).runs == 1
        assert rows_size(cache) == 0
        sound(cache)


# -- media and derived files


def test_media_that_can_be_downloaded_again_goes_first(server: Server, mirror: Mirror, tmp_path: Path) -> None:
    finished(server, "r", 1, files={f"media/images/{name}.png": name.encode() * 5000 for name in "ab"})
    gone = finished(server, "gone", 2, files={"media/images/c.png": b"c" * 5000})
    mirror.quietly()
    cache, shell = mirror.cache, Shell(tmp_path)
    shell.env |= server.env
    downloads = [shell.json("download-plots", "me/demo", name, "--force") for name in ("r", "gone")]
    assert {one["outcome"] for some in downloads for one in some} == {"downloaded"}
    server.delete(gone)
    mirror.sync()
    derived = cache.folder / "derived" / "plots" / "one.png"
    derived.parent.mkdir(parents=True)
    derived.write_bytes(b"d" * 5000)
    kept = {path.read_bytes()[:1].decode(): path for path in (cache.folder / "media").rglob("*") if path.is_file()}
    assert sorted(kept) == ["a", "b", "c"]
    os.utime(kept["a"], (1.6e9, 1.6e9))
    shell("download-plots", "me/demo", "r", "--output", "again")
    os.utime(kept["b"], (1.6e9, 1.6e9))
    size = usage.measure(cache).held
    assert (usage.measure(cache).media, usage.measure(cache).derived) == (15_000, 5000)
    assert [type(action) for action in make_room(cache, Limits(size - 1)).actions] == [retention.Remove]
    assert not derived.exists() and all(path.exists() for path in kept.values())
    make_room(cache, Limits(size - 5001))
    assert [name for name, path in sorted(kept.items()) if path.exists()] == ["a", "c"], "a was used since"
    make_room(cache, NOTHING)
    assert [name for name, path in sorted(kept.items()) if path.exists()] == ["c"]
    assert {one["outcome"] for one in shell.json("download-plots", "me/demo", "r", "--force")} == {"downloaded"}
    make_room(cache, NOTHING, force=True)
    assert not kept["c"].exists()


# -- packed segments


def test_many_small_runs_in_one_segment(server: Server, mirror: Mirror) -> None:
    runs = [finished(server, f"r{n:02d}", n + 1, 40) for n in range(20)]
    mirror.quietly()
    cache = mirror.cache
    sizes = usage.measure(cache)
    assert cache.con.execute("SELECT count(*) FROM segments").fetchone()[0] == 1
    freed = make_room(cache, Limits(sizes.held - sizes.rows // 2))
    assert 9 <= freed.runs <= 14 and freed.short is None
    left = runs[freed.runs :]
    mirror.assert_same(*left)
    assert all(not mirror.run(run.name)["complete"] for run in runs[: freed.runs])
    sound(cache)
    compaction.gc(cache, grace=0)
    mirror.assert_same(*left)
    after = usage.measure(cache)
    assert after.rows < sizes.rows * 0.6 and after.dead < sizes.rows * 0.3
    compaction.compact(cache, everything=True)
    mirror.assert_same(*left)
    for run in runs[: freed.runs]:
        mirror.sync(run.name)
    compaction.compact(cache, everything=True)
    mirror.assert_whole()


def test_rows_of_one_step_keep_their_order_when_a_segment_is_written_anew(tmp_path: Path) -> None:
    refs = [RunRef("e", "p", name) for name in "ab"]
    with Cache(tmp_path / "c") as cache:
        for k in range(5):
            cache.commit([share(ref, cache.revision(ref), [number("x", 1, k), number("y", k, k)]) for ref in refs])
        want = stored(query.history(cache, refs[0]))
        assert [row for row in want if row[0] == "x"] == exact([number("x", 1, k) for k in range(5)])
        assert eviction.evict(cache, refs[1], cache.revision(refs[1]) or 0, elsewhere=True)
        for (segment,) in cache.con.execute("SELECT segment FROM segments WHERE removed_at IS NULL").fetchall()[1:4:2]:
            assert eviction.rewrite(cache, segment) != 0
            assert stored(query.history(cache, refs[0])) == want
        sound(cache)
        compaction.compact(cache, everything=True)
        assert stored(query.history(cache, refs[0])) == want
        compaction.gc(cache, grace=0)
        assert not list(verify(cache))


def test_a_run_whose_rows_were_removed_may_be_cut_renamed_and_forgotten(tmp_path: Path) -> None:
    one, other = RunRef("e", "p", "a"), RunRef("e", "q", "a")
    with Cache(tmp_path / "c") as cache:
        cache.commit([share(one, None, [number("x", step, step) for step in range(9)])])
        assert eviction.evict(cache, one, cache.revision(one) or 0, elsewhere=True)
        cache.cut(one, 4)
        with pytest.raises(NothingCached):
            query.history(cache, one)
        assert not query.get_run(cache, one)["complete"]
        cache.rename(one, other)
        assert cache.evicted() == {other}
        sound(cache)
        cache.forget(other)
        assert [cache.con.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("evictions", "uses")] == [
            0,
            0,
        ]
        cache.commit([share(other, None, [number("x", 0, 1)])])
        assert cache.evicted() == set() and query.history(cache, other).num_rows == 1


def test_a_rewrite_beside_a_merge_or_another_rewrite(
    mirror: Mirror, three: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = mirror.cache
    assert eviction.evict(cache, OLD, cache.revision(OLD) or 0, elsewhere=True)
    ((segment,),) = cache.con.execute("SELECT segment FROM segments WHERE removed_at IS NULL").fetchall()
    plain = eviction.write_segment
    others: list[Any] = [
        lambda other: eviction.rewrite(other, segment),
        lambda other: compaction.compact(other, everything=True),
        lambda other: other.forget(MID),
    ]
    for meanwhile in others:

        def slow(*args: Any, meanwhile: Any = meanwhile) -> Any:
            written = plain(*args)
            monkeypatch.setattr(eviction, "write_segment", plain)
            with Cache(cache.folder) as other:
                meanwhile(other)
            return written

        ((segment,),) = cache.con.execute("SELECT segment FROM segments WHERE removed_at IS NULL").fetchall()
        monkeypatch.setattr(eviction, "write_segment", slow)
        eviction.rewrite(cache, segment)
        mirror.assert_same(three[2])
        sound(cache)
    compaction.gc(cache, grace=-5)
    mirror.assert_same(three[2])
    assert not list(verify(cache))


def test_an_eviction_loses_to_a_commit_meanwhile(server: Server, mirror: Mirror, three: list[Run]) -> None:
    seen = mirror.cache.revision(OLD) or 0
    server.edit(three[0], display_name="new name")
    mirror.quietly()
    assert not eviction.evict(mirror.cache, OLD, seen, elsewhere=True)
    mirror.assert_whole()
    assert not eviction.evict(mirror.cache, RunRef(*DEMO, "none"), 1, elsewhere=True)


# -- readers, crashes, full disks


def test_a_reader_beside_evictions_has_all_rows_or_is_told(server: Server, mirror: Mirror, three: list[Run]) -> None:
    failures: list[BaseException] = []
    seen = {"rows": 0, "told": 0}
    stop = threading.Event()

    def look() -> None:
        try:
            with Cache(mirror.cache.folder) as mine:
                while not stop.is_set():
                    try:
                        table = query.history(mine, OLD)
                    except NothingCached:
                        seen["told"] += 1
                    else:
                        assert table.num_rows == len(cells_of(three[0]))
                        seen["rows"] += 1
                    assert query.list_metrics(mine, OLD)["loss"]["count"] == 300
                    assert len(query.list_runs(mine, DEMO)) == 3
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(8):
        sweep(mirror.cache, NOTHING, force=True)
        compaction.gc(mirror.cache, grace=600, replaced=0)
        mirror.sync("old", "mid")
    stop.set()
    reader.join()
    assert not failures, failures
    assert seen["rows"] and seen["told"]
    sound(mirror.cache)


def test_a_process_may_die_at_any_moment_of_an_eviction(server: Server, mirror: Mirror, three: list[Run]) -> None:
    cache = mirror.cache
    derived = cache.folder / "derived" / "a.png"
    derived.parent.mkdir()
    derived.write_bytes(b"d" * 100)
    cells = {run.name: mirror.cells(run.name) for run in three}
    nobody_asked(cache)
    publish.publish(cache)
    sizes = usage.measure(cache)
    cache.con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cache.close()
    folder = cache.folder.parent / "moments"
    limit = sizes.held - sizes.rows // 3
    command = [sys.executable, dying.__file__, str(cache.folder), "make_room", str(folder)]
    subprocess.run(command, check=True, timeout=200, env={**os.environ, "MAX_SIZE": str(limit)})
    moments = sorted(folder.iterdir(), key=lambda path: int(path.name))
    assert len(moments) > 9
    states = set()
    for moment in moments:
        mirror.cache = Cache(moment)
        sound(mirror.cache)
        evicted = {ref.run_id for ref in mirror.cache.evicted()}
        states.add(frozenset(evicted))
        for run in three:
            if run.name not in evicted:
                assert mirror.cells(run.name) == cells[run.name]
            elif moment in moments[::4]:
                without_rows(mirror, run)
        nobody_asked(mirror.cache)
        now = usage.measure(mirror.cache)
        more = now.duckdb + now.other - sizes.duckdb - sizes.other  # what was being written when it died, too
        assert make_room(mirror.cache, Limits(limit + more)).short is None
        compaction.gc(mirror.cache, grace=-5)
        assert not list(verify(mirror.cache))
        assert usage.measure(mirror.cache).other < 1_000
        if moment in moments[::4]:
            assert mirror.quietly().planned == []
            mirror.sync("old", "mid", "new")
            mirror.assert_whole()
        mirror.cache.close()
    mirror.cache = cache
    assert frozenset() in states and frozenset({"old"}) in states


FULL = """
from dataclasses import replace
from rows import RECORD, number, share
from test_quota import *
from wandbsync.cache import MirrorCursor, publish, frozen
from wandbsync.model import Fingerprint
seen = Fingerprint("finished", "2023-11-14T12:00:00Z", "2023-11-14T13:00:00Z", 20000)
record = replace(RECORD, source="api", summary={})
refs = [RunRef("me", "demo", f"r{n}") for n in range(4)]
with Cache(folder / "cache") as cache:
    for n, ref in enumerate(refs):
        rows_of = [number("loss", step, random.random()) for step in range(20000)]
        made = replace(record, created_at=1.6e9 + n)
        cache.commit([share(ref, None, rows_of, record=made, mirror=MirrorCursor(seen, seen))])
    if published:
        publish.publish(cache)
    if derived:
        (folder / "cache" / "derived").mkdir()
        (folder / "cache" / "derived" / "a.png").write_bytes(bytes(1_000_000))
    cache.con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cache.close()
    with open(folder / "filler", "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass
    assert frozen.obstacle(folder) == "full" and cache.frozen
    sizes = usage.measure(cache)
    limits = Limits(sizes.held - sizes.derived - sizes.rows // 2 + 9999)
    assert sweep(cache, limits, dry_run=True).runs == 2
    freed = sweep(cache, limits)
    assert freed.runs == 2 and freed.short is None
    assert len(list((folder / "cache" / "history").rglob("*.parquet"))) == 4 - freed.runs
    gone = cache.evicted()
    assert refs[0] in gone and refs[3] not in gone
    for ref in refs:
        assert query.list_metrics(cache, ref)["loss"]["count"] == 20000
        if ref not in gone:
            assert query.history(cache, ref).num_rows == 20000
    assert not cache.frozen
    assert not [finding for finding in verify(cache) if not finding.harmless]
    assert query.sql(cache, "SELECT count(DISTINCT run_id) FROM history").fetchall() == [(4 - len(gone),)]
"""


@pytest.mark.skipif(not mounts(), reason="this system lets us mount nothing")
@pytest.mark.parametrize(("published", "derived"), [(True, False), (False, True)])
def test_a_full_disk_gets_room(tmp_path: Path, published: bool, derived: bool) -> None:
    on_disk(tmp_path / "disk", "size=8m", f"published, derived = {published}, {derived}\n{FULL}")


def test_what_was_not_used_for_long_goes_by_its_age(mirror: Mirror, three: list[Run]) -> None:
    at = 1_699_272_000.0 + 30 * 86400  # thirty days after 2023-11-06T12:00Z
    assert make_room(mirror.cache, Limits(keep=30 * 86400), now=at).actions == [], "they have only just come"
    mirror.cache.con.execute("UPDATE uses SET came_at = ?", (at - 30 * 86400 - 1,))
    freed = make_room(mirror.cache, Limits(keep=30 * 86400), now=at)
    assert [action.ref for action in freed.actions if isinstance(action, retention.Evict)] == [OLD, MID]
    mirror.assert_same(three[2])
    assert make_room(mirror.cache, Limits(keep=30 * 86400), now=at).actions == []


def test_without_limits_nothing_goes_nor_is_looked_at(
    mirror: Mirror, three: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "measure", None)
    assert make_room(mirror.cache, Limits()) == Freed()
    upkeep(mirror.cache)
    monkeypatch.undo()
    mirror.assert_whole()


# -- the commands


@pytest.fixture
def shell(tmp_path: Path, server: Server, three: list[Run], mirror: Mirror) -> Shell:
    mirror.cache.close()
    shell = Shell(tmp_path)
    shell.env |= server.env
    return shell


def test_reading_commands_bring_rows_back(shell: Shell, server: Server, mirror: Mirror, three: list[Run]) -> None:
    info = shell.json("cache", "info")
    assert info["over_bytes"] == 0 and info["max_size_bytes"] is None and info["evicted_runs"] == 0
    plan = shell("cache", "gc", "--max-size", "1B", "--dry-run").stdout
    assert plan.count("would be") == 1 and plan.count("remove the rows of me/demo/") == 3
    mirror.assert_whole()
    nobody_asked(mirror.cache)
    did = shell("cache", "gc", "--max-size", "1B")
    assert did.stdout.startswith("remove the rows of me/demo/old, ") and "too much stay" in did.stderr
    info = shell.json("cache", "info")
    assert info["evicted_runs"] == 3 and info["reclaimable_bytes"] > 0
    listed = {run["id"]: run for run in shell.json("list-runs", "me/demo", "--offline")}
    assert not listed["old"]["complete"] and "sync me/demo/old" in listed["old"]["incomplete"]
    assert shell.json("list-metrics", "me/demo", "old", "--include-system", "--offline")["loss"]["count"] == 300
    shell.error("generate-plots", "me/demo", "old", "--metrics", "loss", "--offline", code=1)
    url, shell.env["WANDB_BASE_URL"] = shell.env["WANDB_BASE_URL"], "http://127.0.0.1:9"
    known = shell("list-metrics", "me/demo", "old", "--json")
    assert json.loads(known.stdout)["loss"]["max"] == 1 and known.stderr.startswith("answering from the cache")
    assert "127.0.0.1:9" in shell.error("generate-plots", "me/demo", "old", "--metrics", "loss", code=5)
    shell.env["WANDB_BASE_URL"] = url
    assert "without the rows of 3 runs" in shell("sql", "SELECT count(*) FROM history").stderr
    assert "without" not in shell("sql", "SELECT count(*) FROM runs").stderr
    assert shell("sync", "me/demo").stdout.startswith("up to date")
    assert shell("cache", "verify").stdout == "the cache is sound\n"
    drawn = shell.json("generate-plots", "me/demo", "old", "--metrics", "loss", "--output", "plots")
    assert drawn[0]["points"] == [300]
    mirror.assert_same(three[0])
    assert shell.json("list-metrics", "me/demo", "mid")["loss"]["complete"]
    mirror.assert_same(three[1])
    assert shell("sync", "me/demo/new").stdout.startswith("synced 1 runs")
    mirror.assert_whole()


def test_the_limit_of_the_config_is_kept_after_each_sync(
    shell: Shell, server: Server, mirror: Mirror, three: list[Run]
) -> None:
    shell.env["WANDBSYNC_MAX_SIZE"] = "1kB"
    info = shell.json("cache", "info")
    assert info["max_size_bytes"] == 1000 and info["over_bytes"] > 10_000
    assert "unlimited" not in shell("cache", "info").stdout
    finished(server, "fourth", 9)
    said = shell("sync", "me/demo").stderr
    assert "the rows of 4 runs were removed to save space" in said
    assert shell.json("cache", "gc", "--max-size", "unlimited")["actions"] == []
    report = shell.json("cache", "gc", "--dry-run")
    assert report["over_bytes"] > 0 and report["dry_run"] and "no rows to remove" in report["why_over"]
    assert "up to date" in shell("sync").stdout
    assert json.loads(shell("config", "show", "--json").stdout)["cache.max_size"] == 1000
    assert (
        "cache.max_size = 1kB" in shell("config", "show").stdout
        and "cache.keep = unlimited" in shell("config", "show").stdout
    )


def test_bad_sizes_are_told_all_at_once(shell: Shell, tmp_path: Path) -> None:
    assert "'20' is not a size such as 500MB" in shell.error("cache", "gc", "--max-size", "20", code=2)
    file = tmp_path / "bad.toml"
    file.write_text('[cache]\nmax_size = 20\nkeep = "soon"\n')
    line = shell.error("--config", str(file), "cache", "info", code=2)
    assert (
        "2 problems" in line and "cache.max_size in" in line and "20 is not a size" in line and "or unlimited" in line
    )


@pytest.mark.parametrize(
    ("fields", "streams", "strict", "all_of_it"),
    [
        ({}, {"history": 5}, True, True),
        ({"lines": 6}, {"history": 5}, False, False),
        ({"lines": 4}, {"history": 5}, False, False),
        ({"state": "running"}, {"history": 5}, False, False),
        ({}, {"history": 5, "system": 9, "console": 9}, False, True),
        ({}, {"history": 5, "system": 9}, True, False),
        ({"events": 9}, {"history": 5, "system": 9, "console": 1}, True, False),
        ({"events": 9, "console": 1}, {"history": 5, "system": 9, "console": 1}, True, True),
    ],
)
def test_whether_a_server_has_all_rows(fields: Any, streams: dict[str, int], strict: bool, all_of_it: bool) -> None:
    """`strict`: of a run that was logged here, whose rows did not come from there."""
    seen = replace(Fingerprint("finished", "2023-11-14T12:00:00Z", None, 5), **fields)
    assert usage._has_all(seen, streams, strict=strict) == all_of_it
