"""The local source: runs that training jobs write on this machine, found and read from their `.wandb` logs alone.

`find` only stats; `identify` reads the first records of a log that is new; `LogReader` turns a log into long rows.
What lies in `files/` is listed, and read only for what old SDKs did not write to the log.
"""

from __future__ import annotations

import contextlib
import json
import mimetypes
import os
import re
import socket
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EmptyLog, LogError, TooManyKeys, UsageError
from ..model import CONSOLE, HISTORY, SYSTEM, Columns, FileRecord, Kind, RunRef, is_time, show_path
from .console import Console
from .facts import Facts
from .keys import Keys
from .order import Counted, Order
from .overlap import Here

if TYPE_CHECKING:
    from . import runlog

MOST_KEYS = 100_000  # of a run; ten times what W&B advises for a project, and as many cost 300 MB to read
QUIET = 300.0  # seconds without a write after which a log is given up, where its writer cannot be looked for
COPIED = 3600.0  # seconds from the last thing that a log tells to the last write to its file: nobody logged that, it is
# a copy, or an old disk put back
SKIPPED = {".git", "node_modules", "__pycache__", "site-packages", ".venv", ".tox", ".mypy_cache"}
OF_A_RUN = {"files", "logs", "tmp"}  # folders beside a log: no other logs there


# -- finding


@dataclass(frozen=True, slots=True)
class Found:
    """A log file as it stands now, from its stat alone."""

    path: str
    signature: str  # changes whenever there may be something to read
    size: int  # bytes
    modified_at: float  # unix seconds


@dataclass(frozen=True, slots=True)
class Finding:
    """What lies below some folders."""

    logs: list[Found]
    unreadable: dict[str, str]  # path -> why
    places: list[str]  # folders with no log in them: where run directories are, or may appear


def find(folders: Iterable[Path]) -> Finding:
    """All `.wandb` logs in and below the folders, each once however many links lead to it; and what was unreadable.

    A folder may also be a run directory or a log itself. What is no regular file is no log. Raises UsageError if a
    folder does not exist.
    """
    found: dict[str, Found] = {}
    problems: dict[str, str] = {}
    places: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting: list[str] = []
    for folder in folders:
        if not is_there(folder):
            raise UsageError(f"there is no folder {folder}")
        waiting.append(os.path.realpath(folder))
    linked: list[str] = []  # followed last, so that a log is known by its own path and not by `latest-run`
    while waiting or linked:
        place = waiting.pop() if waiting else os.path.realpath(linked.pop())
        try:
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            if not stat.S_ISDIR(status.st_mode):
                if place.endswith(".wandb") and stat.S_ISREG(status.st_mode):
                    found[place] = _found(place, status)
                continue
            below: list[str] = []
            is_run = False
            with os.scandir(place) as entries:
                for entry in entries:
                    is_log = entry.name.endswith(".wandb")
                    if entry.is_symlink():
                        if is_log or _leads_to_folder(entry, problems):
                            linked.append(entry.path)
                    elif entry.is_dir():
                        if entry.name not in SKIPPED:
                            below.append(entry.path)
                    elif is_log:
                        is_run = True
                        waiting.append(entry.path)
            if not is_run:
                places.append(place)
            waiting += [path for path in below if not (is_run and os.path.basename(path) in OF_A_RUN)]
        except FileNotFoundError:
            continue  # a link to nowhere, or just removed
        except OSError as error:
            problems[place] = f"cannot read {place}: {error.strerror or error}"
    for path in [path for path in found if _unspeakable(path)]:
        del found[path]
        shown = path.encode("utf-8", "replace").decode()
        problems[shown] = f"cannot read {shown}: its name is not UTF-8"
    return Finding(sorted(found.values(), key=lambda one: one.path), problems, places)


def _leads_to_folder(link: os.DirEntry[str], problems: dict[str, str]) -> bool:
    """Whether a link leads to a folder; one that cannot be followed is noted, and hides nothing else."""
    try:
        return link.is_dir()
    except NotADirectoryError:
        return False  # to nowhere
    except OSError as error:
        problems[link.path] = f"cannot follow the link {link.path}: {error.strerror or error}"
    return False


