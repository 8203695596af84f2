"""What a cache needs once in a while: due merges, old files swept, `wandb.duckdb` as the catalog stands."""

from __future__ import annotations

from . import compaction, publish
from .store import Cache


def upkeep(cache: Cache) -> None:
    """Merge what is due, publish, remove what is not needed any more. Cheap where there is little to do.

    Publishing comes before sweeping: nobody's DuckDB client is to look for files that are gone.
    """
    compaction.compact(cache)
    publish.publish(cache)
    compaction.gc(cache)
