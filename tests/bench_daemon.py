"""What the daemon costs: a training job that it follows, the machine, and how far behind it is.

    python tests/bench_daemon.py

Twenty runs are logged at once, a flush of five rows by each several times a second, and the catalog is looked at all
the time to see when they are there. A training loop with the real SDK is timed with the daemon following it, and
without, in turns.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import local_runs
import logwriter
from measured import Measured

RUNS, FLUSHES, ROWS, METRICS = 20, 5.0, 5, 20  # runs at a time, flushes a second of each, rows a flush
SECONDS, TURNS, STEPS = 15.0, 9, 8000

TRAINING = """
import os, sys, time
os.environ["WANDB_MODE"], os.environ["WANDB_SILENT"] = "offline", "true"
os.environ["WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL"] = "0.5"
import wandb
run = wandb.init(project="bench", dir=sys.argv[1])
began = time.perf_counter()
for step in range(int(sys.argv[2])):
    x = sum(i * i for i in range(2000))
    run.log({f"m{i}": step / (i + 1) for i in range(20)})
print(time.perf_counter() - began)
run.finish()
"""


@contextlib.contextmanager
def daemon(room: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that follows what is logged below room/jobs."""
    (room / "jobs").mkdir(exist_ok=True)
    config = room / "wandbsync.toml"
    config.write_text(f'[local]\nfolders = ["{room / "jobs"}"]\n')
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    env |= {"WANDBSYNC_CONFIG": str(config), "WANDBSYNC_CACHE_DIR": str(room / "cache"), "HOME": str(room)}
    process = subprocess.Popen([sys.executable, "-m", "wandbsync", "--quiet", "daemon", "run"], env=env)
    try:
        while not (room / "cache" / "status.json").exists():
            time.sleep(0.1)
        time.sleep(1)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def log_run(top: Path, number: int, until: float, flushed: list[tuple[float, int]]) -> None:
    """Log a run until then, and note when how many rows were flushed."""
    rng = random.Random(number)
    start = local_runs.header(f"live{number}", at=time.time(), offline=False)
    path = local_runs.put(top, f"live{number}", start, offline=False)
    written, rows = logwriter.log(start), 0
    with path.open("ab") as file:
        while time.time() < until:
            values = {f"m{i}": rng.random() for i in range(METRICS)}
            more = logwriter.append(written, local_runs.rows(range(rows, rows + ROWS), **values))
            file.write(more[len(written) :])
            file.flush()
            written, rows = more, rows + ROWS
            flushed.append((time.time(), rows))
            time.sleep(rng.expovariate(FLUSHES))


def lags(room: Path, runs: int = RUNS, seconds: float = SECONDS) -> list[float]:
    """Seconds from each flush until its rows are in the catalog, of so many runs that go on for so long."""
    flushed: list[list[tuple[float, int]]] = [[] for _ in range(runs)]
    seen: list[list[tuple[float, int]]] = [[] for _ in range(runs)]
    until = time.time() + seconds
    writers = [
        threading.Thread(target=log_run, args=(room / "jobs", i, until, flushed[i]), daemon=True) for i in range(runs)
    ]
    for writer in writers:
        writer.start()
    catalog = sqlite3.connect(room / "cache" / "catalog.sqlite")
    while time.time() < until + 2:
        for run_id, rows in catalog.execute("SELECT run_id, rows FROM runs WHERE run_id LIKE 'live%'"):
            seen[int(run_id[4:])].append((time.time(), rows))
        time.sleep(0.02)
    catalog.close()
    return sorted(
        next((when for when, have in seen[i] if have >= rows), float("inf")) - at
        for i in range(runs)
        for at, rows in flushed[i]
    )


def trained(room: Path, name: str) -> float:
    """Seconds that a training loop took."""
    (room / name).mkdir(exist_ok=True)
    words = [sys.executable, "-c", TRAINING, str(room / name), str(STEPS)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(room: Path, *, quick: bool = False) -> list[Measured]:
    """All of it, about a minute. `room` is an empty folder."""
    with daemon(room) as process:
        before, began = cpu_seconds(process.pid), time.time()
        taken = lags(room)
        share = (cpu_seconds(process.pid) - before) / (time.time() - began)
        followed: list[float] = []
        alone: list[float] = []
        for _ in range(2 if quick else TURNS):
            followed.append(trained(room, "jobs"))
            alone.append(trained(room, "elsewhere"))
        peak = peak_bytes(process.pid)
    note = f"{RUNS * FLUSHES * ROWS * METRICS:,.0f} values/s; longest {taken[-1]:.2f} s"
    return [
        Measured("20 live runs: from a flush to the cache, median", statistics.median(taken), None, "s", "", note),
        Measured("the same, 99 of 100", taken[int(len(taken) * 0.99)], None, "s", "< 1"),
        Measured("processor that the daemon uses meanwhile", share, None, "cores", ""),
        Measured("its peak memory", peak / 1e6, None, "MB", ""),
        Measured(
            "a training loop that is followed / one that is not",
            statistics.median(followed),
            statistics.median(alone),
            "s",
            "1",
        ),
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(Path(folder)):
            print(line)
