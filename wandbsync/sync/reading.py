"""Carry out a plan for local logs: run by run, read what is new and commit it.

Runs are read one after the other and committed together, many small ones or a part of a large one at a time, so that
memory is bounded and a crash loses only what was not committed: the next pass goes on from there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .. import __version__
from ..cache import Cache, LogCursor, MirrorCursor, Share
from ..cache.eviction import absence
from ..cache.rows import steps, tables
from ..errors import CacheBusy, EmptyLog, LogError, NewerLog, NotALog, ReplacedLog, WandbsyncError
from ..model import CONSOLE, HISTORY, SYSTEM, Columns, FileRecord, RunRef
from ..plan.local import Action, Copy, Cut, Forget, Listed, Look, Read, Rename
from ..sources import facts, local
from ..sources.order import Counted, Order, by_time
from ..sources.overlap import Here
from . import commits
from .commits import Commits
from .report import Problem, Progress, SyncReport

UNNAMED = ":unnamed"  # ends the signature of a log that the next pass is to ask whose it is


@dataclass(slots=True)
class _Open:
    """A run being read: its next share, and the reading states of all its logs."""

    ref: RunRef
    revision: int | None
    so_far: local.RunSoFar
    before: dict[str, LogCursor]
    states: dict[str, local.LogState]
    generation: int | None = None
    mirror: MirrorCursor | None = None  # how far it has been mirrored from a server
    rows: int = 0  # of its history, with what is read
    streams: dict[str, list[Columns]] = field(default_factory=dict)
    cursors: dict[str, LogCursor] = field(default_factory=dict)  # to be stored with the next share
    moved: list[str] = field(default_factory=list)
    values: int = 0
    trouble: str | None = None  # why one of its logs could not be read to the end
    orders: dict[str, Order] | None = None  # by path; None: its logs are taken to be written one after the other
    whole: bool = False  # all of its logs are read from their beginning

    def cursor(self, read: Read) -> LogCursor | None:
        """Where the reading of a log stands; None if nothing of it has been read."""
        found = self.before.get(read.moved_from or read.log.path)
        return found if found is not None and found.log_key == read.log.log_key else None


class Reading:
    """Carries out a plan."""

    def __init__(
        self,
        cache: Cache,
        report: SyncReport,
        progress: Callable[[Progress], None],
        started: float,
        *,
        look: bool = True,
        with_files: Callable[[str], bool] = lambda _: True,
        unnamed: Collection[str] = (),
    ) -> None:
        """`look` and `with_files` as `follow` has them. What `progress` raises ends it; what is committed stays.

        `unnamed`: logs that may tell by now whose they are. Of those that end, the next pass is to find out.
        """
        self.cache = cache
        self.report = report
        self.tell = progress
        self.started = started
        self.look, self.with_files, self.unnamed = look, with_files, unnamed
        self.at = Progress()
        self.commits = Commits(cache)
        self.problems: dict[str, tuple[str, str | None]] = {}
        self.mended: list[str] = []  # logs that could not be read the last time
        self.up_to_date: list[RunRef] = []
        self.whole: set[RunRef] = set()  # of which nothing more is to be read
        self.open_logs: set[tuple[int, int]] | None = None

    def run(self, actions: Sequence[Action]) -> None:
        groups: dict[RunRef, list[Action]] = {}
        for action in actions:
            ref = action.to if isinstance(action, Rename) else action.into if isinstance(action, Forget) else action.ref
            groups.setdefault(ref, []).append(action)
        self.at.runs_total = len(groups)
        self.at.bytes_total = sum(action.size for action in actions if isinstance(action, Read))
        self.tell(self.at)
        if groups and self.look:
            # Asked before anything is read: who ends meanwhile is running still, and not taken for crashed.
            self.open_logs = local.writers()
        try:
            for ref, todo in groups.items():
                try:
                    try:
                        self._run(ref, todo)
                    except _AtOneTime:
                        self._run(ref, [action for action in todo if isinstance(action, (Read, Copy))], ordered=True)
                except _Unreadable:
                    pass  # it is told, and what is in the cache stays
                except _Overtaken:
                    self.report.overtaken.append(ref)
                self.at.runs_done += 1
                self.tell(self.at)
            self._flush()
        except BaseException:
            with contextlib.suppress(WandbsyncError):  # the first error is the one to be told
                self._note()
            raise
        self._note()

    def _note(self) -> None:
        if self.problems or self.mended:
            self.cache.note_problems(self.problems, self.mended, self.started)
        self.cache.checked(self.up_to_date, self.started)
        if overtaken := self.report.overtaken:
            first, more = overtaken[0], len(overtaken) - 1
            runs = f"{first} and {more} more" if more else str(first)
            self.report.notes.append(f"another process is syncing {runs}; the next sync goes on with what it leaves")

    def _run(self, ref: RunRef, actions: Sequence[Action], *, ordered: bool = False) -> None:
        """Everything that is to be done for one run. `ordered`: its logs were written at one time.

        Raises _AtOneTime if they were and that was not known.
        """
        for action in actions:
            if isinstance(action, Rename):
                with _yielding():
                    self.cache.rename(action.ref, action.to)
            elif isinstance(action, Forget):
                self.cache.forget(action.ref)
        reads = [action for action in actions if isinstance(action, Read)]
        again = ordered or any(read.reason == "again" for read in reads)
        run = self._open(ref, again=again)
        run.whole = again or not (run.before or run.so_far.here)
        if ordered:
            run.orders = self._orders(reads)
        for read in reads:
            cursor = run.cursor(read)
            if not again and read.start != (json.loads(cursor.position).get("offset", 0) if cursor else 0):
                raise _Overtaken
        gone = run.rows if not again and run.mirror is None and _only_gone(run, reads) else 0
        for action in actions:
            if isinstance(action, Cut):
                self._cut(run, action.last)
                run = self._open(ref, again=again)
            elif isinstance(action, Read):
                self._read(run, action)
            elif isinstance(action, Copy):
                run.cursors[action.log.path] = self._cursor(action.log, "{}", "copy")
            elif isinstance(action, Look):
                state = run.states.get(action.path)
                if state is not None and not self._alive(run, action.path):
                    run.cursors[action.path] = run.before[action.path]
        if gone and run.cursors:
            self.report.notes.append(
                f"{ref} goes on after {gone:,} rows whose log is gone; "
                f"`wandbsync cache forget {ref} --force` and a sync start it anew"
            )
        if run.cursors:
            self._share(run, last=True)
        else:
            self.up_to_date.append(ref)

    def _orders(self, reads: Sequence[Read]) -> dict[str, Order]:
        """How the rows of logs that were written at one time are numbered: for that they are read once more."""
        so_far = local.RunSoFar()
        logs: dict[str, Counted] = {}
        for read in reads:
            counted = logs[read.log.path] = Counted()
            log = local.LogReader(read.log.path, so_far, local.LogState(), keep_until=read.keep_until, counted=counted)
            with contextlib.suppress(LogError):  # it comes again when they are read
                for _ in log.pieces():
                    self.tell(self.at)
        return dict(zip(logs, by_time(list(logs.values())), strict=True))

    def _cut(self, run: _Open, last: int) -> None:
        self._flush()
        with _yielding():
            self.cache.cut(run.ref, last, revision=run.revision)
        self.report.notes.append(f"{run.ref} was rewound to step {last}")

    def _open(self, ref: RunRef, *, again: bool) -> _Open:
        revision = self.cache.revision(ref)
        before: dict[str, LogCursor] = {}
        so_far = local.RunSoFar()
        mirror, count = None, 0
        if revision is not None:
            mirror = self.cache.mirror(ref)
            before = {path: one for path, one in self.cache.log_cursors(ref).items() if one.status != "copy"}
            if not again:
                rows, last_step = self.cache.stream_rows(ref)
                mirrored = mirror is not None and mirror.fetched is not None
                keys = local.Keys(self.cache.key_paths(ref, HISTORY), dotted=mirrored)
                so_far = local.RunSoFar(keys, last_step, rows.get(SYSTEM, 0), rows.get(CONSOLE, 0))
                count = rows.get(HISTORY, 0)
                if mirrored and not absence(self.cache, ref):
                    so_far = self._after_server(ref, so_far, first=not before)
        states = {path: local.LogState.load(one.state) for path, one in before.items()}
        generation = self.cache.new_generation() if again and revision is not None else None
        return _Open(ref, revision, so_far, before, states, generation, mirror, count)

    def _after_server(self, ref: RunRef, so_far: local.RunSoFar, *, first: bool) -> local.RunSoFar:
        """Go on from rows that came from the server; if no log was read yet, these may be the same that it has."""
        import numpy as np

        here = steps(self.cache, ref)
        stamps = np.full(len(here), np.nan)
        for table in tables(self.cache, ref, HISTORY, ["_timestamp"], ["step", "value"]):
            stamps[np.searchsorted(here, table.column("step").to_numpy())] = table.column("value").to_numpy()
        if not first:
            return replace(so_far, here=Here(here, stamps))
        known = Here(here, stamps, so_far.samples, so_far.lines)
        return local.RunSoFar(so_far.keys, here=known)

    def _read(self, run: _Open, action: Read) -> None:
        """Read what is new in one log; commit on the way if it is much."""
        log, cursor = action.log, run.cursor(action)
        latest = max((state.last_time or 0.0 for state in run.states.values()), default=0.0) if run.whole else 0.0
        if run.orders is None and run.cursors and latest > (log.started_at or 0.0):
            raise _AtOneTime
        last_step = run.so_far.last_step
        position: dict[str, int] = {}
        state = local.LogState()
        if cursor is not None and action.start:
            position, state = json.loads(cursor.position), local.LogState.load(cursor.state)
        if action.moved_from and action.moved_from not in run.cursors:
            run.states.pop(action.moved_from, None)
            run.moved.append(action.moved_from)
        run.states[log.path] = state
        reader = local.LogReader(
            log.path,
            run.so_far,
            state,
            position=position or None,
            keep_until=action.keep_until,
            order=run.orders[log.path] if run.orders else None,
        )
        gaps = len(state.gaps)
        reached = json.dumps(position)
        done, failed = action.start, False
        try:
            for piece in reader.pieces():
                reached = json.dumps(asdict(piece.position))
                if action.reason == "new" and done == action.start and last_step is not None:
                    self._note_overlap(action, piece, last_step)
                for name, columns in piece.streams.items():
                    run.streams.setdefault(name, []).append(columns)
                    run.values += len(columns)
                    if name == HISTORY:
                        self.at.rows += columns.rows
                        run.rows += columns.rows
                run.cursors[log.path] = self._cursor(log, reached, partial=True)
                self.at.bytes_done += piece.position.offset - done
                done = piece.position.offset
                self.tell(self.at)
                if run.values + self.commits.values >= commits.VALUES:
                    self._share(run, last=False)
                    self._flush(run)
        except LogError as error:
            failed = not isinstance(error, ReplacedLog)
            reason = error.line()
            if isinstance(error, ReplacedLog):
                reason = f"{error}; its rows are kept (sync --full reads it anew)"
            if not isinstance(error, EmptyLog):
                self.problems[log.path] = (reason, mark(error, log.signature))
                run.trouble = reason
            self.report.problems.append(Problem(log.path, reason, harmless=isinstance(error, EmptyLog)))
        else:
            told = [problem for problem in self.report.problems if problem.subject != log.path]
            if len(told) < len(self.report.problems):
                self.report.problems[:] = told
                self.mended.append(log.path)
        for start, end, reason in state.gaps[gaps:]:
            lost = f"bytes {start:,} to {end:,} of {log.path} cannot be read: {reason}"
            self.report.problems.append(Problem(log.path, lost))
        self.report.bytes_read += max(0, done - action.start)
        if failed and run.generation is not None and cursor is not None:
            raise _Unreadable
        if failed and cursor is None and not done:
            del run.states[log.path]  # nothing is known of it: let the next sync find it new
        else:
            run.cursors[log.path] = self._cursor(log, reached, partial=failed)

    def _note_overlap(self, action: Read, piece: local.Piece, last_step: int) -> None:
        history = piece.streams.get(HISTORY)
        if history is not None and len(history) and (first := int(history.step.min())) <= last_step:
            self.report.notes.append(
                f"{action.ref}: {action.log.path} begins at step {first:,}, not after step {last_step:,}, "
                "up to which an earlier log goes; steps that both have are there twice"
            )

    def _cursor(self, log: Listed, position: str, status: str = "open", *, partial: bool = False) -> LogCursor:
        """A log's cursor, its state still to come. `partial`: the next sync is to go on, changed or not."""
        signature = log.signature + ":partial" if partial else log.signature
        return LogCursor(log.path, log.log_key, signature, position, log.started_at, log.rewinds_to, status, "{}")

    def _alive(self, run: _Open, path: str) -> bool:
        """Whether somebody may still write to a log; not looked for, that is taken for granted where it was so."""
        state = run.states[path]
        if state.facts.ended or not self.look:
            return not state.facts.ended and (
                path in run.cursors or (path in run.before and run.before[path].status == "open")
            )
        last_time = state.last_time or state.facts.started_at
        return local.is_alive(path, state.facts.host, self.open_logs, last_time)

    # -- commit

    def _share(self, run: _Open, *, last: bool) -> None:
        """Put what was read of a run into the next commit. `last`: there is no more of it."""
        states = sorted(run.states.items(), key=lambda item: (item[1].facts.started_at or 0.0, item[0]))
        alive = {path: self._alive(run, path) for path, _ in states}
        for path, cursor in run.cursors.items():
            if cursor.status != "copy":
                state, status = run.states[path], "open"
                if last:
                    status = "ended" if state.facts.ended else "open" if alive[path] else "crashed"
                    if not state.facts.metadata:
                        state.facts.metadata = local.read_metadata(path)
                if status != "open" and path in self.unnamed:
                    cursor = replace(cursor, signature=cursor.signature + UNNAMED)
                run.cursors[path] = replace(cursor, status=status, state=state.dump())
        # An earlier log goes on only if something was written to it since the last one was begun (shared mode).
        begun = states[-1][1].facts.started_at or 0.0
        final = states[-1][0]
        goes_on = any(alive[path] and (path == final or (state.last_time or 0.0) >= begun) for path, state in states)
        gaps = sum(len(state.gaps) for _, state in states)
        beats = [state.last_time for _, state in states if state.last_time is not None]
        record = facts.record(
            [state.facts for _, state in states],
            alive=goes_on,
            heartbeat_at=max(beats, default=None),
            incomplete=f"{gaps} damaged places in its log" if gaps else run.trouble if last else "still being read",
        )
        if last:
            self.whole.add(run.ref)
        listing = last and (not goes_on or any(self.with_files(path) for path in run.cursors))
        files = {file.name: file for path, _ in states for file in local.list_files(path)} if listing else None
        mirror = run.mirror
        if mirror is not None and files is not None:
            files = _joined(files, self.cache.files(run.ref))
        if mirror is not None and run.generation is not None:
            mirror = replace(mirror, described=None, fetched=None, state="{}")  # what only the server has comes again
        # The server's record stays once the run has ended there with all these rows.
        stays = mirror is not None and mirror.described is not None and mirror.described.ended and not goes_on
        keep = stays and mirror is not None and mirror.described is not None and run.rows <= mirror.described.lines
        due = self.commits.add(
            Share(
                run.ref,
                run.revision,
                None if keep and last else record,
                streams=run.streams,
                paths=run.so_far.keys.paths,
                files=None if files is None else list(files.values()),
                logs=list(run.cursors.values()) if run.generation is None or last else (),
                forget_logs=[path for path in run.moved if path not in run.cursors],
                generation=run.generation,
                mirror=None if mirror is run.mirror else mirror,
                publish=run.generation is None or last,
            ),
            run.values,
        )
        run.streams, run.values, run.moved = {}, 0, []
        if run.generation is None:
            run.cursors = {}
        if due:
            self._flush(run)

    def _flush(self, run: _Open | None = None) -> None:
        """Commit the shares at hand; `run` goes on from the revision it got. Raises _Overtaken if it got none."""
        for share, revision in self.commits.flush():
            if revision is not None:
                self._count(share)
            elif run is None or share.ref != run.ref:
                self.report.overtaken.append(share.ref)
            if run is not None and share.ref == run.ref:
                run.revision = revision
        if run is not None and run.revision is None:
            raise _Overtaken

    def _count(self, share: Share) -> None:
        """Report what was committed."""
        self.report.new_runs += share.revision is None
        self.report.rows += sum(columns.rows for columns in share.streams.get(HISTORY, ()))
        self.report.values += sum(len(columns) for added in share.streams.values() for columns in added)
        if share.ref in self.whole:
            self.report.runs += 1
            self.up_to_date.append(share.ref)


