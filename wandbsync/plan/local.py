"""The plan: what a source lists and what the cache has, and so what is to be done. Pure; a dry run prints it.

    find, identify -> Listed --+
                               +--> plan --> Rename | Forget | Cut | Read | Copy | Look
    the cache's cursors -------+

Every action prints as a sentence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Union

from ..model import RunRef


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
    last_time: float | None = None  # of its newest row, unix seconds; known of runs with several logs


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
    reason: str  # new, grown, touched (only what lies around it has changed), unfinished, moved, again
    moved_from: str | None = None
    keep_until: int | None = None  # rows of later steps are void

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
    evicted: Collection[RunRef] = (),
    lost: Collection[RunRef] = (),
    served: Collection[RunRef] = (),
) -> Iterator[Action]:
    """The actions for each run, run after run, in the order in which they must be done.

    `last_steps` has every run in the cache. `full` reads all logs again, if all the logs of a run are still there:
    rows whose log is gone are kept, not read again. A run is read again, too, when an earlier log of it turns up or
    grows, so that its rows are where they were had all been read at once, when there is something new of one whose
    rows were removed to save space (`evicted`), and if rows of it were `lost`. Where a server has a run (`served`),
    its steps are the server's.
    """
    here = {log.path: log for log in listed}
    runs: dict[RunRef, list[Listed]] = {}
    for log in here.values():
        runs.setdefault(log.ref, []).append(log)
    cached: dict[RunRef, dict[str, Known]] = {}
    named: dict[tuple[str, str], RunRef] = {}
    for one in known:
        cached.setdefault(one.ref, {})[one.path] = one
        named[one.path, one.log_key] = one.ref
    steps = dict(last_steps)
    for ref, logs in sorted(runs.items()):
        for old in sorted({named.get((log.path, log.log_key), ref) for log in logs} - {ref}):
            if any(path not in here or here[path].ref != ref for path in cached[old]):
                continue  # some of its logs are gone or stay: its rows could not be read again
            if ref in steps:
                yield Forget(old, ref)
            else:
                yield Rename(old, ref)
                cached[ref], steps[ref] = cached[old], steps.get(old)
            del cached[old]
    for ref, logs in sorted(runs.items()):
        again = full or ref in lost
        yield from _plan_run(ref, logs, cached.get(ref, {}), steps.get(ref), again, ref in evicted, ref in served)


def _plan_run(
    ref: RunRef,
    logs: list[Listed],
    read_before: dict[str, Known],
    last_step: int | None,
    full: bool,
    evicted: bool,
    served: bool,
) -> Iterator[Action]:
    originals = [log for log in read_before.values() if log.status != "copy"]
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
    both: list[Listed | Known] = [*logs, *originals]
    rewinds = [(log.started_at or 0.0, log.rewinds_to) for log in both if log.rewinds_to is not None]
    chosen.sort(key=lambda pair: (pair[0].started_at or 0.0, pair[0].log_key))  # copies have other paths
    newest = max((log.started_at or 0.0 for log in originals), default=0.0)
    earlier = any(before is None and (log.started_at or 0.0) < newest for log, before in chosen)
    news = evicted and any(before is None or before.signature != log.signature for log, before in chosen)
    full = (full or earlier or news or (not served and _moves_rows(chosen))) and all(
        log.log_key in by_key for log in originals
    )
    void = [log.rewinds_to for log, before in chosen if before is None and (log.started_at or 0.0) >= newest]
    last = min((step for step in void if step is not None), default=None)
    if last is not None and originals and not full and (last_step or 0) > last:
        yield Cut(ref, last)
    for log, before in chosen:
        age = log.started_at or 0.0
        later = [step for at, step in rewinds if at > age]
        read = Read(
            ref,
            log,
            start=0 if before is None or full else before.offset,
            reason="again" if full else _reason(log, before),
            moved_from=before.path if before is not None and before.path != log.path else None,
            keep_until=min(later, default=None),
        )
        if full or before is None or before.path != log.path or before.signature != log.signature:
            yield read
        elif before.status == "open":
            yield Look(ref, log.path)
    yield from copies


def _moves_rows(chosen: Sequence[tuple[Listed, Known | None]]) -> bool:
    """Whether what is new of a run comes before, or between, rows of it that are known. `chosen` is in order."""
    new = [i for i, (log, before) in enumerate(chosen) if before is None or _grown(log, before)]
    if not new or len(chosen) == 1:
        return False
    if len(new) > 1:  # whether they were written at one time nobody knows yet
        return any(before is not None for _, before in chosen)
    begun = chosen[new[0]][0].started_at or 0.0
    return any(
        before is not None and i != new[0] and (i > new[0] or (before.last_time or 0.0) > begun)
        for i, (_, before) in enumerate(chosen)
    )


def _grown(log: Listed, before: Known) -> bool:
    """Whether there may be rows in a log that were not read."""
    return log.signature != before.signature and not log.size == before.size == before.offset


def _reason(log: Listed, before: Known | None) -> str:
    if before is None:
        return "new"
    if before.path != log.path:
        return "moved"
    if log.size != before.size:
        return "grown"
    return "touched" if before.offset == before.size else "unfinished"
