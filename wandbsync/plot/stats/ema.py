"""Moving averages that look back: vectorised, exact on every point, and never poisoned by a NaN or an infinity.

Each function gets what was logged and returns one float64 value per point. Points that are not finite (in x or in y)
take no part: the result is NaN in their place, and what it is elsewhere is as if they had never been logged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..trace import FloatArray, ascending, finite
from .sums import Sums

CHUNK = 16_384  # points per running sum: the complex numbers of one chunk stay in the processor's cache
BUDGET = 400.0  # bits of decay per running sum; with |y| < LARGE and 2**14 points the sums stay far below 2**1024
LARGE = 2.0**500  # beyond it (1e150) a running sum could overflow: such series take the plain loop
SHORT = 32  # a running sum over fewer points costs more than the plain loop
STRETCH = 1_024  # points the plain loop takes before running sums are tried again
EVEN = 65_536  # points that are taken at once if they are equally far apart

Ends = tuple[float, float]  # the lowest and the highest of some values


def time_weighted_ema(
    x: npt.ArrayLike, y: npt.ArrayLike, *, weight: float, viewport_scale: float = 1000.0, span: float | None = None
) -> FloatArray:
    """The debiased exponential moving average of y in which a point's weight fades with its distance in x.

    `weight` (0 to 1) is used as it is, as the predecessor did: a point fades to `weight` when x has moved on by
    1/`viewport_scale` of `span`: the chart's range, as W&B has it, or the series' own if None. Weight 0 averages points
    of equal x only, weight 1 everything so far.
    A step backwards in x counts as no distance at all (the formula taken literally would make old points grow).

    The plain loop is `last = last*f + y; n = n*f + 1; out = last/n` with f = weight ** (dx / range * viewport_scale).
    It is not computed as one: see `sums`.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight must be between 0 and 1, not {weight}")
    if not (viewport_scale >= 0.0 and math.isfinite(viewport_scale)):
        raise ValueError(f"viewport_scale must be a number >= 0, not {viewport_scale}")
    xs, ys = np.asarray(x), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or ys.ndim != 1:
        raise ValueError(f"x and y must be of one length, not {xs.shape} and {ys.shape}")
    return _of_finite(
        ys, lambda place, values, ends: _ema(_Place(place), values, ends, weight, viewport_scale, span), xs
    )


