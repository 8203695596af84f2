"""Where ticks stand, and numbers in as few plain characters as tell them apart: 0, 250k, 1.5M, 0.05, 2.5e-7."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

from .scale import in_units, power_of_ten

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_STRIDES = (2, 3, 4, 5, 6, 10, 15, 20, 25, 30, 50, 100)  # decades between two ticks; floats have 632 of them
_PLAIN = (1e-4, 1e15)  # sizes outside are written with an exponent


def linear_ticks(low: float, high: float, most: int, *, integer: bool = False) -> list[float]:
    """Round numbers from low to high, at most about `most` of them."""
    if power := power_of_ten(max(abs(low), abs(high))):
        ticks = linear_ticks(in_units(low, power), in_units(high, power), most)
        return list(dict.fromkeys(tick for tick in (in_units(tick, -power) for tick in ticks) if low <= tick <= high))
    locator = MaxNLocator(nbins=max(most, 1), steps=[1, 2, 2.5, 5, 10], integer=integer, min_n_ticks=1)
    slack = (high - low) * 1e-9
    return [float(tick) for tick in locator.tick_values(low, high) if low - slack <= tick <= high + slack]


def log_ticks(low: float, high: float, apart: float = 0.0) -> tuple[list[float], list[float]]:
    """Major and minor ticks between two positive numbers for a log axis, the major ones that share of it apart."""
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
        if 3 <= len(ticks) <= 8 and _apart(ticks, low, high) >= apart:
            return ticks, minor
    if len(within((1,))) > 8:
        stride = next(one for one in _STRIDES if one * 7 >= len(decades))
        return within((1,), stride), [] if stride > 8 else within((1,))
    for digits in digits_by_density[1:]:
        ticks = within(digits)
        if len(ticks) >= 2 and _apart(ticks, low, high) >= apart:
            return ticks, minor
    return linear_ticks(low, high, 5), minor


def _apart(ticks: Sequence[float], low: float, high: float) -> float:
    """Which share of a log axis lies between the nearest two ticks."""
    whole = math.log10(high) - math.log10(low)
    return min((math.log10(b) - math.log10(a) for a, b in pairwise(ticks)), default=whole) / (whole or 1.0)


def tick_texts(ticks: Sequence[float], *, power: int = 0) -> list[str]:
    """The ticks of one axis as text, each with as many digits as tell neighbours apart; counted in 10**power."""
    if not ticks:
        return []
    gaps = [b - a for a, b in pairwise(ticks) if b > a]
    largest = max(abs(tick) for tick in ticks)
    step = min(gaps, default=largest) or 1.0
    ticks = [0.0 if abs(tick) < step * 1e-6 else tick for tick in ticks]
    if power or not _PLAIN[0] <= largest < _PLAIN[1]:
        return [_minus(_exponent(tick, _digits(tick, step / 10.0), power)) for tick in ticks]
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


def value_text(value: float, *, span: float = math.inf, power: int = 0) -> str:
    """One value with three significant digits, or as many as show a hundredth of `span`; counted in 10**power."""
    if value == 0.0:
        return "0"
    digits = max(3, _digits(value, span / 100.0))
    size = abs(float(f"{value:.{digits - 1}e}"))
    if power or not _PLAIN[0] <= size < _PLAIN[1]:
        return _minus(_exponent(value, digits, power))
    whole = float(value).is_integer()
    if whole and size < 1e4:
        return _minus(f"{value:.0f}")
    unit, suffix = next(u for u in _UNITS if size >= u[0] or u[0] == 1.0) if size >= 1e4 else (1.0, "")
    places = max(0, digits - 1 - math.floor(math.log10(size / unit)))
    if suffix and places > 3:
        unit, suffix, places = 1.0, "", 0 if whole else max(0, digits - 1 - math.floor(math.log10(size)))
    return _minus(f"{value / unit:.{places}f}{suffix}")


def percent_text(value: float) -> str:
    """One value between 0 and 1 as a percentage, with three significant digits or a decimal."""
    if value in (0.0, 1.0):
        return f"{value:.0%}"
    return value_text(value * 100.0) + "%" if value < 0.1 else f"{value:.1%}"


def _decimals(values: Sequence[float], unit: float, step: float) -> int:
    """The fewest decimals that show each value to a thousandth of a step."""
    for places in range(18):
        if all(abs(round(value / unit, places) - value / unit) < step / unit * 1e-3 for value in values):
            return places
    return 18


def _digits(value: float, step: float) -> int:
    """How many significant digits show a value to a step."""
    if value == 0.0 or not 0.0 < step < math.inf:
        return 1
    return min(max(math.floor(math.log10(abs(value))) - math.floor(math.log10(step)) + 1, 1), 16)


def _exponent(value: float, digits: int, power: int) -> str:
    if value == 0.0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent) + power}"


def _minus(number: str) -> str:
    return f"−{number[1:]}" if number.startswith("-") else number


_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_DAYS = (1, 2, 5, 7, 14)
_MONTHS = (1, 2, 3, 4, 6, 12, 24, 60, 120, 240, 600, 1200, 2400, 6000)
_MONTH = 365.2425 / 12.0 * 86400.0  # seconds


def time_ticks(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    """Round moments between two unix times, at most `most` of them, and how they read in UTC; each new day is named."""
    low, high = max(low, 0.0), min(high, 253402300799.0)
    span = high - low
    if span < most:
        ticks = linear_ticks(low, high, most)
        second = [datetime.fromtimestamp(math.floor(tick), timezone.utc) for tick in ticks]
        shown = tick_texts([tick - math.floor(low) for tick in ticks])
        return ticks, [f"{second[0]:%H:%M:%S} +{one} s" if i == 0 else f"+{one} s" for i, one in enumerate(shown)]
    step = next((one for one in _SECONDS if span / one <= most), 0)
    if step:
        ticks = [float(step * k) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
        moments = [datetime.fromtimestamp(tick, timezone.utc) for tick in ticks]
        form = "%H:%M:%S" if step < 60 else "%H:%M"
        texts = []
        for i, moment in enumerate(moments):
            new_day = i == 0 or moment.date() != moments[i - 1].date()
            texts.append(
                f"{moment:%b} {moment.day}" + ("" if step == 86400 else f", {moment:{form}}")
                if new_day
                else f"{moment:{form}}"
            )
        return ticks, texts
    days = next((one for one in _DAYS if span / 86400 / one <= most), 0)
    if not days:
        return _month_ticks(low, high, next((one for one in _MONTHS if span / _MONTH / one <= most), 12000))
    ticks = [86400.0 * days * k for k in range(math.ceil(low / 86400 / days), math.floor(high / 86400 / days) + 1)]
    moments = [datetime.fromtimestamp(tick, timezone.utc) for tick in ticks]
    return ticks, [f"{one:%b} {one.day}" for one in moments]


def _month_ticks(low: float, high: float, months: int) -> tuple[list[float], list[str]]:
    """The beginnings of every so many-th month, or of years."""
    first, last = (datetime.fromtimestamp(end, timezone.utc) for end in (low, high))
    since, until = (moment.year * 12 + moment.month - 1 for moment in (first, last))
    counted = range(math.ceil(since / months), until // months + 1)
    moments = [datetime(k * months // 12, k * months % 12 + 1, 1, tzinfo=timezone.utc) for k in counted]
    moments = [one for one in moments if low <= one.timestamp() <= high]
    return [one.timestamp() for one in moments], [
        f"{one:%Y}" if months % 12 == 0 else f"{one:%b %Y}" for one in moments
    ]
