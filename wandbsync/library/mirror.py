"""The object that answers: one cache, its sources, and how fresh the answers have to be."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import config as settings
from .. import freshness, query
from ..cache import Cache
from ..errors import NotFound, NothingCached, UsageError
from ..freshness import Question, Wanted
from ..model import HISTORY, STREAMS, RunRef
from ..targets import parse
from ..terminal import printable
from . import who
from .gaps import tell
from .shown import Record, Rows

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

    from ..query.connection import Connection
    from ..sources.api.client import Api
    from ..sync import SyncReport

log = logging.getLogger("wandbsync")

RunLike = str | RunRef | Mapping[str, Any]
"""A run: "entity/project/run_id" (or a display name), what `runs` and `run` give, or a RunRef. "entity/project" where
several runs are meant stands for all of them."""

PROJECT_COLUMNS = ("entity", "name", "runs", "source", "synced_at", "description")
RUN_COLUMNS = ("id", "name", "state", "created_at", "rows", "complete", "summary_metrics")


def open(
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    max_age: float | str | None = None,
) -> Mirror:
    """The cache, ready to answer.

    `cache_dir`: where it is; None: as the settings say (WANDBSYNC_CACHE_DIR, the settings file, ~/.cache/wandbsync).
    `offline`: never ask a source. `max_age`: how old an answer may be before its source is looked at again, in seconds
    or as text ("90s", "5m", "2h"); None: as the settings say (5 minutes). Nothing is read or asked yet.

    Raises UsageError if the settings are wrong.

    >>> import wandbsync
    >>> with wandbsync.open(offline=True) as mirror:
    ...     [run["id"] for run in mirror.runs("demo")]
    ['steady', 'eager']
    """
    try:
        age = settings.parse_duration(max_age) if max_age is not None else None
    except ValueError as error:
        raise UsageError(f"max_age: {error}") from error
    return Mirror(settings.load(cache_dir=None if cache_dir is None else Path(cache_dir)), Wanted(offline, max_age=age))


def connect(cache_dir: str | os.PathLike[str] | None = None) -> Connection:
    """The cache as SQL: a DuckDB connection whose tables are, at each query, those of the cache as it stands then.

    It may be kept open for as long as you like, beside a daemon. `cache_dir` as for `open`; no source is asked.

    Raises UsageError if the settings are wrong, NothingCached if there is no cache.

    >>> import wandbsync
    >>> with wandbsync.connect() as con:
    ...     con.execute("SELECT run_id, min(value) FROM history WHERE key = 'loss' GROUP BY ALL ORDER BY 2").fetchall()
    [('steady', 0.125), ('eager', 0.25)]
    """
    from ..query.connection import Connection

    cache = Cache(settings.load(cache_dir=None if cache_dir is None else Path(cache_dir)).cache_dir)
    if not cache.exists():
        raise cache.nothing_cached()
    return Connection(cache)


class _Own(Cache):
    """One thread's connection; it ends with the thread."""

    def __del__(self) -> None:
        self.close()


