"""Which projects and runs of a server are wanted: patterns for names, and a filter that the server applies. Pure.

A filter chooses which runs come in. Those that were fetched are followed to their end all the same: `state: running`
no longer lists a run that has finished, and its last rows would be missed. So a filtered listing asks for `unfinished`
runs by name, too. It is not complete, and says nothing about what was deleted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any

from ..errors import UsageError
from ..model import GOING_ON, STATES

MANY = 200  # runs that are asked for by name in one listing, at the most
LAST_SECOND = 253402300799  # of the year 9999


def wanted(projects: Iterable[str], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """Those of the projects ("entity/project") that a pattern includes (none given: all) and none excludes, in order.

    Patterns are globs, case matters: `me/vision-*`, `*/baseline`; one without a slash is for the project in any entity.
    """
    return [
        name
        for name in dict.fromkeys(projects)
        if (not include or _any_fits(name, include)) and not _any_fits(name, exclude)
    ]


def _any_fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits; each fits itself, as a name may have brackets."""
    project = name.partition("/")[2]
    parts = ((name if "/" in pattern else project, pattern) for pattern in patterns)
    return any(part == pattern or fnmatchcase(part, pattern) for part, pattern in parts)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs of a project are wanted: those that fit all that is given. Raises UsageError for what fits no run."""

    states: tuple[str, ...] = ()  # one of them
    tags: tuple[str, ...] = ()  # at least one of them
    newer_than: float | None = None  # seconds before now that a run was made at the earliest

    def __post_init__(self) -> None:
        unknown = [state for state in self.states if state not in STATES]
        if unknown:
            raise UsageError(f"no run is ever {', '.join(map(repr, unknown))}", hint=f"states are {', '.join(STATES)}")
        if "" in self.tags:
            raise UsageError("a tag to filter runs by is empty")
        if self.newer_than is not None and not 0 <= self.newer_than < math.inf:
            raise UsageError(f"runs newer than {self.newer_than} seconds: not a duration")

    def __bool__(self) -> bool:
        """Whether it may leave runs out, so that a listing with it is not complete."""
        return bool(self.states or self.tags) or self.newer_than is not None

    def query(self, *, at: float, also: Collection[str] = ()) -> dict[str, Any]:
        """The filter as the server reads it, in MongoDB's words. `at` is now; runs with an id in `also` fit, too."""
        query: dict[str, Any] = {}
        if self.states:
            query["state"] = {"$in": list(self.states)}
        if self.tags:
            query["tags"] = {"$in": list(self.tags)}
        if self.newer_than is not None:
            query["createdAt"] = {"$gte": _timestamp(at - self.newer_than)}
        return {"$or": [query, {"name": {"$in": sorted(also)}}]} if query and also else query

    def text(self, *, at: float, also: Collection[str] = ()) -> str:
        """The same as the `filters` argument of GraphQL's `runs`: JSON."""
        return json.dumps(self.query(at=at, also=also))

    def changing(self, *, at: float, since: float, also: Collection[str]) -> str:
        """The same for the runs that can have new rows: those that go on, those made `since`, and those in `also`."""
        may_change: list[dict[str, Any]] = [
            {"state": {"$in": list(GOING_ON)}},
            {"createdAt": {"$gte": _timestamp(since)}},
        ]
        if also:
            may_change.append({"name": {"$in": sorted(also)}})
        query: dict[str, Any] = {"$or": may_change}
        return json.dumps({"$and": [self.query(at=at, also=also), query]} if self else query)


def _timestamp(time: float) -> str:
    """Unix seconds as the server writes them: it fails on a number, and without the Z some fields match nothing."""
    whole = min(max(math.floor(time), 0), LAST_SECOND)
    return f"{datetime.fromtimestamp(whole, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
