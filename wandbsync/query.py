"""The read side: projects, runs, metrics, files, histories and SQL, from the cache alone.

Lists are answered from the catalog, without importing Arrow or DuckDB. Nothing here can reach the network.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .cache import Cache, catalog
from .cache.layout import metric_type
from .cache.metrics import stream_stats
from .cache.stats import Stat, measure
from .errors import CacheError, NotFound, UsageError
from .model import HISTORY, SYSTEM, Kind, RunRef, logged

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


def timestamp(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _near(wanted: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(wanted, names, n=5, cutoff=0.4)
    near += [name for name in names if wanted.lower() in name.lower() and name not in near][: 5 - len(near)]
    if near:
        return "did you mean " + " or ".join(near) + "?"
    if not names:
        return "nothing is cached yet: try `wandbsync sync --local DIR`"
    return "there is " + ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# -- names


def find_project(cache: Cache, spec: str, *, default_entity: str | None = None) -> tuple[str, str]:
    """`entity/project`, or `project` alone, as (entity, project). Raises NotFound with near matches."""
    parts = [part.strip() for part in spec.strip().strip("/").split("/")]
    if len(parts) > 2 or not all(parts):
        raise UsageError(f"{spec!r} is not a project", hint="write entity/project, or project alone")
    with catalog.translated(cache.folder):
        known = [(row[0], row[1]) for row in cache.con.execute("SELECT entity, project FROM projects ORDER BY 1, 2")]
    if len(parts) == 2:
        if (parts[0], parts[1]) in known:
            return parts[0], parts[1]
    else:
        matches = [one for one in known if one[1] == parts[0]]
        if len(matches) > 1 and (default_entity, parts[0]) in matches:
            return str(default_entity), parts[0]
        if len(matches) > 1:
            names = " and ".join("/".join(one) for one in matches)
            raise UsageError(f"the project {parts[0]} exists more than once", hint=f"choose one of {names}")
        if matches:
            return matches[0]
    raise NotFound(f"no project {'/'.join(parts)} in the cache", hint=_near("/".join(parts), map("/".join, known)))


def find_run(cache: Cache, project: tuple[str, str], name: str) -> RunRef:
    """A run of a project by its run_id, or else by its display name. Raises NotFound with near matches."""
    name = name.strip()
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT run_id, display_name FROM runs WHERE entity = ? AND project = ? ORDER BY created_at DESC", project
        ).fetchall()
    if any(row[0] == name for row in rows):
        return RunRef(*project, name)
    named = [row[0] for row in rows if row[1] == name]
    if len(named) > 1:
        raise UsageError(f"{len(named)} runs are named {name}", hint=f"use a run id: {', '.join(named[:8])}")
    if named:
        return RunRef(*project, named[0])
    known = [text for row in rows for text in dict.fromkeys(row) if text]
    raise NotFound(f"no run {name} in {'/'.join(project)}", hint=_near(name, known))


# -- lists


def list_projects(cache: Cache, *, entity: str | None = None, limit: int | None = 100) -> list[dict[str, Any]]:
    """The projects in the cache, by name."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT p.*, count(r.run) AS runs, max(c.synced_at) AS synced_at, min(r.incomplete IS NULL) AS complete "
            "FROM projects p LEFT JOIN runs r ON r.entity = p.entity AND r.project = p.project "
            "LEFT JOIN checks c ON c.run = r.run WHERE ?1 IS NULL OR p.entity = ?1 "
            "GROUP BY p.entity, p.project ORDER BY p.entity, p.project LIMIT ?2",
            (entity, -1 if limit is None else limit),
        ).fetchall()
    return [
        {
            "name": row["project"],
            "entity": row["entity"],
            "description": row["description"],
            "created_at": timestamp(row["created_at"]),
            "url": row["url"],
            "runs": row["runs"],
            "source": row["source"],
            "synced_at": timestamp(row["synced_at"]),
            "complete": bool(row["complete"]),
        }
        for row in rows
    ]


