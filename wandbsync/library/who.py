"""Which server is meant, with whose key, and whose projects where nobody is named."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..cache import Cache
from ..config import Config
from ..errors import NotSignedIn, UsageError
from ..targets import parse

if TYPE_CHECKING:
    from ..sources.api import Login
    from ..sources.api.client import Api, Viewer
    from ..sync.server import Asked


def login(config: Config) -> Login | None:
    """The login that W&B's own settings name, None if there is none."""
    from ..sources.api import find_login

    return find_login(base_url=config.server_url)


@contextmanager
def server(config: Config) -> Iterator[Api]:
    """The server, to be asked. Raises NotSignedIn if there is no key."""
    with on_demand(config) as server:
        yield server()


@contextmanager
def on_demand(config: Config) -> Iterator[Callable[[], Api]]:
    """Gives a callable that gives the server, connected when first asked for; threads may share it."""
    from ..sources.api import connect

    lock = threading.Lock()

    @functools.cache
    def connected() -> Api:
        return connect(_needed(config), in_flight=config.in_flight, downloads=config.downloads)

    def server() -> Api:
        with lock:
            return connected()

    try:
        yield server
    finally:
        if connected.cache_info().currsize:
            connected().transport.close()


def _needed(config: Config) -> Login:
    found = login(config)
    if found is None:
        raise NotSignedIn("there is no API key for a W&B server")
    return found


def viewer(cache: Cache, config: Config, *, offline: bool) -> Viewer:
    """Whose key it is; asked once, then known. Raises NotSignedIn, Unreachable, or UsageError offline."""
    from ..sources.api.client import Viewer

    found = login(config)
    kept = _kept(cache, "viewer", found.base_url if found else None)
    if kept is not None:
        said = json.loads(kept)
        return Viewer(said["username"], said["entity"], tuple(said["teams"]))
    if offline:
        raise UsageError("whose key it is has not been asked yet", hint="ask once without offline")
    with server(config) as api:
        one = api.viewer()
        said = {"username": one.username, "entity": one.entity, "teams": one.teams}
        cache.synced("viewer", f"{api.login.base_url} {json.dumps(said)}", time.time())
        cache.synced("entity", f"{api.login.base_url} {one.entity or one.username}", time.time())
    return one


def default_entity(cache: Cache, config: Config, *, offline: bool) -> str | None:
    """Whose projects are meant where nobody is named: as the settings say, else as the server says; None if unknown."""
    found = login(config)
    known = config.default_entity or (found.entity if found else None)
    known = known or _kept(cache, "entity", found.base_url if found else None)
    if known or offline or found is None:
        return known
    one = viewer(cache, config, offline=False)
    return one.entity or one.username


def _kept(cache: Cache, kind: str, base_url: str | None) -> str | None:
    """What is known from before of the server, or without a key, of the only one that there was."""
    if not cache.exists():
        return None
    found = [where.split(" ", 1) for where in cache.sources(kind)]
    some = [text for url, text in found if base_url is None or url == base_url]
    return some[-1] if some else None


def other_server(page: str, login: Login) -> UsageError:
    """What to say of a page that is not on the server whose key is at hand: another server is not to get it."""
    url = urlsplit(page)
    return UsageError(
        f"{page} is a page of {url.netloc}, and the server that is asked is {login.host}",
        hint=f"WANDB_BASE_URL={url.scheme}://{url.netloc} asks that one, with its own key",
    )


def asked(api: Api, config: Config, names: Sequence[str], exclude: Sequence[str] = ()) -> list[Asked]:
    """The projects and runs that are meant to be synced; patterns are looked up on the server. Raises UsageError."""
    from ..plan.discovery import wanted
    from ..sync.server import Asked

    whole: dict[tuple[str, str], Asked] = {}
    runs: dict[tuple[str, str], list[str]] = {}
    one: Any = None
    for target in map(parse, names):
        if target.page and not api.login.has_page(target.page):
            raise other_server(target.page, api.login)
        entity = target.entity or config.default_entity or api.login.entity
        if entity is None:
            one = one or api.viewer()
            entity = one.entity or one.username
        if target.run is not None:
            runs.setdefault((entity, target.project), []).append(target.run)
        elif target.is_pattern:
            there = [f"{entity}/{node['name']}" for node in api.projects(entity)]
            for name in wanted(there, [f"{entity}/{target.project}"], exclude):
                project = name.split("/", 1)[1]
                whole[entity, project] = Asked(entity, project)
        else:
            whole[entity, target.project] = Asked(entity, target.project)
    if not whole and not runs:
        raise UsageError(f"no project fits {', '.join(names)}", hint="`wandbsync list-projects --refresh` lists them")
    return [*whole.values(), *(Asked(*key, tuple(some)) for key, some in runs.items() if key not in whole)]