def stat_logs(paths: Iterable[str]) -> list[Found]:
    """Those of some logs that are there, as they stand now."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode):
                found.append(_found(path, status))
    return sorted(found, key=lambda one: one.path)


def is_there(folder: Path) -> bool:
    """Whether there is such a folder, readable or not."""
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _unspeakable(name: str) -> bool:
    """Whether a file name has bytes that are not UTF-8, so that it cannot be noted in the cache."""
    return not name.isascii() and any("\udc80" <= char <= "\udcff" for char in name)


def _found(path: str, status: os.stat_result) -> Found:
    folder = os.path.dirname(path)
    around = [_mtime(folder), _mtime(os.path.join(folder, "files"))]
    parts = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, *around]
    return Found(path, ":".join(map(str, parts)), status.st_size, status.st_mtime)


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


# -- whose log is it


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose log a file is; the same for as long as the file is the same."""

    ref: RunRef
    log_key: str  # the same for copies of one log
    started_at: float | None
    rewinds_to: int | None  # this log goes on from this step of its own run; later steps before it are void


def identify(path: str, *, entity: str) -> Identity:
    """Read a log's first records. `entity` is for runs that do not say whose they are. Raises LogError."""
    from .runlog import head

    who = head(path)
    told = _told_entity(Path(path), who.run_id) if not who.entity else None
    folder_settings = _settings(Path(path).parent.parent)
    owner = who.entity or (told[0] if told else "") or folder_settings.get("entity", "")
    project = who.project or (told[1] if told else "") or folder_settings.get("project", "") or "uncategorized"
    branch = who.branch_point
    return Identity(
        RunRef(_clean(owner) or entity, _clean(project) or "uncategorized", _clean(who.run_id) or Path(path).stem),
        who.key,
        who.start_time,
        branch[1] if branch and branch[0] == who.run_id else None,
    )


def _clean(name: str) -> str:
    return name.strip().strip("/").replace("/", "_")


def _told_entity(path: Path, run_id: str) -> tuple[str, str] | None:
    """(entity, project) as the SDK told its own debug log at the end of the run."""
    for log in (path.parent / "logs" / "debug.log", path.parent / "debug.log"):
        try:
            if not log.is_file():
                continue
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - (256 << 10)))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            continue
        told = re.findall(rf"finishing run ([^/\s]+)/([^/\s]+)/{re.escape(run_id)}\b", text)
        if told:
            return str(told[-1][0]), str(told[-1][1])
    return None


def _settings(folder: Path) -> dict[str, str]:
    """The `settings` file of a wandb directory, where `wandb init` notes entity and project."""
    import configparser

    parser = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
        if (folder / "settings").is_file():
            parser.read(folder / "settings")
    return dict(parser["default"]) if parser.has_section("default") else {}


def writers() -> set[tuple[int, int]] | None:
    """(device, inode) of every `.wandb` log that some process has open; None where the kernel does not tell."""
    if not os.path.isdir("/proc/self/fd"):
        return None
    found: set[tuple[int, int]] = set()
    for process in os.listdir("/proc"):
        if not process.isdigit():
            continue
        try:
            handles = os.listdir(f"/proc/{process}/fd")
        except OSError:  # another user's, or gone
            continue
        for handle in handles:
            with contextlib.suppress(OSError):
                link = f"/proc/{process}/fd/{handle}"
                if os.readlink(link).endswith(".wandb"):
                    status = os.stat(link)
                    found.add((status.st_dev, status.st_ino))
    return found


