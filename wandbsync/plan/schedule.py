"""When the daemon looks at a project next, and how; and when it asks again a server that was away. Pure.

    some of its runs go on         every `poll` seconds
    nothing has changed            twice as long each time, up to `settled`
    it failed                      30 s, then twice as long each time, up to an hour
    the server wants quiet         when that is over
    it was ended before its end    at once, after whoever waits: a large project is done in slices
    not swept for `sweep` seconds  that look is at everything, any other only at what can have changed

A look that failed comes no later than it would have anyway, unless it failed for long. No time is later than `now` and
the wait: a clock that was set back does not keep anybody waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ..model import Pace

FIRST_RETRY, LAST_RETRY = 30.0, 3600.0  # seconds after the first failure, and at the most
FIRST_PROBE, LAST_PROBE = 5.0, 300.0  # seconds between cheap questions to a server that is away


@dataclass(frozen=True, slots=True)
class Past:
    """How the looks at a project went. Times are unix seconds."""

    looked_at: float | None = None  # the last look, however it went
    fresh_at: float | None = None  # the last one that came to its end
    swept_at: float | None = None  # the last of these that was at everything
    running: int = 0  # how many of its runs go on
    quiet: int = 0  # looks in a row that found nothing new
    failures: int = 0  # in a row
    error: str | None = None  # the last of them
    more: bool = False  # the last look was ended before its end
    until: float | None = None  # the server wants quiet until then


@dataclass(frozen=True, slots=True)
class Look:
    """The next look at a project."""

    at: float  # unix seconds
    sweep: bool  # at everything

    def __str__(self) -> str:
        return f"{'sweep' if self.sweep else 'poll'} at {self.at:.0f}"


def pace_of(project: str, usual: Pace, own: Sequence[tuple[str, Pace]]) -> Pace:
    """The pace of a project ("entity/project"): that of the first pattern that fits, else the usual one."""
    return next((pace for pattern, pace in own if project == pattern or fnmatchcase(project, pattern)), usual)


def interval(past: Past, pace: Pace) -> float:
    """Seconds from one look that came to its end to the next."""
    if past.running:
        return pace.poll
    return min(max(pace.settled, pace.poll), pace.poll * 2.0 ** min(past.quiet, 30))


def next_look(past: Past, pace: Pace, *, now: float) -> Look:
    """When to look at a project next, and whether at everything."""
    if past.looked_at is None:
        return Look(now, _is_to_be_swept(past, pace, now))
    wait = interval(past, pace)
    if past.more:
        wait = 0.0
    if past.failures:
        wait = retry_after(past.failures)
    at = past.looked_at + wait
    if past.until is not None:
        at = max(at, past.until)
        wait = max(wait, past.until - past.looked_at)
    at = min(max(at, now), now + wait)
    return Look(at, _is_to_be_swept(past, pace, at))


def _is_to_be_swept(past: Past, pace: Pace, at: float) -> bool:
    return past.swept_at is None or not 0 <= at - past.swept_at < pace.sweep


def came_to_its_end(past: Past, *, began: float, at: float, sweep: bool, more: bool, news: bool, running: int) -> Past:
    """What is known after a look, of what was so when it began. `more`: it was ended before its end."""
    done = replace(past, looked_at=at, running=running, failures=0, error=None, more=more, until=None)
    if more:
        return replace(done, quiet=0)
    quiet = 0 if news else past.quiet + 1
    return replace(done, fresh_at=began, swept_at=began if sweep else past.swept_at, quiet=quiet)


def failed(past: Past, *, at: float, error: str) -> Past:
    """What is known after a look that failed."""
    return replace(past, looked_at=at, failures=past.failures + 1, error=error, until=None)


def put_off(past: Past, *, at: float, until: float) -> Past:
    """What is known after the server asked for quiet; that is no failure of anybody."""
    return replace(past, looked_at=at, until=until)


def retry_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 10)) if failures > 0 else 0.0


def probe_after(probes: int) -> float:
    """Seconds to wait before a server that was away so many times in a row is asked whether it is back."""
    return min(LAST_PROBE, FIRST_PROBE * 2.0 ** min(probes, 10))
