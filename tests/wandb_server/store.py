"""What the server knows: projects and their runs, in memory, under one lock."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from .history import History, Row

CRASHED_AFTER = timedelta(minutes=5)


class Clock:
    """The server's time: the real one until a test moves it on."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


@dataclass
class File:
    """A file of a run."""

    name: str
    data: bytes
    updated_at: datetime

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    @property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()

    @property
    def mimetype(self) -> str:
        return mimetypes.guess_type(self.name)[0] or ""


@dataclass
class LogLine:
    """A line of the console."""

    number: int
    line: str
    level: str | None = None
    label: str | None = None
    timestamp: str | None = None


@dataclass
class Export:
    """A Parquet file with some lines of a history."""

    name: str
    data: bytes


@dataclass(slots=True, eq=False)
class Run:
    """A run, with `name` and `display_name` as GraphQL has them (the SDK's id and name)."""

    project: Project
    name: str
    display_name: str
    created_at: datetime
    heartbeat_at: datetime
    declared: str = "running"
    config: Row = field(default_factory=dict)
    summary: Row = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    description: str | None = None
    group: str | None = None
    job_type: str | None = None
    sweep_name: str | None = None
    commit: str | None = None
    host: str | None = None
    username: str = ""
    exit_code: int | None = None
    stopped: bool = False
    history: History = field(default_factory=History)
    events: list[Row] = field(default_factory=list)
    console: list[LogLine] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    exports: list[Export] = field(default_factory=list)
    exported_lines: int = 0
    shuffled: bool = False
    poisoned: set[str] = field(default_factory=set)  # what of it is a 500 whoever asks: "history", "summary"

    @property
    def id(self) -> str:
        """The storage id: made of names alone, so a run that is created again under its id has the same one."""
        path = f"Run:v1:{self.name}:{self.project.name}:{self.project.entity}"
        return base64.b64encode(path.encode()).decode()

    @property
    def state(self) -> str:
        """What the run said last, or `crashed` when a running one has been silent for five minutes."""
        silent = self.project.store.clock.now() - self.heartbeat_at > CRASHED_AFTER
        return "crashed" if self.declared == "running" and silent else self.declared

    def beat(self) -> None:
        self.heartbeat_at = self.project.store.clock.now()

    def put(self, name: str, data: bytes) -> File:
        """Keep a file, in place of one of that name."""
        self.files[name] = File(name, data, self.project.store.clock.now())
        return self.files[name]

    def write_history(self, offset: int, rows: list[Row]) -> None:
        """Put rows at a line; exports that would no longer be true are dropped."""
        self.history.write(offset, rows)
        if offset < self.exported_lines:
            self.drop_exports()

    def rewind(self, step: int) -> None:
        """Forget all that was logged after a step."""
        self.history.rewind(step)
        if len(self.history) < self.exported_lines:
            self.drop_exports()

    def drop_exports(self) -> None:
        self.exports, self.exported_lines = [], 0


@dataclass(eq=False)
class Project:
    """A project and its runs by name."""

    store: Store
    number: int
    entity: str
    name: str
    created_at: datetime
    runs: dict[str, Run] = field(default_factory=dict)
    listings: dict[tuple[str, str], tuple[int, list[Run]]] = field(default_factory=dict)


class Store:
    """All projects. `changes` counts whatever may change a listing; hold `lock` to read or write."""

    def __init__(self, clock: Clock, username: str, entities: set[str]) -> None:
        self.clock, self.username, self.entities = clock, username, entities
        self.lock = threading.RLock()
        self.projects: dict[tuple[str, str], Project] = {}
        self.artifacts: set[str] = set()
        self.changes = 0

    def project(self, entity: str, name: str, *, create: bool = False) -> Project | None:
        if create and (entity, name) not in self.projects:
            number = len(self.projects) + 1
            self.projects[entity, name] = Project(self, number, entity, name, self.clock.now())
        return self.projects.get((entity, name))

    def run(self, entity: str, project: str, name: str) -> Run | None:
        found = self.project(entity, project)
        return found.runs.get(name) if found else None

    def by_id(self, storage_id: str) -> Run | None:
        try:
            _, _, name, project, entity = base64.b64decode(storage_id).decode().split(":")
        except ValueError:
            return None
        return self.run(entity, project, name)

    def create(self, project: Project, name: str, **values: Any) -> Run:
        now = self.clock.now()
        title = f"silent-sea-{len(project.runs) + 1}"
        given: Row = {"display_name": title, "created_at": now, "heartbeat_at": now, "username": self.username} | values
        run = project.runs[name] = Run(project, name, **given)
        self.changes += 1
        return run

    def delete(self, run: Run) -> None:
        del run.project.runs[run.name]
        self.changes += 1

    def __iter__(self) -> Iterator[Run]:
        return (run for project in self.projects.values() for run in project.runs.values())


def stamp(time: datetime) -> str:
    """A time as the server shows it: to the second, so that two changes in one second look alike."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