def list_runs(
    cache: Cache, project: tuple[str, str], *, state: str | None = None, limit: int | None = 100
) -> list[dict[str, Any]]:
    """The runs of a project, newest first; `limit` None for all."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT * FROM runs LEFT JOIN checks USING (run) WHERE entity = ?1 AND project = ?2 "
            "AND (?3 IS NULL OR state = ?3) ORDER BY created_at DESC, run DESC LIMIT ?4",
            (*project, state, -1 if limit is None else limit),
        ).fetchall()
    return [_run(row) for row in rows]


def count_runs(cache: Cache, project: tuple[str, str], *, state: str | None = None) -> int:
    """How many runs `list_runs` would list without a limit."""
    with catalog.translated(cache.folder):
        row = cache.con.execute(
            "SELECT count(*) FROM runs WHERE entity = ?1 AND project = ?2 AND (?3 IS NULL OR state = ?3)",
            (*project, state),
        ).fetchone()
    return int(row[0])


def get_run(cache: Cache, ref: RunRef) -> dict[str, Any]:
    """One run as `list_runs` lists it, and its config."""
    with catalog.translated(cache.folder):
        row = cache.con.execute(
            "SELECT * FROM runs LEFT JOIN checks USING (run) WHERE entity = ? AND project = ? AND run_id = ?",
            (ref.entity, ref.project, ref.run_id),
        ).fetchone()
    if row is None:
        raise NotFound(f"no run {ref} in the cache")
    return {**_run(row), "config": json.loads(row["config"]), "metadata": json.loads(row["metadata"])}


def _run(row: Any) -> dict[str, Any]:
    return {
        "id": row["run_id"],
        "name": row["display_name"] or row["run_id"],
        "entity": row["entity"],
        "project": row["project"],
        "state": row["state"],
        "created_at": timestamp(row["created_at"]),
        "heartbeat_at": timestamp(row["heartbeat_at"]),
        "runtime": row["runtime"],
        "exit_code": row["exit_code"],
        "tags": json.loads(row["tags"]),
        "notes": row["notes"],
        "group": row["run_group"],
        "job_type": row["job_type"],
        "sweep_id": row["sweep_id"],
        "host": row["host"],
        "forked_from": row["forked_from"],
        "url": row["url"],
        "rows": row["rows"],
        "last_step": row["last_step"],
        "summary_metrics": json.loads(row["summary"]),
        "source": row["source"],
        "synced_at": timestamp(row["synced_at"]),
        "complete": row["incomplete"] is None,
        "incomplete": row["incomplete"],
    }


def list_metrics(cache: Cache, ref: RunRef, *, include_system: bool = False) -> dict[str, dict[str, Any]]:
    """What is known of each metric of a run, over its whole history. Keys as in `generate-plots --metrics`.

    Without `include_system` what begins with `_`, `system/` or `system.` is left out.
    """
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        run = get_run(cache, ref)
        streams = _streams(cache, ref)
        known = {name: stream_stats(cache.con, streams.get(name)) for name in (HISTORY, SYSTEM)}
    freshness = {name: run[name] for name in ("source", "synced_at", "complete")}
    result: dict[str, dict[str, Any]] = {}
    for name in (HISTORY, SYSTEM) if include_system else (HISTORY,):
        for key, stat in known[name].items():
            if include_system or not is_system(key):
                result.setdefault(key, _metric(stat) | freshness)
    if include_system and run["rows"]:
        result["_step"] = _metric(_step_stat(cache, ref)) | freshness
    return dict(sorted(result.items()))


def _metric(stat: Stat) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": metric_type(stat.kinds, stat.last_json),
        "count": stat.count,
        "non_null_count": stat.non_null,
    }
    if entry["type"] == "numeric":
        entry |= {"min": stat.min, "max": stat.max, "mean": stat.mean, "std": stat.std}
        entry |= {"nan_count": stat.nans, "infinite_count": stat.infinities}
    last = None if stat.last_kind is None else logged(stat.last_kind, stat.last_value, stat.last_json)
    return entry | {"last": last, "first_step": stat.first_step, "last_step": stat.last_step}


def _step_stat(cache: Cache, ref: RunRef) -> Stat:
    """The step is the rows' own column; seen as a metric it has one value a row."""
    import numpy as np

    step, value = _all_steps(cache, ref)
    return next(measure(np.zeros(1, np.int64), step, value, np.full(len(step), Kind.INT, np.uint8), None))


