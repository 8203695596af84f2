"""`make chaos`: what may happen to it, done to it, and whether anybody was told a wrong number.

    python tests/chaos.py [ROW ...] [--seconds 60] [--seed N] [--json]

Each row does one kind of harm again and again, for as long, to a cache whose numbers are known:

    tried   how often        told    an error, or a named problem, said so
    healed  afterwards, undisturbed, everything was right again
    wrong   a number was not what was logged and nobody said so, or a traceback: must be 0
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import local_runs
from shell import Shell
from wandb_server import HTML, Server

from wandbsync import query, status
from wandbsync.cache import Cache
from wandbsync.cache.verify import verify
from wandbsync.errors import WandbsyncError

RUNS, STEPS = 4, 300
NUMBERS = (
    "SELECT run_id, count(*), sum(value), max(step) FROM history WHERE key IN ('x', 'loss') GROUP BY ALL ORDER BY 1"
)


@dataclass
class Row:
    """What came of one kind of harm."""

    name: str
    tried: int = 0
    told: int = 0
    healed: int = 0
    wrong: list[str] = field(default_factory=list)


class Stage:
    """A cache of a few local runs in a folder of its own, and what it must say."""

    def __init__(self, room: Path, rng: random.Random) -> None:
        self.shell, self.rng, self.room = Shell(room), rng, room
        for number in range(RUNS):
            rows = local_runs.rows(range(STEPS), loss=number / 7)
            local_runs.put(room / "runs", f"r{number}", [*local_runs.header(f"r{number}"), *rows, local_runs.end()])
        self.run("sync", "--local", "runs")
        self.numbers = self.ask()
        self.whole = room / "whole"
        shutil.copytree(self.shell.cache, self.whole)

    def run(self, *words: str, **how: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wandbsync", *words],
            cwd=self.room, env=self.shell.env, capture_output=True, text=True, timeout=120, **how,  # type: ignore[call-overload]
        )  # fmt: skip

    def ask(self) -> list[tuple[object, ...]]:
        """What the cache says of the runs. Raises WandbsyncError."""
        with Cache(self.shell.cache) as cache:
            return query.sql(cache, NUMBERS).fetchall()

    def renew(self) -> None:
        """The cache as it was at first."""
        shutil.rmtree(self.shell.cache, ignore_errors=True)
        shutil.copytree(self.whole, self.shell.cache)

    def judge(self, row: Row, what: str, done: subprocess.CompletedProcess[str] | None = None) -> None:
        """Count one try: after `done`, a command that was disturbed, does the cache say what it must, or why not?"""
        row.tried += 1
        if done is not None and "Traceback" in done.stderr:
            row.wrong.append(f"{what}: {done.stderr.strip().splitlines()[-1]}")
            return
        told = done is not None and done.returncode not in (0, -signal.SIGKILL)
        try:
            if self.ask() != self.numbers and not told:
                row.wrong.append(f"{what}: another answer")
        except WandbsyncError:
            told = True
        except Exception as error:
            row.wrong.append(f"{what}: {type(error).__name__}: {error}"[:200])
        row.told += told

    def heal(self, row: Row, what: str) -> None:
        """Undisturbed, with the commands that the messages name, everything is to be right."""
        for words in (("cache", "repair"), ("sync", "--local", "runs"), ("sync", "--local", "runs", "--full")):
            try:
                with Cache(self.shell.cache) as cache:
                    if self.ask() == self.numbers and not [one for one in verify(cache) if not one.harmless]:
                        row.healed += 1
                        return
            except WandbsyncError:
                pass
            self.run(*words)
        try:
            if self.ask() == self.numbers:
                row.healed += 1
            else:
                row.wrong.append(f"{what}: not healed, and another answer")
        except WandbsyncError:
            pass  # said, and for people to move aside


Harm = Callable[[Stage, Row], None]  # one try


def flipped(pattern: str) -> Harm:
    def harm(stage: Stage, row: Row) -> None:
        stage.renew()
        files = [path for path in stage.shell.cache.glob(pattern) if path.is_file() and path.stat().st_size]
        path = stage.rng.choice(files)
        content, bit = bytearray(path.read_bytes()), stage.rng.randrange(8 * path.stat().st_size)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        what = f"{path.relative_to(stage.shell.cache)} bit {bit}"
        before = row.told, len(row.wrong)
        stage.judge(row, what)
        if (row.told, len(row.wrong)) != before and row.told % 10 == 1:  # healing takes a second
            stage.heal(row, what)

    return harm


def flipped_status(stage: Stage, row: Row) -> None:
    """What the daemon wrote is of no number, but no command may stumble over it."""
    stage.renew()
    status.write(stage.shell.cache, status.Snapshot(1, "h", "v", 0.0, 0.0, sources=[status.Source("local", "/x")]))
    path = stage.shell.cache / status.FILE
    content = bytearray(path.read_bytes())
    content[stage.rng.randrange(len(content))] ^= 1 << stage.rng.randrange(8)
    path.write_bytes(content)
    row.tried += 1
    try:
        row.told += status.read(stage.shell.cache) is None
    except Exception as error:
        row.wrong.append(f"{type(error).__name__}: {error}")


def killed(stage: Stage, row: Row) -> None:
    """SIGKILL at a random moment of one of several that work at once."""
    works = [("sync", "--local", "runs", "--full"), ("cache", "compact", "--all"), ("cache", "gc"), ("publish", "lake")]
    works.append(("daemon", "run"))
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "wandbsync", *words],
            cwd=stage.room, env=stage.shell.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for words in stage.rng.sample(works, 2)
    ]  # fmt: skip
    time.sleep(stage.rng.uniform(0.2, 1.5))
    for process in running:
        process.kill()
        process.wait()
    stage.judge(row, "killed")
    stage.heal(row, "killed")


def limited(which: int, low: int, high: int) -> Harm:
    def harm(stage: Stage, row: Row) -> None:
        stage.renew()
        limit = stage.rng.randint(low, high)
        done = stage.run(
            "sync", "--local", "runs", "--full", preexec_fn=lambda: resource.setrlimit(which, (limit, limit))
        )
        # What Python itself cannot start with is nobody's traceback.
        if "Traceback" in done.stderr and "wandbsync/cli" not in done.stderr:
            done = subprocess.CompletedProcess(done.args, 1, "", "")
        stage.judge(row, f"limit {limit}", done)
        stage.heal(row, f"limit {limit}")

    return harm


def read_only(stage: Stage, row: Row) -> None:
    """The disk takes nothing; what is there is answered."""
    stage.renew()
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    mine = [sys.executable, "-m", "wandbsync", "sync", "--local", "runs", "--full"]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(stage.shell.cache), *mine],
        cwd=stage.room, env=stage.shell.env, capture_output=True, text=True,
    )  # fmt: skip
    stage.judge(row, "read-only", done)
    stage.heal(row, "read-only")


def full(stage: Stage, row: Row) -> None:
    """A disk of its own that fills up while a sync goes on; asked there, it answers what came, or says why not."""
    size, ask = stage.rng.randint(300, 3000), f'wandbsync sql "{NUMBERS}" --offline --format json'
    ours = f"{sys.executable} -m wandbsync"
    script = (
        f'mount -t tmpfs -o size={size}k none "$1" && export WANDBSYNC_CACHE_DIR="$1/cache"; '
        f"{ours} sync --local runs >&2; {ask.replace('wandbsync', ours, 1)}"
    )
    place = stage.room / "small"
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(place)],
        cwd=stage.room, env=stage.shell.env, capture_output=True, text=True,
    )  # fmt: skip
    row.tried += 1
    whole = {line[0]: line for line in stage.numbers}
    if "Traceback" in done.stderr:
        row.wrong.append(f"{size} kB: {done.stderr.strip().splitlines()[-1]}")
    elif done.stdout.strip():
        came = [tuple(one.values()) for one in json.loads(done.stdout)]
        row.wrong += [f"{size} kB: {one}" for one in came if one != whole[one[0]]]
        row.told += len(came) < len(whole) and "no room" in done.stderr
        if len(came) < len(whole) and "no room" not in done.stderr:
            row.wrong.append(f"{size} kB: runs are missing and nobody says so: {done.stderr[-200:]}")
    else:
        row.told += 1


def clock(stage: Stage, row: Row) -> None:
    """Files of the past and of the future, as when the clock is set or a disk comes from elsewhere."""
    stage.renew()
    for path in [*(stage.room / "runs").rglob("*"), *stage.shell.cache.rglob("*")]:
        if stage.rng.random() < 0.5:
            at = time.time() + stage.rng.choice([-1e9, -1e5, 1e5, 1e8])
            os.utime(path, (at, at))
    done = stage.run(*stage.rng.choice([("sync", "--local", "runs"), ("cache", "gc"), ("cache", "compact", "--all")]))
    stage.judge(row, "clock", done)
    stage.heal(row, "clock")


def broken_log(stage: Stage, row: Row) -> None:
    """A log with bytes changed, cut or doubled: what is read of it was logged, and the others are whole."""
    shutil.rmtree(stage.shell.cache)
    path = stage.rng.choice(sorted((stage.room / "runs").rglob("*.wandb")))
    whole = path.read_bytes()
    at = stage.rng.randrange(len(whole))
    path.write_bytes(
        stage.rng.choice(
            [whole[:at], whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :], whole[:at] + whole[at // 2 :]]
        )
    )
    done = stage.run("sync", "--local", "runs")
    row.tried += 1
    name = path.stem.removeprefix("run-")
    try:
        found = {line[0]: line for line in stage.ask()}
        row.wrong += [
            f"{line[0]} beside a broken log" for line in stage.numbers if line[0] != name and found[line[0]] != line
        ]
        with Cache(stage.shell.cache) as cache:
            values = "SELECT count(*) FROM history WHERE (key = 'x' AND value <> step) OR (key = 'loss' AND value <> ?)"
            loss = int(name[1:]) / 7
            bad = query.sql(cache, f"{values.replace('?', repr(loss))} AND run_id = '{name}'").fetchall()
        row.wrong += [f"{name}: {bad} values that nobody logged"] * (bad != [(0,)])
        row.told += done.returncode != 0 or bool(done.stderr)
    except WandbsyncError:
        row.told += 1
    if "Traceback" in done.stderr:
        row.wrong.append(done.stderr.strip().splitlines()[-1])
    path.write_bytes(whole)
    stage.heal(row, "broken log")


HARMS: list[dict[str, Any]] = [
    *({"status": 200, "body": body} for body in (HTML, b"[]", b'{"data": null}', b"{" * 5000)),
    {"status": 500},
    {"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}},
    {"reset": "before"},
    {"reset": "after"},
    {"truncate": 100},
    {"latency": 0.5},
]


def hostile_server(stage: Stage, row: Row) -> None:
    """A server that answers pages, halves, nothing, late or something else; then it is good again."""
    rng = stage.rng
    with Server() as server:
        server.add_run("me", "demo", "s", [{"x": float(i)} for i in range(400)], exported=rng.choice([0, 300]))
        stage.shell.env |= server.env
        shutil.rmtree(stage.shell.cache, ignore_errors=True)
        harm = rng.choice(HARMS)
        operation = rng.choice(["*", "Runs", "Run", "HistoryPage", "RunParquetHistory", "download"])
        server.fail(operation, times=rng.choice([1, 3, 8]), skip=rng.randrange(3), **harm)
        done = stage.run("sync", "me/demo")
        right = [("s", 400, float(sum(range(400))), 399)]
        row.tried += 1
        what = f"{operation} {harm}"[:120]
        if "Traceback" in done.stderr:
            row.wrong.append(f"{what}: {done.stderr.strip().splitlines()[-1]}")
        told = done.returncode != 0
        try:
            if stage.ask() != right and not told:
                row.wrong.append(f"{what}: another answer, exit 0")
        except WandbsyncError:
            told = True
        row.told += told
        server.calm()
        for words in (("sync", "me/demo"), ("sync", "me/demo", "--full")):
            stage.run(*words)
        row.healed += stage.ask() == right


ROWS: dict[str, Harm] = {
    "flip-segment": flipped("history/**/*.parquet"),
    "flip-catalog": flipped("catalog.sqlite"),
    "flip-duckdb": flipped("wandb.duckdb"),
    "flip-status": flipped_status,
    "kill": killed,
    "disk-full": full,
    "disk-read-only": read_only,
    "clock": clock,
    "descriptors": limited(resource.RLIMIT_NOFILE, 8, 64),
    "memory": limited(resource.RLIMIT_AS, 800 << 20, 1600 << 20),
    "hostile-log": broken_log,
    "hostile-server": hostile_server,
}


def rows(names: list[str], *, seconds: float, seed: int, tries: int | None = None) -> Iterator[Row]:
    """Do each harm for so long, or so often."""
    for name in names:
        with tempfile.TemporaryDirectory() as room:
            row, stage = Row(name), Stage(Path(room), random.Random(f"{seed} {name}"))
            ends = time.monotonic() + seconds
            while row.tried < tries if tries is not None else time.monotonic() < ends:
                ROWS[name](stage, row)
            yield row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[*ROWS, []], help=", ".join(ROWS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each row")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    found = []
    if not options.json:
        print(f"{'':<16}{'TRIED':>8}{'TOLD':>8}{'HEALED':>8}{'WRONG':>8}")
    for row in rows(options.rows or list(ROWS), seconds=options.seconds, seed=options.seed):
        found.append(row)
        if not options.json:
            print(f"{row.name:<16}{row.tried:>8}{row.told:>8}{row.healed:>8}{len(row.wrong):>8}", flush=True)
        for one in row.wrong[:5]:
            print(f"    {row.name}: {one}", file=sys.stderr)
    if options.json:
        print(json.dumps([asdict(row) for row in found], indent=2))
    return 1 if any(row.wrong for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
