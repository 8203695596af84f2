"""A project and a sweep as a server describes them. Times are unix seconds. None: the server does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """What is known of a project besides its runs."""

    entity: str
    project: str
    description: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    total_runs: int | None = None  # on the server
    url: str | None = None


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """A sweep: runs of one project that were started to search for the best of a metric."""

    entity: str
    project: str
    sweep_id: str
    display_name: str | None = None
    state: str | None = None  # RUNNING, PAUSED, CANCELED, FINISHED ...
    method: str | None = None  # grid, random, bayes
    description: str | None = None
    metric: str | None = None  # what is searched for; a metric of its runs
    goal: str | None = None  # minimize or maximize
    best_value: float | None = None  # of that metric, as the server knows it
    runs_expected: int | None = None  # None: no end is set
    created_at: float | None = None
    updated_at: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)  # what its YAML says
