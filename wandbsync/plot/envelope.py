"""Lines of any number of points, as the area their ink covers: one polygon, made from every point.

A stroke with round joins is all that a disk covers as it moves along the line. Seen in narrow columns, of which a pixel
has six, the line is in each column between a lowest and a highest place: of the points in it, and of where it crosses
the edges. Those columns grown by the disk are the ink. That costs one pass over the points and the same few
milliseconds of drawing whether there are ten thousand of them or ten million, and is nearer to what the line is than a
stroke: where that crosses a pixel a hundred times its ink adds up. A line that goes smoothly from column to column is
nearest to itself if it is stroked, through the points that show. (tests/test_fidelity.py measures all of this.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.path import Path

from .trace import FloatArray, Trace

FROM = 1_500  # points; fewer are stroked
FAR = 1e9  # heights of the axes
COLUMNS = 6  # per pixel
TURN = 0.2  # pixels that a line may go there and back in a column, and still count as smooth
ROUGH = 0.1  # of the columns may be rough in a line that is stroked


@dataclass(frozen=True, slots=True)
class Window:
    """The axes: limits, whether logarithmic, and size in pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    size: tuple[float, float]
    log_x: bool = False
    log_y: bool = False

    def across(self, x: npt.NDArray[np.float64]) -> FloatArray:
        """Pixels from the left edge."""
        return _place(x, *self.x, log=self.log_x) * self.size[0]

    def up(self, y: FloatArray) -> FloatArray:
        """Pixels from the lower edge; what is too far outside for a float is a little nearer."""
        return np.clip(_place(y, *self.y, log=self.log_y), -FAR, FAR) * self.size[1]

    def x_at(self, pixels: FloatArray) -> FloatArray:
        return _value(pixels / self.size[0], *self.x, log=self.log_x)

    def y_at(self, pixels: FloatArray) -> FloatArray:
        return _value(np.clip(pixels / self.size[1], -1.0, 2.0), *self.y, log=self.log_y)


def _place(values: FloatArray, low: float, high: float, *, log: bool) -> FloatArray:
    if log:
        values, low, high = np.log10(values), math.log10(low), math.log10(high)
    return values / (high - low) - low / (high - low)


def _value(share: FloatArray, low: float, high: float, *, log: bool) -> FloatArray:
    if log:
        return np.power(10.0, math.log10(low) + share * (math.log10(high) - math.log10(low)))
    return low + share * (high - low)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A trace seen in narrow columns."""

    at: FloatArray  # the edges, in pixels
    inside: npt.NDArray[np.intp]  # the first point at or right of each edge
    filled: npt.NDArray[np.intp]  # the columns that have points
    low: FloatArray  # of these the lowest point, in pixels
    high: FloatArray  # and the highest
    turns: npt.NDArray[np.bool_]  # where the line goes there and back within the column

    @property
    def rough(self) -> bool:
        """Whether a stroke would cross so many pixels so often that its ink adds up."""
        return int(np.count_nonzero(self.turns)) > ROUGH * len(self.filled)


def columns_of(trace: Trace, window: Window, per_pixel: int = COLUMNS) -> Columns:
    count = int(np.ceil(window.size[0] * per_pixel))
    at = np.arange(count + 1) / per_pixel
    inside = _first_at(trace.x, window.x_at(at))
    filled = np.flatnonzero(np.diff(inside))
    if not len(filled):
        return Columns(at, inside, filled, np.empty(0), np.empty(0), np.empty(0, np.bool_))
    start, stop = inside[0], inside[-1]
    starts = inside[filled] - start
    low, high = (window.up(way.reduceat(trace.y[start:stop], starts)) for way in (np.minimum, np.maximum))
    first, last = window.up(trace.y[inside[filled]]), window.up(trace.y[_stops(inside, filled) - 1])
    return Columns(at, inside, filled, low, high, high - low - np.abs(last - first) > TURN)


def _stops(inside: npt.NDArray[np.intp], filled: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The point after the last of each column that has points."""
    return inside[filled + 1]


