"""What the API source costs beside the SDK, on the same test server, in one run.

Server, SDK and we are processes of their own that take turns. Seconds of processor time stand beside those that pass:
on a busy machine these tell more.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_sdk
from bench_server import Child
from measured import Measured, medians, process, turns

from wandbsync.cache import Cache, MirrorCursor, Share
from wandbsync.model import HISTORY, RunRef
from wandbsync.sources.api import Login, connect
from wandbsync.sources.api.record import fingerprint, record
from wandbsync.sources.api.rows import history_columns
from wandbsync.sources.api.streams import State
from wandbsync.sources.keys import Keys
from wandbsync.sync import SyncReport
from wandbsync.sync.server import Asked, sync_server

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sizes:
    """How much there is of each."""

    big: tuple[int, int] = (100_000, 10)  # rows and metrics of one run
    many: tuple[int, int, int] = (1000, 1000, 10)  # runs, rows, metrics
    wide: tuple[int, int] = (1_000_000, 20)
    idle: int = 10_000  # runs of which none has changed
    sample: int = 40  # runs that the SDK reads, of many
    storm: int = 10  # seconds


QUICK = Sizes(many=(100, 1000, 10), wide=(200_000, 20), idle=2000, sample=10, storm=5)


def measure(room: Path, *, quick: bool = False) -> list[Measured]:
    """All of it; some minutes, or one. `room` is an empty folder."""
    with Child(str(HERE / "bench_server.py")) as server:
        bench = Beside(server, room, QUICK if quick else Sizes())
        for part in (bench.big, bench.many, bench.wide, bench.sparse, bench.storms, bench.again, bench.idle):
            part()
        return bench.lines


class Beside:
    """A server in a process of its own, what syncs from it, and the SDK in another process."""

    def __init__(self, server: Any, room: Path, sizes: Sizes) -> None:
        self.server, self.room, self.sizes = server, room, sizes
        self.env: dict[str, str] = server("env")
        self.login = Login(self.env["WANDB_BASE_URL"], self.env["WANDB_API_KEY"], None)
        self.lines: list[Measured] = []

    def add(self, what: str, ours: float, theirs: float | None, unit: str, goal: str, note: str = "") -> None:
        self.lines.append(Measured(what, ours, theirs, unit, goal, note))
        print(self.lines[-1], file=sys.stderr, flush=True)

    def sdk(self) -> Any:
        folder = self.room / "sdk"
        folder.mkdir(exist_ok=True)
        places = dict.fromkeys(bench_sdk.PLACES, str(folder))
        return Child(str(HERE / "bench_sdk.py"), os.environ | self.env | places | {"WANDB_SILENT": "true"})

    def sync(self, project: str, cache: Path | None = None) -> tuple[list[float], SyncReport, dict[str, Any]]:
        """Seconds, of time and of processor time; into a new cache unless one is given."""
        folder = cache or self.room / "fresh"
        if cache is None:
            shutil.rmtree(folder, ignore_errors=True)
        self.server("reset")
        start = time.perf_counter(), time.process_time()
        api = connect(self.login)
        with Cache(folder) as opened:
            report = sync_server(opened, api, [Asked("me", project)])
        taken = [time.perf_counter() - start[0], time.process_time() - start[1]]
        api.transport.close()
        assert not report.problems, report.problems
        return taken, report, self.server("counts")

    def command(self, *words: str) -> Callable[[], object]:
        ours = [sys.executable, "-m", "wandbsync", "--cache-dir", str(self.room / "fresh")]
        return process(*ours, *words, env=self.env)

    def beside(self, what: str, ours: list[float], theirs: list[float], goal: str, note: str = "") -> None:
        note = f"processor {ours[1]:.2f} / {theirs[1]:.2f} s = {ours[1] / max(theirs[1], 1e-3):.3f}{note}"
        self.add(what, ours[0], theirs[0], "s", goal, note)

    # -- the goals

    def big(self) -> None:
        """One finished run, exported."""
        rows, metrics = self.sizes.big
        self.server("fill", project="big", runs=1, rows=rows, metrics=metrics)
        path = "me/big/run00000"
        served = []

        def ours() -> list[float]:
            taken, report, counts = self.sync("big")
            assert report.rows == rows
            served.append(counts["seconds"])
            return taken

        with self.sdk() as sdk:
            mine, scan, cached, exports, script = medians(
                ours,
                lambda: sdk("scan", path=path, rows=rows, use_cache=False),
                lambda: sdk("scan", path=path, rows=rows, use_cache=True),
                lambda: sdk("exports", path=path),
                lambda: sdk("read_exports", path=path, rows=rows),
                repeats=3,
                warm=1,  # what is imported late does not count, on either side
            )
        name = f"sync of {rows:,} rows x {metrics} / "
        note = f"; the server's own time {statistics.median(served) * 1000:.0f} ms"
        self.beside(name + "scan_history(use_cache=False)", mine, scan, "<= 1/15", note)
        self.beside(name + "scan_history(), empty cache", mine, cached, "<= 1/15")
        self.beside(name + "download_history_exports alone", mine, exports, "<= 2.5")
        self.beside(name + "Api, exports, read with Arrow", mine, script, "<= 2.5")

    def many(self) -> None:
        runs, rows, metrics = self.sizes.many
        self.server("fill", project="many", runs=runs, rows=rows, metrics=metrics)
        served: list[dict[str, Any]] = []

        def ours() -> list[float]:
            taken, report, counts = self.sync("many")
            assert report.rows == runs * rows
            served.append(counts)
            return taken

        with self.sdk() as sdk:
            mine, scan, cached = medians(
                ours,
                lambda: sdk("loop", path="me/many", runs=self.sizes.sample, use_cache=False),
                lambda: sdk("loop", path="me/many", runs=self.sizes.sample, use_cache=True),
                repeats=2,
            )
        note = f"; the server's own time {served[-1]['seconds']:.2f} s"
        name = f"sync of {runs:,} runs x {rows:,} rows / a loop of "
        self.beside(
            name + "scan_history(..False)", mine, [one * runs / self.sizes.sample for one in scan], "<= 1/8", note
        )
        self.beside(name + "scan_history()", mine, [one * runs / self.sizes.sample for one in cached], "<= 1/8")
        requests = served[-1]["requests"]
        self.add("requests for each of them", sum(requests.values()) / runs, None, "requests", "<= 3", str(requests))

    def wide(self) -> None:
        rows, metrics = self.sizes.wide
        self.server("fill", project="wide", runs=1, rows=rows, metrics=metrics, files=4)
        words = [sys.executable, "-m", "wandbsync", "--cache-dir", str(self.room / "wide"), "sync", "me/wide"]
        start = time.perf_counter()
        process = subprocess.Popen(words, env=os.environ | self.env, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        note = f"{rows * (metrics + 2) / (time.perf_counter() - start) / 1e6:.1f} M values/s with compaction"
        self.add(f"peak memory of `sync`, {rows:,} rows x {metrics}", usage.ru_maxrss / 1024, None, "MB", "< 600", note)

    def sparse(self) -> None:
        self.server("sparse", project="sparse", rows=2000, steps=1_000_000)
        taken, report, counts = self.sync("sparse")
        assert report.rows == 2000
        asked = sum(counts["requests"].values())
        self.add("2,000 live rows over 1,000,000 steps", asked, None, "requests", "< 60", f"{taken[0]:.2f} s")

    def storms(self) -> None:
        runs = 100
        self.server("fill", project="storm", runs=runs, rows=100, metrics=3)
        for what, retry_after in (("Retry-After: 1", 1), ("no Retry-After", None)):
            self.server("storm", seconds=self.sizes.storm, retry_after=retry_after)
            taken, report, counts = self.sync("storm")
            self.server("calm")
            assert (report.runs, report.rows) == (runs, runs * 100)
            note = (
                f"of {counts['asked']} asked; all {runs} runs in {taken[0]:.1f} s, {report.waited:.1f} s of it waiting"
            )
            what = f"{self.sizes.storm} s of a third refused, {what}"
            self.add(what, counts["refused"], None, "refusals", "all arrives", note)
        for what, retry_after in (("Retry-After", True), ("no Retry-After", False)):
            rate, burst = 20, 10
            self.server("limit", rate=rate, burst=burst, retry_after=retry_after)
            taken, report, counts = self.sync("storm")
            self.server("calm")
            assert (report.runs, report.rows) == (runs, runs * 100)
            note = f"{counts['refused']} refused, {taken[0]:.1f} s"
            name = f"asked / permitted, {rate} a second, {what}"
            self.add(name, counts["asked"], burst + rate * taken[0], "requests", "<= 1", note)

    def again(self) -> None:
        """The same reading command, once more."""
        self.sync("many")
        listing = self.command("list-runs", "me/many")
        for _ in range(9):
            listing()
        self.server("reset")
        mine, python = turns(listing, process(sys.executable, "-c", "pass"), repeats=9)
        asked = sum(self.server("counts")["requests"].values())
        self.add("list-runs for the tenth time / starting Python", mine, python, "s", "", f"{asked} requests")

    def idle(self) -> None:
        """Nothing has changed."""
        self.server("fill", project="idle", runs=self.sizes.idle, rows=1, metrics=1)
        folder = self.room / "idle"
        self.seed("idle", folder)
        passes = [self.sync("idle", folder) for _ in range(3)]
        taken = statistics.median(one[0][0] for one in passes)
        processor = statistics.median(one[0][1] for one in passes)
        _, report, counts = passes[-1]
        assert (report.runs, report.listed) == (0, self.sizes.idle)
        note = f"processor {processor:.2f} s, the server's {counts['seconds']:.2f} s"
        self.add(f"a pass over {self.sizes.idle:,} unchanged runs", taken, None, "s", "< 3", note)
        asked = sum(counts["requests"].values())
        self.add("what it asks", asked, None, "requests", "<= 12", str(counts["requests"]))

    def seed(self, project: str, folder: Path) -> None:
        """The cache as a first pass over runs of one row would leave it, in less time."""
        rows = history_columns([{"_step": 0, "metric_0": 1.0}], Keys({}))
        shares = []
        api = connect(self.login)
        for node, _ in api.runs("me", project):
            ref, now = RunRef("me", project, node["name"]), fingerprint(node)
            made = record(node, ref, self.login.app_url, incomplete=None)
            cursor = MirrorCursor(now, now, State().dump())
            shares.append(Share(ref, None, made, {HISTORY: [rows]}, mirror=cursor))
        api.transport.close()
        with Cache(folder) as cache:
            for start in range(0, len(shares), 1000):
                cache.commit(shares[start : start + 1000])