def list_files(cache: Cache, ref: RunRef) -> list[dict[str, Any]]:
    """The files of a run, by name."""
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        run = get_run(cache, ref)
        rows = cache.con.execute(
            "SELECT f.* FROM files f JOIN runs r ON r.run = f.run WHERE r.entity = ? AND r.project = ? "
            "AND r.run_id = ? ORDER BY f.name",
            (ref.entity, ref.project, ref.run_id),
        ).fetchall()
    return [
        {
            "name": row["name"],
            "size": row["size"],
            "mimetype": row["mimetype"],
            "updated_at": timestamp(row["updated_at"]),
            "md5": row["md5"],
            "local_path": row["local_path"],
            **{name: run[name] for name in ("source", "synced_at", "complete")},
        }
        for row in rows
    ]


# -- rows


def _streams(cache: Cache, ref: RunRef) -> dict[str, int]:
    rows = cache.con.execute(
        "SELECT s.name, s.stream FROM runs r JOIN streams s ON s.run = r.run AND s.generation = r.generation "
        "WHERE r.entity = ? AND r.project = ? AND r.run_id = ?",
        (ref.entity, ref.project, ref.run_id),
    )
    return {row[0]: row[1] for row in rows}


def _tables(
    cache: Cache, ref: RunRef, stream: str, keys: Sequence[str] | None, columns: Sequence[str]
) -> list[pa.Table]:
    """The rows of a run's stream, segment by segment, oldest first. Raises CacheError if one cannot be read."""
    from .cache import segments

    for attempt in range(5):
        with catalog.translated(cache.folder), catalog.snapshot(cache.con):
            number = _streams(cache, ref).get(stream)
            paths = cache.segments_of(number)
        try:
            return [
                table
                for path in paths
                for table in segments.read(
                    path, columns=columns, keys=keys, streams=None if number is None else [number]
                )
            ]
        except FileNotFoundError as error:  # compacted and swept since they were listed: list again
            if attempt == 4:
                raise CacheError(
                    f"a segment of {ref} is gone: {error}", hint="`wandbsync cache verify` tells more"
                ) from error
    raise AssertionError


def history(cache: Cache, ref: RunRef, keys: Sequence[str] | None = None, *, stream: str = HISTORY) -> pa.Table:
    """Every row of a run: key, step, value, kind, value_json; sorted by key and step. `keys` None for all.

    Rows of one step are in the order they were logged. Raises CacheError if they cannot be read.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = pa.schema(
        [
            ("key", pa.string()),
            ("step", pa.int64()),
            ("value", pa.float64()),
            ("kind", pa.uint8()),
            ("value_json", pa.large_string()),
        ]
    )
    tables = [table.cast(schema) for table in _tables(cache, ref, stream, keys, schema.names)]
    if not tables:
        return schema.empty_table()
    table = pa.concat_tables(tables)
    if len(tables) > 1:
        names = pa.array(sorted(table.column("key").unique().to_pylist()), pa.string())
        rank = pc.index_in(table.column("key"), names).to_numpy()
        table = table.take(pa.array(np.lexsort((table.column("step").to_numpy(), rank))))
    return table


def series(cache: Cache, ref: RunRef, key: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The numbers of one metric: steps and values, ascending by step; None and text are left out.

    Integers beyond 2**53 come as the nearest float64.
    """
    import numpy as np

    stream = HISTORY
    if key == "_step":
        return _all_steps(cache, ref)
    with catalog.translated(cache.folder):
        streams = _streams(cache, ref)
        if key.startswith("system.") and not _has(cache, streams.get(HISTORY), key):
            stream = SYSTEM
    tables = list(_tables(cache, ref, stream, [key], ["step", "value", "kind"]))
    if not tables:
        return np.empty(0, np.int64), np.empty(0)
    step = np.concatenate([t.column("step").to_numpy() for t in tables])
    value = np.concatenate([t.column("value").to_numpy() for t in tables])
    kind = np.concatenate([t.column("kind").to_numpy() for t in tables])
    plain = (kind != Kind.NULL) & (kind != Kind.JSON) & (kind != Kind.LINE)
    if not plain.all():
        step, value = step[plain], value[plain]
    if len(step) > 1 and (np.diff(step) < 0).any():
        order = np.argsort(step, kind="stable")
        step, value = step[order], value[order]
    return step, value


