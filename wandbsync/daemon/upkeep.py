"""What the cache needs while rows stream in: merges that are due, `wandb.duckdb` as it stands, old files swept."""

from __future__ import annotations

import time
from pathlib import Path

from ..cache import Cache, catalog
from ..cache.compaction import compact, gc
from ..cache.publish import publish
from .log import Log
from .service import Service

POOL = "upkeep"
UPKEEP = "look after the cache"
EVERY = 10.0  # seconds between two looks whether anything is due
PUBLISH = 60.0  # seconds between two times that `wandb.duckdb` is published, at least ...
SHARE = 20.0  # ... and so many times as long as it takes
SWEEP = 600.0  # seconds between two sweeps


class Upkeep:
    """The job that looks after the cache, called by the service."""

    def __init__(self, folder: Path, service: Service, log: Log) -> None:
        self.folder, self.service, self.log = folder, service, log
        self._merged_at: tuple[int, int] | None = None  # the catalog's version then
        self._published_at: tuple[int, int] | None = None
        self._publish_at = self._sweep_at = 0.0  # by the service's clock, not before

    def tidy(self) -> float | None:
        """Do what is due; when to look again (unix seconds)."""
        now = self.service.clock()
        with Cache(self.folder) as cache:
            version = catalog.version(cache.con)
            if version[0] != (self._merged_at or (None,))[0]:
                merges = compact(cache, check=self.service.check)
                if merges:
                    self.log.detail("merged", merges=len(merges), rows=sum(p.count for m in merges for p in m.parts))
                self._merged_at = version
            due = not 0 <= self._publish_at - now <= SWEEP
            sweep = not 0 <= self._sweep_at - now <= SWEEP
            if (due or sweep) and version != self._published_at:
                began = time.perf_counter()
                publish(cache)  # before sweeping: nobody's DuckDB client is to look for files that are gone
                self._published_at = version
                self._publish_at = now + min(SWEEP, max(PUBLISH, SHARE * (time.perf_counter() - began)))
            if sweep:
                swept = gc(cache, now=now)
                self._sweep_at = now + SWEEP
                if swept.files:
                    self.log.detail("swept", files=len(swept.files), bytes=swept.bytes)
        return self.service.clock() + EVERY
