"""When a reading command asks the source: never, now, or if the answer would be too old."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .cache import Cache
from .config import Config
from .errors import CacheBusy, CacheError

if TYPE_CHECKING:
    from .sync import SyncReport


@dataclass(frozen=True, slots=True)
class Wanted:
    """How fresh the answer has to be."""

    offline: bool = False  # never ask
    refresh: bool = False  # ask now
    max_age: float | None = None  # seconds; None: as the config says


def stale_folders(cache: Cache, config: Config, wanted: Wanted, *, now: float) -> list[Path]:
    """The local folders to look at before answering: those in the config, and those synced before."""
    if wanted.offline:
        return []
    synced = cache.sources("local") if cache.exists() else {}
    known = dict.fromkeys([*(str(folder.resolve()) for folder in config.local_folders), *synced])
    max_age = config.max_age if wanted.max_age is None else wanted.max_age
    return [Path(place) for place in known if wanted.refresh or now - synced.get(place, 0.0) > max_age]


def refresh(
    cache: Cache,
    config: Config,
    wanted: Wanted,
    *,
    say: Callable[[str], None],
    sync: Callable[[Cache, list[Path]], SyncReport] | None = None,
) -> None:
    """Bring what is too old up to date. What cannot be read, or not be written, costs freshness, not the answer."""
    folders = stale_folders(cache, config, wanted, now=time.time())
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
