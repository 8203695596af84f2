"""What `import wandbsync` costs: wide histories beside Arrow on the same files, the drop-in beside the SDK.

Everything is cached; the SDK asks the test server, which is a process of its own on this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import bench_sdk
import pyarrow.parquet as pq
from bench_server import Child
from measured import Measured, medians, process, timed, turns

import wandbsync
from wandbsync.cache import Cache
from wandbsync.cache.rows import streams_of
from wandbsync.model import RunRef
from wandbsync.sources.api import Login, connect
from wandbsync.sync.server import Asked, sync_server

HERE = Path(__file__).parent
BIG = 100_000, 10  # rows and metrics of one run
LARGE = 1_000_000, 20
MANY = 200, 500, 10  # runs, rows, metrics


def measure(room: Path, *, quick: bool = False) -> list[Measured]:
    """All of it, about a minute; quick, without the largest. `room` is an empty folder."""
    with Child(str(HERE / "bench_server.py")) as server:
        env: dict[str, str] = server("env")
        server("fill", project="big", runs=1, rows=BIG[0], metrics=BIG[1])
        if not quick:
            server("fill", project="large", runs=1, rows=LARGE[0], metrics=LARGE[1])
        server("fill", project="many", runs=MANY[0], rows=MANY[1], metrics=MANY[2])
        api = connect(Login(env["WANDB_BASE_URL"], env["WANDB_API_KEY"], None))
        with Cache(room / "cache") as cache:
            sync_server(
                cache, api, [Asked("me", name) for name in (("big", "many") if quick else ("big", "large", "many"))]
            )
        api.transport.close()
        bench = _Bench(room, env)
        for part in (
            (bench.beside_sdk, bench.start) if quick else (bench.wide, bench.beside_sdk, bench.export, bench.start)
        ):
            part()
        return bench.lines


class _Bench:
    def __init__(self, room: Path, env: dict[str, str]) -> None:
        self.room, self.env = room, env
        self.mirror = wandbsync.open(room / "cache", offline=True)
        self.lines: list[Measured] = []

    def add(self, what: str, ours: float, theirs: float, goal: str, note: str = "", unit: str = "s") -> None:
        self.lines.append(Measured(what, ours, theirs, unit, goal, note))
        print(self.lines[-1], file=sys.stderr, flush=True)

    def segments(self, run: str) -> list[Path]:
        """The files that hold a run's history."""
        project, run_id = run.split("/")
        number = streams_of(self.mirror.cache, RunRef("me", project, run_id))["history"]
        cache = self.mirror.cache
        return [cache.segment_path(one.file) for one in cache.segments_of([number])]

    def wide(self) -> None:
        for project, (rows, metrics) in {"big": BIG, "large": LARGE}.items():
            files = self.segments(f"{project}/run00000")
            ours, theirs = turns(
                lambda project=project: self.mirror.history(f"me/{project}/run00000"),
                lambda files=files: [pq.read_table(file, columns=["key", "step", "value", "kind"]) for file in files],
            )
            cells = rows * (metrics + 2) / ours / 1e6
            self.add(f"history(), {rows:,} rows x {metrics} / Arrow reads its files", ours, theirs, "<= 3",
                     f"{cells:.0f} M values/s")  # fmt: skip
            key = [("key", "=", "metric_0")]
            ours, theirs = turns(
                lambda project=project: self.mirror.history(f"me/{project}/run00000", ["metric_0"]),
                lambda files=files, key=key: [
                    pq.read_table(file, columns=["step", "value"], filters=key) for file in files
                ],
            )
            self.add("  the same of one metric", ours, theirs, "<= 3")
        ours, theirs = turns(
            lambda: self.mirror.history("me/many"),
            lambda: [self.mirror.history(f"me/many/run{i:05}") for i in range(MANY[0])],
        )
        self.add(f"history() of {MANY[0]} runs / one by one", ours, theirs, "<= 1")
        if not _pandas():
            return
        frame = self.mirror.history("me/large/run00000")
        ours, theirs = turns(frame.to_pandas, lambda: [column.to_numpy().copy() for column in frame.columns])
        self.add(f"to_pandas() of {LARGE[0]:,} rows x {LARGE[1]} / copying it once", ours, theirs, "<= 1")

    def beside_sdk(self) -> None:
        rows = BIG[0]
        path = "me/big/run00000"
        api = wandbsync.Api(cache_dir=self.room / "cache", offline=True)
        folder = self.room / "sdk"
        folder.mkdir()
        places = dict.fromkeys(bench_sdk.PLACES, str(folder))
        with Child(str(HERE / "bench_sdk.py"), os.environ | self.env | places | {"WANDB_SILENT": "true"}) as sdk:
            found = medians(
                timed(lambda: self.mirror.history(path)),
                timed(lambda: list(api.run(path).scan_history())),
                timed(lambda: api.run(path).history(samples=rows, pandas=False)),
                lambda: sdk("scan", path=path, rows=rows, use_cache=True),
                lambda: sdk("again", path=path, rows=rows),
                lambda: sdk("history", path=path, rows=rows),
                repeats=3,
            )
        ours, listed, sampled, scan, again, full = (one[0] for one in found)
        self.add(f"history(), {rows:,} rows x {BIG[1]} / SDK's scan_history()", ours, scan, "<= 1/100")
        self.add("  / SDK's scan_history() from its own cache", ours, again, "<= 1/50")
        self.add("Api: scan_history() / SDK's, from its own cache", listed, again, "<= 1/2", "dicts, as the SDK's")
        self.add("Api: history(samples=all) / SDK's", sampled, full, "<= 1/2", "dicts, as the SDK's")

    def export(self) -> None:
        """A wide export streams: memory does not grow with the history."""
        peaks = {}
        for project in ("big", "large"):
            command = ["export", f"me/{project}/run00000", "--wide", "-o", str(self.room / f"{project}.parquet")]
            code = (
                "import os, re, sys\nfrom wandbsync.cli import main\nos._exit = sys.exit\n"
                f"sys.argv = ['wandbsync', '--cache-dir', {str(self.room / 'cache')!r}, *{command!r}, '--offline']\n"
                "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
                "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            peaks[project] = float(done.stdout.splitlines()[-1])
        times = LARGE[0] * LARGE[1] // (BIG[0] * BIG[1])
        self.add(
            f"export --wide: peak memory of {times} times the values", peaks["large"], peaks["big"], "<= 3", unit="MB"
        )

    def start(self) -> None:
        def python(code: str) -> Callable[[], object]:
            return process(sys.executable, "-c", code)

        ours, theirs = turns(python("import wandbsync"), python("pass"))
        self.add("import wandbsync / starting Python", ours, theirs, "<= 1.2")
        ours, theirs = turns(python("import wandbsync; wandbsync.Api"), python("import wandb; wandb.Api"))
        self.add("the drop-in's Api imported / import wandb", ours, theirs, "<= 1/2")


def _pandas() -> bool:
    try:
        import pandas  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    try:
        measure(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
