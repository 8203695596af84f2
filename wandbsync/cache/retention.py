"""What to remove when the cache is too large, or holds what was not used for long. Pure; a dry run prints it.

    how large the cache is, what lies in it --> plan --> Remove | Rewrite | Evict | Short

In this order, and no more than is needed:

    derived   what can be made again from the cache itself
    media     files that can be downloaded again, those first that were not used for longest
    rows      of runs that were not used for longest, if a server has all of them; what else is known of a run stays

and segments are written anew where a good part of their rows are of runs that were removed or replaced. `--force`
takes, after all of these and in the same order, media that no server has any more, and rows that are nowhere else.
The rows of a run stay in any case while it goes on; without `--force` for two hours after it was last asked for, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from ..model import RunRef
from ..sizes import show_size

RUNNING, USED = "still running", "in use"
WORTH = 0.25  # of a segment is dead: write it anew, however large it is
SMALL = 16_000_000  # bytes of a segment that is written anew for any run that goes
SAMPLES = 10_000  # of machine metrics are all that a server gives of a run
IN_USE = 7200.0  # seconds after a run was last asked for; that is noted once an hour


@dataclass(frozen=True, slots=True)
class Limits:
    """How much to keep, and for how long."""

    max_size: int | None = None  # bytes
    keep: float | None = None  # seconds since a run or a file was last used, or came

    def __bool__(self) -> bool:
        return self.max_size is not None or self.keep is not None


@dataclass(frozen=True, slots=True)
class Kept:
    """A file besides the rows."""

    path: str  # in the cache
    bytes: int
    used_at: float  # unix seconds
    elsewhere: bool = True  # it can be made or downloaded again


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of rows."""

    number: int
    bytes: int
    rows: int  # in the file, dead ones too
    runs: Mapping[RunRef, int]  # rows of each run that are not dead


@dataclass(frozen=True, slots=True)
class Held:
    """A run that has rows here."""

    ref: RunRef
    revision: int
    used_at: float  # unix seconds: when it was last asked for, or else when it last gave a sign of life
    asked_at: float | None = None  # unix seconds
    came_at: float = 0.0  # unix seconds: when the last of its rows came
    ended: bool = True
    listed: bool = True  # a server has it
    whole: bool = True  # and has as many rows, samples and console lines of it as are here, none of which is missing
    samples: int = 0  # of machine metrics


@dataclass(frozen=True, slots=True)
class Facts:
    """A cache as the planner sees it."""

    size: int  # bytes, without what gc is going to remove
    derived: Sequence[Kept] = ()
    media: Sequence[Kept] = ()
    segments: Sequence[Segment] = ()
    runs: Sequence[Held] = ()


