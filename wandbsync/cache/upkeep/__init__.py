"""What a cache needs once in a while: merges, limits kept, `wandb.duckdb` as the catalog stands, old files swept."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from ...errors import NoRoom
from .. import compaction, eviction, losses, publish, retention, usage
from ..compaction import Swept
from ..disk import os_errors
from ..frozen import obstacle
from ..retention import Evict, Limits, Remove, Rewrite, Short
from ..store import Cache
from . import backup

ROUNDS = 5  # of planning and doing: how much a segment shrinks is known when it is written


def upkeep(cache: Cache, limits: Limits | None = None) -> Freed:
    """Merge what is due, keep within the limits, publish, remove what is not needed any more; what that freed.

    Cheap where there is little to do. Publishing comes before sweeping: nobody's DuckDB client is to look for files
    that are gone.
    """
    try:
        compaction.compact(cache)
    finally:  # damage is told when all else is done
        losses.settle(cache)
        if backup.due(cache, time.time()):
            backup.daily(cache)
        freed = make_room(cache, limits or Limits())
        publish.publish(cache)
        freed.swept += compaction.gc(cache)
    return freed


@dataclass
class Freed:
    """What was removed, or would be."""

    actions: list[retention.Action] = field(default_factory=list)
    bytes: int = 0  # by which the cache is smaller, about; what was rows is gone from the disk ten minutes later
    swept: Swept = field(default_factory=lambda: Swept([], 0))  # and what nothing needed any more
    short: Short | None = None  # why the cache stays larger than it should be

    @property
    def runs(self) -> int:
        """How many runs lost their rows."""
        return sum(isinstance(action, Evict) for action in self.actions)


def make_room(
    cache: Cache, limits: Limits, *, force: bool = False, dry_run: bool = False, now: float | None = None
) -> Freed:
    """Remove what is beyond the limits; the segments that nothing needs any more are left to gc.

    Raises CacheError, CacheBusy or NoRoom; what was done by then is done, and the next call goes on.
    """
    now = time.time() if now is None else now
    freed, before = Freed(), None
    for _ in range(ROUNDS if limits else 0):
        sizes = usage.measure(cache)
        before = sizes.held if before is None else before
        freed.bytes, freed.short = before - sizes.held, None
        if limits.keep is None and limits.max_size is not None and sizes.held <= limits.max_size:
            break
        planned = list(retention.plan(usage.facts(cache, sizes), limits, now=now, force=force))
        freed.short = next((action for action in planned if isinstance(action, Short)), None)
        todo = [action for action in planned if not isinstance(action, Short)]
        done = todo if dry_run else [action for action in todo if _done(cache, action, freed)]
        freed.actions += done
        if dry_run:
            freed.bytes = sum(action.bytes for action in todo if not isinstance(action, Rewrite))
        if dry_run or not done:
            break
    return freed


def _done(cache: Cache, action: retention.Action, freed: Freed) -> bool:
    """Carry out an action; False if there was nothing to do any more.

    If there is no room to write the catalog, `wandb.duckdb` makes some: it is made anew as soon as that can be.
    """
    if isinstance(action, Remove):
        with os_errors(cache.folder):
            for file in action.files:
                (cache.folder / file.path).unlink(missing_ok=True)
        return True
    if cache.frozen:
        cache.close()  # there may be room by now
    try:
        return _written(cache, action)
    except NoRoom:
        dropped = _drop_published(cache)
        if not dropped.files:
            raise
        freed.swept += dropped
        cache.close()
        return _written(cache, action)


def _written(cache: Cache, action: retention.Action) -> bool:
    if isinstance(action, Evict):
        return eviction.evict(cache, action.ref, action.revision, elsewhere=action.only_here is None)
    return isinstance(action, Rewrite) and eviction.rewrite(cache, action.segment) > 0


def _drop_published(cache: Cache) -> Swept:
    path = cache.folder / publish.FILE
    with os_errors(cache.folder):
        size = path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
    return Swept([publish.FILE] if size else [], size)


def sweep(cache: Cache, limits: Limits | None = None, *, force: bool = False, dry_run: bool = False) -> Freed:
    """Keep within the limits, publish, and remove what is not needed any more. Raises CacheError or CacheBusy.

    On a full disk `wandb.duckdb` goes, to make room: it is made anew as soon as there is some. Nor is there a grace for
    segments then: a reader that looks for one lists again.
    """
    if dry_run:
        freed = make_room(cache, limits or Limits(), force=force, dry_run=True)
        freed.swept = compaction.gc(cache, dry_run=True)
        return freed
    replaced = 0.0 if obstacle(cache.folder) == "full" else compaction.GRACE
    freed = make_room(cache, limits or Limits(), force=force)
    try:
        publish.publish(cache)
    except NoRoom as error:
        freed.swept += _drop_published(cache)
        if cache.frozen:
            freed.swept += compaction.gc(cache, replaced=replaced)
            cache.close()  # there may be room now to write the catalog
        with contextlib.suppress(NoRoom):
            freed.swept += compaction.gc(cache, replaced=replaced)
            if len(freed.swept.files) > 1 or freed.actions:  # else it would take the room that its going made
                publish.publish(cache)
        if not freed.swept.files and not freed.actions:
            raise NoRoom(str(error), hint="free some disk space: there is nothing here to remove") from error
    else:
        freed.swept += compaction.gc(cache, replaced=replaced)
    return freed