def is_alive(path: str, host: str | None, opened: set[tuple[int, int]] | None, last_time: float | None = None) -> bool:
    """Whether somebody may still write to a log that has no exit record; `last_time` is the last that it tells of."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    if opened is not None and (status.st_dev, status.st_ino) in opened:
        return True
    if opened is not None and host == socket.gethostname() and status.st_uid == os.geteuid():
        return False  # written on this machine by this user: we would have seen it open
    if last_time is not None and status.st_mtime - last_time > COPIED:
        return False
    return time.time() - status.st_mtime < QUIET


# -- reading


@dataclass(slots=True)
class LogState:
    """Where the reading of a log stands, besides the position in the file; JSON-able."""

    facts: Facts = field(default_factory=Facts)
    console: Console = field(default_factory=Console)
    shift: int | None = None  # added to every step; None until the first row
    last_time: float | None = None  # unix seconds of the newest row or line
    gaps: list[list[Any]] = field(default_factory=list)  # [start, end, reason]

    @classmethod
    def load(cls, text: str) -> LogState:
        state = json.loads(text)
        facts, console = Facts.load(state.pop("facts", {})), Console.load(state.pop("console", {}))
        return cls(facts=facts, console=console, **state)

    def dump(self) -> str:
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(plain | {"facts": self.facts.dump(), "console": self.console.dump()})


@dataclass(slots=True)
class RunSoFar:
    """What rows of a run there are already; reading a log moves it on."""

    keys: Keys = field(default_factory=Keys)
    last_step: int | None = None
    samples: int = 0  # system rows
    lines: int = 0  # console lines
    here: Here | None = None  # rows that came from the server, to be left out


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a log, and how far it has been read with them."""

    streams: dict[str, Columns]
    position: runlog.Position


