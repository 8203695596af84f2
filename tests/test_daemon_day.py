"""A day in the life of the daemon, by a clock that a test moves: memory flat, segments bounded, few requests."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import local_runs
import logwriter
import pytest
from mirror import Mirror, rows
from wandb_server import Server

from wandbsync.cache import Cache
from wandbsync.config import Config
from wandbsync.daemon import upkeep
from wandbsync.daemon.daemon import Daemon
from wandbsync.daemon.log import Log
from wandbsync.daemon.service import Service
from wandbsync.sources.api import Login
from wandbsync.sources.api.budget import Budget
from wandbsync.sources.api.client import Api
from wandbsync.sources.api.transport import Transport
from wandbsync.watch import Hints

HOURS = 24
MINUTE = 60.0


class Day:
    """A clock, and the timer that goes by it: what is due is done, one after the other, and nobody ever waits."""

    def __init__(self) -> None:
        self.now = time.time()
        self._calls: dict[str, tuple[float, Callable[[], object]]] = {}
        self._order: list[tuple[float, int, str]] = []
        self._count = itertools.count()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def at(self, name: str, when: float, pool: str, call: Callable[[], object]) -> None:
        self._calls[name] = (when, call)
        heapq.heappush(self._order, (when, next(self._count), name))

    def cancel(self, name: str) -> None:
        self._calls.pop(name, None)

    def stop(self) -> None:
        self._calls.clear()

    def go_on(self, until: float) -> None:
        """Do all that is due until then."""
        while self._order and self._order[0][0] <= until:
            when, _, name = heapq.heappop(self._order)
            planned = self._calls.get(name)
            if planned is not None and planned[0] == when:
                del self._calls[name]
                self.now = max(self.now, when)
                planned[1]()
        self.now = max(self.now, until)


def memory() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.slow
def test_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PUBLISH", 3600.0)  # a DuckDB file takes a tenth of a second by any clock
    day, log = Day(), Log()
    with Server() as server:
        login = Login(server.url, server.key, "me")

        def connect(login: Login) -> Api:
            return Api(login, Transport(login, Budget(clock=day, sleep=day.sleep), attempts=2, patience=60.0))

        config = Config(tmp_path / "cache", local_folders=(tmp_path / "jobs",), projects=("me/*",))
        service = Service(day, log, clock=day)
        with Cache(tmp_path / "cache") as cache:
            assert not cache.frozen
        (tmp_path / "jobs").mkdir()
        daemon = Daemon(config, tmp_path / "cache", service, log, login=lambda: login, connect=connect)
        daemon.begin()
        served = server.add_run("me", "demo", "served", rows(1), state="running")
        for i in range(20):
            server.add_run("me", "settled", f"old{i}", rows(3))
        start = local_runs.header("here", at=day.now, offline=False)
        path = local_runs.put(tmp_path / "jobs", "here", start, offline=False)
        written, steps = logwriter.log(start), 0
        asked, sizes, segments = [], [], []
        with Cache(tmp_path / "cache") as cache, path.open("ab") as file:
            for _hour in range(HOURS):
                server.reset_counts()
                for minute in range(0, 60, 5):
                    more = logwriter.append(written, local_runs.rows(range(steps, steps + 10), loss=0.5))
                    file.write(more[len(written) :])
                    file.flush()
                    written, steps = more, steps + 10
                    if minute % 10 == 0:
                        server.grow(served, rows(2, len(served.history)))
                    daemon.folders.follow(cache, Hints(frozenset([str(path)])))
                    day.go_on(day.now + 5 * MINUTE)
                asked.append(sum(count.requests for count in server.counts.values()))
                sizes.append(memory())
                segments.append(len(list((tmp_path / "cache" / "history").rglob("*.parquet"))))
                assert [job.error for job in service.status() if job.failures] == []
            server.finish(served)
            file.write(logwriter.append(written, [local_runs.end()])[len(written) :])
        day.go_on(day.now + 7 * 60 * MINUTE)  # until the next sweep
        with Cache(tmp_path / "cache") as cache:
            daemon.folders.follow(cache, Hints(frozenset([str(path)])))
            assert cache.stream_rows(local_runs.ref("here"))[0]["history"] == steps
        mirror = Mirror(tmp_path / "cache", server)
        mirror.assert_whole()
        mirror.close()
        daemon.stop(10)
    # A project with a running run once a minute, and its rows when it has some; a settled one every half hour.
    assert max(asked[1:]) <= 60 + 2 * 6 + 2 + 4, asked
    assert min(asked[1:]) >= 60, asked
    assert max(segments) < 80, segments
    assert sizes[-1] - sizes[HOURS // 4] < 20 << 20, sizes
