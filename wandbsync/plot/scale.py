"""The y axis of a metric: logarithmic or not, from where to where. The rules are the predecessor's, but one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

SIZES = (1e-200, 1e200)  # matplotlib takes smaller limits for 0, and its arithmetic overflows on larger ones
SMALLEST, LARGEST = 5e-324, 1.7976931348623157e308
PADDING = 0.04  # of the height, above and below the data


@dataclass(frozen=True, slots=True)
class Extent:
    """The smallest, the largest and the smallest positive of some values; NaN where there is none."""

    low: float
    high: float
    positive: float

    @classmethod
    def of(cls, arrays: Iterable[FloatArray]) -> Extent:
        low, high, positive = math.inf, -math.inf, math.inf
        for array in arrays:
            values = array[np.isfinite(array)]
            if len(values):
                low, high = min(low, float(values.min())), max(high, float(values.max()))
                above = values[values > 0.0]
                positive = min(positive, float(above.min()) if len(above) else math.inf)
        return cls(*(value if math.isfinite(value) else math.nan for value in (low, high, positive)))


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


def choose(metric: str, logged: Extent, drawn: Extent) -> Scale:
    """The axis for a metric, judged by all that was logged and made to hold what is drawn.

    A "loss" whose positive values span more than a factor of ten is logarithmic, unless it has negative values, which
    a logarithm would hide (the predecessor hid them); an "acc" (accuracy) that stays within 0 and 1 is shown from
    -0.05 to 1.05; anything else gets the room it takes.
    """
    name = metric.lower()
    if "loss" in name:
        if logged.low >= 0.0 and logged.high > 10.0 * logged.positive and not math.isnan(drawn.positive):
            return Scale(*padded_log(drawn.positive, drawn.high), log=True)
    elif "acc" in name and logged.low >= 0.0 and logged.high <= 1.0:
        return Scale(-0.05, 1.05, percent=True)
    power = power_of_ten(max(abs(drawn.low), abs(drawn.high)))
    return Scale(*padded(in_units(drawn.low, power), in_units(drawn.high, power)), power=power)


def power_of_ten(size: float) -> int:
    """The unit to count in where sizes go up to `size`: 0, unless they are too large or too small for matplotlib."""
    return 0 if size == 0.0 or SIZES[0] < size < SIZES[1] else math.floor(math.log10(size))


def in_units(values: Any, power: int) -> Any:
    """A float or an array of them, divided by 10**power, which itself may be more, or less, than a float can be."""
    half = -power // 2
    return values * 10.0**half * 10.0 ** (-power - half) if power else values


def padded(low: float, high: float, padding: float = PADDING) -> tuple[float, float]:
    """Limits around low and high; around a constant, a twentieth of its size."""
    size = max(abs(low), abs(high))
    if size == 0.0:
        return -1.0, 1.0
    room = (high - low) * padding if high - low > 1e-12 * size else size * 0.05
    return low - room, high + room


def padded_log(low: float, high: float) -> tuple[float, float]:
    room = (math.log10(high) - math.log10(low)) * PADDING
    ratio = 10.0**room if room > 1e-12 else 1.05
    low, high = max(low / ratio, SMALLEST), min(high * ratio, LARGEST)
    return (low, high) if low < high else (low, low * 10.0)  # the smallest floats are too coarse for the ratio
