"""How costs grow: with rows, metrics, runs, points and live runs; and pictures of that, drawn by wandbsync itself.

Each curve has seconds, ours beside those of what people use today, from what is hardly worth a thought to as far as it
can be waited for. Part of `make bench`; by itself: python tests/bench_growth.py FOLDER, where the pictures go.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_daemon
import bench_plot
import numpy as np
from bench_api import Beside, Sizes
from bench_server import Child
from measured import medians

from wandbsync.plot import PlotOptions, PlotRun, Source, compose
from wandbsync.plot.figure import written

HERE = Path(__file__).parent
LONGEST = 40.0  # seconds that one turn may take; whatever would take longer is left out from there on


@dataclass(frozen=True)
class Curve:
    """Seconds against some size, one line for each way to do it."""

    name: str
    title: str
    size: str  # what x is
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, line: str, size: float, seconds: float) -> None:
        self.lines.setdefault(line, []).append((size, seconds))
        print(f"{self.title}: {size:,.0f} {self.size}, {line} {seconds:.3f} s", file=sys.stderr, flush=True)

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "size": self.size, "lines": self.lines}

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


def pictures(curves: list[Curve], folder: Path) -> None:
    """One PNG of each, on logarithmic axes."""
    folder.mkdir(parents=True, exist_ok=True)
    for curve in curves:
        runs = {PlotRun("bench", "growth", name, name): points for name, points in curve.lines.items()}
        options = PlotOptions(log_x=True, log_y=True, smoothing="none", y_unit="s", title=curve.title)

        def load(run: PlotRun, metric: str, axis: str, runs: Mapping[PlotRun, Any] = runs) -> tuple[Any, Any]:
            x, y = np.array(sorted(runs[run])).T
            return x, y

        source = Source(load, axis=lambda metric, curve=curve: curve.size)
        (folder / f"{curve.name}.png").write_bytes(written(compose(list(runs), ["seconds"], options, source)))


def _beside(curve: Curve, sizes: tuple[int, ...], ways: Callable[[int], dict[str, Callable[[], list[float]]]]) -> None:
    """Each way at each size, in turns; a way that took too long is not gone further."""
    left: set[str] | None = None
    for size in sizes:
        calls = {name: call for name, call in ways(size).items() if left is None or name in left}
        began = time.perf_counter()
        found = medians(*calls.values(), repeats=1)
        if time.perf_counter() - began < LONGEST / 10:
            found = medians(*calls.values(), repeats=3)
        for name, (seconds, *_) in zip(calls, found, strict=True):
            curve.add(name, size, seconds)
        left = {name for name, (seconds, *_) in zip(calls, found, strict=True) if seconds < LONGEST / 10}


def _rows(bench: Beside) -> Curve:
    """One run gets longer."""
    curve = Curve("rows", "A run of 10 metrics, fetched from the server", "rows")
    with bench.sdk() as sdk:
        _beside(curve, (1_000, 10_000, 100_000, 1_000_000), lambda rows: _one_run(bench, sdk, f"rows{rows}", rows, 10))
    return curve


def _metrics(bench: Beside) -> Curve:
    """One run gets wider."""
    curve = Curve("metrics", "A run of 10,000 rows, fetched from the server", "metrics")
    with bench.sdk() as sdk:
        _beside(curve, (1, 10, 100, 1_000), lambda many: _one_run(bench, sdk, f"metrics{many}", 10_000, many))
    return curve


def _one_run(bench: Beside, sdk: Any, project: str, rows: int, metrics: int) -> dict[str, Callable[[], list[float]]]:
    bench.server("fill", project=project, runs=1, rows=rows, metrics=metrics)
    path = f"me/{project}/run00000"
    return {
        "wandbsync": lambda: bench.sync(project)[0],
        "scan_history(use_cache=False)": lambda: sdk("scan", path=path, rows=rows, use_cache=False),
        "scan_history()": lambda: sdk("scan", path=path, rows=rows, use_cache=True),
        "download_history_exports": lambda: sdk("exports", path=path),
    }


def _runs(bench: Beside) -> Curve:
    """A project gets more runs."""
    curve = Curve("runs", "Runs of 100 rows x 10 metrics, fetched from the server", "runs")

    def ways(runs: int) -> dict[str, Callable[[], list[float]]]:
        project = f"runs{runs}"
        bench.server("fill", project=project, runs=runs, rows=100, metrics=10)
        return {
            "wandbsync": lambda: bench.sync(project)[0],
            "scan_history(use_cache=False)": lambda: sdk("loop", path=f"me/{project}", runs=runs, use_cache=False),
            "scan_history()": lambda: sdk("loop", path=f"me/{project}", runs=runs, use_cache=True),
        }

    with bench.sdk() as sdk:
        _beside(curve, (1, 10, 100, 1_000), ways)
    return curve


def _points(room: Path) -> Curve:
    """A metric gets longer that is drawn, by whole processes."""
    curve = Curve("points", "One metric, drawn", "points")
    bench = bench_plot.Beside(room)
    for points in (1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        ours, theirs = bench.drawn(f"p{points}", points, 1, 2)
        curve.add("wandbsync", points, ours)
        curve.add("pandas + pyplot", points, theirs)
    return curve


def _live(room: Path) -> Curve:
    """The daemon follows more runs at once, each with five flushes a second."""
    curve = Curve("live", "Live runs on this machine, until their rows are in the cache", "live runs")
    for runs in (1, 5, 20, 50):
        place = room / str(runs)
        place.mkdir(parents=True)
        with bench_daemon.daemon(place) as process:
            before, began = bench_daemon.cpu_seconds(process.pid), time.time()
            taken = bench_daemon.lags(place, runs, 8.0)
            share = (bench_daemon.cpu_seconds(process.pid) - before) / (time.time() - began)
        curve.add("median", runs, taken[len(taken) // 2])
        curve.add("99 of 100", runs, taken[int(len(taken) * 0.99)])
        curve.add("processor of a second", runs, share)
    return curve


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    try:
        pictures(measure(place), Path(sys.argv[1]))
    finally:
        shutil.rmtree(place, ignore_errors=True)
