"""The W&B server as a source: what can be asked of it. Every method is one question, or its pages in turn."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import NotFound, NotSignedIn, ServerError
from ...model import RunRef
from . import queries
from .credentials import Login
from .transport import Transport

RUNS_A_PAGE = 1000  # without their records
RECORDS_A_PAGE = 100  # a config may be large
FILES_A_PAGE = 1000
LINES_A_PAGE = 1000

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whose key it is."""

    username: str
    entity: str | None  # the one a project without an entity belongs to
    teams: tuple[str, ...]


class Api:
    """A W&B server, asked directly over HTTPS; safe to share between threads.

    Questions raise NotSignedIn, NotPermitted, Unreachable, ServerError; NotFound where there is no such thing.
    """

    def __init__(self, login: Login, transport: Transport) -> None:
        self.login = login
        self.transport = transport
        self._unknown: set[str] = set()  # fields this server does not have

    # -- who and which

    def viewer(self) -> Viewer:
        found = self._ask("Viewer", queries.VIEWER, {}).get("viewer")
        if not found:
            raise NotSignedIn(f"{self.login.host} does not know the API key")
        teams = [edge["node"]["name"] for edge in ((found.get("teams") or {}).get("edges") or ())]
        return Viewer(found.get("username") or found.get("entity") or "", found.get("entity"), tuple(teams))

    def projects(self, entity: str) -> list[Node]:
        """The projects of an entity: name, entityName, description, createdAt."""
        variables = {"entity": entity, "perPage": 200}
        return list(self._pages("GetProjects", queries.PROJECTS, variables, lambda data: data.get("models")))

    def runs(
        self, entity: str, project: str, *, filters: str | None = None, records: bool = False
    ) -> Iterator[tuple[Node, int]]:
        """The runs of a project, oldest first, each once, and how many the server counts.

        With `records` their configs and summaries too. Raises NotFound if there is no such project, or none to see.
        """
        query = queries.RUNS_WITH_RECORDS if records else queries.RUNS
        counted = 0

        def runs(data: Node) -> Node | None:
            nonlocal counted
            if data.get("project") is None:
                raise NotFound(
                    f"{self.login.host} has no project {entity}/{project}, or not for this key",
                    hint="`wandbsync list-projects --refresh` lists those there are",
                )
            counted = int(data["project"].get("runCount") or 0)
            found: Node | None = data["project"].get("runs")
            return found

        variables = {
            "entity": entity,
            "project": project,
            "perPage": RECORDS_A_PAGE if records else RUNS_A_PAGE,
            "order": "+created_at",  # what is added meanwhile comes last and shifts no page
            "filters": filters or "{}",
        }
        seen: set[str] = set()
        for node in self._pages("Runs", query, variables, runs, project=f"{entity}/{project}"):
            if node["name"] not in seen:
                seen.add(node["name"])
                yield node, counted

    # -- one run

    def run(self, ref: RunRef, parts: Collection[str], **variables: Any) -> Node:
        """Some parts (keys of queries.PARTS) of a run in one question.

        A part that the server refuses is asked for alone; if it is refused again it is missing from the answer, and
        `errors` there says why: part -> ServerError.
        """
        parts = set(parts)
        if "exports" in parts:
            variables["liveKeys"] = ["_step"]
        try:
            return self._run(ref, parts, variables)
        except ServerError as error:
            if len(parts) == 1 or isinstance(error, NotFound):
                raise
        node: Node = {}
        errors: dict[str, ServerError] = {}
        for part in sorted(parts, key=list(queries.PARTS).index):
            try:
                node |= self._run(ref, {part}, variables)
            except ServerError as error:  # noqa: PERF203
                if part == "record":
                    raise
                errors[part] = error
        return node | {"errors": errors}

    def _run(self, ref: RunRef, parts: Collection[str], variables: Mapping[str, Any]) -> Node:
        operation, query = queries.about_run(parts)
        used = {name: value for name, value in variables.items() if re.search(rf"\${name}\b", query)}
        named = {"entity": ref.entity, "project": ref.project, "run": ref.run_id}
        project = f"{ref.entity}/{ref.project}"
        data = self._ask(operation, query, {**named, **used}, project=project)
        found: Node | None = (data.get("project") or {}).get("run")
        if found is None:
            raise NotFound(f"{self.login.host} has no run {ref}, or not for this key")
        return found

    def page(self, ref: RunRef, first: int, stop: int, samples: int) -> list[str]:
        """The rows with first <= step < stop as JSON texts; a sample of them if there are more than `samples`."""
        found = self._run(ref, {"page"}, {"minStep": first, "maxStep": stop, "pageSize": samples})
        return list(found.get("history") or ())

    def console(self, ref: RunRef, after: str | None) -> Node:
        """A page of console lines: the connection, with `edges` and `pageInfo`."""
        found = self._run(ref, {"console"}, {"first": LINES_A_PAGE, "after": after})
        return found.get("logLines") or {}

    def more_files(self, ref: RunRef, after: str) -> Iterator[Node]:
        """The files after a cursor, to the end."""
        variables = {"entity": ref.entity, "project": ref.project, "run": ref.run_id, "fileLimit": FILES_A_PAGE}
        operation, query = queries.about_run({"files"})
        return self._pages(
            operation,
            query,
            variables,
            lambda data: ((data.get("project") or {}).get("run") or {}).get("files"),
            project=f"{ref.entity}/{ref.project}",
            cursor="fileCursor",
            after=after,
        )

    def file_urls(self, ref: RunRef, names: Sequence[str]) -> dict[str, str]:
        """Signed addresses of some files, for a while."""
        urls: dict[str, str] = {}
        for start in range(0, len(names), 100):
            some = list(names[start : start + 100])
            found = self._run(ref, {"urls"}, {"fileNames": some, "fileLimit": len(some)})
            for edge in (found.get("files") or {}).get("edges") or ():
                if edge["node"].get("directUrl"):
                    urls[edge["node"]["name"]] = edge["node"]["directUrl"]
        return urls

    def download(self, url: str, path: Path) -> int:
        return self.transport.download(url, path)

    def load(self, url: str, path: Path, *, hold: int) -> bytes | Path:
        return self.transport.load(url, path, hold=hold)

    # -- asking

    def _ask(self, operation: str, query: str, variables: Mapping[str, Any], *, project: str = "") -> Node:
        """One question; again without the fields that this server turns out not to have."""
        while True:
            left_out = frozenset(self._unknown)
            text = queries.without(query, left_out) if left_out else query
            sent = {name: value for name, value in variables.items() if re.search(rf"\${name}\b", text)}
            try:
                return self.transport.ask(operation, text, sent, project=project)
            except ServerError as error:
                unknown = {name for message in error.messages for name in _UNKNOWN.findall(message)}
                news = (unknown & queries.OPTIONAL) - left_out
                if not news:
                    raise
                self._unknown |= news

    def _pages(
        self,
        operation: str,
        query: str,
        variables: Mapping[str, Any],
        connection: Any,
        *,
        project: str = "",
        cursor: str = "cursor",
        after: str | None = None,
    ) -> Iterator[Node]:
        """The nodes of a Relay connection, page by page. An empty page is not the end; one that leads nowhere is."""
        empty = 0
        while True:
            found = connection(self._ask(operation, query, {**variables, cursor: after}, project=project)) or {}
            for edge in found.get("edges") or ():
                yield edge["node"]
            page = found.get("pageInfo") or {}
            if not page.get("hasNextPage") or not page.get("endCursor"):
                return
            empty = 0 if found.get("edges") else empty + 1
            if empty > 5 or (page["endCursor"] == after and not empty):
                raise ServerError(f"{self.login.host} goes round in circles listing {project or 'projects'}")
            after = page["endCursor"]


# Only the name that it is about: what may follow is "Did you mean ...?".
_UNKNOWN = re.compile(r"(?:cannot query field|(?:unknown|undefined) (?:argument|field))\W+(\w+)", re.IGNORECASE)
