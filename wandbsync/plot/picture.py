"""One picture from what was loaded: each run smoothed, or all of a group made one, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ..errors import UsageError, WandbsyncError
from . import envelope, groups, smoothing, style, windows
from .figure import Panel, Series, draw_grid, draw_panel
from .names import PlotRun
from .options import ROLLING_MEAN, TIME_WEIGHTED_EMA, X_UNITS, PlotOptions, Smoothing
from .plan import labels as told_apart
from .plan import natural
from .scale import View
from .style import Look
from .text import drawable
from .trace import FloatArray, ascending, finite

LONG = 2_000_000  # points from which a smoothing is not kept as a whole
AXES = {"step": "Step", "sample": "Sample", "time": "Time (UTC)", "relative": "Relative time"}
UNIT_NAMES = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
BAND_NAMES = {"minmax": "min–max", "std": "± std", "sem": "± std. error", "ci": "95 % CI", "iqr": "quartiles"}


class Points(NamedTuple):
    """What a run has of a metric: x, y, and how many values have no x."""

    x: npt.NDArray[Any]
    y: FloatArray
    without_x: int = 0


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is drawn: the runs, what each is called, its place in the colours and the group it is in, if any."""

    runs: tuple[PlotRun, ...]
    labels: tuple[str, ...]
    slots: Mapping[str, int]  # by run, as it prints, or by group
    groups: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        runs: Sequence[PlotRun],
        slots: Mapping[str, int],
        labels: Sequence[str] | None,
        groups: Sequence[str] | None,
    ) -> Subject:
        names = told_apart(runs, shown=drawable, given=labels)
        return cls(tuple(runs), tuple(names), slots, None if groups is None else tuple(groups))


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One metric, ready to be drawn, and what is to be said of it."""

    panel: Panel
    runs: tuple[PlotRun, ...]
    points: tuple[int, ...]
    non_finite: tuple[int, ...]
    skipped: tuple[str, ...]


def look_of(options: PlotOptions) -> Look:
    look = style.LOOKS[options.style]
    if options.size is not None:
        look = replace(look, width=options.size[0], height=options.size[1])
    return look if options.dpi is None else replace(look, dpi=options.dpi)


def prepare(
    metric: str,
    loaded: Sequence[Points | WandbsyncError],
    subject: Subject,
    options: PlotOptions,
    axis: str = "step",
) -> Drawn:
    """What one metric's figure shows. Raises UsageError if no run has a finite value."""
    skipped, drawn = [], []
    known: list[Points] = []
    back = without = 0
    for run, found in zip(subject.runs, loaded, strict=True):
        one = Points(np.empty(0), np.empty(0)) if isinstance(found, WandbsyncError) else found
        one, backwards = _ascending(one)
        bad = 0 if finite(one.y) else int(np.count_nonzero(~np.isfinite(one.y)))
        if isinstance(found, WandbsyncError):
            skipped.append(f"{metric} of {run}: {found.line()}")
        elif len(one.y) > bad:
            drawn.append((run, len(one.y), bad))
            back, without = back + backwards, without + one.without_x
        else:
            skipped.append(f"{metric} of {run}: {'no finite value' if bad else 'no value'}")
        known.append(one)
    if not drawn:
        others = f" (and {len(subject.runs) - 1} more)" if len(subject.runs) > 1 else ""
        raise NothingToDraw(skipped[0] + others, skipped)
    known, x_label = _in_unit(known, axis, options)
    how = options.how()
    span = _span(known)
    if subject.groups is None and (seen := _seen(known, how, span, options)) is not None:
        smooth, places = seen
    else:
        smooth, places = [_smoothed(one, how, span) for one in known], [None] * len(known)
    told = [
        _who(subject, len(drawn)),
        how.text,
        _grouped(subject, options),
        f"x steps back {back} time{'s'[: back > 1]}: sorted" if back else "",
        f"{without} value{'s'[: without > 1]} without {x_label} not drawn" if without else "",
    ]
    if subject.groups is None:
        series = [
            Series(
                *(label, one.x, one.y, line, x_label, run.run_id, subject.slots[str(run)]),
                sorted_x=True,
                smooth_x=place,
            )
            for label, run, one, line, place in zip(subject.labels, subject.runs, known, smooth, places, strict=True)
        ]
    else:
        series = _groups(subject, known, smooth, x_label, options)
    panel = Panel(
        series=series,
        title=metric if options.title is None else options.title,
        subtitle="" if options.title == "" else " · ".join(filter(None, told)),
        metric=metric,
        view=View(options.log_x, options.log_y, options.x_limits, options.y_limits, options.clip_outliers),
        time_x=axis == "time",
        y_unit=options.y_unit,
        key="auto" if subject.groups is None or len(series) > 12 else "above",
    )
    found_in, points, non_finite = zip(*drawn, strict=True)
    return Drawn(panel, found_in, points, non_finite, tuple(skipped))


