"""What is known of one metric without reading its rows: sums that can be merged, kept at every commit.

Mean and spread follow Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for computing
sample variances": two halves merge without losing digits, however large the values are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..model import Kind

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


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
    m2: float | None = None  # sum of squared differences from the mean
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
        if self.numbers < 2 or self.m2 is None:
            return None
        return math.sqrt(self.m2 / (self.numbers - 1))


def merge(old: Stat, new: Stat) -> Stat:
    """The stat of both sets of rows together; `new` counts as later where steps are equal."""
    if not old.count:
        return new
    if not new.count:
        return old
    numbers = old.numbers + new.numbers
    low, high, mean, m2 = new.min, new.max, new.mean, new.m2
    if old.numbers and new.numbers:
        assert old.mean is not None and new.mean is not None and old.m2 is not None and new.m2 is not None
        assert old.min is not None and new.min is not None and old.max is not None and new.max is not None
        share = new.numbers / numbers
        delta = new.mean - old.mean
        # The weighted form overflows only where the mean itself would.
        mean = old.mean + delta * share if math.isfinite(delta) else old.mean * (1 - share) + new.mean * share
        m2 = old.m2 + new.m2 + delta * delta * (old.numbers * share)
        low, high = min(old.min, new.min), max(old.max, new.max)
    elif old.numbers:
        low, high, mean, m2 = old.min, old.max, old.mean, old.m2
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
        numbers=numbers,
        min=low,
        max=high,
        mean=mean,
        m2=m2,
        first_step=first.first_step,
        last_step=last.last_step,
        first_value=first.first_value,
        first_kind=first.first_kind,
        first_json=first.first_json,
        last_value=last.last_value,
        last_kind=last.last_kind,
        last_json=last.last_json,
    )


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
    number = (kind == Kind.FLOAT) | (kind == Kind.INT) | (kind == Kind.BOOL) | (kind == Kind.BIGINT)
    finite = number & np.isfinite(value)
    with np.errstate(over="ignore", invalid="ignore"):
        kept = np.where(finite, value, 0.0)
        numbers = np.add.reduceat(finite, starts, dtype=np.int64)
        divisor = np.maximum(numbers, 1)
        mean = np.add.reduceat(kept, starts) / divisor
        if not np.isfinite(mean).all():  # the sum overflowed though the mean does not
            mean = np.add.reduceat(kept / np.repeat(divisor, sizes), starts)
        off = np.where(finite, value - np.repeat(mean, sizes), 0.0)
        m2 = np.add.reduceat(off * off, starts)
        low = np.minimum.reduceat(np.where(finite, value, np.inf), starts)
        high = np.maximum.reduceat(np.where(finite, value, -np.inf), starts)
    nans = np.add.reduceat(number & np.isnan(value), starts, dtype=np.int64)
    infinities = np.add.reduceat(number & np.isinf(value), starts, dtype=np.int64)
    null = kind == Kind.NULL
    nulls = np.add.reduceat(null, starts, dtype=np.int64)
    kinds = np.bitwise_or.reduceat(np.left_shift(1, kind.astype(np.int64)), starts)

    def at(index: int) -> tuple[float | None, int, str | None]:
        here = int(kind[index])
        plain = None if here == Kind.JSON or (here == Kind.LINE and math.isnan(value[index])) else float(value[index])
        return plain, here, text[index].as_py() if text is not None else None

    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        first, last = start, end - 1
        stat = Stat(
            kinds=int(kinds[i]),
            count=end - start,
            nulls=int(nulls[i]),
            nans=int(nans[i]),
            infinities=int(infinities[i]),
            numbers=int(numbers[i]),
        )
        if stat.numbers:
            stat = replace(stat, min=float(low[i]), max=float(high[i]), mean=float(mean[i]), m2=float(m2[i]))
        if stat.non_null:
            if stat.nulls:
                given = np.flatnonzero(~null[start:end])
                first, last = start + int(given[0]), start + int(given[-1])
            a, b = at(first), at(last)
            stat = replace(
                stat,
                first_value=a[0],
                first_kind=a[1],
                first_json=a[2],
                last_value=b[0],
                last_kind=b[1],
                last_json=b[2],
            )
        yield replace(stat, first_step=int(step[first]), last_step=int(step[last]))