class Mirror:
    """A cache and its sources; made by `wandbsync.open`.

    It may be shared by threads: each has a connection of its own, closed with the thread, by `close`, or by the end of
    the `with` block. What is said of an answer (that a server is away, how old it is) goes to the logger "wandbsync".
    """

    def __init__(self, config: settings.Config, wanted: Wanted) -> None:
        self.config = config
        self.wanted = wanted
        self._threads = threading.local()
        self._caches: weakref.WeakSet[_Own] = weakref.WeakSet()
        self._lock = threading.Lock()  # of what is asked: two threads do not fetch the same
        self._asked: dict[Question, float] = {}

    # -- the cache

    @property
    def cache_dir(self) -> Path:
        """Where the cache is."""
        return self.config.cache_dir

    @property
    def cache(self) -> Cache:
        """This thread's connection to the cache (internal: its tables may change)."""
        owner = os.getpid()  # a forked process must not use its parent's connection
        if getattr(self._threads, "owner", None) != owner:
            self._threads.cache, self._threads.owner = _Own(self.config.cache_dir), owner
            self._caches.add(self._threads.cache)
        one: Cache = self._threads.cache
        return one

    def close(self) -> None:
        """Close what is open; asking again opens it again."""
        for cache in list(self._caches):
            cache.close()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Mirror, (self.config, self.wanted)  # another process opens its own

    def __repr__(self) -> str:
        how = "offline" if self.wanted.offline else f"max_age={settings.show_duration(self._max_age)}"
        return f"<wandbsync.Mirror {self.config.cache_dir} ({how})>"

    @property
    def _max_age(self) -> float:
        return self.config.max_age if self.wanted.max_age is None else self.wanted.max_age

    def ask(self, question: Question) -> Cache:
        """The cache, fresh enough for a question; a source is asked the same question once in `max_age` at the most.

        Raises NothingCached if there is nothing in it, and what kept a source from answering if the cache cannot.
        """
        cache = self.cache
        if not self.wanted.offline:
            with self._lock:
                last = self._asked.get(question)
                if last is None or time.monotonic() - last > self._max_age:
                    freshness.refresh(cache, self.config, self.wanted, question, say=self.say)
                    self._asked[question] = time.monotonic()
        if not cache.exists():
            raise cache.nothing_cached()
        return cache

    def say(self, text: str) -> None:
        """Tell what has to be known of an answer."""
        log.warning("%s", printable(text))

    def forget(self) -> None:
        """Ask again what was asked already, if it is too old by now."""
        self._asked.clear()

    def find_project(self, cache: Cache, project: str) -> tuple[str, str]:
        """`entity/project` or `project` as both. Raises NotFound with near matches."""
        return query.find_project(cache, project, default_entity=self.config.default_entity)

    # -- lists

    def projects(self, entity: str | None = None) -> Rows:
        """The projects, by name: dicts with the fields of `wandbsync list-projects --json`.

        `entity`: only this one's. Times are ISO 8601 in UTC. Raises NothingCached, NotSignedIn or Unreachable.

        >>> import wandbsync
        >>> mirror = wandbsync.open(offline=True)
        >>> [(project["entity"], project["name"], project["runs"]) for project in mirror.projects()]
        [('local', 'demo', 2)]
        """
        cache = self.ask(Question(entity=entity))
        return Rows(query.list_projects(cache, entity=entity, limit=None), columns=PROJECT_COLUMNS)

    def runs(
        self,
        project: str,
        filters: Mapping[str, Any] | None = None,
        order: str = "-created_at",
        limit: int | None = None,
    ) -> Rows:
        """The runs of "entity/project", newest first: dicts with the fields of `wandbsync list-runs --json`, and
        `config` and `metadata`.

        `filters` are W&B's: {"config.lr": {"$gt": 0.01}}, {"state": "finished"}, {"$or": [...]}, with $and $or $nor
        $not $eq $ne $gt $gte $lt $lte $in $nin $exists $regex, over config.*, summary_metrics.*, state, tags,
        createdAt, displayName, name (the run id), group, jobType, sweep, notes, host, duration (seconds) ... `order` is
        a field with + or - in front; runs without it come last. `limit`: the first so many.

        Raises NotFound (which names what is like it), UsageError for a filter that cannot be, NothingCached ...

        >>> import wandbsync
        >>> mirror = wandbsync.open(offline=True)
        >>> [run["id"] for run in mirror.runs("demo", {"config.lr": {"$lt": 0.05}}, order="+summary_metrics.loss")]
        ['steady']
        """
        cache = self.ask(Question(project))
        projects = query.find_projects(cache, project, default_entity=self.config.default_entity)
        found = query.choose([run for one in projects for run in query.all_runs(cache, one)], filters, order)
        return Rows(found if limit is None else found[:limit], columns=RUN_COLUMNS)

    def run(self, path: str) -> Record:
        """One run by "entity/project/run_id"; a display name may stand for the run id. As `runs` has it.

        Raises NotFound, and UsageError if several runs have that name.

        >>> import wandbsync
        >>> run = wandbsync.open(offline=True).run("local/demo/eager")
        >>> run["config"], run["last_step"], run["summary_metrics"]["loss"]
        ({'lr': 0.1}, 3, 0.25)
        """
        (ref,) = self._refs([path], rows=False, one=True)
        return Record(query.get_run(self.cache, ref))

    def metrics(self, run: RunLike, *, include_system: bool = False) -> dict[str, dict[str, Any]]:
        """What a run logged: for each metric type, counts and statistics over its whole history, as `wandbsync
        list-metrics --json` has them. `include_system`: also `_step`, `_timestamp` (unix seconds) and the machine's.

        Raises NotFound if there is no such run.

        >>> import wandbsync
        >>> loss = wandbsync.open(offline=True).metrics("local/demo/eager")["loss"]
        >>> loss["count"], loss["min"], loss["last"], loss["last_step"]
        (4, 0.25, 0.25, 3)
        """
        (ref,) = self._refs([run], rows=True, one=True, statistics=not include_system)
        return query.list_metrics(self.cache, ref, include_system=include_system)

    # -- histories

    def history(
        self,
        runs: RunLike | Iterable[RunLike],
        keys: Sequence[str] | None = None,
        x: str = "_step",
        wide: bool = True,
        *,
        stream: str = HISTORY,
        decode: bool = False,
        with_parent: bool = False,
    ) -> pa.Table:
        """Complete histories of one run or several as a pyarrow.Table, run by run and in order of steps.

        Wide: one row a step with `run_id`, `_step` and a column for each key that one of the runs has (or for `keys`,
        in that order), typed int64, float64, bool or string by what was logged. None, and what was not logged, are
        null; NaN is NaN. Integers among floats come as float64; what is no number, bool or string, and integers of
        more than 64 bits, as JSON text, or with `decode` as Arrow lists and structs. A step that was logged in several
        rows has several rows, the first value of each key in the first. `x` other than "_step" comes next to it, and
        only rows that have it come. `_timestamp` is in unix seconds, `_runtime` in seconds.

        Not wide: one row a value: run_id, key, step, value, kind, value_json, as `wandbsync sql --schema` explains.

        `stream`: "history", or "system" for machine metrics, where `_step` counts the samples. `with_parent`: of a fork
        also the rows of the run that it was forked from, up to that step.
        `.to_pandas()` shares memory where nothing is null; `polars.from_arrow(table)` always does.

        Raises NotFound for a run or key that is not there.

        >>> import wandbsync
        >>> mirror = wandbsync.open(offline=True)
        >>> table = mirror.history(["local/demo/eager", "local/demo/steady"], ["loss", "epoch"])
        >>> table.column_names, table.num_rows
        (['run_id', '_step', 'loss', 'epoch'], 8)
        >>> table.slice(2, 2).to_pylist()[1]
        {'run_id': 'eager', '_step': 3, 'loss': 0.25, 'epoch': 1}
        """
        if stream not in STREAMS:
            raise UsageError(f"there is no stream {stream!r}", hint=f"there is {', '.join(STREAMS)}")
        refs = self._refs(runs, rows=True)
        with self._with_parents(refs) if with_parent else nullcontext(self.cache) as cache:
            return self._history(cache, refs, keys, x, wide, stream, decode)

    def _with_parents(self, refs: Sequence[RunRef]) -> AbstractContextManager[Cache]:
        """A cache for a while in which forks have their parents' rows too."""
        from .lineage import with_parents

        def fetch(parents: Sequence[RunRef]) -> None:
            for ref in parents:
                with suppress(NotFound, NothingCached):
                    self.ask(Question(f"{ref.entity}/{ref.project}", (ref.run_id,), rows=True))

        return with_parents(self.cache, refs, fetch)

    @staticmethod
    def _history(
        cache: Cache, refs: list[RunRef], keys: Sequence[str] | None, x: str, wide: bool, stream: str, decode: bool
    ) -> pa.Table:
        import pyarrow as pa

        from ..query import wide as wider

        if not wide:
            return _long(cache, refs, keys, stream)
        if keys is not None:
            keys = [key for key in dict.fromkeys([x, *keys]) if key != "_step"]
        found = wider.columns(cache, refs, keys, stream=stream)
        if keys is None and x != "_step":
            wider.columns(cache, refs, [x], stream=stream)  # raises NotFound
        batches = wider.batches(cache, refs, found, x=x, stream=stream, cells=None)
        table = pa.Table.from_batches(batches, wider.schema(found, x=x))
        return wider.decoded(table, found) if decode else table

    def sql(self, query_text: str) -> pa.Table:
        """What one read-only DuckDB query returns. `wandbsync sql --schema` prints the tables.

        Raises UsageError if the query cannot be answered, or would change something.

        >>> import wandbsync
        >>> mirror = wandbsync.open(offline=True)
        >>> query = "SELECT run_id, min(value) AS best FROM history WHERE key = 'loss' GROUP BY run_id ORDER BY best"
        >>> mirror.sql(query).to_pylist()
        [{'run_id': 'steady', 'best': 0.125}, {'run_id': 'eager', 'best': 0.25}]
        """
        import pyarrow as pa

        cache = self.ask(Question(rows=True))
        if (evicted := cache.evicted()) and re.search(r"\b(history|system|console)\b", query_text, re.IGNORECASE):
            self.say(f"without the rows of {len(evicted)} runs that were removed to save space")
        schema, batches = query.sql(cache, query_text).batches(65_536)
        return pa.Table.from_batches(batches, schema)

    def plot(self, runs: RunLike | Iterable[RunLike], *metrics: str, **options: Any) -> Figure:
        """A matplotlib Figure of a metric with all the runs in it, as `wandbsync generate-plots` draws it; of several
        metrics in a grid.

        `options` are those of `wandbsync.plot.PlotOptions`, named like the flags: `smoothing="ema"`, `x="relative"`,
        `log_y=True`, `group_by="config.lr"`, `kind="heatmap"`. A run may be a pattern ("e/p/ppo-*"), as may a metric. A
        notebook shows the figure; `figure.savefig("loss.pdf")` keeps it. Raises NotFound if none of the runs has such
        numbers.

        >>> import wandbsync
        >>> figure = wandbsync.open(offline=True).plot("local/demo", "loss", ema=False)
        >>> figure.savefig("loss.pdf")
        """
        from ..figures import shown
        from ..plot import PlotOptions, compose

        try:
            chosen = PlotOptions(**options).or_smoothing(self.config.smoothing)
        except TypeError as error:
            raise UsageError(f"{error}".replace("PlotOptions.__init__()", "plot")) from error
        refs = self._refs(runs, rows=True)
        with self._with_parents(refs) if chosen.with_parent else nullcontext(self.cache) as cache:
            names = query.plot_metrics(cache, refs, list(metrics), all_metrics=False, include_system=True)
            drawn = shown(cache, refs, chosen)
            try:
                return compose(drawn.runs, names, chosen, drawn.source, **drawn.sorting)
            except UsageError as error:
                raise NotFound(str(error), hint=error.hint) from error

    # -- sources

    def sync(
        self, *targets: str, local: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (), full: bool = False
    ) -> list[SyncReport]:
        """Bring runs into the cache now: "entity/project", "entity/project/run_id", "entity/*", and the runs below
        `local` folders; one report for each. `full` reads everything again.

        Of a project only what changed is fetched. A run that fails does not hold up the others: see `report.problems`.
        Raises NotFound, NotSignedIn, Unreachable; CacheBusy if another process is at it. What was committed stays.

        >>> import wandbsync
        >>> (report,) = wandbsync.open().sync(local=".")
        >>> report.runs, report.rows, report.problems
        (0, 0, [])
        """
        from ..cache.retention import Limits
        from ..cache.upkeep import upkeep
        from ..sync import sync_local
        from ..sync.files import MirroredFiles
        from ..sync.server import Terms, sync_server

        if self.wanted.offline and targets:
            raise UsageError("this mirror is offline", hint="open it without offline=True to sync")
        folders = [local] if isinstance(local, (str, os.PathLike)) else list(local)
        cache, config = self.cache, self.config
        reports = []
        with self._lock:
            if folders:
                reports.append(sync_local(cache, [Path(one) for one in folders], entity=config.local_entity, full=full))
            if targets:
                mirrored = MirroredFiles(config.files, config.files_max_size)
                terms = Terms(full=full, local_entity=config.local_entity, mirrored=mirrored)
                with who.server(config) as api:
                    reports += [sync_server(cache, api, [one], terms) for one in who.asked(api, config, targets)]
            self.forget()
        if any(report.runs or report.deleted for report in reports):
            upkeep(cache, Limits(config.max_size, config.keep))
        return reports

    def server(self) -> AbstractContextManager[Callable[[], Api]]:
        """Gives a callable that gives the server, connected when first asked for (internal)."""
        return who.on_demand(self.config)

    # -- whose runs

    def _refs(
        self, runs: RunLike | Iterable[RunLike], *, rows: bool, one: bool = False, statistics: bool = False
    ) -> list[RunRef]:
        """The runs that are meant, fresh enough. Asked project by project."""
        several = isinstance(runs, Iterable) and not isinstance(runs, (str, Mapping, RunRef))
        some: list[Any] = list(runs) if several else [runs]  # type: ignore[arg-type]
        meant = [_Meant.of(run, one=one) for run in some]
        by_project: dict[str, list[str]] = {}
        for run in meant:
            if run.run is None and one:
                raise UsageError(f"{run.project} is a project", hint="write entity/project/run_id")
            by_project.setdefault(run.project, []).extend([] if run.run is None else [run.run])
        whole = {run.project for run in meant if run.run is None}
        cache = self.cache
        if not one:
            for project, names in by_project.items():
                by_project[project] = names if project in whole else self._spelt_out(project, names)
        for project, names in by_project.items():
            some_runs = () if project in whole else tuple(dict.fromkeys(names))
            cache = self.ask(Question(project, some_runs, rows=rows, statistics=statistics))
        refs: list[RunRef] = []
        named: list[RunRef] = []
        for run in meant:
            found = self.find_project(cache, run.project)
            if run.run is None:
                refs += [RunRef(*found, row["id"]) for row in query.list_runs(cache, found, limit=None)]
            else:
                here = query.find_runs(cache, found, [run.run]) if not one else [query.find_run(cache, found, run.run)]
                named += here
                refs += here
        refs = list(dict.fromkeys(refs))
        if rows and not statistics:
            self.bring_back(cache, refs)
            tell(cache, refs, named, self.say)
        return refs

    def _spelt_out(self, project: str, names: Sequence[str]) -> list[str]:
        """Names of runs, with the run_ids of those that a pattern stands for."""
        if not any(map(query.is_pattern, names)):
            return list(names)
        cache = self.ask(Question(project))
        return [ref.run_id for ref in query.find_runs(cache, self.find_project(cache, project), names)]

    def bring_back(self, cache: Cache, refs: Sequence[RunRef]) -> None:
        """Rows that were removed to save space come again when their runs are asked for by name (internal)."""
        gone: dict[str, list[str]] = {}
        for ref in cache.evicted().intersection(refs):
            gone.setdefault(f"{ref.entity}/{ref.project}", []).append(ref.run_id)
        for project, ids in gone.items():
            question = Question(project, tuple(sorted(ids)), rows=True)
            self._asked.pop(question, None)  # they may have gone since it was asked
            self.ask(question)


