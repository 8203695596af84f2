"""Histories of some runs on their way into a file: batches of long or wide rows, a few at a time in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ..cache import Cache
from ..model import HISTORY, RunRef
from ..query.batches import Batches


def export(
    cache: Cache,
    refs: Sequence[RunRef],
    keys: Sequence[str] | None = None,
    *,
    wide: bool = False,
    stream: str = HISTORY,
) -> Batches:
    """The histories of some runs, run by run: a row a value, or with `wide` a row a step. `keys` None for all.

    Raises NotFound for a key that none of the runs has.
    """
    from .. import query
    from ..query import cells
    from ..query import wide as wider

    found = wider.columns(cache, refs, keys, stream=stream)
    if wide:
        json = frozenset(one.key for one in found if one.holds == cells.JSON)
        return Batches(wider.schema(found), wider.batches(cache, refs, found, stream=stream), json)
    tables = query.long(cache, refs, keys, stream=stream)
    return Batches(query.long_schema(), (batch for table in tables for batch in table.to_batches()))
