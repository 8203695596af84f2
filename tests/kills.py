"""Many at work on one cache, for `make chaos`: all of them killed at random moments, or left alone and timed."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import local_runs
import logwriter
from soak import Writer
from stage import PATIENCE, Answer, Row, Stage, end

from wandbsync.cache import Cache
from wandbsync.cache.upkeep import backup
from wandbsync.cache.verify import verify
from wandbsync.errors import WandbsyncError

WORKS = {
    "daemon": ("daemon", "run"),
    "sync": ("sync",),
    "sync --full": ("sync", "--full"),
    "compact": ("cache", "compact", "--all"),
    "gc": ("cache", "gc"),
    "publish": ("publish", "lake"),
    "backup": ("cache", "backup", "backup"),
}
AT_ONCE = 6
GRACE = 3.0  # seconds until the last of a round is killed
SOUND = 10  # of so many rounds one is followed by peace, in which all is to become whole
READERS, SECONDS, SYNCS, DAEMONS = 4, 60.0, 4, 2


def killed(stage: Stage, row: Row) -> None:
    """Logs that grow, several at work, each killed at a random moment: nothing lost, nothing twice. A try is a kill."""
    before = _answer(stage) or stage.numbers
    grow(stage)
    works = stage.rng.sample(sorted(WORKS), AT_ONCE)
    running = {work: stage.start(*WORKS[work]) for work in works}
    began = time.monotonic()
    try:
        for work, moment in sorted(((one, stage.rng.uniform(0.15, GRACE)) for one in works), key=lambda one: one[1]):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            process = running[work]
            if process.poll() is None:
                process.kill()
                row.tried += 1
            else:
                said = process.stderr.read() if process.stderr else ""
                if "Traceback" in said:
                    row.wrong.append(f"{work}: {said.strip().splitlines()[-1]}"[:300])
                row.told += process.returncode != 0
    finally:
        for process in running.values():
            end(process)
    what = "killed " + ", ".join(works)
    after = _answer(stage)
    if after is None:
        row.told += 1
    else:
        row.wrong += [f"{what}: {one}" for one in _losses(before, after, stage.numbers)]
    with Cache(stage.shell.cache) as cache:
        row.wrong += [f"{what}: {one}" for one in verify(cache) if not one.harmless]
    stage.rounds += 1
    if stage.rounds % SOUND == 0:
        stage.heal(row, what)
        _restored(stage, row)


def _answer(stage: Stage) -> Answer | None:
    try:
        return stage.ask()
    except WandbsyncError:
        return None


def grow(stage: Stage) -> None:
    """Twenty rows more in each log."""
    first = int(stage.numbers[0][3]) + 1  # type: ignore[call-overload]
    for path in sorted(stage.runs.rglob("*.wandb")):
        loss = int(path.stem.removeprefix("run-r")) / 8
        rows = local_runs.rows(range(first, first + 20), loss=loss)
        path.write_bytes(logwriter.append(path.read_bytes(), rows))
    stage.numbers = [_up_to(str(line[0]), first + 19) for line in stage.numbers]


def _up_to(run_id: str, last: int) -> tuple[object, ...]:
    """What is to be said of a run when it has the steps up to `last`."""
    loss = int(run_id[1:]) / 8
    return run_id, 2 * (last + 1), last * (last + 1) / 2 + (last + 1) * loss, last  # exact: loss is n/8


def _losses(before: Answer, after: Answer, logged: Answer) -> Iterator[str]:
    """What was lost or is there twice."""
    had = {line[0]: line for line in before}
    for line in after:
        run_id, count, total, last = line
        if line != _up_to(str(run_id), int(last)):  # type: ignore[call-overload]
            yield f"{run_id} has {count} values up to step {last}, together {total}"
    yield from (f"{line[0]} is gone" for line in before if line[0] not in {one[0] for one in after})
    yield from (f"{one[0]} had {had[one[0]][1]} values" for one in after if one[1] < had.get(one[0], one)[1])  # type: ignore[operator]
    whole = {line[0]: line for line in logged}
    yield from (f"{one[0]} has more than was logged" for one in after if one[1] > whole[one[0]][1])  # type: ignore[operator]


def _restored(stage: Stage, row: Row) -> None:
    """What the last backup gives back is sound."""
    place = stage.room / "restored"
    shutil.rmtree(place, ignore_errors=True)
    if not stage.run(*WORKS["backup"]).returncode:
        with contextlib.suppress(WandbsyncError):
            backup.restore(stage.room / "backup", place)
            with Cache(place) as cache:
                row.wrong += [f"restored: {one}" for one in verify(cache) if not one.harmless]


def busy(stage: Stage, row: Row) -> None:
    """Readers beside two daemons, four syncs, gc, compact and logs that grow: no error, and how long they wait."""
    stage.renew()
    stopping = threading.Event()
    writers = [Writer(stage.runs, i, stage.rng.randrange(10**6), stopping) for i in range(3)]
    works = [WORKS["daemon"]] * DAEMONS + [WORKS["sync"]] * SYNCS + [WORKS["gc"], WORKS["compact"]]
    workers = [_Again(stage, words, stopping) for words in works]
    for thread in (*writers, *workers):
        thread.start()
    soak = str(Path(__file__).with_name("soak.py"))
    readers = [
        stage.begin(
            [sys.executable, soak, "--reader", str(stage.shell.cache), "--seconds", str(SECONDS), "--seed", f"{i}"]
        )
        for i in range(READERS)
    ]
    taken: list[float] = []
    try:
        for process in readers:
            out, err = process.communicate(timeout=SECONDS + PATIENCE)
            row.tried += 1
            if process.returncode:
                row.wrong.append(f"a reader: {err.strip().splitlines()[-1]}"[:300])
            else:
                taken += json.loads(out)
    finally:
        stopping.set()
        for process in readers:
            end(process)
        for thread in (*writers, *workers):
            thread.join(PATIENCE)
    row.wrong += [one for worker in workers for one in worker.wrong]
    taken.sort()
    if taken:
        p50, p99 = (taken[int(len(taken) * part)] for part in (0.5, 0.99))
        row.note = f"{len(taken):,} answers: p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    with Cache(stage.shell.cache) as cache:
        row.wrong += [str(one) for one in verify(cache) if not one.harmless]


class _Again(threading.Thread):
    """A command that is begun again whenever it has ended, until it is enough."""

    def __init__(self, stage: Stage, words: tuple[str, ...], stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.stage, self.words, self.stopping = stage, words, stopping
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            process = self.stage.start(*self.words)
            said = threading.Thread(target=self._said, args=(process,))
            said.start()
            while process.poll() is None and not self.stopping.wait(0.2):
                pass
            if process.poll() is None:
                process.terminate()
            said.join(PATIENCE)
            end(process)
            self.stopping.wait(0.5)

    def _said(self, process: subprocess.Popen[str]) -> None:
        _, err = process.communicate()
        if "Traceback" in err:
            self.wrong.append(f"{' '.join(self.words)}: {err.strip().splitlines()[-1]}"[:300])
