"""The plan for a server: what it lists and what the cache has, and so what is to be asked. Pure; a dry run prints it.

    the server's listing -> Remote --+
                                     +--> plan_server --> Fetch | Describe | Wait | Gone
    the cache's cursors  -> Cached --+

A listed run gets what the first line that fits says. *Moved* means: something in its fingerprint besides what people
edit is not as it was when its rows were fetched. *Anew*: all rows are replaced, as a new generation. Counts are rows.

    its rows were removed to save space, and no log of it is being written here
      asked for by name, or --full         fetch anew  removed
      another run, or another count        fetch anew  re-used, rewound, grown
      else                                 nothing                   or it would be removed and fetched for ever
    no log of the run on this machine
      made at another time than before     fetch anew  re-used       another run under the old id
      --full                               fetch anew  again
      rows never fetched                   fetch       new
      fewer on the server than before      fetch anew  rewound
      moved, fewer than cached, and ended or another count than before
                                           fetch anew  rewound       rows came after the listing, and were cut then
      more than cached, more than before   fetch       grown
      more than cached, or incomplete      fetch       incomplete    anew if less cannot help
      moved                                fetch       touched       the history is all here: do not ask for it
      the last attempt failed              fetch       failed
    a log of it is being written here
      more than cached                     fetch       elsewhere     adds the missing steps
      else                                 nothing                   the log is ahead, the server comes later
    a log of it has ended here
      ended; re-used, or fewer than before, since its rows were fetched
                                           fetch anew  re-used, rewound
      more than cached, another run        fetch anew  re-used
      --full, ended, no fewer than cached  fetch anew  again
      more than cached                     fetch       elsewhere
      fewer than cached                    nothing                   the upload is behind
      as many, fetched before, moved       fetch       touched       it went on elsewhere
      as many, ended, never fetched        describe, if not as then  the server's record wins
    none of these
      seen differently when last described describe                  edited; changed
      marked as deleted, but listed        describe    back

While a run waits after a failure the fetch becomes a Wait, and what can be said without rows is said (Describe). The
wait is over at its time, when the run is asked for by name (`insist`, `full`), or when its rows or state moved since
the last attempt; only the time counts for a run that failed POISONED times. A fetch that tries again what failed says
so (failed, incomplete) and is anew if that was to be. Without `rows` every Fetch and Wait is left out.

For this to come to rest, a sync notes after each attempt on a run, in the commit of what it got:

    it worked      fetched = described = now, failures = 0; incomplete, retry_at, tried = None; not owed
    rows missing   the same, but incomplete = why, failures + 1, retry_at = its time + retry_after(failures)
    it failed      tried = now, failures + 1, retry_at likewise; owed, if it was to be whole; the rest as it was
    described      described = now; the rest as it was

A failure is the run's own: when the server cannot be reached at all, or wants quiet, nothing is noted.

Counts cannot tell a run that was rewound and has grown back to its former count between two looks; --full helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from ..model import Fingerprint, RunRef

PACE = (60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)  # seconds to leave a run alone after the n-th failure in a row
POISONED = 5  # failures in a row after which no change of the run shortens its waiting


@dataclass(frozen=True, slots=True)
class Remote:
    """A run as the server lists it."""

    ref: RunRef
    now: Fingerprint


@dataclass(frozen=True, slots=True)
class Cached:
    """A run as the cache knows it."""

    ref: RunRef
    described: Fingerprint | None = None  # listed when its record was taken from the server; None: it never was
    fetched: Fingerprint | None = None  # noted before its rows were fetched; None: none came from the server yet
    rows: int = 0  # of its history in the cache, whatever the source
    local: str | None = None  # None: no log of it on this machine; "open": one is still being written; "ended"
    incomplete: str | None = None  # why rows are missing
    failures: int = 0  # attempts in a row that failed, or left rows missing
    retry_at: float | None = None  # unix seconds
    deleted: bool = False  # marked as gone from the server
    tried: Fingerprint | None = None  # noted before the last attempt, if that failed; None: as `fetched`
    owed: bool = False  # an attempt to fetch all rows anew failed, and none has worked since
    evicted: bool = False  # its rows were removed to save space; `rows` is how many there were


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring the run's rows, and its record, up to date."""

    ref: RunRef
    now: Fingerprint  # to be noted with what is fetched: what arrives meanwhile shows up as a change next time
    reason: str  # new, grown, touched, re-used, rewound, elsewhere, incomplete, failed, again, removed
    whole: bool  # replace all rows; else add the steps that are missing

    def __str__(self) -> str:
        return f"fetch {self.ref}{' anew' if self.whole else ''} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Describe:
    """Bring the run's record up to date; its rows stay as they are. The run is there: a mark of deletion goes."""

    ref: RunRef
    now: Fingerprint
    reason: str  # new, edited, changed, re-used, back, again

    def __str__(self) -> str:
        return f"describe {self.ref} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave the run's rows alone for now; a notice, nothing to do."""

    ref: RunRef
    until: float  # unix seconds
    reason: str  # incomplete, failed

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.until, timezone.utc)
        return f"leave {self.ref} until {until:%Y-%m-%d %H:%M:%SZ} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Gone:
    """The server no longer lists the run. A page may have slipped: ask for the run itself before marking it."""

    ref: RunRef

    def __str__(self) -> str:
        return f"ask whether {self.ref} was deleted"


