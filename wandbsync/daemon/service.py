"""Jobs by name. Each is done in a thread of its pool, then says when it is to be done next: so none ever piles up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import CacheBusy, CacheError, Stopped, WandbsyncError
from ..plan.schedule import retry_after
from ..status import Job as JobStatus
from .log import Log
from .timer import Timer

AGAIN = 5.0  # seconds until a job goes on that was stopped by something else than the service's end
CACHE_RETRY = 30.0  # seconds: a disk that is full is looked at more often than a server that fails


@dataclass(slots=True)
class _Job:
    """A job, and how it went."""

    pool: str
    call: Callable[[], float | None]
    next_at: float | None = None
    started_at: float | None = None
    running: bool = False
    again: float | None = None  # to be done at that time as well, said while it was running
    seconds: float | None = None
    times: int = 0
    failures: int = 0
    error: str | None = None


class Service:
    """Does its jobs, each in its own time, never one twice at once."""

    def __init__(self, timer: Timer, log: Log, *, clock: Callable[[], float] = time.time) -> None:
        self.timer, self.log, self.clock = timer, log, clock
        self.stopping = threading.Event()
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._jobs: dict[str, _Job] = {}

    def add(self, name: str, pool: str, call: Callable[[], float | None], at: float | None) -> None:
        """Do this at a time (unix seconds), and then whenever it says; None: when somebody calls `wake`.

        What a job raises is told and counted, and it is done again a while later.
        """
        with self._lock:
            self._jobs[name] = _Job(pool, call)
            if at is not None:
                self._plan(name, at)

    def drop(self, name: str) -> None:
        """Do this no more."""
        with self._lock:
            if self._jobs.pop(name, None) is not None:
                self.timer.cancel(name)

    def wake(self, name: str) -> None:
        """Do a job now; one that is being done, once more after that."""
        with self._lock:
            job = self._jobs.get(name)
            if job is None:
                return
            at = self.clock()
            if job.running:
                job.again = at if job.again is None else min(at, job.again)
            elif job.next_at is None or at < job.next_at:
                self._plan(name, at)

    def set_clock(self) -> None:
        """The clock was set: whatever waits is done now, and says anew how long it wants to wait."""
        with self._lock:
            now = self.clock()
            for name, job in self._jobs.items():
                if not job.running and job.next_at is not None:
                    self._plan(name, now)

    def names(self) -> list[str]:
        with self._lock:
            return list(self._jobs)

    def check(self, *_: object) -> None:
        """Raise Stopped if this is to end; what a long job calls on its way."""
        if self.stopping.is_set():
            raise Stopped

    def stop(self) -> None:
        """Begin nothing more; jobs that are under way find out by `check`."""
        self.stopping.set()
        self.timer.stop()

    def wait(self, seconds: float) -> bool:
        """Whether all that was under way has come to its end within so long."""
        deadline = time.monotonic() + seconds
        with self._idle:
            while any(job.running for job in self._jobs.values()):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._idle.wait(left)
        return True

    def status(self) -> list[JobStatus]:
        with self._lock:
            return [
                JobStatus(
                    name,
                    "running" if job.running else "waiting" if job.next_at is not None else "parked",
                    job.next_at,
                    job.started_at,
                    job.seconds,
                    job.times,
                    job.failures,
                    job.error,
                )
                for name, job in sorted(self._jobs.items())
            ]

    # -- one job

    def _plan(self, name: str, at: float) -> None:
        job = self._jobs[name]
        job.next_at = at
        if not self.stopping.is_set():
            self.timer.at(name, at, job.pool, lambda: self._do(name))

    def _do(self, name: str) -> None:
        with self._lock:
            job = self._jobs.get(name)
            if job is None or job.running or self.stopping.is_set():
                return
            job.running, job.next_at, job.again = True, None, None
            job.started_at = self.clock()
        began = time.perf_counter()
        next_at: float | None = None
        try:
            next_at = job.call()
            job.failures, job.error = 0, None
        except Stopped:
            next_at = self.clock() + AGAIN
        except Exception as error:  # at the top of a job: whatever it is, the others go on, and it is tried again
            next_at = self.clock() + self._failed(name, job, error)
        finally:
            with self._idle:
                job.running = False
                job.seconds = time.perf_counter() - began
                job.times += 1
                times = [at for at in (next_at, job.again) if at is not None]
                if times and self._jobs.get(name) is job:
                    self._plan(name, min(times))
                self._idle.notify_all()

    def _failed(self, name: str, job: _Job, error: Exception) -> float:
        """Tell what went wrong; seconds until it is tried again."""
        job.failures += 1
        wait = retry_after(job.failures)
        if isinstance(error, WandbsyncError):
            job.error = error.line()
            self.log.problem("failed", job=name, error=job.error, failures=job.failures)
        else:
            job.error = f"{type(error).__name__}: {error}"
            self.log.crash("crashed", error, job=name, failures=job.failures)
        return min(wait, CACHE_RETRY) if isinstance(error, (CacheError, CacheBusy)) else wait
