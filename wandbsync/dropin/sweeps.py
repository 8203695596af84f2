"""Sweeps: what is searched for, how, and the runs that do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..cache.projects import sweeps
from ..errors import NotFound
from ..freshness import Question
from ..library import who
from ..model import SweepRecord
from .pages import Pages
from .refusals import SWEEP, refused

if TYPE_CHECKING:
    from ..library import Mirror
    from .run import Run
    from .runs import Runs

Look = Callable[..., "Runs"]
COLUMNS = ("createdAt", "updatedAt", "name", "sweep")  # of runs, where an order does not mean their summary


class SweepNotFoundError(NotFound, ValueError):
    """There is no such sweep; a ValueError as in the SDK."""


class Sweep:
    """A sweep as its server described it when the project was last synced."""

    def __init__(self, mirror: Mirror, record: SweepRecord, runs: Look) -> None:
        """`runs` gives the runs of a project that fit a filter, in an order."""
        self._mirror, self._record, self._look = mirror, record, runs
        self.id, self.entity, self.project = record.sweep_id, record.entity, record.project
        self.config = dict(record.config)
        self.state = record.state

    @property
    def name(self) -> str:
        return self._record.display_name or self.id

    @property
    def expected_run_count(self) -> int | None:
        """How many runs it is to have; None if no end is set."""
        return self._record.runs_expected

    @property
    def order(self) -> str | None:
        """The order of runs that puts the best first, None if its config names no metric."""
        if self._record.metric is None:
            return None
        return _order(("-" if self._record.goal == "maximize" else "+") + self._record.metric)

    @property
    def runs(self) -> Runs:
        """Its runs, the first made first."""
        return self._runs("+created_at")

    def _runs(self, order: str) -> Runs:
        return self._look(self._mirror, self.entity, self.project, {"sweep": self.id}, order)

    def best_run(self, order: str | None = None) -> Run | None:
        """The best run by the metric of its config, or by an `order` such as "+val_loss"; None if it has no runs.

        A run whose metric is NaN, or no number, is best only where no other is.
        """
        runs = self._runs((_order(order) if order else self.order) or "-created_at")
        return runs[0] if len(runs) else None

    @property
    def path(self) -> list[str]:
        """Entity, project and sweep id, quoted for a URL."""
        return [quote(part, safe="") for part in (self.entity, self.project, self.id)]

    @property
    def url(self) -> str:
        """The sweep's page."""
        found = who.login(self._mirror.config)
        if found is None:
            raise refused("page of a sweep while nobody is signed in", f"{self._call}.url")
        entity, project, sweep = self.path
        return f"{found.app_url}/{entity}/{project}/sweeps/{sweep}"

    @property
    def _call(self) -> str:
        return f"wandb.Api().sweep('{self.entity}/{self.project}/{self.id}')"

    def __getattr__(self, name: str) -> Any:
        if name in SWEEP:
            raise refused(f"{name} of a sweep", f"{self._call}.{name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<Sweep {'/'.join(self.path)} ({self.state or 'Unknown State'})>"


class Sweeps(Pages[Sweep]):
    """The sweeps of a project, the first made first."""

    def __init__(self, mirror: Mirror, entity: str, project: str, runs: Look, per_page: int = 50) -> None:
        super().__init__(self._find, per_page)
        self.entity, self.project, self._mirror, self._look = entity, project, mirror, runs

    def _find(self) -> list[Sweep]:
        cache = self._mirror.ask(Question(f"{self.entity}/{self.project}"))
        return [Sweep(self._mirror, one, self._look) for one in sweeps(cache, self.entity, self.project).values()]

    def __repr__(self) -> str:
        return f"<Sweeps {self.entity}/{self.project}>"


def find_sweep(mirror: Mirror, entity: str, project: str, sweep_id: str, runs: Look) -> Sweep:
    """A sweep by its id. Raises SweepNotFoundError, with the ids there are."""
    cache = mirror.ask(Question(f"{entity}/{project}"))
    known = sweeps(cache, entity, project)
    if sweep_id not in known:
        hint = f"there is {', '.join(known)}" if known else "the cache has no sweeps of that project"
        raise SweepNotFoundError(f"Could not find sweep {entity}/{project}/{sweep_id}", hint=hint)
    return Sweep(mirror, known[sweep_id], runs)


def _order(key: str) -> str:
    """An order of runs as the SDK reads it: a name alone is that of a metric, and `-` is meant if nothing is said."""
    direction, key = (key[0], key[1:]) if key[:1] in ("+", "-") else ("-", key)
    is_metric = key.split(".")[0] not in ("config", "summary_metrics", "tags") and key not in COLUMNS
    return f"{direction}summary_metrics.{key}" if is_metric else direction + key