Action = Fetch | Describe | Wait | Gone


def retry_after(failures: int) -> float:
    """Seconds to leave a run alone after so many failures in a row: 1 min, 5 min, 15 min, 1 h, 4 h, then a day."""
    return PACE[min(failures, len(PACE)) - 1] if failures > 0 else 0.0


def plan_server(
    listed: Iterable[Remote],
    cached: Mapping[RunRef, Cached],
    *,
    at: float,
    full: bool = False,
    rows: bool = True,
    insist: bool = False,
    complete_listing: bool = True,
) -> list[Action]:
    """The actions, those for the newest runs first, what may be gone last. For one run: one, or Describe and Wait.

    `at` is now (unix seconds). `cached` has the runs of the listed projects, no others, and was read before the listing
    was begun: a listing older than what is cached looks like a rewind. Of a run listed twice the last sight counts.
    `full`: fetch everything anew. Not `rows`: bring records up to date only. `insist`: do not wait. Not
    `complete_listing`: a filter, a limit or one run, so a run that is not listed may well be there.
    """
    here = {run.ref: run.now for run in listed}
    actions: list[Action] = []
    for ref, now in _newest_first(here):
        actions += _plan_run(ref, now, cached.get(ref) or Cached(ref), at, full, rows, insist or full)
    if complete_listing:
        seen = {ref: one.described or one.fetched for ref, one in cached.items() if ref not in here and not one.deleted}
        actions += [Gone(ref) for ref, _ in _newest_first({ref: one for ref, one in seen.items() if one is not None})]
    return actions


def unfinished(cached: Iterable[Cached]) -> list[RunRef]:
    """The runs that a filtered listing must include, or their end would be missed: fetched before, and not at rest."""
    return [
        one.ref
        for one in cached
        if one.fetched is not None
        and not one.deleted
        and not one.evicted
        and (not one.fetched.ended or one.rows < one.fetched.lines or one.incomplete is not None or one.failures)
    ]


def _newest_first(runs: Mapping[RunRef, Fingerprint]) -> list[tuple[RunRef, Fingerprint]]:
    return sorted(sorted(runs.items(), key=lambda item: item[0]), key=lambda item: item[1].created_at, reverse=True)


def _plan_run(
    ref: RunRef, now: Fingerprint, known: Cached, at: float, full: bool, rows: bool, insist: bool
) -> Iterator[Action]:
    wanted = _fetch(now, known, full, insist) if rows else None
    again = not _restarted(known.tried or known.fetched, now)
    until = None if insist else _wait(known, at, again)
    if wanted is not None and until is None:
        reason, whole = wanted
        owed = known.owed and known.failures > 0 and known.local != "open"
        if reason != "again" and known.failures and (again or owed):
            reason = _failure(known)
        yield Fetch(ref, now, reason, whole or owed)
        return
    about = _describe(now, known, full)
    if about is not None:
        yield Describe(ref, now, about)
    if wanted is not None and until is not None:
        yield Wait(ref, until, _failure(known))


