"""Run by run: what a fetch starts from, what came of it, and so what is committed.

Small runs are committed together, a large one in parts that show when all are there.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache import Cache, MirrorCursor, Mirrored, Share
from ..cache.rows import steps
from ..errors import NotPermitted, RateLimited, ServerError, Unreachable, WandbsyncError
from ..model import CONSOLE, HISTORY, SYSTEM, Columns, FileRecord, RunRecord, RunRef
from ..plan.server import Describe, Fetch, retry_after
from ..sources.api.client import FILES_A_PAGE, Api
from ..sources.api.fetch import Fetched, SoFar, fetch
from ..sources.api.gather import Had
from ..sources.api.history import STAMP
from ..sources.api.nodes import Node, sensible
from ..sources.api.record import fingerprint, record
from ..sources.api.streams import State, all_files
from . import commits
from .report import Problem, SyncReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

APPEND_VALUES = 4_000_000  # more are not added to a run in one commit, but all its rows are fetched anew, in parts
NOT_FETCHED = "its history was not fetched yet"


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be fetched or described, and what the cache has of it."""

    action: Fetch | Describe
    node: Node  # as listed
    known: Mirrored | None
    folder: Path  # for what is downloaded
    revision: int | None = None
    so_far: SoFar = field(default_factory=SoFar)

    @property
    def ref(self) -> RunRef:
        return self.action.ref

    @property
    def cursor(self) -> MirrorCursor:
        return (self.known.cursor if self.known else None) or MirrorCursor()

    @property
    def local(self) -> str | None:
        return self.known.local if self.known else None

    @property
    def is_first(self) -> bool:
        """Whether nothing but its record is in the cache."""
        rows = self.so_far.history.rows or (self.known.rows if self.known else 0)
        return self.cursor.fetched is None and self.local is None and not rows


@dataclass(frozen=True, slots=True)
class Described:
    """A record without rows."""

    node: Node
    files: list[FileRecord] | None  # None: not asked for, or refused
    refused: list[str]  # what did not come, and why


@dataclass(frozen=True, slots=True)
class Failed:
    """What kept a run's rows away; and its record, if that could be had."""

    error: WandbsyncError
    node: Node | None