@dataclass(frozen=True, slots=True)
class _Meant:
    """A run by its project and its run_id or display name; no run: all of the project."""

    project: str
    run: str | None

    @classmethod
    def of(cls, run: RunLike, *, one: bool) -> _Meant:
        if isinstance(run, RunRef):
            return cls(f"{run.entity}/{run.project}", run.run_id)
        if isinstance(run, Mapping):
            try:
                return cls(f"{run['entity']}/{run['project']}", run["id"])
            except KeyError as error:
                raise UsageError(f"a run has {error}, this dict has not", hint="`runs` and `run` give such") from error
        if not isinstance(run, str):
            raise UsageError(f"{run!r} is not a run", hint="write entity/project/run_id")
        target = parse(run)
        if one and target.run is None and target.entity is not None:  # project/run, where only a run can be meant
            return cls(target.entity, target.project)
        return cls("/".join(part for part in (target.entity, target.project) if part), target.run)


def _checked(cache: Cache, refs: Sequence[RunRef], keys: Sequence[str] | None, stream: str) -> Sequence[str] | None:
    """The keys, if one of the runs has each. Raises NotFound."""
    from ..query.wide import columns

    if keys is not None:
        columns(cache, refs, keys, stream=stream)
    return keys


def _long(cache: Cache, refs: Sequence[RunRef], keys: Sequence[str] | None, stream: str) -> pa.Table:
    import pyarrow as pa

    tables = list(query.long(cache, refs, _checked(cache, refs, keys, stream), stream=stream))
    return pa.concat_tables(tables) if tables else query.long_schema().empty_table()
