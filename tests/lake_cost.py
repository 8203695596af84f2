"""What a lake costs: measured here for a million values, and from that for a whole company. `make lake-cost` prints it.

Measured: a project is published as a first publication, then as it grows, rewinds, is read and compacted; to a folder,
so what an object store takes to answer comes on top, which the number of requests stands for. They are counted at an
S3-compatible server of this machine. Simulated: runs and steps of a company, from these and from prices that are said.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wandbsync.cache import Cache, Share, compaction
from wandbsync.lake import address
from wandbsync.lake.delta import Lake
from wandbsync.lake.publish import publish
from wandbsync.lake.read import Reader
from wandbsync.lake.upkeep import look_after
from wandbsync.model import HISTORY, Columns, RunRecord, RunRef

RECORD = RunRecord("finished", "local", summary={})


def columns(keys: int, first: int, steps: int) -> Columns:
    """Values that compress as losses do: noise around a curve."""
    step = np.arange(first, first + steps, dtype=np.int64)
    noise = np.random.default_rng(first).normal(size=(keys, steps))
    return Columns(
        [f"metric/{i}" for i in range(keys)],
        np.repeat(np.arange(keys, dtype=np.int32), steps),
        np.tile(step, keys),
        (1 / np.sqrt(step + 1) + noise / 50).reshape(-1),
        np.zeros(keys * steps, np.uint8),
        None,
        steps,
    )


def put(cache: Cache, run: str, keys: int, first: int, steps: int) -> None:
    ref = RunRef("me", "demo", run)
    cache.commit([Share(ref, cache.revision(ref), RECORD, streams={HISTORY: [columns(keys, first, steps)]})])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def size(folder: Path, table: str) -> int:
    opened = Lake(address.parse(str(folder))).table(table)
    assert opened is not None
    return sum(Path(path).stat().st_size for path in opened.file_uris())


def measure(folder: Path) -> dict[str, float]:
    """Unit costs, of a million values where nothing else is said."""
    unit: dict[str, float] = {}
    where = address.parse(str(folder / "lake"))
    with Cache(folder / "cache") as cache:
        put(cache, "warm", 1, 0, 10)
        publish(cache, where, machine="m")
        for i in range(4):
            put(cache, f"long{i}", 20, 0, 100_000)
        seconds, report = timed(lambda: publish(cache, where, machine="m"))
        millions = report.values / 1e6
        unit["publish_long_s"] = seconds / millions
        unit["bytes"] = size(folder / "lake", "history") / millions
        for i in range(256):
            put(cache, f"short{i}", 20, 0, 200)
        compaction.compact(cache, everything=True)
        seconds, report = timed(lambda: publish(cache, where, machine="m"))
        unit["publish_short_s"] = seconds / (report.values / 1e6)
        unit["batch_commits"] = report.commits
        grown = []
        for k in range(5):
            for i in range(20):
                put(cache, f"short{i}", 20, 200 + k * 10, 10)
            grown.append(timed(lambda: publish(cache, where, machine="m"))[0])
        unit["publish_20_live_runs_s"] = sorted(grown)[2]
        unit["nothing_new_s"] = timed(lambda: publish(cache, where, machine="m"))[0]
        cache.cut(RunRef("me", "demo", "long0"), 50_000)
        unit["replace_1m_s"] = timed(lambda: publish(cache, where, machine="m"))[0]
        with Reader(where) as reader:
            seconds, refs = timed(lambda: reader.runs("me/demo", "long1"))
            unit["find_run_s"] = seconds
            unit["series_100k_s"] = timed(lambda: reader.series(refs[0], "metric/7"))[0]
            best = "SELECT run_id, min(value) FROM history WHERE key = 'metric/7' GROUP BY 1"
            unit["sql_one_key_of_260_runs_s"] = timed(lambda: reader.sql(best).fetchall())[0]
        before = size(folder / "lake", "history")
        unit["compact_s"] = timed(lambda: look_after(where, compact=True, vacuum=False))[0] / (before / unit["bytes"])
    unit["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return unit


def requests(folder: Path) -> dict[str, float]:
    """How often a bucket is asked, by what for."""
    from s3_server import s3

    counted: dict[str, float] = {}
    with s3("lab") as server, Cache(folder / "asking") as cache:
        os.environ.update(server.env)
        where = address.parse("s3://lab/x")

        def asked(what: str, work: Callable[[], Any]) -> None:
            server.asked.clear()
            work()
            counted[f"{what}_puts"] = sum(method in ("PUT", "POST") for method, _ in server.asked)
            counted[f"{what}_gets"] = sum(method in ("GET", "HEAD") for method, _ in server.asked)

        put(cache, "warm", 2, 0, 10)
        publish(cache, where, machine="m")
        for i in range(200):
            put(cache, f"r{i}", 5, 0, 20)
        asked("batch", lambda: publish(cache, where, machine="m"))
        for i in range(20):
            put(cache, f"r{i}", 5, 20, 5)
        asked("live", lambda: publish(cache, where, machine="m"))
        asked("idle", lambda: publish(cache, where, machine="m"))
        with Reader(where) as reader:
            refs = reader.runs("me/demo", "r7")
            asked("series", lambda: reader.series(refs[0], "metric/1"))
    return counted


def company(
    unit: dict[str, float], asked: dict[str, float], *, runs: int, steps: int, keys: int, machines: int
) -> None:
    """What it comes to: `runs` of `steps` with `keys` numbers each, on `machines`, in a year."""
    values = runs * steps * keys / 1e6  # millions
    stored = values * unit["bytes"]
    seconds = values * unit["publish_long_s"]
    batches = runs * max(1.0, steps * keys / 1e6)  # a run with more than 1 M values is a batch of its own
    looks = machines * 365 * 144  # every ten minutes
    puts = batches * asked["batch_puts"] + looks * asked["live_puts"]
    gets = batches * asked["batch_gets"] + looks * asked["live_gets"]
    print(f"\n{runs:,} runs x {steps:,} steps x {keys} keys = {values / 1e6:,.2f} trillion values, {machines} machines")
    print(f"  stored            {stored / 1e12:10.2f} TB   ({stored / 1e9 * 0.023:,.0f} $ a month at 0.023 $/GB)")
    print(f"  publishing        {seconds / 3600:10.0f} h of one core, {seconds / 3600 / machines:,.1f} h a machine")
    print(f"  requests          {puts / 1e6:10.2f} M writes, {gets / 1e6:.2f} M reads a year")
    print(f"                    ({puts * 5e-6:,.0f} $ and {gets * 4e-7:,.0f} $ at 5 $ and 0.40 $ a million)")
    files = max(1.0, stored / (128 << 20))
    print(f"  files of rows     {files:10,.0f}      of 128 MB after compaction, {runs / 256:,.0f} buckets of 256 runs")
    log = files * 900
    print(f"  log of a table    {log / 1e6:10.1f} MB   that a reader loads first (about 900 bytes a file)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    random.seed(0)
    found: list[dict[str, float]] = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(Path(folder)))
    unit = {name: sorted(one[name] for one in found)[repeat // 2] for name in found[0]}
    with tempfile.TemporaryDirectory() as folder:
        asked = requests(Path(folder))
    print(f"measured, median of {repeat}:")
    for name, value in (unit | asked).items():
        print(f"  {name:<28}{value:14,.3f}")
    company(unit, asked, runs=100_000, steps=1_000_000, keys=1, machines=40)
    company(unit, asked, runs=100_000, steps=1_000_000, keys=20, machines=40)


if __name__ == "__main__":
    main()
