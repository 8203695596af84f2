"""Where `make chaos` does its harm: a cache whose numbers are known, commands beside it, and what came of each try."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import local_runs
from shell import Shell

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.cache.verify import verify
from wandbsync.errors import WandbsyncError

RUNS, STEPS = 4, 300
PATIENCE = 120.0  # seconds for a command to end
MEMORY = 600 << 10  # kB that no command may take
NUMBERS = (
    "SELECT run_id, count(*), sum(value), max(step) FROM history WHERE key IN ('x', 'loss') GROUP BY ALL ORDER BY 1"
)

Answer = list[tuple[object, ...]]


@dataclass
class Row:
    """What came of one kind of harm."""

    name: str
    tried: int = 0
    told: int = 0
    ill: int = 0  # how often it was then left alone, to be whole again
    healed: int = 0
    wrong: list[str] = field(default_factory=list)
    note: str = ""


Harm = Callable[["Stage", Row], None]  # one try


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str
    memory: int = 0  # kB at the most; 0 if another one before it took more

    @property
    def told(self) -> bool:
        """Whether it says itself that it did not succeed."""
        return self.returncode not in (0, -signal.SIGKILL)


class Stage:
    """A cache of a few local runs in a folder of its own, and what it must say."""

    def __init__(self, room: Path, rng: random.Random) -> None:
        self.shell, self.rng, self.room, self.runs = Shell(room), rng, room, room / "runs"
        for number in range(RUNS):
            rows = local_runs.rows(range(STEPS), loss=number / 8)
            local_runs.put(self.runs, f"r{number}", [*local_runs.header(f"r{number}"), *rows])
        config = room / ".config" / "wandbsync" / "wandbsync.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'[local]\nfolders = ["{self.runs}"]\n[daemon]\nscan = "2s"\n')
        self.run("sync")
        self.numbers = self.ask()
        self.whole, self.rounds = room / "whole", 0
        self.keep()

    def keep(self) -> None:
        """The cache as it is now is what `renew` gives back."""
        shutil.rmtree(self.whole, ignore_errors=True)
        shutil.copytree(self.shell.cache, self.whole)

    def start(self, *words: str, before: Callable[[], object] | None = None) -> subprocess.Popen[str]:
        """A command of ours that goes on; the caller ends it."""
        return self.begin([sys.executable, "-m", "wandbsync", *words], before)

    def begin(
        self, words: list[str], before: Callable[[], object] | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, cwd=self.room, env=env or self.shell.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=before, start_new_session=True,
        )  # fmt: skip

    def run(self, *words: str, before: Callable[[], object] | None = None) -> Done:
        """A command of ours from its begin to its end; `before` is called in its process first."""
        return self.ended(self.start(*words, before=before))

    def ended(self, process: subprocess.Popen[str]) -> Done:
        """A process that is waited for. None outlives this, nor what it has started."""
        before = _peak()
        try:
            out, err = process.communicate(timeout=PATIENCE)
            return Done(process.returncode, out, err, 0 if _peak() == before else _peak())
        except subprocess.TimeoutExpired:
            return Done(-1, "", f"Traceback: it has not ended after {PATIENCE:g} s")
        finally:
            end(process)

    def ask(self) -> Answer:
        """What the cache says of the runs. Raises WandbsyncError."""
        with Cache(self.shell.cache) as cache:
            return query.sql(cache, NUMBERS).fetchall()

    def renew(self) -> None:
        """The cache as it was at first."""
        shutil.rmtree(self.shell.cache, ignore_errors=True)
        shutil.copytree(self.whole, self.shell.cache)

    def judge(self, row: Row, what: str, done: Done | None = None) -> None:
        """Count one try: after `done`, a command that was disturbed, does the cache say what it must, or why not?"""
        row.tried += 1
        told = done is not None and done.told
        if done is not None and not sane(row, what, done):
            return
        try:
            if self.ask() != self.numbers and not told:
                row.wrong.append(f"{what}: another answer")
        except WandbsyncError:
            told = True
        except Exception as error:
            row.wrong.append(f"{what}: {type(error).__name__}: {error}"[:200])
        row.told += told

    def heal(self, row: Row, what: str) -> None:
        """Undisturbed, with the commands that the messages name, everything is to be right."""
        row.ill += 1
        for words in ((), ("sync",), ("cache", "repair"), ("sync", "--full")):
            if words:
                self.run(*words)
            with contextlib.suppress(WandbsyncError), Cache(self.shell.cache) as cache:
                if self.ask() == self.numbers and not [one for one in verify(cache) if not one.harmless]:
                    row.healed += 1
                    return
        row.wrong.append(f"{what}: not healed")


def sane(row: Row, what: str, done: Done) -> bool:
    """Whether a command ended as one of ours does: with no traceback, and within its memory."""
    if "Traceback" in done.stderr:
        row.wrong.append(f"{what}: {done.stderr.strip().splitlines()[-1]}"[:300])
    elif done.memory > MEMORY:
        row.wrong.append(f"{what}: it took {done.memory >> 10} MB")
    else:
        return True
    return False


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def end(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """End a process and all that it has started; it has a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait(PATIENCE)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
