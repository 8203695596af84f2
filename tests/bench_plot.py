"""What plots cost beside the algorithm they replace: whole process against whole process, taking turns.

Ours reads from a cache, with everything that belongs to a command; the peer (peer_plots) has its values in memory.
Part of `make bench`; by itself: python tests/bench_plot.py [--quick].
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measured import Measured, turns

from wandbsync.cache import Cache, Share
from wandbsync.model import HISTORY, Columns, RunRecord, RunRef
from wandbsync.plot.stats.ema import time_weighted_ema

HERE = Path(__file__).parent
# run, points of each metric, metrics, turns, how much faster it is to be, and better still
SIZES = (
    ("small", 10_000, 1, 5, "", ""),
    ("medium", 100_000, 1, 5, "3", "4.5"),
    ("large", 1_000_000, 1, 5, "5", "7"),
    ("huge", 10_000_000, 1, 3, "20", "30"),
    ("wide", 10_000, 100, 2, "8", "12"),
)


def measure(room: Path, *, quick: bool = False) -> list[Measured]:
    """All of it; some minutes. `room` is an empty folder."""
    bench = Beside(room)
    if importlib.util.find_spec("pandas") is None:
        print("plots: the peer needs pandas, `pip install .[bench]`; left out", file=sys.stderr)
        return bench.lines
    for run, points, metrics, repeats, goal, stretch in SIZES:
        if not (quick and run in ("huge", "wide")):
            bench.size(run, points, metrics, 2 if quick else repeats, goal, stretch)
    bench.again()
    bench.smoothing(1_000_000)
    return bench.lines


def plain_ema(x: list[float], y: list[float], weight: float, viewport: float) -> list[float]:
    """The formula as a loop."""
    span = x[-1] - x[0]
    last = debias = 0.0
    out = []
    for i, value in enumerate(y):
        decay = weight ** ((x[i] - x[max(i - 1, 0)]) / span * viewport)
        last, debias = last * decay + value, debias * decay + 1
        out.append(last / debias)
    return out


class Beside:
    """A cache to draw from, and the peer with the same values in memory."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.lines: list[Measured] = []
        # Compiled modules are kept, as where anything is installed; whoever runs this may have that switched off.
        self.env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.env["PYTHONPYCACHEPREFIX"] = str(room / "compiled")
        self.rng = np.random.default_rng(0)

    def add(self, what: str, ours: float, theirs: float, goal: str, note: str = "") -> None:
        self.lines.append(Measured(what, ours, theirs, "s", goal, note))
        print(self.lines[-1], file=sys.stderr, flush=True)

    def wandbsync(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "wandbsync", "--cache-dir", str(self.room / "cache"), *words]

    def plot(self, run: str, *words: str) -> list[str]:
        out = str(self.room / "ours" / run)
        return self.wandbsync("generate-plots", "bench", run, "--output", out, "--offline", *words)

    def call(self, words: list[str]) -> None:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env)

    def size(self, run: str, points: int, metrics: int, repeats: int, goal: str, stretch: str) -> None:
        mine, theirs = self.drawn(run, points, metrics, repeats)
        wanted = f"<= {1 / float(goal):.3f}" if goal else ""
        note = f"{theirs / mine:.1f} times as fast" + (f"; {goal} wanted, {stretch} better still" if goal else "")
        self.add(f"draw {metrics} x {points:,} points / pandas + pyplot", mine, theirs, wanted, note)

    def drawn(self, run: str, points: int, metrics: int, repeats: int) -> list[float]:
        """Seconds that a process takes to draw them, ours and the peer's."""
        values = self.rng.lognormal(0.0, 0.3, points * metrics)
        names = [f"m{i}" for i in range(metrics)]
        folder = self.room / "values" / run
        folder.mkdir(parents=True)
        for name, column in zip(names, values.reshape(metrics, points), strict=True):
            np.save(folder / f"{name}.npy", column)
        key, step = np.repeat(np.arange(metrics, dtype=np.int32), points), np.tile(np.arange(points), metrics)
        rows = Columns(names, key, step, values, np.zeros(len(key), np.uint8), None, points)
        record = RunRecord("finished", "local", display_name=run, created_at=1.7e9, summary={})
        with Cache(self.room / "cache") as cache:
            cache.commit([Share(RunRef("local", "bench", run), None, record, streams={HISTORY: [rows]})])
        del values, key, step, rows
        what = ["--all-metrics"] if metrics > 1 else ["--metrics", "m0"]

        def ours() -> None:
            shutil.rmtree(self.room / "cache" / "derived" / "plots", ignore_errors=True)  # or it would not be drawn
            self.call(self.plot(run, *what))

        def peer() -> None:
            self.call([sys.executable, str(HERE / "peer_plots.py"), str(folder), str(self.room / "theirs" / run)])

        taken = turns(ours, peer, repeats=repeats, warm=1)
        shutil.rmtree(folder)
        return taken

    def again(self) -> None:
        """The picture is there already."""
        words = self.plot("medium", "--metrics", "m0")
        self.call(words)
        mine, theirs = turns(lambda: self.call(words), lambda: self.call(self.wandbsync("--help")), repeats=9, warm=1)
        self.add("draw the same again / wandbsync --help", mine, theirs, "< 1.5")

    def smoothing(self, points: int) -> None:
        x, y = np.arange(points), self.rng.normal(size=points)
        lists = x.astype(float).tolist(), y.tolist()
        mine, theirs = turns(
            lambda: time_weighted_ema(x, y, weight=0.99),
            lambda: plain_ema(*lists, 0.99, 1000.0),
            repeats=7,
            warm=1,
        )
        note = f"{theirs / mine:.0f} times as fast; 40 wanted at a million"
        self.add(f"time-weighted EMA of {points:,} points / the plain loop", mine, theirs, "<= 0.025", note)


def main() -> None:
    room = Path(tempfile.mkdtemp())
    try:
        measure(room, quick="--quick" in sys.argv)
    finally:
        shutil.rmtree(room, ignore_errors=True)


if __name__ == "__main__":
    main()
