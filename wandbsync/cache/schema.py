"""The schema of the catalog: version 1, and what each later version changes.

A new catalog goes through all of them, so it is what an old one becomes. What is written here stays as it is for ever:
a change to the schema is one more step.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from typing import Any

SCHEMA = """
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('commits', 0), ('checks', 0), ('numbers', 0);

CREATE TABLE projects (
  entity TEXT NOT NULL, project TEXT NOT NULL, description TEXT, created_at REAL, url TEXT, source TEXT,
  PRIMARY KEY (entity, project)
) WITHOUT ROWID;

CREATE TABLE runs (
  run INTEGER PRIMARY KEY, entity TEXT NOT NULL, project TEXT NOT NULL, run_id TEXT NOT NULL,
  display_name TEXT, state TEXT NOT NULL, created_at REAL, heartbeat_at REAL, runtime REAL, exit_code INTEGER,
  tags TEXT NOT NULL DEFAULT '[]', notes TEXT, run_group TEXT, job_type TEXT, sweep_id TEXT, host TEXT, url TEXT,
  sdk_version TEXT, forked_from TEXT, source TEXT NOT NULL, incomplete TEXT,
  rows INTEGER NOT NULL DEFAULT 0, last_step INTEGER,
  generation INTEGER NOT NULL, revision INTEGER NOT NULL, deleted_at REAL,
  config TEXT NOT NULL DEFAULT '{}', summary TEXT NOT NULL DEFAULT '{}', metadata TEXT NOT NULL DEFAULT '{}',
  UNIQUE (entity, project, run_id)
);
CREATE INDEX runs_by_age ON runs (entity, project, created_at DESC);
CREATE INDEX runs_by_revision ON runs (revision, generation, entity, project, run_id);
-- Apart from `runs`, so that a sync that finds nothing new touches little.
CREATE TABLE checks (run INTEGER PRIMARY KEY, synced_at REAL NOT NULL);

CREATE TABLE streams (
  stream INTEGER PRIMARY KEY, run INTEGER NOT NULL, generation INTEGER NOT NULL, name TEXT NOT NULL,
  rows INTEGER NOT NULL, count INTEGER NOT NULL, UNIQUE (run, generation, name)
);
CREATE TABLE segments (
  segment INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, level INTEGER NOT NULL, count INTEGER NOT NULL,
  bytes INTEGER NOT NULL, digest TEXT NOT NULL, created_at REAL NOT NULL, removed_at REAL
);
CREATE TABLE segment_streams (
  stream INTEGER NOT NULL, segment INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (stream, segment)
) WITHOUT ROWID;
CREATE INDEX streams_by_segment ON segment_streams (segment);

CREATE TABLE metrics (
  stream INTEGER NOT NULL, key TEXT NOT NULL, path TEXT, kinds INTEGER NOT NULL, count INTEGER NOT NULL,
  nulls INTEGER NOT NULL, nans INTEGER NOT NULL, infinities INTEGER NOT NULL, numbers INTEGER NOT NULL,
  min REAL, max REAL, mean REAL, rest REAL, deviation REAL, first_step INTEGER, last_step INTEGER,
  first_value REAL, first_kind INTEGER, first_json TEXT, last_value REAL, last_kind INTEGER, last_json TEXT,
  PRIMARY KEY (stream, key)
) WITHOUT ROWID;

CREATE TABLE files (
  run INTEGER NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, updated_at REAL, mimetype TEXT, md5 TEXT,
  local_path TEXT, PRIMARY KEY (run, name)
) WITHOUT ROWID;

