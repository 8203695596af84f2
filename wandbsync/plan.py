"""The plan: what a source lists and what the cache has, and so what is to be done. Pure; a dry run prints it.

    find, identify -> Listed --+
                               +--> plan --> Rename | Forget | Cut | Read | Copy | Look
    the cache's cursors -------+
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Union

from .model import RunRef


@dataclass(frozen=True, slots=True)
class Listed:
    """A log as the local source lists it."""

    path: str
    signature: str
    size: int  # bytes
    ref: RunRef
    log_key: str
    started_at: float | None = None
    rewinds_to: int | None = None
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """A log as the cache knows it."""

    path: str
    signature: str
    ref: RunRef
    log_key: str
    size: int = 0  # bytes it had then
    offset: int = 0  # bytes of them that were read
    started_at: float | None = None
    rewinds_to: int | None = None
    status: str = "open"  # open, ended, crashed, copy


@dataclass(frozen=True, slots=True)
class Rename:
    """The run's entity is known by now."""

    ref: RunRef
    to: RunRef

    def __str__(self) -> str:
        return f"rename {self.ref} to {self.to}"


@dataclass(frozen=True, slots=True)
class Forget:
    """All logs of this run turned out to be another run's, which is in the cache already: read them there."""

    ref: RunRef
    into: RunRef

    def __str__(self) -> str:
        return f"forget {self.ref}, it is {self.into}"


@dataclass(frozen=True, slots=True)
class Cut:
    """A new log goes on from an earlier step: what came after it is void."""

    ref: RunRef
    last: int

    def __str__(self) -> str:
        return f"rewind {self.ref} to step {self.last}"


@dataclass(frozen=True, slots=True)
class Read:
    """Read a log from where its cursor stands, or whole."""

    ref: RunRef
    log: Listed
    start: int  # byte
    reason: str  # new, grown, touched (only what lies around it has changed), moved, again
    moved_from: str | None = None
    keep_until: int | None = None  # rows of later steps are void
    restarts: bool = False  # may begin again at step 0 and mean: after the rows there are

    @property
    def size(self) -> int:
        """Bytes to be read."""
        return max(0, self.log.size - self.start)

    def __str__(self) -> str:
        return f"read {self.ref} from byte {self.start:,} of {self.log.path} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Copy:
    """The same log lies here too: remember that, read it once."""

    ref: RunRef
    log: Listed
    of: str

    def __str__(self) -> str:
        return f"leave {self.log.path}, it is a copy of {self.of}"


@dataclass(frozen=True, slots=True)
class Look:
    """Nothing new was written; see whether the run is still running."""

    ref: RunRef
    path: str

    def __str__(self) -> str:
        return f"look whether {self.ref} still runs"


Action = Union[Rename, Forget, Cut, Read, Copy, Look]  # noqa: UP007 - evaluated at run time on 3.10


def plan(
    listed: Iterable[Listed],
    known: Iterable[Known],
    last_steps: Mapping[RunRef, int | None],
    *,
    full: bool = False,
) -> Iterator[Action]:
    """The actions for each run, run after run, in the order in which they must be done.

    `last_steps` has every run in the cache. `full` reads all logs again, if all the logs of a run are still there:
    rows whose log is gone are kept, not read again.
    """
    here = {log.path: log for log in listed}
    cached = {log.path: log for log in known}
    runs: dict[RunRef, list[Listed]] = {}
    for log in here.values():
        runs.setdefault(log.ref, []).append(log)
    for ref, logs in sorted(runs.items()):
        read_before = {log.path: log for log in cached.values() if log.ref == ref}
        for old in sorted({cached[log.path].ref for log in logs if log.path in cached} - {ref}):
            mine = {path: log for path, log in cached.items() if log.ref == old}
            if any(path not in here or here[path].ref != ref for path in mine):
                continue  # some of its logs are gone or stay: its rows could not be read again
            if ref in last_steps:
                yield Forget(old, ref)
            else:
                yield Rename(old, ref)
                read_before |= mine
        yield from _plan_run(ref, logs, read_before, set(here), last_steps.get(ref), full)


def _plan_run(
    ref: RunRef,
    logs: list[Listed],
    read_before: dict[str, Known],
    here: set[str],
    last_step: int | None,
    full: bool,
) -> Iterator[Action]:
    originals = [log for log in read_before.values() if log.status != "copy"]
    full = full and all(log.path in here for log in originals)
    by_key: dict[str, list[Listed]] = {}
    for log in logs:
        by_key.setdefault(log.log_key, []).append(log)
    copies: list[Copy] = []
    chosen: list[tuple[Listed, Known | None]] = []
    for key, same in by_key.items():
        before = next((one for one in originals if one.log_key == key), None)
        best = max(same, key=lambda log: (log.size, before is not None and log.path == before.path, log.path))
        chosen.append((best, before))
        for other in same:
            noted = read_before.get(other.path)
            if other is not best and (noted is None or noted.status != "copy" or noted.signature != other.signature):
                copies.append(Copy(ref, other, best.path))
    rewinds = [(log.started_at or 0.0, log.rewinds_to) for log in [*logs, *originals] if log.rewinds_to is not None]
    chosen.sort(key=lambda pair: (pair[0].started_at or 0.0, pair[0].path))
    has_rows = bool(originals)
    for log, before in chosen:
        age = log.started_at or 0.0
        later = [step for at, step in rewinds if at > age and step is not None]
        read = Read(
            ref,
            log,
            start=0 if before is None or full else before.offset,
            reason="again" if full else _reason(log, before),
            moved_from=before.path if before is not None and before.path != log.path else None,
            keep_until=min(later, default=None),
            restarts=log.offline and log.rewinds_to is None,
        )
        if full or before is None or before.path != log.path:
            if log.rewinds_to is not None and has_rows and not full and (last_step or 0) > log.rewinds_to:
                yield Cut(ref, log.rewinds_to)
            yield read
            has_rows = has_rows or before is not None
        elif before.signature != log.signature:
            yield read
        elif before.status == "open":
            yield Look(ref, log.path)
    yield from copies


def _reason(log: Listed, before: Known | None) -> str:
    if before is None:
        return "new"
    if before.path != log.path:
        return "moved"
    return "touched" if log.size == before.size else "grown"
