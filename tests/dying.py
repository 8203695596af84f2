"""A process that dies before its n-th call to the disk or the catalog, for every n, at work on a copy of a cache.

python dying.py CACHE ACTION FOLDER     makes FOLDER/n, a copy of CACHE, for n = 1, 2 ... until ACTION is carried out
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import sys
from pathlib import Path

from deaths import before, death, die_at_each

from wandbsync.cache import Cache, compaction
from wandbsync.cache.retention import Limits
from wandbsync.cache.upkeep import sweep


def upgrade(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.last_steps()


def make_room(folder: Path) -> None:
    """Down to nothing, whatever can be fetched again; what that replaces goes at once."""
    compaction.GRACE = 0.0
    with Cache(folder) as cache:
        sweep(cache, Limits(int(os.environ["MAX_SIZE"])))


def die_at(dies_at: int) -> None:
    step = death(dies_at)
    os.fsync = before(os.fsync, step)
    for name in ("rename", "unlink", "replace"):
        setattr(Path, name, before(getattr(Path, name), step))

    class Dying(sqlite3.Connection):
        """A death before any other statement of a transaction is one before its COMMIT."""

        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more)  # type: ignore[arg-type]
            words = ("BEGIN IMMEDIATE", "COMMIT", "CREATE", "PRAGMA user_version =")
            self.set_trace_callback(lambda sql: step() if sql.startswith(words) else None)

    plain = sqlite3.connect
    sqlite3.connect = lambda *args, **more: plain(*args, **({"factory": Dying} | more))  # type: ignore[assignment]


def main(cache: Path, action: str, folder: Path) -> None:
    def live(n: int) -> None:
        shutil.copytree(cache, folder / str(n))
        die_at(n)
        globals()[action](folder / str(n))

    die_at_each(itertools.count(1), live)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