@dataclass(frozen=True, slots=True)
class Remove:
    """Files that go."""

    files: tuple[Kept, ...]
    what: str  # derived, media, lost media (no server has it any more)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def __str__(self) -> str:
        count, after = len(self.files), {"derived": "made", "media": "downloaded"}.get(self.what)
        files = f"{count:,} file{'s' * (count > 1)} of {self.what}, {show_size(self.bytes)}"
        used = max(file.used_at for file in self.files)
        how = f"can be {after} again" if after else "on no server any more"
        return f"remove {files} (not used since {_day(used)}, {how})"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A segment with many dead rows goes, a new one without them comes."""

    segment: int
    bytes: int  # that are saved, about

    def __str__(self) -> str:
        return f"rewrite segment {self.segment} without its dead rows, {show_size(self.bytes)}"


@dataclass(frozen=True, slots=True)
class Evict:
    """The rows of a run go; its record, summary, statistics and list of files stay."""

    ref: RunRef
    revision: int
    bytes: int  # of its rows, about
    used_at: float
    only_here: str | None = None  # why nobody may have these rows any more

    def __str__(self) -> str:
        where = f"which may be lost: {self.only_here}" if self.only_here else "which its server has"
        return f"remove the rows of {self.ref}, {show_size(self.bytes)} (not used since {_day(self.used_at)}, {where})"


@dataclass(frozen=True, slots=True)
class Short:
    """The cache stays too large; a notice, nothing to do."""

    bytes: int  # more than there should be
    reasons: tuple[tuple[str, int, int], ...]  # why rows stay: reason, runs, bytes

    def __str__(self) -> str:
        rows = [f"{show_size(size)} of {runs:,} run{'s' * (runs > 1)}: {why}" for why, runs, size in self.reasons]
        return f"{show_size(self.bytes)} too much stay: {'; '.join(rows) or 'there are no rows to remove'}"


Action = Remove | Rewrite | Evict | Short


def plan(facts: Facts, limits: Limits, *, now: float, force: bool = False) -> Iterator[Action]:
    """What to remove, in this order; nothing if the cache is within its limits."""
    yield from _Plan(facts, limits, now).actions(force)


def holds(run: Held, now: float) -> str | None:
    """Why the rows of a run are not to be removed; None: they can be."""
    if not run.ended:
        return RUNNING
    if not run.listed:
        return "only here"
    if not run.whole:
        return "not all on its server"
    if run.samples > SAMPLES:
        return "more machine metrics than a server gives again"
    return USED if run.asked_at is not None and 0 <= now - run.asked_at < IN_USE else None


@dataclass
class _Plan:
    """What is left, as one thing after the other is removed."""

    facts: Facts
    limits: Limits
    now: float
    size: int = 0
    rows: dict[RunRef, dict[int, int]] = field(default_factory=dict)  # run -> segment -> rows
    alive: dict[int, int] = field(default_factory=dict)  # segment -> rows that are not dead
    saved: dict[int, int] = field(default_factory=dict)  # segment -> bytes that go for its dead rows

    def __post_init__(self) -> None:
        self.size = self.facts.size
        self.segments = {one.number: one for one in self.facts.segments}
        for one in self.facts.segments:
            self.alive[one.number] = sum(one.runs.values())
            for ref, rows in one.runs.items():
                self.rows.setdefault(ref, {})[one.number] = rows

    def actions(self, force: bool) -> Iterator[Action]:
        if self.too_large:
            for number in self.segments:
                self.settle(number, small=0)
        yield from self.removed(self.facts.derived, "derived")
        yield from self.removed([one for one in self.facts.media if one.elsewhere], "media")
        runs = sorted(self.facts.runs, key=lambda run: (run.used_at, run.ref))
        why = {run.ref: holds(run, self.now) for run in runs}
        yield from self.evicted([run for run in runs if why[run.ref] is None], why)
        if force:
            yield from self.evicted([run for run in runs if why[run.ref] == USED], why)
            yield from self.removed([one for one in self.facts.media if not one.elsewhere], "lost media")
            yield from self.evicted([run for run in runs if why[run.ref] != RUNNING], why)
        yield from (Rewrite(number, size) for number, size in self.saved.items() if size and self.alive[number])
        if self.too_large:
            yield self.short(runs, why)

    @property
    def too_large(self) -> bool:
        return self.limits.max_size is not None and self.size > self.limits.max_size

    def due(self, used_at: float) -> bool:
        """Whether something is to go: for want of room, or for its age."""
        return self.too_large or (self.limits.keep is not None and self.now - used_at > self.limits.keep)

    def removed(self, files: Iterable[Kept], what: str) -> Iterator[Remove]:
        chosen = []
        for file in sorted(files, key=lambda file: (file.used_at, file.path)):
            if not self.due(file.used_at):
                continue
            self.size -= file.bytes
            chosen.append(file)
        if chosen:
            yield Remove(tuple(chosen), what)

    def evicted(self, runs: Iterable[Held], why: Mapping[RunRef, str | None]) -> Iterator[Evict]:
        for run in runs:
            if run.ref not in self.rows or not self.due(max(run.used_at, run.came_at)):
                continue
            size = self.bytes_of(run.ref)
            for number, rows in self.rows.pop(run.ref).items():
                self.alive[number] -= rows
                self.settle(number)
            lost = None if why[run.ref] == USED else why[run.ref]
            yield Evict(run.ref, run.revision, size, run.used_at, lost)

    def bytes_of(self, ref: RunRef) -> int:
        """About how much room a run's rows take."""
        parts = ((self.segments[number], rows) for number, rows in self.rows.get(ref, {}).items())
        return sum(one.bytes * rows // max(one.rows, 1) for one, rows in parts)

    def settle(self, number: int, *, small: int = SMALL) -> None:
        """Count what is saved of a segment: all of it if nothing in it is alive, its dead rows if that is worth it."""
        one, alive = self.segments[number], self.alive[number]
        dead = one.bytes - one.bytes * alive // max(one.rows, 1)
        saves = one.bytes if not alive else dead if dead >= WORTH * one.bytes or one.bytes <= small else 0
        self.size -= saves - self.saved.get(number, 0)
        self.saved[number] = saves

    def short(self, runs: Iterable[Held], why: Mapping[RunRef, str | None]) -> Short:
        stay: dict[str, tuple[int, int]] = {}
        for run in runs:
            if run.ref in self.rows:
                reason = why[run.ref] or "little of their segments"
                count, size = stay.get(reason, (0, 0))
                stay[reason] = count + 1, size + self.bytes_of(run.ref)
        assert self.limits.max_size is not None
        most = sorted(stay.items(), key=lambda item: -item[1][1])
        return Short(self.size - self.limits.max_size, tuple((reason, *both) for reason, both in most))


def _day(time: float) -> str:
    return f"{datetime.fromtimestamp(time, timezone.utc):%Y-%m-%d}"
