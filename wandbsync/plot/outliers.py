"""Few points that would take nearly all of a y axis: found by quantiles, so that the others can have it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .scale import Extent
from .trace import FloatArray

SAMPLE = 20_000  # values that quantiles are taken from; whatever they say is counted in all values
FEW = 100  # one in so many, at either end, may be left out; of fewer values two
LEAST = 20  # values; of fewer none is left out
NEARLY_ALL = 9.0  # times the height of all other values
ROOM = 0.5  # of that height, beyond them


def sample(arrays: Sequence[FloatArray]) -> FloatArray:
    """Values from all along some arrays, no more from each than its share, ascending."""
    every = max(sum(map(len, arrays)) // SAMPLE, 1)
    return np.sort(np.concatenate([array[::every] for array in arrays]))


def without_few(arrays: Sequence[FloatArray], whole: Extent, last: Sequence[float], *, log: bool) -> Extent:
    """The extent of some values, on a logarithmic axis or a linear one, without few that would take nearly all of it.

    Values that are all one but for a few have no other extent than these give them: they are left as they are. So is an
    end of the axis where most of the lines end, by their `last` values: that they run away is what is to be seen.
    """
    count = sum(map(len, arrays))
    if count < LEAST:
        return whole
    few = max(count // FEW, 1 if count < 2 * LEAST else 2)
    values = sample(arrays)
    ends = (whole.positive if log else whole.low, whole.high)
    if log:
        values = np.log10(values[values > 0.0])
        ends = (float(np.log10(ends[0])), float(np.log10(ends[1])))
    aside = -(-few * len(values) // count)
    if len(values) <= 2 * aside:
        return whole
    low, high = float(values[aside]), float(values[-1 - aside])
    height = high - low
    if not height > 0.0:
        return whole
    found = list(ends)
    for side, inner, way in ((0, low, -1.0), (1, high, 1.0)):
        limit = inner + way * ROOM * height
        if (ends[side] - inner) * way <= NEARLY_ALL * height:
            continue
        edge = 10.0**limit if log else limit
        runaways = sum((one - edge) * way > 0.0 for one in last)
        if 2 * runaways <= len(last) and _outside(arrays, edge, below=side == 0, positive=log) <= few:
            found[side] = limit
    if found == list(ends):
        return whole
    low, high = (10.0**one for one in found) if log else found
    return Extent(whole.low if log else low, high, low if log else whole.positive)


def _outside(arrays: Sequence[FloatArray], edge: float, *, below: bool, positive: bool) -> int:
    """How many values are beyond an edge; on a logarithmic axis those below 0 are nowhere."""
    if not below:
        return sum(int(np.count_nonzero(array > edge)) for array in arrays)
    return sum(int(np.count_nonzero((array < edge) & (array > 0.0) if positive else array < edge)) for array in arrays)


def skewed(arrays: Sequence[FloatArray], extent: Extent) -> bool:
    """Whether the values of a positive quantity lie nearer to the middle of a logarithmic axis than of a linear one."""
    values = sample(arrays)
    values = values[values > 0.0]
    low, middle, high = extent.positive, float(values[len(values) // 2]), extent.high
    linear = (middle / high - low / high) / (1.0 - low / high)
    logarithmic = (math.log(middle) - math.log(low)) / (math.log(high) - math.log(low))
    return linear + logarithmic <= 1.0
