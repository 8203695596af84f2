"""What is known of one metric without reading its rows: sums that can be merged, kept at every commit.

Mean and spread follow Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for computing
sample variances": two halves merge without losing digits, however large the values are. The mean is kept as two
floats, since a spread of 1 around 1e15 is lost in the last digit of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..model import Kind

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Number = TypeVar("Number", float, NDArray[np.float64])

LARGE, SMALL = 1e140, 1e-140  # beyond these, squares overflow or vanish
NOTHING = (None, None, None, None, None)


@dataclass(frozen=True, slots=True)
class Stat:
    """One metric of one stream. min, max, mean and std are over the finite numbers; null where there are none."""

    kinds: int = 0  # bit 1 << kind for every kind seen
    count: int = 0  # values, None included
    nulls: int = 0
    nans: int = 0
    infinities: int = 0
    numbers: int = 0  # finite numbers
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    rest: float | None = None  # what the mean's last digit leaves out
    deviation: float | None = None  # root mean square of the differences from the mean
    first_step: int | None = None  # of the first row that is not null, in order of step; of all rows if all are null
    last_step: int | None = None
    first_value: float | None = None  # of that first row
    first_kind: int | None = None
    first_json: str | None = None
    last_value: float | None = None
    last_kind: int | None = None
    last_json: str | None = None

    @property
    def non_null(self) -> int:
        return self.count - self.nulls

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1), as pandas has it; None below two numbers."""
        return sample_std(self.deviation, self.numbers)


def sample_std(deviation: float | None, numbers: int) -> float | None:
    """The sample standard deviation from that of the population; None below two numbers."""
    if numbers < 2 or deviation is None:
        return None
    if SMALL < deviation < LARGE:
        return math.sqrt(deviation * deviation * numbers / (numbers - 1))  # 1.0 for 1, 2, 3
    return deviation * math.sqrt(numbers / (numbers - 1))


def merge(old: Stat, new: Stat) -> Stat:
    """The stat of both sets of rows together; `new` counts as later where steps are equal."""
    if not old.count:
        return new
    if not new.count:
        return old
    low, high, mean, rest, deviation = _spread(old, new)
    assert old.first_step is not None and new.first_step is not None
    assert old.last_step is not None and new.last_step is not None
    if (old.first_kind is None) != (new.first_kind is None):  # one of them is all null and has no say
        first = last = old if new.first_kind is None else new
    else:
        first = new if new.first_step < old.first_step else old
        last = old if old.last_step > new.last_step else new
    return Stat(
        kinds=old.kinds | new.kinds,
        count=old.count + new.count,
        nulls=old.nulls + new.nulls,
        nans=old.nans + new.nans,
        infinities=old.infinities + new.infinities,
        numbers=old.numbers + new.numbers,
        min=low,
        max=high,
        mean=mean,
        rest=rest,
        deviation=deviation,
        first_step=first.first_step,
        last_step=last.last_step,
        first_value=first.first_value,
        first_kind=first.first_kind,
        first_json=first.first_json,
        last_value=last.last_value,
        last_kind=last.last_kind,
        last_json=last.last_json,
    )


def _spread(old: Stat, new: Stat) -> tuple[float | None, ...]:
    """min, max, mean, rest and deviation of both together."""
    if not (old.numbers and new.numbers):
        one = old if old.numbers else new
        return one.min, one.max, one.mean, one.rest, one.deviation
    assert old.mean is not None and old.rest is not None and old.deviation is not None
    assert new.mean is not None and new.rest is not None and new.deviation is not None
    assert old.min is not None and old.max is not None and new.min is not None and new.max is not None
    low, high = min(old.min, new.min), max(old.max, new.max)
    if low == high:
        return low, high, low, 0.0, 0.0
    a, b = old.numbers / (old.numbers + new.numbers), new.numbers / (old.numbers + new.numbers)
    half = (new.mean / 2 - old.mean / 2) + (new.rest - old.rest) / 2  # the difference itself may overflow
    mean, rest = _two_sum(old.mean, old.rest + 2 * half * b)
    if not math.isfinite(mean + rest):
        mean, rest = old.mean * a + new.mean * b, 0.0
    deviation = math.hypot(old.deviation * math.sqrt(a), new.deviation * math.sqrt(b), half * (2 * math.sqrt(a * b)))
    return low, high, mean, rest, deviation


