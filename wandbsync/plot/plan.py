"""What is to be drawn, from what, how and to which files: decided before anything is read or written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from . import names
from .names import PlotRun

ROLLING_MEAN = "rolling_mean"
TIME_WEIGHTED_EMA = "time_weighted_ema"
MISSING = "□"  # stands in a figure for a character that no font at hand can draw


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotOptions:
    """The predecessor's flags. `full_res`, `all_metrics`, `include_system` are the caller's business, noted here.

    `smooth` above 1 draws the mean of the last `smooth` values, and no EMA; else the time-weighted EMA is drawn unless
    `ema` is False. Either way the values themselves stand behind it. Raises UsageError naming each wrong option.
    """

    full_res: bool = False
    smooth: int | None = None
    ema: bool = True
    ema_weight: float = 0.99
    viewport_scale: float = 1000.0
    group_by_prefix: bool = False
    output: Path | None = None
    all_metrics: bool = False
    include_system: bool = False

    def __post_init__(self) -> None:
        wrong = []
        if self.smooth is not None and self.smooth < 0:
            wrong.append(f"--smooth must not be negative: {self.smooth}")
        if not 0.0 <= self.ema_weight <= 1.0:
            wrong.append(f"--ema-weight must be between 0 and 1: {self.ema_weight}")
        if not (math.isfinite(self.viewport_scale) and self.viewport_scale > 0.0):
            wrong.append(f"--viewport-scale must be a number above 0: {self.viewport_scale}")
        if wrong:
            raise UsageError("; ".join(wrong))

    @property
    def smoothing(self) -> str | None:
        """ROLLING_MEAN, TIME_WEIGHTED_EMA or None."""
        if self.smooth is not None and self.smooth > 1:
            return ROLLING_MEAN
        return TIME_WEIGHTED_EMA if self.ema else None


@dataclass(frozen=True, slots=True)
class Plan:
    """Which metric goes to which file; prints as a sentence."""

    folder: Path
    runs: tuple[PlotRun, ...]
    files: Mapping[str, Path]

    def __str__(self) -> str:
        of = f"{len(self.runs)} runs" if len(self.runs) > 1 else str(self.runs[0])
        return f"draw {', '.join(self.files)} of {of} to {self.folder}"


@dataclass(frozen=True, slots=True)
class PlotResult:
    """What became of one metric: a file at `path`, or the reason in `error`.

    `points` and `non_finite` count per run_id what was found in each run that is in the figure; `skipped` says for each
    other run why it is not.
    """

    metric: str
    path: Path | None
    runs: tuple[PlotRun, ...] = ()
    points: tuple[int, ...] = ()
    non_finite: tuple[int, ...] = ()
    skipped: tuple[str, ...] = ()
    error: str | None = None


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
    files = names.plot_files(metrics, group_by_prefix=options.group_by_prefix, taken=taken)
    return Plan(folder, runs, {metric: folder / file for metric, file in files.items()})


def named_as_sampled(metric: str) -> bool:
    """Whether a metric is named like one of the machine, which W&B samples by the clock and not by the step."""
    return metric.startswith("system.")


def labels(runs: Sequence[PlotRun], shown: Callable[[str], str] = str) -> list[str]:
    """What each run is called in a figure: its display name as it can be `shown`.

    Its id stands beside it where two look alike, or where there is something that cannot be shown.
    """
    display = [shown(run.display_name.strip() or run.run_id) for run in runs]
    often = Counter(display)
    ids = Counter(run.run_id for run in runs)
    return [
        f"{name} ({run.run_id if ids[run.run_id] == 1 else run})" if often[name] > 1 or MISSING in name else name
        for name, run in zip(display, runs, strict=True)
    ]
