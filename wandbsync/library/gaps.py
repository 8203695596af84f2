"""Histories that are not here, or not whole: said or refused, never passed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import query
from ..cache import Cache
from ..errors import NothingCached
from ..model import RunRef


def tell(cache: Cache, refs: Sequence[RunRef], named: Sequence[RunRef], say: Callable[[str], None]) -> None:
    """Say which runs lack rows. Raises NothingCached if one that was named (not just its project) has none at all."""
    gaps = query.gaps(cache, refs)
    for ref in named:
        if ref in gaps and gaps[ref][0] == 0:
            raise NothingCached(f"{ref} has no history here: {gaps[ref][1]}", hint=f"`wandbsync sync {ref}` fetches it")
    empty = [ref for ref, (rows, _) in gaps.items() if rows == 0]
    if empty:
        say(f"without the histories of {len(empty)} runs that are not here: {empty[0]}: {gaps[empty[0]][1]}")
    if partial := [ref for ref in gaps if ref not in empty]:
        say(f"{len(partial)} runs are not whole: {partial[0]}: {gaps[partial[0]][1]}")
