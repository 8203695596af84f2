"""Series in, a matplotlib Figure out. Nothing here knows of runs, files or smoothing methods.

Every figure is made from four steps: what of each series can be drawn, the scale that holds it, the lines, and the
words around them, for which the room is measured. pyplot is not used: there is no state between two figures.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from matplotlib.typing import LineStyleType

from ..errors import UsageError
from . import frame, scale, style
from .text import drawable

FloatArray = npt.NDArray[np.float64]

RAW_UP_TO = 3  # series; above, their faint raw lines would turn into grey mud


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One line: what was logged and, if asked for, its smoothing (NaN where there is none)."""

    label: str
    x: npt.NDArray[Any]
    y: FloatArray
    smooth: FloatArray | None = None
    x_label: str = "Step"


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A series as it is drawn: gaps are NaN, `raw` is None where only the smoothing is drawn."""

    label: str
    stroke: tuple[str, LineStyleType]
    x: FloatArray
    raw: FloatArray | None
    main: FloatArray

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
    The raw values stand faint behind their smoothing, but only for up to `raw_up_to` series.
    Raises UsageError if no series has a finite value.
    """
    metric = title if metric is None else metric
    strokes = style.strokes(len(series))
    lines, bad, below = [], 0, 0
    for one, stroke in zip(series, strokes, strict=True):
        x = one.x.astype(np.float64)
        wrong = ~(np.abs(one.y) <= scale.LIMIT) | ~np.isfinite(x)
        bad += int(wrong.sum())
        below += int((one.y[~wrong] <= 0.0).sum())
        raw = np.where(wrong, np.nan, one.y)
        if one.smooth is None:
            lines.append(_Line(one.label, stroke, x, None, raw))
        else:
            lines.append(_Line(one.label, stroke, x, raw, np.where(wrong, np.nan, one.smooth)))
    lines = [line for line in lines if np.isfinite(line.main).any()]
    if not lines:
        raise UsageError(f"{metric} has no value that can be drawn")
    logged = scale.Extent.of(line.main if line.raw is None else line.raw for line in lines)
    hidden = len(lines) > raw_up_to and any(line.raw is not None for line in lines)
    if hidden:
        lines = [replace(line, raw=None) for line in lines]
    drawn = scale.Extent.of(values for line in lines for values in (line.main, line.raw) if values is not None)
    axis = scale.choose(metric, logged, drawn)
    if axis.log:
        lines = [replace(line, raw=_positive(line.raw), main=_positive(line.main)) for line in lines]
        lines = [line for line in lines if np.isfinite(line.main).any()]

    notes = [
        subtitle,
        "raw values not shown" if hidden else "",
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
            ends=[frame.End(drawable(line.label), line.last, *line.stroke) for line in lines],
            title=drawable(title),
            subtitle=drawable(" · ".join(note for note in notes if note)),
            x_label=drawable(series[0].x_label),
            y_label=drawable(metric),
            whole_x=all(one.x.dtype.kind in "iu" for one in series if len(one.x)),
            percent=axis.percent,
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


def _draw_line(axes: Axes, line: _Line, *, index: int) -> None:
    colour, dashes = line.stroke
    if line.raw is not None:
        _stroke(axes, line.x, line.raw, f"raw-{index}", colour, "-", width=0.8, alpha=0.22, zorder=2.0)
    _stroke(axes, line.x, line.main, f"line-{index}", colour, dashes, width=1.8, alpha=1.0, zorder=3.0)


def _stroke(
    axes: Axes,
    x: FloatArray,
    y: FloatArray,
    gid: str,
    colour: str,
    dashes: LineStyleType,
    *,
    width: float,
    alpha: float,
    zorder: float,
) -> None:
    """A line, and a dot for each point that has no neighbour to be joined with, for it would leave no trace."""
    axes.plot(x, y, color=colour, linestyle=dashes, linewidth=width, alpha=alpha, zorder=zorder, gid=gid)
    gap = np.isnan(np.concatenate(([np.nan], y, [np.nan])))
    alone = gap[:-2] & gap[2:] & ~gap[1:-1]
    if alone.any():
        axes.plot(
            x[alone],
            y[alone],
            color=colour,
            linestyle="none",
            marker="o",
            markersize=5.0 if alone.sum() == (~gap).sum() == 1 else 2.0 * width,
            markeredgewidth=0.0,
            alpha=alpha,
            zorder=zorder,
            gid=f"{gid}-dots",
        )


def _positive(values: FloatArray | None) -> Any:
    return None if values is None else np.where(values > 0.0, values, np.nan)


def _x_limits(extent: scale.Extent) -> tuple[float, float]:
    if extent.high > extent.low:
        return scale.padded(extent.low, extent.high, padding=0.01)
    room = max(0.5, abs(extent.low) * 1e-3)
    return extent.low - room, extent.high + room
