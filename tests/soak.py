"""`make soak`: everything at once, and everything killed: live runs, a growing server with faults, readers, SIGKILLs.

    python tests/soak.py [--seconds 300] [--kills 100] [--seed N]

Runs are written on this machine and on the test server for as long; a daemon mirrors both and is killed at random
moments, as are syncs by hand beside it; readers ask all the time. In the end nobody disturbs any more, and what is in
the cache is compared, value by value, with what was logged. Prints what happened; exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import local_runs
import logwriter
from cells import bits
from mirror import Mirror, connected, rows
from shell import without_wandb
from wandb_server import Run, Server

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.cache.verify import verify
from wandbsync.model import RunRef

READERS = 4
LOCAL, SERVED = 6, 4  # runs that go on at a time
METRICS = [f"m{i}" for i in range(8)]

Values = dict[tuple[str, int], int]  # (key, step) -> the bits of the float


class Writer(threading.Thread):
    """Logs runs on this machine one after the other, as the SDK lays them out, and knows what it has logged."""

    def __init__(self, top: Path, number: int, seed: int, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.top, self.number, self.rng, self.stopping = top, number, random.Random(seed), stopping
        self.logged: dict[str, Values] = {}

    def run(self) -> None:
        for count in range(10_000):
            if self.stopping.is_set():
                return
            self._log_run(f"w{self.number}-{count}")

    def _log_run(self, run_id: str) -> None:
        values: Values = {}
        self.logged[run_id] = values
        start = local_runs.header(run_id, at=time.time(), offline=False)
        path = local_runs.put(self.top, run_id, [], offline=False, stamp=time.strftime("%Y%m%d_%H%M%S"))
        written = bytes(logwriter.log(start))
        with path.open("r+b") as file:
            file.write(written)
            file.flush()
            step, steps = 0, self.rng.randrange(50, 1500)
            while step < steps:
                count = self.rng.randrange(1, 40)
                records = []
                for one in range(step, step + count):
                    row = {name: self.rng.gauss(0, 1) for name in METRICS if self.rng.random() < 0.9}
                    values |= {(name, one): bits(value) for name, value in row.items()}
                    records.append(
                        logwriter.record("core", 3 + one, history=logwriter.history("core", cells(row, one), one))
                    )
                step += count
                more = logwriter.append(written, records)
                torn = self.rng.randrange(len(written), len(more))  # half a write, as a reader may see it
                for end in (torn, len(more)):
                    file.write(more[file.tell() : end])
                    file.flush()
                written = more
                if self.stopping.wait(self.rng.expovariate(12)):
                    break
            if self.rng.random() < 0.8:
                more = logwriter.append(written, [local_runs.end(0)])
                file.write(more[len(written) :])


def cells(row: dict[str, float], step: int) -> list[tuple[tuple[str, ...], str]]:
    found = [((name,), repr(value)) for name, value in row.items()]
    return [*found, (("_step",), str(step)), (("_timestamp",), repr(1.7e9 + step / 3)), (("_runtime",), repr(step / 3))]


class Served(threading.Thread):
    """Runs that grow on the server, with faults now and then."""

    def __init__(self, server: Server, seed: int, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.server, self.rng, self.stopping = server, random.Random(seed), stopping
        self.count = 0

    def run(self) -> None:
        growing: list[Run] = []
        while not self.stopping.wait(self.rng.expovariate(10)):
            while len(growing) < SERVED:
                self.count += 1
                growing.append(self.server.add_run("me", "demo", f"s{self.count}", rows(3), state="running"))
            run = self.rng.choice(growing)
            self.server.grow(run, rows(self.rng.randrange(1, 60), len(run.history)))
            if self.rng.random() < 0.1:
                self.server.export(run, self.rng.randrange(len(run.history)))
            if self.rng.random() < 0.04:
                self.server.finish(run, self.rng.choice(["finished", "failed", "crashed"]))
                growing.remove(run)
            if self.rng.random() < 0.05:
                self._fault()
        self.server.calm()
        for run in growing:
            self.server.finish(run)

    def _fault(self) -> None:
        fault: dict[str, Any] = self.rng.choice(
            [
                {"status": 429, "times": 3},
                {"status": 503, "times": 2},
                {"truncate": 40},
                {"reset": "before"},
                {"reset": "after"},
                {"latency": 1.0},
            ]
        )
        self.server.fail(self.rng.choice(["*", "Runs", "export"]), **fault)


class Killed(threading.Thread):
    """A command that is begun again and again, and killed at a random moment each time."""

    def __init__(
        self, words: list[str], env: dict[str, str], seed: int, stopping: threading.Event, most: float
    ) -> None:
        super().__init__(daemon=True)
        self.words, self.env, self.rng, self.stopping, self.most = words, env, random.Random(seed), stopping, most
        self.kills = self.ended = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            process = start(self.words, self.env)
            if self.stopping.wait(self.rng.uniform(0.2, self.most)) or process.poll() is not None:
                code = stop(process)
                self.ended += 1
                if code not in (0, 3, 5, 6, -signal.SIGTERM):
                    self.wrong.append(f"{' '.join(self.words)} ended with {code}: {process.stderr.read()[-800:]}")  # type: ignore[union-attr]
            else:
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.kills += 1


def start(words: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wandbsync", *words],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str]) -> int:
    if process.poll() is None:
        process.terminate()
    return process.wait(60)


def reader(folder: Path, seconds: float, seed: int) -> None:
    """Ask for `seconds`; prints the milliseconds that each answer took, as JSON. A wrong answer is an exception."""
    rng, taken = random.Random(seed), []
    before: dict[RunRef, int] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        with Cache(folder) as cache:
            for project in query.list_projects(cache):
                for run in query.list_runs(cache, (project["entity"], project["name"]), limit=20):
                    ref = RunRef(project["entity"], project["name"], run["id"])
                    assert run["rows"] >= before.get(ref, 0), f"{ref} had {before[ref]} rows, and has {run['rows']}"
                    before[ref] = run["rows"]
        taken.append(time.perf_counter() - began)
        if before and rng.random() < 0.5:
            began = time.perf_counter()
            ref = rng.choice(list(before))
            with Cache(folder) as cache:
                for metric in list(query.list_metrics(cache, ref))[:2]:
                    step, value = query.series(cache, ref, metric)
                    assert len(step) == len(value) and (step[1:] >= step[:-1]).all(), (ref, metric)
            taken.append(time.perf_counter() - began)
        time.sleep(rng.expovariate(30))
    print(json.dumps([one * 1000 for one in taken]))


def local_values(cache: Cache, ref: RunRef) -> Values:
    """What the cache has of a run; AssertionError if it has anything twice."""
    table = query.history(cache, ref, METRICS)
    found = list(zip(*(table.column(name).to_pylist() for name in ("key", "step", "value")), strict=True))
    values = {(key, step): bits(value) for key, step, value in found}
    assert len(values) == len(found), f"{ref} has values twice"
    return values


def wrongs(top: Path, server: Server, writers: list[Writer]) -> Iterator[str]:
    """What is not as it was logged."""
    with Cache(top / "cache") as cache:
        yield from (str(finding) for finding in verify(cache) if not finding.harmless)
        for writer in writers:
            for run_id, logged in writer.logged.items():
                found = local_values(cache, RunRef("local", "demo", run_id))
                if found != logged:
                    lost, added = logged.items() - found.items(), found.items() - logged.items()
                    yield f"{run_id}: {len(lost)} values lost, {len(added)} that were never logged, of {len(logged)}"
    mirror = Mirror(top / "cache", server, connected(server))
    for run in server.store.projects["me", "demo"].runs.values():
        try:
            mirror.assert_same(run)
        except AssertionError as error:  # noqa: PERF203
            yield f"{run.name} on the server: {str(error)[:300]}"
    mirror.close()


def soak(top: Path, seconds: float, kills: int, seed: int) -> int:
    stopping, undisturbed = threading.Event(), threading.Event()
    with Server() as server:
        config = top / "wandbsync.toml"
        config.write_text(
            f'[local]\nfolders = ["{top / "jobs"}"]\n[server]\nprojects = ["me/demo"]\n'
            '[daemon]\npoll = "1s"\nsettled = "2s"\nsweep = "10s"\nscan = "5s"\n'
        )
        (top / "jobs").mkdir()
        env = without_wandb() | server.env_in(top)
        env |= {"WANDBSYNC_CACHE_DIR": str(top / "cache"), "WANDBSYNC_CONFIG": str(config)}
        writers = [Writer(top / "jobs", i, seed + i, stopping) for i in range(LOCAL)]
        served = Served(server, seed, stopping)
        daemon = Killed(["-q", "daemon", "run"], env, seed, undisturbed, 2 * seconds / max(kills, 1) * 1.3)
        by_hand = Killed(["-q", "sync"], env, seed + 1, undisturbed, 3.0)
        threads = [*writers, served, daemon, by_hand]
        for thread in threads:
            thread.start()
        while not (top / "cache" / "catalog.sqlite").exists():
            time.sleep(0.1)
        asking = [
            subprocess.Popen(
                [sys.executable, __file__, "--reader", str(top / "cache"), "--seconds", str(seconds), "--seed", str(i)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=env,
            )
            for i in range(READERS)
        ]
        until = time.monotonic() + seconds
        while time.monotonic() < until or daemon.kills + by_hand.kills < kills:
            time.sleep(0.5)
        undisturbed.set()
        for thread in (daemon, by_hand):
            thread.join()
        stopping.set()
        for thread in threads:
            thread.join()
        wrong = [*daemon.wrong, *by_hand.wrong]
        taken: list[float] = []
        for process in asking:
            out, err = process.communicate(timeout=60)
            if process.returncode:
                wrong.append(f"a reader ended with {process.returncode}: {err[-600:]}")
            else:
                taken += json.loads(out)
        # What was left alone for a while because of faults is asked for once more.
        for words in (["sync"], ["sync", *(f"me/demo/{name}" for name in server.store.projects["me", "demo"].runs)]):
            last = subprocess.run([sys.executable, "-m", "wandbsync", *words], env=env, capture_output=True, text=True)
            if last.returncode:
                wrong.append(f"{words[0]} in peace ended with {last.returncode}: {last.stderr[-600:]}")
        wrong += wrongs(top, server, writers)
        runs = sum(len(writer.logged) for writer in writers)
        values = sum(len(one) for writer in writers for one in writer.logged.values())
        there = server.store.projects["me", "demo"].runs.values()
    taken.sort()
    print(f"{seconds:g} s, seed {seed}: {daemon.kills} daemons and {by_hand.kills} syncs killed, {by_hand.ended} ended")
    print(
        f"{runs} runs with {values:,} values logged here, "
        f"{len(there)} with {sum(len(run.history) for run in there):,} rows there"
    )
    if taken:
        p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
        print(
            f"{len(taken)} answers to {READERS} readers: p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {taken[-1]:.0f} ms"
        )
    for one in wrong:
        print(f"WRONG: {one}")
    print("something was wrong" if wrong else "all is there once, bit for bit, and the cache is sound")
    return 1 if wrong else 0


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--seconds", type=float, default=300.0)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=random.randrange(10**6))
    options.add_argument("--reader", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.reader:
        reader(chosen.reader, chosen.seconds, chosen.seed)
        return 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as top:
        return soak(Path(top), chosen.seconds, chosen.kills, chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
