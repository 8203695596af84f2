"""The line that is drawn if nobody asks for another: a centred mean that stays on its data, or the values themselves.

It is a local linear fit (Cleveland 1979; Epanechnikov's weights), seen at up to a thousand places of equal width in x,
so that its ends do not drift and a slope is no bias. How wide it looks around is decided at each place: as wide as an
EMA of weight 0.99 has values (199 thousandths of the width count), and narrower where wider and narrower fits disagree
by more than their noise: at a bend, a jump, a spike (the intersection of confidence intervals, Goldenshluger and
Nemirovski 1997). What is left of it outside of the values that are logged near by is put on their edge.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..trace import FloatArray, finite
from .ema import headroom

PLACES = 1_000  # in which the width is seen
FEW = 200  # values; a line of fewer is drawn through all of them
TURNS = 1 / 20  # of the values; a line that turns more seldom is smooth as it is
RADII = (3, 6, 12, 22, 40, 70, 119)  # places to either side; weights of the last have 199 effective places
NEAR = 9  # places to either side: no value in them is further away than a hundredth of the width
SURE = 3.0  # standard errors that two fits may be apart
BLOCK = 25  # places in which the noise is one
CHANCE = 0.004  # of the line may be beside its data (what leads there and away counts too),
SLIGHT = 0.25  # by so much of the height that these have near by
SPIKE = 5.0  # standard deviations; what is further off counts as this
END = 5  # places at either end that are fitted as widely as the next one
EASE = 10  # places over which one width becomes another
WIDTH = (2 * RADII[-1] + 1) / PLACES  # of the widest window


def smooth_as_logged(y: FloatArray) -> bool:
    """Whether a line through the values themselves is what people look for: few values, or values that seldom turn.

    Of many values 64 stretches are looked at.
    """
    if len(y) < FEW:
        return True
    size = 1_024
    starts = [0] if len(y) <= 64 * size else np.linspace(0, len(y) - size, 64).astype(np.intp).tolist()
    turns = seen = 0
    for start in starts:
        steps = np.sign(np.diff(y[start : start + size] if len(starts) > 1 else y))
        turns += int(np.count_nonzero(steps[1:] * steps[:-1] < 0.0))
        seen += len(steps)
    return turns < TURNS * seen


def centred_mean(x: npt.NDArray[Any], y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Places in x, in their order, and the line there: NaN in a place where all that was logged is not finite.

    x ascends and is finite. Values that are not finite do not count.
    """
    bad = None if finite(y) else ~np.isfinite(y)
    holes = np.empty(0)
    if bad is not None:
        edges = _edges(x)
        only_bad = np.bincount(_bins(x[bad], edges), minlength=PLACES).astype(bool)
        x, y = x[~bad], y[~bad]
        only_bad[_bins(x, edges)] = False
        holes = (edges[:-1] + edges[1:])[only_bad] / 2.0
    else:
        edges = _edges(x)
    scale = headroom(y)
    at, line = _line(x, y if scale == 1.0 else y * scale, edges)
    if scale != 1.0:
        line = np.clip(line / scale, y.min(), y.max())
    if len(holes):
        before = np.searchsorted(at, holes)
        at, line = np.insert(at, before, holes), np.insert(line, before, np.nan)
    return at, line


def _edges(x: npt.NDArray[Any]) -> FloatArray:
    low, high = float(x[0]), float(x[-1])
    return low + (high - low) * (np.arange(PLACES + 1) / PLACES)


def _bins(x: npt.NDArray[Any], edges: FloatArray) -> npt.NDArray[np.intp]:
    return np.clip(np.searchsorted(edges, x, side="right") - 1, 0, PLACES - 1)


