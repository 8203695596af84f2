"""One pass over local logs: list -> plan -> read -> commit -> report. The command and the daemon both call this.

`sync_local` walks whole folders; `follow` looks at single logs that somebody writes to just now.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import __version__
from ..cache import Cache, LogCursor, losses
from ..errors import EmptyLog, LogError, UsageError
from ..model import RunRef
from ..plan.local import Known, Listed, Read, plan
from ..sources import local
from .reading import UNNAMED, Reading, mark
from .report import Problem, Progress, SyncReport

AGAIN = 4 << 20  # bytes a second, on average, of the runs that are read again because of what is new in them
Logs = dict[str, tuple[RunRef, LogCursor]]  # by path, as the cache knows them


def sync_local(
    cache: Cache,
    folders: Sequence[Path],
    *,
    entity: str = "local",
    dry_run: bool = False,
    full: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    now: Callable[[], float] = time.time,
) -> SyncReport:
    """Bring the runs logged below `folders` into the cache.

    A second pass over an unchanged tree only stats. One log that cannot be read, or one folder that is not there, does
    not stop the others: it is in the report. Raises UsageError if no folder is there nor ever was, CacheError or
    CacheBusy if the cache cannot be written; what was committed stays.
    """
    started, began = now(), time.perf_counter()
    report = SyncReport(dry_run=dry_run)
    folders = _there(cache, folders, report)
    known = {} if dry_run and not cache.exists() else cache.logs()
    found = local.find(folders)
    report.logs, report.found = len(found.logs), found
    listed = _list(cache, found.logs, known, entity, report, unreadable=found.unreadable)
    last_steps = {} if dry_run and not cache.exists() else cache.last_steps()
    evicted = cache.evicted() if last_steps else set()
    lost = losses.runs(cache) if last_steps else set()
    times, served = _several(cache, listed, known)
    report.planned = list(
        plan(listed, _known(known, times), last_steps, full=full, evicted=evicted, lost=lost, served=served)
    )
    if full:
        report.notes += _not_read_again(listed, known)
    if not dry_run:
        Reading(cache, report, progress, started).run(report.planned)
        planned = {action.ref for action in report.planned}
        cache.checked({known[log.path][0] for log in listed if log.path in known} - planned, started)
        for folder in folders:
            cache.synced("local", str(folder.resolve()), started)
        if cache.uploaded(entity):  # a log turned out to be a run that the server has: join them
            joined = sync_local(cache, folders, entity=entity, now=now)
            report.planned += joined.planned
    report.seconds = time.perf_counter() - began
    return report


def follow(
    cache: Cache,
    paths: Collection[str],
    *,
    entity: str = "local",
    look: bool = False,
    with_files: Callable[[str], bool] = lambda _: True,
    most: int = 16 << 20,
    progress: Callable[[Progress], None] = lambda _: None,
    now: Callable[[], float] = time.time,
) -> SyncReport:
    """Bring what was just written to some logs into the cache: what sync_local does, but for these runs alone.

    `look`: also find out which of them nobody writes to any more; else who has not ended goes on. `with_files` says of
    which logs the files beside them are to be listed; of those that ended they are. What a log says of its entity
    later on, only sync_local notices, and runs with more than `most` bytes to read are left to it. One that must be
    read again, as several logs of it are written at one time, waits the longer the more that is. Raises as it does.
    """
    started, began = now(), time.perf_counter()
    report = SyncReport()
    known = cache.logs(paths)
    new = set(paths) - known.keys()
    if new:
        known = cache.logs()
    known = {
        path: (ref, replace(at, signature=at.signature.removesuffix(UNNAMED))) for path, (ref, at) in known.items()
    }
    found = local.stat_logs(paths)
    listed = _list(cache, found, known, entity, report, trust=True)
    # All logs of a run are looked at together: one that is new may be a copy, or come before those that are known.
    refs = {log.ref for log in listed}
    others = [path for path, (ref, _) in known.items() if ref in refs and path not in paths]
    if others:
        found = [*found, *local.stat_logs(others)]
        listed = _list(cache, found, known, entity, report, trust=True)
    report.logs = len(found)
    known = {path: one for path, one in known.items() if one[0] in refs}
    evicted, lost = cache.evicted() & refs, losses.runs(cache) & refs
    times, served = _several(cache, listed, known)
    planned = list(
        plan(listed, _known(known, times), cache.last_steps(refs), evicted=evicted, lost=lost, served=served)
    )
    again: dict[RunRef, int] = {}
    for action in planned:
        if isinstance(action, Read) and action.reason == "again":
            again[action.ref] = again.get(action.ref, 0) + action.size
    waiting = {ref for ref, size in again.items() if started - (cache.came_at(ref) or 0.0) < size / AGAIN}
    planned = [action for action in planned if action.ref not in waiting]
    report.left = sorted({action.ref for action in planned if isinstance(action, Read) and action.size > most})
    report.planned = [action for action in planned if action.ref not in report.left]
    unnamed = {path for path, (ref, _) in known.items() if ref.entity == entity}
    reading = Reading(cache, report, progress, started, look=look or bool(new), with_files=with_files, unnamed=unnamed)
    reading.run(report.planned)
    report.seconds = time.perf_counter() - began
    return report


def _there(cache: Cache, folders: Sequence[Path], report: SyncReport) -> list[Path]:
    """The folders that are there. That one is not there any more is to be told, but to be expected some day."""
    there = [folder for folder in folders if local.is_there(folder)]
    if len(there) == len(folders):
        return there
    synced = cache.sources("local") if cache.exists() else {}
    gone = {folder: str(folder.resolve()) in synced for folder in folders if folder not in there}
    if not there and not any(gone.values()):
        raise UsageError(f"there is no folder {', '.join(map(str, gone))}")
    for folder, before in gone.items():
        reason = f"there is no folder {folder}" + (" any more; what was read there is kept" if before else "")
        report.problems.append(Problem(str(folder), reason, harmless=before))
    return there


def _not_read_again(listed: Sequence[Listed], known: Logs) -> Iterator[str]:
    """Which runs cannot be read again as a whole, because not all of their logs are here."""
    here = {(log.ref, log.log_key) for log in listed}
    lost: dict[RunRef, int] = {}
    for ref, cursor in known.values():
        if cursor.status != "copy" and (ref, cursor.log_key) not in here:
            lost[ref] = lost.get(ref, 0) + 1
    for ref in sorted(lost.keys() & {log.ref for log in listed}):
        logs = "a log of it is" if lost[ref] == 1 else f"{lost[ref]} logs of it are"
        yield f"{ref} is not read again: {logs} not here, and the rows are kept"


def _list(
    cache: Cache,
    found: Sequence[local.Found],
    known: Logs,
    entity: str,
    report: SyncReport,
    *,
    unreadable: Mapping[str, str] | None = None,
    trust: bool = False,
) -> list[Listed]:
    """The logs that were found, by run. Only those that are new, or whose run nobody could name yet, are opened.

    `trust`: those of a run that nobody could name yet are taken for that run still.
    """
    before = cache.problems() if cache.exists() else {}
    problems: dict[str, tuple[str, str | None]] = {path: (reason, None) for path, reason in (unreadable or {}).items()}
    listed = []
    for log in found:
        ref, cursor = known.get(log.path, (None, None))
        noted = log.path in before and before[log.path][1] == f"{log.signature}@{__version__}"
        if cursor is not None and ref is not None:
            same_file = cursor.signature.split(":")[:2] == log.signature.split(":")[:2]
            if noted:
                problems[log.path] = before[log.path]
            if cursor.signature == log.signature or (same_file and (trust or ref.entity != entity)):
                listed.append(_listed(log, ref, cursor.log_key, cursor.started_at, cursor.rewinds_to))
                continue
        elif noted:
            problems[log.path] = before[log.path]
            continue
        try:
            who = local.identify(log.path, entity=entity)
        except EmptyLog as error:
            report.problems.append(Problem(log.path, error.line(), harmless=True))
        except LogError as error:
            problems[log.path] = (error.line(), mark(error, log.signature))
        else:
            listed.append(_listed(log, who.ref, who.log_key, who.started_at, who.rewinds_to))
    uploaded = cache.uploaded(entity) if cache.exists() and not trust else {}
    listed = _named(listed, known, entity, uploaded)
    report.problems += [Problem(path, reason) for path, (reason, _) in sorted(problems.items())]
    if cache.exists() and not report.dry_run:
        here = {log.path for log in found}
        news = {path: one for path, one in problems.items() if before.get(path) != one}
        gone = [path for path in before if path in here and path not in problems]
        if news or gone:
            cache.note_problems(news, gone, time.time())
    return listed


def _named(listed: list[Listed], known: Logs, unknown: str, uploaded: Mapping[RunRef, RunRef]) -> list[Listed]:
    """The logs, with the entity of those that do not tell (`unknown`) from those that do.

    A copy belongs to whom the original belongs to, and of the logs of a run, side by side in one folder, often only
    the one that came to an end tells. Of runs that were `uploaded` the server tells.
    """

    def names(path: str, ref: RunRef, key: str) -> tuple[object, object]:
        return key, (path.rsplit("/", 2)[0], ref.project, ref.run_id)

    def named_by(told: Mapping[object, RunRef], log: Listed) -> Listed:
        if log.ref.entity != unknown:
            return log
        refs = [told[name] for name in names(log.path, log.ref, log.log_key) if name in told]
        return replace(log, ref=refs[0]) if refs else log

    cached = [(path, ref, cursor.log_key) for path, (ref, cursor) in known.items()]
    while True:  # who is named by a log beside it names its copies in turn
        told: dict[object, RunRef] = {}
        for path, found, key in [*cached, *((log.path, log.ref, log.log_key) for log in listed)]:
            ref = uploaded.get(found, found)
            if ref.entity != unknown:
                told |= dict.fromkeys(names(path, ref, key), ref)
        now = [named_by(told, log) for log in listed] if told else listed
        if now == listed:
            return listed
        listed = now


def _several(cache: Cache, listed: Sequence[Listed], known: Logs) -> tuple[Mapping[str, float | None], set[RunRef]]:
    """Of runs with several logs of which the cache has some: the time of each log's newest row; those of a server."""
    keys: dict[RunRef, set[str]] = {}
    for log in listed:
        keys.setdefault(log.ref, set()).add(log.log_key)
    cached = {ref for ref, _ in known.values()}
    several = [ref for ref in cached & keys.keys() if len(keys[ref]) > 1]
    return (cache.last_times(several), cache.served()) if several else ({}, set())


def _listed(
    log: local.Found,
    ref: RunRef,
    log_key: str,
    started_at: float | None,
    rewinds_to: int | None,
) -> Listed:
    return Listed(log.path, log.signature, log.size, ref, log_key, started_at, rewinds_to)


def _known(logs: Logs, times: Mapping[str, float | None]) -> list[Known]:
    return [
        Known(
            path,
            cursor.signature,
            ref,
            cursor.log_key,
            int(cursor.signature.split(":")[2]),
            json.loads(cursor.position).get("offset", 0),
            cursor.started_at,
            cursor.rewinds_to,
            cursor.status,
            times.get(path),
        )
        for path, (ref, cursor) in logs.items()
    ]
