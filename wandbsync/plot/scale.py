"""The axes of a metric: logarithmic or not, from where to where. The rules for y are the predecessor's, but one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .flags import Limits
from .trace import FloatArray

SIZES = (1e-200, 1e200)  # matplotlib takes smaller limits for 0, and its arithmetic overflows on larger ones
SMALLEST, LARGEST = 5e-324, 1.7976931348623157e308
PADDING = 0.04  # of the height, above and below the data
PIECE = 1 << 16  # values looked at in one go: they stay in the processor's cache
INLIERS = (5.0, 95.0)  # percent of the values that are shown where outliers are clipped, as W&B has it


@dataclass(frozen=True, slots=True)
class View:
    """What is asked of the axes; what is None is decided by the data."""

    log_x: bool = False
    log_y: bool | None = None
    x: Limits = (None, None)
    y: Limits = (None, None)
    clip_outliers: bool | None = None  # None: where a few points take nearly all of the axis


@dataclass(frozen=True, slots=True)
class Extent:
    """The smallest, the largest and the smallest positive of some values; NaN where there is none.

    Among negative values the smallest positive one is looked for only if asked for: it takes longer than all else.
    """

    low: float
    high: float
    positive: float

    @classmethod
    def of(cls, arrays: Iterable[npt.NDArray[Any]], *, positive_too: bool = False) -> Extent:
        low, high, positive = math.inf, -math.inf, math.inf
        for array in arrays:
            if not len(array):
                continue
            least, most = float(array.min()), float(array.max())
            if not (math.isfinite(least) and math.isfinite(most)):
                array = array[np.isfinite(array)]
                if not len(array):
                    continue
                least, most = float(array.min()), float(array.max())
            low, high = min(low, least), max(high, most)
            if least > 0:
                positive = min(positive, least)
            elif most > 0 and (least == 0 or positive_too):
                positive = min(positive, _least_positive(array))
        return cls(*(value if math.isfinite(value) else math.nan for value in (low, high, positive)))


def _least_positive(values: npt.NDArray[Any]) -> float:
    pieces = (values[start : start + PIECE] for start in range(0, len(values), PIECE))
    return min(float(above.min()) for above in (piece[piece > 0] for piece in pieces) if len(above))


@dataclass(frozen=True, slots=True)
class Scale:
    """A y axis: its limits, whether it is logarithmic, whether its ticks are percentages.

    What is drawn on it is counted in units of 10**power, as are its limits: see `in_units`.
    """

    low: float
    high: float
    log: bool = False
    percent: bool = False
    power: int = 0


def choose(
    metric: str,
    logged: Extent,
    drawn: Extent,
    view: View | None = None,
    *,
    skewed: Callable[[], bool] = lambda: True,
) -> Scale:
    """The y axis for a metric, judged by all that was logged and made to hold what is drawn.

    A "loss" whose positive values span more than a factor of ten, most of them near its lower end (`skewed`), is
    logarithmic, unless it has negative values, which a logarithm would hide (the predecessor hid them); an "acc"
    (accuracy) that stays within 0 and 1 is shown from -0.05 to 1.05; anything else gets the room it takes. `view` can
    ask for something else.
    """
    view = view or View()
    name = metric.lower()
    log = view.log_y
    if log is None and "loss" in name:
        log = logged.low >= 0.0 and logged.high > 10.0 * logged.positive and not math.isnan(drawn.positive)
        log = log and skewed()
    if log:
        if math.isnan(drawn.positive):
            raise UsageError(f"{metric} has no value above 0 for a logarithmic axis", hint="try --linear")
        low, high = padded_log(drawn.positive, drawn.high)
        return limited(Scale(low, high, log=True), view.y, metric)
    if view.log_y is None and "loss" not in name and "acc" in name and logged.low >= 0.0 and logged.high <= 1.0:
        return limited(Scale(-0.05, 1.05, percent=True), view.y, metric)
    power = power_of_ten(max(abs(one) for one in (drawn.low, drawn.high, *view.y) if one is not None))
    low, high = padded(in_units(drawn.low, power), in_units(drawn.high, power))
    return limited(Scale(low, high, power=power), view.y, metric)


def limited(axis: Scale, limits: Limits, metric: str) -> Scale:
    """With the limits that were asked for."""
    low, high = (None if one is None else in_units(one, axis.power) for one in limits)
    if axis.log and low is not None and low <= 0.0:
        raise UsageError(f"the y axis of {metric} is logarithmic and cannot begin at {low:g}", hint="try --linear")
    low, high = axis.low if low is None else low, axis.high if high is None else high
    if not low < high:
        raise UsageError(f"the y axis of {metric} would go from {low:g} to {high:g}", hint="choose another --ylim")
    return Scale(low, high, axis.log, axis.percent, axis.power)


def inliers(arrays: Iterable[FloatArray]) -> Extent:
    """The extent of what is neither among the lowest nor among the highest twentieth of some values."""
    values = np.concatenate(list(arrays))
    low, high = np.percentile(values, INLIERS).tolist()
    return Extent.of([values[(values >= low) & (values <= high)]], positive_too=True)


def x_limits(extent: Extent, view: View) -> tuple[float, float]:
    """The x axis around its data, or as asked for. Raises UsageError if that is nothing."""
    if view.log_x:
        low, high = padded_log(extent.positive, extent.high, padding=0.01)
    elif extent.high > extent.low:
        low, high = padded(extent.low, extent.high, padding=0.01, constant=1e-14)  # steps beyond 2**53 are steps too
    else:
        room = max(0.5, abs(extent.low) * 1e-3)
        low, high = extent.low - room, extent.high + room
    low, high = low if view.x[0] is None else view.x[0], high if view.x[1] is None else view.x[1]
    if not low < high or not math.isfinite(high - low) or (view.log_x and low <= 0.0):
        raise UsageError(f"the x axis would go from {low:g} to {high:g}", hint="choose another --xlim")
    return low, high


def power_of_ten(size: float) -> int:
    """The unit to count in where sizes go up to `size`: 0, unless they are too large or too small for matplotlib."""
    return 0 if size == 0.0 or SIZES[0] < size < SIZES[1] else math.floor(math.log10(size))


def in_units(values: Any, power: int) -> Any:
    """A float or an array of them, divided by 10**power, which itself may be more, or less, than a float can be."""
    half = -power // 2
    return values * 10.0**half * 10.0 ** (-power - half) if power else values


def padded(low: float, high: float, padding: float = PADDING, constant: float = 1e-12) -> tuple[float, float]:
    """Limits around low and high; around a constant, which no more than that share sets apart, a twentieth of it."""
    size = max(abs(low), abs(high))
    if size == 0.0:
        return -1.0, 1.0
    room = (high - low) * padding if high - low > constant * size else size * 0.05
    return low - room, high + room


def padded_log(low: float, high: float, padding: float = PADDING) -> tuple[float, float]:
    room = (math.log10(high) - math.log10(low)) * padding
    ratio = 10.0**room if room > 1e-12 else 1.05
    low, high = max(low / ratio, SMALLEST), min(high * ratio, LARGEST)
    return (low, high) if low < high else (low, low * 10.0)  # the smallest floats are too coarse for the ratio
