"""A run: its name, what is known of it besides its rows, and the one table of what that is.

To add a field to runs: a line in FIELDS, an attribute of RunRecord, a column in the catalog's next migration
(cache/schema.py), and where it is learnt (`record` of sources/api/record.py for a server, sources/facts.py for a log).
The question to the server, what counts as an edit, SQL, the JSON of list-runs, filters, the lake and the drop-in Api
follow from the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, order=True)
class RunRef:
    """The name of one run."""

    entity: str
    project: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.run_id}"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a run; `name` is its path as W&B shows it, with forward slashes."""

    name: str
    size: int
    updated_at: float | None = None  # unix seconds
    mimetype: str | None = None
    md5: str | None = None
    local_path: str | None = None  # where its bytes are on this machine, if they are


@dataclass(frozen=True, slots=True)
class SummaryRules:
    """How a summary follows from the rows: the last value of each key, unless one of these says otherwise."""

    explicit: Mapping[tuple[str, ...], tuple[Sequence[Any], int | None]] = field(default_factory=dict)
    """path -> ([the value set by hand], or [] if it was removed; step of the last row before that)"""
    definitions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """key or prefix* -> the aggregates asked for with define_metric: min, max, mean, last, first, best-min ..."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of a run besides its rows. Times are unix seconds. None: the source does not say."""

    state: str
    source: str  # "local" or "api"
    display_name: str | None = None
    created_at: float | None = None
    heartbeat_at: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] | None = None  # None: to be derived from the rows and `rules`
    rules: SummaryRules | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    group: str | None = None
    job_type: str | None = None
    sweep_id: str | None = None
    host: str | None = None
    username: str | None = None  # of its owner
    user_name: str | None = None
    updated_at: float | None = None
    exit_code: int | None = None
    runtime: float | None = None  # seconds
    sdk_version: str | None = None
    url: str | None = None
    forked_from: str | None = None  # "run_id@step"
    metadata: Mapping[str, Any] = field(default_factory=dict)  # program, git, python, machine ...
    incomplete: str | None = None  # why rows are missing; None: everything the source has is here


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that is known of a run, and what it is called in each place."""

    name: str  # in SQL, in the lake, of RunRecord's attribute
    type: str  # as DuckDB calls it; in the catalog times are unix seconds, lists and JSON are text
    meaning: str = ""
    json: str | None = ""  # in the JSON of list-runs; "": the same; None: it is not there
    wandb: str | None = None  # on the server's `Run`, where a listing tells it
    asks: tuple[str, ...] = ()  # what of that is asked for, where it has fields of its own
    filter: str | None = None  # in filters and orders, where that is not W&B's name
    of: Literal["record", "name", "cache", "check", "derived"] = "record"
    """Where it comes from: a RunRecord, the RunRef, the cache's own count, its note of the last look, another field."""
    stored: str | None = None  # its column in the catalog's `runs`, where that is not `name`
    sql: str | None = None  # what is shown of it, as an expression over `runs`; None: the column
    edited: bool = False  # it may change without a move of the heartbeat, as what people edit

    @property
    def in_json(self) -> str:
        return self.json or self.name

    @property
    def asked_by(self) -> str | None:
        """Its name in filters and orders, if it has one."""
        return self.filter or self.wandb

    @property
    def column(self) -> str:
        return self.stored or self.name

    @property
    def shown(self) -> str:
        """The expression that gives its value as people see it."""
        return self.sql or self.column


FIELDS = (
    Field("entity", "VARCHAR", filter="entity", of="name"),
    Field("project", "VARCHAR", filter="project", of="name"),
    Field("run_id", "VARCHAR", "unique in its project", "id", "name", of="name"),
    Field(
        "display_name", "VARCHAR", "the name people see", "name", "displayName",
        sql="coalesce(nullif(display_name, ''), run_id)", edited=True,
    ),
    Field("state", "VARCHAR", "running, finished, failed, crashed, ...", wandb="state"),
    Field("created_at", "TIMESTAMP", "UTC", wandb="createdAt"),
    Field("heartbeat_at", "TIMESTAMP", "UTC, last sign of life", wandb="heartbeatAt"),
    Field("updated_at", "TIMESTAMP", "UTC, last change on the server, edits included", wandb="updatedAt", edited=True),
    Field("synced_at", "TIMESTAMP", "UTC, when the cache last agreed with the source", of="check"),
    Field("runtime", "DOUBLE", "seconds", filter="duration"),
    Field("exit_code", "BIGINT"),
    Field("tags", "VARCHAR[]", wandb="tags", edited=True),
    Field("notes", "VARCHAR", wandb="notes", edited=True),
    Field("group", "VARCHAR", "quote it in SQL", wandb="group", stored="run_group", edited=True),
    Field("job_type", "VARCHAR", wandb="jobType", edited=True),
    Field("sweep_id", "VARCHAR", wandb="sweepName", filter="sweep", edited=True),
    Field(
        "username", "VARCHAR", "of its owner", wandb="user", asks=("username", "name"), filter="username", edited=True
    ),
    Field("user_name", "VARCHAR", "the owner's name as people see it", filter="userName"),
    Field("host", "VARCHAR", wandb="host", edited=True),
    Field("url", "VARCHAR"),
    Field("sdk_version", "VARCHAR", json=None),
    Field("forked_from", "VARCHAR", "run_id@step", filter="forkedFrom"),
    Field("source", "VARCHAR", "local, api, or both"),
    Field(
        "complete", "BOOLEAN", "every row the source had at synced_at is here", sql="incomplete IS NULL", of="derived"
    ),
    Field("incomplete", "VARCHAR", "why not"),
    Field("rows", "BIGINT", "log calls in the history", wandb="historyLineCount", of="cache"),
    Field("last_step", "BIGINT", "the highest of its history", of="cache"),
    Field("deleted_at", "TIMESTAMP", "UTC, when it was found to be gone from its server", of="cache"),
    Field("config", "JSON", "config->>'lr', config->'$.opt.name'"),
    Field("summary", "JSON", "the last value of each metric", "summary_metrics"),
    Field("metadata", "JSON", "program, git, python, machine"),
)  # fmt: skip
RECORDED = tuple(one for one in FIELDS if one.of == "record")  # those of a RunRecord
EDITED = tuple(one for one in FIELDS if one.edited)
HEAVY = ("config", "metadata")  # not in the JSON of lists, for their size
