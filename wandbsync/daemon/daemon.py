"""All jobs of one cache with one config: begun together, ended together, seen as one status."""

from __future__ import annotations

import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..config import Config
from ..plan.schedule import Past
from ..status import Snapshot
from . import folders, lake, projects, upkeep
from .folders import Folders
from .lake import Publisher
from .log import Log
from .projects import Project, Projects
from .service import Service
from .upkeep import Upkeep

if TYPE_CHECKING:
    from ..sources.api import Login
    from ..sources.api.client import Api

POOLS = {folders.POOL: 1, projects.POOL: 3, upkeep.POOL: 1, lake.POOL: 1}  # threads
TRIES, PATIENCE = 4, 60.0  # at a server that does not answer; then it is probed


class Daemon:
    """All jobs of one cache with one config."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        service: Service,
        log: Log,
        *,
        login: Callable[[], Login | None] | None = None,
        connect: Callable[[Login], Api] | None = None,
        pasts: Mapping[Project, Past] | None = None,
    ) -> None:
        self.service = service
        self.folders = Folders(config, folder, service, log)
        self.projects = Projects(
            config,
            folder,
            service,
            log,
            login=login or (lambda: _login(config)),
            connect=connect or (lambda login: _connect(login, config)),
            pasts=pasts,
        )
        self.upkeep = Upkeep(config, folder, service, log)
        self.lake = Publisher(config, folder, service, log)
        self._follower = threading.Thread(target=self.folders.run, name="follow", daemon=True)

    def start(self) -> None:
        """Begin with everything."""
        self.begin()
        self._follower.start()

    def begin(self) -> None:
        """Begin with the jobs that have their times."""
        now = self.service.clock()
        self.folders.begin()
        self.service.add(folders.SCAN, folders.POOL, self.folders.scan, now)
        self.service.add(projects.DISCOVER, projects.POOL, self.projects.discover, now)
        self.service.add(upkeep.UPKEEP, upkeep.POOL, self.upkeep.tidy, now + upkeep.EVERY)
        if self.lake.config.lake_url is not None:
            self.service.add(lake.PUBLISH, lake.POOL, self.lake.publish, now + upkeep.EVERY)

    def stop(self, patience: float) -> bool:
        """Begin nothing more; whether all that was under way has come to its end within so many seconds."""
        deadline = time.monotonic() + patience
        self.service.stop()
        self.projects.stop()
        self.folders.watch.stop()
        done = self.service.wait(patience)
        if self._follower.is_alive():
            self._follower.join(max(0.0, deadline - time.monotonic()))
        if done:
            self.projects.close()
        return done and not self._follower.is_alive()

    def snapshot(self, started_at: float) -> Snapshot:
        """How it is now."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Snapshot(
            os.getpid(),
            socket.gethostname(),
            __version__,
            started_at,
            self.service.clock(),
            sources=[*self.folders.sources(), *self.projects.sources()],
            jobs=self.service.status(),
            live=self.folders.live(),
            server=self.projects.status(),
            too_large=self.upkeep.too_large,
            damaged=self.upkeep.damaged,
            memory=peak * (1 if sys.platform == "darwin" else 1024),
        )


def _login(config: Config) -> Login | None:
    from ..sources.api import find_login

    return find_login(base_url=config.server_url)


def _connect(login: Login, config: Config) -> Api:
    from ..sources.api import Manner, connect

    manner = Manner(attempts=TRIES, patience=PATIENCE)
    return connect(login, in_flight=config.in_flight, downloads=config.downloads, manner=manner)
