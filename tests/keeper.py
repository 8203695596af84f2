"""A daemon as a process of its own, with a shell beside it; and waiting for things to happen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from shell import Shell

from wandbsync import status
from wandbsync.status import Snapshot

DEADLINE = 30.0
PROMISED = 8.0  # seconds for it to end; the promise is 5
QUICK = '[daemon]\npoll = "1s"\nsettled = "1s"\nsweep = "2s"\nscan = "2s"\n'

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found], what: object = "", *, seconds: float = DEADLINE) -> Found:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what() if callable(what) else what or "it does not come to pass"
        time.sleep(0.05)
    return found


class Keeper:
    """`wandbsync daemon run` with the folder's own settings file."""

    def __init__(self, shell: Shell, config: str = QUICK) -> None:
        self.shell, self.folder = shell, shell.cache
        self.file = shell.folder / ".config" / "wandbsync" / "wandbsync.toml"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.said = shell.folder / "daemon.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(config)

    def configure(self, config: str) -> None:
        beside = self.file.with_name("beside")
        beside.write_text(config)
        beside.replace(self.file)

    def start(self, *words: str, wait: bool = True) -> Keeper:
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wandbsync", *words, "daemon", "run"],
                cwd=self.shell.folder, env=self.shell.env, stdout=said, stderr=said,
            )  # fmt: skip
        if wait:
            pid = self.process.pid
            wait_for(lambda: (now := self.status()) and now.pid == pid and self.alive, self.text)
        return self

    @property
    def alive(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.text()
        return True

    def text(self) -> str:
        return self.said.read_text()

    def status(self) -> Snapshot | None:
        return status.read(self.folder)

    def now(self) -> Snapshot:
        """A status that is written from now on."""
        asked = time.time()
        return wait_for(lambda: (one := self.status()) and self.alive and one.written_at > asked and one, self.text)

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def stop(self) -> None:
        """Ends in time and well."""
        if self.process is not None:
            if self.process.poll() is None:
                self.signal(signal.SIGTERM)
            code = self.process.wait(PROMISED)
            self.process = None
            assert code == 0, (code, self.text())
            assert "Traceback" not in self.text(), self.text()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def events(self) -> list[dict[str, Any]]:
        """What the log files say; each line is JSON."""
        files = sorted((self.folder / "logs").glob("daemon.log*"), reverse=True)
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def has_told(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events() if one["event"] == event]


@contextmanager
def kept(shell: Shell, config: str = QUICK) -> Iterator[Keeper]:
    """A daemon that runs, and that ends well."""
    keeper = Keeper(shell, config)
    try:
        yield keeper.start()
        keeper.stop()
    finally:
        keeper.kill()


def group_killed(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
