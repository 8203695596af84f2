"""Pictures drawn by copies of a process: the same as by one, also if a copy is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rows import number, share

from wandbsync.cache import Cache
from wandbsync.model import RunRef

BEGIN = """
import os, signal
from wandbsync.plot import crew
crew.hands = lambda count: 3
me = os.getpid()
WORK = [5, 3, 8, 1, 9, 7, 2]

def do(work):
    return [(one, os.getpid() != me) for one in work]

def begin():
    assert os.getpid() != me
"""
CASES = {
    "all is done, two thirds by copies": """
found = crew.shared(WORK, do, begin)
assert found == [(one, place % 3 > 0) for place, one in enumerate(WORK)], found
""",
    "a copy that is killed costs time, nothing else": """
def killed(work):
    if 3 in work and os.getpid() != me:
        os.kill(os.getpid(), signal.SIGKILL)
    return do(work)
found = crew.shared(WORK, killed, begin)
assert found == [(one, place % 3 == 2) for place, one in enumerate(WORK)], found
""",
    "what fails in a copy is done here": """
def failing():
    raise OSError("too many open files")
found = crew.shared(WORK, do, failing)
assert found == [(one, False) for one in WORK], found
""",
    "no copy outlives an error": """
def fails(work):
    if os.getpid() == me:
        raise KeyboardInterrupt
    signal.pause()
try:
    crew.shared(WORK, fails, begin)
except KeyboardInterrupt:
    pass
else:
    raise AssertionError
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    pass
else:
    raise AssertionError("a copy is left")
""",
}


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("case", CASES)
def test_work_is_shared(case: str) -> None:
    run("-c", BEGIN + CASES[case])


def test_copies_are_made_only_where_that_is_safe() -> None:
    run(
        "-c",
        "import os, threading\nfrom wandbsync.plot import crew\nos.sched_getaffinity = lambda _: range(8)\n"
        "assert [crew.hands(count) for count in (1, 15, 16, 100)] == [1, 1, 2, 4]\n"
        "stop = threading.Event(); other = threading.Thread(target=stop.wait); other.start()\n"
        "assert crew.hands(100) == 1\nstop.set(); other.join()\nassert crew.hands(100) == 4\n"
        "import pyarrow\nassert crew.hands(100) == 1\n",
    )


def test_many_pictures_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    names = [f"m{i}" for i in range(20)]
    with Cache(tmp_path / "cache") as cache:
        rows = [number(name, step, (step * (i + 3)) % 17) for i, name in enumerate(names) for step in range(40)]
        cache.commit([share(RunRef("me", "demo", "r"), None, rows)])

    def plot(folder: str, *words: str) -> list[dict[str, object]]:
        command = ["-c", "import os; os.sched_getaffinity = lambda _: range(3)\nfrom wandbsync.cli import main; main()"]
        asked = ["generate-plots", "demo", "r", "--output", str(tmp_path / folder), "--offline", "--json", *words]
        found: list[dict[str, object]] = json.loads(run(*command, "--cache-dir", str(tmp_path / "cache"), *asked))
        return found

    many = plot("many", "--all-metrics")
    assert [one["metric"] for one in many] == sorted(names)
    assert not any(one["cached"] for one in many)
    assert all(one["cached"] for one in plot("many", "--all-metrics"))
    for picture in (tmp_path / "cache" / "derived" / "plots").glob("*.png"):
        picture.unlink()
    for name in names[::6]:
        assert plot("one", "--metrics", name)[0]["cached"] is False
        assert (tmp_path / "one" / f"{name}.png").read_bytes() == (tmp_path / "many" / f"{name}.png").read_bytes()
