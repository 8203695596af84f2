"""How GraphQL sees what the store holds: a view per type of the schema, its fields as attributes or methods."""

from __future__ import annotations

import base64
import functools
import json
import random
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import filters
from .history import MISSING, Row, dig, sample, wire, wire_json
from .store import File, Project, Run, stamp

if TYPE_CHECKING:
    from .root import Root

MAX_PAGE = 1000
MAX_EVENTS = 10_000
MAX_LOG_LINES = 10_000
INTERNAL = "_wandb"


class Refused(Exception):
    """The server will not do this, and says so with a status of its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@functools.cache
def snake(name: str) -> str:
    """A name of the schema as Python spells it."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def connection(
    items: Sequence[Any], view: Callable[[Any], Any], after: str | None, first: int | None, *, hidden: int = 0
) -> Row:
    """A Relay page. Cursors are places in the list as it is now, so insertions shift the pages of a sweep.

    Before the first item come `hidden` pages of what this user may not see: no edges, and a cursor that moves on.
    """
    start = int(base64.b64decode(after)) if after else -hidden
    if start < 0:
        return {"edges": [], "pageInfo": {"endCursor": _cursor(start + 1), "hasNextPage": True}}
    stop = start + min(50 if first is None else first, MAX_PAGE)
    edges = [{"node": view(item), "cursor": _cursor(start + i + 1)} for i, item in enumerate(items[start:stop])]
    end = edges[-1]["cursor"] if edges else None
    return {"edges": edges, "pageInfo": {"endCursor": end, "hasNextPage": stop < len(items)}}


def _cursor(place: int) -> str:
    return base64.b64encode(str(place).encode()).decode()


class UserView:
    admin, flags, deleted_at = False, "{}", None

    def __init__(self, root: Root, name: str) -> None:
        self._root, self.name, self.username, self.entity = root, name, name, name
        self.id, self.email = base64.b64encode(f"User:{name}".encode()).decode(), f"{name}@example.invalid"
        self.api_keys = {"edges": [{"node": {"id": "1", "name": f"...{name}", "description": None}}]}

    def teams(self, after: str | None = None, first: int | None = None) -> Row:
        teams = sorted(self._root.store.entities - {self.username})
        return connection(teams, functools.partial(EntityView, self._root), after, first)


class EntityView:
    xxhash_digests_enabled = False

    def __init__(self, root: Root, name: str) -> None:
        self.id, self.name, self.is_team = name, name, name != root.store.username
        self.organization = SimpleNamespace(name="test-org", org_entity=None, core_weave_organization_id=None)


class ProjectView:
    description = views = None
    access, is_benchmark, read_only, total_sweeps = "USER_READ", False, False, 0

    def __init__(self, root: Root, project: Project) -> None:
        self._root, self._project = root, project
        self.name, self.entity_name, self.created_at = project.name, project.entity, stamp(project.created_at)
        self.id = base64.b64encode(f"Project:v1:{project.name}:{project.entity}".encode()).decode()
        self.internal_id = base64.b64encode(f"ProjectInternalId:{project.number}".encode()).decode()

    def entity(self) -> EntityView:
        return EntityView(self._root, self.entity_name)

    def user(self) -> UserView:
        return UserView(self._root, self._root.store.username)

    def run_count(self, filters: str | None = None) -> int:
        return len(self._listing(filters, "+created_at"))

    def runs(
        self, filters: str | None = None, after: str | None = None, first: int | None = None, order: str | None = None
    ) -> Row:
        listing = self._listing(filters, order or "+created_at")
        if self._root.stuck:
            return {"edges": [], "pageInfo": {"endCursor": after or _cursor(0), "hasNextPage": True}}
        return connection(listing, functools.partial(RunView, self._root), after, first, hidden=self._root.hidden_pages)

    def run(self, name: str) -> RunView | None:
        run = self._project.runs.get(name)
        return RunView(self._root, run) if run else None

    def bucket(self, name: str, missing_ok: bool = False) -> RunView | None:
        run = self.run(name)
        if not run and not missing_ok:
            raise Refused(404, f"run {name} not found")
        return run

    def sweeps(self, **_: Any) -> Row:
        return connection([], lambda sweep: sweep, None, None)

    def sweep(self, sweep_name: str) -> None:
        return None

    def artifact_type(self, name: str) -> None:
        return None

    artifact = artifact_type

    def _listing(self, query: str | None, order: str) -> list[Run]:
        """The runs of a filter in an order, sorted once per change: a sweep of 100,000 runs asks for many pages."""
        project, key = self._project, (query or "{}", order)
        changes, listing = project.listings.get(key, (-1, []))
        if changes != project.store.changes or "state" in key[0]:  # a state also changes by time
            if any(changes != project.store.changes for changes, _ in project.listings.values()):
                project.listings.clear()
            wanted = json.loads(key[0] or "{}") or {}
            runs = [run for run in project.runs.values() if filters.matches(run, wanted)]
            listing = filters.ordered(runs, order)
            project.listings[key] = project.store.changes, listing
        return listing