def _line(x: npt.NDArray[Any], y: FloatArray, edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    whole = x.dtype.kind in "iu"  # whole edges, so that ten million steps need not become floats
    first = np.searchsorted(x, np.ceil(edges[:-1]).astype(x.dtype) if whole else edges[:-1])
    first = np.append(first, len(x))
    first[0] = 0
    place = np.flatnonzero(np.diff(first))
    start, stop = first[place], first[place + 1]
    lowest, highest = np.minimum.reduceat(y, start), np.maximum.reduceat(y, start)
    mean = np.clip(np.add.reduceat(y, start) / (stop - start), lowest, highest)
    at = x[start] * 0.5 + x[stop - 1] * 0.5
    at[0], at[-1] = x[0], x[-1]
    if len(place) < 3:
        return at, mean
    low, high = _near(place, lowest, highest)
    line = _fitted(place, mean, low, high)
    left = _left_alone(np.gradient(at), np.abs(np.clip(line, low, high) - line), high - low)
    low[left], high[left] = -np.inf, np.inf
    # A nick where the line is put on the edge of its data is eased over its neighbours.
    away = np.clip(line, low, high) - line
    line += _eased(np.maximum(away, 0.0)) - _eased(np.maximum(-away, 0.0))
    return at, np.clip(line, low, high)


def _eased(away: FloatArray) -> FloatArray:
    """How far each place gives way: as far as it is `away`, and for a place near by that is further away in part."""
    found: FloatArray = away.copy()
    for step, share in enumerate(np.hanning(2 * EASE + 1)[EASE + 1 : -1], 1):
        np.maximum(found[step:], share * away[:-step], out=found[step:])
        np.maximum(found[:-step], share * away[step:], out=found[:-step])
    return found


def _left_alone(width: FloatArray, away: FloatArray, height: FloatArray) -> npt.NDArray[np.intp]:
    """The places where the line is beside its data by so little, and which are so few, that nothing is done about it.

    Among ten values that are noise all are above their mean once in a thousand times: that is no bend of the line.
    """
    slight = np.flatnonzero((away > 0.0) & (away <= SLIGHT * height))
    order = slight[np.argsort(away[slight])]
    taken = np.maximum(np.cumsum(width[order]) / width.sum(), np.arange(1, len(order) + 1) / len(away))
    found: npt.NDArray[np.intp] = order[taken <= CHANCE]
    return found


def _near(place: npt.NDArray[np.intp], lowest: FloatArray, highest: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Between which values the line must be at each place, so that on its way to the next one too it is on its data."""
    way = np.arange(len(place) - 1)
    first = np.searchsorted(place, place - NEAR)
    last = np.searchsorted(place, place + NEAR, side="right")
    here = np.column_stack((first, last)).ravel()
    between = np.column_stack((np.minimum(first[1:], way), np.maximum(last[:-1], way + 2))).ravel()
    lows, highs = np.append(lowest, np.inf), np.append(highest, -np.inf)
    low, high = np.minimum.reduceat(lows, here)[::2], np.maximum.reduceat(highs, here)[::2]
    way_low, way_high = np.minimum.reduceat(lows, between)[::2], np.maximum.reduceat(highs, between)[::2]
    for one in (low[:-1], low[1:]):
        np.maximum(one, way_low, out=one)
    for one in (high[:-1], high[1:]):
        np.minimum(one, way_high, out=one)
    return low, high


def _fitted(place: npt.NDArray[np.intp], mean: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Of fits of all widths, at each place, the widest that agrees with the narrower ones and is within its data."""
    noise = _noise(place, mean)
    there, values = np.zeros(PLACES), np.zeros(PLACES)
    there[place], values[place] = 1.0, mean
    weights = _weights_everywhere() if len(place) == PLACES else _weights(there)
    fits = [mean]
    # The values themselves are no fit: one that is off by chance would narrow the line around it.
    least, most = np.full(len(place), -np.inf), np.full(len(place), np.inf)
    agrees = np.ones(len(place), np.bool_)
    best = np.zeros(len(place))
    for turn, (radius, (of_mean, of_slope, error)) in enumerate(zip(RADII, weights, strict=True), 1):
        kernel, slope = _kernel(radius)
        fit = (of_mean * np.convolve(values, kernel, "same") - of_slope * np.convolve(values, slope, "same"))[place]
        alone = np.isinf(error[place])  # one place cannot have a slope
        fit = np.where(alone, fits[-1], fit)
        spread = SURE * noise * np.minimum(error[place], 1.0)
        least, most = np.maximum(least, fit - spread), np.minimum(most, fit + spread)
        agrees &= least <= most
        best[agrees & (fit >= low) & (fit <= high)] = turn
        fits.append(fit)
    if len(best) > 2 * END:  # a fit that has one side only is right by chance more seldom
        best[:END], best[-END:] = best[END], best[-1 - END]
    best = np.convolve(
        np.pad(best, EASE, mode="reflect" if len(best) > EASE else "edge"),
        np.full(2 * EASE + 1, 1.0 / (2 * EASE + 1)),
        "valid",
    )
    narrow = np.minimum(best.astype(np.intp), len(RADII) - 1)
    share, table, each = best - narrow, np.array(fits), np.arange(len(place))
    line: FloatArray = table[narrow, each] * (1.0 - share) + table[narrow + 1, each] * share
    return line


def _noise(place: npt.NDArray[np.intp], mean: FloatArray) -> FloatArray:
    """The standard deviation of the mean at each place, from how far it is off the line through its neighbours."""
    before, after = np.diff(place)[:-1].astype(np.float64), np.diff(place)[1:].astype(np.float64)
    share = after / (before + after)
    off = np.abs(mean[1:-1] - share * mean[:-2] - (1.0 - share) * mean[2:])
    off /= np.sqrt(1.0 + share * share + (1.0 - share) ** 2)
    count = max(len(off) // BLOCK, 1)
    size = -(-len(off) // count)
    rows = np.pad(off, (0, size * count - len(off)), mode="edge").reshape(count, size)
    # Of normal noise both are the standard deviation, and a spike is none; where most are one the median is 0.
    middle = 1.4826 * np.median(rows, axis=1)
    most = np.where(middle > 0.0, SPIKE * middle, np.inf)[:, np.newaxis]
    each = np.maximum(middle, 0.5 * 1.2533 * np.minimum(rows, most).mean(axis=1))
    found: FloatArray = np.interp(np.arange(len(place)), (np.arange(count) + 0.5) * size, each)
    return found


@lru_cache
def _kernel(radius: int) -> tuple[FloatArray, FloatArray]:
    """The weights of a window, and the same times the distance."""
    away = np.arange(-radius, radius + 1)
    kernel = 1.0 - (away / (radius + 1.0)) ** 2
    return kernel, kernel * away


def _weights(there: FloatArray) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """For each width what the sums of values and of values times distance count, and the standard error of the fit.

    `there` is 1 where a place has a value, else 0; the error is in units of the noise, infinite where there is no fit.
    """
    found = []
    for radius in RADII:
        away = np.arange(-radius, radius + 1)
        kernel, slope = _kernel(radius)
        zero, one, two = (np.convolve(there, k, "same") for k in (kernel, slope, slope * away))
        size = zero * two - one * one
        some = size > 1e-9 * zero * zero
        size = np.where(some, size, 1.0)
        squares = [np.convolve(there, kernel * k, "same") for k in (kernel, slope, slope * away)]
        variance = (two * two * squares[0] - 2.0 * one * two * squares[1] + one * one * squares[2]) / size**2
        error = np.where(some, np.sqrt(np.maximum(variance, 0.0)), np.inf)
        found.append((two / size, one / size, error))
    return found


@lru_cache
def _weights_everywhere() -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    return _weights(np.ones(PLACES))
