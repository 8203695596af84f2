"""`wandb.duckdb`: the cache as tables and views for any DuckDB client.

Derived and rebuildable: the catalog's tables are copied, the rows stay in their segments, which the views name. It is
published under a new file and renamed, so no DuckDB file is ever open for writing while somebody reads it.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import catalog
from .store import OLDEST_FIRST, Cache, os_errors

if TYPE_CHECKING:
    import duckdb

FILE = "wandb.duckdb"

# One line a column: name, type, meaning. The tables are made from this, and `wandbsync sql --schema` prints it.
TABLES: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "projects": (
        "one row a project",
        [
            ("entity", "VARCHAR", "user or team"),
            ("project", "VARCHAR", ""),
            ("description", "VARCHAR", ""),
            ("created_at", "TIMESTAMP", "UTC"),
            ("url", "VARCHAR", ""),
            ("source", "VARCHAR", "local or api"),
            ("runs", "BIGINT", "how many runs are in the cache"),
        ],
    ),
    "runs": (
        "one row a run",
        [
            ("entity", "VARCHAR", ""),
            ("project", "VARCHAR", ""),
            ("run_id", "VARCHAR", "unique in its project"),
            ("display_name", "VARCHAR", "the name people see"),
            ("state", "VARCHAR", "running, finished, failed, crashed, ..."),
            ("created_at", "TIMESTAMP", "UTC"),
            ("heartbeat_at", "TIMESTAMP", "UTC, last sign of life"),
            ("synced_at", "TIMESTAMP", "UTC, when the cache last agreed with the source"),
            ("runtime", "DOUBLE", "seconds"),
            ("exit_code", "INTEGER", ""),
            ("tags", "VARCHAR[]", ""),
            ("notes", "VARCHAR", ""),
            ("group", "VARCHAR", "quote it in SQL"),
            ("job_type", "VARCHAR", ""),
            ("sweep_id", "VARCHAR", ""),
            ("host", "VARCHAR", ""),
            ("url", "VARCHAR", ""),
            ("sdk_version", "VARCHAR", ""),
            ("forked_from", "VARCHAR", "run_id@step"),
            ("source", "VARCHAR", "local or api"),
            ("complete", "BOOLEAN", "every row the source had at synced_at is here"),
            ("incomplete", "VARCHAR", "why not"),
            ("rows", "BIGINT", "log calls in the history"),
            ("last_step", "BIGINT", ""),
            ("config", "JSON", "config->>'lr', config->'$.opt.name'"),
            ("summary", "JSON", "the last value of each metric"),
            ("metadata", "JSON", "program, git, python, machine"),
        ],
    ),
    "metrics": (
        "one row a run and key: statistics over the whole history",
        [
            ("entity", "VARCHAR", ""),
            ("project", "VARCHAR", ""),
            ("run_id", "VARCHAR", ""),
            ("stream", "VARCHAR", "history or system"),
            ("key", "VARCHAR", ""),
            ("type", "VARCHAR", "numeric, boolean, string, image-file, ..."),
            ("count", "BIGINT", "times it was logged"),
            ("non_null_count", "BIGINT", ""),
            ("nan_count", "BIGINT", ""),
            ("infinite_count", "BIGINT", ""),
            ("min", "DOUBLE", "of the finite numbers, as are max, mean, std"),
            ("max", "DOUBLE", ""),
            ("mean", "DOUBLE", ""),
            ("std", "DOUBLE", "sample standard deviation"),
            ("first_step", "BIGINT", ""),
            ("last_step", "BIGINT", ""),
            ("last_value", "DOUBLE", "the last that is not null"),
            ("last_json", "VARCHAR", "the same, where it is not a number"),
        ],
    ),
    "files": (
        "one row a file of a run",
        [
            ("entity", "VARCHAR", ""),
            ("project", "VARCHAR", ""),
            ("run_id", "VARCHAR", ""),
            ("name", "VARCHAR", ""),
            ("size", "BIGINT", "bytes"),
            ("updated_at", "TIMESTAMP", "UTC"),
            ("mimetype", "VARCHAR", ""),
            ("md5", "VARCHAR", "base64, as W&B has it"),
            ("local_path", "VARCHAR", "where it is on this machine"),
        ],
    ),
}
ROWS = [
    ("entity", "VARCHAR", ""),
    ("project", "VARCHAR", ""),
    ("run_id", "VARCHAR", ""),
    ("key", "VARCHAR", "the metric; nested names joined by dots"),
    ("step", "BIGINT", ""),
    ("value", "DOUBLE", "null where value_json has it"),
    ("kind", "UTINYINT", "0 float 1 int 2 bool 3 null 4 JSON 5 integer beyond 2^53"),
    ("value_json", "VARCHAR", "strings, lists, media, histograms; digits of big integers"),
]
CONSOLE_ROWS = [
    *ROWS[:3],
    ("line", "BIGINT", "from 0"),
    ("printed_to", "VARCHAR", "stdout or stderr"),
    ("time", "TIMESTAMP", "UTC"),
    ("text", "VARCHAR", ""),
]
VIEWS: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "history": ("one row a logged value, every one of them", ROWS),
    "system": ("the same for machine metrics; step counts the samples, key _timestamp has their time", ROWS),
    "console": ("one row a line the program printed", CONSOLE_ROWS),
}


def describe() -> str:
    """The tables and views, for `wandbsync sql --schema`."""
    lines = []
    for name, (title, columns) in {**TABLES, **VIEWS}.items():
        lines.append(f"{name}: {title}")
        lines += [f"    {column:<16}{kind:<12}{meaning}".rstrip() for column, kind, meaning in columns]
        lines.append("")
    return "\n".join(lines).rstrip()


def metric_type(kinds: int, last_json: str | None) -> str:
    """What people call the values of a metric: numeric, boolean, string, image-file, list, ..."""
    from ..model import Kind

    numeric = 1 << Kind.FLOAT | 1 << Kind.INT | 1 << Kind.BIGINT
    if kinds & numeric:
        return "numeric"
    if kinds & 1 << Kind.BOOL:
        return "boolean"
    if kinds & 1 << Kind.JSON and last_json:
        import json

        value = json.loads(last_json)
        if isinstance(value, dict):
            return str(value.get("_type", "object"))
        return "string" if isinstance(value, str) else "list"
    return "string" if kinds & 1 << Kind.LINE else "null"


def fill(con: duckdb.DuckDBPyConnection, cache: Cache) -> None:
    """Make the tables and views in an empty database, as the catalog stands now."""
    import pyarrow as pa

    catalog_con = cache.con
    catalog_con.execute("BEGIN")  # one view of it all
    try:
        version = catalog.commits(catalog_con)
        data: dict[str, list[tuple[Any, ...]]] = {
            "projects": catalog_con.execute(
                "SELECT entity, project, description, created_at, url, source, (SELECT count(*) FROM runs r WHERE "
                "r.entity = p.entity AND r.project = p.project AND r.deleted_at IS NULL) FROM projects p"
            ).fetchall(),
            "runs": catalog_con.execute(
                "SELECT entity, project, run_id, coalesce(display_name, run_id), state, created_at, heartbeat_at, "
                "synced_at, runtime, exit_code, tags, notes, run_group, job_type, sweep_id, host, url, sdk_version, "
                "forked_from, source, incomplete IS NULL, incomplete, rows, last_step, config, summary, metadata "
                "FROM runs LEFT JOIN checks USING (run)"
            ).fetchall(),
            "files": catalog_con.execute(
                "SELECT entity, project, run_id, name, size, updated_at, mimetype, md5, local_path FROM files "
                "JOIN runs USING (run)"
            ).fetchall(),
        }
        live = "streams s JOIN runs r ON r.run = s.run AND r.generation = s.generation"
        numbers = catalog_con.execute(f"SELECT s.stream, r.entity, r.project, r.run_id, s.name FROM {live}").fetchall()
        metrics = catalog_con.execute(
            "SELECT m.stream, m.key, m.kinds, m.last_json, m.count, m.count - m.nulls, m.nans, m.infinities, m.min, "
            "m.max, m.mean, m.m2, m.numbers, m.first_step, m.last_step, m.last_value "
            f"FROM {live} JOIN metrics m ON m.stream = s.stream WHERE s.name <> 'console'"
        ).fetchall()
        files = [
            str(cache.segment_path(row[0]))
            for row in catalog_con.execute(f"SELECT file FROM segments WHERE removed_at IS NULL ORDER BY {OLDEST_FIRST}")
        ]
    finally:
        catalog_con.execute("COMMIT")
    where = {row[0]: tuple(row)[1:] for row in numbers}
    data["metrics"] = [
        (
            *where[m[0]],
            m[1],
            metric_type(m[2], m[3]),
            *m[4:11],
            (m[11] / (m[12] - 1)) ** 0.5 if m[12] > 1 and isinstance(m[11], float) else None,
            m[13],
            m[14],
            float("nan") if m[15] == "nan" else m[15],
            m[3],
        )
        for m in metrics
    ]
    for name, (_, columns) in TABLES.items():
        _load(con, name, columns, data[name], pa)
    stream_columns = [("stream", "INTEGER", ""), *ROWS[:3], ("name", "VARCHAR", "")]
    _load(con, "_streams", stream_columns, [tuple(row) for row in numbers], pa)
    con.execute("CREATE TABLE _published (version BIGINT, folder VARCHAR, published_at DOUBLE)")
    con.execute("INSERT INTO _published VALUES (?, ?, ?)", [version, str(cache.folder.resolve()), time.time()])
    if files:
        named = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        rows = f"read_parquet([{named}])"
    else:
        rows = (
            "(SELECT 0::INTEGER AS stream, ''::VARCHAR AS key, 0::BIGINT AS step, 0::DOUBLE AS value, "
            "0::UTINYINT AS kind, ''::VARCHAR AS value_json WHERE false)"
        )
    for name in VIEWS:
        columns = (
            "h.step AS line, h.key AS printed_to, make_timestamp((h.value * 1e6)::BIGINT) AS time, h.value_json AS text"
            if name == "console"
            else "h.key, h.step, h.value, h.kind, h.value_json"
        )
        con.execute(
            f"CREATE VIEW {name} AS SELECT s.entity, s.project, s.run_id, {columns} FROM {rows} h "
            f"JOIN _streams s ON s.stream = h.stream WHERE s.name = '{name}'"
        )


def _load(
    con: duckdb.DuckDBPyConnection, name: str, columns: list[tuple[str, str, str]], rows: list[tuple[Any, ...]], pa: Any
) -> None:
    kinds = {"VARCHAR": pa.string(), "JSON": pa.string(), "VARCHAR[]": pa.string(), "DOUBLE": pa.float64()}
    kinds |= {"TIMESTAMP": pa.float64(), "BOOLEAN": pa.int64(), "BIGINT": pa.int64(), "INTEGER": pa.int64()}
    table = pa.table(
        [
            pa.array([row[i] for row in rows], kinds[kind], from_pandas=False)
            for i, (_, kind, _) in enumerate(columns)
        ],
        names=[column for column, _, _ in columns],
    )
    con.register("_incoming", table)
    casts = {
        "TIMESTAMP": "make_timestamp(({0} * 1e6)::BIGINT)",
        "VARCHAR[]": "from_json({0}, '[\"VARCHAR\"]')",
    }
    selected = ", ".join(
        casts.get(kind, "{0}::" + kind).format(f'"{column}"') + f' AS "{column}"' for column, kind, _ in columns
    )
    con.execute(f'CREATE TABLE {name} AS SELECT {selected} FROM _incoming')
    con.unregister("_incoming")


def is_current(con: duckdb.DuckDBPyConnection, cache: Cache) -> bool:
    """Whether an open `wandb.duckdb` says what the catalog says."""
    version, folder, at = con.execute("SELECT version, folder, published_at FROM _published").fetchall()[0]
    newest_check = cache.con.execute("SELECT max(synced_at) FROM checks").fetchone()[0] or 0.0
    return bool(
        version == catalog.commits(cache.con) and folder == str(cache.folder.resolve()) and newest_check <= at
    )


def publish(cache: Cache) -> Path:
    """Write `wandb.duckdb` anew and put it in place of the old one."""
    import duckdb

    path = cache.folder / FILE
    with catalog.translated(cache.folder), os_errors(cache.folder):
        (cache.folder / "tmp").mkdir(mode=0o700, exist_ok=True)
        beside = cache.folder / "tmp" / f"{secrets.token_hex(6)}.duckdb"
        try:
            with duckdb.connect(str(beside)) as con:
                fill(con, cache)
            os.chmod(beside, 0o600)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
            beside.with_suffix(".duckdb.wal").unlink(missing_ok=True)
    return path


def connect(cache: Cache) -> duckdb.DuckDBPyConnection:
    """A connection that can only read, and only this cache: tables and views as the catalog stands now."""
    import duckdb

    path = cache.folder / FILE
    con = None
    if path.exists():
        try:
            con = duckdb.connect(str(path), read_only=True)
            if not is_current(con, cache):
                con.close()
                con = None
        except duckdb.Error:  # of another DuckDB version, or damaged: it is derived, make it anew
            con = None
    if con is None:
        if os.access(cache.folder, os.W_OK):
            con = duckdb.connect(str(publish(cache)), read_only=True)
        else:
            con = duckdb.connect()
            fill(con, cache)
    folder = str((cache.folder / "history").resolve()).replace("'", "''")
    con.execute(f"SET allowed_directories = ['{folder}/']")
    con.execute("SET enable_external_access = false")
    con.execute("SET autoinstall_known_extensions = false")
    con.execute("SET autoload_known_extensions = false")
    con.execute("SET lock_configuration = true")
    return con
