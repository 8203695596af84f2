"""One flipped bit of one file of a cache, and whether any answer is wrong then. Each is undone before the next."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from local_runs import end, header, put, rows

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.cache.compaction import compact
from wandbsync.cache.publish import publish
from wandbsync.errors import WandbsyncError
from wandbsync.sync import sync_local

QUESTIONS = (
    "SELECT run_id, key, count(*), sum(value), min(step), max(step) FROM history GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT * EXCLUDE (synced_at) FROM runs ORDER BY run_id",
    "SELECT * FROM metrics ORDER BY run_id, stream, key",
)
KINDS = {"segment": ".parquet", "catalog": ".sqlite", "duckdb": ".duckdb"}


def answers(folder: Path) -> dict[str, Any]:
    """What the readers say, each for itself: what it answers, or None if it refuses."""
    found: dict[str, Any] = {}

    def ask(name: str, question: Any) -> None:
        try:
            with Cache(folder) as cache:
                found[name] = json.dumps(question(cache), default=str)
        except WandbsyncError:
            found[name] = None

    def history(cache: Cache) -> Any:
        refs = sorted(cache.last_steps())
        return [[str(ref), query.history(cache, ref).to_pylist()] for ref in refs]

    for text in QUESTIONS:
        ask(text, lambda cache, text=text: query.sql(cache, text).fetchall())
    ask("history", history)
    ask("metrics", lambda cache: [query.list_metrics(cache, ref) for ref in sorted(cache.last_steps())])
    ask(
        "runs",
        lambda cache: [
            [run[k] for k in sorted(run) if k != "synced_at"] for run in query.list_runs(cache, ("me", "demo"))
        ],
    )
    ask("logs", lambda cache: sorted(map(str, cache.logs().values())))
    return found


def make(folder: Path, logs: Path) -> None:
    """A cache with segments of two levels, rows of several runs, and what is derived of them."""
    with Cache(folder) as cache:
        for name, value in (("a", 0.1), ("b", 0.25), ("c", -3.5)):
            put(logs, name, [*header(name, entity="me"), *rows(range(60), acc=value, note="a note"), end()])
            sync_local(cache, [logs])
            if name == "b":
                compact(cache, everything=True)
        publish(cache)


class Flips:
    """A cache of which one bit at a time is flipped."""

    def __init__(self, folder: Path, logs: Path, chance: random.Random) -> None:
        make(folder, logs)
        self.folder, self.chance, self.truth = folder, chance, answers(folder)
        assert None not in self.truth.values()
        self.whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.kinds = {
            kind: sorted(path for path, data in self.whole.items() if data and path.suffix == suffix)
            for kind, suffix in KINDS.items()
        }

    def flip(self, kind: str) -> str:
        """Flip a bit of a file of this kind; which."""
        path = self.chance.choice(self.kinds[kind])
        damaged, bit = bytearray(self.whole[path]), self.chance.randrange(8 * len(self.whole[path]))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        return f"{path.relative_to(self.folder)} bit {bit}"

    def outcome(self) -> str:
        """told, harmless (nobody answers anything else), or which answers are wrong."""
        found = answers(self.folder)
        wrong = [name for name, answer in found.items() if answer is not None and answer != self.truth[name]]
        return f"wrong: {wrong}" if wrong else "told" if None in found.values() else "harmless"

    def undo(self) -> None:
        """All as it was."""
        for extra in [one for one in self.folder.rglob("*") if one.is_file() and one not in self.whole]:
            extra.unlink()
        for one, data in self.whole.items():
            if not one.exists() or one.read_bytes() != data:
                one.parent.mkdir(parents=True, exist_ok=True)
                one.write_bytes(data)


def flips(folder: Path, logs: Path, count: int, seed: int) -> Counter[str]:
    """Flip `count` bits, one at a time: how often it was told, harmless, or wrong."""
    made = Flips(folder, logs, random.Random(seed))
    done: Counter[str] = Counter()
    for _ in range(count):
        what = made.flip(made.chance.choice(list(KINDS)))
        outcome = made.outcome()
        done[outcome.partition(":")[0]] += 1
        assert not outcome.startswith("wrong"), (what, outcome)
        made.undo()
    return done