def _only_gone(run: _Open, reads: Sequence[Read]) -> bool:
    """Whether a log is new, and of those that the run's rows came from none is there any more."""
    new = {read.log.path: read.log.log_key for read in reads if read.reason == "new"}
    moved = {read.moved_from for read in reads}
    there = [
        path
        for path, cursor in run.before.items()
        if path in moved or (Path(path).exists() and new.get(path, cursor.log_key) == cursor.log_key)
    ]
    return bool(new and run.before and not there)


def _joined(here: dict[str, FileRecord], known: Iterable[FileRecord]) -> dict[str, FileRecord]:
    """The files on this machine and those the server told of: where they are, and what it says of them."""
    files = {file.name: file for file in known if file.md5 is not None or file.name in here}
    for name, file in here.items():
        told = files.get(name)
        files[name] = replace(told, local_path=file.local_path) if told is not None and told.md5 else file
    return files


def mark(error: LogError, signature: str) -> str | None:
    """What must change before an unreadable log is tried again: the file, or this program; None: nothing, try again."""
    return f"{signature}@{__version__}" if isinstance(error, (NotALog, NewerLog, ReplacedLog)) else None


@contextlib.contextmanager
def _yielding() -> Iterator[None]:
    """Leave the run to another process if that was first."""
    try:
        yield
    except CacheBusy as error:
        raise _Overtaken from error


class _AtOneTime(Exception):
    """Logs of the run being read overlap in time."""


class _Unreadable(Exception):
    """A log that has rows in the cache cannot be read again."""


class _Overtaken(Exception):
    """Another process committed to the run being read."""
