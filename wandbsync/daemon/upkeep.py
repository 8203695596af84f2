"""What the cache needs while rows stream in: merges, limits kept, `wandb.duckdb` as it stands, old files swept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ..cache import Cache, catalog, losses
from ..cache.compaction import compact, gc
from ..cache.publish import publish
from ..cache.retention import Limits
from ..cache.upkeep import make_room
from ..cache.upkeep.scrub import scrub
from ..config import Config
from ..errors import Damaged
from .lake import PUBLISH as PUBLISH_LAKE
from .log import Log
from .service import Service

POOL = "upkeep"
UPKEEP = "look after the cache"
EVERY, IDLE = 10.0, 60.0  # seconds between two looks whether anything is due: while there are commits, and without
PUBLISH = 60.0  # seconds between two times that `wandb.duckdb` is published, at least ...
SHARE = 20.0  # ... and so many times as long as it takes
SWEEP = 600.0  # seconds between two sweeps


class Upkeep:
    """The job that looks after the cache, called by the service."""

    def __init__(self, config: Config, folder: Path, service: Service, log: Log) -> None:
        self.folder, self.service, self.log = folder, service, log
        self.limits = Limits(config.max_size, config.keep)
        self.damaged: str | None = None  # what of the cache is not as it was written
        self.too_large: str | None = None  # why the cache is larger than it should be
        self._merged: tuple[int, int] | None = None  # the catalog's version then
        self._published: tuple[int, int] | None = None
        self._publish, self._sweep = _Due(PUBLISH), _Due(SWEEP)

    def tidy(self) -> float | None:
        """Do what is due; when to look again (unix seconds)."""
        now = self.service.clock()
        with Cache(self.folder) as cache:
            version = catalog.version(cache.con)
            busy = version != self._merged
            if self._merged is None or version[0] != self._merged[0]:
                self._merge(cache)
            self._merged = version
            sweeps = self._sweep.is_now(now)
            if sweeps and self.limits:
                self._make_room(cache, now)
                version = catalog.version(cache.con)
            # That runs were found as they are is no news that anybody waits for.
            news = self._published is None or version[0] != self._published[0]
            if (self._publish.is_now(now) and news) or (sweeps and version != self._published):
                began = time.perf_counter()
                publish(cache)  # before sweeping: nobody's DuckDB client is to look for files that are gone
                self._published = version
                self._publish.done(now, max(PUBLISH, SHARE * (time.perf_counter() - began)))
            if sweeps:
                self._scrub(cache, now)
                swept = gc(cache, now=now)
                self._sweep.done(now, SWEEP)
                if swept.files:
                    self.log.detail("swept", files=len(swept.files), bytes=swept.bytes)
        return self.service.clock() + (EVERY if busy else IDLE)

    def _make_room(self, cache: Cache, now: float) -> None:
        freed = make_room(cache, self.limits, now=now)
        if freed.actions:
            self.log.note("made room", bytes=freed.bytes, runs=freed.runs, actions=len(freed.actions))
        too_large = None if freed.short is None else str(freed.short)
        if too_large and too_large != self.too_large:
            self.log.problem("too large", reason=too_large)
        self.too_large = too_large

    def _scrub(self, cache: Cache, now: float) -> None:
        """Look for damage, and have what was damaged read again from its source."""
        for line in scrub(cache, now=now, pause=SWEEP).damage:
            self.log.problem("damaged", reason=line)
        losses.settle(cache)
        damaged = losses.damaged(cache)
        self.damaged = f"damaged: {', '.join(damaged[:3])}; `wandbsync cache repair` mends" if damaged else None
        if losses.runs(cache):
            for name in self.service.names():
                if name not in (UPKEEP, PUBLISH_LAKE):
                    self.service.wake(name)

    def _merge(self, cache: Cache) -> None:
        try:
            merges = compact(cache, check=self.service.check)
        except Damaged as error:
            self.log.problem("damaged", reason=error.line())
            return
        if merges:
            rows = sum(part.count for merge in merges for part in merge.parts)
            self.log.detail("merged", merges=len(merges), rows=rows)


@dataclass(slots=True)
class _Due:
    """Whether something is to be done again; a clock that was set back makes it so."""

    wait: float  # seconds
    at: float | None = None  # when it was done last

    def is_now(self, now: float) -> bool:
        return self.at is None or not 0 <= now - self.at < self.wait

    def done(self, now: float, wait: float) -> None:
        self.at, self.wait = now, wait
