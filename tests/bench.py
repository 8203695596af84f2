"""`make bench`: what wandbsync costs, as ratios to something everybody has, measured in the same run.

Product and peer take turns and the medians are compared, so that a busy machine weighs on both. Times of a command are
of the whole process. Nothing here passes or fails. What the API source costs is measured in bench_api, what the daemon
costs in bench_daemon, the library in bench_library.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench_api
import bench_daemon
import bench_library
import bench_plot
import logwriter
import numpy as np

from wandbsync.cache import Cache
from wandbsync.sources import runlog
from wandbsync.sync import sync_local

REPEATS = 5


def turns(*calls: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Median wall seconds of each call, called in turns."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, times in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def process(*words: str, **env: str) -> Callable[[], object]:
    return lambda: subprocess.run(
        words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | env
    )


def write_log(folder: Path, run_id: str, *, rows: int, keys: int) -> Path:
    """A finished run's log as wandb-core writes it."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, keys)).tolist()
    place = folder / "wandb" / f"offline-run-20240101_000000-{run_id}"
    place.mkdir(parents=True)
    run = logwriter.pb.RunRecord(run_id=run_id, project="bench")
    records = [logwriter.record("core", 1, run=run)]
    for step, row in enumerate(values):
        cells = [((f"metric_{i}",), repr(value)) for i, value in enumerate(row)]
        cells += [(("_step",), str(step)), (("_timestamp",), repr(1.7e9 + step)), (("_runtime",), repr(step * 1.0))]
        records.append(logwriter.record("core", step + 2, history=logwriter.history("core", cells, step)))
    records.append(logwriter.record("core", rows + 2, exit=logwriter.pb.RunExitRecord(exit_code=0)))
    path = place / f"run-{run_id}.wandb"
    path.write_bytes(logwriter.log(records))
    return path


def main() -> None:
    rows: list[tuple[str, float, float, str]] = []
    room = Path(tempfile.mkdtemp())
    wandbsync = [sys.executable, "-m", "wandbsync", "--cache-dir", str(room / "cache")]
    try:
        log = write_log(room / "jobs", "large", rows=50_000, keys=20)
        values = 50_000 * 22

        def read() -> int:
            return sum(len(window.history.value) for window in runlog.windows(log))

        def first_sync() -> None:
            shutil.rmtree(room / "again", ignore_errors=True)
            with Cache(room / "again") as cache:
                sync_local(cache, [room / "jobs"])

        leet = shutil.which("wandb", path=str(Path(sys.executable).parent)) or "wandb"
        ours, theirs = turns(read, process(leet, "leet", "inspect", "--summary", str(log)))
        rows.append(
            (
                "read a log of 1.1 M values / `wandb leet inspect --summary`",
                ours,
                theirs,
                f"{values / ours / 1e6:.1f} M values/s",
            )
        )
        ours, theirs = turns(first_sync, read)
        rows.append(("first sync of it / reading alone", ours, theirs, f"{values / ours / 1e6:.1f} M values/s"))

        many = room / "many"
        for i in range(300):
            write_log(many, f"run{i:04}", rows=20, keys=10)
        with Cache(room / "cache") as cache:
            sync_local(cache, [room / "jobs", many])
        nothing = process(sys.executable, "-c", "pass")
        ours, theirs = turns(process(*wandbsync, "sync", "--local", str(many)), nothing)
        rows.append(("second sync of 300 unchanged runs / starting Python", ours, theirs, ""))
        ours, theirs = turns(process(*wandbsync, "--help"), nothing)
        rows.append(("wandbsync --help / starting Python", ours, theirs, ""))
        ours, theirs = turns(process(*wandbsync, "list-runs", "bench", "--offline"), nothing)
        rows.append(("list-runs, 100 of 301 / starting Python", ours, theirs, ""))
        ours, theirs = turns(process(*wandbsync, "list-metrics", "bench", "large", "--offline"), nothing)
        rows.append(("list-metrics over 50,000 rows / starting Python", ours, theirs, ""))
        duck = process(sys.executable, "-c", "import duckdb; duckdb.sql('SELECT 1').fetchall()")
        query = "SELECT key, avg(value) FROM history WHERE run_id = 'large' GROUP BY key"
        ours, theirs = turns(process(*wandbsync, "sql", query, "--offline"), duck)
        rows.append(("sql: a mean of each of 22 metrics / starting DuckDB", ours, theirs, ""))
        (room / "plots").mkdir()
        plots = bench_plot.measure(room / "plots")
        (room / "api").mkdir()
        beside_sdk = bench_api.measure(room / "api")
        (room / "library").mkdir()
        library = bench_library.measure(room / "library")
        (room / "daemon").mkdir()
        following = bench_daemon.measure(room / "daemon")
    finally:
        shutil.rmtree(room, ignore_errors=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    print(f"{machine}; medians of {REPEATS} turns\n")
    for name, ours, theirs, note in rows:
        print(f"{name:<62} {ours * 1000:9.1f} ms / {theirs * 1000:9.1f} ms = {ours / theirs:6.2f}  {note}")
    print("\nPlots, beside the algorithm they replace\n")
    for line in plots:
        print(line)
    print("\nThe W&B server as a source, beside the SDK on the same server\n")
    for line in beside_sdk:
        print(line)
    print("\nThe library, beside Arrow and the SDK\n")
    for line in library:
        print(line)
    print("\nThe daemon beside training jobs\n")
    for fact in following:
        print(fact)
    facts = [{"what": name, "ours": ours, "peer": theirs, "ratio": ours / theirs} for name, ours, theirs, _ in rows]
    found = {
        "peak_mb": peak,
        "rows": facts,
        "plots": [line.facts() for line in plots],
        "api": [line.facts() for line in beside_sdk],
        "library": [line.facts() for line in library],
        "daemon": [line.facts() for line in following],
    }
    Path("bench.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
