"""How the daemon is: written on purpose, every few seconds, to `status.json` in the cache; and what to think of it.

Whether there is a daemon at all, the kernel's lock tells, not the file: a killed one leaves its last words behind.
Healthy means that every source was synced within its interval, not that a process exists.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from . import files
from .cache.disk import os_errors
from .cache.locks import holder

FILE = "status.json"
LOCK = "daemon"  # in the cache's folder for locks
HUNG = 60.0  # seconds without a word after which a daemon that has the lock is not at work
SLACK = 30.0  # seconds that a look may take or be late before its source counts as stale
LATE = 10.0  # seconds from a row's writing to its commit after which a live run counts as stale
OFTEN = 3  # failures in a row that make a job or source count as failing

EXIT_CODES = {"ok": 0, "stale": 10, "failing": 11, "stopped": 12}


@dataclass(frozen=True, slots=True)
class Source:
    """A folder or a project that is kept fresh. Times are unix seconds."""

    kind: str  # local or api
    location: str  # the folder; "server entity/project"
    fresh_at: float | None = None  # the cache agreed with it then
    interval: float = 0.0  # seconds from one look to the next
    next_at: float | None = None
    running: int = 0  # of its runs
    failures: int = 0  # in a row
    error: str | None = None  # the last of them


@dataclass(frozen=True, slots=True)
class Job:
    """Something that is done again and again."""

    name: str
    state: str  # waiting, running, or parked: until something else happens
    next_at: float | None = None
    started_at: float | None = None
    seconds: float | None = None  # that the last time took
    times: int = 0
    failures: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """A run that is being written on this machine."""

    run: str  # entity/project/run_id
    path: str
    written_at: float  # the last write to its log that is in the cache
    lag: float  # seconds from then to the commit


@dataclass(frozen=True, slots=True)
class Server:
    """The W&B server, and what is left of its patience."""

    url: str | None = None
    reachable: bool | None = None  # None: not asked yet
    since: float | None = None  # it is so since then
    error: str | None = None
    next_probe_at: float | None = None
    quiet_until: float | None = None  # it is asked for nothing before then
    in_flight: int = 1  # requests of a project at a time
    requests: int = 0  # sent since the start
    bytes: int = 0  # received
    waited: float = 0.0  # seconds, for its rate limit


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the daemon is at one moment."""

    pid: int
    host: str
    version: str
    started_at: float
    written_at: float
    config: str | None = None  # the settings file
    config_read_at: float | None = None
    config_problem: str | None = None  # why a changed file was not taken; the settings before are in force
    too_large: str | None = None  # why the cache is larger than cache.max_size
    damaged: str | None = None  # what of the cache is not as it was written
    stopping: bool = False
    sources: Sequence[Source] = ()
    jobs: Sequence[Job] = ()
    live: Sequence[Live] = ()
    server: Server | None = None
    memory: int | None = None  # bytes at the peak


@dataclass(frozen=True, slots=True)
class Verdict:
    """ok, stale, failing or stopped, and why."""

    word: str
    reasons: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.word]


def lock_of(folder: Path) -> Path:
    """Where the daemon of a cache has its lock."""
    return folder / "locks" / LOCK


def note_of(pid: int) -> str:
    """What the lock says of who holds it."""
    import socket

    return f"{pid} on {socket.gethostname()}"


def of(folder: Path) -> tuple[Snapshot | None, bool]:
    """What the daemon of a cache wrote last, and whether there is one now; what one before it wrote does not count."""
    note, snapshot = holder(lock_of(folder)), read(folder)
    if note is not None and snapshot is not None and note != f"{snapshot.pid} on {snapshot.host}":
        snapshot = None
    return snapshot, note is not None


def write(folder: Path, snapshot: Snapshot) -> None:
    """Put the status in place of the one before. Raises CacheError."""
    with os_errors(folder):
        found = asdict(snapshot)
        files.write(folder / FILE, _text(found | {"crc32": _sum(found)}).encode("utf-8", "surrogatepass"), private=True)


def _text(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, indent=1)


