"""The tables and views of `wandb.duckdb`: what people see, and what it is made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ..model import FIELDS, Kind
from . import lineage, open_lines

NUMERIC = 1 << Kind.FLOAT | 1 << Kind.INT | 1 << Kind.BIGINT

# One line a column: name, type, meaning; `wandbsync sql --schema` prints it.
TABLES: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "cache": (
        "one row: what this is, and how old",
        [
            ("written_at", "TIMESTAMP", "UTC; what was committed later is not in it"),
            ("folder", "VARCHAR", "where the cache is"),
            ("version", "VARCHAR", "of the wandbsync that wrote it"),
        ],
    ),
    "projects": (
        "one row a project",
        [
            ("entity", "VARCHAR", "user or team"),
            ("project", "VARCHAR", ""),
            ("description", "VARCHAR", ""),
            ("created_at", "TIMESTAMP", "UTC"),
            ("updated_at", "TIMESTAMP", "UTC, last change on the server"),
            ("total_runs", "BIGINT", "how many runs the server has"),
            ("url", "VARCHAR", ""),
            ("source", "VARCHAR", "local or api"),
            ("runs", "BIGINT", "how many runs are in the cache"),
        ],
    ),
    "sweeps": (
        "one row a sweep",
        [
            ("entity", "VARCHAR", ""),
            ("project", "VARCHAR", ""),
            ("sweep_id", "VARCHAR", "unique in its project"),
            ("display_name", "VARCHAR", ""),
            ("state", "VARCHAR", "RUNNING, PAUSED, CANCELED, FINISHED, ..."),
            ("method", "VARCHAR", "grid, random, bayes, ..."),
            ("description", "VARCHAR", ""),
            ("metric", "VARCHAR", "what is searched for"),
            ("goal", "VARCHAR", "minimize or maximize"),
            ("best_value", "DOUBLE", "the best of that metric, as the server knows it"),
            ("runs_expected", "BIGINT", "null where no end is set"),
            ("created_at", "TIMESTAMP", "UTC"),
            ("updated_at", "TIMESTAMP", "UTC"),
            ("config", "JSON", "what its YAML says"),
        ],
    ),
    "runs": (
        "one row a run",
        [(one.name, one.type, one.meaning) for one in FIELDS],
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
            ("first_step", "BIGINT", "of the first value that is not null, or of the first if all are"),
            ("last_step", "BIGINT", "of the last value that is not null, or of the last if all are"),
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
            ("local_path", "VARCHAR", "where it is on this machine, or its copy in the cache"),
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
    ("label", "VARCHAR", "of the process that printed it, where several did: rank-0 ..."),
    ("time", "TIMESTAMP", "UTC"),
    ("text", "VARCHAR", ""),
]
VIEWS: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "history": ("one row a logged value, every one of them", ROWS),
    "history_with_parent": (
        "the same, of a fork also its parent's up to that step, under the fork's name",
        ROWS,
    ),
    "system": ("the same for machine metrics; step counts the samples, key _timestamp has their time", ROWS),
    "console": ("one row a line the program printed, the last before its newline too", CONSOLE_ROWS),
}
VISIBLE = {**TABLES, **VIEWS}

# What is taken from the catalog: table -> (columns and types, SELECT). `:since` is the commit up to which what belongs
# to a run is known from the last time.
_RECORDS = [one for one in FIELDS if one.of not in ("name", "check")]
LIVE = "runs r JOIN streams s ON s.run = r.run AND s.generation = r.generation"
SOURCES = {
    "inside.runs": (
        "run BIGINT, revision BIGINT, entity VARCHAR, project VARCHAR, run_id VARCHAR, synced_at TIMESTAMP",
        "SELECT run, revision, entity, project, run_id, synced_at FROM runs LEFT JOIN checks USING (run)",
    ),
    "inside.records": (
        "run BIGINT, " + ", ".join(f'"{one.name}" {one.type}' for one in _RECORDS),
        f"SELECT run, {', '.join(one.shown for one in _RECORDS)} FROM runs WHERE revision > :since",
    ),
    "inside.streams": (
        "stream BIGINT, revision BIGINT, entity VARCHAR, project VARCHAR, run_id VARCHAR, name VARCHAR",
        f"SELECT s.stream, r.revision, r.entity, r.project, r.run_id, s.name FROM {LIVE}",
    ),
    "inside.open_lines": (open_lines.COLUMNS, open_lines.SELECT),
    "inside.metrics": (
        "stream BIGINT, key VARCHAR, type VARCHAR, last_json VARCHAR, last_value DOUBLE, std DOUBLE, numbers BIGINT, "
        "count BIGINT, non_null_count BIGINT, nan_count BIGINT, infinite_count BIGINT, min DOUBLE, max DOUBLE, "
        "mean DOUBLE, first_step BIGINT, last_step BIGINT",
        "SELECT m.stream, m.key, m.kinds, m.last_json, m.last_value, m.deviation, m.numbers, m.count, "
        "m.count - m.nulls, m.nans, m.infinities, m.min, m.max, m.mean, m.first_step, m.last_step "
        f"FROM {LIVE} JOIN metrics m ON m.stream = s.stream WHERE s.name <> 'console' AND r.revision > :since",
    ),
    "projects": (
        ", ".join(f"{name} {kind}" for name, kind, _ in TABLES["projects"][1]),
        "SELECT entity, project, description, created_at, updated_at, total_runs, url, source, "
        "(SELECT count(*) FROM runs r WHERE r.entity = p.entity AND r.project = p.project "
        "AND r.deleted_at IS NULL) FROM projects p",
    ),
    "sweeps": (
        ", ".join(f"{name} {kind}" for name, kind, _ in TABLES["sweeps"][1]),
        f"SELECT {', '.join(name for name, _, _ in TABLES['sweeps'][1])} FROM sweeps",
    ),
    "inside.lineage": (
        "entity VARCHAR, project VARCHAR, run_id VARCHAR, source_id VARCHAR, until BIGINT",
        lineage.SELECT,
    ),
    "files": (
        "entity VARCHAR, project VARCHAR, run_id VARCHAR, name VARCHAR, size BIGINT, updated_at TIMESTAMP, "
        "mimetype VARCHAR, md5 VARCHAR, local_path VARCHAR",
        "SELECT entity, project, run_id, name, size, files.updated_at, mimetype, md5, local_path FROM files "
        "JOIN runs USING (run)",
    ),
}
# What is kept from one time to the next where its owner has not changed: table -> (owner, table of owners).
KEPT = {
    "inside.records": ("run", "inside.runs"),
    "inside.open_lines": ("run", "inside.runs"),
    "inside.metrics": ("stream", "inside.streams"),
}
TABLE_VIEWS = {
    "runs": "inside.runs JOIN inside.records USING (run)",
    "metrics": "(SELECT m.* EXCLUDE (stream), s.* EXCLUDE (stream, name), s.name AS stream "
    "FROM inside.metrics m JOIN inside.streams s USING (stream))",
}


def comments() -> Iterator[str]:
    """The titles and meanings as statements, for whoever opens the file with a client of their own."""
    for name, (title, columns) in {**TABLES, **VIEWS}.items():
        kind = "VIEW" if name in TABLE_VIEWS or name in VIEWS else "TABLE"
        yield f"COMMENT ON {kind} {name} IS {_text(title)}"
        for column, _, meaning in columns:
            if meaning:
                yield f'COMMENT ON COLUMN {name}."{column}" IS {_text(meaning)}'


def _text(words: str) -> str:
    return "'" + words.replace("'", "''") + "'"


def describe() -> str:
    """The tables and views, for `wandbsync sql --schema`."""
    return described(VISIBLE)


def described(tables: Mapping[str, tuple[str, list[tuple[str, str, str]]]]) -> str:
    """Tables with their titles and columns, to be read by people."""
    lines = []
    for name, (title, columns) in tables.items():
        lines.append(f"{name}: {title}")
        lines += [f"    {column:<16}{kind:<12}{meaning}".rstrip() for column, kind, meaning in columns]
        lines.append("")
    return "\n".join(lines).rstrip()


def metric_type(kinds: int, last_json: str | None) -> str:
    """What people call the values of a metric: numeric, boolean, string, image-file, list, ..."""
    if kinds & NUMERIC:
        return "numeric"
    if kinds & 1 << Kind.BOOL:
        return "boolean"
    if kinds & 1 << Kind.JSON and last_json:
        value = json.loads(last_json)
        if isinstance(value, dict):
            return str(value.get("_type", "object"))
        return "string" if isinstance(value, str) else "list"
    return "string" if kinds & 1 << Kind.LINE else "null"


LAYOUT = describe() + repr(SOURCES)  # of another layout, an old file is not used
