"""A cache that mirrors a test server: its passes, what they ask, and whether all of it is there."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, cell, expected, from_wire, leaves
from wandb_server import Run, Server
from wandb_server.history import wire

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.cache.verify import verify
from wandbsync.model import CONSOLE, HISTORY, RunRef
from wandbsync.sources.api import Login
from wandbsync.sources.api.budget import Budget
from wandbsync.sources.api.client import Api
from wandbsync.sources.api.transport import Transport
from wandbsync.sync import SyncReport
from wandbsync.sync.server import Asked, Terms, sync_server

DEMO = ("me", "demo")


class FastClock:
    """Goes as time does, but nobody who sleeps by it has to wait."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds
        time.sleep(0.0005)


def connected(server: Server, *, timeout: float = 20.0, attempts: int = 3, fast: bool = True) -> Api:
    """The server; `fast`: nobody waits before asking again."""
    clock = FastClock()
    budget = Budget(clock=clock, sleep=clock.sleep, jitter=random.Random(0)) if fast else Budget()
    login = Login(server.url, server.key, "me")
    return Api(login, Transport(login, budget, timeout=(5.0, timeout), attempts=attempts, patience=600.0))


class Mirror:
    """A cache and its server. `now` is the time by the cache's clock, and moves only when a test moves it."""

    def __init__(self, folder: Path, server: Server, api: Api | None = None) -> None:
        self.server, self.cache = server, Cache(folder)
        self.api = api or connected(server)
        self.now = 1_800_000_000.0

    def close(self) -> None:
        self.cache.close()
        self.api.transport.close()

    # -- passes

    def sync(self, *runs: str, project: str = "demo", **terms: Any) -> SyncReport:
        self.server.reset_counts()
        return sync_server(self.cache, self.api, [Asked("me", project, runs)], Terms(now=lambda: self.now, **terms))

    def quietly(self, *runs: str, **terms: Any) -> SyncReport:
        """A pass in which nothing goes wrong."""
        report = self.sync(*runs, **terms)
        assert not report.problems, report.problems
        return report

    @property
    def asked(self) -> dict[str, int]:
        """How often each question was put to the server in the last pass."""
        return {name: count.requests for name, count in self.server.counts.items()}

    # -- what is here

    def run(self, run_id: str) -> dict[str, Any]:
        return self.runs()[run_id]

    def runs(self, project: tuple[str, str] = DEMO) -> dict[str, dict[str, Any]]:
        return {run["id"]: run for run in query.list_runs(self.cache, project, limit=None)}

    def cells(self, run_id: str, stream: str = HISTORY) -> list[Cell]:
        """The values of a run, sorted."""
        table = query.history(self.cache, RunRef(*DEMO, run_id), stream=stream)
        names = ("key", "step", "kind", "value", "value_json")
        rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
        found = [
            cell(key, step, kind, np.nan if value is None else value, text) for key, step, kind, value, text in rows
        ]
        return sorted(found, key=repr)

    def console(self, run_id: str) -> list[tuple[str, str]]:
        """Lines with the stream they were written to."""
        table = query.history(self.cache, RunRef(*DEMO, run_id), stream=CONSOLE).sort_by("step")
        return list(zip(table.column("key").to_pylist(), table.column("value_json").to_pylist(), strict=True))

    # -- is it what the server has?

    def assert_same(self, *runs: Run) -> None:
        """Every value, the count, and what is known of the runs besides."""
        listed = self.runs()
        for run in runs:
            here = listed[run.name]
            assert self.cells(run.name) == cells_of(run), run.name
            assert (here["rows"], here["complete"], here["deleted_at"]) == (len(run.history), True, None), here
            assert (here["state"], here["name"], here["tags"]) == (run.state, run.display_name, run.tags)
            assert here["incomplete"] is None

    def assert_whole(self) -> None:
        """All runs of the server are here, row by row, and the cache is sound."""
        self.assert_same(*self.server.store.projects[DEMO].runs.values())
        assert [finding for finding in verify(self.cache) if not finding.harmless] == []


def cells_of(run: Run) -> list[Cell]:
    """The values of a run as the server has them, sorted."""
    return rows_as_cells(run.history.lines(np.arange(len(run.history))))


def rows_as_cells(rows: Iterable[Mapping[str, Any]]) -> list[Cell]:
    found = [
        expected(".".join(path), int(row["_step"]), value)
        for row in rows
        for path, value in leaves(from_wire(wire(dict(row))))
    ]
    return sorted(found, key=repr)


_seconds = itertools.count()


def rows(count: int, first: int = 0, *, apart: int = 1, **more: Any) -> list[dict[str, Any]]:
    """Rows as the SDK logs them, no two alike: steps from `first`, so far apart."""
    return [
        {"_step": first + i * apart, "_timestamp": 1.7e9 + next(_seconds) / 8, "loss": 1 / (i + 1), "i": i, **more}
        for i in range(count)
    ]
