"""When a reading command asks its sources first: never, now, or if the answer would be too old.

Local folders are looked at, then the server is asked for as little as the question needs: the projects of an entity,
the runs of a project as they are listed, or one run with its rows. What cannot be reached costs freshness: as long as
the cache has an answer, that is given, and how old it is is said.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import query, targets
from .cache import Cache
from .config import Config
from .errors import (
    CacheBusy,
    CacheError,
    NotFound,
    NotPermitted,
    NotSignedIn,
    ServerError,
    Unreachable,
    UsageError,
    WandbsyncError,
)
from .model import RunRef

if TYPE_CHECKING:
    from .sources.api import Login
    from .sources.api.client import Api
    from .status import Kept
    from .sync import SyncReport

AGAIN = 60.0  # seconds before a server that could not be reached is tried again


@dataclass(frozen=True, slots=True)
class Wanted:
    """How fresh the answer has to be."""

    offline: bool = False  # never ask
    refresh: bool = False  # ask now
    max_age: float | None = None  # seconds; None: as the config says

    @property
    def is_usual(self) -> bool:
        """Whether nothing is said, so that what a daemon keeps fresh is fresh enough."""
        return not (self.offline or self.refresh) and self.max_age is None


@dataclass(frozen=True, slots=True)
class Question:
    """What a command is about: everything, one project, or some of its runs by run_id or display name."""

    project: str | None = None
    runs: tuple[str, ...] = ()
    rows: bool = False  # whether their histories are needed; else what a listing tells
    statistics: bool = False  # whether what is known of each metric would do, if the rows cannot be had
    files: bool = False  # whether their files are
    entity: str | None = None  # whose projects are to be listed, where no project is named


def stale_folders(cache: Cache, config: Config, wanted: Wanted, *, now: float, kept: Kept | None = None) -> list[Path]:
    """The local folders to look at before answering: those in the config, and those synced before.

    Not those that a daemon keeps fresh (`kept`), unless it is said how fresh the answer has to be.
    """
    if wanted.offline:
        return []
    synced = cache.sources("local") if cache.exists() else {}
    known = dict.fromkeys([*(str(folder.resolve()) for folder in config.local_folders), *synced])
    max_age = config.max_age if wanted.max_age is None else wanted.max_age
    if kept is not None and wanted.is_usual:
        known = {place: None for place in known if place not in kept.folders}
    return [Path(place) for place in known if wanted.refresh or _old(synced.get(place), max_age, now)]


def _old(synced_at: float | None, max_age: float, now: float) -> bool:
    """Whether it was synced too long ago, or never, or by a clock that was ahead of ours."""
    return synced_at is None or not 0 <= now - synced_at <= max_age


def refresh(
    cache: Cache,
    config: Config,
    wanted: Wanted,
    question: Question | None = None,
    *,
    say: Callable[[str], None],
    sync: Callable[[Cache, list[Path]], SyncReport] | None = None,
) -> None:
    """Bring up to date what is too old for an answer.

    Raises what kept the server from answering if the cache has no answer either; NotFound if neither knows it.
    """
    kept = _kept(cache) if wanted.is_usual else None
    _refresh_local(cache, config, wanted, kept, say, sync)
    if question is not None and not wanted.offline:
        _Server(cache, config, wanted, question, kept, say).refresh()


def _kept(cache: Cache) -> Kept:
    from . import status

    return status.kept(cache.folder, now=time.time())


def _refresh_local(
    cache: Cache,
    config: Config,
    wanted: Wanted,
    kept: Kept | None,
    say: Callable[[str], None],
    sync: Callable[[Cache, list[Path]], SyncReport] | None,
) -> None:
    folders = stale_folders(cache, config, wanted, now=time.time(), kept=kept)
    there = [folder for folder in folders if folder.exists()]
    for folder in folders:
        if folder not in there:
            say(f"{folder} is not there: answering from the cache")
    if not there:
        return
    if sync is None:
        from .sync import sync_local

        sync = partial(sync_local, entity=config.local_entity)
    try:
        report = sync(cache, there)
    except (CacheBusy, CacheError) as error:
        say(f"answering from the cache as it is: {error.line()}")
        return
    for problem in report.problems:
        if not problem.harmless:
            say(problem.reason)


class _Server:
    """One question, put to the server if the cache's answer is too old."""

    def __init__(
        self,
        cache: Cache,
        config: Config,
        wanted: Wanted,
        question: Question,
        kept: Kept | None,
        say: Callable[[str], None],
    ) -> None:
        self.cache, self.config, self.wanted, self.question, self.say = cache, config, wanted, question, say
        self.kept = kept
        self.now = time.time()
        self.max_age = config.max_age if wanted.max_age is None else wanted.max_age
        self.target = None if question.project is None else targets.parse(question.project)
        self.login: Login | None = None

    def refresh(self) -> None:
        if self.target is not None and self.target.entity == self.config.local_entity:
            return
        try:
            self._ask()
        except (NotSignedIn, Unreachable, ServerError, NotFound, CacheBusy, CacheError, _OtherServer) as error:
            if isinstance(error, Unreachable) and self.login and self.cache.exists():
                self._note("unreachable", self.login.base_url)
            self._answer_anyway(error)

    def _answer_anyway(self, error: WandbsyncError) -> None:
        """Go on with what is cached, or raise what stands in the way."""
        if self.wanted.refresh and isinstance(error, NotSignedIn) and not self._is_local(error):
            raise error  # who asks for news and has no key, or an old one, is to know
        has = self.cache.exists() and self._answerable()
        if has:
            quiet = isinstance(error, NotFound) or (isinstance(error, _NoKey) and not self.wanted.refresh)
            if not quiet:
                self.say(f"answering from the cache: {error.line()}")
        elif isinstance(error, _NoKey) and not self.wanted.refresh and not self.config.server_url:
            return  # whoever works with local runs only needs no key: the cache says what it does not have
        else:
            raise error

    def _is_local(self, error: NotSignedIn) -> bool:
        """Whether somebody works with local runs only, and needs no key; or may not see one project."""
        return isinstance(error, NotPermitted) or (isinstance(error, _NoKey) and not self._mirrors())

    def _mirrors(self) -> bool:
        """Whether anything in the cache came from a server."""
        return self.cache.exists() and bool(self.cache.sources("api") or self.cache.sources("listed"))

    def _answerable(self) -> bool:
        if self.target is None:
            return True
        try:
            project = query.find_project(
                self.cache, str(replace(self.target, run=None)), default_entity=self.config.default_entity
            )
            refs = [query.find_run(self.cache, project, name) for name in self.question.runs]
        except (NotFound, UsageError):
            return False
        return not self.question.rows or all(self._has_rows(ref, self.question.statistics) for ref in refs)

    def _has_rows(self, ref: RunRef, statistics: bool = False) -> bool:
        """Whether a run's rows are here; or only what is known of them, if that will do."""
        one = self.cache.mirrored(ref.entity, ref.project, ref.run_id)[ref]
        fetched = one.cursor is not None and one.cursor.fetched is not None
        return (statistics or not one.evicted) and (one.local is not None or fetched)

    def _has_files(self, ref: RunRef) -> bool:
        one = self.cache.mirrored(ref.entity, ref.project, ref.run_id)[ref]
        return one.local is not None or (one.cursor is not None and bool(json.loads(one.cursor.state).get("files")))

    # -- what to ask

    def _ask(self) -> None:
        from .sources.api import find_login

        self.login = find_login(base_url=self.config.server_url)
        if self.login is None:
            raise _NoKey("there is no API key for a W&B server")
        if self.target is None and self.question.rows:
            for target in self._followed():
                self._ask_about(target, ())
        elif self.target is None:
            self._ask_projects()
        else:
            if self.target.page and not self.login.has_page(self.target.page):
                raise _OtherServer(f"{self.target.page} is not a page of {self.login.host}, which is asked")
            entity = self._entity(self.target)
            if entity == self.config.local_entity:
                return
            self._ask_about((entity, self.target.project), self.question.runs)

    def _followed(self) -> list[tuple[str, str]]:
        """The projects that are mirrored from this server with all their rows, and are too old."""
        assert self.login
        prefix = f"{self.login.base_url} "
        found = self.cache.sources("api") if self.cache.exists() else {}
        names = [where.removeprefix(prefix) for where in found if where.startswith(prefix)]
        return [(name.split("/", 1)[0], name.split("/", 1)[1]) for name in names]

    def _ask_about(self, project: tuple[str, str], runs: Sequence[str]) -> None:
        assert self.login
        where = f"{self.login.base_url} {'/'.join(project)}"
        if self.kept is not None and where in self.kept.projects and self._has(project, runs):
            return
        if runs:
            refs = {name: self._cached(project, name) for name in runs}
            # By its run_id a run is one question; by a display name, it is looked for first.
            runs = [ref.run_id if ref else name for name, ref in refs.items() if ref is None or self._run_is_old(ref)]
            if not runs:
                return
        elif not self._is_old("api" if self.question.rows else "listed", where):
            return
        from .sync.server import Asked, Terms, sync_server

        question = self.question
        terms = Terms(rows=question.rows, files=question.files, local_entity=self.config.local_entity)
        api = self._connect()
        try:
            report = sync_server(self.cache, api, [Asked(*project, tuple(runs))], terms)
        except NotFound:
            if self.cache.exists() and not runs:
                self._note("listed", where)  # a project of local runs only: not to be asked for at every command
            raise
        finally:
            api.transport.close()
        for problem in report.problems:
            if not problem.harmless:
                self.say(problem.reason)
        if report.runs:
            from .cache.compaction import compact

            compact(self.cache)

    def _has(self, project: tuple[str, str], runs: Sequence[str]) -> bool:
        """Whether the cache has all of these runs that the question needs."""
        refs = [self._cached(project, name) for name in runs]
        return all(ref is not None and self._has_parts(ref) for ref in refs)

    def _has_parts(self, ref: RunRef) -> bool:
        """Whether the rows and files of a run are here, if they are what the question is about."""
        return (not self.question.rows or self._has_rows(ref)) and (not self.question.files or self._has_files(ref))

    def _ask_projects(self) -> None:
        assert self.login
        entity = self.question.entity or self._default_entity()
        where = f"{self.login.base_url} {entity}"
        if entity is not None and not self._is_old("projects", where):
            return
        api = self._connect()
        try:
            entity = entity or self._viewer(api)
            from .sources.api.record import unix

            projects = [
                (
                    node.get("entityName") or entity,
                    node["name"],
                    node.get("description"),
                    unix(node.get("createdAt")),
                    f"{self.login.app_url}/{node.get('entityName') or entity}/{node['name']}",
                )
                for node in api.projects(entity)
            ]
        finally:
            api.transport.close()
        self.cache.put_projects(projects)
        self._note("projects", f"{self.login.base_url} {entity}")

    def _cached(self, project: tuple[str, str], name: str) -> RunRef | None:
        """The run that a name means in the cache."""
        if not self.cache.exists():
            return None
        try:
            return query.find_run(self.cache, project, name)
        except (NotFound, UsageError):
            return None

    def _run_is_old(self, ref: RunRef) -> bool:
        """Whether a run has to be asked for: without its rows or files, or not looked at for too long."""
        if self.wanted.refresh or not self._has_parts(ref):
            return True
        return _old(self.cache.checked_at(ref), self.max_age, self.now)

    def _is_old(self, kind: str, where: str) -> bool:
        if self.wanted.refresh or not self.cache.exists():
            return True
        synced = self.cache.sources(kind).get(where)
        return _old(synced, self.max_age, self.now)

    # -- whose

    def _entity(self, target: targets.Target) -> str:
        """The entity meant: the one named, the one that has such a project in the cache, or the default one."""
        if target.entity:
            return target.entity
        if self.cache.exists():
            try:
                return query.find_project(self.cache, target.project, default_entity=self.config.default_entity)[0]
            except (NotFound, UsageError):
                pass
        known = self._default_entity()
        if known:
            return known
        api = self._connect()
        try:
            return self._viewer(api)
        finally:
            api.transport.close()

    def _default_entity(self) -> str | None:
        assert self.login
        if self.config.default_entity or self.login.entity:
            return self.config.default_entity or self.login.entity
        prefix = f"{self.login.base_url} "
        found = self.cache.sources("entity") if self.cache.exists() else {}
        return next((where.removeprefix(prefix) for where in found if where.startswith(prefix)), None)

    def _viewer(self, api: Api) -> str:
        """The default entity as the server has it; asked once."""
        viewer = api.viewer()
        entity = viewer.entity or viewer.username
        self._note("entity", f"{api.login.base_url} {entity}")
        return entity

    # -- the server

    def _connect(self) -> Api:
        from .sources.api import HASTE, connect

        assert self.login
        failed = self.cache.sources("unreachable").get(self.login.base_url) if self.cache.exists() else None
        if failed is not None and not self.wanted.refresh and not _old(failed, AGAIN, self.now):
            raise Unreachable(f"{self.login.host} could not be reached {self.now - failed:.0f} s ago")
        return connect(self.login, in_flight=self.config.in_flight, downloads=self.config.downloads, manner=HASTE)

    def _note(self, kind: str, where: str) -> None:
        self.cache.synced(kind, where, self.now)


class _OtherServer(UsageError):
    """A page was named that is not the server's that is asked."""

    hint = "WANDB_BASE_URL says which server to ask"


class _NoKey(NotSignedIn):
    """There is no key at all, as for whoever works with local runs only."""
