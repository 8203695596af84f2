"""One pair of axes before it has a place on a page: what of its series can be drawn, and the scale that holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from . import outliers, scale, style
from .pen import Line
from .scale import Scale, View
from .style import Look, Stroke
from .ticks import value_text
from .trace import FloatArray, Trace

# What a line is among the others: itself, where it is less than it was (fewer runs of a group), or one of many behind.
LINE, TAIL, CONTEXT = "line", "tail", "context"
SPARSE = 100  # points; where no line that is smoothed has more, all are shown as dots


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One line: what was logged and, if asked for, its smoothing (NaN where there is none)."""

    label: str
    x: npt.NDArray[Any]
    y: FloatArray
    smooth: FloatArray | None = None
    x_label: str = "Step"
    run_id: str = ""  # stands beside the label if that has to be shortened and then looks like another's
    slot: int | None = None  # its place in the colours; None: the next one
    bands: tuple[tuple[FloatArray, FloatArray], ...] = ()  # areas around it, the innermost first: low and high
    sorted_x: bool = False  # x is known to ascend
    smooth_x: npt.NDArray[Any] | None = None  # where the smoothing is; None: at x
    smoothed: bool = False  # y itself is one, as of a group of smoothed runs
    note: str = ""  # said behind the label, however that is shortened
    named: bool = True
    role: str = LINE
    count: npt.NDArray[Any] | None = None  # how many runs it is of, at each place


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Panel:
    """One pair of axes: a metric with all its series. `metric` (the title, if not given) decides the kind of y axis."""

    series: Sequence[Series]
    title: str
    subtitle: str = ""
    notes: Sequence[str] = ()  # what is to be said of its values; in a grid too, where there is no subtitle
    metric: str | None = None
    view: View = field(default_factory=View)
    time_x: bool = False  # x is unix seconds
    y_unit: str = ""
    y_label: str = ""  # instead of the metric's name
    divisor: float = 1.0  # of the values, for the unit
    scale: Scale | None = None  # of y, if it is decided
    key: str = "auto"  # see frame.Words


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A panel of which all is decided but where on the page it stands."""

    panel: Panel
    lines: list[Line]
    axis: Scale
    x: tuple[float, float]
    notes: list[str]


def made_ready(panel: Panel, look: Look) -> Ready:
    """What of each series can be drawn, and on which axes. Raises UsageError if nothing can be."""
    metric = panel.title if panel.metric is None else panel.metric
    lines, bad, left = [], 0, 0
    for one, stroke in zip(panel.series, _strokes(panel.series, look), strict=True):
        raw = _broken(Trace.of(one.x, one.y, sorted_x=one.sorted_x), one)
        bad += 0 if one.count is not None else len(one.y) - len(raw)
        if panel.view.log_x:
            raw, whole = raw.only(raw.x > 0), len(raw)
            left += whole - len(raw)
        line = Line(one.label, one.run_id, stroke, None, None, raw, raw.last, note=one.note, smoothed=one.smoothed)
        line = replace(line, named=one.named and one.role == LINE)
        if one.smooth is not None:
            main = Trace.of(one.x if one.smooth_x is None else one.smooth_x, one.smooth, sorted_x=one.sorted_x)
            main = main.only(main.x > 0) if panel.view.log_x else main
            line = replace(line, raw=raw if one.role == LINE else None, main=main)
        elif one.bands:
            line = replace(line, bands=tuple(_band(one, low, high, panel.view.log_x) for low, high in one.bands))
        lines.append(line)
    if panel.divisor != 1.0:
        lines = [
            replace(line, last=line.last / panel.divisor).each(
                lambda trace: trace.changed(y=lambda y: y / panel.divisor)
            )
            for line in lines
        ]
    lines = [line for line in lines if len(line.main)]
    if not lines:
        raise UsageError(f"{metric} has no value that can be drawn")
    if all(line.raw is None or len(line.raw) <= SPARSE for line in lines):
        lines = [replace(line, raw=None, dots=line.raw) for line in lines]
    x, beyond = scale.x_limits(scale.Extent.of(line.main.x for line in lines), panel.view), 0
    if panel.view.x != (None, None):
        seen = [line for line in lines if line.main.x[0] <= x[1] and line.main.x[-1] >= x[0]]
        beyond = len(lines) - len(seen)
        lines = [replace(line, last=_values(line).up_to(x[1])).each(lambda trace: trace.between(*x)) for line in seen]
        if not lines:
            raise UsageError(f"{metric} has no value from {x[0]:g} to {x[1]:g}", hint="choose another --xlim")
    deep = bool(panel.view.log_y)
    values = [_values(line).y for line in lines]
    logged = scale.Extent.of(values, positive_too=deep)
    below = sum(int((y <= 0.0).sum()) for y in values) if logged.low <= 0.0 else 0
    drawn = [trace.y for line in lines for trace in line.drawn()]
    clip = panel.view.clip_outliers
    within = scale.inliers(drawn) if clip else scale.Extent.of(drawn, positive_too=deep)
    if deep and not clip and any(line.bands for line in lines):
        within = replace(within, positive=_least_above_zero(lines))
    given = panel.scale
    axis = given or scale.choose(metric, logged, within, panel.view, skewed=lambda: outliers.skewed(values, logged))
    if clip is None and not axis.percent and given is None:
        most = outliers.without_few(drawn, within, [line.last for line in lines], log=axis.log)
        if most is not within:
            within, clip = most, True
            axis = scale.choose(metric, logged, within, replace(panel.view, log_y=axis.log))
    if axis.log:
        lines = [replace(line, bands=tuple(_above_zero(*band, axis.low) for band in line.bands)) for line in lines]
        lines = [line.each(lambda trace: trace.only(trace.y > 0.0)) for line in lines]
        lines = [line for line in lines if len(line.main)]
    elif axis.power:
        lines = [line.each(lambda trace: trace.changed(y=lambda y: scale.in_units(y, axis.power))) for line in lines]
        lines = [replace(line, last=scale.in_units(line.last, axis.power)) for line in lines]
    outside = _outside(lines, axis) if clip or given or panel.view.y != (None, None) else ""
    alike = Counter(line.stroke for line in lines if line.named)
    doubles = sum(count for count in alike.values() if count > 1)
    notes = [
        *panel.notes,
        outside,
        "≈ smoothed" if panel.key != "above" and any(line.smoothed for line in lines) else "",
        f"{doubles} lines look like another one" if doubles else "",
        f"{bad} non-finite value{'s'[: bad > 1]} not drawn" if bad else "",
        f"{left} value{'s'[: left > 1]} at x ≤ 0 not drawn" if left else "",
        f"{beyond} line{'s'[: beyond > 1]} not within this x" if beyond else "",
        f"{below} value{'s'[: below > 1]} ≤ 0 not drawn" if below and axis.log else "",
    ]
    return Ready(panel, lines, axis, x, [note for note in notes if note])


def _strokes(series: Sequence[Series], look: Look) -> list[Stroke]:
    """A stroke for each line; only those that stand for themselves have to be told apart."""
    own = [i for i, one in enumerate(series) if one.role == LINE and one.named]
    slots = [i if series[i].slot is None else series[i].slot for i in own]
    found = dict(zip(own, style.strokes([slot for slot in slots if slot is not None], look), strict=True))
    before = Stroke(look.grey)
    strokes = []
    for i, one in enumerate(series):
        before = found.get(i) or (style.unnamed(one.slot or 0, look) if one.role == LINE else before)
        strokes.append({LINE: before, TAIL: style.tail(before), CONTEXT: style.context(look)}[one.role])
    return strokes


def _broken(trace: Trace, one: Series) -> Trace:
    """The line of a group, which nothing joins where the number of runs changes."""
    if one.role != TAIL or one.count is None:
        return trace
    count = one.count[np.isfinite(one.y) & np.isfinite(one.x)]
    return replace(trace, breaks=np.union1d(trace.breaks, np.flatnonzero(np.diff(count)) + 1).astype(np.intp))


def _band(one: Series, low: FloatArray, high: FloatArray, log_x: bool) -> tuple[Trace, Trace]:
    """The edges of a band where it has both."""
    both = np.isfinite(low) & np.isfinite(high) & ((one.x > 0) if log_x else True)
    return Trace.of(one.x, np.where(both, low, np.nan)), Trace.of(one.x, np.where(both, high, np.nan))


def _above_zero(low: Trace, high: Trace, bottom: float) -> tuple[Trace, Trace]:
    """A band on a logarithmic axis: where it goes on below 0, down to the bottom."""
    there = high.y > 0.0
    return low.only(there).changed(y=lambda y: np.maximum(y, bottom)), high.only(there)


def _least_above_zero(lines: Sequence[Line]) -> float:
    """The smallest positive value, where a band that goes on below 0 asks for nothing: all the way down is far."""
    within = [
        replace(line, bands=tuple((low, high) for low, high in line.bands if len(low) and low.y.min() > 0.0))
        for line in lines
    ]
    drawn = [trace.y for line in within for trace in line.drawn()]
    return scale.Extent.of(drawn, positive_too=True).positive


def _values(line: Line) -> Trace:
    """The values of a line that were logged."""
    return next(trace for trace in (line.raw, line.dots, line.main) if trace is not None)


def _outside(lines: Sequence[Line], axis: Scale) -> str:
    """How many values are above and below the axis, how far they go, and whether lines end there."""
    values = [_values(line).y for line in lines]
    said = []
    for side, beyond, furthest, ends in (
        ("above", [y[y > axis.high] for y in values], max, [line for line in lines if line.last > axis.high]),
        ("below", [y[y < axis.low] for y in values], min, [line for line in lines if line.last < axis.low]),
    ):
        count = sum(map(len, beyond))
        if count:
            most = furthest(float(furthest(y)) for y in beyond if len(y))
            ending = f", where {len(ends)} line{'s end' if len(ends) > 1 else ' ends'}" if ends else ""
            text = value_text(most, power=axis.power)
            said.append(f"{count:,} point{'s'[: count > 1]} {side} (to {text}){ending}")
    return ", ".join(said)
