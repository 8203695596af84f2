"""Averages that look before and after: W&B's running average and its gaussian smoothing; rules as in `smoothing`.

The gaussian is a sum over all pairs of points, a million million of them for a million points. It is had in two passes
over the points, as exactly (a fast Gauss transform): the points of a cell one sigma wide are summed up in a few Hermite
moments, the moments of all cells near by become the Taylor series of one cell, and each point reads off its own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..trace import FloatArray
from .ema import between, headroom, window_mean

TERMS = 20  # of a series; with cells of one sigma what is cut off is below 1e-16
REACH = 9  # cells; at a distance of nine sigma a weight is below 1e-17
FEW = 64  # points within reach of each other: of no more, pairs are summed up as they are
PIECE = 1 << 18  # points whose powers are held at once


def running_mean(y: npt.ArrayLike, points: int) -> FloatArray:
    """The mean of the `points` finite values around each, itself among them; at the ends, of those there are."""
    if points < 1:
        raise ValueError(f"points must be at least 1, not {points}")
    return window_mean(y, points // 2, (points - 1) // 2)


def gaussian(x: npt.ArrayLike, y: npt.ArrayLike, *, sigma: float) -> FloatArray:
    """The mean of all values, weighted by a normal distribution around each point; `sigma` is in the units of x.

    Sigma 0 averages the points of one x only. x need not be sorted. Exact to 1e-9 of the values' size, as long as many
    points are within reach of each other in no more than a million sigmas.
    """
    if not (sigma >= 0.0 and math.isfinite(sigma)):
        raise ValueError(f"sigma must be a number >= 0, not {sigma}")
    xs, ys = np.asarray(x), np.asarray(y, dtype=np.float64)
    out = np.full(ys.shape, np.nan)
    keep = np.isfinite(ys) & np.isfinite(xs)
    if not keep.any():
        return out
    places = xs[keep]
    distance = (places - places.min()).astype(np.float64)
    order = np.argsort(distance, kind="stable") if (np.diff(distance) < 0.0).any() else slice(None)
    distance, values = distance[order], ys[keep][order]
    scale = headroom(values)
    # Below a thousandth of a millionth of the range a float64 hardly tells two places apart: only equal ones count.
    if sigma <= float(distance[-1]) * 1e-12:
        cells = np.cumsum(np.diff(distance, prepend=distance[0]) > 0.0)
        means = (np.bincount(cells, values * scale) / np.bincount(cells))[cells]
    else:
        u = distance / sigma
        near = int((np.searchsorted(u, u + REACH) - np.arange(len(u))).max())
        means = _pairs(distance, sigma, values * scale, near) if near <= FEW else _transform(u, values * scale)
    smooth = np.empty(len(values))
    smooth[order] = between(means, values, scale)
    out[keep] = smooth
    return out


def _pairs(places: FloatArray, sigma: float, values: FloatArray, near: int) -> FloatArray:
    """The weighted means at ascending places, of which no more than `near` follow within reach."""
    sums: FloatArray = values.copy()
    weights = np.ones(len(values))
    for k in range(1, near):
        weight = np.exp(-0.5 * ((places[k:] - places[:-k]) / sigma) ** 2)
        sums[k:] += weight * values[:-k]
        sums[:-k] += weight * values[k:]
        weights[k:] += weight
        weights[:-k] += weight
    sums /= weights
    return sums


def _transform(u: FloatArray, values: FloatArray) -> FloatArray:
    """The weighted means at ascending places in units of sigma."""
    cell = np.floor(u)
    starts = np.flatnonzero(np.diff(cell, prepend=-1.0))
    ids = cell[starts]
    offset = (u - cell - 0.5) / math.sqrt(2.0)  # from the centre of the cell, in units where the weight is exp(-t*t)
    moments = np.empty((2, TERMS, len(ids)))  # of the values, and of as many ones
    power = np.ones(len(u))
    for k in range(TERMS):
        moments[0, k] = np.add.reduceat(values * power, starts)
        moments[1, k] = np.add.reduceat(power, starts)
        power *= offset / (k + 1)
    taylor = np.zeros_like(moments)
    for away in range(-REACH, REACH + 1):
        there = np.searchsorted(ids, ids + away)
        hit = there < len(ids)
        hit[hit] = ids[there[hit]] == ids[hit] + away
        if hit.any():
            taylor[:, :, hit] += _translation(away) @ moments[:, :, there[hit]]
    means = np.empty(len(u))
    which = np.cumsum(np.diff(cell, prepend=cell[0]) > 0.0)
    for start in range(0, len(u), PIECE):
        piece = slice(start, start + PIECE)
        sums = np.zeros((2, len(which[piece])))
        for b in range(TERMS - 1, -1, -1):
            sums *= offset[piece]
            sums += taylor[:, b, which[piece]]
        np.divide(sums[0], sums[1], out=means[piece])
    return means


def _translation(away: int) -> FloatArray:
    """Hermite moments of a cell so many cells away, as a Taylor series here: sum over a of [b, a] * moment a."""
    t = -away / math.sqrt(2.0)
    hermite = [math.exp(-t * t), 2.0 * t * math.exp(-t * t)]
    for n in range(1, 2 * TERMS):
        hermite.append(2.0 * t * hermite[n] - 2.0 * n * hermite[n - 1])
    matrix = np.array([[hermite[a + b] for a in range(TERMS)] for b in range(TERMS)])
    signs = np.array([(-1.0) ** b / math.factorial(b) for b in range(TERMS)])
    result: FloatArray = matrix * signs[:, np.newaxis]
    return result
