"""The W&B server as a source: what can be asked of it. Every method is one question, or its pages in turn."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import NotFound, NotPermitted, ServerError, TimedOut, TooLarge, Unreachable, nearest
from ...model import RunRef
from . import queries
from .answers import wrong_key
from .credentials import Login
from .nodes import Node, next_cursor, nodes, sensible
from .nodes import listed as listed_node
from .nodes import run as run_node
from .record import number
from .transport import Transport

RUNS_A_PAGE = 1000  # without their records
RECORDS_A_PAGE = 100  # a config may be large
PROJECTS_A_PAGE = 200
FILES_A_PAGE = 1000
NEAR = 1000  # names that one that is not there is compared with
LINES_A_PAGE = 1000
EMPTY_PAGES = 1000  # in a row, of what is hidden from this user: a million runs
BLOCKED = 300.0  # seconds in which a storage that could not be reached is not tried for other files
HASTY = 2  # attempts to get what can be asked for in smaller pieces, or was asked for in vain with other things

SILENT = (NotFound, NotPermitted, ServerError, Unreachable)  # when it is only about a hint


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
        self._doubtful = set(queries.RARE)  # those it has not answered yet
        self._blocked: dict[str, tuple[float, Unreachable]] = {}  # storages that cannot be reached: until when, and why

    # -- who and which

    def viewer(self) -> Viewer:
        found = self._ask("Viewer", queries.VIEWER, {}).get("viewer")
        if not found:  # W&B answers so, with HTTP 200, where the key is wrong or has expired
            raise wrong_key(self.login)
        with sensible(self.login.host):
            teams = tuple(team["name"] for team in nodes(found.get("teams")))
            return Viewer(found.get("username") or found.get("entity") or "", found.get("entity"), teams)

    def projects(self, entity: str) -> list[Node]:
        """The projects of an entity: name, entityName, description, createdAt."""
        variables = {"entity": entity, "perPage": PROJECTS_A_PAGE}
        found = list(self._pages("GetProjects", queries.PROJECTS, variables, lambda data: data.get("models")))
        if not found:
            self.viewer()  # raises NotSignedIn: whoever has no good key sees no projects
        return found

    def runs(
        self, entity: str, project: str, *, filters: str | None = None, records: bool = False
    ) -> Iterator[tuple[Node, int]]:
        """The runs of a project, oldest first, each once, and how many the server counts.

        With `records` their configs and summaries too, but for a run whose record the server cannot give. Raises
        NotFound if there is no such project, or none to see.
        """
        query = queries.RUNS_WITH_RECORDS if records else queries.RUNS
        counted = 0

        def runs(data: Node) -> Node | None:
            nonlocal counted
            if data.get("project") is None:
                raise self._no_project(entity, project)
            counted = number(data["project"].get("runCount")) or 0
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
        without = queries.RUNS if records else None
        for node in self._pages("Runs", query, variables, runs, project=f"{entity}/{project}", instead=without):
            if node["name"] not in seen:
                seen.add(node["name"])
                yield node, counted

    def _no_project(self, entity: str, project: str) -> NotFound:
        hint = "`wandbsync list-projects --refresh` lists those there are"
        with contextlib.suppress(*SILENT):
            self.viewer()  # raises NotSignedIn if it is the key: of some servers those without a good one see nothing
            if names := [f"{entity}/{node['name']}" for node in itertools.islice(self.projects(entity), NEAR)]:
                hint = nearest(f"{entity}/{project}", names)
        return NotFound(f"{self.login.host} has no project {entity}/{project}, or not for this key", hint=hint)

    def no_run(self, ref: RunRef) -> NotFound:
        """What to say of a run that was asked for by a name that none has."""
        hint = "`wandbsync list-runs` lists those there are"
        with contextlib.suppress(*SILENT):
            some = [node for node, _ in itertools.islice(self.runs(ref.entity, ref.project), NEAR)]
            names = dict.fromkeys(text for node in some for text in (node["name"], node.get("displayName")) if text)
            if names:
                hint = nearest(ref.run_id, names)
        where = f"{ref.entity}/{ref.project}"
        return NotFound(f"{self.login.host} has no run {ref.run_id} in {where}, or not for this key", hint=hint)

    # -- one run

    def run(self, ref: RunRef, parts: Collection[str], **variables: Any) -> Node:
        """Some parts (keys of queries.PARTS) of a run in one question.

        A part that the server refuses is asked for alone; if it is refused again it is missing from the answer, and
        `errors` there says why: part -> ServerError. Of a record the summary may be missing alone.
        """
        asked = set(parts)
        node: Node = {}
        if "exports" in asked:
            variables["liveKeys"] = ["_step"]
        try:
            node = self._run(ref, asked, variables)
            # Servers that go by the operation's name answer no more than the SDK asks under it.
            asked = {part for part in asked if queries.FIRST[part] not in {*node, *self._unknown}}
            if not asked or len(parts) == 1:
                return node
        except ServerError as error:
            if (asked == {"record"} and not _is_its_own(error)) or (len(asked) == 1 and "record" not in asked):
                raise
        errors: dict[str, ServerError] = {}
        for part in sorted(asked, key=list(queries.PARTS).index):
            try:
                node |= self._run(ref, {part}, variables, attempts=HASTY)
            except ServerError as error:  # noqa: PERF203
                errors["summary" if part == "record" else part] = error
                if part == "record":
                    if not _is_its_own(error):
                        raise
                    node |= self._less(ref, errors)
        return node | {"errors": errors}

    def _less(self, ref: RunRef, errors: dict[str, ServerError]) -> Node:
        """What there is of a record whose summary is refused."""
        try:
            return self._run(ref, {"config"}, {}, attempts=HASTY)
        except ServerError as error:
            errors["config"] = error
            return self._run(ref, {"listed"}, {}, attempts=HASTY)

    def _run(
        self, ref: RunRef, parts: Collection[str], variables: Mapping[str, Any], *, attempts: int | None = None
    ) -> Node:
        operation, query = queries.about_run(parts)
        used = {name: value for name, value in variables.items() if re.search(rf"\${name}\b", query)}
        named = {"entity": ref.entity, "project": ref.project, queries.run_variable(operation): ref.run_id}
        project = f"{ref.entity}/{ref.project}"
        data = self._ask(operation, query, {**named, **used}, project=project, attempts=attempts)
        with sensible(self.login.host):
            there = data.get("project")
            found = (there or {}).get("run")
            if found is not None:
                return run_node(found)
        if there is None:  # the project is gone, or the key has expired meanwhile: no word on the run
            raise self._no_project(ref.entity, ref.project)
        raise NotFound(f"{self.login.host} has no run {ref}, or not for this key")

    def page(self, ref: RunRef, first: int, stop: int, samples: int, *, hasty: bool = False) -> list[Node]:
        """The rows with first <= step < stop; a sample of them if there are more than `samples`.

        `hasty`: do not insist on it, fewer of them would do.
        """
        variables = {"minStep": first, "maxStep": stop, "pageSize": samples}
        found = self._run(ref, {"page"}, variables, attempts=HASTY if hasty else None)
        rows: list[Node] = found.get("history") or []
        return rows

    def console(self, ref: RunRef, after: str | None) -> Node:
        """A page of console lines: the connection, with `edges` and `pageInfo`."""
        found = self._run(ref, {"console"}, {"first": LINES_A_PAGE, "after": after})
        return found.get("logLines") or {}

    def more_files(self, ref: RunRef, after: str) -> Iterator[Node]:
        """The files after a cursor, to the end."""
        operation, query = queries.about_run({"files"})
        variables = {"entity": ref.entity, "project": ref.project, "fileLimit": FILES_A_PAGE}
        variables[queries.run_variable(operation)] = ref.run_id
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
            urls |= {one["name"]: one["directUrl"] for one in nodes(found.get("files")) if one.get("directUrl")}
        return urls

    def download(self, url: str, path: Path) -> int:
        return self.transport.download(url, path)

    def load(self, url: str, path: Path, *, hold: int) -> bytes | Path:
        """What `Transport.load` does; a storage that could not be reached is left alone for a while."""
        storage, clock = urlsplit(url).netloc, self.transport.budget.clock
        until, error = self._blocked.get(storage, (0.0, None))
        if error is not None and clock() < until:
            raise error
        try:
            return self.transport.load(url, path, hold=hold)
        except Unreachable as why:
            self._blocked[storage] = clock() + BLOCKED, why
            raise

    # -- asking

    def _ask(
        self,
        operation: str,
        query: str,
        variables: Mapping[str, Any],
        *,
        project: str = "",
        attempts: int | None = None,
    ) -> Node:
        """One question; again without the fields that this server turns out not to have."""
        suspects: set[str] = set()
        while True:
            left_out = frozenset(self._unknown | suspects)
            text = queries.without(query, left_out) if left_out else query
            sent = {name: value for name, value in variables.items() if re.search(rf"\${name}\b", text)}
            doubtful = {name for name in self._doubtful if re.search(rf"\b{name}\b", text)}
            try:
                data = self.transport.ask(operation, text, sent, project=project, attempts=attempts)
            except ServerError as error:
                news = (_unknown(error.messages) & queries.OPTIONAL) - left_out
                self._unknown |= news
                if not news and doubtful and error.status in (None, 400, 422) and error.data is None:
                    suspects |= doubtful  # it does not say what it has against the question
                elif not news:
                    if project and _says_absent(error):
                        return {}
                    raise
            else:
                self._doubtful -= doubtful
                return data

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
        instead: str | None = None,
    ) -> Iterator[Node]:
        """The nodes of a Relay connection, page by page.

        A page that is too much for the server is halved until it comes; where one node alone does not come, `instead`
        is asked of it, which wants less. An empty page is not the end; a cursor that does not advance is an error.
        """
        empty, past = 0, {after}
        usual = size = int(variables.get("perPage", 1))
        while True:
            asked = {**variables, cursor: after} | ({"perPage": size} if "perPage" in variables else {})
            try:
                data = self._ask(operation, query, asked, project=project, attempts=HASTY if size > 1 else None)
            except (ServerError, TimedOut) as error:
                if not is_too_much(error) or (size == 1 and instead is None):
                    raise
                if size > 1:
                    size //= 2
                    continue
                data = self._ask(operation, instead or query, asked, project=project)
                size = usual
            with sensible(self.login.host):
                found = connection(data) or {}
                some, end = [listed_node(node) for node in nodes(found)], next_cursor(found)
                empty = 0 if found.get("edges") else empty + 1
            yield from some
            if end is None:
                return
            if not end or end in past or empty > EMPTY_PAGES:
                raise ServerError(f"listing {project or 'projects'}: the cursor of {self.login.host} does not advance")
            past.add(end)
            after = end


def is_too_much(error: Exception) -> bool:
    """Whether the answer may come if less is asked for: W&B's gateway answers 502, its database 500, or nothing."""
    return isinstance(error, (TimedOut, TooLarge)) or (
        isinstance(error, ServerError) and error.status in (413, 500, 502, 504)
    )