def time_weighted_ema_seen(
    x: npt.NDArray[Any],
    y: FloatArray,
    *,
    weight: float,
    viewport_scale: float = 1000.0,
    span: float | None = None,
    columns: int,
) -> tuple[npt.NDArray[np.intp], FloatArray] | None:
    """Of the same average the points that are seen in so many columns: which they are, and their values.

    All are computed, to the same digits, and of those that are many in a column the first, lowest, highest and last are
    kept: ten million points then cost half. None if that saves nothing, or for a series that is not finite and sorted.
    """
    block = 1 << max((len(y) // (4 * columns)).bit_length() - 1, 0)
    ends = _extremes(y) if block >= 8 else (math.nan, math.nan)
    if not (_sane(ends) and finite(x) and ascending(x)):
        return None
    seen = _Seen(x, block, widest=float(x[-1] - x[0]) / (4.0 * columns))
    _ema(_Place(x), y, ends, weight, viewport_scale, span, seen)
    return np.concatenate(seen.places), np.concatenate(seen.values)


def ema(y: npt.ArrayLike, *, weight: float) -> FloatArray:
    """TensorBoard's debiased average, W&B's "exponential": each value fades to `weight` (0 to 1) with the next one.

    The plain loop is `last = last*weight + (1-weight)*y; out = last / (1 - weight**n)`, n counting from 1.
    """
    if not 0.0 <= weight < 1.0:
        raise ValueError(f"weight must be at least 0 and below 1, not {weight}")
    ys = np.asarray(y, dtype=np.float64)

    def average(_: npt.NDArray[Any], values: FloatArray, ends: Ends) -> FloatArray:
        return _ema(_Place(np.arange(len(values))), values, ends, weight, 1.0, 1.0)

    return _of_finite(ys, average, ys)


def _of_finite(
    ys: FloatArray, average: Callable[[npt.NDArray[Any], FloatArray, Ends], FloatArray], xs: npt.NDArray[Any]
) -> FloatArray:
    """The average of the points that are finite, in their places; NaN in the others."""
    if not len(ys):
        return np.empty(0)
    ends = _extremes(ys)
    if _sane(ends) and finite(xs):
        return average(xs, ys, ends)
    keep = np.isfinite(ys) & np.isfinite(xs)
    out = np.full(ys.shape, np.nan)
    if keep.any():
        values = ys[keep]
        scale = headroom(values)
        means = average(xs[keep], values * scale, _extremes(values * scale))
        out[keep] = means if scale == 1.0 else between(means, values, scale)
    return out


def rolling_mean(y: npt.ArrayLike, window: int) -> FloatArray:
    """The mean of each value and the up to `window - 1` finite values before it; the first ones have fewer."""
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    return window_mean(y, window - 1, 0)


def window_mean(y: npt.ArrayLike, before: int, after: int) -> FloatArray:
    """The mean of each finite value, `before` ones before it and `after` after it; at the ends, of those there are."""
    ys = np.asarray(y, dtype=np.float64)
    out = np.full(ys.shape, np.nan)
    keep = np.isfinite(ys)
    values = ys[keep]
    n = len(values)
    if n == 0:
        return out
    before, after = min(before, n - 1), min(after, n - 1)
    scale = headroom(values)
    sums = window_sums(values * scale, before, after)
    place = np.arange(n)
    counts = np.minimum(place + after, n - 1) - np.maximum(place - before, 0) + 1
    out[keep] = between(sums / counts, values, scale)
    return out


def window_sums(values: FloatArray, before: int, after: int) -> FloatArray:
    """For each value the sum of it, the `before` ones before it and the `after` ones after it.

    Sums run forwards and backwards inside blocks as long as a window; a window is the tail of one block and the head
    of the next. Nothing is ever subtracted, so a spike leaves no trace once it has left the window and an offset of
    1e9 costs no digits.
    """
    n, size = len(values), before + after + 1
    blocks = np.zeros((-(-(n + size - 1) // size), size))
    blocks.reshape(-1)[before : before + n] = values
    heads = np.cumsum(blocks, axis=1).reshape(-1)
    tails = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].reshape(-1)
    first = np.arange(n)
    return tails[:n] + np.where(first % size == 0, 0.0, heads[size - 1 : size - 1 + n])


def _extremes(values: FloatArray) -> Ends:
    """The lowest and the highest of some values; NaN or infinite if one of them is."""
    return float(values.min()), float(values.max())


def headroom(values: FloatArray) -> float:
    """A power of two that makes the largest value small enough to be added up 2**64 times (1 for all sane data)."""
    return 1.0 if _sane(_extremes(values)) else 2.0**-64


def _sane(ends: Ends) -> bool:
    """Whether the lowest and highest of some values are finite, and small enough to be added up as they are."""
    return ends[0] >= -(2.0**950) and ends[1] <= 2.0**950


def between(averages: FloatArray, values: FloatArray, scale: float) -> FloatArray:
    """Averages of values * scale as averages of values, between what they average.

    Without this, rounding would put ripples on a constant; on the largest floats it would make them infinite.
    """
    low, high = values.min(), values.max()
    if scale == 1.0:
        return np.clip(averages, low, high, out=averages)
    return np.clip(np.clip(averages, low * scale, high * scale) / scale, low, high)


class _Place:
    """How far apart points are in x, as float64, piece by piece: ten million steps are never copied as a whole.

    Integers are subtracted as such, however large. A step backwards is no distance: what follows is moved up by as
    much, so that the position never falls.
    """

    def __init__(self, x: npt.NDArray[Any]) -> None:
        falls = not ascending(x)
        low, high = (x.min(), x.max()) if falls else (x[0], x[-1])
        if x.dtype.kind in "iu":
            self.x: npt.NDArray[Any] = x.astype(np.int64, copy=False).view(np.uint64)  # differences modulo 2**64
            self.span = float(int(high) - int(low))
        else:
            self.x = x.astype(np.float64, copy=False)
            if max(float(high), -float(low)) > 2.0**1022:
                self.x, low, high = self.x / 4.0, low / 4.0, high / 4.0  # so that the range is finite
            self.span = float(high) - float(low)
        if falls:
            self.x = np.cumsum(np.maximum(self._step(x), 0.0))

    def _step(self, x: npt.NDArray[Any]) -> FloatArray:
        """The distance of each point from the one before, which may be negative."""
        if x.dtype.kind not in "iu":
            return np.diff(self.x, prepend=self.x[0])
        back = np.concatenate(([False], x[1:] < x[:-1]))
        modular = np.diff(self.x, prepend=self.x[0])
        return np.where(back, -((-modular).astype(np.float64)), modular.astype(np.float64))

    def from_first(self, start: int, stop: int) -> FloatArray:
        """The distances of some points from the first of them."""
        away: FloatArray = (self.x[start:stop] - self.x[start]).astype(np.float64, copy=False)
        return away

    def apart(self, start: int, stop: int) -> float | None:
        """How far each of some points is from the one before, if that is one distance; the first does not count."""
        for some in (min(start + SHORT, stop), stop):  # where it is not, the first few mostly show it
            steps = np.diff(self.x[start:some])
            if not len(steps) or not bool((steps == steps[0]).all()):
                return None
        return float(steps[0])

    def from_last(self, start: int, stop: int) -> FloatArray:
        """The distance of each of some points from the one before; the very first has none."""
        if start:
            return np.diff(self.x[start - 1 : stop]).astype(np.float64, copy=False)
        return np.diff(self.x[:stop], prepend=self.x[0]).astype(np.float64, copy=False)


class _Seen:
    """What is seen of an average that is computed piece by piece: of each block of points four, of a wide one all."""

    def __init__(self, x: npt.NDArray[Any], block: int, *, widest: float) -> None:
        self.x, self.block, self.widest = x, block, widest
        self.places: list[npt.NDArray[np.intp]] = []
        self.values: list[FloatArray] = []

    def take(self, start: int, piece: FloatArray) -> None:
        blocks = len(piece) // self.block
        rows = piece[: blocks * self.block].reshape(blocks, self.block)
        first = np.arange(blocks) * self.block
        place = np.column_stack((first, first + rows.argmin(1), first + rows.argmax(1), first + self.block - 1))
        wide = self.x[start + first + self.block - 1] - self.x[start + first] > self.widest
        whole = (first[wide, np.newaxis] + np.arange(self.block)).ravel()
        place = np.unique(np.concatenate((place.ravel(), whole, np.arange(blocks * self.block, len(piece)))))
        self.places.append(start + place)
        self.values.append(piece[place])


def _ema(
    place: _Place,
    y: FloatArray,
    ends: Ends,
    weight: float,
    viewport_scale: float,
    span: float | None,
    seen: _Seen | None = None,
) -> FloatArray:
    """All of it; or, if `seen` takes what it wants, nothing. `ends` are the lowest and highest of y."""
    span = span or place.span or 1.0
    fading = -math.log2(weight) if weight > 0.0 else math.inf
    rate = fading * viewport_scale if viewport_scale > 0.0 else 0.0  # bits of decay over the whole range

    def decay(distance: FloatArray) -> FloatArray:
        if math.isinf(rate):
            return np.where(distance > 0.0, np.inf, 0.0)
        with np.errstate(over="ignore"):
            return distance / span * rate

    def faded_by(distance: FloatArray) -> float:
        return float(np.exp2(-decay(distance))[0])

    out = np.empty(len(y) if seen is None else EVEN)
    low, high = ends
    large = max(high, -low) >= LARGE
    reach = BUDGET / rate * span if rate > 0.0 else math.inf
    sums = Sums()
    start = 0
    while start < len(y):
        stop = min(start + EVEN, len(y))
        apart = place.apart(start, stop) if stop - start >= SHORT else None
        slowly = False
        if apart is None:
            stop = min(start + CHUNK, len(y))
            away = place.from_first(start, stop)
            if away[-1] > reach:
                stop = start + int(np.searchsorted(away, reach, side="right"))
                away = away[: stop - start]
            slowly = large or stop - start < SHORT
            stop = min(start + STRETCH, len(y)) if slowly else stop
        piece = out[start:stop] if seen is None else out[: stop - start]
        if slowly:
            sums.plain(np.exp2(-decay(place.from_last(start, stop))), y[start:stop], piece)
        else:
            sums.fade(faded_by(place.from_last(start, start + 1)))
            if apart is None:
                sums.running(away, lambda away: np.exp2(decay(away)), y[start:stop], piece)
            else:
                sums.even(faded_by(np.array([apart])), y[start:stop], piece)
        # Without this, rounding would put ripples on a constant.
        np.clip(piece, low, high, out=piece)
        if seen is not None:
            seen.take(start, piece)
        start = stop
    return out