class LogReader:
    """Reads one log from where its state says, as long rows of its run."""

    def __init__(
        self,
        path: str,
        run: RunSoFar,
        state: LogState,
        *,
        position: Mapping[str, int] | None = None,
        keep_until: int | None = None,
        order: Order | None = None,
        counted: Counted | None = None,
    ) -> None:
        """`keep_until`: drop rows of later steps, a later log rewinds to it. `order`: what is numbered how, where
        another log of the run was written at the same time; nothing beyond it is read.
        `counted` takes down what is numbered.
        """
        self.path = path
        self.run = run
        self.state = state
        self.position = position
        self.keep_until = keep_until
        self.order = order
        self.counted = counted

    def pieces(self) -> Iterator[Piece]:
        """The rows that are new, window by window. Raises LogError."""
        from . import runlog

        start = runlog.Position(**self.position) if self.position else None
        names = _Names(self.run.keys)
        for window in runlog.windows(self.path, start, stop=self.order.end if self.order else None):
            names.learn(window.history)
            if len(self.run.keys.names) > MOST_KEYS:
                raise TooManyKeys(f"{self.path} has more than {MOST_KEYS:,} metrics; the rest of it is not read")
            # What comes before the first row says how its step is meant.
            self._learn([event for event in window.events if not event.rows_before], ())
            steps = self._steps(window.history)
            self._learn([event for event in window.events if event.rows_before], steps)
            self._note_times(window.history)
            self._note_times(window.system)
            self._note_lines(window.printed)
            streams = {
                HISTORY: self._history(window.history, steps, names.history),
                SYSTEM: self._samples(window.system, names.system),
                CONSOLE: self._lines(window.printed),
            }
            self.state.gaps += [[gap.start, gap.end, gap.reason] for gap in window.gaps]
            if self.counted is not None:
                self.counted.begun, self.counted.shift = self.state.facts.started_at, self.state.shift
                self.counted.end = window.position.offset
            yield Piece({name: columns for name, columns in streams.items() if len(columns)}, window.position)

    def _steps(self, rows: runlog.Rows) -> Any:
        """The step of each row in its run.

        A resumed offline log counts from 0, and goes on after the rows that its run has already, as `wandb sync` has
        it. Rows without a step are counted on, as the server does.
        """
        from .runlog import NO_STEP

        state = self.state
        steps = rows.steps
        if not len(steps):
            return steps
        after = 0 if self.run.last_step is None else self.run.last_step + 1
        missing = steps == NO_STEP
        if state.shift is None and self.order is not None:
            state.shift = self.order.shift
        if state.shift is None and self.run.here is not None:
            state.shift = self.run.here.shift(int(steps[0]), float(_stamps(rows)[0]))
        if state.shift is None and not missing.all():
            state.shift = self._shift(int(steps[~missing][0]), after)
        shifted = steps + (state.shift or 0)
        if not missing.any():
            return shifted
        counted = _counted_on(shifted, missing, after)
        counted[missing] = self._numbered(HISTORY, counted[missing], _stamps(rows)[missing])
        return counted

    def _numbered(self, stream: str, numbers: Any, times: Any) -> Any:
        """The numbers of the next rows of a stream: as they were counted, or as they are dealt."""
        if self.counted is not None:
            self.counted.add(stream, numbers, times)
        return numbers if self.order is None or not len(numbers) else self.order.take(stream, len(numbers))

    def _shift(self, first: int, after: int) -> int:
        """How far the steps of a log are from those of its run; its first one, and the step after those there are."""
        facts = self.state.facts
        if not facts.offline and not Path(self.path).parent.name.startswith("offline-"):
            return 0
        if facts.says_resumed:  # from another start, its steps stand as they are (`wandb sync` of 0.31, tried)
            return max(0, after - first) if facts.resumed else 0
        return after if first == 0 else 0

    def _learn(self, events: Sequence[runlog.Event], steps: Sequence[int]) -> None:
        for event in events:
            last = int(steps[event.rows_before - 1]) if event.rows_before else self.run.last_step
            self.state.facts.learn(event.name, event.message, last)

    def _note_times(self, rows: runlog.Rows) -> None:
        state = self.state
        for number, path in enumerate(rows.paths):
            if path in (("_timestamp",), ("_runtime",)):
                values = rows.value[rows.key == number]
                latest = float(values[is_time(values)].max(initial=0.0))
                if path == ("_runtime",):  # the SDK writes it down at the end only sometimes
                    state.facts.runtime = max(latest, state.facts.runtime or 0.0) or None
                else:
                    state.last_time = max(latest, state.last_time or 0.0) or None

    def _note_lines(self, printed: Sequence[runlog.Printed]) -> None:
        latest = max((one.time for one in printed if one.time is not None and is_time(one.time)), default=0.0)
        self.state.last_time = max(latest, self.state.last_time or 0.0) or None

    def _history(self, rows: runlog.Rows, steps: Any, names: list[str]) -> Columns:
        count = len(steps)
        row, keep, kept = rows.row, None, None
        if self.keep_until is not None and count and int(steps.max()) > self.keep_until:
            kept = steps <= self.keep_until
        if self.run.here is not None:
            new = ~self.run.here.has(steps, _stamps(rows))
            kept = new if kept is None else kept & new
        steps_kept = steps
        if kept is not None:
            keep, count, steps_kept = kept[row], int(kept.sum()), steps[kept]
        if len(steps_kept):
            top = int(steps_kept.max())
            self.run.last_step = top if self.run.last_step is None else max(top, self.run.last_step)
        columns = Columns(names, rows.key, steps[row], rows.value, rows.kind, _texts(rows.text, len(row)), count)
        return columns if keep is None else _chosen(columns, keep)

    def _samples(self, rows: runlog.Rows, names: list[str]) -> Columns:
        import numpy as np

        count = len(rows.steps)
        numbers = np.arange(self.run.samples, self.run.samples + count, dtype=np.int64)
        self.run.samples += count
        numbers = self._numbered(SYSTEM, numbers, _stamps(rows))
        text = _texts(rows.text, len(rows.row))
        columns = Columns(names, rows.key, numbers[rows.row], rows.value, rows.kind, text, count)
        return self._beyond(columns, 0 if self.run.here is None else self.run.here.samples)

    def _beyond(self, columns: Columns, first: int) -> Columns:
        """The rows that are not there yet, where rows are told by their number."""
        import numpy as np

        if not len(columns) or columns.step.min() >= first:
            return columns
        keep = columns.step >= first
        rows = max(0, columns.rows - (first - int(columns.step.min())))
        return replace(_chosen(columns, np.asarray(keep)), rows=rows)

    def _lines(self, printed: Sequence[runlog.Printed]) -> Columns:
        import numpy as np
        import pyarrow as pa

        console = self.state.console
        lines = [line for one in printed for line in console.write(one.stream, one.time, one.text)]
        if self.state.facts.ended:
            lines += console.close()
        count = len(lines)
        first = self.run.lines
        self.run.lines += count
        numbers = np.arange(first, first + count, dtype=np.int64)
        times = np.array([np.nan if at is None else at for _, at, _ in lines], np.float64)
        numbers = self._numbered(CONSOLE, numbers, times)
        columns = Columns(
            ("stderr", "stdout"),
            np.fromiter((stream == "stdout" for stream, _, _ in lines), np.int32, count),
            numbers,
            times,
            np.full(count, Kind.LINE, np.uint8),
            pa.array([text for _, _, text in lines], pa.large_string()),
            count,
        )
        return self._beyond(columns, 0 if self.run.here is None else self.run.here.lines)


