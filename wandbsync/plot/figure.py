"""Series in, a matplotlib Figure out. Nothing here knows of runs, files or smoothing methods.

Every figure is made from four steps: what of each series can be drawn, the scale that holds it, the lines, and the
words around them, for which the room is measured. pyplot is not used: there is no state between two figures.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ..errors import UsageError
from . import frame, scale, style
from .text import drawable

FloatArray = npt.NDArray[np.float64]

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


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A series as it is drawn: gaps are NaN, `raw` and `dots` are None where only the smoothing is drawn."""

    label: str
    run_id: str
    stroke: style.Stroke
    x: FloatArray
    raw: FloatArray | None
    dots: FloatArray | None
    main: FloatArray

    def each(self, change: Callable[[FloatArray], FloatArray]) -> _Line:
        """The line with all its values changed."""
        raw, dots = (None if values is None else change(values) for values in (self.raw, self.dots))
        return replace(self, raw=raw, dots=dots, main=change(self.main))

    @property
    def last(self) -> float:
        known = np.flatnonzero(np.isfinite(self.main))
        return float(self.main[known[-1]]) if len(known) else math.nan


def draw(
    series: Sequence[Series], *, title: str, subtitle: str = "", metric: str | None = None, raw_up_to: int = RAW_UP_TO
) -> Figure:
    """A figure of one metric with all its series; `metric` (the title, if not given) decides the kind of y axis.

    Values that are not finite are gaps, as are values <= 0 on a logarithmic axis, and the subtitle counts them.
    A series without a value is left out, but keeps its colour: a run has the same one in every figure of a comparison.
    The raw values stand faint behind their smoothing, but only for up to `raw_up_to` series, or where they are few.
    Raises UsageError if no series has a finite value.
    """
    metric = title if metric is None else metric
    strokes = style.strokes(len(series))
    lines, bad, below = [], 0, 0
    for one, stroke in zip(series, strokes, strict=True):
        x = one.x.astype(np.float64)
        wrong = ~(np.isfinite(one.y) & np.isfinite(x))
        bad += int(wrong.sum())
        below += int((one.y[~wrong] <= 0.0).sum())
        raw = np.where(wrong, np.nan, one.y)
        line = _Line(one.label, one.run_id, stroke, x, None, None, raw)
        if one.smooth is not None:
            few = np.count_nonzero(~wrong) <= SPARSE
            line = replace(line, raw=raw, dots=raw if few else None, main=np.where(wrong, np.nan, one.smooth))
        lines.append(line)
    lines = [line for line in lines if np.isfinite(line.main).any()]
    if not lines:
        raise UsageError(f"{metric} has no value that can be drawn")
    logged = scale.Extent.of(line.main if line.raw is None else line.raw for line in lines)
    lines, hidden = _without_mud(lines, raw_up_to)
    drawn = scale.Extent.of(
        values for line in lines for values in (line.main, line.raw, line.dots) if values is not None
    )
    axis = scale.choose(metric, logged, drawn)
    if axis.log:
        lines = [line.each(lambda values: np.where(values > 0.0, values, np.nan)) for line in lines]
        lines = [line for line in lines if np.isfinite(line.main).any()]
    elif axis.power:
        lines = [line.each(lambda values: scale.in_units(values, axis.power)) for line in lines]
    alike = Counter(line.stroke for line in lines)
    doubles = sum(count for count in alike.values() if count > 1)

    notes = [
        subtitle,
        f"raw values{f' of {hidden} lines' if hidden < len(lines) else ''} not shown" if hidden else "",
        f"{doubles} lines look like another one" if doubles else "",
        f"{bad} non-finite value{'s'[: bad > 1]} not drawn" if bad else "",
        f"{below} value{'s'[: below > 1]} ≤ 0 not drawn" if below and axis.log else "",
    ]
    with style.own_settings():
        figure = Figure(figsize=(frame.width(len(lines)), style.HEIGHT), dpi=style.DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8), autoscale_on=False)
        axes.set_xlim(*_x_limits(scale.Extent.of(line.x[np.isfinite(line.main)] for line in lines)))
        axes.set_yscale("log" if axis.log else "linear")
        axes.set_ylim(axis.low, axis.high)
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_axisbelow(True)
        axes.grid(True, which="major")
        for index, line in enumerate(lines):
            _draw_line(axes, line, index=index)
        frame.fit(
            figure,
            axes,
            ends=[frame.End(drawable(line.label), line.run_id, line.last, line.stroke) for line in lines],
            title=drawable(title),
            subtitle=drawable(" · ".join(note for note in notes if note)),
            x_label=drawable(series[0].x_label),
            y_label=drawable(metric),
            whole_x=all(one.x.dtype.kind in "iu" for one in series if len(one.x)),
            axis=axis,
        )
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file without time stamps: the same figure gives the same bytes."""
    out = io.BytesIO()
    canvas: Any = figure.canvas
    with style.own_settings():
        try:
            canvas.print_png(out, metadata={"Software": None})
        except OverflowError:  # more path than Agg can hold at once; in pieces it can, but their ends show
            mpl.rcParams["agg.path.chunksize"] = 1_000
            canvas.print_png(out, metadata={"Software": None})
    return out.getvalue()


def _without_mud(lines: Sequence[_Line], raw_up_to: int) -> tuple[list[_Line], int]:
    """The lines without the raw values that are too many to be shown, and from how many lines these were taken."""
    if len(lines) > raw_up_to:
        few = len(lines) <= DOTS_UP_TO
        thinned = [replace(line, raw=None, dots=line.dots if few else None) for line in lines]
        return thinned, sum(a.raw is not None and b.dots is None for a, b in zip(lines, thinned, strict=True))
    return list(lines), 0


def _draw_line(axes: Axes, line: _Line, *, index: int) -> None:
    faint = style.Stroke(line.stroke.colour, "-", 0.8)
    if line.raw is not None:
        _stroke(axes, line.x, line.raw, f"raw-{index}", faint, alpha=0.22, zorder=2.0)
    if line.dots is not None:
        _dots(axes, line.x, line.dots, f"dots-{index}", faint, size=3.5, alpha=0.4, zorder=2.0)
    _stroke(axes, line.x, line.main, f"line-{index}", line.stroke, alpha=1.0, zorder=3.0)


def _stroke(
    axes: Axes, x: FloatArray, y: FloatArray, gid: str, stroke: style.Stroke, *, alpha: float, zorder: float
) -> None:
    """A line, and a dot for each point that has no neighbour to be joined with, for it would leave no trace."""
    axes.plot(
        x,
        y,
        color=stroke.colour,
        linestyle=stroke.dashes,
        linewidth=stroke.width,
        alpha=alpha,
        zorder=zorder,
        gid=gid,
    )
    gap = np.isnan(np.concatenate(([np.nan], y, [np.nan])))
    alone = gap[:-2] & gap[2:] & ~gap[1:-1]
    if alone.any():
        size = 5.0 if alone.sum() == (~gap).sum() == 1 else 2.0 * stroke.width
        _dots(axes, x[alone], y[alone], f"{gid}-dots", stroke, size=size, alpha=alpha, zorder=zorder)


def _dots(
    axes: Axes,
    x: FloatArray,
    y: FloatArray,
    gid: str,
    stroke: style.Stroke,
    *,
    size: float,
    alpha: float,
    zorder: float,
) -> None:
    axes.plot(
        x,
        y,
        color=stroke.colour,
        linestyle="none",
        marker="o",
        markersize=size,
        markeredgewidth=0.0,
        alpha=alpha,
        zorder=zorder,
        gid=gid,
    )


def _x_limits(extent: scale.Extent) -> tuple[float, float]:
    if extent.high > extent.low:
        return scale.padded(extent.low, extent.high, padding=0.01)
    room = max(0.5, abs(extent.low) * 1e-3)
    return extent.low - room, extent.high + room
