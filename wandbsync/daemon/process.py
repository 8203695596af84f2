"""The daemon as a process: one of them for a cache; signals, the config, and the status it writes.

    SIGTERM, SIGINT     ends within five seconds: what is being committed is finished or was never begun
    SIGHUP              reads the config again, as a changed file does; a wrong one is refused, the old stays in force

It takes the lowest priority, and one processor for what Arrow does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from .. import __version__
from .. import status as health
from ..cache import Cache
from ..cache.locks import alone
from ..config import Config, default_file
from ..errors import CacheBusy, CacheError, UsageError, WandbsyncError
from ..plan.schedule import Past
from ..status import Snapshot
from . import metrics
from .daemon import POOLS, Daemon
from .log import Log
from .metrics import Port
from .projects import Project
from .service import Service
from .timer import RealTimer

TICK = 0.5  # seconds between two looks at signals and the config's file
TOLD = 2.0  # seconds between two times that the status is written
GRACE = 4.0  # seconds for jobs to find out that all is to end
CLOCK = 30.0  # seconds by which a clock has to be set to be noticed


def run(load: Callable[[], Config], *, verbose: bool = False, quiet: bool = False) -> None:
    """Be the daemon, until a signal says so. `load` reads the config.

    Raises CacheBusy if another keeps this cache already, UsageError for a wrong config, CacheError.
    """
    process = _Process(load)
    _be_modest()
    with process.signals():
        while not process.is_to_stop:
            with _only_one(process.folder) as handle:
                log = Log(process.folder / "logs", out=None if quiet else sys.stderr, verbose=verbose)
                try:
                    process.serve(handle, log)
                finally:
                    log.close()


class _Process:
    """The config in force, what signals ask for, and what outlives both a changed config and a deleted cache."""

    def __init__(self, load: Callable[[], Config]) -> None:
        self.load, self.config = load, load()
        self.folder = _folder_of(self.config)
        self.started_at = self.read_at = time.time()
        self.stamp = _stamp(self.config)
        self.problem: str | None = None  # with the config as it is now
        self.pasts: dict[Project, Past] = {}
        self.is_to_stop = self.is_to_reload = False

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """A handler does no more than note what is asked for."""

        def stop(*_: object) -> None:
            self.is_to_stop = True

        def again(*_: object) -> None:
            self.is_to_reload = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, again)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def serve(self, handle: int, log: Log) -> None:
        """Serve until the process is to end, or the cache is no longer the one that is locked (`handle`)."""
        fields = {"pid": os.getpid(), "version": __version__, "cache": str(self.folder)}
        log.note("started", **fields, config=str(self.config.file) if self.config.file else None)
        while self._serve_one_config(handle, log):
            pass

    def _serve_one_config(self, handle: int, log: Log) -> bool:
        """Serve with the config in force; whether to go on with another."""
        with Cache(self.folder) as cache:
            _ = cache.con  # makes it, or says why not
        service = Service(RealTimer(POOLS), log)
        config = self.config
        daemon = Daemon(config, self.folder, service, log, pasts=self.pasts)
        port: Port | None = None
        try:
            if self.config.metrics_port is not None:
                port = Port(self.config.metrics_port, lambda: self._snapshot(daemon), service.clock)
            daemon.start()
            return self._watch_over(daemon, handle, log)
        finally:
            if port is not None:
                port.close()
            self._tell(replace(self._snapshot(daemon), stopping=True), handle)
            done = daemon.stop(GRACE)
            while not done and not self.is_to_stop:  # it is to go on with another config: there is time
                done = daemon.stop(TICK)
            # Of another cache, or another choice of runs, they are not what they were.
            same = _is_ours(self.folder, handle) and _choice(self.config) == _choice(config)
            self.pasts = daemon.projects.pasts if same else {}
            self._tell(replace(self._snapshot(daemon), stopping=True), handle)
            if self.is_to_stop:
                log.note("stopped", finished=done)
            if not done:
                # Whoever is still at it has committed nothing, or all of it: it is as safe as a power cut.
                log.close()
                os._exit(0)

    def _watch_over(self, daemon: Daemon, handle: int, log: Log) -> bool:
        """Look after the daemon while it works; whether it is to begin anew with another config."""
        ahead = time.time() - time.monotonic()
        told = -TOLD
        while not self.is_to_stop:
            if not _is_ours(self.folder, handle):
                log.problem("cache gone", cache=str(self.folder), then="it is begun anew")
                return False
            stamp = _stamp(self.config)
            if self.is_to_reload or stamp != self.stamp:
                self.is_to_reload, self.stamp = False, stamp
                if self._reads_another_config(log):
                    return True
                told = -TOLD
            drift = time.time() - time.monotonic() - ahead
            if abs(drift) > CLOCK:
                log.note("clock was set", by=round(drift, 1))
                ahead += drift
                daemon.service.set_clock()
            if time.monotonic() - told >= TOLD:
                told = time.monotonic()
                self._tell(self._snapshot(daemon), handle)
            time.sleep(TICK)
        return False

    def _reads_another_config(self, log: Log) -> bool:
        """Read the config again; whether it is another one, and right."""
        self.read_at = time.time()
        try:
            config = self.load()
            if _folder_of(config) != self.folder:
                raise UsageError("cache.dir is another one", hint="restart the daemon for that")
            if config.metrics_port is not None and config.metrics_port != self.config.metrics_port:
                metrics.check(config.metrics_port)
        except WandbsyncError as error:
            self.problem = error.line()
            log.problem("config refused", reason=self.problem)
            return False
        changed, self.problem = config != self.config, None
        self.config = config
        log.note("config read", file=str(config.file) if config.file else None, changed=changed)
        return changed

    def _snapshot(self, daemon: Daemon) -> Snapshot:
        file = self.config.file
        return replace(
            daemon.snapshot(self.started_at),
            config=None if file is None else str(file),
            config_read_at=self.read_at,
            config_problem=self.problem,
        )

    def _tell(self, snapshot: Snapshot, handle: int) -> None:
        """Write the status. On a full disk it stays as it was; the lock still tells that there is a daemon."""
        if _is_ours(self.folder, handle):
            with contextlib.suppress(CacheError):
                health.write(self.folder, snapshot)


def _choice(config: Config) -> tuple[object, ...]:
    """What says which runs of a project are wanted."""
    return config.states, config.tags, config.newer_than


def _folder_of(config: Config) -> Path:
    return config.cache_dir.expanduser().absolute()


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[int]:
    """Hold the daemon's lock on a cache. Raises CacheBusy, which says who holds it."""
    lock = health.lock_of(folder)
    held = alone(lock, health.note_of(os.getpid()))
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
    """What changes when the settings file does; None while there is none."""
    try:
        found = (config.file or default_file()).stat()
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
