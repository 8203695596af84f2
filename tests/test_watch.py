"""Hints of what is being written: by events and without, and none is lost whatever comes in between."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_runs import header, put, rows

from wandbsync.sources import local
from wandbsync.watch import Hints, Watch

DEADLINE = 20.0
LONG = 600.0  # seconds from one poll to the next: only an event can be in time

Watcher = Callable[..., Watch]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    (folder / "wandb").mkdir(parents=True)
    return folder


@pytest.fixture
def watcher(top: Path) -> Iterator[Watcher]:
    """Makes a watch over all that is in `top`, hinted once."""
    made: list[Watch] = []

    def start(*, events: bool, poll: float | None = None, say: Callable[[str], None] = lambda _: None) -> Watch:
        watch = Watch(events=events, poll=poll or (LONG if events else 0.05), say=say)
        made.append(watch)
        scan(watch, top)
        watch.wait(0.0)
        return watch

    yield start
    for watch in made:
        watch.stop()


def scan(watch: Watch, top: Path) -> None:
    found = local.find([top])
    watch.watch([log.path for log in found.logs], found)


def until(watch: Watch, path: Path, *, closed: bool = False) -> Hints:
    """The hint of this log; what is hinted besides is a log that is there."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        hints = watch.wait(1.0)
        if str(path) in (hints.closed if closed else hints.written):
            return hints
    raise AssertionError(f"no hint of {path}")


def settle(watch: Watch) -> None:
    """Take all hints that are still to come."""
    while watch.wait(0.3):
        pass


def grow(path: Path, count: int = 1) -> None:
    with path.open("ab") as file:
        file.write(b"x" * count)


both = pytest.mark.parametrize("events", [True, False], ids=["events", "polls"])


@both
def test_each_log_is_hinted_once_then_when_it_grows(top: Path, watcher: Watcher, events: bool) -> None:
    paths = [put(top, f"r{i}", header(f"r{i}")) for i in range(3)]
    watch = Watch(events=events, poll=LONG if events else 0.05)
    scan(watch, top)
    assert watch.wait(DEADLINE).written == {str(path) for path in paths}
    settle(watch)
    grow(paths[1])
    assert until(watch, paths[1]).written == {str(paths[1])}
    settle(watch)
    assert not watch.wait(0.2)
    scan(watch, top)  # what is known and has not changed is no news
    if not events:
        assert not watch.wait(0.2)
    watch.again([str(paths[2])])
    watch.poll = 0.05
    assert until(watch, paths[2]).written == {str(paths[2])}
    watch.stop()


@both
def test_a_log_that_is_left_is_not_looked_at(top: Path, watcher: Watcher, events: bool) -> None:
    one, other = put(top, "r1", header("r1")), put(top, "r2", header("r2"))
    watch = watcher(events=events)
    watch.leave([str(one)])
    assert watch.followed == [str(other)]
    settle(watch)
    grow(one), grow(other)
    assert until(watch, other).written == {str(other)}


@both
def test_a_new_run_directory_is_found(top: Path, watcher: Watcher, events: bool) -> None:
    watch = watcher(events=events)
    path = put(top, "r1", header("r1"))
    until(watch, path)
    assert str(path) in watch.followed


@both
def test_a_log_is_found_that_is_made_after_its_folder(top: Path, watcher: Watcher, events: bool) -> None:
    watch = watcher(events=events, poll=0.3 if events else 0.05)
    folder = top / "wandb" / "offline-run-20240101_000000-r1"
    (folder / "files").mkdir(parents=True)
    settle(watch)
    path = put(top, "r1", header("r1"))
    until(watch, path)


@both
def test_a_wandb_folder_far_below_is_found(top: Path, watcher: Watcher, events: bool) -> None:
    (top / "team").mkdir()
    watch = watcher(events=events, poll=0.3 if events else 0.05)
    path = put(top / "team" / "a" / "b" / "c", "r1", header("r1"))
    until(watch, path)
    more = put(top / "team" / "a" / "b" / "c", "r2", header("r2"))
    until(watch, more)
    later = put(top / "team" / "a" / "b2", "r3", header("r3"))
    until(watch, later)


@both
def test_a_log_that_is_replaced_or_truncated_is_hinted(top: Path, watcher: Watcher, events: bool) -> None:
    path = put(top, "r1", [*header("r1"), *rows(range(20))])
    watch = watcher(events=events)
    settle(watch)
    os.truncate(path, 100)
    until(watch, path)
    settle(watch)
    beside = path.with_name("beside")
    beside.write_bytes(b"another one, of another length")
    beside.replace(path)
    until(watch, path)


@both
def test_a_folder_that_goes_is_no_error_and_may_come_again(top: Path, watcher: Watcher, events: bool) -> None:
    path = put(top, "r1", header("r1"))
    watch = watcher(events=events)
    shutil.rmtree(top / "wandb")
    settle(watch)
    watch.poll = 0.05
    again = put(top, "r2", header("r2"))
    until(watch, again)
    shutil.rmtree(top)
    settle(watch)
    scan_again = put(top, "r1", [*header("r1"), *rows(range(9))])
    until(watch, scan_again)
    assert scan_again == path