def _sum(values: dict[str, Any]) -> int:
    """A checksum of the status: one that rots on the disk is nobody's, and the daemon writes the next."""
    return zlib.crc32(_text(values).encode("utf-8", "surrogatepass"))


def read(folder: Path) -> Snapshot | None:
    """What the daemon wrote last; None if there is nothing, or nothing that this version understands."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if found.pop("crc32", None) not in (None, _sum(found)):  # an older version has none
            return None
        parts: dict[str, Any] = {name: [_made(kind, one) for one in found.pop(name)] for name, kind in _PARTS.items()}
        server = found.pop("server")
        snapshot = _made(Snapshot, found | parts | {"server": None if server is None else _made(Server, server)})
        verdict(snapshot, alive=True, now=snapshot.written_at)  # what cannot be judged is nobody's status
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return snapshot


_PARTS: dict[str, Any] = {"sources": Source, "jobs": Job, "live": Live}
Part = TypeVar("Part")


def _made(kind: type[Part], values: dict[str, Any]) -> Part:
    """What this version knows of what another may have written."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names})


def verdict(snapshot: Snapshot | None, *, alive: bool, now: float) -> Verdict:
    """What to think of the daemon's last words. Pure. `alive`: it holds its lock; `now`: unix seconds."""
    if not alive:
        last = (
            ""
            if snapshot is None
            else f"; the last one wrote its status {max(0.0, now - snapshot.written_at):.0f} s ago"
        )
        return Verdict("stopped", (f"no daemon is running{last}",))
    if snapshot is None:
        return Verdict("stale", ("the daemon has only just started",))
    failing, stale = _failing(snapshot, now), _stale(snapshot, now)
    if failing:
        return Verdict("failing", (*failing, *stale))
    return Verdict("stale", tuple(stale)) if stale else Verdict("ok")


def _failing(snapshot: Snapshot, now: float) -> list[str]:
    """What does not come right by itself."""
    reasons = []
    silent = now - snapshot.written_at
    if silent > HUNG:
        reasons.append(f"the daemon has said nothing for {silent:.0f} s")
    if snapshot.config_problem:
        reasons.append(f"the changed config is not in force: {snapshot.config_problem}")
    reasons += [one for one in (snapshot.damaged, snapshot.too_large) if one]
    counted = [(one.location, one.failures, one.error) for one in snapshot.sources]
    counted += [(job.name, job.failures, job.error) for job in snapshot.jobs]
    reasons += [f"{name} failed {times} times: {error}" for name, times, error in counted if times >= OFTEN]
    return reasons


def _stale(snapshot: Snapshot, now: float) -> list[str]:
    """What is not as fresh as it is meant to be."""
    reasons = []
    server = snapshot.server
    if server is not None and server.reachable is False:
        reasons.append(f"{server.url} is away: {server.error}")
    for one in snapshot.sources:
        if one.fresh_at is None:
            reasons.append(f"{one.location} was not synced yet")
        elif not is_fresh(one, now):
            reasons.append(f"{one.location} was last synced {now - one.fresh_at:.0f} s ago")
    reasons += [f"{one.run} lags {one.lag:.0f} s behind" for one in snapshot.live if one.lag > LATE]
    return reasons


def is_fresh(source: Source, now: float) -> bool:
    """Whether a source was synced within its interval, as far as a daemon at work can keep it."""
    return source.fresh_at is not None and -SLACK <= now - source.fresh_at <= source.interval + SLACK


@dataclass(frozen=True, slots=True)
class Kept:
    """What a daemon keeps fresh just now: nobody else has to ask."""

    folders: frozenset[str] = field(default_factory=frozenset)
    projects: frozenset[str] = field(default_factory=frozenset)  # "server entity/project"


def kept(folder: Path, *, now: float) -> Kept:
    """What the daemon of a cache keeps fresh, if there is one and it is at work."""
    snapshot, alive = of(folder)
    if not alive or snapshot is None or snapshot.stopping or abs(now - snapshot.written_at) > HUNG:
        return Kept()
    fresh = [one for one in snapshot.sources if is_fresh(one, now)]
    return Kept(
        frozenset(one.location for one in fresh if one.kind == "local"),
        frozenset(one.location for one in fresh if one.kind == "api"),
    )
