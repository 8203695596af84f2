"""What is known of projects and runs besides their rows, in the words of the lake."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..model import FIELDS, Field
from . import tables
from .here import Moment, Project, ProjectHere
from .plan import Action, Reach
from .there import moment as at

if TYPE_CHECKING:
    import pyarrow as pa


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as Arrow; what a row does not have is null."""
    import pyarrow as pa

    schema = tables.schema(name)
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.table(columns, schema=schema)


def project(of: ProjectHere, writer: str, machine: str, now: float) -> dict[str, Any]:
    """The row of a project."""
    return {
        "server": of.server,
        "entity": of.row["entity"],
        "project": of.row["project"],
        "description": of.row["description"],
        "created_at": at(of.row["created_at"]),
        "updated_at": at(of.row["updated_at"]),
        "total_runs": of.row["total_runs"],
        "url": of.row["url"],
        "source": of.row["source"],
        "runs": of.row["shown"],
        "owner": writer,
        "owner_name": machine,
        "heard_at": at(now),
    }


def rows(name: str, of: Project, found: Moment, wanted: Mapping[str, Action]) -> list[dict[str, Any]]:
    """The rows of `metrics` or `files` of some runs."""
    where = dict(zip(("server", "entity", "project"), of, strict=True))
    made = []
    for row in found.metrics if name == "metrics" else found.files:
        more = {"updated_at": at(row["updated_at"])} if name == "files" else {}
        made.append({**row, **where, "bucket": wanted[row["run_id"]].bucket, **more})
    return sorted(made, key=lambda row: (row["run_id"], row["key" if name == "metrics" else "name"]))


def runs(
    of: Project, found: Moment, wanted: Mapping[str, Action], reaches: Mapping[str, Mapping[str, Reach]], *,
    writer: str, now: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of `runs`."""
    where = dict(zip(("server", "entity", "project"), of, strict=True))
    made = []
    for row in found.records:
        run_id = row["run_id"]
        published = {stream: [reach.values, reach.last_step] for stream, reach in reaches[run_id].items()}
        kept = wanted[run_id].kept
        generation = -1 if row["evicted"] else row["generation"]
        made.append(
            {
                **row,
                **{one.name: _cell(one, row[one.name]) for one in FIELDS},
                **where,
                "bucket": wanted[run_id].bucket,
                "published_at": at(now),
                "writer": writer,
                "generation": generation if kept is None else kept,
                "published": json.dumps(published, separators=(",", ":")),
            }
        )
    return sorted(made, key=lambda row: str(row["run_id"]))


def _cell(one: Field, value: Any) -> Any:
    """A value of the catalog as the lake has it."""
    if one.type == "TIMESTAMP":
        return at(value)
    if one.type == "BOOLEAN":
        return bool(value)
    return json.loads(value) if one.type.endswith("[]") else value
