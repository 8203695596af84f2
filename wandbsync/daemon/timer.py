"""When a job's time has come. Behind a Protocol, so that a day can go by in a second when a test says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Protocol


class Timer(Protocol):
    """Calls what it is given, in the threads of a pool, once, at a time or as soon as a thread is free then."""

    def at(self, name: str, when: float, pool: str, call: Callable[[], object]) -> None:
        """`when`: unix seconds. In place of what was to be called under this name."""

    def cancel(self, name: str) -> None:
        """Forget what was to be called under this name."""

    def stop(self) -> None:
        """Begin nothing any more; what is under way goes on."""


class RealTimer:
    """APScheduler's. Whoever comes first is served first: no job, however long, keeps the others of its pool waiting
    for more than its own turn."""

    def __init__(self, pools: Mapping[str, int]) -> None:
        """`pools`: name -> threads."""
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler

        logging.getLogger("apscheduler").addHandler(logging.NullHandler())  # what it says at its end is no news
        self._scheduler: Any = BackgroundScheduler(
            executors={name: ThreadPoolExecutor(threads) for name, threads in pools.items()},
            timezone=timezone.utc,
            # Late is better than never, and more than one at a time is what the service itself sees to: a job plans
            # its next time while this one still counts as running.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 100},
        )
        self._scheduler.start()

    def at(self, name: str, when: float, pool: str, call: Callable[[], object]) -> None:
        # Again in a hundred years: a job that is over would be removed, and that fails where the scheduler is shut down
        # at the same moment.
        self._scheduler.add_job(
            call,
            "interval",
            days=36_500,
            next_run_time=datetime.fromtimestamp(when, timezone.utc),
            id=name,
            executor=pool,
            replace_existing=True,
        )

    def cancel(self, name: str) -> None:
        from apscheduler.jobstores.base import JobLookupError

        try:
            self._scheduler.remove_job(name)
        except JobLookupError:
            return

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
