"""What a cache needs once in a while: due merges, old files swept, `wandb.duckdb` as the catalog stands."""

from __future__ import annotations

import contextlib

from ..errors import NoRoom
from . import compaction, publish
from .compaction import Swept
from .disk import os_errors
from .store import Cache


def upkeep(cache: Cache) -> None:
    """Merge what is due, publish, remove what is not needed any more. Cheap where there is little to do.

    Publishing comes before sweeping: nobody's DuckDB client is to look for files that are gone.
    """
    compaction.compact(cache)
    publish.publish(cache)
    compaction.gc(cache)


def sweep(cache: Cache, *, dry_run: bool = False) -> Swept:
    """Publish and remove what is not needed any more. Raises CacheError or CacheBusy.

    On a full disk `wandb.duckdb` goes first, to make room: it is made anew as soon as there is some.
    """
    if dry_run:
        return compaction.gc(cache, dry_run=True)
    try:
        publish.publish(cache)
    except NoRoom as error:
        path = cache.folder / publish.FILE
        with os_errors(cache.folder):
            size = path.stat().st_size if path.exists() else 0
            path.unlink(missing_ok=True)
        swept = Swept([publish.FILE] if size else [], size)
        if cache.frozen:
            swept += compaction.gc(cache)
            cache.close()  # there may be room now to write the catalog
        with contextlib.suppress(NoRoom):
            swept += compaction.gc(cache)
            publish.publish(cache)
        if not swept.files:
            raise NoRoom(str(error), hint="free some disk space: there is nothing here to remove") from error
        return swept
    return compaction.gc(cache)
