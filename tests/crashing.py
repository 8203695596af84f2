"""A writer that dies before its n-th call to the disk or the catalog, for every n: run by test_cache.py.

    python crashing.py FOLDER FIRST LAST     makes FOLDER/n for n in FIRST..LAST, until a writer lives to the end

FOLDER/n/done has a byte for each step that was reported as done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from deaths import before, death, die_at_each
from rows import Row, number, share

from wandbsync.cache import Cache, compaction
from wandbsync.model import RunRef

A, B = RunRef("e", "p", "a"), RunRef("e", "p", "b")
Rows = dict[RunRef, list[Row]]


def batch(k: int) -> list[Row]:
    return [number(key, k * 2 + i, k + i / 8) for i in range(2) for key in ("loss", "acc")] + [number("x", 1, k)]


def steps() -> Iterator[tuple[Callable[[Cache], object], Callable[[Rows], Rows]]]:
    """What the writer does, each step with what it makes of the rows."""

    def add(k: int) -> tuple[Callable[[Cache], object], Callable[[Rows], Rows]]:
        def do(cache: Cache) -> None:
            landed = cache.commit([share(ref, cache.revision(ref), batch(k)) for ref in (A, B)])
            assert None not in landed

        return do, lambda rows: {ref: [*rows.get(ref, []), *batch(k)] for ref in (A, B)}

    def replace(cache: Cache) -> None:
        new, old = cache.new_generation(), cache.revision(A)
        assert cache.commit([share(A, old, batch(7), generation=new, publish=False)]) == [old]
        assert cache.commit([share(A, old, batch(8), generation=new)]) != [None]

    same: Callable[[Rows], Rows] = dict
    yield add(0)
    yield add(1)
    yield (lambda cache: compaction.compact(cache)), same
    yield (lambda cache: compaction.gc(cache, grace=0)), same
    yield add(2)
    yield replace, lambda rows: {**rows, A: [*batch(7), *batch(8)]}
    yield (lambda cache: cache.cut(B, 3)), lambda rows: {**rows, B: [row for row in rows[B] if row[1] <= 3]}
    yield add(3)
    yield (lambda cache: compaction.compact(cache, everything=True)), same
    yield (lambda cache: compaction.gc(cache, grace=0)), same
    yield (lambda cache: cache.rename(B, RunRef("e", "q", "b"))), same


def states() -> list[Rows]:
    """The rows before the first step, and after each."""
    rows: list[Rows] = [{}]
    for _, then in steps():
        rows.append(then(rows[-1]))
    return rows


def write(folder: Path, dies_at: int) -> None:
    step = death(dies_at)
    os.fsync = before(os.fsync, step)
    for name in ("rename", "unlink"):
        setattr(Path, name, before(getattr(Path, name), step))
    compaction.FAN_IN = {0: 2, 1: 2, 2: 2}
    done = os.open(folder / "done", os.O_CREAT | os.O_WRONLY)
    with Cache(folder / "cache") as cache:
        # A death before any other statement of a transaction is one before its COMMIT.
        cache.con.set_trace_callback(lambda sql: step() if sql.startswith(("BEGIN", "COMMIT", "PRAGMA")) else None)
        for do, _ in steps():
            do(cache)
            os.write(done, b".")


def main(folder: Path, first: int, last: int) -> None:
    def live(n: int) -> None:
        (folder / str(n)).mkdir(parents=True)
        write(folder / str(n), n)

    die_at_each(range(first, last), live)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
