"""What a figure's lines show, run by run: what was loaded, in ascending x, in its unit, and smoothed.

Needs numpy alone, so that it is done while what draws is imported, or while another picture is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UsageError, WandbsyncError
from . import smoothing, windows
from .names import PlotRun
from .options import ROLLING_MEAN, TIME_WEIGHTED_EMA, X_UNITS, PlotOptions, Smoothing
from .plan import Overlay
from .trace import FloatArray, ascending, finite

LONG = 2_000_000  # points from which a smoothing is not kept as a whole
AXES = {"step": "Step", "sample": "Sample", "time": "Time (UTC)", "relative": "Relative time"}
UNIT_NAMES = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


class Points(NamedTuple):
    """What a run has of a metric: x, y, and how many values have no x."""

    x: npt.NDArray[Any]
    y: FloatArray
    without_x: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What a run logged and its smoothing, if any: at each point, or at the places in x that a picture shows."""

    x: npt.NDArray[Any]
    y: FloatArray
    smooth: FloatArray | None
    smooth_x: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What one pair of axes shows; what has nothing to draw has a curve without points, and a reason."""

    name: str
    metrics: tuple[str, ...]
    of: tuple[tuple[PlotRun, str], ...]  # whose each curve is, and which of the metrics, if there are several: GPU 0
    each: tuple[Curve, ...]
    x_label: str
    runs: tuple[PlotRun, ...]  # that have something to draw
    points: tuple[int, ...]  # of these
    non_finite: tuple[int, ...]
    skipped: tuple[str, ...]
    backwards: int  # how often x went back
    without_x: int  # values


class NothingToDraw(UsageError):
    """No run has a finite value; `skipped` says why, run by run."""

    def __init__(self, message: str, skipped: Sequence[str]) -> None:
        super().__init__(message)
        self.skipped = tuple(skipped)


def curves_of(
    overlay: Overlay,
    runs: Sequence[PlotRun],
    loaded: Mapping[str, Sequence[Points | WandbsyncError]],
    options: PlotOptions,
    axis: str = "step",
    *,
    columns: int | None = None,
) -> Curves:
    """The curves of metrics, loaded of each of the runs, for a picture of so many columns; None: of a smoothing all is
    wanted.

    Raises NothingToDraw if no run has a finite value.
    """
    skipped: dict[PlotRun, str] = {}
    points: dict[PlotRun, int] = {}
    bad: dict[PlotRun, int] = {}
    of: list[tuple[PlotRun, str]] = []
    known: list[Points] = []
    back = without = 0
    for metric, part in zip(overlay.metrics, overlay.parts, strict=True):
        for run, found in zip(runs, loaded[metric], strict=True):
            one = Points(np.empty(0), np.empty(0)) if isinstance(found, WandbsyncError) else found
            one, backwards = _ascending(one)
            wrong = 0 if finite(one.y) else int(np.count_nonzero(~np.isfinite(one.y)))
            if isinstance(found, WandbsyncError):
                skipped.setdefault(run, f"{metric} of {run}: {found.line()}")
            elif len(one.y) > wrong:
                points[run], bad[run] = points.get(run, 0) + len(one.y), bad.get(run, 0) + wrong
                back, without = back + backwards, without + one.without_x
            else:
                skipped.setdefault(run, f"{metric} of {run}: {'no finite value' if wrong else 'no value'}")
            known.append(one)
            of.append((run, part))
    reasons = tuple(reason for run, reason in skipped.items() if run not in points)
    if not points:
        others = f" (and {len(runs) - 1} more)" if len(runs) > 1 else ""
        raise NothingToDraw(reasons[0] + others, reasons)
    known, x_label = _in_unit(known, axis, options)
    how, span = options.how(), _span(known)
    if options.full_res or options.data or options.log_x or options.x_limits != (None, None):
        columns = None
    return Curves(
        overlay.name,
        overlay.metrics,
        tuple(of),
        tuple(_curve(one, how, span, columns) for one in known),
        x_label,
        tuple(points),
        tuple(points.values()),
        tuple(bad.values()),
        reasons,
        back,
        without,
    )


def _ascending(one: Points) -> tuple[Points, int]:
    """The points by ascending x, and how often x went back; a step never does, other metrics and clocks may."""
    if ascending(one.x):
        return one, 0
    backwards = one.x[1:] < one.x[:-1]
    order = np.argsort(one.x, kind="stable")
    return Points(one.x[order], one.y[order], one.without_x), int(np.count_nonzero(backwards))


def _in_unit(known: Sequence[Points], axis: str, options: PlotOptions) -> tuple[list[Points], str]:
    """Relative times in the unit that suits them, and what is written below the axis."""
    if axis != "relative":
        return list(known), AXES.get(axis, axis.removeprefix("metric:"))
    longest = max((float(one.x[-1]) for one in known if len(one.x)), default=0.0)
    fitting = [unit for unit, seconds in X_UNITS.items() if longest >= 2.0 * seconds]
    unit = options.x_unit or (fitting[-1] if fitting else "s")
    return [one._replace(x=one.x / X_UNITS[unit]) for one in known], f"{AXES[axis]} ({UNIT_NAMES[unit]})"


def _span(known: Sequence[Points]) -> float:
    """The chart's range in x: W&B smooths all of its lines by that."""
    xs = [one.x if finite(one.x) else one.x[np.isfinite(one.x)] for one in known]
    ends = [(float(x[0]), float(x[-1])) for x in xs if len(x)]
    return max(high for _, high in ends) - min(low for low, _ in ends) if ends else 0.0


def _curve(one: Points, how: Smoothing, span: float, columns: int | None) -> Curve:
    """A run's points, smoothed: all of them, or what can be seen of that in so many columns."""
    if columns is not None and len(one.x) >= LONG and how.kind in (TIME_WEIGHTED_EMA, "time-weighted"):
        own = how.kind == TIME_WEIGHTED_EMA
        seen = smoothing.time_weighted_ema_seen(
            one.x,
            one.y,
            weight=how.parameter if own else _weight(how),
            viewport_scale=how.viewport,
            span=None if own else span,
            columns=columns,
        )
        if seen is not None:
            return Curve(one.x, one.y, seen[1], one.x[seen[0]])
    return Curve(one.x, one.y, smoothed(one, how, span))


def _weight(how: Smoothing) -> float:
    """W&B's, from what its slider says."""
    return min(math.sqrt(how.parameter), 0.999)


def smoothed(one: Points, how: Smoothing, span: float) -> FloatArray | None:
    """The smoothing of a run's points, in a chart that spans so much in x."""
    x, y = one.x, one.y
    if how.kind is None:
        return None
    if how.kind == ROLLING_MEAN:
        return smoothing.rolling_mean(y, int(how.parameter))
    if how.kind == TIME_WEIGHTED_EMA:
        return smoothing.time_weighted_ema(x, y, weight=how.parameter, viewport_scale=how.viewport)
    if how.kind == "ema":
        return smoothing.ema(y, weight=how.parameter)
    if how.kind == "time-weighted":
        return smoothing.time_weighted_ema(x, y, weight=_weight(how), viewport_scale=how.viewport, span=span)
    if how.kind == "running":
        return windows.running_mean(y, int(how.parameter))
    return windows.gaussian(x, y, sigma=how.parameter / how.viewport * span)