def _fetch(now: Fingerprint, known: Cached, full: bool, insist: bool) -> tuple[str, bool] | None:
    """Why the rows are to be fetched, and whether all of them anew; None: not at all."""
    if known.evicted:
        return None if known.local == "open" else _fetch_evicted(now, known, insist)
    if known.local is not None:
        return _fetch_beside(now, known, full)
    before = known.fetched
    seen = before or known.described
    if seen is not None and (before or known.rows) and not _same_run(seen, now):
        return "re-used", True
    if full:
        return "again", True
    if before is None:
        return "new", False
    moved = _moved(before, now)
    # Rows that came after the listing are cut again, unless the count stands still while it runs: then it is behind.
    cut = now.lines < known.rows and moved and (now.ended or now.lines != before.lines)
    if now.lines < before.lines or cut:
        return "rewound", True
    if now.lines > max(before.lines, known.rows):
        return "grown", False
    if now.lines > known.rows or known.incomplete is not None:
        # Rows too many, or of the same step as others, are not put right by adding those that are missing.
        return "incomplete", now.lines < known.rows or known.failures > 1
    if moved:
        return "touched", False
    return ("failed", False) if known.failures else None


def _fetch_evicted(now: Fingerprint, known: Cached, insist: bool) -> tuple[str, bool] | None:
    """The same for a run whose rows were removed: but for another count of rows, they are fetched when asked for."""
    seen, more = known.fetched or known.described, now.lines > known.rows
    # Of a run that was logged here the server may be behind.
    fresh = known.local is None or more or (now.ended and now.lines == known.rows)
    if seen is not None and fresh and not _same_run(seen, now):
        return "re-used", True
    if fresh and now.lines != known.rows:
        return "grown" if more else "rewound", True
    return ("removed", True) if insist else None


def _fetch_beside(now: Fingerprint, known: Cached, full: bool) -> tuple[str, bool] | None:
    """The same for a run that has a log here. Its rows are exact and come first: nothing replaces them by fewer,
    unless the server had them all and is where the run went on."""
    if known.local == "ended":
        before, seen = known.fetched, known.fetched or known.described
        more = now.lines > known.rows
        if seen is not None and not _same_run(seen, now) and (more or (before is not None and now.ended)):
            return "re-used", True
        if before is not None and now.ended and now.lines < before.lines:
            return "rewound", True
        if full and now.ended and now.lines >= known.rows:
            return "again", True
        if before is not None and now.lines == known.rows and _moved(before, now):
            return "touched", False
    return ("elsewhere", False) if now.lines > known.rows else None


def _describe(now: Fingerprint, known: Cached, full: bool) -> str | None:
    """Why the record is to be taken from the server; None: it is as it was, or the log here knows better."""
    if known.deleted:
        return "back"
    goes_on_there = now.lines > known.rows or now.ended or known.fetched is not None
    if known.local == "open" or (known.local == "ended" and not (goes_on_there and now.lines >= known.rows)):
        return None
    before = known.described
    if before is None:
        return "new"
    if not _same_run(before, now):
        return "re-used"
    if _moved(before, now):
        return "changed"
    if before.described != now.described:
        return "edited"
    return "again" if full else None


def _wait(known: Cached, at: float, again: bool) -> float | None:
    """Until when the run has to wait; None: it need not. `again` is to try what was tried before."""
    # Nothing waits longer than the pace: a later time was noted when the clock was wrong.
    if known.retry_at is None or not at < known.retry_at <= at + PACE[-1]:
        return None
    return known.retry_at if again or known.failures >= POISONED else None


def _failure(known: Cached) -> str:
    return "failed" if (known.incomplete is None or known.evicted) and known.failures else "incomplete"


def _same_run(before: Fingerprint, now: Fingerprint) -> bool:
    """Whether both were made in the same second; servers have written the time with and without zone and fraction."""
    return before.created_at[:19] == now.created_at[:19]


def _restarted(before: Fingerprint | None, now: Fingerprint) -> bool:
    """Whether there is reason to think that what failed will work now: there are other rows. A heartbeat is none."""
    return before is not None and (before.state != now.state or before.lines != now.lines or not _same_run(before, now))


def _moved(before: Fingerprint, now: Fingerprint) -> bool:
    """Whether anything but what people edit has changed. A count that the server left out once did not change."""
    return (
        _restarted(before, now)
        or before.heartbeat_at != now.heartbeat_at
        or (None not in (before.events, now.events) and before.events != now.events)
        or (None not in (before.console, now.console) and before.console != now.console)
    )
