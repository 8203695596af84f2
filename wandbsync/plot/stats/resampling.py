"""Statistics of a few runs, and how sure they are.

After Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021, and its
library rliable.

A table has a row for each run and a column for each place in x; NaN where a run has no value. Each statistic here is
the mean of some of the values in order: of all (mean), of the middle half (interquartile mean: a quarter of the values
is cut off at either end, rounded down, as scipy's trim_mean does), of the one or two in the middle (median), of the
first or of the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TIMES = 2_000  # resamplings, as many as rliable takes for profiles
INTERVAL = (2.5, 97.5)  # percent
COLUMNS = 256  # of a table, resampled at once: what is in use stays in the processor's cache
KINDS = ("mean", "iqm", "median", "min", "max")


def middle(kind: str, count: int) -> tuple[int, int]:
    """From which to which of so many values in order the mean is taken."""
    cut = {"mean": 0, "iqm": count // 4, "median": (count - 1) // 2, "min": 0, "max": count - 1}[kind]
    return cut, {"min": 1, "max": count}.get(kind, count - cut)


def statistic(table: FloatArray, kind: str) -> FloatArray:
    """One value a column; NaN where no run has one."""
    found = np.full(table.shape[1], np.nan)
    for columns, rows in _alike(table):
        start, stop = middle(kind, len(rows))
        values = table[np.ix_(rows, columns)]
        if kind in ("iqm", "median"):
            values = np.sort(values, axis=0)
        elif kind != "mean":
            values, start, stop = (values.min if kind == "min" else values.max)(axis=0)[np.newaxis], 0, 1
        found[columns] = values[start:stop].mean(axis=0)
    return found


def bootstrap(
    table: FloatArray, kind: str, *, strata: Sequence[str] | None = None, times: int = TIMES
) -> tuple[FloatArray, FloatArray]:
    """Between which values the statistic lies in 95 of 100 resamplings of the runs: the percentile bootstrap.

    With `strata` (a name for each run, such as its task) runs are drawn from their own stratum only, as many as it has.
    All places of a curve are resampled alike. The same table gives the same interval. NaN where there is one run.
    """
    low, high = (np.full(table.shape[1], np.nan) for _ in range(2))
    for columns, rows in _alike(table):
        if len(rows) < 2:
            continue
        counts = _drawn(None if strata is None else [strata[row] for row in rows], len(rows), times)
        start, stop = middle(kind, len(rows))
        for first in range(0, len(columns), COLUMNS):
            some = columns[first : first + COLUMNS]
            found = _resampled(table[np.ix_(rows, some)], counts, start, stop)
            low[some], high[some] = np.percentile(found, INTERVAL, axis=1)
    return low, high


def profile(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """At each score, ascending and twice, which runs have more: just below it, and at it. A table of 0 and 1.

    The mean of a column is the share of runs above a score tau: the run-score distribution of a performance profile.
    """
    tau = np.unique(scores)
    above = np.empty((len(scores), 2 * len(tau)))
    above[:, ::2] = scores[:, np.newaxis] >= tau
    above[:, 1::2] = scores[:, np.newaxis] > tau
    return np.repeat(tau, 2), above


def _alike(table: FloatArray) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Columns in which the same runs have values, and these runs."""
    there = ~np.isnan(table)
    patterns, which = np.unique(there, axis=1, return_inverse=True)
    which = which.reshape(-1)
    for i in range(patterns.shape[1]):
        rows = np.flatnonzero(patterns[:, i])
        if len(rows):
            yield np.flatnonzero(which == i), rows


def _drawn(strata: Sequence[str] | None, runs: int, times: int) -> npt.NDArray[np.int16]:
    """How often each run is in each resampling: runs by times."""
    rng = np.random.default_rng(runs)
    counts = np.empty((runs, times), np.int16)
    names = np.zeros(runs) if strata is None else np.array(strata)
    for name in np.unique(names):
        of = np.flatnonzero(names == name)
        drawn = rng.integers(0, len(of), (len(of), times))
        for place, row in enumerate(of):
            counts[row] = (drawn == place).sum(axis=0)
    return counts


def _resampled(values: FloatArray, counts: npt.NDArray[np.int16], start: int, stop: int) -> FloatArray:
    """The mean of the ordered values from start to stop, of each column (rows of the result) in each resampling."""
    runs, times = counts.shape
    if (start, stop) == (0, runs):
        means: FloatArray = values.T @ (counts / float(runs))
        return means
    order = np.argsort(values, axis=0)
    total = np.zeros((values.shape[1], times))
    seen = np.zeros((values.shape[1], times), np.int16)
    taken = np.zeros_like(seen)  # how many of those seen are between start and stop
    for row in order:
        seen += counts[row]
        now = np.clip(seen, start, stop)
        now -= start
        total += (now - taken) * np.take_along_axis(values, row[np.newaxis], axis=0).T
        taken = now
    total /= stop - start
    return total
