"""An older catalog is brought up to date when it is opened, one version after the other, each all or nothing.

    take the writer's lock -> is it still of that version? -> keep a copy -> the step's statements and number -> COMMIT

Whoever reads meanwhile sees the old schema or the new one. A crash leaves a whole version, and the next to open the
catalog goes on. The copy, `catalog.sqlite.v1`, is the way back to the old program; gc removes it after a week.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from .. import files
from . import schema
from .frozen import Frozen

KEPT = 7 * 86_400.0  # seconds


def version_of(con: sqlite3.Connection) -> int:
    """The schema's version; 0 if there is none yet."""
    return int(con.execute("PRAGMA user_version").fetchone()[0])


def upgrade(con: sqlite3.Connection, path: Path) -> None:
    """Bring an open catalog up to the present version, from none too. Raises sqlite3.Error; then it is as it was.

    Of one that can only be read, the copy in memory is.
    """
    if isinstance(con, Frozen):
        con.execute("PRAGMA query_only = 0")
    kept = isinstance(con, Frozen)
    while (before := version_of(con)) < schema.VERSION:
        con.execute("BEGIN IMMEDIATE")
        with con:
            if version_of(con) != before:
                continue  # another process was first
            if before and not kept:
                _keep(path, before)
                kept = True
            # What never was of an older version need not become one in between.
            for version in range(before + 1, before + 2 if before else schema.VERSION + 1):
                for statement in schema.statements(version):
                    con.execute(statement)
                if version == schema.VERSION:
                    schema.register(con)
                    for statement in list(schema.twice(con)):
                        con.execute(statement)
                con.execute(f"PRAGMA user_version = {version}")
    if isinstance(con, Frozen):
        con.execute("PRAGMA query_only = 1")


def _keep(path: Path, version: int) -> None:
    """Copy the catalog as it stands, durably, before anything in it is changed."""
    copy = path.with_name(f"{path.name}.v{version}")
    try:
        with (
            files.replacing(copy, private=True, durable=True) as beside,
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(beside)) as to,
        ):
            source.backup(to)
    except OSError as error:
        raise sqlite3.OperationalError(f"unable to open database file: {error}") from error


def copies(folder: Path) -> Iterator[Path]:
    """The copies of older versions that are in a cache folder."""
    for path in folder.glob("catalog.sqlite.v*"):
        if re.fullmatch(r"catalog\.sqlite\.v\d+", path.name):
            yield path
