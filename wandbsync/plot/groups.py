"""Several runs as one: a line through the middle and bands around it, at common places in x.

Where the runs have few different places in x, all of them are taken, and a run is interpolated between its own points.
Where there are more, the range is cut into buckets and each run counts with the mean of all its values there. A run
counts from its first to its last point only, and everywhere the same, however often it logged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .stats.resampling import bootstrap, statistic
from .trace import FloatArray

PLACES = 1_000  # buckets; up to twice as many places are taken as they are


Places = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The statistics at each place; NaN where they are undefined."""

    x: FloatArray
    line: FloatArray
    bands: tuple[tuple[FloatArray, FloatArray], ...]
    count: npt.NDArray[np.intp]  # the runs that count there


def combine(
    members: Sequence[tuple[npt.NDArray[Any], FloatArray]],
    *,
    line: str,
    bands: Sequence[str],
    strata: Sequence[str] | None = None,
) -> Group:
    """One group from the x (ascending) and y of each run; values that are not finite do not count.

    `strata` names for each run what it is resampled within: see `bootstrap`.
    """
    known, names = [], []
    for i, (x, y) in enumerate(members):
        keep = np.isfinite(y) & np.isfinite(x)
        if keep.any():
            known.append((x[keep].astype(np.float64), y[keep]))
            names.append("" if strata is None else strata[i])
    if not known:
        nothing = np.empty(0)
        return Group(nothing, nothing, tuple((nothing, nothing) for _ in bands), np.empty(0, np.intp))
    x, edges = _places([one for one, _ in known])
    table = np.full((len(known), len(x)), np.nan)
    for row, (places, values) in zip(table, known, strict=True):
        if edges is None:
            own, which = np.unique(places, return_inverse=True)
            means = values if len(own) == len(values) else np.bincount(which, values) / np.bincount(which)
        else:
            bucket = np.minimum(np.searchsorted(edges, places, side="right") - 1, len(x) - 1)
            counts = np.bincount(bucket, minlength=len(x))
            filled = counts > 0
            own, means = x[filled], np.bincount(bucket, values, minlength=len(x))[filled] / counts[filled]
        row[:] = np.interp(x, own, means, left=np.nan, right=np.nan)
    count = np.count_nonzero(~np.isnan(table), axis=0)
    some = count > 0
    x, table, count = x[some], table[:, some], count[some]
    around = [
        bootstrap(table, line, strata=names) if band == "bootstrap" else _band(table, count, band) for band in bands
    ]
    return Group(x, statistic(table, line), tuple(around), count)


def _places(xs: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray | None]:
    """The common places; and the edges of their buckets, if they are that."""
    if sum(map(len, xs)) <= 200 * PLACES or len(xs[0]) <= 2 * PLACES:
        every = np.unique(np.concatenate(xs))
        if len(every) <= 2 * PLACES:
            return every, None
    low, high = min(float(x[0]) for x in xs), max(float(x[-1]) for x in xs)
    edges = np.linspace(low, high, PLACES + 1)
    return (edges[:-1] + edges[1:]) / 2.0, edges


def _band(table: FloatArray, count: npt.NDArray[np.intp], kind: str) -> tuple[FloatArray, FloatArray]:
    """min and max; the mean and, either way, the standard deviation (of the population, as W&B has it), that divided
    by sqrt(n), or Student's 95 % confidence interval of the mean; the quartiles."""
    if kind == "minmax":
        return np.nanmin(table, axis=0), np.nanmax(table, axis=0)
    if kind == "iqr":
        low, high = np.nanpercentile(table, (25.0, 75.0), axis=0)
        return low, high
    mean, away = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
    if kind == "sem":
        away = away / np.sqrt(count)
    elif kind == "ci":
        several = count > 1
        factor = np.full(len(count), np.nan)
        for n in np.unique(count[several]).tolist():
            factor[count == n] = student95(n - 1) / math.sqrt(n - 1)  # of the sample's deviation, over sqrt(n)
        away = away * factor
    return mean - away, mean + away


@cache
def student95(freedom: int) -> float:
    """Between minus and plus which a value of Student's t lies in 95 of 100 cases."""
    low, high = 1.9, 13.0
    while high - low > 1e-13 * high:
        middle = (low + high) / 2.0
        if middle in (low, high):
            break
        low, high = (middle, high) if _student(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2.0


def _student(t: float, freedom: int) -> float:
    """How likely it is that Student's t is between -t and t; the sum that this is for a whole number of degrees."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2.0 / math.pi * (angle + sine * total) if odd else sine * total
