"""The y axis of a metric: logarithmic or not, from where to where. The rules are the predecessor's, but one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LIMIT = 1e300  # matplotlib's arithmetic overflows on what is larger; such a value is drawn as a gap
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
    """A y axis: its limits, whether it is logarithmic, whether its ticks are percentages."""

    low: float
    high: float
    log: bool = False
    percent: bool = False


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
    return Scale(*padded(drawn.low, drawn.high))


def padded(low: float, high: float, padding: float = PADDING) -> tuple[float, float]:
    """Limits around low and high; around a constant, a twentieth of its size."""
    size = max(abs(low), abs(high))
    if size < 1e-290:  # matplotlib cannot tell such values from 0, nor can a reader
        return (-1.0, 1.0) if size == 0.0 else (-1e-289, 1e-289)
    room = (high - low) * padding if high - low > 1e-12 * size else size * 0.05
    return low - room, high + room


def padded_log(low: float, high: float) -> tuple[float, float]:
    room = (math.log10(high) - math.log10(low)) * PADDING
    ratio = 10.0**room if room > 1e-12 else 1.05
    return max(low / ratio, 5e-324), min(high * ratio, 1e308)
