"""The daemon as a process: one of them for a cache; signals, the config, and the status it writes.

    SIGTERM, SIGINT     ends within five seconds: what is being committed is finished or was never begun
    SIGHUP              reads the config again, as a changed file does; a wrong one is refused, the old stays in force

It takes the lowest priority, and one processor for what Arrow and DuckDB do.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from .. import status as health
from ..cache import Cache
from ..cache.locks import alone
from ..config import Config
from ..errors import CacheBusy, CacheError, UsageError, WandbsyncError
from ..status import Snapshot
from . import folders, projects, upkeep
from .control import note_of
from .folders import Folders
from .log import Log
from .metrics import Port
from .projects import Projects
from .service import Service
from .timer import RealTimer
from .upkeep import Upkeep

if TYPE_CHECKING:
    from ..sources.api import Login
    from ..sources.api.client import Api

POOLS = {folders.POOL: 1, projects.POOL: 3, upkeep.POOL: 1}  # threads
TICK = 0.5  # seconds between two looks at signals and the config's file
TOLD = 2.0  # seconds between two times that the status is written
GRACE = 4.0  # seconds for jobs to find out that all is to end
CLOCK = 30.0  # seconds by which a clock has to be set to be noticed
TRIES, PATIENCE = 4, 60.0  # at a server that does not answer; then it is probed


@dataclass(slots=True)
class _Wanted:
    """What signals ask for; a handler does no more than note it."""

    stop: bool = False
    reload: bool = False


@dataclass(slots=True)
class _Settings:
    """The config in force, and what is known of its file."""

    load: Callable[[], Config]
    config: Config
    read_at: float
    stamp: tuple[int, int] | None
    problem: str | None = None
    pasts: dict[tuple[str, str], Any] = field(default_factory=dict)  # of projects, across configs


def run(load: Callable[[], Config], *, verbose: bool = False, quiet: bool = False) -> None:
    """Be the daemon, until a signal says so. `load` reads the config.

    Raises CacheBusy if another keeps this cache already, UsageError for a wrong config, CacheError.
    """
    config = load()
    folder = config.cache_dir.expanduser().absolute()
    settings = _Settings(load, config, time.time(), _stamp(config))
    wanted = _Wanted()
    _be_modest()
    with _signals(wanted):
        while not wanted.stop:
            with _only_one(folder) as handle:
                log = Log(folder / "logs", out=None if quiet else sys.stderr, verbose=verbose)
                try:
                    _serve(folder, handle, settings, wanted, log)
                finally:
                    log.close()


def _serve(folder: Path, handle: int, settings: _Settings, wanted: _Wanted, log: Log) -> None:
    """Serve until the process is to end, or the cache is no longer the one that was locked."""
    started_at = time.time()
    log.note("started", pid=os.getpid(), version=__version__, cache=str(folder), config=str(settings.config.file or ""))
    while True:
        again = _serve_config(folder, handle, settings, wanted, log, started_at)
        if not again:
            return


def _serve_config(folder: Path, handle: int, settings: _Settings, wanted: _Wanted, log: Log, started_at: float) -> bool:
    """Serve with one config; whether to go on with another."""
    config = settings.config
    with Cache(folder) as cache:
        _ = cache.con  # makes it, or says why not
    service = Service(RealTimer(POOLS), log)
    daemon = Daemon(config, folder, service, log, pasts=settings.pasts)
    port: Port | None = None

    def snapshot() -> Snapshot:
        return replace(
            daemon.snapshot(started_at),
            config=None if config.file is None else str(config.file),
            config_read_at=settings.read_at,
            config_problem=settings.problem,
        )

    try:
        if config.metrics_port is not None:
            port = Port(config.metrics_port, snapshot, service.clock)
        daemon.start()
        return _watch_over(folder, handle, settings, wanted, log, daemon, snapshot)
    finally:
        if port is not None:
            port.close()
        with contextlib.suppress(CacheError):
            health.write(folder, replace(snapshot(), stopping=True))
        done = daemon.stop(GRACE)
        settings.pasts = daemon.projects.pasts
        with contextlib.suppress(CacheError):
            if _is_ours(folder, handle):
                health.write(folder, replace(snapshot(), stopping=True))
        if wanted.stop:
            log.note("stopped", finished=done)
        if not done:
            # Whoever is still at it has committed nothing, or all of it: it is as safe as a power cut.
            log.close()
            os._exit(0)


def _watch_over(
    folder: Path,
    handle: int,
    settings: _Settings,
    wanted: _Wanted,
    log: Log,
    daemon: Daemon,
    snapshot: Callable[[], Snapshot],
) -> bool:
    """Look after the daemon while it works; whether it is to begin anew with another config."""
    ahead = time.time() - time.monotonic()
    told = -TOLD
    while not wanted.stop:
        if not _is_ours(folder, handle):
            log.problem("cache gone", cache=str(folder), then="it is begun anew")
            return False
        stamp = _stamp(settings.config)
        if wanted.reload or stamp != settings.stamp:
            wanted.reload, settings.stamp = False, stamp
            if _read_again(settings, folder, log):
                return True
            told = -TOLD
        drift = time.time() - time.monotonic() - ahead
        if abs(drift) > CLOCK:
            log.note("clock was set", by=round(drift, 1))
            ahead += drift
            daemon.service.set_clock()
        if time.monotonic() - told >= TOLD:
            told = time.monotonic()
            with contextlib.suppress(CacheError):  # a full disk: the lock still tells that there is a daemon
                health.write(folder, snapshot())
        time.sleep(TICK)
    return False


def _read_again(settings: _Settings, folder: Path, log: Log) -> bool:
    """Read the config again; whether it is another one, and right."""
    settings.read_at = time.time()
    try:
        config = settings.load()
        if config.cache_dir.expanduser().absolute() != folder:
            raise UsageError("cache.dir is another one", hint="restart the daemon for that")
    except UsageError as error:
        settings.problem = error.line()
        log.problem("config refused", reason=settings.problem)
        return False
    settings.problem = None
    changed = config != settings.config
    settings.config, settings.stamp = config, _stamp(config)
    log.note("config read", file=str(config.file or ""), changed=changed)
    return changed


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
        pasts: dict[tuple[str, str], Any] | None = None,
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
        self.upkeep = Upkeep(folder, service, log)
        self._follower = threading.Thread(target=self.folders.run, name="follow", daemon=True)

    def start(self) -> None:
        """Begin with everything."""
        now = self.service.clock()
        self.service.add(folders.SCAN, folders.POOL, self.folders.scan, now)
        self.service.add(projects.DISCOVER, projects.POOL, self.projects.discover, now)
        self.service.add(upkeep.UPKEEP, upkeep.POOL, self.upkeep.tidy, now + upkeep.EVERY)
        self._follower.start()

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
            memory=peak * (1 if sys.platform == "darwin" else 1024),
        )


def _login(config: Config) -> Login | None:
    from ..sources.api import find_login

    return find_login(base_url=config.server_url)


def _connect(login: Login, config: Config) -> Api:
    from ..sources.api import Manner, connect

    manner = Manner(attempts=TRIES, patience=PATIENCE)
    return connect(login, in_flight=config.in_flight, downloads=config.downloads, manner=manner)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[int]:
    """Hold the daemon's lock on a cache. Raises CacheBusy, which says who holds it."""
    lock = health.lock_of(folder)
    held = alone(lock, note_of(os.getpid()))
    try:
        handle = held.__enter__()
    except CacheBusy as error:
        raise CacheBusy(
            f"process {error} keeps the cache {folder} fresh already",
            hint="`wandbsync status` tells how it is, `wandbsync daemon stop` stops it",
        ) from None
    try:
        yield handle
    finally:
        held.__exit__(None, None, None)


def _is_ours(folder: Path, handle: int) -> bool:
    """Whether the lock that is held is the one that others would find."""
    if handle < 0:
        return True
    try:
        there = health.lock_of(folder).stat()
    except OSError:
        return False
    held = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def _stamp(config: Config) -> tuple[int, int] | None:
    if config.file is None:
        return None
    try:
        found = config.file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _be_modest() -> None:
    """Be the last one that a processor works for."""
    with contextlib.suppress(OSError):
        os.nice(10)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import pyarrow as pa

    pa.set_cpu_count(1)


@contextlib.contextmanager
def _signals(wanted: _Wanted) -> Iterator[None]:
    def stop(*_: object) -> None:
        wanted.stop = True

    def again(*_: object) -> None:
        wanted.reload = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, again)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["Daemon", "WandbsyncError", "run"]
