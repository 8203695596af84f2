"""What is to be drawn, from what and to which files: decided before anything is read or written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from . import names
from .names import PlotRun
from .options import PlotOptions

MISSING = "□"  # stands in a figure for a character that no font at hand can draw
ON_A_PAGE = 24  # metrics in one figure of a grid


@dataclass(frozen=True, slots=True)
class Picture:
    """One file to be drawn, and the metrics in it: one, or those of a page of a grid."""

    name: str
    metrics: tuple[str, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """Which metric goes to which file; prints as a sentence."""

    folder: Path
    runs: tuple[PlotRun, ...]
    files: Mapping[str, Path]
    pictures: tuple[Picture, ...] = ()

    def __str__(self) -> str:
        of = f"{len(self.runs)} runs" if len(self.runs) > 1 else str(self.runs[0])
        return f"draw {', '.join(self.files)} of {of} to {self.folder}"


@dataclass(frozen=True, slots=True)
class PlotResult:
    """What became of one picture: a file at `path`, or the reason in `error`.

    `points` and `non_finite` count per run_id what was found in each run that is in the figure; `skipped` says for each
    other run why it is not, and in a grid for each metric.
    """

    metric: str
    path: Path | None
    runs: tuple[PlotRun, ...] = ()
    points: tuple[int, ...] = ()
    non_finite: tuple[int, ...] = ()
    skipped: tuple[str, ...] = ()
    error: str | None = None
    metrics: tuple[str, ...] = ()  # all that are in a grid
    axis: str | None = None  # what x is
    data: Path | None = None  # what was drawn, as numbers
    cached: bool = False  # drawn before


def plan(
    runs: Sequence[PlotRun],
    metrics: Iterable[str],
    options: PlotOptions,
    *,
    taken: Mapping[str, str] | None = None,
) -> Plan:
    """Decide folder and files; pure. `taken` names the metric of each plot that is already in the folder."""
    runs = tuple(dict.fromkeys(runs))
    metrics = tuple(dict.fromkeys(metrics))
    if not runs:
        raise UsageError("no run to plot")
    if not metrics:
        raise UsageError("no metric to plot", hint="name some with --metrics, or use --all-metrics")
    folder = options.output.expanduser() if options.output is not None else names.output_folder(runs)
    pages: dict[str, tuple[str, ...]] = {metric: (metric,) for metric in metrics}
    if options.grid:
        pages = {grid_name(i): metrics[i : i + ON_A_PAGE] for i in range(0, len(metrics), ON_A_PAGE)}
    files = names.plot_files(
        pages,
        group_by_prefix=options.group_by_prefix and not options.grid,
        taken=taken,
        suffix=f".{options.format}",
        beside=f".{options.data}" if options.data else None,
    )
    pictures = tuple(Picture(name, inside, folder / files[name]) for name, inside in pages.items())
    return Plan(folder, runs, {metric: folder / file for metric, file in files.items()}, pictures)


def grid_name(first: int) -> str:
    """What a page of a grid is called, where names of metrics stand."""
    return f"grid-{first // ON_A_PAGE + 1}" if first else "grid"


def natural(name: str) -> list[tuple[int, float, str]]:
    """A key to sort names by in which numbers count as numbers: lr=9e-4 stands before lr=0.001."""
    parts = re.split(r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)", name)
    return [(0, float(part), "") if i % 2 else (1, 0.0, part) for i, part in enumerate(parts)]


def named_as_sampled(metric: str) -> bool:
    """Whether a metric is named like one of the machine, which W&B samples by the clock and not by the step."""
    return metric.startswith("system.")


def labels(
    runs: Sequence[PlotRun], shown: Callable[[str], str] = str, *, given: Sequence[str] | None = None
) -> list[str]:
    """What each run is called in a figure: the label it was given, else its display name, as it can be `shown`.

    Its id stands beside it where two look alike, or where there is something that cannot be shown.
    """
    wanted = given or [run.display_name for run in runs]
    display = [shown(name.strip() or run.run_id) for name, run in zip(wanted, runs, strict=True)]
    often = Counter(display)
    ids = Counter(run.run_id for run in runs)
    return [
        f"{name} ({run.run_id if ids[run.run_id] == 1 else run})" if often[name] > 1 or MISSING in name else name
        for name, run in zip(display, runs, strict=True)
    ]