WRITER = "import sys, time; f = open(sys.argv[1], 'ab'); f.write(b'x'); f.flush(); print(flush=True); time.sleep(99)"


def test_who_is_killed_closes_the_log(top: Path, watcher: Watcher) -> None:
    path = put(top, "r1", header("r1"))
    watch = watcher(events=True)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        assert not until(watch, path).closed
        writer.send_signal(signal.SIGKILL)
        until(watch, path, closed=True)


def test_who_reads_a_log_is_no_news(top: Path, watcher: Watcher) -> None:
    path = put(top, "r1", header("r1"))
    watch = watcher(events=True)
    settle(watch)
    for _ in range(5):
        path.read_bytes()
        local.find([top])
    assert not watch.wait(0.5)


@both
def test_two_thousand_run_directories(top: Path, watcher: Watcher, events: bool) -> None:
    for i in range(2000):
        folder = top / f"e{i % 40}" / "wandb" / f"offline-run-20240101_000000-r{i}"
        folder.mkdir(parents=True)
        (folder / f"run-r{i}.wandb").write_bytes(b"x")
    watch = watcher(events=events, poll=0.2)
    assert len(watch.followed) == 2000
    settle(watch)
    new = put(top / "e7", "new", header("new"))
    until(watch, new)
    old = top / "e3" / "wandb" / "offline-run-20240101_000000-r3" / "run-r3.wandb"
    grow(old)
    until(watch, old)


@pytest.mark.parametrize("method", ["start", "schedule"])
def test_without_events_it_polls_and_says_so_once(
    top: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from watchdog.observers import Observer

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(Observer, method, refuse)
    heard: list[str] = []
    path = put(top, "r1", header("r1"))
    watch = watcher(events=True, poll=0.05, say=heard.append)
    settle(watch)
    grow(path)
    until(watch, path)
    until(watch, put(top, "r2", header("r2")))
    scan(watch, top)
    assert len(heard) == 1 and "inotify watch limit reached" in heard[0] and "0.05 s" in heard[0]


def test_a_folder_that_may_not_be_watched_takes_the_events_of_no_other(
    top: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watchdog.observers import Observer

    schedule = Observer.schedule

    def picky(self: object, handler: object, path: str, **how: object) -> object:
        if path.endswith("-r1"):
            raise PermissionError(13, "Permission denied")
        return schedule(self, handler, path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Observer, "schedule", picky)
    heard: list[str] = []
    put(top, "r1", header("r1"))
    path = put(top, "r2", header("r2"))
    watch = watcher(events=True, say=heard.append)
    settle(watch)
    grow(path)
    until(watch, path)
    assert heard == []


def test_what_came_while_a_scan_was_under_way_is_looked_at(top: Path, watcher: Watcher) -> None:
    """The scan did not see it; by the time it says what to look at, the watch has hinted it already."""
    old = put(top, "r1", header("r1"))
    watch = watcher(events=False)
    found = local.find([top])  # a walk begins ...
    new = put(top, "r2", header("r2"))
    until(watch, new)
    watch.follow([str(new)])
    watch.watch([str(old)], found)  # ... and ends
    grow(new)
    until(watch, new)


def test_stop_ends_a_wait_at_once(top: Path, watcher: Watcher) -> None:
    watch = watcher(events=True)
    settle(watch)
    threading.Timer(0.1, watch.stop).start()
    began = time.monotonic()
    assert not watch.wait(LONG)
    assert time.monotonic() - began < DEADLINE
    assert not watch.wait(LONG)
    watch.stop()


@both
@pytest.mark.parametrize("seed", range(3))
def test_no_hint_is_lost(top: Path, watcher: Watcher, events: bool, seed: int) -> None:
    """Writers, new runs, scans and a reader at once: whatever was written last has been hinted after that."""
    dice = random.Random(seed)
    watch = watcher(events=events, poll=0.03)
    seen: dict[str, int] = {}  # the size that a log had when its hint was looked at
    sizes: dict[str, int] = {}
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            hints = watch.wait(0.2)
            for path in hints.written:
                seen[path] = Path(path).stat().st_size
            watch.follow(hints.written)
            time.sleep(dice.random() * 0.02)

    def walk() -> None:
        while not over.is_set():
            found = local.find([top])
            time.sleep(dice.random() * 0.05)
            watch.watch([log.path for log in found.logs], found)

    threads = [threading.Thread(target=one) for one in (read, walk, walk)]
    for thread in threads:
        thread.start()
    paths: list[Path] = []
    for step in range(150):
        if not paths or dice.random() < 0.2:
            deep = top.joinpath(*("abc"[: dice.randrange(4)]))
            paths.append(put(deep, f"r{step}", header(f"r{step}")))
        else:
            grow(dice.choice(paths), dice.randrange(1, 50))
        time.sleep(dice.random() * 0.01)
    sizes = {str(path): path.stat().st_size for path in paths}
    deadline = time.monotonic() + DEADLINE
    while seen != sizes and time.monotonic() < deadline:
        time.sleep(0.02)
    over.set()
    watch.stop()
    for thread in threads:
        thread.join(DEADLINE)
    assert seen == sizes