def _has(cache: Cache, stream: int | None, key: str) -> bool:
    found = cache.con.execute("SELECT 1 FROM metrics WHERE stream = ? AND key = ?", (stream, key)).fetchone()
    return found is not None


def _all_steps(cache: Cache, ref: RunRef) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The steps of all rows; taken from a metric that is in each of them, as _timestamp is, if there is one."""
    import numpy as np

    with catalog.translated(cache.folder):
        found = cache.con.execute(
            "SELECT m.key FROM runs r JOIN streams s ON s.run = r.run AND s.generation = r.generation JOIN metrics m "
            "ON m.stream = s.stream WHERE r.entity = ? AND r.project = ? AND r.run_id = ? AND s.name = ? "
            "AND m.count = s.rows LIMIT 1",
            (ref.entity, ref.project, ref.run_id, HISTORY),
        ).fetchone()
    tables = _tables(cache, ref, HISTORY, [found[0]] if found else None, ["step"])
    steps = [table.column("step").to_numpy() for table in tables]
    step = np.unique(np.concatenate(steps)) if steps else np.empty(0, np.int64)
    return step, step.astype(np.float64)


def metric_types(cache: Cache, ref: RunRef) -> dict[str, str]:
    """The type of each metric of a run, machine metrics and `_step` included; from the catalog alone."""
    types: dict[str, str] = {}
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        streams = _streams(cache, ref)
        for name in (HISTORY, SYSTEM):
            rows = cache.con.execute(
                "SELECT key, kinds, last_json FROM metrics WHERE stream = ? ORDER BY key", (streams.get(name),)
            )
            for key, kinds, last_json in rows:
                types.setdefault(key, metric_type(kinds, last_json))
    return {"_step": "numeric", **types} if types else {}


def plot_metrics(
    cache: Cache, refs: Sequence[RunRef], names: Sequence[str], *, all_metrics: bool, include_system: bool
) -> list[str]:
    """The metrics to draw: those named, or all numeric ones. Raises NotFound for one that none of the runs logged."""
    if not names and not all_metrics:
        raise UsageError("there is no metric to draw", hint="name some with --metrics, or use --all-metrics")
    known: dict[str, str] = {}
    for ref in refs:
        for key, kind in metric_types(cache, ref).items():
            if key not in known or kind == "numeric":
                known[key] = kind
    missing = [name for name in names if name not in known]
    if missing:
        where = str(refs[0]) if len(refs) == 1 else f"any of the {len(refs)} runs"
        shown = [key for key in known if not is_system(key)]
        raise NotFound(f"no metric {', '.join(missing)} in {where}", hint=_near(missing[0], shown))
    drawn = [key for key, kind in known.items() if kind in ("numeric", "boolean")]
    every = [key for key in drawn if include_system or not is_system(key)] if all_metrics else []
    return list(dict.fromkeys([*names, *every]))


def is_system(key: str) -> bool:
    """Whether a metric is W&B's own: `_step`, `_timestamp`, `system.cpu` ..."""
    return key.startswith(("_", "system/", "system."))


