"""`follow` looks at single logs, and what comes of it is what `sync_local` makes of the whole folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import logwriter as lw
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from local_runs import contents, end, fresh, header, history, put, ref, rows, said, small

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.errors import Stopped
from wandbsync.sync import SyncReport, sync_local
from wandbsync.sync.local import follow


def grow(path: Path, records: list[bytes]) -> None:
    path.write_bytes(lw.append(path.read_bytes(), records))


def look_at(cache: Cache, *paths: Path, **how: Any) -> SyncReport:
    report = follow(cache, [str(path) for path in paths], **({"look": True} | how))
    assert [one for one in report.problems if not one.harmless] == []
    return report


# -- one thing at a time


def test_a_log_as_it_grows(top: Path, cache: Cache) -> None:
    path = put(top, "r1", header("r1"))
    other = small(top, "r2")
    report = look_at(cache, path)
    assert (report.logs, report.runs, report.new_runs, report.rows) == (1, 1, 1, 0)
    for i in range(3):
        grow(path, rows([2 * i, 2 * i + 1]))
        report = look_at(cache, path)
        assert (report.runs, report.rows, report.bytes_read > 0) == (1, 2, True)
    assert set(contents(cache)) == {"local/demo/r1"}
    assert look_at(cache, path).runs == 0
    grow(path, [said("bye\n"), end()])
    look_at(cache, path, other)
    assert contents(cache) == fresh(top)


def test_half_a_record_waits_for_the_rest(top: Path, cache: Cache) -> None:
    whole = lw.log([*header("r1"), *rows(range(4)), end()])
    path = put(top, "r1", [])
    for cut in range(0, len(whole) + 1, 37):
        path.write_bytes(whole[:cut])
        look_at(cache, path)
    path.write_bytes(whole)
    look_at(cache, path)
    assert contents(cache) == fresh(top)


def test_a_log_that_is_not_there_or_empty_is_no_problem(top: Path, cache: Cache) -> None:
    path = put(top, "r1", [])
    path.write_bytes(b"")
    report = follow(cache, [str(path), str(top / "none.wandb")])
    assert report.runs == 0 and all(one.harmless for one in report.problems)
    assert follow(cache, []).runs == 0


def test_what_is_no_log_is_told_and_left(top: Path, cache: Cache) -> None:
    bad, good = put(top, "bad", []), put(top, "good", [*header("good"), *rows(range(3))])
    bad.write_bytes(b"something else entirely")
    report = follow(cache, [str(bad), str(good)])
    assert [one.subject for one in report.problems if not one.harmless] == [str(bad)]
    assert report.rows == 3
    bad.write_bytes(lw.log([*header("bad"), *rows(range(2)), end()]))
    look_at(cache, bad)
    assert contents(cache) == fresh(top) and cache.problems() == {}


def test_without_a_look_who_has_not_ended_goes_on(top: Path, cache: Cache) -> None:
    path = put(top, "r1", [*header("r1"), *rows(range(3))])  # its rows are old, and nobody has it open: it crashed
    quiet = put(top, "r2", [*header("r2"), *rows(range(3))])
    sync_local(cache, [top])
    assert {run["state"] for run in contents(cache).values()} == {"crashed"}
    look_at(cache, quiet, look=False)
    grow(path, rows([3]))
    look_at(cache, path, look=False)
    found = contents(cache)
    assert [found[f"local/demo/{one}"]["state"] for one in ("r1", "r2")] == ["running", "crashed"]
    look_at(cache, path)
    assert contents(cache) == fresh(top)
    grow(path, [end(1)])
    look_at(cache, path, look=False)
    assert contents(cache)["local/demo/r1"]["state"] == "failed"


def test_of_a_new_log_it_is_looked_whether_somebody_writes(top: Path, cache: Cache) -> None:
    path = put(top, "r1", [*header("r1"), *rows(range(3))])
    look_at(cache, path, look=False)
    assert contents(cache)["local/demo/r1"]["state"] == "crashed"


def test_runs_with_much_to_read_are_left_to_a_scan(top: Path, cache: Cache) -> None:
    large = put(top, "large", [*header("large"), *rows(range(200), text="x" * 100)])
    little = put(top, "little", [*header("little"), *rows(range(3))])
    report = look_at(cache, large, little, most=5000)
    assert report.left == [ref("large")] and report.runs == 1
    assert list(contents(cache)) == ["local/demo/little"]
    sync_local(cache, [top])
    grow(large, rows([200]))
    assert look_at(cache, large, most=5000).left == []
    assert contents(cache) == fresh(top)


def test_files_are_listed_when_they_are_due_and_at_the_end(top: Path, cache: Cache) -> None:
    path = put(top, "r1", [*header("r1"), *rows(range(3))])
    files = path.parent / "files"
    files.mkdir()
    sync_local(cache, [top])

    def names() -> list[str]:
        return [file["name"] for file in query.list_files(cache, ref("r1"))]

    (files / "a.txt").write_text("a")
    grow(path, rows([3]))
    look_at(cache, path, look=False, with_files=lambda _: False)
    assert names() == []
    grow(path, rows([4]))
    look_at(cache, path, look=False, with_files=lambda one: one == str(path))
    assert names() == ["a.txt"]
    (files / "b.txt").write_text("b")
    grow(path, [end()])
    look_at(cache, path, look=False, with_files=lambda _: False)
    assert names() == ["a.txt", "b.txt"]
    assert contents(cache) == fresh(top)


def test_an_entity_that_is_told_later(top: Path, cache: Cache) -> None:
    """The debug log tells at the end; `follow` goes on under the old name, the next pass renames, and so on."""
    path = put(top, "r1", [*header("r1"), *rows(range(3))])
    look_at(cache, path)
    (path.parent / "logs").mkdir()
    (path.parent / "logs" / "debug.log").write_text("... finishing run team/demo/r1\n")
    grow(path, rows([3, 4]))
    look_at(cache, path)
    assert len(history(cache, ref("r1"))) == 5 * 3
    sync_local(cache, [top])
    assert list(contents(cache)) == ["team/demo/r1"]
    grow(path, [*rows([5]), end()])
    look_at(cache, path)
    assert contents(cache) == fresh(top)
    again = put(top, "r1", [*header("r1", at=1.7e9 + 99), *rows([6]), end()], stamp="20240102_000000")
    look_at(cache, again)
    assert contents(cache) == fresh(top)


def test_who_is_named_by_a_log_beside_it_names_its_copies(top: Path, cache: Cache) -> None:
    first = put(top, "r1", [*header("r1"), *rows(range(3))], stamp="20240101_000000")
    second = put(top, "r1", [*header("r1", at=1.7e9 + 99), *rows([0]), end()], stamp="20240102_000000")
    shutil.copytree(first.parent, top / "copies" / first.parent.name)
    (second.parent / "debug.log").write_text("... finishing run team/demo/r1\n")
    sync_local(cache, [top])
    assert list(contents(cache)) == ["team/demo/r1"]


def test_it_ends_when_told_to_and_what_is_committed_stays(top: Path, cache: Cache) -> None:
    paths = [put(top, f"r{i}", [*header(f"r{i}"), *rows(range(3)), end()]) for i in range(3)]

    def stop(_: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        follow(cache, list(map(str, paths)), progress=stop)
    look_at(cache, *paths)
    assert contents(cache) == fresh(top)


def test_an_earlier_log_that_is_followed_later_comes_first(top: Path, cache: Cache) -> None:
    """Its rows are put before those that are there, as if all had been read at once."""
    first = put(top, "r1", [*header("r1", at=1.7e9), *rows(range(3)), end()])
    second = put(top, "r1", [*header("r1", at=1.7e9 + 99), *rows(range(2)), end()], stamp="20240102_000000")
    look_at(cache, second)
    look_at(cache, first)
    assert contents(cache) == fresh(top)


def test_a_rewind_voids_what_an_earlier_log_still_writes(top: Path, cache: Cache) -> None:
    first = put(top, "r1", [*header("r1", at=1.7e9), *rows(range(8))])
    look_at(cache, first)
    second = put(top, "r1", [*header("r1", at=1.7e9 + 99, rewinds_to=4), *rows([5])], stamp="20240102_000000")
    look_at(cache, second)
    grow(first, rows([8, 9]))
    look_at(cache, first)
    assert contents(cache) == fresh(top)
    assert sorted({step for _, step in history(cache, ref("r1"))}) == [0, 1, 2, 3, 4, 5]


# -- everything at once


class Follows(RuleBasedStateMachine):
    """Some logs are written, and some of those that changed are followed, now and then all are scanned."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.top = self.folder / "runs"
        self.top.mkdir()
        self.cache = Cache(self.folder / "cache")
        self.logs: list[tuple[str, Path]] = []
        self.next_step: dict[str, int] = {}  # of a run
        self.ended: set[Path] = set()
        self.changed: list[Path] = []  # not followed yet
        self.count = 0

    def teardown(self) -> None:
        self.follow_all()
        assert contents(self.cache) == fresh(self.top)
        self.cache.close()
        shutil.rmtree(self.folder)

    def _log(self, run_id: str, records: list[bytes], **more: Any) -> Path:
        self.count += 1
        first = header(run_id, at=1.7e9 + 100 * self.count, offline=False, **more)
        path = put(self.top, run_id, [*first, *records], stamp=f"20240101_{self.count:06d}", offline=False)
        self.logs.append((run_id, path))
        self.changed.append(path)
        return path

    def _steps(self, run_id: str, count: int) -> range:
        first = self.next_step.get(run_id, 0)
        self.next_step[run_id] = first + count
        return range(first, first + count)

    @property
    def open(self) -> list[tuple[str, Path]]:
        """The last log of each run, if it has not ended."""
        return [(run_id, path) for run_id, path in dict(self.logs).items() if path not in self.ended]

    @rule(count=st.integers(1, 4), pick=st.integers(0, 99))
    def begin_or_resume(self, count: int, pick: int) -> None:
        runs = list(dict(self.logs))
        run_id = f"r{len(runs)}" if len(runs) < 2 else runs[pick % len(runs)]
        self._log(run_id, rows(self._steps(run_id, count)))

    @precondition(lambda self: self.open)
    @rule(count=st.integers(1, 9), pick=st.integers(0, 99))
    def append(self, count: int, pick: int) -> None:
        run_id, path = self.open[pick % len(self.open)]
        grow(path, [*rows(self._steps(run_id, count)), said(f"line {self.next_step[run_id]}\n")])
        self.changed.append(path)

    @precondition(lambda self: self.open)
    @rule(pick=st.integers(0, 99), code=st.integers(0, 1))
    def finish(self, pick: int, code: int) -> None:
        _, path = self.open[pick % len(self.open)]
        grow(path, [end(code)])
        self.ended.add(path)
        self.changed.append(path)

    @precondition(lambda self: self.logs)
    @rule(back=st.integers(1, 6), count=st.integers(0, 4), pick=st.integers(0, 99))
    def rewind(self, back: int, count: int, pick: int) -> None:
        run_id = self.logs[pick % len(self.logs)][0]
        if self.next_step.get(run_id, 0) > back:
            to = self.next_step[run_id] - back - 1
            self.next_step[run_id] = to + 1
            self._log(run_id, rows(self._steps(run_id, count), again=back), rewinds_to=to)

    @precondition(lambda self: self.logs)
    @rule(pick=st.integers(0, 99))
    def copy(self, pick: int) -> None:
        _, path = self.logs[pick % len(self.logs)]
        to = self.top / "copies" / f"c{self.count}" / path.parent.name
        if not to.exists():
            to.mkdir(parents=True)
            shutil.copyfile(path, to / path.name)
            self.changed.append(to / path.name)

    @precondition(lambda self: self.ended)
    @rule(pick=st.integers(0, 99))
    def tell_whose_it_is(self, pick: int) -> None:
        """As the SDK does at the end; only a scan notices, unless something is written after."""
        path = sorted(self.ended)[pick % len(self.ended)]
        run_id = next(run_id for run_id, one in self.logs if one == path)
        (path.parent / "debug.log").write_text(f"... finishing run team/demo/{run_id}\n")
        self.scan_all()

    @precondition(lambda self: self.changed)
    @rule(data=st.data())
    def follow_some(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(sorted(set(self.changed))), min_size=1, max_size=2, unique=True))
        look_at(self.cache, *some)
        self.changed = [path for path in self.changed if path not in some]

    def follow_all(self) -> None:
        look_at(self.cache, *set(self.changed))
        self.changed = []

    @rule()
    def scan_all(self) -> None:
        sync_local(self.cache, [self.top])
        self.changed = []

    @invariant()
    def what_was_followed_is_here(self) -> None:
        if not self.changed and self.logs:
            assert contents(self.cache) == fresh(self.top)


Follows.TestCase.settings = settings(
    max_examples=10, stateful_step_count=16, deadline=None, suppress_health_check=list(HealthCheck)
)
test_following_equals_syncing = Follows.TestCase
