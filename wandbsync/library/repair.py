"""Mend a damaged cache: what is damaged is found, read again from logs and servers, and what is lost is named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import status
from ..cache import Cache, losses
from ..cache.locks import holder
from ..cache.retention import Limits
from ..cache.upkeep import rebuild, repair, upkeep
from ..config import Config
from ..errors import CacheBusy, Damaged, WandbsyncError
from ..model import RunRef
from ..sources import local
from ..sync import sync_local

if TYPE_CHECKING:
    from ..sources.api.client import Api
    from ..sync.server import Asked


@dataclass(slots=True)
class RepairReport:
    """What a repair found and did."""

    rebuilt: rebuild.RebuildReport | None = None  # the catalog was made anew
    found: list[repair.Damage] = field(default_factory=list)
    read_again: list[RunRef] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # segments that no source could replace
    lost: dict[RunRef, int] = field(default_factory=dict)  # values that were given up
    problems: list[str] = field(default_factory=list)  # sources that did not answer

    def lines(self) -> list[str]:
        """What to tell people."""
        lines = []
        if self.rebuilt is not None:
            of = "its daily copy and the segments" if self.rebuilt.copied_at is not None else "the segments"
            lines.append(f"the catalog was made anew from {of}: {self.rebuilt.runs:,} runs")
        lines += map(str, self.found)
        lines += [f"read again: {ref}" for ref in self.read_again]
        lines += [f"lost: {count:,} values of {ref}" for ref, count in self.lost.items()]
        lines += [f"still damaged: {file}" for file in self.damaged]
        return lines or ["the cache is sound"]

    def fields(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "ok": not self.damaged,
            "catalog_rebuilt": self.rebuilt is not None,
            "found": [{"file": one.file, "why": one.why, "runs": [str(ref) for ref in one.runs]} for one in self.found],
            "read_again": [str(ref) for ref in self.read_again],
            "lost": {str(ref): count for ref, count in self.lost.items()},
            "damaged": self.damaged,
            "problems": self.problems,
        }


def repair_cache(
    config: Config,
    cache: Cache,
    server: Callable[[], AbstractContextManager[Callable[[], Api]]],
    *,
    offline: bool = False,
    backup: Path | None = None,
    give_up: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RepairReport:
    """Repair a cache. Raises CacheBusy beside a daemon, NothingCached if there is nothing to repair, and CacheError."""
    if holder(status.lock_of(cache.folder)) is not None:
        raise CacheBusy(f"a daemon works with {cache.folder}", hint="`wandbsync daemon stop` first")
    done = RepairReport()
    if rebuild.needed(cache.folder):
        done.rebuilt = rebuild.rebuild(cache.folder)
    elif not cache.exists():
        raise cache.nothing_cached()
    done.found = repair.find(cache, backup=backup, progress=progress)
    wanted = losses.runs(cache)
    if wanted:
        _read_logs(config, cache, wanted, done)
        losses.settle(cache)
        if not offline and (left := losses.runs(cache)):
            _ask_server(config, cache, server, left, done)
            losses.settle(cache)
        done.read_again = sorted(wanted - losses.runs(cache))
    for file in losses.damaged(cache):
        if give_up:
            for ref, count in repair.give_up(cache, file).items():
                done.lost[ref] = done.lost.get(ref, 0) + count
        else:
            done.damaged.append(file)
    if not done.damaged:
        try:
            upkeep(cache, Limits(config.max_size, config.keep))
        except Damaged as error:  # in this very moment
            done.problems.append(error.line())
    return done


def _read_logs(config: Config, cache: Cache, wanted: set[RunRef], done: RepairReport) -> None:
    logs = [path for path, (ref, _) in cache.logs().items() if ref in wanted]
    folders = [*config.local_folders, *map(Path, cache.sources("local")), *(Path(path).parent.parent for path in logs)]
    there = [folder for folder in dict.fromkeys(folders) if local.is_there(folder)]
    if there:
        report = sync_local(cache, there, entity=config.local_entity)
        done.problems += [problem.reason for problem in report.problems if not problem.harmless]


def _ask_server(
    config: Config,
    cache: Cache,
    server: Callable[[], AbstractContextManager[Callable[[], Api]]],
    wanted: set[RunRef],
    done: RepairReport,
) -> None:
    from ..sync.server import Asked

    projects: dict[tuple[str, str], list[str]] = {}
    for ref in sorted(wanted):
        if cache.mirror(ref) is not None or (done.rebuilt is not None and ref.entity != config.local_entity):
            projects.setdefault((ref.entity, ref.project), []).append(ref.run_id)
    if not projects:
        return
    with server() as connect:
        for (entity, project), runs in projects.items():
            if problem := _fetch(cache, connect, Asked(entity, project, tuple(runs)), config, done):
                done.problems.append(problem)


def _fetch(cache: Cache, connect: Callable[[], Api], asked: Asked, config: Config, done: RepairReport) -> str | None:
    """Fetch some runs of a project; why that could not be."""
    from ..sync.server import Terms, sync_server

    try:
        report = sync_server(cache, connect(), [asked], Terms(local_entity=config.local_entity))
    except CacheBusy:
        raise
    except WandbsyncError as error:
        return f"{asked}: {error.line()}"
    done.problems += [problem.reason for problem in report.problems if not problem.harmless]
    return None
