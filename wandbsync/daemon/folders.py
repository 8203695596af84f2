"""The runs on this machine: their folders are walked now and then, and what is being written is followed.

    scan      every few minutes, or when told to: all folders, as `wandbsync sync` does it
    follow    a thread: hints of what was written -> the rows of these logs, many runs in one commit

A row is in the cache a fraction of a second after the SDK has flushed it. Each pass is followed by a pause six times
as long as it took, so that however much is written little of a processor is used.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..cache import Cache
from ..config import Config
from ..errors import CacheBusy, CacheError, Stopped
from ..sources import local
from ..status import Live, Source
from ..sync import SyncReport, sync_local
from ..sync.local import follow
from ..watch import Hints, Watch
from .log import Log
from .service import Service

POOL = "folders"
SCAN = "scan folders"
LOOK = 10.0  # seconds between two looks whether somebody still writes to logs that are still
FILES = 30.0  # seconds between two listings of the files of a run that goes on
PAUSE = (0.1, 0.3)  # seconds after a pass, at least and at most
REST = 6.0  # times as long as a pass is the pause after it
RECENT = 3600.0  # seconds after its last write for which a log without an end is polled, whoever holds it open
AGAIN = 5.0  # seconds after which what could not be committed is tried again


class Folders:
    """The jobs for local runs. `scan` is called by the service, `run` is a thread of its own."""

    def __init__(self, config: Config, folder: Path, service: Service, log: Log, *, watch: Watch | None = None) -> None:
        """`folder` is the cache's."""
        self.config, self.folder, self.service, self.log = config, folder, service, log
        self.watch = watch or Watch(say=lambda text: log.note("no file events", reason=text))
        self._sources: dict[str, Source] = {}
        self._live: dict[str, Live] = {}
        self._listed: dict[str, float] = {}  # when the files beside a log were listed, by time.monotonic
        self._looked = 0.0
        self._problems: dict[str, str] = {}  # told already

    def sources(self) -> list[Source]:
        live = [one.path for one in self.live()]
        return [
            replace(one, running=sum(path.startswith(f"{one.location}/") for path in live))
            for one in list(self._sources.values())
        ]

    def live(self) -> list[Live]:
        return list(self._live.values())

    # -- walk

    def begin(self) -> None:
        """Know the folders, and how fresh they are, before anything is read."""
        with Cache(self.folder) as cache:
            self._found(cache)

    def scan(self) -> float | None:
        """Walk all folders; when to do it next (unix seconds)."""
        started = self.service.clock()
        with Cache(self.folder) as cache:
            wanted, there = self._found(cache)
            if there:
                if not self.watch.followed:
                    self._follow_first(there)
                report = sync_local(
                    cache,
                    there,
                    entity=self.config.local_entity,
                    progress=self.service.check,
                    now=self.service.clock,
                )
                self._tell({one.subject: one.reason for one in report.problems if not one.harmless})
                self._note(report, started)
                ended = {
                    path
                    for path, (_, cursor) in cache.logs().items()
                    if cursor.status != "open" and not self._may_go_on(path, cursor.status)
                }
                if report.found is not None:
                    self.watch.watch({log.path for log in report.found.logs} - ended, report.found)
                self._plan(wanted, {str(one): started for one in there}, self.service.clock())
        return self.service.clock() + self.config.scan

    def _found(self, cache: Cache) -> tuple[list[str], list[Path]]:
        """The folders to look after, and those of them that are there."""
        remembered = cache.sources("local")
        configured = [str(one.resolve()) for one in self.config.local_folders]
        # One that was synced by hand once and is no more, nobody misses.
        wanted = list(dict.fromkeys([*configured, *(one for one in remembered if local.is_there(Path(one)))]))
        there = [Path(one) for one in wanted if local.is_there(Path(one))]
        self._plan(wanted, {str(one): remembered.get(str(one)) for one in there}, self.service.clock())
        return wanted, there

    def _plan(self, wanted: Iterable[str], fresh_at: Mapping[str, float | None], now: float) -> None:
        """Note which folders there are to look after, and since when those that are there are fresh."""
        next_at, before = now + self.config.scan, self._sources
        self._sources = {
            one: Source("local", one, fresh_at[one], self.config.scan, next_at)
            if one in fresh_at
            else Source(
                "local", one, None, self.config.scan, next_at, 0, _failures(before.get(one)) + 1, "it is not there"
            )
            for one in wanted
        }

    def _follow_first(self, folders: Sequence[Path]) -> None:
        """Follow what is being written while all else is read, which may take long the first time."""
        found = local.find(folders)
        recent = self.service.clock() - local.QUIET
        self.watch.watch([log.path for log in found.logs if log.modified_at >= recent], found)

    def _tell(self, problems: dict[str, str]) -> None:
        """Tell what is wrong now and was not before."""
        for subject, reason in problems.items():
            if self._problems.get(subject) != reason:
                self.log.problem("not read", subject=subject, reason=reason)
        self._problems = problems

    def _note(self, report: SyncReport, started: float) -> None:
        if report.runs:
            self.log.note(
                "read",
                runs=report.runs,
                new=report.new_runs,
                rows=report.rows,
                bytes=report.bytes_read,
                seconds=round(report.seconds, 3),
            )
        for note in report.notes:
            self.log.note("note", text=note, at=started)

    # -- follow

    def run(self) -> None:
        """Follow what is being written, until the service stops."""
        cache = Cache(self.folder)
        waiting: set[str] = set()  # logs to be read
        closed = False
        try:
            while not self.service.stopping.is_set():
                hints = self.watch.wait(1.0)
                waiting |= hints.written | hints.closed
                closed = closed or bool(hints.closed)
                try:
                    took = self.follow(cache, Hints(frozenset(waiting), hints.closed), look=closed)
                except Stopped:
                    return
                except (CacheBusy, CacheError) as error:  # a full disk, say: nothing is lost, the logs stay
                    self._tell({"follow": error.line()})
                    cache.close()
                    self.service.stopping.wait(AGAIN)
                    continue
                except Exception as error:  # at the top of a job: whatever it is, it is tried again
                    self.log.crash("crashed", error, job="follow")
                    cache.close()
                    self.service.stopping.wait(AGAIN)
                    continue
                waiting, closed = set(), False
                if took:
                    self.service.stopping.wait(min(max(REST * took, PAUSE[0]), PAUSE[1]))
        finally:
            cache.close()

    def follow(self, cache: Cache, hints: Hints, *, look: bool = False) -> float:
        """Bring what the hints are about into the cache; how many seconds that took.

        `look`: find out whether somebody still writes; that is done now and then in any case.
        """
        paths = set(hints.written | hints.closed)
        monotonic = time.monotonic()
        if monotonic - self._looked > LOOK:
            self._looked, look = monotonic, True
            paths |= set(self.watch.followed)
        if not paths:
            return 0.0
        began = time.perf_counter()
        written = {path: at for path in paths if (at := _written_at(path)) is not None}
        report = follow(
            cache,
            written.keys(),
            entity=self.config.local_entity,
            look=look,
            with_files=lambda path: self._files_are_due(path, monotonic),
            progress=self.service.check,
            now=self.service.clock,
        )
        self._keep_track(cache, written, report)
        if report.left:
            self.service.wake(SCAN)
        return time.perf_counter() - began

    def _files_are_due(self, path: str, now: float) -> bool:
        if now - self._listed.get(path, -FILES) < FILES:
            return False
        self._listed[path] = now
        return True

    def _may_go_on(self, path: str, status: str) -> bool:
        """Whether a log that nobody holds open is polled still: one without an end, written to not long ago.

        Its writer may be in a container, or another user's, where nobody sees it.
        """
        at = _written_at(path)
        return status == "crashed" and at is not None and self.service.clock() - at < RECENT

    def _keep_track(self, cache: Cache, written: dict[str, float], report: SyncReport) -> None:
        """Which of these logs are still being written, and how far behind they are."""
        now = self.service.clock()
        logs = cache.logs(written.keys())
        left = set(map(str, report.left))
        ended = []
        for path, at in written.items():
            ref, cursor = logs.get(path, (None, None))
            if cursor is None or ref is None:
                continue  # nobody can say yet whose it is; the poll goes on
            if cursor.status != "open":
                if path in self._live or not self._may_go_on(path, cursor.status):
                    ended.append(path)
                self._live.pop(path, None)
                self._listed.pop(path, None)
                continue
            before = self._live.get(path)
            if before is None or at > before.written_at:
                lag = 0.0 if str(ref) in left else max(0.0, now - at)
                self._live[path] = Live(str(ref), path, at, lag if before is not None else 0.0)
        still = {path for path in ended if self._may_go_on(path, logs[path][1].status)}
        self.watch.leave(set(ended) - still)
        overtaken = set(report.overtaken)
        self.watch.again(path for path, (ref, _) in logs.items() if ref in overtaken)
        self.watch.follow(written.keys() - (set(ended) - still))
        new = {one.reason for one in report.problems if not one.harmless} - set(self._problems.values())
        for reason in sorted(new):
            self._problems[reason] = reason
            self.log.problem("not read", reason=reason)
        if report.runs:
            self.log.detail("followed", runs=report.runs, rows=report.rows, seconds=round(report.seconds, 3))
        for ref_text in sorted({str(logs[path][0]) for path in ended}):
            self.log.note("ended", run=ref_text)


def _failures(source: Source | None) -> int:
    return 0 if source is None else source.failures


def _written_at(path: str) -> float | None:
    with contextlib.suppress(OSError):
        return Path(path).stat().st_mtime
    return None