class NothingToDraw(UsageError):
    """No run has a finite value; `skipped` says why, run by run."""

    def __init__(self, message: str, skipped: Sequence[str]) -> None:
        super().__init__(message)
        self.skipped = tuple(skipped)


def figure_of(
    prepared: Sequence[Drawn], subject: Subject, options: PlotOptions, *, on: Figure | None = None
) -> tuple[Figure, list[str | None]]:
    """One figure of one metric, or a grid of several; and for each why it could not be drawn, or None.

    `on` is the last one, if it is not needed any more: see `draw_panel`.
    """
    look = look_of(options)
    if not options.grid:
        (one,) = prepared
        return draw_panel(one.panel, look=look, full_res=options.full_res, wider=options.size is None, on=on), [None]
    panels = [replace(one.panel, title=one.panel.metric or "") for one in prepared]
    who, how = _who(subject, len(subject.runs)), options.how().text
    return draw_grid(
        panels,
        title=who if options.title is None else options.title,
        subtitle=" · ".join(filter(None, (how, _grouped(subject, options)))),
        look=look,
        size=options.size,
        full_res=options.full_res,
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


def _smoothed(one: Points, how: Smoothing, span: float) -> FloatArray | None:
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
        weight = min(how.parameter**0.5, 0.999)
        return smoothing.time_weighted_ema(x, y, weight=weight, viewport_scale=how.viewport, span=span)
    if how.kind == "running":
        return windows.running_mean(y, int(how.parameter))
    return windows.gaussian(x, y, sigma=how.parameter / how.viewport * span)


def _seen(
    known: Sequence[Points], how: Smoothing, span: float, options: PlotOptions
) -> tuple[list[FloatArray | None], list[npt.NDArray[Any] | None]] | None:
    """Of very long lines the part of the smoothing that a picture shows, and where that is; None if all is needed."""
    whole = options.full_res or options.data or options.log_x or options.x_limits != (None, None)
    if whole or how.kind not in (TIME_WEIGHTED_EMA, "time-weighted") or max(len(one.x) for one in known) < LONG:
        return None
    look = look_of(options)
    own = how.kind == TIME_WEIGHTED_EMA
    weight = how.parameter if own else min(how.parameter**0.5, 0.999)
    smooth: list[FloatArray | None] = []
    places: list[npt.NDArray[Any] | None] = []
    for one in known:
        seen = smoothing.time_weighted_ema_seen(
            one.x,
            one.y,
            weight=weight,
            viewport_scale=how.viewport,
            span=None if own else span,
            columns=int(look.width * look.dpi * envelope.COLUMNS),
        )
        smooth.append(_smoothed(one, how, span) if seen is None else seen[1])
        places.append(None if seen is None else one.x[seen[0]])
    return smooth, places


def _groups(
    subject: Subject,
    known: Sequence[Points],
    smooth: Sequence[FloatArray | None],
    x_label: str,
    options: PlotOptions,
) -> list[Series]:
    assert subject.groups is not None
    bands = [band for band in options.bands if band != "none"]
    series = []
    for name in sorted(set(subject.groups), key=natural):
        of = [i for i, group in enumerate(subject.groups) if group == name]
        members = [(known[i].x, known[i].y if smooth[i] is None else smooth[i]) for i in of]
        counted = [(x, y) for x, y in members if y is not None and np.isfinite(y).any()]
        group = groups.combine(counted, line=options.line, bands=bands)
        label = f"{drawable(name)} (n={len(counted)})"
        slot = subject.slots[name]
        series.append(Series(label, group.x, group.line, None, x_label, "", slot, group.bands, sorted_x=True))
    return series


def _who(subject: Subject, drawn: int) -> str:
    count = len(subject.runs)
    if count == 1:
        return subject.labels[0]
    return f"{count} runs" if drawn == count else f"{drawn} of {count} runs"


def _grouped(subject: Subject, options: PlotOptions) -> str:
    """What line and bands are, where runs are grouped."""
    if subject.groups is None:
        return ""
    shades = (" (dark)", " (light)") if len(options.bands) > 1 else ("",)
    bands = [BAND_NAMES[b] + shade for b, shade in zip(options.bands, shades, strict=False) if b != "none"]
    return ", ".join([f"{options.line} by {', '.join(options.group_by) or 'group'}", *bands])
