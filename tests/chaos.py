"""`make chaos`: what may happen to it, done to it, and whether anybody was told a wrong number.

    python tests/chaos.py [ROW ...] [--seconds 60] [--tries N] [--seed N] [--json]

Each row does one kind of harm again and again, for as long, to a cache whose numbers are known:

    tried   how often        told    an error, or a named problem, said so
    healed  of those that were left alone afterwards, with the commands that the errors name: all is right again
    wrong   a number was not what was logged and nobody said so, a traceback, or no end: must be 0
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import hostile
import kills
from flips import Flips, answers
from shell import Shell
from stage import NUMBERS, Done, Harm, Row, Stage, end, sane

from wandbsync import status
from wandbsync.errors import WandbsyncError


def flipped(kind: str) -> Harm:
    """A bit of a file of this kind; see `flips`. Of the told every tenth is healed, which takes a second."""
    made: dict[Path, Flips] = {}

    def harm(stage: Stage, row: Row) -> None:
        room = stage.room / "flips"
        if room not in made:
            made[room] = Flips(room / "cache", room / "logs", stage.rng)
        one = made[room]
        what = one.flip(kind)
        outcome = one.outcome()
        row.tried += 1
        row.told += outcome == "told"
        if outcome.startswith("wrong"):
            row.wrong.append(f"{what}: {outcome}")
        elif outcome == "told" and row.told % 10 == 1:
            row.ill += 1
            shell = Shell(room)
            config = room / "wandbsync.toml"
            config.write_text(f'[local]\nfolders = ["{room / "logs"}"]\n')
            shell.env["WANDBSYNC_CONFIG"] = str(config)
            stage.ended(stage.begin([sys.executable, "-m", "wandbsync", "cache", "repair", "--offline"], env=shell.env))
            if answers(one.folder)["history"] == one.truth["history"]:
                row.healed += 1
            else:
                row.wrong.append(f"{what}: not healed")
        one.undo()

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


def limited(which: int, low: int, high: int) -> Harm:
    def harm(stage: Stage, row: Row) -> None:
        stage.renew()
        limit = stage.rng.randint(low, high)
        done = stage.run("sync", "--full", before=lambda: resource.setrlimit(which, (limit, limit)))
        # What Python itself cannot start with is nobody's traceback.
        if "Traceback" in done.stderr and "wandbsync/cli" not in done.stderr:
            done = Done(1, "", "")
        stage.judge(row, f"limit {limit}", done)
        stage.heal(row, f"limit {limit}")

    return harm


def without_inotify(stage: Stage, row: Row) -> None:
    """A daemon with no inotify instance, or few watches, left to it: it sees what is logged all the same."""
    stage.renew()
    few = stage.rng.choice(["max_inotify_instances", "max_inotify_watches"])
    script = f'echo {stage.rng.randrange(2)} > /proc/sys/user/{few} && exec "$@"'
    ours = [sys.executable, "-m", "wandbsync", "daemon", "run"]
    process = stage.begin(["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *ours])
    kills.grow(stage)
    row.tried += 1
    try:
        deadline = time.monotonic() + 30
        while stage.ask() != stage.numbers and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
        row.ill += 1
        if stage.ask() == stage.numbers:
            row.healed += 1
        else:
            row.wrong.append(f"{few}: what was logged does not come")
        process.terminate()
        done = stage.ended(process)
        sane(row, few, done)
        row.told += "polling" in done.stderr
    finally:
        end(process)
    stage.keep()


SLOW = """
import os, sqlite3, sys, time
from pathlib import Path

SECONDS = float(sys.argv[1])

def late(plain):
    return lambda *args, **more: (time.sleep(SECONDS), plain(*args, **more))[1]

os.fsync = late(os.fsync)
for name in ("rename", "replace", "unlink", "open", "stat"):
    setattr(Path, name, late(getattr(Path, name)))

class Slow(sqlite3.Connection):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.set_trace_callback(lambda text: time.sleep(SECONDS * text.startswith(("BEGIN", "COMMIT"))))

