"""Flipped bits: one bit of one file of a cache, and whether any answer is wrong then. Each is undone before the next.

python tests/flips.py N SEED     flips N bits of a cache made for that, and prints what came of it as a table
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
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


def flips(folder: Path, count: int, seed: int) -> dict[str, Counter[str]]:
    """Flip `count` bits, one at a time: kind of file -> how often it was told, harmless, or wrong.

    What a wrong answer was, is printed.
    """
    truth = answers(folder)
    assert None not in truth.values()
    chance = random.Random(seed)
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    kinds: dict[str, list[Path]] = {}
    for path, data in whole.items():
        if data and path.suffix in (".parquet", ".sqlite", ".duckdb"):
            kinds.setdefault(path.suffix[1:], []).append(path)
    done: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    for _ in range(count):
        kind = chance.choice(sorted(kinds))
        path = chance.choice(sorted(kinds[kind]))
        bit = chance.randrange(8 * len(whole[path]))
        damaged = bytearray(whole[path])
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found = answers(folder)
        wrong = [name for name, answer in found.items() if answer is not None and answer != truth[name]]
        outcome = "wrong" if wrong else "told" if None in found.values() else "harmless"
        done[kind][outcome] += 1
        if wrong:
            print(f"wrong: {path.name} bit {bit}: {wrong}", flush=True)
        for extra in [one for one in folder.rglob("*") if one.is_file() and one not in whole]:
            extra.unlink()
        for one, data in whole.items():
            if not one.exists() or one.read_bytes() != data:
                one.write_bytes(data)
    return done


def main(count: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as room:
        make(Path(room) / "cache", Path(room) / "logs")
        for kind, outcomes in flips(Path(room) / "cache", count, seed).items():
            print(f"{kind:<10}", ", ".join(f"{name} {outcomes[name]:,}" for name in ("told", "harmless", "wrong")))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
