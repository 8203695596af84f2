"""What a figure's lines show, run by run: what was loaded, in ascending x, in its unit, and smoothed.

Needs numpy alone, so that it is done while what draws is imported, or while another picture is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UsageError, WandbsyncError
from .names import PlotRun
from .options import X_UNITS, PlotOptions
from .plan import Overlay
from .stats.smoothing import AS_LOGGED, Chart, Smoothing
from .trace import FloatArray, ascending, finite

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
    line: str  # what is drawn of them


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
    how = options.how()
    chart = Chart(_span(known), how.viewport, options.x_limits, options.log_x, columns or 0)
    if options.full_res or options.data:
        chart = chart._replace(columns=0)
    each = tuple(_curve(one, how, chart) for one in known)
    return Curves(
        overlay.name,
        overlay.metrics,
        tuple(of),
        each,
        x_label,
        tuple(points),
        tuple(points.values()),
        tuple(bad.values()),
        reasons,
        back,
        without,
        _line(how, [one for one, (run, _) in zip(each, of, strict=True) if run in points and len(one.y)]),
    )


def _line(how: Smoothing, drawn: Sequence[Curve]) -> str:
    """What a figure says of its lines."""
    logged = sum(one.smooth is None for one in drawn)
    if logged == len(drawn):
        return AS_LOGGED
    return how.text + (f", {logged} of {len(drawn)} runs {AS_LOGGED}" if logged else "")


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


def _curve(one: Points, how: Smoothing, chart: Chart) -> Curve:
    """A run's points, smoothed: all of them, or what can be seen of that."""
    if chart.columns and how.method.seen is not None and len(one.x):
        seen = how.method.seen(one.x, one.y, how.parameter, chart)
        if seen is not None:
            return Curve(one.x, one.y, seen.y, seen.x)
    return Curve(one.x, one.y, how.method.line(one.x, one.y, how.parameter, chart))