plain = sqlite3.connect
sqlite3.connect = lambda *args, **more: plain(*args, **({"factory": Slow} | more))
sys.argv = ["wandbsync", *sys.argv[2:]]
from wandbsync.cli import main
main()
"""


def slow(stage: Stage, row: Row) -> None:
    """A disk on which every call takes long, while others read: they get their answers."""
    stage.renew()
    seconds = f"{stage.rng.uniform(0.002, 0.05):.3f}"
    words = stage.rng.choice([("sync", "--full"), ("cache", "compact", "--all"), ("cache", "backup", "backup")])
    process = stage.begin([sys.executable, "-c", SLOW, seconds, *words])
    try:
        while process.poll() is None:
            if stage.ask() != stage.numbers:
                row.wrong.append(f"{seconds} s: another answer meanwhile")
            time.sleep(0.1)
        stage.judge(row, f"{seconds} s, {words}", stage.ended(process))
    finally:
        end(process)
    stage.heal(row, "slow")


def read_only(stage: Stage, row: Row) -> None:
    """The disk takes nothing; what is there is answered."""
    stage.renew()
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    mine = [sys.executable, "-m", "wandbsync", "sync", "--full"]
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(stage.shell.cache), *mine]
    stage.judge(row, "read-only", stage.ended(stage.begin(words)))
    stage.heal(row, "read-only")


def full(stage: Stage, row: Row) -> None:
    """A disk of its own that fills up while a sync goes on; asked there, it answers what came, or says why not."""
    size, ask = stage.rng.randint(100, 1000), f'sql "{NUMBERS}" --offline --format json'
    ours = f"{sys.executable} -m wandbsync"
    script = (
        f'mount -t tmpfs -o size={size}k none "$1" && export WANDBSYNC_CACHE_DIR="$1/cache"; '
        f"{ours} sync >&2; {ours} {ask}"
    )
    place = stage.room / "small"
    place.mkdir(exist_ok=True)
    done = stage.ended(stage.begin(["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(place)]))
    row.tried += 1
    whole = {line[0]: line for line in stage.numbers}
    if not sane(row, f"{size} kB", done):
        return
    if done.stdout.strip():
        came = [tuple(one.values()) for one in json.loads(done.stdout)]
        row.wrong += [f"{size} kB: {one}" for one in came if one != whole[one[0]]]
        row.told += "no room" in done.stderr
        if len(came) < len(whole) and "no room" not in done.stderr:
            row.wrong.append(f"{size} kB: runs are missing and nobody says so: {done.stderr[-200:]}")
    else:
        row.told += 1


def clock(stage: Stage, row: Row) -> None:
    """Files of the past and of the future, as when the clock is set or a disk comes from elsewhere."""
    stage.renew()
    for path in [*stage.runs.rglob("*"), *stage.shell.cache.rglob("*")]:
        if stage.rng.random() < 0.5:
            at = time.time() + stage.rng.choice([-1e9, -1e5, 1e5, 1e8])
            os.utime(path, (at, at))
    done = stage.run(*stage.rng.choice([("sync",), ("cache", "gc"), ("cache", "compact", "--all")]))
    stage.judge(row, "clock", done)
    stage.heal(row, "clock")


ROWS: dict[str, Harm] = {
    "flip-segment": flipped("segment"),
    "flip-catalog": flipped("catalog"),
    "flip-duckdb": flipped("duckdb"),
    "flip-status": flipped_status,
    "kill": kills.killed,
    "readers": kills.busy,
    "disk-full": full,
    "disk-read-only": read_only,
    "disk-slow": slow,
    "clock": clock,
    "descriptors": limited(resource.RLIMIT_NOFILE, 5, 24),
    "inotify": without_inotify,
    "memory": limited(resource.RLIMIT_AS, 800 << 20, 1600 << 20),
    "log-broken": hostile.broken_log,
    "log-strange": hostile.strange_log,
    "server-faults": hostile.server,
    "server-bomb": hostile.bomb,
    "server-lies": hostile.liar,
    "server-changes": hostile.changing,
}
HEAD = f"{'':<16}{'TRIED':>8}{'TOLD':>8}{'HEALED':>14}{'WRONG':>8}"


def rows(names: Iterable[str], *, seconds: float, seed: int, tries: int | None = None) -> Iterator[Row]:
    """Do each harm for so long, or so often."""
    for name in names:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as room:
            row, stage = Row(name), Stage(Path(room), random.Random(f"{seed} {name}"))
            ends = time.monotonic() + seconds
            while row.tried < tries if tries is not None else time.monotonic() < ends:
                try:
                    ROWS[name](stage, row)
                except WandbsyncError as error:  # noqa: PERF203  # where nobody should have had one
                    row.wrong.append(error.line())
                    break
            yield row


def every() -> Iterator[Row]:
    """All of them, as they are recorded."""
    for name in ROWS:
        tries = {"kill": 500, "readers": 1}.get(name, 340 if name.startswith("flip") else None)
        yield from rows([name], seconds=20.0, seed=15, tries=tries)


def line(row: Row) -> str:
    healed = f"{row.healed:,} of {row.ill:,}" if row.ill else ""
    return f"{row.name:<16}{row.tried:>8,}{row.told:>8,}{healed:>14}{len(row.wrong):>8}  {row.note}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[*ROWS, []], help=", ".join(ROWS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each row")
    parser.add_argument("--tries", type=int, help="for each row, however long it takes")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    found = []
    if not options.json:
        print(HEAD)
    for row in rows(options.rows or list(ROWS), seconds=options.seconds, seed=options.seed, tries=options.tries):
        found.append(row)
        if not options.json:
            print(line(row), flush=True)
        for one in row.wrong[:5]:
            print(f"    {row.name}: {one}", file=sys.stderr)
    if options.json:
        print(json.dumps([asdict(row) for row in found], indent=2))
    return 1 if any(row.wrong for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
