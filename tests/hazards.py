"""`make hazards`: what is known to go wrong, done to the real SDK and to wandbsync, and what each has in the end.

    python tests/hazards.py [NAME ...] [--json]

Each hazard is a server, or a log, in a state that servers, disks and people really leave behind, and what two readers
make of it: `wandb.Api().run(...).scan_history()` as a script would call it (of logs: `wandb leet inspect`), and a
wandbsync cache after a sync. Exit code 1 if wandbsync is wrong in any; nobody is blamed for what the SDK does.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import local_runs
import logwriter
from mirror import Mirror, connected
from mirror import rows as some_rows
from shell import without_wandb
from wandb_server import Server

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.errors import WandbsyncError
from wandbsync.model import RunRef, logged
from wandbsync.sources.api import client
from wandbsync.sync import sync_local

SDK = Path(__file__).parent / "wandb_server" / "sdk.py"
PATIENCE = 60  # seconds for the SDK to answer
OWN = ("_step", "_timestamp", "_runtime", "_wandb")  # keys that nobody logs
WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Row = Mapping[str, Any]
Cells = Counter[tuple[int, str, str]]  # step, key, the value to the bit; how often


@dataclass(frozen=True)
class Outcome:
    """What a reader had in the end, compared with what was logged."""

    right: bool
    text: str


@dataclass(frozen=True)
class Found:
    """One hazard, and what came of it."""

    name: str
    logged: str
    sdk: Outcome
    ours: Outcome
    note: str = ""


@dataclass
class Stage:
    """A server with one run `r`, the SDK with a home of its own, and a cache."""

    server: Server
    room: Path
    note: str = ""
    logged: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mirror = Mirror(self.room / "cache", self.server, connected(self.server))

    def log(self, count: int, first: int = 0, **more: Any) -> list[Row]:
        """So many rows more, remembered as logged."""
        new = some_rows(count, first, **more)
        self.logged += new
        return new

    def scan(self, arguments: str = "", api: str = "") -> list[Row] | str:
        """All rows as the SDK gives them, or its error."""
        made = f"__import__('wandb').Api({api})" if api else "api"
        return self.ask(f"[dict(row) for row in {made}.run('me/demo/r').scan_history({arguments})]")

    def ask(self, expression: str) -> Any:
        """What the SDK makes of an expression over `api`, or its error."""
        try:
            done = subprocess.run(
                [sys.executable, str(SDK), "ask"], env=without_wandb() | self.server.env_in(self.room), cwd=self.room,
                input=json.dumps({"it": expression}), capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"no answer in {PATIENCE} s"
        if done.returncode:
            return done.stderr.strip().splitlines()[-1][:100]
        return json.loads(done.stdout)["it"]

    def sync(self) -> list[Row] | str:
        """All rows as wandbsync has them after a sync, or its error."""
        try:
            self.mirror.now += 86_400.0  # whatever was left alone for a while is asked for again
            self.mirror.sync()
            return rows_of(self.mirror.cache, RunRef("me", "demo", "r"))
        except WandbsyncError as error:
            return error.line()


def rows_of(cache: Cache, ref: RunRef) -> list[Row]:
    """The history of a run, row by row."""
    rows: dict[int, dict[str, Any]] = {}
    twice: list[Row] = []
    for one in query.history(cache, ref).to_pylist():
        row = rows.setdefault(one["step"], {"_step": one["step"]})
        value = logged(one["kind"], one["value"], one["value_json"])
        if one["key"] in row:
            twice.append({"_step": one["step"], one["key"]: value})
        row[one["key"]] = value
    return [*rows.values(), *twice]


def cells(rows: Iterable[Row], *, words: bool = False) -> Cells:
    """What rows say, to compare: nulls and what W&B adds are left out. `words`: "NaN" counts as text, as it came."""
    found: Cells = Counter()
    for row in rows:
        for key, value in row.items():
            if key in OWN or value is None:
                continue
            if isinstance(value, str) and not words:
                value = WORDS.get(value, value)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            found[int(row["_step"]), key, repr(float(value)) if number else repr(value)] += 1
    return found


def outcome(got: list[Row] | str, rows: Iterable[Row], *, words: bool = False) -> Outcome:
    """Whether a reader has what was logged; its rows or its error in words."""
    if isinstance(got, str):
        return Outcome(False, got[:70])
    rows = list(rows)
    have, want = cells(got, words=words), cells(rows)
    lost, added = sum((want - have).values()), sum((have - want).values())
    text = f"{len(got)} rows"
    if lost or added:
        text += f", {lost} values lost" * bool(lost) + f", {added} too many" * bool(added)
    return Outcome(not (lost or added), text)


HAZARDS: dict[str, Callable[[Stage], tuple[list[Row] | str, list[Row] | str]]] = {}


def hazard(play: Callable[[Stage], tuple[list[Row] | str, list[Row] | str]]) -> Callable[..., Any]:
    """A scene: gives what the SDK had in the end, and what wandbsync had."""
    HAZARDS[play.__name__.replace("_", " ")] = play
    return play


@hazard
def an_export_that_grew(on: Stage) -> Any:
    """The SDK keeps export files by number, and a hit is a bare stat."""
    run = on.server.add_run("me", "demo", "r", on.log(60))
    on.server.export(run)
    on.scan(), on.sync()
    on.server.grow(run, on.log(40, 60))
    on.server.export(run)
    return on.scan(), on.sync()


@hazard
def exports_in_another_order(on: Stage) -> Any:
    """The order of the addresses is not promised; of the files that the SDK keeps one is lost."""
    run = on.server.add_run("me", "demo", "r", on.log(100))
    on.server.export(run, files=2, shuffle=True)
    on.scan(), on.sync()
    kept = sorted((on.room).rglob("*.parquet"))
    kept = [path for path in kept if "history" not in path.parts]
    for path in kept[:1]:
        path.unlink()
    return on.scan(), on.sync()


@hazard
def rows_on_both_sides_of_the_boundary(on: Stage) -> Any:
    """A server may serve exported rows as live ones, too."""
    run = on.server.add_run("me", "demo", "r", on.log(60), state="running")
    on.server.export(run, 49)
    on.server.history_serves_exported = True
    return on.scan(), on.sync()


@hazard
def keys_at_different_steps(on: Stage) -> Any:
    """scan_history(keys=[a, b]) gives rows that have both."""
    on.logged = [{"_step": i, "_timestamp": 1.7e9 + i, ("a" if i % 2 else "b"): i} for i in range(40)]
    on.server.add_run("me", "demo", "r", on.logged, state="running")
    return on.scan("keys=['a', 'b']"), on.sync()


@hazard
def few_rows_over_many_steps(on: Stage) -> Any:
    """The SDK asks for a thousand steps at a time, whether there is something in them or not."""
    on.server.add_run("me", "demo", "r", on.log(60, apart=5000), state="running")
    on.server.reset_counts()
    theirs = on.scan()
    asked = sum(count.requests for count in on.server.counts.values())
    on.server.reset_counts()
    mine = on.sync()
    on.note = f"{asked} requests / {sum(count.requests for count in on.server.counts.values())}"
    return theirs, mine


@hazard
def steps_that_go_back(on: Stage) -> Any:
    """Many writers, or a rewind: the steps of an export are not in order."""
    first, second = on.log(30), on.log(30, 30)
    run = on.server.add_run("me", "demo", "r", [*second, *first])
    on.server.export(run)
    return on.scan("page_size=10"), on.sync()


@hazard
def NaN_and_infinities_of_a_run_that_goes_on(on: Stage) -> Any:  # noqa: N802
    """Live rows come as JSON, which has no NaN: the SDK gives the words."""
    on.logged = [{"_step": i, "_timestamp": 1.7e9 + i, "x": list(WORDS.values())[i % 3]} for i in range(12)]
    on.server.add_run("me", "demo", "r", on.logged, state="running")
    return on.scan(), on.sync()


@hazard
def a_run_that_was_rewound(on: Stage) -> Any:
    """What was exported before is void from a step on, and other rows stand there."""
    run = on.server.add_run("me", "demo", "r", on.log(80), state="running")
    on.server.export(run, 59)
    on.scan(), on.sync()
    on.server.rewind(run, 29)
    on.logged = on.logged[:30]
    on.server.grow(run, on.log(25, 30, again=1))
    on.server.export(run)
    on.server.finish(run)
    return on.scan(), on.sync()


@hazard
def an_id_that_was_used_again(on: Stage) -> Any:
    """A run was deleted, and another made under its id."""
    run = on.server.add_run("me", "demo", "r", on.log(50))
    on.server.export(run)
    on.scan(), on.sync()
    on.logged = []
    again = on.server.recreate(run, on.log(50, other=1))
    on.server.export(again)
    return on.scan(), on.sync()


@hazard
def a_run_that_was_deleted(on: Stage) -> Any:
    """What the server has no more is worth keeping."""
    run = on.server.add_run("me", "demo", "r", on.log(50))
    on.server.add_run("me", "demo", "other", some_rows(1))
    on.scan(), on.sync()
    on.server.delete(run)
    return on.scan(), on.sync()


@hazard
def a_storm_of_429(on: Stage) -> Any:
    """The first answers are refusals that do not say how long to wait; Api(timeout=10), as people set it."""
    on.server.add_run("me", "demo", "r", on.log(30), state="running")
    on.server.fail("*", status=429, times=6)
    theirs = on.scan(api="timeout=10")
    on.server.calm()
    on.server.fail("*", status=429, times=6)
    return theirs, on.sync()


@hazard
def an_export_cut_short(on: Stage) -> Any:
    """A proxy lets the first bytes of a file through, once."""
    run = on.server.add_run("me", "demo", "r", on.log(500))
    on.server.export(run)
    on.server.fail("export", truncate=700)
    theirs = on.scan()
    on.server.fail("export", truncate=700)
    return theirs, on.sync()


@hazard
def an_empty_file_in_the_cache_of_the_SDK(on: Stage) -> Any:  # noqa: N802
    """A process that was killed in the middle of a download leaves one behind."""
    run = on.server.add_run("me", "demo", "r", on.log(50))
    on.server.export(run)
    on.scan()
    for path in on.room.rglob("*.parquet"):
        path.write_bytes(b"")
    return on.scan(), on.sync()


@hazard
def an_address_that_has_expired(on: Stage) -> Any:
    """The signed address of an export holds for a while only."""
    run = on.server.add_run("me", "demo", "r", on.log(50))
    on.server.export(run)
    on.server.fail("export", status=403)
    theirs = on.scan()
    on.server.calm()
    on.server.fail("export", status=403)
    return theirs, on.sync()


@hazard
def a_page_with_nothing_on_it(on: Stage) -> Any:
    """A listing may begin with empty pages, of runs that are hidden. (Runs in place of rows, in pages of two.)"""
    names = [f"run{i}" for i in range(7)]
    on.logged = [{"_step": i, "run": name} for i, name in enumerate(names)]
    for i, name in enumerate(names):
        made = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(days=i)
        on.server.add_run("me", "demo", name, some_rows(1), created_at=made)
    on.server.root.hidden_pages = 8
    theirs = on.ask("[run.id for run in api.runs('me/demo', per_page=2, order='+created_at')]")
    client.RUNS_A_PAGE = 2
    on.sync()
    ours = [run["id"] for run in reversed(query.list_runs(on.mirror.cache, ("me", "demo")))]
    return tuple(
        found if isinstance(found, str) else [{"_step": i, "run": name} for i, name in enumerate(found)]
        for found in (theirs, ours)
    )


# -- logs


def log_hazards(room: Path) -> Iterable[Found]:
    count = 900
    records = [*local_runs.header("r"), *local_runs.rows(range(count), pad="x" * 40), local_runs.end()]
    whole = logwriter.log(records)
    yield _read_log(room, "a log that is whole", whole, count, "")
    yield _read_log(room, "a log torn in the middle of a row", whole[:-100], None, "the rows before the tear")
    bad = bytearray(whole)
    bad[40_000] ^= 0xFF
    yield _read_log(room, "a log with a damaged byte", bytes(bad), None, "all but the damaged block")
    yield _read_log(room, "a log of an SDK that counted blocks wrongly", logwriter.log(records, base=7), count, "")


def _read_log(room: Path, name: str, content: bytes, rows: int | None, note: str) -> Found:
    place = room / name.replace(" ", "-")
    path = local_runs.put(place, "r", [])
    path.write_bytes(content)
    leet = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    theirs = sum('"type":"history"' in line for line in leet.stdout.splitlines())
    with Cache(place / "cache") as cache:
        sync_local(cache, [place])
        ours = cache.stream_rows(local_runs.ref("r"))[0].get("history", 0)
    wanted = max(ours, theirs) if rows is None else rows
    text = f"{wanted} rows" if rows is not None else f"at least {wanted} rows"
    return Found(name, text, Outcome(theirs >= wanted, f"{theirs} rows"), Outcome(ours >= wanted, f"{ours} rows"), note)


def play(names: Iterable[str]) -> Iterable[Found]:
    for name in names:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as room, Server() as server:
            on = Stage(server, Path(room))
            theirs, ours = HAZARDS[name](on)
            words = "NaN" in name
            found = outcome(theirs, on.logged, words=words), outcome(ours, on.logged)
            on.mirror.close()
            yield Found(name, f"{len(on.logged)} rows", *found, on.note)


def every() -> Iterator[Found]:
    """All of them, one after the other; a minute."""
    yield from play(HAZARDS)
    with tempfile.TemporaryDirectory() as room:
        yield from log_hazards(Path(room))


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("names", nargs="*", help="some hazards; default: all")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    began = time.monotonic()
    found = []
    for one in play(chosen.names) if chosen.names else every():
        found.append(one)
        if not chosen.json:
            print(line(one), flush=True)
    wrong = [one.name for one in found if not one.ours.right]
    if chosen.json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        theirs = sum(not one.sdk.right for one in found)
        print(f"\n{len(found)} hazards in {time.monotonic() - began:.0f} s: the SDK is wrong in {theirs}, ", end="")
        print(f"wandbsync in {len(wrong)}{': ' + ', '.join(wrong) if wrong else ''}")
    return 1 if wrong else 0


def mark(outcome: Outcome) -> str:
    return f"{'right' if outcome.right else 'WRONG'}: {outcome.text}"


def line(one: Found) -> str:
    note = f"  ({one.note})" if one.note else ""
    return f"{one.name:<44} logged {one.logged:<18} SDK {mark(one.sdk):<64} wandbsync {mark(one.ours)}{note}"


if __name__ == "__main__":
    sys.exit(main())
