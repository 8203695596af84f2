"""One pass over a W&B server: list -> plan -> fetch -> commit -> report.

Threads fetch, this one commits. What was committed stays, whatever happens to the rest; the next pass goes on there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ..cache import Cache, Mirrored, uses
from ..cache.locks import workplace
from ..errors import CacheBusy, NotFound, NotPermitted, ServerError
from ..model import Fingerprint, RunRef
from ..plan.discovery import MANY, RunFilter
from ..plan.server import Action, Cached, Describe, Fetch, Gone, Remote, Wait, plan_server, unfinished
from ..sources.api.client import FILES_A_PAGE, Api
from ..sources.api.nodes import sensible
from ..sources.api.record import fingerprint, record, unix
from . import listing
from .commits import SECONDS
from .report import Problem, Progress, SyncReport

if TYPE_CHECKING:
    from ..sources.api.fetch import Fetched
    from .arrivals import Arrivals, Described, Failed, Job

LONG = 10_000  # rows of a history that take longer to download than the question before takes
AHEAD = 12  # runs under way, so that memory is bounded


@dataclass(frozen=True, slots=True)
class Asked:
    """A project to be mirrored, or some of its runs, by run_id or display name."""

    entity: str
    project: str
    runs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"

    @property
    def work(self) -> str:
        """What nobody else is to do at the same time. Who asks for some runs does not wait for a whole project."""
        return "/".join((self.entity, self.project, *self.runs))


@dataclass(frozen=True, slots=True)
class Terms:
    """What is wanted of all that is asked for."""

    dry_run: bool = False  # plan, and do nothing
    full: bool = False  # read everything again
    rows: bool = True  # else only what a listing tells of the runs
    files: bool = True  # list those of runs asked for by name anew, changed or not
    only: RunFilter = field(default_factory=RunFilter)
    local_entity: str = "local"  # whose the logs are that did not say whose they are
    quick: bool = False  # list only what can have new rows: no deletions, edits, old runs that are uploaded late
    shared: bool = False  # others ask by the same `api`: what is under way when this fails comes to its end
    enough: Callable[[], bool] = lambda: False  # once it says so no other run is begun, and there is `more`
    progress: Callable[[Progress], None] = lambda _: None
    now: Callable[[], float] = time.time


def sync_server(cache: Cache, api: Api, asked: Sequence[Asked], terms: Terms | None = None) -> SyncReport:
    """Bring projects of a server into the cache.

    Of a project where nothing has changed only the listing is asked. A run that fails does not hold up the others: it
    is in the report. Raises NotFound, NotSignedIn, Unreachable, CacheBusy or CacheError; what was committed stays.
    """
    began = time.perf_counter()
    terms = terms or Terms()
    report = SyncReport(dry_run=terms.dry_run)
    transport = api.transport
    sent, received, waited = transport.requests, transport.bytes, transport.budget.waited
    try:
        for one in asked:
            if terms.dry_run:
                _Pass(cache, api, one, terms, report).plan()
            else:
                with workplace(cache.folder, one.work) as folder:
                    _Pass(cache, api, one, terms, report).run(folder)
    finally:
        report.requests = transport.requests - sent
        report.bytes_read = transport.bytes - received
        report.waited = transport.budget.waited - waited
        report.seconds = time.perf_counter() - began
    return report


class _Pass:
    """One project."""

    def __init__(self, cache: Cache, api: Api, asked: Asked, terms: Terms, report: SyncReport) -> None:
        self.cache, self.api, self.asked, self.terms, self.report = cache, api, asked, terms, report
        self.started = terms.now()
        self.at = Progress()
        self.known: dict[RunRef, Mirrored] = {}  # in the cache
        self.cached: dict[RunRef, Cached] = {}  # the same, for the planner
        self.nodes: listing.Nodes = {}
        self.quick = False  # only what can have changed was listed

    # -- list and plan

    def plan(self) -> list[Action]:
        """List, and say what is to be done."""
        self._recall()
        absent: list[RunRef] = []
        if self.asked.runs:
            self.nodes, absent = self._named()
        else:
            self.nodes = self._listed()
        if self._adopt():
            self._recall()
        fingerprints = self._fingerprints()
        actions = plan_server(
            [Remote(ref, now) for ref, now in fingerprints.items()],
            {ref: one for ref, one in self.cached.items() if ref in self.nodes} if self.asked.runs else self.cached,
            at=self.started,
            full=self.terms.full,
            rows=self.terms.rows,
            insist=bool(self.asked.runs) and self.terms.rows,
            complete_listing=self._is_complete,
        )
        if self._files:
            planned = {action.ref for action in actions if isinstance(action, (Fetch, Describe))}
            actions += [Describe(ref, now, "files") for ref, now in fingerprints.items() if ref not in planned]
        actions += [Gone(ref) for ref in absent]
        self.report.planned += actions
        self.report.listed += len(self.nodes)
        return actions

    def _fingerprints(self) -> dict[RunRef, Fingerprint]:
        """Those of the listed runs. One that is listed without sense is told, and left as it is here."""
        found = {}
        for ref, node in list(self.nodes.items()):
            try:
                with sensible(self.api.login.host):
                    found[ref] = fingerprint(node)
            except ServerError as error:  # noqa: PERF203
                self.report.problems.append(Problem(str(ref), f"{ref}: {error.line()}"))
                del self.nodes[ref]
                self.cached.pop(ref, None)
        return found

    @property
    def _is_complete(self) -> bool:
        """Whether a run that is not listed is not there."""
        return not (self.asked.runs or self.terms.only or self.quick)

    @property
    def _files(self) -> bool:
        return self.terms.files and bool(self.asked.runs)

    def _recall(self) -> None:
        if self.cache.exists():
            self.known = self.cache.mirrored(self.asked.entity, self.asked.project)
            self.cached = {ref: _cached(ref, one) for ref, one in self.known.items()}

    def _listed(self) -> listing.Nodes:
        def tell(count: int) -> None:
            self.at.listed = count
            self.terms.progress(self.at)

        unfinished_ids = [ref.run_id for ref in unfinished(self.cached.values())]
        only, newest = self.terms.only, self._newest() if self.terms.quick and len(unfinished_ids) <= MANY else None
        self.quick = newest is not None
        if newest is not None:
            filters = only.changing(at=self.started, since=newest, also=unfinished_ids)
        else:
            filters = only.text(at=self.started, also=unfinished_ids)
        return listing.listed(
            self.api,
            self.asked.entity,
            self.asked.project,
            filters=filters,
            records=not self.terms.rows and not any(one.described for one in self.cached.values()),
            tell=tell,
        )

    def _newest(self) -> float | None:
        """When the newest run was made that the server is known to have (unix seconds)."""
        seen = [one.described or one.fetched for one in self.cached.values()]
        return max((unix(one.created_at) or 0.0 for one in seen if one is not None), default=None)

    def _named(self) -> tuple[listing.Nodes, list[RunRef]]:
        """The runs asked for, and those of them that are in the cache but not on the server any more."""
        entity, project = self.asked.entity, self.asked.project
        found, absent = listing.named(self.api, entity, project, self.asked.runs, files=self._files)
        gone = [ref for ref in absent if ref in self.known and self.known[ref].cursor is not None]
        if not found and not gone:
            raise self.api.no_run(absent[0])
        for ref in absent:
            if ref not in self.known:
                self.report.problems.append(Problem(str(ref), self.api.no_run(ref).line()))
        return found, [ref for ref in gone if not self.known[ref].deleted]

    def _adopt(self) -> int:
        """Give logs that did not say whose they are their entity, where these runs were uploaded meanwhile.

        They are the same if project, run_id and the time of the last row are; returns how many.
        """
        if self.report.dry_run or not self.cache.exists():
            return 0
        adopted = 0
        for ref in self.cache.mirrored(self.terms.local_entity, self.asked.project):
            to = replace(ref, entity=self.asked.entity)
            if to in self.nodes and to not in self.known:
                if "summaryMetrics" not in self.nodes[to]:
                    self.nodes[to] = self.api.run(to, {"record", "files"}, fileLimit=FILES_A_PAGE)
                with sensible(self.api.login.host):
                    summary = record(self.nodes[to], to, "", incomplete=None).summary or {}
                if summary.get("_timestamp") is not None and summary["_timestamp"] == self.cache.last_time(ref):
                    self.cache.rename(ref, to)
                    adopted += 1
        return adopted

    # -- do

    def run(self, folder: Path) -> None:
        """`folder` is for what is downloaded on the way."""
        actions = self.plan()
        todo = [action for action in actions if isinstance(action, (Fetch, Describe))]
        planned = {action.ref for action in actions}
        arrivals = self._arrivals(folder) if todo else None
        self.at.runs_total = len(todo)
        self.terms.progress(self.at)
        try:
            if arrivals is not None:
                self._do(todo, arrivals)
        finally:
            if arrivals is not None:
                arrivals.flush()  # what came stays, whatever happened to the rest
            if self.asked.runs and self.terms.rows:
                uses.note(self.cache, self.nodes, self.started)
            self._note([*(ref for ref in self.nodes if ref not in planned), *(arrivals.done if arrivals else ())])
        self._gone([action.ref for action in actions if isinstance(action, Gone)])
        self._tell_waiting([action for action in actions if isinstance(action, Wait)])
        if self._is_complete and not self.report.more:
            where = f"{self.api.login.base_url} {self.asked}"
            self.cache.synced("listed", where, self.started)
            if self.terms.rows:
                self.cache.synced("api", where, self.started)

    def _arrivals(self, folder: Path) -> Arrivals:
        from .arrivals import Arrivals  # needs numpy and Arrow, which a pass does without if nothing has changed

        return Arrivals(self.cache, self.api, self.report, self.terms.now, folder, files=self._files)

    def _do(self, todo: Sequence[Fetch | Describe], arrivals: Arrivals) -> None:
        bare = [one.ref for one in todo if isinstance(one, Describe) and "config" not in self.nodes[one.ref]]
        if len(bare) > listing.FEW:
            with contextlib.suppress(ServerError):  # then one by one
                self.nodes |= listing.some(self.api, bare, records=True)
        jobs = self._jobs(todo, arrivals)
        under_way: dict[Future[Fetched | Described | Failed], Job] = {}
        done: SimpleQueue[Future[Fetched | Described | Failed]] = SimpleQueue()
        with ThreadPoolExecutor(self._workers(todo), thread_name_prefix="fetch") as pool:

            def begin(job: Job | None) -> None:
                if job is not None:
                    future = pool.submit(arrivals.answer, job)
                    under_way[future] = job
                    future.add_done_callback(done.put)

            try:
                for _ in range(AHEAD):
                    begin(next(jobs, None))
                while under_way:
                    try:
                        future = done.get(timeout=SECONDS)
                    except Empty:  # noqa: PERF203
                        arrivals.flush()
                    else:
                        again = self._take(under_way.pop(future), future, arrivals)
                        begin(again or next(jobs, None))
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if not (
                    self.terms.shared or isinstance(error, CacheBusy)
                ):  # after that, another project may still be asked for
                    self.api.transport.budget.stop()
                raise

    def _jobs(self, todo: Sequence[Fetch | Describe], arrivals: Arrivals) -> Iterator[Job]:
        """What to begin next, as long as it is not enough."""
        for action in todo:
            if self.terms.enough():
                self.report.more = True
                return
            yield arrivals.job(action, self.nodes[action.ref], self.known.get(action.ref))

    def _workers(self, todo: Sequence[Fetch | Describe]) -> int:
        """How many threads are to fetch: while some ask others download, and any more are in each other's way."""
        budget = self.api.transport.budget
        long = sum(action.now.lines for action in todo) > LONG * len(todo)
        return budget.in_flight + (budget.downloads if long else 1)

    def _take(self, job: Job, future: Future[Fetched | Described | Failed], arrivals: Arrivals) -> Job | None:
        """Keep what came of a job; the job again if all of the run's rows have to be fetched after all."""
        try:
            again = arrivals.take(job, future.result())
        except NotFound:  # it was deleted since it was listed
            again = None
            if job.known is not None:
                self._mark([job.ref])
        self.at.runs_done += again is None
        self.at.rows = self.report.rows
        self.at.waited = self.api.transport.budget.waited
        self.at.bytes_done = self.api.transport.bytes
        self.terms.progress(self.at)
        return again

    def _gone(self, refs: Sequence[RunRef]) -> None:
        """Runs that were not listed: those that are not there when asked for are marked, and kept."""
        try:
            deleted = listing.missing(self.api, refs)
        except (ServerError, NotPermitted) as error:
            self.report.problems.append(Problem(str(self.asked), f"whether runs were deleted: {error.line()}"))
            return
        if deleted:
            self._mark(deleted)
            names = f"{deleted[0]} and {len(deleted) - 1} more" if len(deleted) > 1 else str(deleted[0])
            self.report.notes.append(f"deleted on the server, kept here: {names}")

    def _mark(self, deleted: Sequence[RunRef]) -> None:
        self.cache.deleted(deleted, self.started)
        self.report.deleted += len(deleted)

    def _tell_waiting(self, waiting: Iterable[Wait]) -> None:
        for action in waiting:
            cursor = self.known[action.ref].cursor
            reason = (cursor and cursor.reason) or action.reason
            self.report.problems.append(Problem(str(action.ref), f"{action}: {reason}"))

    def _note(self, current: Iterable[RunRef]) -> None:
        """Note which runs are up to date; without rows, that is not said of those whose rows have come before."""
        self.cache.checked([ref for ref in current if self.terms.rows or not self._lags(ref)], self.started)

    def _lags(self, ref: RunRef) -> bool:
        one = self.known.get(ref)
        before = one.cursor.fetched if one is not None and one.cursor is not None else None
        return before is not None and _rows_of(before) != _rows_of(fingerprint(self.nodes[ref]))


def _rows_of(seen: Fingerprint) -> Fingerprint:
    """A fingerprint without what people edit."""
    return replace(seen, described="")


def _cached(ref: RunRef, one: Mirrored) -> Cached:
    cursor = one.cursor
    if cursor is None:
        return Cached(
            ref, rows=one.rows, local=one.local, incomplete=one.incomplete, deleted=one.deleted, evicted=one.evicted
        )
    return Cached(
        ref,
        cursor.described,
        cursor.fetched,
        one.rows,
        one.local,
        one.incomplete,
        cursor.failures,
        cursor.retry_at,
        one.deleted,
        cursor.tried,
        cursor.owed,
        one.evicted,
    )
