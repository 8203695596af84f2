"""One pass over a W&B server: list -> plan -> fetch -> commit -> report.

Threads fetch, this one commits: many small runs together, a large one in parts that show when all are there. What was
committed stays, whatever happens to the rest; the next pass goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, MirrorCursor, Mirrored, Share
from ..cache.locks import held
from ..cache.rows import steps
from ..errors import NotFound, NotPermitted, RateLimited, ServerError, Unreachable, WandbsyncError
from ..model import CONSOLE, HISTORY, SYSTEM, Columns, RunRecord, RunRef
from ..plan.discovery import RunFilter
from ..plan.server import Cached, Describe, Fetch, Gone, Remote, Wait, plan_server, retry_after, unfinished
from ..sources.api.client import FILES_A_PAGE, Api, Node
from ..sources.api.fetch import Fetched, SoFar, State, fetch
from ..sources.api.record import files as file_records
from ..sources.api.record import fingerprint, record
from . import commits
from .commits import Commits
from .report import Problem, Progress, SyncReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORKERS = 8  # threads that fetch; most of them wait for their turn
APPEND_VALUES = 4_000_000  # more are not added to a run in one commit, but all its rows are fetched anew, in parts
AHEAD = 12  # runs under way, so that memory is bounded
MANY = 20  # as many records come with a listing rather than one by one
NOT_FETCHED = "its history was not fetched yet"


@dataclass(frozen=True, slots=True)
class Asked:
    """A project to be mirrored, or some of its runs, by run_id or display name."""

    entity: str
    project: str
    runs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"


def sync_server(
    cache: Cache,
    api: Api,
    asked: Sequence[Asked],
    *,
    dry_run: bool = False,
    full: bool = False,
    rows: bool = True,
    files: bool = True,
    only: RunFilter | None = None,
    local_entity: str = "local",
    progress: Callable[[Progress], None] = lambda _: None,
    now: Callable[[], float] = time.time,
) -> SyncReport:
    """Bring projects of a server into the cache; without `rows` only what a listing tells of their runs.

    Of runs asked for by name their `files` are listed anew, changed or not.

    Of a project where nothing has changed only the listing is asked. A run that fails does not hold up the others: it
    is in the report. Raises NotFound, NotSignedIn, Unreachable, CacheBusy or CacheError; what was committed stays.
    """
    began = time.perf_counter()
    report = SyncReport(dry_run=dry_run)
    sent, received, waited = api.transport.requests, api.transport.bytes, api.transport.budget.waited
    folder = cache.folder / "tmp"
    try:
        for one in asked:
            if dry_run:
                _Pass(cache, api, one, report, progress, now, full, rows, files, only, folder, local_entity).plan()
            else:
                with held(cache.folder, str(one)), _scratch(folder) as scratch:
                    _Pass(cache, api, one, report, progress, now, full, rows, files, only, scratch, local_entity).run()
    finally:
        report.requests = api.transport.requests - sent
        report.bytes_read = api.transport.bytes - received
        report.waited = api.transport.budget.waited - waited
        report.seconds = time.perf_counter() - began
    return report


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="fetch-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@dataclass(slots=True)
class _Run:
    """A run being fetched, and what the cache had of it when that began."""

    action: Fetch | Describe
    revision: int | None
    known: Mirrored | None
    so_far: SoFar = field(default_factory=SoFar)

    @property
    def cursor(self) -> MirrorCursor:
        return (self.known.cursor if self.known else None) or MirrorCursor()


class _Pass:
    """One project."""

    def __init__(
        self,
        cache: Cache,
        api: Api,
        asked: Asked,
        report: SyncReport,
        progress: Callable[[Progress], None],
        now: Callable[[], float],
        full: bool,
        rows: bool,
        files: bool,
        only: RunFilter | None,
        folder: Path,
        local_entity: str,
    ) -> None:
        self.local_entity = local_entity
        self.cache, self.api, self.asked, self.report, self.folder = cache, api, asked, report, folder
        self.full, self.rows, self.only = full, rows, only or RunFilter()
        self.files = files and bool(asked.runs)
        self.tell, self.now, self.started = progress, now, now()
        self.at = Progress()
        self.commits = Commits(cache)
        self.known: dict[RunRef, Mirrored] = {}
        self.nodes: dict[RunRef, Node] = {}  # as listed
        self.done: list[RunRef] = []  # up to date now
        self.problems: dict[str, tuple[str, str | None]] = {}

    # -- list and plan

    def plan(self) -> list[Fetch | Describe | Wait | Gone]:
        """List, and say what is to be done."""
        if self.cache.exists():
            self.known = self.cache.mirrored(self.asked.entity, self.asked.project)
        cached = {ref: _cached(ref, one) for ref, one in self.known.items()}
        listed = self._named(cached) if self.asked.runs else self._listed(cached)
        if self._adopt(listed):
            self.known = self.cache.mirrored(self.asked.entity, self.asked.project)
            cached = {ref: _cached(ref, one) for ref, one in self.known.items()}
        if self.asked.runs:
            cached = {ref: one for ref, one in cached.items() if ref in listed}
        actions = plan_server(
            [Remote(ref, fingerprint(node)) for ref, node in listed.items()],
            cached,
            at=self.started,
            full=self.full,
            rows=self.rows,
            insist=bool(self.asked.runs) and self.rows,
            complete_listing=not self.asked.runs and not self.only,
        )
        if self.files:
            planned = {action.ref for action in actions if isinstance(action, (Fetch, Describe))}
            actions += [Describe(ref, fingerprint(node), "files") for ref, node in listed.items() if ref not in planned]
        self.nodes = listed
        self.report.planned += actions
        self.report.listed += len(listed)
        return actions

    def _listed(self, cached: dict[RunRef, Cached]) -> dict[RunRef, Node]:
        """All runs of the project. Pages may slip while it changes: if runs are missing, it is listed once more."""
        filters = self.only.text(at=self.started, also=[ref.run_id for ref in unfinished(cached.values())])
        records = not self.rows and not any(one.described for one in cached.values())
        return self._list(filters, records)

    def _list(self, filters: str, records: bool) -> dict[RunRef, Node]:
        entity, project = self.asked.entity, self.asked.project
        found: dict[RunRef, Node] = {}
        for _ in range(2):
            expected = 0
            for node, counted in self.api.runs(entity, project, filters=filters, records=records):
                expected = counted
                found[RunRef(entity, project, node["name"])] = node
                self.at.listed = max(self.at.listed, len(found))
                if len(found) % 1000 == 0:
                    self.tell(self.at)
            if len(found) >= expected:
                break
        return found

    def _named(self, cached: dict[RunRef, Cached]) -> dict[RunRef, Node]:
        """The runs asked for. A name that is no run_id is looked for among the display names."""
        found: dict[RunRef, Node] = {}
        for name in self.asked.runs:
            ref = RunRef(self.asked.entity, self.asked.project, name)
            try:
                parts = {"record", "files"} if self.files else {"record"}
                found[ref] = self.api.run(ref, parts, fileLimit=FILES_A_PAGE)
                continue
            except NotFound:
                pass
            named = self._list(json.dumps({"displayName": name}), records=False)
            if not named:
                raise NotFound(
                    f"{self.api.login.host} has no run {name} in {self.asked}, or not for this key",
                    hint="`wandbsync list-runs` lists those there are",
                )
            found |= named
        return found

    def _adopt(self, listed: dict[RunRef, Node]) -> int:
        """Give logs that did not say whose they are their entity, where these runs were uploaded meanwhile.

        They are the same if project, run_id and the time of the last row are; returns how many.
        """
        if self.report.dry_run or not self.cache.exists():
            return 0
        adopted = 0
        for ref in self.cache.mirrored(self.local_entity, self.asked.project):
            to = RunRef(self.asked.entity, ref.project, ref.run_id)
            if to in listed and to not in self.known:
                if "summaryMetrics" not in listed[to]:
                    listed[to] = self.api.run(to, {"record", "files"}, fileLimit=FILES_A_PAGE)
                summary = record(listed[to], to, "", incomplete=None).summary or {}
                if summary.get("_timestamp") is not None and summary["_timestamp"] == self.cache.last_time(ref):
                    self.cache.rename(ref, to)
                    adopted += 1
        return adopted

    # -- do

    def run(self) -> None:
        actions = self.plan()
        todo = [action for action in actions if isinstance(action, (Fetch, Describe))]
        planned = {action.ref for action in actions}
        self.at.runs_total = len(todo)
        self.tell(self.at)
        try:
            if todo:
                self._do(todo)
            self._flush()
            self._gone([action.ref for action in actions if isinstance(action, Gone)])
        finally:
            self._note([ref for ref in self.nodes if ref not in planned])
        for action in actions:
            if isinstance(action, Wait):
                cursor = self.known[action.ref].cursor
                reason = (cursor and cursor.reason) or action.reason
                self.report.problems.append(Problem(str(action.ref), f"{action}: {reason}"))
        if not self.asked.runs and not self.only:
            where = f"{self.api.login.base_url} {self.asked}"
            self.cache.synced("listed", where, self.started)
            if self.rows:
                self.cache.synced("api", where, self.started)

    def _do(self, todo: Sequence[Fetch | Describe]) -> None:
        describes = [action for action in todo if isinstance(action, Describe)]
        if len(describes) > MANY and not all("config" in self.nodes[action.ref] for action in describes):
            self.nodes |= self._list("{}", records=True)
        waiting = iter(todo)
        under_way: dict[Future[Fetched | Node], _Run] = {}
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="fetch") as pool:
            try:
                more = True
                while more or under_way:
                    while more and len(under_way) < AHEAD:
                        action = next(waiting, None)
                        if action is None:
                            more = False
                        elif (run := self._begin(action)) is not None:
                            under_way[pool.submit(self._fetch, run)] = run
                    if under_way:
                        done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                        for future in done:
                            again = self._take(under_way.pop(future), future)
                            if again is not None:
                                under_way[pool.submit(self._fetch, again)] = again
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.api.transport.budget.stop()
                raise

    def _begin(self, action: Fetch | Describe) -> _Run | None:
        """What a fetch starts from."""
        ref, known = action.ref, self.known.get(action.ref)
        if known is None:
            return _Run(action, None, None)
        run = _Run(action, self.cache.revision(ref), known)
        cursor = run.cursor
        rows, last_step = self.cache.stream_rows(ref)
        folder = self.cache.folder

        def all_steps() -> NDArray[np.int64]:
            with Cache(folder) as own:  # a connection is one thread's
                return steps(own, ref)

        run.so_far = SoFar(
            fetched=cursor.fetched,
            rows=rows.get(HISTORY, 0),
            last_step=last_step,
            stamp=self.cache.last_value(ref, "_timestamp") if last_step is not None else None,
            steps=all_steps,
            paths=self.cache.key_paths(ref),
            local=known.local is not None,
            state=State.load(cursor.state),
        )
        return run

    def _fetch(self, run: _Run) -> Fetched | Node:
        """In a thread of its own."""
        action = run.action
        if isinstance(action, Describe):
            node = self.nodes[action.ref]
            if "config" not in node or (self.files and "files" not in node):
                return self.api.run(action.ref, {"record", "files"}, fileLimit=FILES_A_PAGE)
            return node
        scratch = Path(tempfile.mkdtemp(dir=self.folder))
        return fetch(self.api, action.ref, action.now, run.so_far, scratch, whole=action.whole)

    def _take(self, run: _Run, future: Future[Fetched | Node]) -> _Run | None:
        """Commit what came, or note why it did not; the run again if all of its rows have to be fetched after all."""
        again = None
        try:
            got = future.result()
            if isinstance(got, Fetched):
                again = self._keep(run, got)
            else:
                self._describe(run, got)
        except NotFound:
            self._gone([run.action.ref])
        except RateLimited:
            raise
        except Unreachable as error:
            self.api.viewer()  # raises if it is the whole server that is away, and not this run
            self._failed(run, error)
        except (ServerError, NotPermitted) as error:
            self._failed(run, error)
        self.at.runs_done += again is None
        self.at.waited = self.api.transport.budget.waited
        self.at.bytes_done = self.api.transport.bytes
        self.tell(self.at)
        return again

    def _describe(self, run: _Run, node: Node) -> None:
        """The record, and the files if they came with it; the rows stay as they are."""
        known, cursor, now = run.known, run.cursor, fingerprint(node)
        local = known is not None and known.local is not None
        incomplete = known.incomplete if known is not None and (known.cursor or local) else NOT_FETCHED
        page, state = node.get("files"), State.load(cursor.state)
        nodes = [edge["node"] for edge in page["edges"]] if page else []
        if page and page["pageInfo"].get("hasNextPage"):
            nodes += self.api.more_files(run.action.ref, page["pageInfo"]["endCursor"])
        self._add(
            Share(
                run.action.ref,
                run.revision,
                self._record(run, node, incomplete),
                files=self._files(run, list(file_records(nodes).values())) if page else None,
                mirror=replace(
                    cursor, described=now, state=replace(state, files=True).dump() if page else cursor.state
                ),
            ),
            0,
        )

    def _keep(self, run: _Run, got: Fetched) -> _Run | None:
        """Rows and all; the run again if these are too many to be added to it in one commit.

        Those that replace all of a run's rows, or are its first, may come in parts: they show when the last is there.
        """
        ref, action = got.ref, run.action
        anew = got.whole and run.revision is not None
        generation = self.cache.new_generation() if anew else None
        streams: list[Columns] = []
        values = rows = 0
        for history in got.histories:
            rows += history.rows
            for columns in history.batches():
                streams.append(columns)
                values += len(columns)
                if values < commits.VALUES:
                    continue
                if not anew and run.known is not None:
                    if values > APPEND_VALUES and not run.so_far.local and isinstance(action, Fetch):
                        return replace(run, action=replace(action, whole=True))
                    continue
                generation = self._part(run, got, generation, streams)
                if generation is None:
                    self._overtaken(ref)
                    return None
                self._count(rows, values)
                streams, values, rows = [], 0, 0
        added = {HISTORY: streams, SYSTEM: got.system, CONSOLE: got.console}
        values += sum(map(len, [*got.system, *got.console]))
        self._count(rows, values)
        self._add(
            Share(
                ref,
                run.revision,
                self._record(run, got.node, got.incomplete, rows=got.rows),
                {name: columns for name, columns in added.items() if columns},
                got.keys.paths,
                files=None if got.files is None else self._files(run, got.files),
                generation=generation,
                mirror=self._cursor(run, got),
            ),
            values,
        )
        for problem in [*got.problems, *([got.incomplete] if got.incomplete else [])]:
            self.report.problems.append(Problem(str(ref), f"{ref}: {problem}"))
        return None

    def _part(self, run: _Run, got: Fetched, generation: int | None, streams: list[Columns]) -> int | None:
        """Commit a part of a generation that nobody sees yet; its number, None if another process was first."""
        self._flush()
        if run.revision is None:  # there has to be a run for its rows to belong to
            begun = self._api_record(run, got.node, NOT_FETCHED)
            (run.revision,) = self.cache.commit([Share(got.ref, None, begun)])
            if run.revision is None:
                return None
        if generation is None:
            generation = self.cache.new_generation()
        share = Share(got.ref, run.revision, None, {HISTORY: streams}, got.keys.paths, publish=False)
        return generation if self.cache.commit([replace(share, generation=generation)]) != [None] else None

    def _cursor(self, run: _Run, got: Fetched) -> MirrorCursor:
        cursor = MirrorCursor(got.now, got.now, got.state.dump())
        if got.incomplete is None:
            return cursor
        failures = run.cursor.failures + 1
        retry_at = self.now() + retry_after(failures)
        return replace(cursor, failures=failures, retry_at=retry_at, reason=got.incomplete)

    def _failed(self, run: _Run, error: WandbsyncError) -> None:
        """Leave the run alone for a while, longer each time; what can be said without its rows is said."""
        ref, cursor, failures = run.action.ref, run.cursor, run.cursor.failures + 1
        self.report.problems.append(Problem(str(ref), f"{ref}: {error.line()}"))
        cursor = replace(
            cursor,
            failures=failures,
            retry_at=self.now() + retry_after(failures),
            reason=error.line(),
            tried=run.action.now,
        )
        if run.known is not None and run.known.cursor is not None:
            self.cache.note_mirrors({ref: cursor})
            return
        node = self.nodes[ref]
        if "config" not in node:
            with contextlib.suppress(ServerError, Unreachable):  # then what the listing told has to do
                node = self.api.run(ref, {"record"})
        made = self._record(run, node, f"its history did not come: {error}")
        self._add(Share(ref, run.revision, made, mirror=cursor), 0)

    # -- records

    def _api_record(self, run: _Run, node: Node, incomplete: str | None) -> RunRecord:
        return record(node, run.action.ref, self.api.login.app_url, incomplete=incomplete)

    def _record(self, run: _Run, node: Node, incomplete: str | None, *, rows: int | None = None) -> RunRecord | None:
        """The server's record; of a run that has local logs, once it has ended and is all there."""
        made = self._api_record(run, node, incomplete)
        known = run.known
        if known is None or known.local is None:
            return made
        now = fingerprint(node)
        have = known.rows if rows is None else rows
        wins = known.local == "ended" and now.ended and have >= now.lines
        return replace(made, source="both") if wins else None

    def _files(self, run: _Run, found: list[Any]) -> list[Any]:
        """The server's files, with where they are on this machine."""
        if run.known is None or run.known.local is None:
            return found
        here = {file.name: file for file in self.cache.files(run.action.ref) if file.local_path}
        for file in found:
            mine = here.get(file.name)
            here[file.name] = replace(file, local_path=mine.local_path if mine else None)
        return list(here.values())

    # -- commit

    def _add(self, share: Share, values: int) -> None:
        if self.commits.add(share, values):
            self._flush()

    def _flush(self) -> None:
        for share, revision in self.commits.flush():
            if revision is None:
                self._overtaken(share.ref)
            else:
                self.report.runs += 1
                self.report.new_runs += share.revision is None
                self.done.append(share.ref)

    def _count(self, rows: int, values: int) -> None:
        self.report.rows += rows
        self.report.values += values
        self.at.rows += rows

    def _overtaken(self, ref: RunRef) -> None:
        self.report.notes.append(f"another process is syncing {ref}; the next sync goes on with what it leaves")

    def _gone(self, refs: Iterable[RunRef]) -> None:
        """Runs that were not listed: those that are not there when asked for are marked, and kept."""
        deleted = [ref for ref in refs if not self._is_there(ref)]
        if deleted:
            self.cache.deleted(deleted, self.started)
            self.report.deleted += len(deleted)
            names = f"{deleted[0]} and {len(deleted) - 1} more" if len(deleted) > 1 else str(deleted[0])
            self.report.notes.append(f"deleted on the server, kept here: {names}")

    def _is_there(self, ref: RunRef) -> bool:
        try:
            self.api.run(ref, {"record"})
        except NotFound:
            return False
        return True

    def _note(self, unchanged: Iterable[RunRef]) -> None:
        self.cache.checked([*unchanged, *self.done], self.started)


def _cached(ref: RunRef, one: Mirrored) -> Cached:
    cursor = one.cursor or MirrorCursor()
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
    )
