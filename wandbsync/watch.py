"""What is being written just now: file events and stat polls become hints of which logs to look at.

    Watch.watch(logs, places) ... Watch.wait() -> Hints

A hint may be wrong, late or missing: a network disk sends no events, a kernel's queue runs over. So every log is polled
as well, and a scan of the folders is the truth. Nothing of a training job is opened, locked or written: only `stat`,
and the listing of a folder that has changed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .sources import local

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent

POLL = 0.5  # seconds
GATHER = 0.02  # seconds from the first event on in which others may come
WATCHED = 32  # folders with events at the most, each kind: an old watchdog takes an inotify instance for each
PATIENCE = 0.02  # seconds for the stats of places where no run is yet, at each poll: they take turns
NURSERIES = ("wandb", ".wandb")  # where run directories are made

Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Hints:
    """Logs to look at."""

    written: frozenset[str] = frozenset()  # new, or changed since the last time
    closed: frozenset[str] = frozenset()  # somebody who wrote to it has closed it: the run ended, or crashed

    def __bool__(self) -> bool:
        return bool(self.written or self.closed)


class Watch:
    """Some logs, and the places where others may appear. `wait` is for one thread, the rest for any."""

    def __init__(self, *, events: bool = True, poll: float = POLL, say: Callable[[str], None] = lambda _: None) -> None:
        """`events` False: poll only. `poll`: seconds. `say` is told once if there are no events."""
        self.poll, self._say = poll, say
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._logs: dict[str, Stamp | None] = {}  # None: not looked at yet
        self._places: dict[str, Stamp | None] = {}
        self._known: set[str] = set()  # folders and logs in places that are no news
        self._turn = 0  # whose turn it is among the other places
        self._polled = 0.0
        self._written: set[str] = set()
        self._closed: set[str] = set()
        self._dirty: set[str] = set()  # places that an event was about
        self._stopped = False
        self._choosing = threading.Lock()  # which folders to have events of: for one thread at a time
        self._events = _Events(self._happened) if events else None

    # -- what to look at

    def watch(self, logs: Iterable[str], found: local.Finding) -> None:
        """Look at these logs from now on and at no others, and for what is not among what was `found`.

        Each log is hinted once, whether it has changed or not.
        """
        with self._lock:
            self._logs = {path: self._logs.get(path) for path in logs}
            self._known = {os.path.dirname(log.path) for log in found.logs} | {log.path for log in found.logs}
            self._known.update(found.places)
            # All of them are listed once more: what was found there since the walk began is forgotten by now.
            self._places = dict.fromkeys(found.places)
        self._watch_events()

    def follow(self, logs: Iterable[str]) -> None:
        """Look at these as well."""
        with self._lock:
            for path in logs:
                self._logs.setdefault(path, None)
        self._watch_events()

    def again(self, logs: Iterable[str]) -> None:
        """Hint these once more, changed or not."""
        with self._lock:
            self._logs.update(dict.fromkeys(logs))

    def leave(self, logs: Iterable[str]) -> None:
        """Look at these no longer."""
        with self._lock:
            for path in logs:
                self._logs.pop(path, None)
        self._watch_events()

    @property
    def followed(self) -> list[str]:
        with self._lock:
            return list(self._logs)

    # -- hints

    def wait(self, timeout: float) -> Hints:
        """The next hints; empty if there are none for so long (seconds), or at `stop`."""
        deadline = time.monotonic() + timeout
        while not self._stopped:
            left = min(self._polled + self.poll, deadline) - time.monotonic()
            if left > 0 and self._wake.wait(left):
                time.sleep(GATHER)
            self._wake.clear()
            with self._lock:
                self._look_at_places()
                if time.monotonic() >= self._polled + self.poll:
                    self._look_at_logs()
                    self._polled = time.monotonic()
                for path in self._written & self._logs.keys():
                    self._logs[path] = _stamp(path)  # before it is read: what comes meanwhile is news
                hints = Hints(frozenset(self._written), frozenset(self._closed))
                self._written, self._closed = set(), set()
            if hints or time.monotonic() >= deadline:
                return hints
        return Hints()

    def wake(self) -> None:
        """Have `wait` look now."""
        self._wake.set()

    def stop(self) -> None:
        """End `wait`, and all events."""
        self._stopped = True
        self._wake.set()
        with self._choosing:
            if self._events is not None:
                self._events.stop()

    # -- looking; the lock is held

    def _look_at_logs(self) -> None:
        for path, before in self._logs.items():
            now = _stamp(path)
            if now is not None and now != before:
                self._logs[path] = now
                self._written.add(path)

    def _look_at_places(self) -> None:
        """List the places that changed: all nurseries, and of the others as many as there is time for."""
        dirty, self._dirty = self._dirty, set()
        for place in dirty & self._places.keys():
            self._places[place] = _stamp(place)
            self._list(place)
        if time.monotonic() < self._polled + self.poll:
            return
        nurseries, others = self._sorted_places()
        turn = self._turn if self._turn < len(others) else 0
        until = time.monotonic() + PATIENCE
        for place in nurseries:
            self._look_at_place(place)
        for count, place in enumerate([*others[turn:], *others[:turn]]):
            self._turn = turn + count + 1
            self._look_at_place(place)
            if time.monotonic() > until:
                break
        else:
            self._turn = 0

    def _sorted_places(self) -> tuple[list[str], list[str]]:
        """Those where run directories are made, and the others."""
        nurseries = [place for place in self._places if os.path.basename(place) in NURSERIES]
        return nurseries, [place for place in self._places if os.path.basename(place) not in NURSERIES]

    def _look_at_place(self, place: str) -> None:
        now = _stamp(place)
        if now is not None and now != self._places.get(place):
            self._places[place] = now
            self._list(place)

    def _list(self, place: str) -> None:
        """Find what is new in a place: logs, and folders where logs may appear."""
        for path in _entries(place):
            if path in self._known:
                continue
            self._known.add(path)
            if path.endswith(".wandb"):
                self._found(path)
                continue
            with contextlib.suppress(UsageError):  # it is gone again
                below = local.find([Path(path)])
                for log in below.logs:
                    self._known.add(os.path.dirname(log.path))
                    self._found(log.path)
                for inner in below.places:
                    self._known.add(inner)
                    self._places.setdefault(inner, None)

    def _found(self, path: str) -> None:
        self._known.add(path)
        self._logs.setdefault(path, None)
        self._written.add(path)

    # -- events

    def _happened(self, path: str, *, closed: bool) -> None:
        with self._lock:
            if path.endswith(".wandb"):
                (self._closed if closed else self._written).add(path)
                self._logs.setdefault(path, None)
            else:
                self._dirty.add(os.path.dirname(path))
        self._wake.set()

    def _watch_events(self) -> None:
        with self._choosing:
            if self._events is None or self._stopped:
                return
            with self._lock:
                newest = sorted(self._logs, key=lambda path: self._logs[path] or (0, 0), reverse=True)
                folders = list(dict.fromkeys(os.path.dirname(path) for path in newest))[:WATCHED]
                nurseries, others = self._sorted_places()
            problem = self._events.watch({*folders, *[*nurseries, *others][:WATCHED]})
            if problem:
                self._events = None
        if problem:
            self._say(f"no file events; polling every {self.poll:g} s ({problem})")


class _Events:
    """watchdog's observer over single folders, never over trees: ten thousand run directories are no reason to."""

    def __init__(self, happened: Callable[..., None]) -> None:
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                # Opened and closed without a write: that was a reader, such as we are.
                if event.event_type in ("modified", "closed", "created", "moved"):
                    path = event.dest_path or event.src_path if event.event_type == "moved" else event.src_path
                    if not event.is_directory or event.event_type in ("created", "moved"):
                        happened(os.fsdecode(path), closed=event.event_type == "closed")

        self._make = Observer  # takes an inotify instance, of which none may be left
        self._observer: Any = None
        self._handler = Handler()
        self._watches: dict[str, Any] = {}
        self._started = False

    def watch(self, folders: set[str]) -> str | None:
        """Have events of these folders, and of no others; what the system has against it, if anything."""
        for gone in self._watches.keys() - folders:
            watch = self._watches.pop(gone)
            with contextlib.suppress(KeyError, OSError):
                self._observer.unschedule(watch)
        try:
            if not self._started:
                self._observer = self._make()
                self._observer.start()
                self._started = True
            for folder in sorted(folders - self._watches.keys()):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    self._watches[folder] = self._observer.schedule(self._handler, folder, recursive=False)
        except (OSError, RuntimeError) as error:  # no more watches, no more threads
            self.stop()
            return str(error)
        return None

    def stop(self) -> None:
        self._watches = {}
        if self._started:
            self._observer.stop()
            self._started = False


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _entries(place: str) -> list[str]:
    """The folders and logs in a place; links are left to the scan."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        return [
            entry.path
            for entry in entries
            if not entry.is_symlink()
            and entry.name not in local.SKIPPED
            and (entry.name.endswith(".wandb") or entry.is_dir(follow_symlinks=False))
        ]
    return []