class RunView:
    read_only = False

    def __init__(self, root: Root, run: Run) -> None:
        self._root, self._run = root, run

    def __getattr__(self, name: str) -> Any:  # what is the same on both
        return getattr(self._run, name)

    @property
    def project(self) -> ProjectView:
        return ProjectView(self._root, self._run.project)

    @property
    def project_id(self) -> int:
        return self._run.project.number

    @property
    def user(self) -> UserView:
        return UserView(self._root, self._run.username)

    @property
    def created_at(self) -> str:
        return stamp(self._run.created_at)

    @property
    def heartbeat_at(self) -> str:
        return stamp(self._run.heartbeat_at)

    @property
    def config(self) -> str:
        return wire_json(self._run.config)

    @property
    def summary_metrics(self) -> str:
        self._poisoned("summary", "context deadline exceeded")
        self._root.records += 1
        return wire_json(self._run.summary)

    def _poisoned(self, part: str, message: str) -> None:
        if part in self._run.poisoned:
            raise Refused(500, message)

    def _history_poisoned(self) -> None:
        project = self._run.project
        where = f"{project.entity}/{project.name}/{self._run.name}"
        self._poisoned("history", f"run not found for history loading: {where}")

    @property
    def system_metrics(self) -> str:
        latest = {key: value for event in self._run.events for key, value in event.items() if key.startswith("system.")}
        return wire_json(latest)

    @property
    def history_line_count(self) -> int:
        return len(self._run.history)

    @property
    def events_line_count(self) -> int:
        return len(self._run.events)

    @property
    def log_line_count(self) -> int:
        return len(self._run.console)

    @property
    def file_count(self) -> int:
        return len(self._run.files)

    @property
    def history_keys(self) -> Row:
        return self._run.history.keys()

    def wandb_config(self, keys: list[str]) -> str:
        internal = self._run.config.get(INTERNAL, {}).get("value", {})
        return json.dumps({key: internal[key] for key in keys if key in internal})

    def history_tail(self) -> str:
        last = self._run.history.last_row
        return json.dumps([wire_json(last)] if last else [])

    def events_tail(self) -> str:
        return json.dumps([wire_json(event) for event in self._run.events[-1:]])

    def history(
        self, min_step: int | None = None, max_step: int | None = None, samples: int | None = None
    ) -> list[str]:
        """A page of steps, or a sample of the whole run; only a page may leave out what is exported."""
        self._history_poisoned()
        samples = 500 if samples is None else samples
        if min_step is None and max_step is None:
            lines = sample(len(self._run.history), samples)
            return [wire_json(row) for row in self._run.history.lines(lines)]
        rows = self._live(min_step or 0, max_step if max_step is not None else self._run.history.last_step + 1)
        return [wire_json(rows[line]) for line in sample(len(rows), samples)]

    def sampled_history(self, specs: list[str]) -> list[list[Row]]:
        return [self._sampled(**{snake(key): value for key, value in json.loads(spec).items()}) for spec in specs]

    def _sampled(
        self, keys: list[str], samples: int = 500, min_step: int | None = None, max_step: int | None = None, **_: Any
    ) -> list[Row]:
        history = self._run.history
        if min_step is None and max_step is None:
            rows = history.between(0, history.last_step + 1, keys=keys)
        else:
            rows = self._live(min_step or 0, history.last_step + 1 if max_step is None else int(max_step) + 1, keys)
        found = [{key: dig(row, key) for key in keys} for row in rows]
        full = [row for row in found if not any(value is MISSING or value is None for value in row.values())]
        return [wire(full[line]) for line in sample(len(full), samples)]

    def _live(self, min_step: int, max_step: int, keys: list[str] | None = None) -> list[Row]:
        first = 0 if self._root.history_serves_exported else self._run.exported_lines
        return self._run.history.between(int(min_step), int(max_step), from_line=first, keys=keys)

    def parquet_history(self, live_keys: list[str]) -> Row:
        self._history_poisoned()
        run = self._run
        path = run.project.entity, run.project.name, run.name
        urls = [self._root.signer.url("exports", *path, export.name) for export in run.exports]
        if run.shuffled:
            random.shuffle(urls)
        live = run.history.between(0, run.history.last_step + 1, from_line=run.exported_lines, keys=live_keys)
        rows = [{key: wire(row[key]) for key in live_keys} for row in live if all(key in row for key in live_keys)]
        for row in rows:
            if "_step" in row:
                row["_step"] = float(row["_step"])  # as W&B has steps: doubles, here and in exports
        return {"parquetUrls": urls, "liveData": rows}

    def events(self, samples: int | None = None) -> list[str]:
        events = self._run.events
        return [wire_json(events[i]) for i in sample(len(events), min(500 if samples is None else samples, MAX_EVENTS))]

    def log_lines(
        self,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        use_improved_pagination: bool = False,
    ) -> Row:
        """Lines of the console: forward in pages with `useImprovedPagination`, else the last ones."""
        lines = self._run.console
        if use_improved_pagination and last is None:
            return connection(lines, lambda line: line, after, first)
        tail = lines[-min(MAX_LOG_LINES if last is None else last, MAX_LOG_LINES) :]
        edges = [{"node": line, "cursor": _cursor(line.number + 1)} for line in tail]
        return {"edges": edges, "pageInfo": {"endCursor": edges[-1]["cursor"] if edges else None, "hasNextPage": False}}

    def files(
        self,
        names: list[str] | None = None,
        after: str | None = None,
        first: int | None = None,
        pattern: str | None = None,
    ) -> Row:
        wanted = [self._run.files[name] for name in sorted(self._run.files) if not names or name in names]
        if pattern:
            like = re.compile("".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in pattern), re.DOTALL)
            wanted = [file for file in wanted if like.fullmatch(file.name)]
        return connection(wanted, functools.partial(FileView, self._root, self._run), after, first)


class FileView:
    def __init__(self, root: Root, run: Run, file: File) -> None:
        self._root, self._path = root, (run.project.entity, run.project.name, run.name, file.name)
        self.id = base64.b64encode(":".join(("File", *self._path)).encode()).decode()
        self.name, self.size_bytes, self.mimetype, self.md5 = file.name, file.size_bytes, file.mimetype, file.md5
        self.updated_at = stamp(file.updated_at)

    def url(self, upload: bool = False) -> str:
        """The lasting address, which asks for the key and leads to a signed one; or a signed one to upload to."""
        if upload:
            return self._root.signer.url("files", *self._path, method="PUT")
        return f"{self._root.base}/files/" + "/".join(quote(part) for part in self._path)

    def direct_url(self) -> str:
        return self._root.signer.url("files", *self._path)
