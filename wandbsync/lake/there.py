"""What the lake has: who owns which project, and how far each of its runs is published. Read from the lake alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..model import STREAMS, is_time
from .delta import Lake, choose
from .here import Project
from .plan import Reach, RunThere, There

OWNERS = "wandbsync projects"  # the transaction of whoever writes `projects`
FORGOTTEN = 7 * 86400.0  # seconds after which an owner that was not heard of may be succeeded
HEARD = 3600.0  # seconds between two signs of life of an owner
DATA = (*STREAMS, "metrics", "files")  # the tables that are written before `runs`


def app(project: Project) -> str:
    """The name of a project's transactions."""
    return "wandbsync " + json.dumps(project, ensure_ascii=False, separators=(",", ":"))


def settled(project: Project) -> str:
    """The name of the transaction of `runs` that says up to which batch everything has come to its end."""
    return app(project) + " settled"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who publishes a project."""

    writer: str
    name: str  # of its machine
    heard_at: float  # unix seconds

    def lets(self, writer: str, now: float) -> bool:
        """Whether this cache may publish the project: it is the owner, or the owner is forgotten."""
        return self.writer == writer or now - self.heard_at > FORGOTTEN


def owners(lake: Lake) -> tuple[int, dict[Project, tuple[Owner, dict[str, Any]]]]:
    """The number of the last commit to `projects`, and the owner and row of each project."""
    from .tables import COLUMNS

    number = lake.version("projects", OWNERS)
    rows = lake.scan("projects", [column for column, _, _ in COLUMNS["projects"]], None).to_pylist()
    return number, {
        (row["server"], row["entity"], row["project"]): (
            Owner(row["owner"], row["owner_name"], seconds(row["heard_at"]) or 0.0),
            row,
        )
        for row in rows
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """A project as the lake has it, and the last batch in each of its tables."""

    there: There
    numbers: dict[str, int]
    settled: int


def standing(lake: Lake, project: Project) -> Standing:
    """How a project stands."""
    name = app(project)
    numbers = {table: lake.version(table, name) for table in (*DATA, "runs")}
    done = lake.version("runs", settled(project))
    columns = ["bucket", "run_id", "writer", "revision", "generation", "published", "gone_at"]
    rows = lake.scan("runs", columns, of(project)).to_pylist()
    runs = {
        row["run_id"]: RunThere(
            row["bucket"],
            row["writer"],
            row["revision"],
            row["generation"],
            {stream: Reach(*reach) for stream, reach in json.loads(row["published"] or "{}").items()},
            row["gone_at"] is not None,
        )
        for row in rows
    }
    return Standing(There(runs, all(numbers[table] <= done for table in DATA)), numbers, done)


def onward(lake: Lake, project: Project, old: Standing) -> Standing:
    """How the tables stand after a batch; the runs are as they were planned with."""
    numbers = {table: lake.version(table, app(project)) for table in (*DATA, "runs")}
    return Standing(old.there, numbers, lake.version("runs", settled(project)))


def of(project: Project, **more: str | Sequence[str]) -> str:
    """The predicate of a project's rows, or of some of them."""
    return choose(**dict(zip(("server", "entity", "project"), project, strict=True)), **more)


def seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def moment(at: float | None) -> datetime | None:
    """Unix seconds as Arrow takes them."""
    return None if at is None or not is_time(at) else datetime.fromtimestamp(at, timezone.utc)