-- Where each `.wandb` log has been read to; `state` is the local source's own.
CREATE TABLE logs (
  path TEXT PRIMARY KEY, run INTEGER, log_key TEXT NOT NULL, signature TEXT NOT NULL, position TEXT NOT NULL,
  started_at REAL, rewinds_to INTEGER, status TEXT NOT NULL, state TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX logs_by_run ON logs (run);
-- How far each run has been mirrored from a server: what was listed when it was last described, and when its rows were
-- fetched; `state` is the server source's own.
CREATE TABLE mirrors (
  run INTEGER PRIMARY KEY, described TEXT, fetched TEXT, state TEXT NOT NULL, failures INTEGER NOT NULL, retry_at REAL,
  reason TEXT, tried TEXT, owed INTEGER NOT NULL
);
-- What could not be read, and why; gone as soon as it can.
CREATE TABLE problems (
  subject TEXT PRIMARY KEY, reason TEXT NOT NULL, signature TEXT, first_at REAL NOT NULL, last_at REAL NOT NULL,
  attempts INTEGER NOT NULL
) WITHOUT ROWID;
-- The places that were synced: a folder, a project on a server ...
CREATE TABLE sources (kind TEXT NOT NULL, location TEXT NOT NULL, synced_at REAL NOT NULL, PRIMARY KEY (kind, location))
  WITHOUT ROWID;
"""

# The version that a step makes, of the one before -> its statements.
STEPS = {
    2: """
-- Runs whose rows were removed to save space: those of this generation. What else is known of them stays.
CREATE TABLE evictions (run INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
-- When somebody last asked for a run's rows, to within an hour, and when the last of them came.
CREATE TABLE uses (run INTEGER PRIMARY KEY, asked_at REAL, came_at REAL);
""",
    3: """
-- Whose a run is, and when its server last changed it; what else a server says of a project; its sweeps.
ALTER TABLE runs ADD COLUMN username TEXT;
ALTER TABLE runs ADD COLUMN user_name TEXT;
ALTER TABLE runs ADD COLUMN updated_at REAL;
ALTER TABLE projects ADD COLUMN updated_at REAL;
ALTER TABLE projects ADD COLUMN total_runs INTEGER;
CREATE TABLE sweeps (
  entity TEXT NOT NULL, project TEXT NOT NULL, sweep_id TEXT NOT NULL, display_name TEXT, state TEXT, method TEXT,
  description TEXT, metric TEXT, goal TEXT, best_value REAL, runs_expected INTEGER, created_at REAL, updated_at REAL,
  config TEXT NOT NULL DEFAULT '{}', PRIMARY KEY (entity, project, sweep_id)
) WITHOUT ROWID;
-- Runs of whose small files some are still to come: not before when (unix seconds), and how often that has failed.
CREATE TABLE owed_files (run INTEGER PRIMARY KEY, retry_at REAL NOT NULL, failures INTEGER NOT NULL);
-- What the file system said of a segment when it was written or checked last (cache/stamps.py), and when that was.
ALTER TABLE segments ADD COLUMN stamp TEXT;
ALTER TABLE segments ADD COLUMN checked_at REAL;
-- Runs that lost rows with a damaged segment: those of this generation. With a reason, no source has them any more.
CREATE TABLE losses (run INTEGER PRIMARY KEY, generation INTEGER NOT NULL, reason TEXT);
""",
}
VERSION = max(STEPS)  # PRAGMA user_version

# Every value stands twice, in its table and in an index that nobody asks: where a bit flipped in either, `PRAGMA
# integrity_check` finds that they differ. Of these long texts the index has a checksum.
LONG = {
    "runs": ("tags", "notes", "config", "summary", "metadata"),
    "metrics": ("first_json", "last_json"),
    "logs": ("state",),
    "mirrors": ("state", "described", "fetched", "tried"),
    "problems": ("reason",),
    "sweeps": ("description", "config"),
}
SINGLE = ("uses",)  # whose loss changes no answer


def statements(version: int) -> list[str]:
    """What makes a catalog of this version of one of the version before; of version 1, of nothing."""
    text = SCHEMA if version == 1 else STEPS[version]
    return [statement for statement in text.split(";\n") if statement.strip()]


def twice(con: sqlite3.Connection) -> Iterator[str]:
    """What makes the indexes of every value anew; they belong to every version from 3 on."""
    tables = con.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
    for (table,) in tables:
        if table in SINGLE:
            continue
        names = [row[1] for row in con.execute(f"PRAGMA table_info({table})")]
        short = [name for name in names if name not in LONG.get(table, ())]
        if table in LONG:
            long = ", ".join(LONG[table])
            short.append(f"CASE WHEN coalesce({long}, NULL) IS NOT NULL THEN row_sum({long}) END")
        yield f"DROP INDEX IF EXISTS {table}_twice"
        yield f"CREATE INDEX {table}_twice ON {table} ({', '.join(short)})"


def row_sum(*values: object) -> int:
    """The checksum of texts."""
    return zlib.crc32("\x1f".join(map(str, values)).encode("utf-8", "surrogatepass"))


def part_of(state: str, name: str) -> Any:
    """A part of a log's state: a number or a text as it is, anything else as JSON.

    A value that the run logged may be NaN in there, which is no JSON to SQLite before 3.42.
    """
    part = json.loads(state).get(name)
    return part if part is None or isinstance(part, (int, float, str)) else json.dumps(part)


def register(con: sqlite3.Connection) -> None:
    """Without this a connection can read a catalog, but neither write to it nor examine it."""
    con.create_function("row_sum", -1, row_sum, deterministic=True)
    con.create_function("part_of", 2, part_of, deterministic=True)


def shape(con: sqlite3.Connection) -> list[tuple[str, ...]]:
    """The tables and indexes of a catalog, and how they were made."""
    return sorted(map(tuple, con.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema")))
