"""Series in, a matplotlib Figure out. Nothing here knows of runs, files or smoothing methods.

Every panel of a figure is made from four steps: what of each series can be drawn, the scale that holds it, the words
around it, for which the room is measured, and the lines. pyplot is not used: there is no state between two figures.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import UsageError
from . import envelope, frame, grid, key, png, scale, style
from .frame import Words
from .key import End
from .measure import UNITS
from .pen import Line, Pen
from .scale import Scale, View
from .style import Look
from .text import drawable
from .trace import FloatArray, Trace

RAW_UP_TO = 3  # series; above, their faint raw lines would turn into grey mud
SPARSE = 100  # points; up to so many are shown as dots: a smoothing of so few may be far from all of them
DOTS_UP_TO = 30  # series; of more, not even the dots can be told apart


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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Panel:
    """One pair of axes: a metric with all its series. `metric` (the title, if not given) decides the kind of y axis."""

    series: Sequence[Series]
    title: str
    subtitle: str = ""
    metric: str | None = None
    view: View = field(default_factory=View)
    time_x: bool = False  # x is unix seconds
    y_unit: str = ""
    key: str = "auto"  # see frame.Words
    raw_up_to: int = RAW_UP_TO


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A panel of which all is decided but where on the page it stands."""

    panel: Panel
    lines: list[Line]
    axis: Scale
    x: tuple[float, float]
    notes: list[str]


def draw(
    series: Sequence[Series],
    *,
    title: str,
    subtitle: str = "",
    metric: str | None = None,
    raw_up_to: int = RAW_UP_TO,
    view: View | None = None,
    look: Look = style.LOOKS["screen"],
    full_res: bool = False,
    **more: Any,
) -> Figure:
    """A figure of one metric with all its series: a `Panel` on a page of its own.

    Values that are not finite are gaps, as are values <= 0 on a logarithmic axis, and the subtitle counts them.
    A series without a value is left out, but keeps its colour: a run has the same one in every figure of a comparison.
    The raw values stand faint behind their smoothing, but only for up to `raw_up_to` series, or where they are few.
    Raises UsageError if no series has a finite value.
    """
    return draw_panel(
        Panel(
            series=series,
            title=title,
            subtitle=subtitle,
            metric=metric,
            view=view or View(),
            raw_up_to=raw_up_to,
            **more,
        ),
        look=look,
        full_res=full_res,
    )


def draw_panel(
    panel: Panel,
    *,
    look: Look = style.LOOKS["screen"],
    full_res: bool = False,
    wider: bool = True,
    on: Figure | None = None,
) -> Figure:
    """A figure of one panel; `wider` for a long list of lines beside it. Errors as `draw`.

    `on` is a figure made by this function, of the same look, that is no longer needed: it is wiped and used again, for
    new axes with their ticks cost a quarter of a figure's time. The picture is the same to the last bit.
    """
    ready = _ready(panel, look)
    with style.own_settings(look):
        more = key.beside_width(len(ready.lines), look) if wider and panel.key == "auto" else 0.0
        if on is None:
            on = _page(look, look.width + more, look.height)
        else:
            _wipe(on, look.width + more, look.height)
        placed, box = _placed(on, ready), frame.page(on)
        placed.draw(on, box, look, placed.sides(box, look), full_res=full_res)
    return on


def _wipe(figure: Figure, width: float, height: float) -> None:
    """Take away all but the axes and their ticks."""
    (axes,) = figure.axes
    for artist in [*axes.lines, *axes.patches, *axes.collections, *figure.texts, *figure.artists, *figure.legends]:
        artist.remove()
    axes.set_yticks([], minor=True)
    axes.set_xticks([], minor=True)
    if tuple(figure.get_size_inches()) != (width, height):
        figure.set_size_inches(width, height)


def draw_grid(
    panels: Sequence[Panel],
    *,
    title: str,
    subtitle: str = "",
    look: Look = style.LOOKS["screen"],
    size: tuple[float, float] | None = None,
    full_res: bool = False,
) -> tuple[Figure, list[str | None]]:
    """A figure of several metrics, one panel each, with one list of the lines above them.

    Gives for each panel the reason why it is empty, or None. Raises UsageError if all are.
    """
    look = look if size is None else grid.look_within(size, len(panels), look)
    ready: list[_Ready] = []
    reasons: list[str | None] = []
    for panel in panels:
        try:
            ready.append(_ready(replace(panel, key="none"), look))
            reasons.append(None)
        except UsageError as error:  # noqa: PERF203
            reasons.append(error.line())
    if not ready:
        raise UsageError(next(reason for reason in reasons if reason))
    with style.own_settings(look):
        ends = {line.label: line for one in ready for line in one.lines}
        shown = [End(drawable(line.label), line.run_id, 0.0, "", line.stroke) for line in ends.values()]
        shown = shown if len(shown) > 1 else []
        figure = _page(look, *(size or grid.page_size(len(ready), shown, look)))
        boxes = grid.place(figure, len(ready), shown, look, title=title, subtitle=subtitle)
        placed = [_placed(figure, one, small=True) for one in ready]
        rooms = grid.in_line([one.sides(box, look) for one, box in zip(placed, boxes, strict=True)])
        for drawn, box, room in zip(placed, boxes, rooms, strict=True):
            drawn.draw(figure, box, look, room, full_res=full_res)
    return figure, reasons


