"""Whose rows a segment has: written into the file itself, for a day on which there is no catalog."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model import RunRef
from . import catalog

if TYPE_CHECKING:
    from .store import Cache


@dataclass(frozen=True, slots=True)
class Tenant:
    """One stream of one run, as it was when the segment was written."""

    ref: RunRef
    generation: int
    name: str  # history, system, console
    start: int  # how many values of it lie in the segments before this one
    paths: Mapping[str, str]  # the JSON paths of those of its keys that are nested


def dump_tenants(tenants: Mapping[int, Tenant]) -> str:
    """The tenants by the numbers of their streams, as JSON."""
    return catalog.dump(
        {
            number: [one.ref.entity, one.ref.project, one.ref.run_id, one.generation, one.name, one.start, one.paths]
            for number, one in tenants.items()
        }
    )


def load_tenants(text: str) -> dict[int, Tenant]:
    """The same back; none of a segment of an older version, which does not say."""
    return {int(number): Tenant(RunRef(*one[:3]), *one[3:]) for number, one in json.loads(text or "{}").items()}


def tenants_of(cache: Cache, streams: Iterable[int], before: int) -> dict[int, Tenant]:
    """The tenants of a segment that is to hold all rows of streams from segment `before` on, as it is read now."""
    some = json.dumps(list(streams))
    level = "(SELECT level FROM segments WHERE segment = :before)"
    rows = cache.con.execute(
        "SELECT s.stream, r.entity, r.project, r.run_id, s.generation, s.name, (SELECT coalesce(sum(x.count), 0) FROM "
        "segment_streams x JOIN segments g USING (segment) WHERE x.stream = s.stream AND "
        f"(g.level > {level} OR (g.level = {level} AND g.segment < :before))), (SELECT "
        "json_group_object(m.key, m.path) FROM metrics m WHERE m.stream = s.stream AND m.path IS NOT NULL) "
        "FROM streams s JOIN runs r USING (run) WHERE s.stream IN (SELECT value FROM json_each(:some))",
        {"before": before, "some": some},
    ).fetchall()
    return {row[0]: Tenant(RunRef(*row[1:4]), row[4], row[5], row[6], json.loads(row[7])) for row in rows}
