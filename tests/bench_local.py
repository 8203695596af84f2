"""What reading logs and asking the cache costs, beside the SDK's own dump, starting Python, starting DuckDB."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import logwriter
import numpy as np
from measured import Measured, process, turns

from wandbsync.cache import Cache
from wandbsync.sources import runlog
from wandbsync.sync import sync_local


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


def measure(room: Path, *, quick: bool = False) -> list[Measured]:
    """All of it, half a minute. `room` is an empty folder."""
    lines: list[Measured] = []
    wandbsync = [sys.executable, "-m", "wandbsync", "--cache-dir", str(room / "cache")]
    log = write_log(room / "jobs", "large", rows=10_000 if quick else 50_000, keys=20)
    values = (10_000 if quick else 50_000) * 22

    def beside(
        what: str, goal: str, ours: Callable[[], object], theirs: Callable[[], object], *, rate: bool = False
    ) -> None:
        mine, peer = turns(ours, theirs, repeats=3 if quick else 5)
        lines.append(Measured(what, mine, peer, "s", goal, f"{values / mine / 1e6:.1f} M values/s" if rate else ""))

    def read() -> int:
        return sum(len(window.history.value) for window in runlog.windows(log))

    def first_sync() -> None:
        shutil.rmtree(room / "again", ignore_errors=True)
        with Cache(room / "again") as cache:
            sync_local(cache, [room / "jobs"])

    leet = shutil.which("wandb", path=str(Path(sys.executable).parent)) or "wandb"
    dump = process(leet, "leet", "inspect", "--summary", str(log))
    beside(f"read a log of {values / 1e6:g} M values / `wandb leet inspect --summary`", "", read, dump, rate=True)
    beside("first sync of it / reading alone", "", first_sync, read, rate=True)
    many = room / "many"
    for i in range(300):
        write_log(many, f"run{i:04}", rows=20, keys=10)
    with Cache(room / "cache") as cache:
        sync_local(cache, [room / "jobs", many])
    nothing = process(sys.executable, "-c", "pass")
    asked = [
        ("second sync of 300 unchanged runs", ["sync", "--local", str(many)]),
        ("wandbsync --help", ["--help"]),
        ("list-runs, 100 of 301", ["list-runs", "bench", "--offline"]),
        ("list-metrics of a long run", ["list-metrics", "bench", "large", "--offline"]),
    ]
    for what, words in asked:
        beside(f"{what} / starting Python", "", process(*wandbsync, *words), nothing)
    duck = process(sys.executable, "-c", "import duckdb; duckdb.sql('SELECT 1').fetchall()")
    query = "SELECT key, avg(value) FROM history WHERE run_id = 'large' GROUP BY key"
    asking = process(*wandbsync, "sql", query, "--offline")
    beside("sql: a mean of each of 22 metrics / starting DuckDB", "", asking, duck)
    files = str(room / "cache" / "history" / "**" / "*.parquet")
    plain = f"SELECT key, avg(value) FROM read_parquet('{files}') GROUP BY key"
    direct = process(sys.executable, "-c", f"import duckdb; duckdb.sql({plain!r}).fetchall()")
    beside("  / DuckDB alone on the same Parquet files", "", asking, direct)
    rows = "SELECT h.* FROM history h, range(2)"
    for form, options, goal in (("csv", "", "<= 1.5"), ("json", "(ARRAY true)", "<= 2")):
        exporting = process(*wandbsync, "sql", rows, "--offline", "-o", str(room / f"rows.{form}"))
        statements = [
            f"ATTACH '{room}/cache/wandb.duckdb' AS wandb (READ_ONLY)",
            "USE wandb",
            f"COPY ({rows}) TO '{room}/copied.{form}' {options}",
        ]
        copy = f"import duckdb; con = duckdb.connect(); [con.execute(one) for one in {statements!r}]"
        what = f"sql: {2 * values / 1e6:.1f} M rows as {form.upper()} / DuckDB's COPY of the same query"
        beside(what, goal, exporting, process(sys.executable, "-c", copy))
    return lines