def _page(look: Look, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=look.dpi)
    FigureCanvasAgg(figure)
    return figure


def _ready(panel: Panel, look: Look) -> _Ready:
    metric = panel.title if panel.metric is None else panel.metric
    slots = [i if one.slot is None else one.slot for i, one in enumerate(panel.series)]
    lines, bad, left = [], 0, 0
    for one, stroke in zip(panel.series, style.strokes(slots, look), strict=True):
        raw = Trace.of(one.x, one.y, sorted_x=one.sorted_x)
        bad += len(one.y) - len(raw)
        if panel.view.log_x:
            raw, whole = raw.only(raw.x > 0), len(raw)
            left += whole - len(raw)
        line = Line(one.label, one.run_id, stroke, None, None, raw)
        if one.smooth is not None:
            main = Trace.of(one.x if one.smooth_x is None else one.smooth_x, one.smooth, sorted_x=one.sorted_x)
            main = main.only(main.x > 0) if panel.view.log_x else main
            line = replace(line, raw=raw, dots=raw if len(raw) <= SPARSE else None, main=main)
        elif one.bands:
            line = replace(line, bands=tuple(_band(one.x, low, high, panel.view.log_x) for low, high in one.bands))
        lines.append(line)
    lines = [line for line in lines if len(line.main)]
    if not lines:
        raise UsageError(f"{metric} has no value that can be drawn")
    x, beyond = scale.x_limits(scale.Extent.of(line.main.x for line in lines), panel.view), 0
    if panel.view.x != (None, None):
        seen = [line for line in lines if line.main.x[0] <= x[1] and line.main.x[-1] >= x[0]]
        beyond = len(lines) - len(seen)
        lines = [line.each(lambda trace: trace.between(*x)) for line in seen]
        if not lines:
            raise UsageError(f"{metric} has no value from {x[0]:g} to {x[1]:g}", hint="choose another --xlim")
    deep = bool(panel.view.log_y)
    logged = scale.Extent.of(((line.main if line.raw is None else line.raw).y for line in lines), positive_too=deep)
    below = sum(int((_values(line).y <= 0.0).sum()) for line in lines) if logged.low <= 0.0 else 0
    lines, hidden = _without_mud(lines, panel.raw_up_to)
    drawn = [trace.y for line in lines for trace in line.drawn()]
    within = scale.inliers(drawn) if panel.view.clip_outliers else scale.Extent.of(drawn, positive_too=deep)
    if deep and not panel.view.clip_outliers and any(line.bands for line in lines):
        within = replace(within, positive=_least_above_zero(lines))
    axis = scale.choose(metric, logged, within, panel.view)
    if axis.log:
        lines = [replace(line, bands=tuple(_above_zero(*band, axis.low) for band in line.bands)) for line in lines]
        lines = [line.each(lambda trace: trace.only(trace.y > 0.0)) for line in lines]
        lines = [line for line in lines if len(line.main)]
    elif axis.power:
        lines = [line.each(lambda trace: trace.changed(y=lambda y: scale.in_units(y, axis.power))) for line in lines]
    outside = _outside(lines, axis) if panel.view.clip_outliers or panel.view.y != (None, None) else 0
    alike = Counter(line.stroke for line in lines)
    doubles = sum(count for count in alike.values() if count > 1)
    of = f" of {hidden} line{'s'[: hidden > 1]}" if hidden < len(lines) else ""
    notes = [
        f"raw values{of} not shown" if hidden else "",
        f"{doubles} lines look like another one" if doubles else "",
        f"{bad} non-finite value{'s'[: bad > 1]} not drawn" if bad else "",
        f"{left} value{'s'[: left > 1]} at x ≤ 0 not drawn" if left else "",
        f"{beyond} line{'s'[: beyond > 1]} not within this x" if beyond else "",
        f"{below} value{'s'[: below > 1]} ≤ 0 not drawn" if below and axis.log else "",
        f"{outside} value{'s'[: outside > 1]} beyond the axis" if outside else "",
    ]
    return _Ready(panel, lines, axis, x, [note for note in notes if note])