def _two_sum(a: Number, b: Number) -> tuple[Number, Number]:
    """a + b as a float, and what it leaves out (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def measure(
    starts: NDArray[np.int64],
    step: NDArray[np.int64],
    value: NDArray[np.float64],
    kind: NDArray[np.uint8],
    text: pa.Array | None,
) -> Iterator[Stat]:
    """One Stat for each group of rows; group i is rows starts[i]:starts[i + 1], sorted by step.

    All arrays are aligned and of equal length; `starts` ascends from 0 and every group has at least one row.
    """
    import numpy as np

    if not len(starts):
        return
    ends = np.append(starts[1:], len(step))
    sizes = ends - starts

    def counted(which: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.add.reduceat(which, starts, dtype=np.int64) if which.any() else np.zeros_like(starts)

    number = (kind == Kind.FLOAT) | (kind == Kind.INT) | (kind == Kind.BOOL) | (kind == Kind.BIGINT)
    finite = number & np.isfinite(value)
    null = kind == Kind.NULL
    numbers = sizes - counted(~finite)
    if finite.all():  # as nearly always
        low, high, zeroed = np.minimum.reduceat(value, starts), np.maximum.reduceat(value, starts), value
    else:
        low = np.minimum.reduceat(np.where(finite, value, np.inf), starts)
        high = np.maximum.reduceat(np.where(finite, value, -np.inf), starts)
        zeroed = np.where(finite, value, 0.0)
    top = np.where(numbers > 0, np.maximum(np.abs(low), np.abs(high)), 0.0)
    mean, rest, deviation = _moments(starts, sizes, zeroed, finite, numbers, top)
    same = low == high
    mean, rest, deviation = np.where(same, low, mean), np.where(same, 0.0, rest), np.where(same, 0.0, deviation)
    counts = zip(
        np.bitwise_or.reduceat(np.left_shift(np.uint8(1), kind), starts).tolist(),
        sizes.tolist(),
        counted(null).tolist(),
        counted(number & np.isnan(value)).tolist(),
        counted(number & np.isinf(value)).tolist(),
        numbers.tolist(),
        strict=True,
    )
    spreads = zip(*(part.tolist() for part in (low, high, mean, rest, deviation)), strict=True)
    first, last = starts, ends - 1
    if null.any():
        given = np.flatnonzero(~null)
        some = np.logical_or.reduceat(~null, starts)
        first, last = first.copy(), last.copy()
        first[some] = given[np.searchsorted(given, starts[some])]
        last[some] = given[np.searchsorted(given, ends[some]) - 1]
    given_first, given_last = (_rows(index, value, kind, text) for index in (first, last))
    edges = zip(step[first].tolist(), step[last].tolist(), given_first, given_last, strict=True)
    for count, spread, (first_step, last_step, a, b) in zip(counts, spreads, edges, strict=True):
        fields = (*count, *(spread if count[-1] else NOTHING), first_step, last_step, *a, *b)
        yield Stat(*fields)


def _moments(
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    value: NDArray[np.float64],
    finite: NDArray[np.bool_],
    numbers: NDArray[np.int64],
    top: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, its rest and the deviation of each group's finite values, of which it has `numbers`; the others are 0.

    `top` is the largest magnitude in each.
    """
    import numpy as np

    numbers = np.maximum(numbers, 1)
    extreme = (top > LARGE) | (top < SMALL)
    power = np.where(extreme, np.frexp(top)[1], 0)
    if extreme.any():
        value = np.ldexp(value, -np.repeat(power, sizes))
    other = None if finite.all() else ~finite

    def less(value: NDArray[np.float64], each: NDArray[np.float64]) -> NDArray[np.float64]:
        off = np.repeat(each, sizes)
        np.subtract(value, off, out=off)
        if other is not None:
            off[other] = 0.0
        return off

    guess = np.add.reduceat(value, starts) / numbers
    off = less(value, guess)
    shift = np.add.reduceat(off, starts) / numbers
    off = less(off, shift)
    off *= off
    deviation = np.sqrt(np.add.reduceat(off, starts) / numbers)
    mean, rest = _two_sum(guess, shift)
    return np.ldexp(mean, power), np.ldexp(rest, power), np.ldexp(deviation, power)


def _rows(
    index: NDArray[np.int64], value: NDArray[np.float64], kind: NDArray[np.uint8], text: pa.Array | None
) -> Iterator[tuple[float | None, int | None, str | None]]:
    """Value, kind and text of these rows; nothing of those that are null."""
    import pyarrow as pa

    texts = [None] * len(index) if text is None else text.take(pa.array(index)).to_pylist()
    for number, what, words in zip(value[index].tolist(), kind[index].tolist(), texts, strict=True):
        if what == Kind.NULL:
            yield None, None, None
        elif what == Kind.JSON or (what == Kind.LINE and math.isnan(number)):
            yield None, what, words
        else:
            yield number, what, words
