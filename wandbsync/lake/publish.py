"""Publish a cache to a lake: claim its projects, plan each, and carry the plan out batch by batch.

The order of the commits of a batch, and why none counts twice, is told in the package's docstring.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..cache import Cache
from ..errors import Stopped, WandbsyncError
from . import here, plan, there
from .address import Address
from .batch import Carrier
from .claims import claim, owns
from .delta import Lake, Overtaken
from .flow import Moved
from .here import ProjectHere
from .memory import Memory
from .plan import Action

PATIENCE = 8  # times that a project is planned anew because others write or the cache moves on


@dataclass(slots=True)
class Published:
    """What a publication found and did."""

    address: str
    planned: list[Action] = field(default_factory=list)
    projects: int = 0  # that were looked at
    runs: int = 0
    values: int = 0
    commits: int = 0
    conflicts: int = 0
    left: list[str] = field(default_factory=list)  # projects that another cache publishes, and which
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    dry_run: bool = False


def publish(
    cache: Cache,
    address: Address,
    *,
    machine: str,
    dry_run: bool = False,
    take_over: bool = False,
    full: bool = False,
    now: Callable[[], float] = time.time,
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Published:
    """Bring a lake up to date with a cache. `machine` names it to people; `check` is called on the way, and may raise.

    Projects of which nothing has changed since the last time are not looked at, unless `full` is given. Raises
    WandbsyncError if the lake cannot be reached; what is wrong with one project is in the report.
    """
    began = time.perf_counter()
    lake = Lake(address)
    report = Published(str(address), dry_run=dry_run)
    writer = here.identity(cache)
    memory = Memory(cache, lake)
    found = here.projects(cache, machine)
    claims = claim(lake, found, writer=writer, machine=machine, now=now(), take_over=take_over, dry_run=dry_run)
    report.left += claims.left
    for project in claims.mine:
        check()
        if not full and project.key not in claims.new and memory.knows(project):
            continue
        report.projects += 1
        carrier = Carrier(cache, lake, project.key, writer, now, check)
        try:
            _publish(carrier, project, report, progress)
        except Stopped:
            raise
        except WandbsyncError as error:
            report.problems.append(f"{'/'.join(project.key[1:])}: {error.line()}")
        else:
            if not dry_run:
                memory.note(project)
        report.values += carrier.values
    report.commits, report.conflicts = lake.commits, lake.conflicts
    report.seconds = time.perf_counter() - began
    return report


def _publish(
    carrier: Carrier, project: ProjectHere, report: Published, progress: Callable[[int, int], None] | None
) -> None:
    """All of one project. Raises WandbsyncError."""
    lake, key, name = carrier.lake, project.key, "/".join(project.key[1:])
    again: frozenset[str] = frozenset()
    for attempt in range(PATIENCE):
        standing = there.standing(lake, key)
        found = here.runs(carrier.cache, *key[1:]) if project.runs else []
        actions = plan.plan(name, found, standing.there, writer=carrier.writer, again=again)
        if attempt == 0:
            report.planned += actions
        if report.dry_run:
            return
        batches = list(plan.batches(actions))
        try:
            if not standing.there.settled:
                carrier.tidy(standing, {action.run_id for action in actions})
                standing = there.onward(lake, key, standing)
            done = 0
            for batch in batches:
                carrier.check()
                if done:
                    if not owns(lake, key, carrier.writer):
                        raise Overtaken
                    standing = there.onward(lake, key, standing)
                carrier.carry(batch, standing, last=batch is batches[-1])
                done += len(batch)
                report.runs += len(batch)
                if progress:
                    progress(done, len(actions))
            return
        except Moved as moved:
            again |= moved.runs
        except Overtaken:
            lake.pause(attempt)
            if not owns(lake, key, carrier.writer):
                report.left.append(f"{name} was taken over by another cache")
                return
    raise WandbsyncError("it keeps changing", hint="the next publication goes on")