def cache_info(cache: Cache) -> dict[str, Any]:
    """What is in the cache."""
    with catalog.translated(cache.folder):
        one = cache.con.execute(
            "SELECT (SELECT count(*) FROM projects), (SELECT count(*) FROM runs), "
            "(SELECT coalesce(sum(rows), 0) FROM runs), (SELECT count(*) FROM segments WHERE removed_at IS NULL), "
            "(SELECT coalesce(sum(count), 0) FROM segments WHERE removed_at IS NULL), "
            "(SELECT coalesce(sum(bytes), 0) FROM segments WHERE removed_at IS NULL), "
            "(SELECT max(synced_at) FROM checks), (SELECT count(*) FROM problems)"
        ).fetchone()
        journal = cache.con.execute("PRAGMA journal_mode").fetchone()[0]
    return {
        "folder": str(cache.folder),
        "projects": one[0],
        "runs": one[1],
        "rows": one[2],
        "values": one[4],
        "segments": one[3],
        "segment_bytes": one[5],
        "total_bytes": sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file()),
        "journal": journal,
        "problems": one[7],
        "synced_at": timestamp(one[6]),
    }


# -- SQL


class Answer:
    """What a query returns: a `duckdb.DuckDBPyRelation` that keeps its connection, which DuckDB 1 would close."""

    def __init__(self, con: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation) -> None:
        self.con = con
        self.relation = relation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.relation, name)


def sql(cache: Cache, query: str) -> Answer:
    """Run one read-only query, to be fetched as Arrow or rows. Raises UsageError."""
    import duckdb

    from .cache.publish import connect

    con = connect(cache)
    try:
        statements = con.extract_statements(query)
        # PIVOT is one statement to people; DuckDB 1 makes several of it, which have no text of their own.
        pivot = len(statements) > 1 and statements[-1].type == duckdb.StatementType.SELECT
        if not (pivot and "pivot" in query.lower() and not any(one.query for one in statements)):
            if len(statements) != 1:
                raise UsageError(f"one query at a time, this is {len(statements)}", hint="leave out the semicolon")
            _only_reads(con, statements[0])
        relation = con.sql(query)
    except duckdb.Error as error:
        raise sql_error(error) from error
    if relation is None:
        raise UsageError("the query returns nothing", hint="`wandbsync sql` takes SELECT, SHOW, DESCRIBE or EXPLAIN")
    return Answer(con, relation)


def sql_error(error: Exception) -> UsageError:
    """DuckDB's error as ours: its first line, and where to look the tables up."""
    text = str(error).strip().split("\n\n")[0]
    return UsageError(f"the query failed: {text}", hint="`wandbsync sql --schema` lists the tables")


def _only_reads(con: Any, statement: Any) -> None:
    import duckdb

    kind, text = statement.type, statement.query.strip()
    if kind == duckdb.StatementType.SELECT:
        return
    # PIVOT is two statements inside, and so is `COPY (PIVOT ...) TO ...`.
    if kind == duckdb.StatementType.MULTI and re.match(r"(pivot|unpivot|from|select|with)\b", text, re.IGNORECASE):
        return
    if kind == duckdb.StatementType.EXPLAIN and (found := re.match(r"explain\s+(analyze\s+)?", text, re.IGNORECASE)):
        inner = con.extract_statements(text[found.end() :])
        if len(inner) == 1:
            return _only_reads(con, inner[0])
    raise UsageError(f"only queries are allowed, this is {kind.name}", hint="`wandbsync sql` reads; it changes nothing")


__all__ = [
    "Answer",
    "cache_info",
    "count_runs",
    "find_project",
    "find_run",
    "get_run",
    "history",
    "is_system",
    "list_files",
    "list_metrics",
    "list_projects",
    "list_runs",
    "metric_types",
    "plot_metrics",
    "series",
    "sql",
    "sql_error",
    "timestamp",
]