class Arrivals:
    """What comes, into the cache. `answer` is for threads, the rest for the one that has the cache."""

    def __init__(
        self, cache: Cache, api: Api, report: SyncReport, now: Callable[[], float], folder: Path, *, files: bool
    ) -> None:
        """`files`: list them also of runs that are only described."""
        self.cache, self.api, self.report, self.now, self.files = cache, api, report, now, files
        self.folders = (folder / str(number) for number in itertools.count())
        self.commits = commits.Commits(cache)
        self.new: set[RunRef] = set()
        self.done: list[RunRef] = []  # up to date now
        self._blocked: set[str] = set()  # what was said of storages that cannot be reached

    # -- ask

    def job(self, action: Fetch | Describe, node: Node, known: Mirrored | None) -> Job:
        ref, cache = action.ref, self.cache
        job = Job(action, node, known, next(self.folders))
        if known is None:
            self.new.add(ref)
            return job
        job = replace(job, revision=cache.revision(ref))  # before all else: what changes meanwhile is noticed by it
        if isinstance(action, Describe):
            return job
        rows, last_step = cache.stream_rows(ref)
        stamp = None if last_step is None else cache.last_value(ref, STAMP, last_step)

        def all_steps() -> NDArray[np.int64]:
            with Cache(cache.folder) as own:  # a connection is one thread's
                return steps(own, ref)

        had = Had(rows.get(HISTORY, 0), last_step, stamp, all_steps, exact=known.local is None)
        so_far = SoFar(had, cache.key_paths(ref, HISTORY), State.load(job.cursor.state))
        return replace(job, so_far=so_far)

    def answer(self, job: Job) -> Fetched | Described | Failed:
        """Ask the server. Raises what is not the run's own fault, and NotFound."""
        try:
            if isinstance(job.action, Fetch):
                return fetch(self.api, job.ref, job.action.now, job.so_far, job.folder, whole=job.action.whole)
            return self._described(job)
        except RateLimited:
            raise
        except (ServerError, NotPermitted, Unreachable) as error:
            return self._failure(job, error)

    def _described(self, job: Job) -> Described:
        node = job.node
        if "config" not in node or (self.files and "files" not in node):
            node = self.api.run(job.ref, {"record", "files"}, fileLimit=FILES_A_PAGE)
        page = node.get("files")
        refused = [f"{part}: {error}" for part, error in node.get("errors", {}).items()]
        return Described(node, all_files(self.api, job.ref, page) if page else None, refused)

    def _failure(self, job: Job, error: WandbsyncError) -> Failed:
        """What can be said of a run without its rows. Raises Unreachable if it is the whole server that is away."""
        if isinstance(error, Unreachable) or (isinstance(error, ServerError) and (error.status or 0) >= 500):
            try:
                self.api.viewer()
            except ServerError as more:
                raise Unreachable(str(more), hint=more.hint) from more
        if "config" in job.node or job.cursor.described is not None:
            return Failed(error, job.node if "config" in job.node else None)
        try:
            return Failed(error, self.api.run(job.ref, {"record"}))
        except (ServerError, NotPermitted, Unreachable):
            return Failed(error, None)

    # -- keep

    def take(self, job: Job, got: Fetched | Described | Failed) -> Job | None:
        """Put what came into the next commit; the job again if all of the rows have to be fetched after all."""
        again = None
        try:
            if isinstance(got, Fetched):
                again = self._fetched(job, got)
            elif isinstance(got, Described):
                self._describe(job, got)
            else:
                self._failed(job, got)
        except RateLimited:
            raise
        except (ServerError, NotPermitted, Unreachable) as error:  # in the middle of what is fetched in parts
            begun = replace(job, revision=self.cache.revision(job.ref)) if job.revision is None else job
            self._failed(begun, self._failure(job, error))
        if not isinstance(got, Fetched) or got.history.wrote:
            shutil.rmtree(job.folder, ignore_errors=True)
        return again

    def _fetched(self, job: Job, got: Fetched) -> Job | None:
        """Rows and all. Those that replace the present ones, or are the first, may come in parts."""
        generation = self.cache.new_generation() if got.whole and job.revision is not None else None
        streams: list[Columns] = []
        values = 0
        for history in got.history.pieces:
            for columns in history.batches():
                streams.append(columns)
                values += len(columns)
                if values < commits.VALUES:
                    continue
                if got.whole or job.is_first:
                    job, generation = self._part(job, got, generation, streams)
                    if generation is None:
                        return None
                    streams, values = [], 0
                elif values > APPEND_VALUES and job.local is None and isinstance(job.action, Fetch):
                    return replace(job, action=replace(job.action, whole=True), folder=next(self.folders))
        if got.history.blocked is not None:
            self._tell_blocked(got.history.blocked)
        added = {HISTORY: streams, SYSTEM: got.system, CONSOLE: got.console}
        incomplete = got.history.incomplete
        self._tell(job, [*([incomplete] if incomplete else []), *got.refused])
        self.report.notes += [f"{job.ref}: {note}" for note in got.notes]
        self._add(
            Share(
                job.ref,
                job.revision,
                self._record(job, got.node, incomplete, rows=got.history.rows),
                {name: columns for name, columns in added.items() if columns},
                got.keys.paths,
                files=None if got.files is None else self._files(job, got.files),
                generation=generation,
                mirror=self._cursor(job, got),
            )
        )
        return None

    def _part(self, job: Job, got: Fetched, generation: int | None, streams: list[Columns]) -> tuple[Job, int | None]:
        """Commit a part of a generation that nobody sees yet; its number, None if another process was first."""
        self.flush()
        if job.revision is None:  # there has to be a run for its rows to belong to
            begun = self._api_record(job, got.node, NOT_FETCHED)
            (revision,) = self.cache.commit([Share(job.ref, None, begun)])
            job = replace(job, revision=revision)
        generation = generation or self.cache.new_generation()
        share = Share(
            job.ref, job.revision, None, {HISTORY: streams}, got.keys.paths, generation=generation, publish=False
        )
        if job.revision is None or self.cache.commit([share]) == [None]:
            self._overtaken(job.ref)
            return job, None
        self._count(share)
        return job, generation

    def _cursor(self, job: Job, got: Fetched) -> MirrorCursor:
        """What is noted with the rows: what did not come is tried again after a while."""
        cursor = MirrorCursor(got.now, got.now, got.state.dump())
        reasons = [got.history.incomplete] if got.history.incomplete else got.refused
        return self._again(replace(cursor, failures=job.cursor.failures), "; ".join(reasons)) if reasons else cursor

    def _again(self, cursor: MirrorCursor, reason: str) -> MirrorCursor:
        failures = cursor.failures + 1
        return replace(cursor, failures=failures, retry_at=self.now() + retry_after(failures), reason=reason)

    def _describe(self, job: Job, got: Described) -> None:
        """The record, and the files if they came with it; the rows stay as they are."""
        known, state = job.known, State.load(job.cursor.state)
        incomplete = NOT_FETCHED if known is None or job.is_first else known.incomplete
        if got.files is not None:
            state.files = True
        self._tell(job, got.refused)
        cursor = replace(job.cursor, described=fingerprint(got.node), state=state.dump())
        if got.refused:
            cursor = self._again(cursor, "; ".join(got.refused))
        self._add(
            Share(
                job.ref,
                job.revision,
                self._record(job, got.node, incomplete),
                files=None if got.files is None else self._files(job, got.files),
                mirror=cursor,
            )
        )

    def _failed(self, job: Job, got: Failed) -> None:
        """Leave a run's rows alone for a while, longer each time; what can be said without them is said."""
        reason = got.error.line()
        self._tell(job, [reason])
        if isinstance(job.action, Describe):
            return  # it is tried each time
        owed = job.cursor.owed or job.action.whole
        cursor = self._again(replace(job.cursor, tried=job.action.now, owed=owed), reason)
        if job.known is not None and (got.node is None or not job.is_first):
            self.cache.note_mirrors({job.ref: cursor})
            return
        if got.node is not None:
            cursor = replace(cursor, described=fingerprint(got.node))
        made = self._api_record(job, got.node or job.node, f"its history did not come: {got.error}")
        self._add(Share(job.ref, job.revision, made, mirror=cursor))

    # -- records

    def _api_record(self, job: Job, node: Node, incomplete: str | None) -> RunRecord:
        with sensible(self.api.login.host):
            return record(node, job.ref, self.api.login.app_url, incomplete=incomplete)

    def _record(self, job: Job, node: Node, incomplete: str | None, *, rows: int | None = None) -> RunRecord | None:
        """The server's record; of a run that has local logs, once it has ended and is all there.

        None where the server did not give the config: what is known of it stays.
        """
        if "config" in node.get("errors", ()) and job.known is not None:
            return None
        made = self._api_record(job, node, incomplete)
        if job.known is None or job.local is None:
            return made
        now = fingerprint(node)
        have = job.known.rows if rows is None else rows
        wins = job.local == "ended" and now.ended and have >= now.lines
        return replace(made, source="both") if wins else None

    def _files(self, job: Job, found: list[FileRecord]) -> list[FileRecord]:
        """The server's files, with where they are on this machine, and those that are nowhere else."""
        if job.local is None:
            return found
        here = {file.name: file for file in self.cache.files(job.ref) if file.local_path}
        mine = {name: file.local_path for name, file in here.items()}
        return list((here | {file.name: replace(file, local_path=mine.get(file.name)) for file in found}).values())

    # -- commit

    def _add(self, share: Share) -> None:
        if self.commits.add(share, self._count(share)):
            self.flush()

    def flush(self) -> None:
        """Commit what has come so far."""
        for share, revision in self.commits.flush():
            if revision is None:
                self._overtaken(share.ref)
                continue
            self.report.runs += 1
            self.report.new_runs += share.ref in self.new
            if share.mirror is not None and not share.mirror.failures:
                self.done.append(share.ref)

    def _count(self, share: Share) -> int:
        """How many values come; they and their rows are added up."""
        values = sum(len(columns) for added in share.streams.values() for columns in added)
        self.report.values += values
        self.report.rows += sum(columns.rows for columns in share.streams.get(HISTORY, ()))
        return values

    def _tell(self, job: Job, problems: list[str]) -> None:
        self.report.problems += [Problem(str(job.ref), f"{job.ref}: {problem}") for problem in problems]

    def _tell_blocked(self, why: Unreachable) -> None:
        if str(why) not in self._blocked:
            self._blocked.add(str(why))
            self.report.notes.append(f"{why}: rows come from the API instead, page by page ({why.hint})")

    def _overtaken(self, ref: RunRef) -> None:
        self.report.notes.append(f"another process is syncing {ref}; the next sync goes on with what it leaves")