def envelope(trace: Trace, window: Window, seen: Columns, *, width: float) -> Path:
    """The ink of a line so many pixels wide, in the units of its axes."""
    columns = round(1.0 / (seen.at[1] - seen.at[0]))
    low, high = _heights(trace, window, seen)
    reach = int(width / 2.0 * columns)
    low, high = (np.pad(edge, reach, constant_values=np.nan) for edge in (low, high))
    bottom, top = low - width / 2.0, high + width / 2.0
    for away in range(1, reach + 1):
        rise = ((width / 2.0) ** 2 - (away / columns) ** 2) ** 0.5
        for here, there in ((slice(away, None), slice(None, -away)), (slice(None, -away), slice(away, None))):
            np.fmin(bottom[here], low[there] - rise, out=bottom[here])
            np.fmax(top[here], high[there] + rise, out=top[here])
    middle = (np.arange(len(low)) - reach + 0.5) / columns
    return _outline(window.x_at(middle), window.y_at(bottom), window.y_at(top), ~np.isnan(bottom))


def _heights(trace: Trace, window: Window, seen: Columns) -> tuple[FloatArray, FloatArray]:
    """In pixels, the lowest and highest place of the line in each column; NaN where it is not."""
    low, high = np.full(len(seen.at) - 1, np.nan), np.full(len(seen.at) - 1, np.nan)
    low[seen.filled], high[seen.filled] = seen.low, seen.high
    crossing = _crossings(trace, window, seen.inside, seen.at)
    for edge in (crossing[:-1], crossing[1:]):
        low, high = np.fmin(low, edge), np.fmax(high, edge)
    return low, high


def _first_at(x: npt.NDArray[np.float64], edges: FloatArray) -> npt.NDArray[np.intp]:
    """The first point at or right of each edge."""
    if x.dtype.kind == "i":  # whole edges, so that ten million steps need not become floats
        limit = float(2**62)
        if -limit < edges[0] and edges[-1] < limit:
            return np.searchsorted(x, np.ceil(edges).astype(np.int64))
    return np.searchsorted(x, edges)


def _crossings(trace: Trace, window: Window, right: npt.NDArray[np.intp], at: FloatArray) -> FloatArray:
    """How high the line is at each edge; NaN where it is not."""
    height = np.full(len(right), np.nan)
    broken = np.isin(right, trace.breaks)
    met = np.flatnonzero((right > 0) & (right < len(trace)) & ~broken)
    if len(met):
        after, before = right[met], right[met] - 1
        x0, x1 = (window.across(trace.x[i].astype(np.float64)) for i in (before, after))
        y0, y1 = window.up(trace.y[before]), window.up(trace.y[after])
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(x1 > x0, (at[met] - x0) / (x1 - x0), 0.0)
        height[met] = y0 + (y1 - y0) * np.clip(share, 0.0, 1.0)
    return height


def _outline(x: FloatArray, bottom: FloatArray, top: FloatArray, there: npt.NDArray[np.bool_]) -> Path:
    """One polygon for each stretch of columns that has ink, in one path."""
    ends = np.flatnonzero(np.diff(np.concatenate(([False], there, [False])).astype(np.int8)))
    points, codes = [], []
    for start, stop in zip(ends[::2].tolist(), ends[1::2].tolist(), strict=True):
        across = np.concatenate((x[start:stop], x[start:stop][::-1]))
        around = np.concatenate((top[start:stop], bottom[start:stop][::-1]))
        points.append(np.column_stack((across, around)))
        points.append(points[-1][:1])
        code = np.full(len(across) + 1, Path.LINETO, np.uint8)
        code[0], code[-1] = Path.MOVETO, Path.CLOSEPOLY
        codes.append(code)
    if not points:
        return Path(np.empty((0, 2)))
    return Path(np.concatenate(points), np.concatenate(codes))


def thinned(trace: Trace, seen: Columns) -> Trace:
    """The points that a stroke needs: the first and last of each column, where it turns also the lowest and highest."""
    starts, stops = seen.inside[seen.filled], _stops(seen.inside, seen.filled)
    kept = [np.array([0, len(trace) - 1]), trace.breaks, trace.breaks - 1, starts, stops - 1]
    for start, stop in zip(starts[seen.turns].tolist(), stops[seen.turns].tolist(), strict=True):
        piece = trace.y[start:stop]
        kept.append(start + np.array([piece.argmin(), piece.argmax()]))
    place: npt.NDArray[np.intp] = np.unique(np.concatenate(kept))
    return Trace(trace.x[place], trace.y[place], np.searchsorted(place, trace.breaks))
