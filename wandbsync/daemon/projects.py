"""The projects of a W&B server: each is looked at in turn, as often as it needs, under one budget for all.

    discover     now and then: which projects there are, those named by a pattern, those that were synced by hand
    look         one project: what can have changed, or everything; for so long, then it is the next one's turn
    probe        a server that is away, or does not know the key: one cheap question, seldom, before all others go on

When to look is decided in plan/schedule.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache import Cache
from ..config import Config
from ..errors import (
    CacheBusy,
    NotFound,
    NotPermitted,
    NotSignedIn,
    RateLimited,
    ServerError,
    Unreachable,
    WandbsyncError,
)
from ..model import Pace
from ..plan import schedule
from ..plan.discovery import RunFilter, wanted
from ..plan.schedule import Past
from ..status import Server as ServerStatus
from ..status import Source
from .log import Log
from .service import Service

if TYPE_CHECKING:
    from ..sources.api import Login
    from ..sources.api.client import Api

POOL = "projects"
DISCOVER = "find projects"
PROBE = "probe server"
SLICE = 60.0  # seconds that one look may take before others have their turn
AGAIN = 60.0  # seconds between two looks at what was synced by hand meanwhile
LISTING = 3600.0  # seconds between two listings of an entity's projects
AWAY = (502, 503, 504)  # what a server answers that is not there itself
BUSY = 30.0  # seconds after which a project that somebody syncs by hand is looked at

Project = tuple[str, str]


class Projects:
    """The jobs for a server, called by the service."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        service: Service,
        log: Log,
        *,
        login: Callable[[], Login | None],
        connect: Callable[[Login], Api],
        pasts: Mapping[Project, Past] | None = None,
    ) -> None:
        """`folder` is the cache's; `pasts` is what was known before the config was read again."""
        self.config, self.folder, self.service, self.log = config, folder, service, log
        self._login, self._connect = login, connect
        self.pasts: dict[Project, Past] = dict(pasts or {})
        self._listed: dict[str, tuple[float, list[str]]] = {}  # entity -> when its projects were listed, and which
        self._lock = threading.Lock()
        self._api: Api | None = None
        self._away: str | None = None  # why nobody is asked
        self._since: float | None = None
        self._probes = 0
        self._next_probe: float | None = None
        self._only = RunFilter(config.states, config.tags, config.newer_than)

    # -- which

    def discover(self) -> float | None:
        """Find the projects to be kept fresh, and have each looked at; when to do it next (unix seconds)."""
        with Cache(self.folder) as cache:
            synced = cache.sources("api")
        login = self._login()
        if login is None and not (self.config.projects or synced):
            return self.service.clock() + AGAIN  # whoever works with local runs only needs no key
        if login is None:
            self._server_is_away("there is no API key for a W&B server; run `wandb login` or set WANDB_API_KEY")
            return self.service.clock() + AGAIN
        prefix = f"{login.base_url} "
        here = {where.removeprefix(prefix): at for where, at in synced.items() if where.startswith(prefix)}
        swept = {_parts(name): here[name] for name in wanted(here, exclude=self.config.exclude)}
        wanted_now = dict.fromkeys(swept)
        if self._away is None:
            api = self._server(login)
            try:
                wanted_now |= dict.fromkeys(self._matching(api))
            except (Unreachable, NotSignedIn, ServerError) as error:
                if not isinstance(error, RateLimited):
                    self._server_is_away(error.line())
                wanted_now |= dict.fromkeys(self.pasts)
        else:
            wanted_now |= dict.fromkeys(self.pasts)
        for project in self.pasts.keys() - wanted_now.keys():
            self._forget(project)
        for project in wanted_now:
            if project not in self.pasts or self._job(project) not in self.service.names():
                self.pasts.setdefault(project, Past(fresh_at=swept.get(project), swept_at=swept.get(project)))
                self._plan(project)
        return self.service.clock() + AGAIN

    def _matching(self, api: Api) -> list[Project]:
        """The projects that the config names."""
        found: list[Project] = []
        for pattern in self.config.projects:
            entity = _parts(pattern)[0]
            if not any(char in pattern for char in "*?["):
                found.append(_parts(pattern))
                continue
            now = self.service.clock()
            at, names = self._listed.get(entity, (None, []))
            if at is None or not 0 <= now - at < LISTING:
                try:
                    names = [f"{entity}/{node['name']}" for node in api.projects(entity)]
                except (NotFound, NotPermitted, ServerError) as error:
                    if _is_away(error):
                        raise
                    self.log.problem("not listed", projects=pattern, reason=error.line())
                self._listed[entity] = now, names
            found += [_parts(one) for one in wanted(names, [pattern], self.config.exclude)]
        return found

    def _forget(self, project: Project) -> None:
        self.service.drop(self._job(project))
        self.pasts.pop(project, None)

    @staticmethod
    def _job(project: Project) -> str:
        return f"sync {project[0]}/{project[1]}"

    def _plan(self, project: Project) -> None:
        at = None if self._away else self._next(project).at
        self.service.add(self._job(project), POOL, lambda: self.look(project), at)

    def _next(self, project: Project) -> schedule.Look:
        return schedule.next_look(self.pasts[project], self._pace(project), now=self.service.clock())

    def _pace(self, project: Project) -> Pace:
        return schedule.pace_of("/".join(project), self.config.pace, self.config.paces)

    # -- look

    def look(self, project: Project) -> float | None:
        """Look at a project; when to do it next (unix seconds), None if its server is away."""
        if self._away is not None:
            return None
        login = self._login()
        if login is None:
            self._server_is_away("there is no API key any more")
            return None
        now, past = self.service.clock(), self.pasts[project]
        sweep = schedule.next_look(past, self._pace(project), now=now).sweep
        try:
            self.pasts[project] = self._synced(self._server(login), project, past, sweep=sweep)
        except RateLimited as error:
            quiet = self._quiet_until() or now + BUSY
            self.pasts[project] = schedule.put_off(past, at=now, until=quiet)
            self.log.detail("put off", project="/".join(project), until=quiet, reason=error.line())
        except (NotFound, NotPermitted, ServerError) as error:
            if _is_away(error):
                self._server_is_away(error.line())
                return None
            self.pasts[project] = schedule.failed(past, at=now, error=error.line())
            self.log.problem("failed", job=self._job(project), error=error.line(), failures=past.failures + 1)
        except CacheBusy:  # it is being synced by hand
            self.pasts[project] = schedule.put_off(past, at=now, until=now + BUSY)
        except (Unreachable, NotSignedIn) as error:
            self._server_is_away(error.line())
            return None
        return self._next(project).at

    def _synced(self, api: Api, project: Project, past: Past, *, sweep: bool) -> Past:
        """Sync a project for a while. Raises what sync_server raises."""
        from ..sync.files import MirroredFiles
        from ..sync.server import Asked, Terms, sync_server

        clock, service = self.service.clock, self.service
        started = clock()
        terms = Terms(
            only=self._only,
            local_entity=self.config.local_entity,
            mirrored=MirroredFiles(self.config.files, self.config.files_max_size),
            quick=not sweep,
            shared=True,
            enough=lambda: service.stopping.is_set() or clock() - started > SLICE,
            now=clock,
        )
        with Cache(self.folder) as cache:
            report = sync_server(cache, api, [Asked(*project)], terms)
            running = cache.going_on(*project)
        self._reached()
        if report.runs or report.deleted:
            self.log.note(
                "synced",
                project="/".join(project),
                runs=report.runs,
                new=report.new_runs,
                rows=report.rows,
                deleted=report.deleted,
                seconds=round(report.seconds, 3),
                more=report.more,
            )
        for problem in report.problems:
            self.log.detail("incomplete", subject=problem.subject, reason=problem.reason)
        news = bool(report.runs or report.deleted)
        return schedule.came_to_its_end(
            past, began=started, at=clock(), sweep=sweep, more=report.more, news=news, running=running
        )

    # -- the server

    def _server(self, login: Login) -> Api:
        """The server, with the budget that all share; another one if the login is another by now."""
        with self._lock:
            if self._api is None or self._api.login != login:
                if self._api is not None:
                    self._api.transport.close()
                self.log.hide({login.key})
                self._api = self._connect(login)
            return self._api

    def _server_is_away(self, why: str) -> None:
        """Ask nothing more until a probe says that it is back."""
        with self._lock:
            first = self._away is None
            self._away = why
            if first:
                self._since, self._probes = self.service.clock(), 0
                self._next_probe = self._since + schedule.probe_after(0)
        if first:
            self.log.problem("server away", reason=why)
            self.service.add(PROBE, POOL, self.probe, self._next_probe)

    def probe(self) -> float | None:
        """Ask whether the server is back; when to do that next, None if it is."""
        login = self._login()
        try:
            if login is None:
                raise NotSignedIn("there is no API key for a W&B server")
            self._server(login).viewer()
        except (Unreachable, NotSignedIn, ServerError) as error:
            self._away = error.line()
            self._probes += 1
            self._next_probe = self.service.clock() + schedule.probe_after(self._probes)
            return self._next_probe
        self._reached()
        for project in list(self.pasts):
            self.service.wake(self._job(project))
        self.service.wake(DISCOVER)
        return None

    def _reached(self) -> None:
        with self._lock:
            if self._away is not None or self._since is None:
                if self._away is not None:
                    self.log.note("server back", away_for=round(self.service.clock() - (self._since or 0.0), 1))
                self._away, self._since, self._probes = None, self.service.clock(), 0
                self._next_probe = None

    def _quiet_until(self) -> float | None:
        """The server wants no request before then (unix seconds)."""
        if self._api is None:
            return None
        budget = self._api.transport.budget
        left = budget.quiet_until - budget.clock()
        return self.service.clock() + left if left > 0 else None

    def stop(self) -> None:
        """Wake whoever waits for the server."""
        if self._api is not None:
            self._api.transport.budget.stop()

    def close(self) -> None:
        if self._api is not None:
            self._api.transport.close()

    # -- status

    def sources(self) -> list[Source]:
        base = self._api.login.base_url if self._api is not None else self.config.server_url or ""
        found = []
        for project, past in sorted(self.pasts.items()):
            pace = self._pace(project)
            at = None if self._away else schedule.next_look(past, pace, now=self.service.clock()).at
            wait = schedule.interval(past, pace)
            name = f"{base} {'/'.join(project)}"
            found.append(Source("api", name, past.fresh_at, wait, at, past.running, past.failures, past.error))
        return found

    def status(self) -> ServerStatus | None:
        if self._api is None and self._away is None:
            return None
        status = ServerStatus(
            reachable=None if self._since is None else self._away is None,
            since=self._since,
            error=self._away,
            next_probe_at=self._next_probe,
            quiet_until=self._quiet_until(),
            in_flight=self.config.in_flight,
        )
        if self._api is None:
            return status
        transport = self._api.transport
        return replace(
            status,
            url=self._api.login.base_url,
            requests=transport.requests,
            bytes=transport.bytes,
            waited=transport.budget.waited,
        )


def _is_away(error: WandbsyncError) -> bool:
    """Whether an error is not about what was asked for, but about who was asked."""
    return isinstance(error, ServerError) and error.status in AWAY


def _parts(name: str) -> Project:
    entity, _, project = name.partition("/")
    return entity, project
