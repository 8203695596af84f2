"""Lines of any number of points, as the area their ink covers: one polygon, made from every point.

A stroke with round joins is all that a disk covers as it moves along the line. Seen in narrow columns, of which a pixel
has six, the line is in each column between a lowest and a highest place: of the points in it, and of where it crosses
the edges. Those columns grown by the disk are the ink. That costs one pass over the points and the same few
milliseconds of drawing whether there are ten thousand of them or ten million, and is nearer to what the line is than a
stroke: where that crosses a pixel a hundred times its ink adds up. (tests/test_fidelity.py measures both.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.path import Path

from .trace import COLUMNS, FloatArray, Trace

FROM = 1_500  # points; fewer are stroked
FAR = 1e9  # heights of the axes
PIECES = 4  # polygons that lie over each other at most where a line is often broken
STEEP = 0.5  # pixels up or down in a column
TURN = 0.2  # pixels that a line goes there and back in a column if it is to count


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


def envelope(trace: Trace, window: Window, *, width: float, columns: int = COLUMNS) -> Path:
    """The ink of a line so many pixels wide, in the units of its axes: one path, to be filled at once.

    Where the line is broken, neighbouring pieces are polygons of their own; else what is between would be filled too.
    """
    if not len(trace.breaks):
        return _ink(trace, window, columns_of(trace, window, columns), width)
    spacing = window.size[0] / (len(trace.breaks) + 1)
    turns = min(2 + int(width / spacing), PIECES)
    paths = [trace.every(turn, turns) for turn in range(turns)]
    inks = [_ink(path, window, columns_of(path, window, columns), width) for path in paths if len(path)]
    return Path.make_compound_path(*inks)


def _ink(trace: Trace, window: Window, seen: Columns, width: float) -> Path:
    narrow, radius = float(seen.at[1] - seen.at[0]), width / 2.0
    reach = int(radius / narrow) + 1
    count = len(seen.at) - 1 + 2 * reach  # with what the line covers beyond its ends
    crossing: FloatArray = np.pad(_crossings(trace, window, seen.inside, seen.at), reach, constant_values=np.nan)
    bottom, top = np.full(count, np.nan), np.full(count, np.nan)
    _grow(bottom, top, crossing, crossing, radius, narrow)
    # What is in a column counts as in its middle, but only where it reaches further than the line does at the edges:
    # else a steep line would be as much too wide as a column is.
    low, high = np.full(count, np.nan), np.full(count, np.nan)
    low[seen.filled + reach], high[seen.filled + reach] = seen.low, seen.high
    within = (low >= np.fmin(crossing[:-1], crossing[1:])) & (high <= np.fmax(crossing[:-1], crossing[1:]))
    low[within] = high[within] = np.nan
    _grow(bottom, top, low, high, radius, narrow)
    middle = np.multiply(np.arange(count) - reach + 0.5, narrow, dtype=np.float64)
    if (np.abs(np.diff(crossing)) > STEEP).any():
        # Beside a steep line its ink ends where the line itself, a radius away, is.
        sides: tuple[FloatArray, FloatArray] = (middle - radius, middle + radius)
        for side in sides:
            height = _crossings(trace, window, _first_at(trace.x, window.x_at(side)), side)
            np.fmin(bottom, height, out=bottom)
            np.fmax(top, height, out=top)
    return _outline(window.x_at(middle), window.y_at(bottom), window.y_at(top), ~np.isnan(bottom))


def _grow(bottom: FloatArray, top: FloatArray, low: FloatArray, high: FloatArray, radius: float, narrow: float) -> None:
    """Make columns cover a disk around each place; there is one place in each column, or one at each edge."""
    edges = len(low) - len(top)
    for away in range(int(radius / narrow) + 1):
        distance = (away + edges / 2.0) * narrow
        if distance > radius:
            return
        rise = (radius * radius - distance * distance) ** 0.5
        shift, stop = away + edges, len(top) - away
        for here, there in ((slice(0, stop), slice(shift, None)), (slice(away, None), slice(0, len(low) - shift))):
            np.fmin(bottom[here], low[there] - rise, out=bottom[here])
            np.fmax(top[here], high[there] + rise, out=top[here])


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
    """The points that a stroke needs, if it must be one, as for dashes.

    They are the first and last of each column, and where the line turns there the lowest and highest.
    """
    starts, stops = seen.inside[seen.filled], _stops(seen.inside, seen.filled)
    kept = [np.array([0, len(trace) - 1]), trace.breaks, trace.breaks - 1, starts, stops - 1]
    for start, stop in zip(starts[seen.turns].tolist(), stops[seen.turns].tolist(), strict=True):
        piece = trace.y[start:stop]
        kept.append(start + np.array([piece.argmin(), piece.argmax()]))
    place: npt.NDArray[np.intp] = np.unique(np.concatenate(kept))
    return Trace(trace.x[place], trace.y[place], np.searchsorted(place, trace.breaks))
