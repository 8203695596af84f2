"""When the next request may be sent: one Budget for all workers, learnt from what the server says of its limits.

    with budget.slot("me/demo"):        waits its turn
        answer = post(...)
        budget.saw(answer.status_code, answer.headers)

Four things hold a request back: as many of its project are under way as may be; the server has asked for quiet (a 429,
or nothing Remaining); what Remains is low and is spread over the time until its Reset; or more are under way already
than the server has said it would take. At the start, and after each quiet, one request goes alone and the others wait
for what it learns, so that they do not all come at once.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

from ...errors import Stopped

BASE, CAP = 1.0, 60.0  # seconds of quiet after a 429 that says nothing: doubled each time, up to the cap
PATIENCE = 5.0  # seconds that others wait for one request to come back and tell what is left
CAUTION, MOST = 0.25, 1.0  # seconds between requests right after a 429, at least and at most
RECENT = 60.0  # refusals less than that apart tell which pace the server bears
ENOUGH = 10  # answers in a row, at least, that tell that the server bears more by now
FEW = 10  # Remaining that counts as low where the server does not say of how many


class Budget:
    """Shared by all threads that ask one server. Clock and sleep can be given, for tests; seconds everywhere."""

    def __init__(
        self,
        *,
        in_flight: int = 1,
        downloads: int = 4,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        """At most `in_flight` requests of one project, and `downloads` files, at a time."""
        self.in_flight, self.downloads = in_flight, downloads
        self.clock = clock
        self.waited = 0.0  # how long somebody had to wait for the rate limit
        self._sleep = sleep
        self._jitter = jitter or random.Random()
        self._changed = threading.Condition()  # its lock is re-entrant: a signal may call `stop` amid anything here
        self._stopped = False
        self._at_stop: list[Callable[[], object]] = []
        self._busy: Counter[str] = Counter()  # requests under way by project
        self._sent = 0  # how many there were; each has its number
        self._under_way: set[int] = set()
        self._mine = threading.local()  # the number of the one in this thread's slot
        self._downloading = 0
        self._quiet = self._last = clock() - CAP  # nothing before `_quiet`; when the last one was sent
        self._left: float = 1  # how many may be sent before the server has to be heard again
        self._heard = 0  # the last one sent when the server said that fewer are left
        self._spread = 0.0  # seconds between requests while little remains
        self._spread_until = clock() - CAP
        self._caution = 0.0  # seconds between requests since the last 429; less with each that is answered ...
        self._borne = 0.0  # ... quickly down to the pace that was borne between the last two, and slowly from there ...
        self._enough = 0  # ... until twice as many were answered as between those two: the server is well again
        self._refusals = 0  # in a row
        self._refused_at, self._served = self._last, 0  # the last one, and how many were answered since
        self._counted = 0.0  # until when `waited` is counted

    @property
    def quiet_until(self) -> float:
        """The time of `clock` before which nothing is sent."""
        return max(self._quiet, self._last + self._caution, min(self._last + self._spread, self._spread_until))

    @property
    def stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        """Wake everybody who waits here; from now on they, and all who come, get Stopped. May be called by a signal."""
        self._stopped = True
        with self._changed:
            self._changed.notify_all()
        for call in self._at_stop:
            call()

    def at_stop(self, call: Callable[[], object]) -> None:
        """Have something called on `stop` that wakes those who wait elsewhere."""
        self._at_stop.append(call)

    def check(self) -> None:
        """Raise Stopped if that is what has happened."""
        if self._stopped:
            raise Stopped

    @contextmanager
    def slot(self, project: str = "") -> Iterator[None]:
        """Wait until a request of a project may be sent; it counts as under way in the block. Raises Stopped."""
        with self._changed:
            number = self._mine.number = self._enter(project)
        try:
            yield
        finally:
            with self._changed:
                self._busy[project] -= 1
                self._under_way.discard(number)
                if not self._under_way:
                    self._left = max(self._left, 1)  # nobody is left who could tell more
                self._changed.notify_all()

    @contextmanager
    def download(self) -> Iterator[None]:
        """Wait until one more file may be downloaded; the server's limits are not those of its storage."""
        with self._changed:
            self.check()
            while self._downloading >= self.downloads:
                self._wait(None)
            self._downloading += 1
        try:
            yield
        finally:
            with self._changed:
                self._downloading -= 1
                self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Sleep; only this caller waits. Raises Stopped."""
        with self._changed:
            until = self.clock() + seconds
            self.check()
            while (now := self.clock()) < until:
                self._wait(until - now)

    def back_off(self, failures: int) -> float:
        """Seconds to pause after the nth failure in a row, from about half a second up to about a minute."""
        return min(CAP, BASE * 2.0 ** min(failures - 2, 10)) * self._jitter.uniform(0.5, 1.5)

    def saw(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer; to be called in the slot of its request."""
        said = {name.lower(): value for name, value in headers.items()}
        limit, remaining, reset = (_number(said.get(f"ratelimit-{name}")) for name in ("limit", "remaining", "reset"))
        if reset is not None:
            reset = _until(reset, said.get("date"))
        wanted = retry_after(said)
        with self._changed:
            now = self.clock()
            if status == 429 or (status == 503 and wanted):
                self._refused(now, wanted or reset)
            else:
                if status < 400:
                    self._refusals = 0
                    self._served += 1
                    quickly = 0.7 * self._caution
                    is_quick = quickly >= self._borne or self._served > self._enough
                    self._caution = quickly if is_quick else 0.97 * self._caution
                    if self._caution < 0.01:
                        self._caution = 0.0
                if remaining is not None and reset is not None:
                    self._learn(now, limit, remaining, reset)
                elif status < 400 and now >= self._spread_until:
                    self._left = float("inf")  # it does not speak of limits
            self._changed.notify_all()

    def _refused(self, now: float, wanted: float | None) -> None:
        """Hold everybody back after a 429."""
        if now >= self._quiet:  # otherwise it was sent before the quiet began, and is part of the same refusal
            self._refusals += 1
            since = now - self._refused_at
            self._borne = min(MOST, since / max(self._served, 1)) if since < RECENT else 0.0
            self._enough = max(ENOUGH, 2 * self._served)
            self._refused_at, self._served = now, 0
            self._caution = max(CAUTION, self._borne)
            wanted = wanted or min(CAP, BASE * 2.0 ** min(self._refusals - 1, 10) * self._jitter.uniform(0.5, 1.5))
        if wanted:
            # A little later than it said: whole seconds are often rounded down, and others were told the same.
            self._quiet = max(self._quiet, now + wanted + min(1.0, wanted / 10) * self._jitter.random())
        self._left, self._heard = 1, self._sent

    def _learn(self, now: float, limit: float | None, remaining: float, reset: float) -> None:
        """Set the pace by what the server says remains."""
        if remaining < 1:
            self._quiet = max(self._quiet, now + reset)
            # How many there will be then is not said; all at once would be too many where the bucket is small.
            self._spread, self._spread_until = min(CAP, reset / max(limit or 1, 1)), self._quiet + reset
            self._left, self._heard = 1, self._sent
            return
        # What the server may have counted since: all that were sent later, and earlier ones that are not back.
        mine = getattr(self._mine, "number", self._sent)
        left = remaining - (self._sent - mine) - sum(number < mine for number in self._under_way)
        if left > self._left and mine <= self._heard:
            return  # answers overtake each other: this is older news than what there is
        if left < self._left:
            self._heard = self._sent
        self._left = left
        low = limit / 2 if limit else FEW
        # Of a quota per hour the last ones are for whoever asks for a few things only, so not too thinly.
        self._spread, self._spread_until = min(CAP, reset / remaining) if remaining < low else 0.0, now + reset

    def _enter(self, project: str) -> int:
        """Wait, and count one more; its number."""
        while True:
            self.check()
            if self._busy[project] >= self.in_flight:
                self._wait(None)
                continue
            now, until = self.clock(), self.quiet_until
            if now < until:
                self._wait(until - now)
                self._count(now)
            elif self._left < 1 and now < self._last + PATIENCE:
                self._wait(self._last + PATIENCE - now)
            else:
                break
        self._busy[project] += 1
        self._sent += 1
        self._under_way.add(self._sent)
        self._last = now
        self._left -= 1
        return self._sent

    def _wait(self, seconds: float | None) -> None:
        """Let go of the lock until something changes, or for so long; raises Stopped."""
        if seconds is not None and self._sleep is not None:
            self._changed.release()
            try:
                self._sleep(seconds)
            finally:
                self._changed.acquire()
        else:
            self._changed.wait(seconds)
        self.check()

    def _count(self, since: float) -> None:
        """Add to `waited`; time in which several have waited counts once."""
        now = self.clock()
        self.waited += max(0.0, now - max(since, self._counted))
        self._counted = max(self._counted, now)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After header (names in lower case); None if there is none that makes sense.

    A date is taken relative to the answer's own: this machine's clock may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return float(text)
    until = _date(text)
    if until is None:
        return None
    return max(0.0, until - (_date(headers.get("date")) or time.time()))


def _until(reset: float, date: str | None) -> float:
    """Seconds until a Reset. Some servers give the time of day instead; a 0 may be anything below a second."""
    if reset > 1e9:
        reset -= _date(date) or time.time()
    return max(reset, 0.0) or 1.0


def _number(text: str | None) -> float | None:
    """The number that a header begins with: `100, 100;w=60` is 100."""
    match = re.match(r"\s*([0-9]+(\.[0-9]+)?)", text or "")
    return float(match[1]) if match else None


def _date(text: str | None) -> float | None:
    """An HTTP date as unix seconds."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