def _counted_on(steps: Any, missing: Any, after: int) -> Any:
    """The steps with those that are `missing` counted on: each is one more than the largest before it."""
    import numpy as np

    if missing.all():
        return after + np.arange(len(steps))
    counted, top = steps.copy(), after - 1
    for row, lacks in enumerate(missing.tolist()):
        if lacks:
            counted[row] = top + 1
        top = max(top, int(counted[row]))
    return counted


def _stamps(rows: runlog.Rows) -> Any:
    """The `_timestamp` of each row, NaN where there is none."""
    import numpy as np

    stamps = np.full(len(rows.steps), np.nan)
    for number, path in enumerate(rows.paths):
        if path == ("_timestamp",):
            mine = rows.key == number
            stamps[rows.row[mine]] = rows.value[mine]
    return stamps


class _Names:
    """The shown names of a reader's key numbers, which its history and its machine metrics have in common.

    Nobody chooses how machine metrics are nested: old SDKs do it, new ones do not, and both mean the same metric.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.history: list[str] = []
        self.system: list[str] = []
        self.shown: Any = None  # bool[n]: whether the history's name is known

    def learn(self, rows: runlog.Rows) -> None:
        """Name what the rows of a history have, in the order in which it came; the rest are machine metrics."""
        import numpy as np

        self.system += [show_path(path).encode("utf-8", "replace").decode() for path in rows.paths[len(self.system) :]]
        self.history += self.system[len(self.history) :]
        shown = np.zeros(len(rows.paths), bool)
        if self.shown is not None:
            shown[: len(self.shown)] = self.shown
        self.shown = shown
        new = np.flatnonzero(~shown[rows.key])
        numbers, first = np.unique(rows.key[new], return_index=True)
        met = zip(rows.row[new[first]].tolist(), numbers.tolist(), strict=True)
        for _, path, number in sorted((row, rows.paths[number], number) for row, number in met):
            self.history[number] = self.keys.show(path)
        shown[numbers] = True


def _texts(texts: Mapping[int, str], count: int) -> Any:
    import pyarrow as pa

    if not texts:
        return None
    column: list[str | None] = [None] * count
    for i, text in texts.items():
        column[i] = text
    return pa.array(column, pa.large_string())


def _chosen(columns: Columns, keep: Any) -> Columns:
    import pyarrow as pa

    c, text = columns, None if columns.text is None else columns.text.filter(pa.array(keep))
    return Columns(c.names, c.key[keep], c.step[keep], c.value[keep], c.kind[keep], text, c.rows)


# -- files


def list_files(path: str) -> list[FileRecord]:
    """The files of the run that a log belongs to: what lies below `files/` beside it."""
    top = os.path.join(os.path.dirname(path), "files", "")
    records = []
    for folder, _, names in os.walk(top):
        for name in names:
            file = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                status = os.stat(file)
                if stat.S_ISREG(status.st_mode) and not _unspeakable(file):
                    kind = mimetypes.guess_type(name)[0]
                    records.append(FileRecord(file[len(top) :], status.st_size, status.st_mtime, kind, local_path=file))
    return sorted(records, key=lambda one: one.name)


def read_metadata(path: str) -> dict[str, Any]:
    """`wandb-metadata.json` of a run whose SDK did not write its environment to the log; {} if there is none."""
    file = Path(path).parent / "files" / "wandb-metadata.json"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        metadata = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if isinstance(metadata, dict):
            return metadata
    return {}


__all__ = [
    "EmptyLog",
    "Finding",
    "Found",
    "Identity",
    "Keys",
    "LogError",
    "LogReader",
    "LogState",
    "Piece",
    "RunSoFar",
    "find",
    "identify",
    "is_alive",
    "is_there",
    "list_files",
    "read_metadata",
    "stat_logs",
    "writers",
]
