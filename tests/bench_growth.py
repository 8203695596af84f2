"""How costs grow: with rows, metrics, runs, points and live runs; and pictures of that, drawn by wandbsync itself.

Each curve has seconds, ours beside those of what people use today, from what is hardly worth a thought to as far as it
can be waited for. Part of `make bench`; by itself: python tests/bench_growth.py FOLDER, where the pictures go.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_daemon
import bench_plot
import numpy as np
from bench_api import Beside, Sizes
from bench_server import Child
from measured import medians

from wandbsync.plot.figure import Series, draw, written
from wandbsync.plot.scale import View

HERE = Path(__file__).parent
SERVED = "from a server on the same machine"
PATIENCE = 5.0  # seconds; what took longer is not tried with more


@dataclass(frozen=True)
class Curve:
    """Seconds against some size, one line for each way to do it."""

    name: str
    title: str
    told: str  # what is measured, in a few words more
    size: str  # what x is
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, line: str, size: float, seconds: float) -> None:
        self.lines.setdefault(line, []).append((size, seconds))
        print(f"{self.title}: {size:,.0f} {self.size}, {line} {seconds:.3f} s", file=sys.stderr, flush=True)

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "told": self.told, "size": self.size, "lines": self.lines}

    def table(self) -> str:
        """As Markdown, a line for each size."""
        sizes = sorted({size for points in self.lines.values() for size, _ in points})
        known = [dict(points) for points in self.lines.values()]
        rows = [f"| {self.size} | {' | '.join(self.lines)} |", f"|---:|{'---:|' * len(known)}"]
        for size in sizes:
            cells = (f"{one[size]:.3g} s" if size in one else "" for one in known)
            rows.append(f"| {size:,.0f} | {' | '.join(cells)} |")
        return "\n".join(rows)


def measure(room: Path) -> list[Curve]:
    """All of them, some minutes. `room` is an empty folder."""
    with Child(str(HERE / "bench_server.py")) as server:
        bench = Beside(server, room, Sizes())
        curves = [_rows(bench), _metrics(bench), _runs(bench)]
    return [*curves, _points(room / "plots"), _live(room / "live")]


def pictures(curves: Sequence[Curve], folder: Path) -> None:
    """One PNG of each, on logarithmic axes."""
    folder.mkdir(parents=True, exist_ok=True)
    for curve in curves:
        series = []
        for name, points in curve.lines.items():
            x, y = np.array(sorted(points)).T
            series.append(Series(name, x, y, x_label=curve.size.capitalize()))
        view = View(log_x=True, log_y=True)
        figure = draw(series, title=curve.title, subtitle=curve.told, metric="Seconds", view=view)
        (folder / f"{curve.name}.png").write_bytes(written(figure))


def _beside(curve: Curve, sizes: tuple[int, ...], ways: Callable[[int], dict[str, Callable[[], list[float]]]]) -> None:
    """Each way at each size: once to see how long it takes, then in turns; what took too long, once and no further."""
    slow: set[str] = set()
    for size in sizes:
        calls = {name: call for name, call in ways(size).items() if name not in slow}
        taken = {name: call()[0] for name, call in calls.items()}
        slow |= {name for name, seconds in taken.items() if seconds > PATIENCE}
        quick = {name: call for name, call in calls.items() if name not in slow}
        again = medians(*quick.values(), repeats=3)
        taken |= {name: seconds for name, (seconds, *_) in zip(quick, again, strict=True)}
        for name, seconds in taken.items():
            curve.add(name, size, seconds)


def _rows(bench: Beside) -> Curve:
    curve = Curve("rows", "A run gets longer", f"10 metrics, {SERVED}", "rows")
    with bench.sdk() as sdk:
        _beside(curve, (1_000, 10_000, 100_000, 1_000_000), lambda rows: _one_run(bench, sdk, f"rows{rows}", rows, 10))
    return curve


def _metrics(bench: Beside) -> Curve:
    curve = Curve("metrics", "A run gets wider", f"10,000 rows, {SERVED}", "metrics")
    with bench.sdk() as sdk:
        _beside(curve, (1, 10, 100, 1_000), lambda many: _one_run(bench, sdk, f"metrics{many}", 10_000, many))
    return curve


def _one_run(bench: Beside, sdk: Any, project: str, rows: int, metrics: int) -> dict[str, Callable[[], list[float]]]:
    bench.server("fill", project=project, runs=1, rows=rows, metrics=metrics)
    path = f"me/{project}/run00000"
    return {
        "wandbsync": lambda: bench.sync(project)[0],
        "scan_history, no cache": lambda: sdk("scan", path=path, rows=rows, use_cache=False),
        "scan_history": lambda: sdk("scan", path=path, rows=rows, use_cache=True),
        "exports alone": lambda: sdk("exports", path=path),
    }


def _runs(bench: Beside) -> Curve:
    curve = Curve("runs", "A project gets more runs", f"each 100 rows x 10 metrics, {SERVED}", "runs")

    def ways(runs: int) -> dict[str, Callable[[], list[float]]]:
        project = f"runs{runs}"
        bench.server("fill", project=project, runs=runs, rows=100, metrics=10)
        return {
            "wandbsync": lambda: bench.sync(project)[0],
            "scan_history, no cache": lambda: sdk("loop", path=f"me/{project}", runs=runs, use_cache=False),
            "scan_history": lambda: sdk("loop", path=f"me/{project}", runs=runs, use_cache=True),
        }

    with bench.sdk() as sdk:
        _beside(curve, (1, 10, 100, 1_000), ways)
    return curve


def _points(room: Path) -> Curve:
    curve = Curve("points", "A picture gets more points", "one metric with its EMA, whole processes", "points")
    bench = bench_plot.Beside(room)
    for points in (1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        ours, theirs = bench.drawn(f"p{points}", points, 1, 2)
        curve.add("wandbsync", points, ours)
        curve.add("pandas + pyplot", points, theirs)
    return curve


def _live(room: Path) -> Curve:
    curve = Curve(
        "live",
        "More runs are logged at once",
        "from a flush to the cache; five a second of each, 20 metrics",
        "live runs",
    )
    for runs in (1, 5, 20, 50):
        place = room / str(runs)
        place.mkdir(parents=True)
        with bench_daemon.daemon(place) as process:
            before, began = bench_daemon.cpu_seconds(process.pid), time.time()
            taken = bench_daemon.lags(place, runs, 8.0)
            share = (bench_daemon.cpu_seconds(process.pid) - before) / (time.time() - began)
        curve.add("median", runs, taken[len(taken) // 2])
        curve.add("99 of 100", runs, taken[int(len(taken) * 0.99)])
        curve.add("processor, of a second", runs, share)
    return curve


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    try:
        pictures(measure(place), Path(sys.argv[1]))
    finally:
        shutil.rmtree(place, ignore_errors=True)