def _band(x: npt.NDArray[Any], low: FloatArray, high: FloatArray, log_x: bool) -> tuple[Trace, Trace]:
    """The edges of a band where it has both."""
    both = np.isfinite(low) & np.isfinite(high) & ((x > 0) if log_x else True)
    return Trace.of(x, np.where(both, low, np.nan)), Trace.of(x, np.where(both, high, np.nan))


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
    """The values of a line that are drawn, smoothed only if no others are."""
    return next(trace for trace in (line.raw, line.dots, line.main) if trace is not None)


def _outside(lines: Sequence[Line], axis: Scale) -> int:
    return sum(int(((y < axis.low) | (y > axis.high)).sum()) for y in (_values(line).y for line in lines))


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """A panel with its axes, which have limits, and with what is written around them."""

    ready: _Ready
    axes: Axes
    words: Words
    ends: list[End]

    def sides(self, box: frame.Box, look: Look) -> tuple[float, float]:
        return frame.sides(self.axes, box, look, words=self.words, ends=self.ends, axis=self.ready.axis)

    def draw(self, figure: Figure, box: frame.Box, look: Look, room: tuple[float, float], *, full_res: bool) -> None:
        panel, axis = self.ready.panel, self.ready.axis
        size = frame.fit(figure, self.axes, box, look, words=self.words, ends=self.ends, axis=axis, room=room)
        pixels = (size[0] * look.dpi / UNITS, size[1] * look.dpi / UNITS)
        window = envelope.Window(self.ready.x, (axis.low, axis.high), pixels, panel.view.log_x, axis.log)
        pen = Pen(self.axes, window, look, full_res)
        for index, line in enumerate(self.ready.lines):
            pen.line(line, index)


def _placed(figure: Figure, ready: _Ready, *, small: bool = False) -> _Placed:
    panel, axis = ready.panel, ready.axis
    axes = figure.axes[0] if figure.axes and not small else figure.add_axes((0.1, 0.1, 0.8, 0.8), autoscale_on=False)
    for log, set_scale, now in (
        (panel.view.log_x, axes.set_xscale, axes.get_xscale()),
        (axis.log, axes.set_yscale, axes.get_yscale()),
    ):
        if now != ("log" if log else "linear"):
            set_scale("log" if log else "linear")
    axes.set_xlim(*ready.x)
    axes.set_ylim(axis.low, axis.high)
    axes.set_axisbelow(True)
    axes.grid(True, which="major")
    unit = f" ({panel.y_unit})" if panel.y_unit else ""
    metric = panel.title if panel.metric is None else panel.metric
    words = Words(
        title=drawable(panel.title + unit if small and panel.title else panel.title),  # which has no other name
        subtitle=drawable(" · ".join(note for note in (panel.subtitle, *ready.notes) if note)),
        x_label=drawable(panel.series[0].x_label),
        y_label=drawable(metric + unit),
        whole_x=all(one.x.dtype.kind in "iu" for one in panel.series if len(one.x)),
        time_x=panel.time_x,
        key=panel.key,
        small=small,
    )
    ends = [
        End(drawable(line.label), line.run_id, line.main.last, frame.last_text(line.main.last, axis), line.stroke)
        for line in ready.lines
    ]
    return _Placed(ready, axes, words, ends)


def written(figure: Figure, form: str = "png", look: Look = style.LOOKS["screen"]) -> bytes:
    """The figure as a file: png, svg or pdf; without time stamps."""
    return developed(figure, form, look)()


def developed(figure: Figure, form: str = "png", look: Look = style.LOOKS["screen"]) -> Callable[[], bytes]:
    """The figure drawn, and what makes a file of it: that does not need the figure, nor Python for long."""
    canvas: Any = figure.canvas
    with style.own_settings(look):
        if form != "png":
            out = io.BytesIO()
            figure.savefig(out, format=form, metadata={"Date" if form == "svg" else "CreationDate": None})
            return out.getvalue
        try:
            canvas.draw()
        except OverflowError:  # more path than Agg can hold at once; in pieces it can, but their ends show
            with mpl.rc_context({"agg.path.chunksize": 1_000}):
                canvas.draw()
        rows, size, dpi = png.rows(np.asarray(canvas.buffer_rgba())), canvas.get_width_height(), figure.dpi
        return lambda: png.encoded(rows, size, dpi)


def _without_mud(lines: Sequence[Line], raw_up_to: int) -> tuple[list[Line], int]:
    """The lines without the raw values that are too many to be shown, and from how many lines these were taken."""
    if len(lines) > raw_up_to:
        few = len(lines) <= DOTS_UP_TO
        thinned = [replace(line, raw=None, dots=line.dots if few else None) for line in lines]
        return thinned, sum(a.raw is not None and b.dots is None for a, b in zip(lines, thinned, strict=True))
    return list(lines), 0


__all__ = ["Panel", "Series", "developed", "draw", "draw_grid", "draw_panel", "written"]
