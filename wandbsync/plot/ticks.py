"""Where ticks stand, and numbers in as few plain characters as tell them apart: 0, 250k, 1.5M, 0.05, 2.5e-7."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_PLAIN = (1e-4, 1e15)  # sizes outside are written with an exponent


def linear_ticks(low: float, high: float, most: int, *, integer: bool = False) -> list[float]:
    """Round numbers from low to high, at most about `most` of them."""
    size = max(abs(low), abs(high))
    if not 1e-200 < size < 1e200:  # the locator takes such limits for 0, or overflows
        unit = 10.0 ** math.floor(math.log10(size))
        return [tick * unit for tick in linear_ticks(low / unit, high / unit, most)]
    locator = MaxNLocator(nbins=max(most, 1), steps=[1, 2, 2.5, 5, 10], integer=integer, min_n_ticks=1)
    slack = (high - low) * 1e-9
    return [float(tick) for tick in locator.tick_values(low, high) if low - slack <= tick <= high + slack]


def log_ticks(low: float, high: float) -> tuple[list[float], list[float]]:
    """Major and minor ticks between two positive numbers for a log axis."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1)

    def within(digits: Sequence[int], stride: int = 1) -> list[float]:
        exponents = (exponent for exponent in decades if exponent % stride == 0)
        ticks = (float(f"{digit}e{exponent}") for exponent in exponents for digit in digits)
        return [tick for tick in ticks if low <= tick <= high]

    digits_by_density = ((1, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,))
    minor = within(range(1, 10)) if len(decades) <= 8 else []
    for digits in digits_by_density:
        ticks = within(digits)
        if 3 <= len(ticks) <= 8:
            return ticks, minor
    if len(within((1,))) > 8:
        stride = math.ceil(len(decades) / 7)
        return within((1,), stride), [] if stride > 8 else within((1,))
    return linear_ticks(low, high, 5), minor


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """The ticks of one axis as text, each with as many digits as tell neighbours apart."""
    if not ticks:
        return []
    gaps = [b - a for a, b in pairwise(ticks) if b > a]
    largest = max(abs(tick) for tick in ticks)
    step = min(gaps, default=largest) or 1.0
    ticks = [0.0 if abs(tick) < step * 1e-6 else tick for tick in ticks]
    if not _PLAIN[0] <= largest < _PLAIN[1]:
        return [_minus(_exponent(tick, step)) for tick in ticks]
    decimals = _decimals(ticks, 1.0, step)
    if largest >= 1e3:
        units = [next(u for u in _UNITS if abs(tick) >= u[0] or u[0] == 1.0) for tick in ticks]
        short = [_decimals([tick], unit, step) for tick, (unit, _) in zip(ticks, units, strict=True)]
        if max(short) <= 3:
            return [
                _minus(f"{tick / unit:.{places}f}{suffix}")
                for tick, (unit, suffix), places in zip(ticks, units, short, strict=True)
            ]
    return [_minus(f"{tick:.{decimals}f}" if tick else "0") for tick in ticks]


def value_text(value: float) -> str:
    """One value with three significant digits."""
    rounded = float(f"{value:.2e}")
    size = abs(rounded)
    if value == 0.0:
        return "0"
    if not _PLAIN[0] <= size < _PLAIN[1]:
        return _minus(_exponent(rounded, size / 100))
    if float(value).is_integer() and abs(value) < 1e4:
        return _minus(f"{value:.0f}")
    unit, suffix = next(u for u in _UNITS if size >= u[0] or u[0] == 1.0) if size >= 1e4 else (1.0, "")
    places = max(0, 2 - math.floor(math.log10(size / unit)))
    return _minus(f"{value / unit:.{places}f}{suffix}")


def _decimals(values: Sequence[float], unit: float, step: float) -> int:
    """The fewest decimals that show each value to a thousandth of a step."""
    for places in range(18):
        if all(abs(round(value / unit, places) - value / unit) < step / unit * 1e-3 for value in values):
            return places
    return 18


def _exponent(value: float, step: float) -> str:
    if value == 0.0:
        return "0"
    digits = min(max(math.floor(math.log10(abs(value))) - math.floor(math.log10(step)) + 1, 0), 15)
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def _minus(number: str) -> str:
    return f"−{number[1:]}" if number.startswith("-") else number
