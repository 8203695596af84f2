"""Whatever happens to a server's runs, and whenever a pass is cut off: in the end the cache has what the server has.

In between, what the cache calls complete is what the server had at some time. Pages, commits and what is held at once
are made small, so that few rows take all the ways that many would.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cells import Cell
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from mirror import DEMO, Mirror, cells_of, connected, rows
from wandb_server import HTML, Run, Server

from wandbsync.errors import NotFound, NotSignedIn, ServerError, Unreachable

SMALL = {
    "wandbsync.sources.api.pages.PAGE": 8,
    "wandbsync.sources.api.gather.PAGE": 8,
    "wandbsync.sources.api.fetch.PAGE": 8,
    "wandbsync.sources.api.gather.LIVE_ROWS": 24,
    "wandbsync.sources.api.gather.LARGE": 40,
    "wandbsync.sources.api.gather.BATCH": 50,
    "wandbsync.sources.api.client.RUNS_A_PAGE": 2,
    "wandbsync.sync.commits.VALUES": 60,
    "wandbsync.sync.arrivals.APPEND_VALUES": 120,
}
FAULTS: list[dict[str, Any]] = [
    {"status": 500},
    {"status": 502, "body": HTML},
    {"status": 429, "body": b""},
    {"status": 403, "body": b"{}"},
    {"status": 200, "body": b'{"errors": [{"message": "no"}], "data": null}'},
    {"reset": "before"},
    {"reset": "after"},
    {"truncate": 100},
]


class Cut(Exception):
    """A pass that is killed."""


class ServerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, value in SMALL.items():
            self.patch.setattr(name, value)
        self.server = Server().__enter__()
        self.server.add_project(*DEMO)
        self.folder = Path(tempfile.mkdtemp())
        self.mirror = Mirror(self.folder, self.server, connected(self.server, attempts=2))
        self.had: dict[str, list[list[Cell]]] = {}  # what the server has had of each run

    def teardown(self) -> None:
        try:
            self.calm()
        finally:
            self.mirror.close()
            self.server.__exit__()
            self.patch.undo()
            shutil.rmtree(self.folder)

    # -- what happens on the server

    def changed(self, run: Run) -> None:
        self.server.clock.advance(2)
        self.server.edit(run, heartbeat_at=self.server.clock.now())
        self.had.setdefault(run.name, []).append(cells_of(run))

    def pick(self, number: int) -> Run:
        runs = self.server.store.projects[DEMO].runs
        return runs[sorted(runs)[number % len(runs)]]

    some_run = st.integers(0, 3)
    some_rows = st.integers(0, 30)

    @property
    def has_runs(self) -> bool:
        return bool(self.server.store.projects[DEMO].runs)

    @rule(name=st.sampled_from("abcd"), count=some_rows, state=st.sampled_from(["running", "finished"]))
    def add(self, name: str, count: int, state: str) -> None:
        runs = self.server.store.projects[DEMO].runs
        self.server.clock.advance(2)
        new = (
            self.server.recreate(runs[name], rows(count))
            if name in runs
            else self.server.add_run(*DEMO, name, rows(count))
        )
        self.server.edit(new, declared=state)
        self.changed(new)

    @precondition(lambda self: self.has_runs)
    @rule(number=some_run, count=some_rows, apart=st.sampled_from([1, 1, 1000]))
    def grow(self, number: int, count: int, apart: int) -> None:
        run = self.pick(number)
        self.server.grow(run, rows(count, run.history.last_step + 1, apart=apart))
        self.changed(run)

    @precondition(lambda self: self.has_runs)
    @rule(number=some_run, back=st.integers(0, 5), count=st.integers(1, 3))
    def another_process_logs(self, number: int, back: int, count: int) -> None:
        run = self.pick(number)
        self.server.grow(run, rows(count, max(0, run.history.last_step - back)))
        self.changed(run)

    @precondition(lambda self: self.has_runs)
    @rule(number=some_run, back=some_rows, count=some_rows)
    def rewind(self, number: int, back: int, count: int) -> None:
        run = self.pick(number)
        self.server.rewind(run, max(0, run.history.last_step - back))
        self.server.grow(run, rows(count, run.history.last_step + 1))
        self.changed(run)

    @precondition(lambda self: self.has_runs)
    @rule(number=some_run, state=st.sampled_from(["running", "finished", "failed"]))
    def declare(self, number: int, state: str) -> None:
        run = self.pick(number)
        self.server.edit(run, declared=state)
        self.changed(run)

    @precondition(lambda self: self.has_runs)
    @rule(number=some_run, text=st.sampled_from(["x", "y"]))
    def edit(self, number: int, text: str) -> None:
        self.server.edit(self.pick(number), tags=[text], display_name=text)

    @precondition(lambda self: self.has_runs)
    @rule(number=some_run)
    def delete(self, number: int) -> None:
        self.server.delete(self.pick(number))

    @precondition(lambda self: self.has_runs)
    @rule(number=some_run, part=st.floats(0.1, 1), files=st.integers(1, 3), append=st.booleans(), shuffle=st.booleans())
    def export(self, number: int, part: float, files: int, append: bool, shuffle: bool) -> None:
        run = self.pick(number)
        upto = int(run.history.last_step * part)
        if len(run.history) and (not append or (run.history.steps <= upto).sum() >= run.exported_lines):
            self.server.export(run, upto, files=files, append=append, shuffle=shuffle)

    @rule(serves=st.booleans())
    def serve_exported(self, serves: bool) -> None:
        self.server.history_serves_exported = serves

    # -- what goes wrong

    @rule(
        operation=st.sampled_from(["*", "Runs", "Run*", "HistoryPage", "RunParquetHistory", "export"]),
        how=st.sampled_from(FAULTS),
        times=st.sampled_from([1, 1, 3, 20]),
        skip=st.integers(0, 3),
    )
    def fault(self, operation: str, how: dict[str, Any], times: int, skip: int) -> None:
        self.server.fail(operation, times=times, skip=skip, **how)

    @rule()
    def expire(self) -> None:
        self.server.expire_urls()

    @rule(seconds=st.sampled_from([61.0, 1000.0, 90000.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.mirror.now += seconds

    # -- passes

    def attempt(self, *runs: str, **how: Any) -> None:
        try:
            self.mirror.sync(*runs, **how)
        except (ServerError, Unreachable, NotSignedIn, NotFound, Cut):
            self.mirror.api = connected(self.server, attempts=2)

    @rule()
    def sync(self) -> None:
        self.attempt()

    @rule(full=st.booleans())
    def sync_without_rows_or_all_anew(self, full: bool) -> None:
        self.attempt(full=full, rows=full)

    @precondition(lambda self: self.has_runs)
    @rule(number=some_run)
    def sync_one(self, number: int) -> None:
        self.attempt(self.pick(number).name)

    @rule(after=st.integers(0, 5))
    def sync_that_is_cut_off(self, after: int) -> None:
        self.attempt(progress=cutting(after))

    # -- what must hold

    @invariant()
    def what_is_complete_is_what_the_server_had(self) -> None:
        if not self.mirror.cache.exists():
            return
        known = self.mirror.cache.mirrored(*DEMO)
        for name, run in self.mirror.runs().items():
            cursor = next(one.cursor for ref, one in known.items() if ref.run_id == name)
            assert run["complete"] == (run["incomplete"] is None)
            cells = self.mirror.cells(name)
            assert len({step for _, step, *_ in cells}) <= run["rows"]  # what is not whole yet does not show
            if run["complete"]:
                assert cursor is not None and cursor.fetched is not None and cursor.fetched.lines == run["rows"]
                assert cells in self.had[name]

    @rule()
    def calm(self) -> None:
        self.server.calm()
        for _ in range(9):  # as often as it may take: a run that is short is fetched anew at the third attempt
            self.mirror.now += 100_000
            report = self.mirror.sync()
            if not report.problems and not report.planned:
                break
        assert not report.problems, report.problems
        self.mirror.assert_whole()
        self.mirror.quietly()
        assert sum(self.mirror.asked.values()) == max(1, -(-len(self.server.store.projects[DEMO].runs) // 2))
        assert self.mirror.asked.keys() == {"Runs"}


def cutting(after: int) -> Callable[[object], None]:
    """A progress that ends a pass when it has been told something so many times."""
    left = iter(range(after))

    def progress(_: object) -> None:
        if next(left, None) is None:
            raise Cut

    return progress


TestServerMachine = ServerMachine.TestCase
TestServerMachine.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