def _is_its_own(error: ServerError) -> bool:
    """Whether it may be the fault of a run's record, so that less of it can be had, and not of the question."""
    return is_too_much(error) or (error.status is None and bool(error.messages))


# That there is no such thing, for those that say so besides answering null. "run not found for history loading" is not
# of these: W&B says so of a run that it has, and whose rows it cannot read.
_ABSENT = re.compile(
    r"\b(?:entity|project|model|run|bucket)\b.{0,100}(?:not found(?! for history)|not exist|n't exist)"
    r"|(?:not find|n't find|no such|unknown|no) (?:the |a |any )?(?:entity|project|model|run|bucket)\b",
    re.IGNORECASE,
)


def _says_absent(error: ServerError) -> bool:
    if error.data and any((one or {}).get("run") is not None for one in error.data.values() if isinstance(one, dict)):
        return False
    return error.status in (None, 404) and any(map(_ABSENT.search, error.messages))


# What a server has against a field or an argument. Only the name that it is about: what may follow is "Did you mean".
_REFUSED = re.compile(
    r"(?:cannot query|unknown|undefined|unrecogni[sz]ed|no such|invalid|unexpected)(?: field| argument)s?\W+(\w+)"
    r"|(?:field|argument)\W+(\w+)\W+(?:of type \S+ |on \S+ (?:\S+ )?)?(?:is |was )?"
    r"(?:does ?n[o']t|not |un(?:known|defined|recogni[sz]ed|expected)|invalid)",
    re.IGNORECASE,
)


def _unknown(messages: Sequence[str]) -> set[str]:
    """The names that the server says it does not know."""
    return {name for message in messages for names in _REFUSED.findall(message) for name in names if name}
