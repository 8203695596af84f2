"""What is to be drawn, from what and to which files: decided before anything is read or written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import UsageError
from . import names
from .names import PlotRun
from .options import PlotOptions

MISSING = "□"  # stands in a figure for a character that no font at hand can draw
ON_A_PAGE = 24  # panels in one figure
# A metric of one of several devices: system.gpu.0.temp, system.cpu.3.cpu_percent, system.gpu.process.0.memory.
_DEVICE = re.compile(r"^(system\.([a-z]+)\.(?:[a-z]+\.)*)(\d+)(\..+)$")

Names = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Sorting:
    """A name for each run, of each kind; None: there are none of that kind.

    `labels` are what runs are called, `groups` have one line each, `facets` one panel each; `strata` are what the
    bootstrap draws runs from.
    """

    labels: Names = None
    groups: Names = None
    facets: Names = None
    strata: Names = None

    @classmethod
    def of(cls, **given: Sequence[str] | None) -> Sorting:
        return cls(**{name: None if names is None else tuple(names) for name, names in given.items()})

    def only(self, places: Sequence[int]) -> Sorting:
        """Of some of the runs."""
        return Sorting.of(**{name: names and [names[i] for i in places] for name, names in self.all().items()})

    def all(self) -> dict[str, Any]:
        """By kind, for metadata.json."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn into one pair of axes: a metric, or the same one of several devices of a machine."""

    name: str
    metrics: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """What tells the metrics apart: GPU 0, GPU 1; of one alone, nothing."""
        if len(self.metrics) == 1:
            return ("",)
        return tuple(_DEVICE.sub(lambda found: f"{found[2].upper()} {found[3]}", metric) for metric in self.metrics)


@dataclass(frozen=True, slots=True)
class Picture:
    """One file to be drawn, and what is in it: one overlay, or those of a page of a grid."""

    name: str
    overlays: tuple[Overlay, ...]
    path: Path

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(metric for overlay in self.overlays for metric in overlay.metrics)


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
    overlays = overlaid(metrics)
    pages: dict[str, tuple[Overlay, ...]] = {overlay.name: (overlay,) for overlay in overlays}
    if options.grid:
        pages = {grid_name(i): overlays[i : i + ON_A_PAGE] for i in range(0, len(overlays), ON_A_PAGE)}
    files = names.plot_files(
        pages,
        group_by_prefix=options.group_by_prefix and not options.grid,
        taken=taken,
        suffix=f".{options.format}",
        beside=f".{options.data}" if options.data else None,
    )
    pictures = tuple(Picture(name, inside, folder / files[name]) for name, inside in pages.items())
    return Plan(folder, runs, {name: folder / file for name, file in files.items()}, pictures)


def overlaid(metrics: Sequence[str]) -> tuple[Overlay, ...]:
    """The metrics, with those of several devices of one kind in one: system.gpu.*.temp has a line for each GPU."""
    families: dict[str, list[str]] = {}
    for metric in metrics:
        families.setdefault(_DEVICE.sub(r"\1*\4", metric), []).append(metric)
    return tuple(
        Overlay(name if len(of) > 1 else of[0], tuple(sorted(of, key=natural))) for name, of in families.items()
    )


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
