"""The two sums of a moving average in which old values fade, carried from piece to piece.

As a loop they are `last = last * fade + value` and `total = total * fade + 1`, and each waits for the one before. Here
none does: where points are equally far apart `fade` is one weight, and the sums are products with a matrix of powers
(`Rows`); where they are not, the common factor cancels, and both are one cumulative sum of complex numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..trace import FloatArray

ROW = 16  # values that one product adds up
TINY = 1e-290  # weights below are none: the processor is slow with the smallest floats


class Sums:
    """`last` and `total`; every method takes points, gives their averages in `out`, and carries both on."""

    def __init__(self) -> None:
        self.last = self.total = 0.0
        self._rows = Rows(math.nan)
        self._powers = self._totals = self._scratch = np.empty(0)  # of its weight

    def fade(self, factor: float) -> None:
        """As much as they have when the next point comes."""
        self.last, self.total = self.last * factor, self.total * factor

    def plain(self, fade: FloatArray, y: FloatArray, out: FloatArray) -> None:
        """Any points; `fade` is what the sums fade to before each."""
        smooth = []
        last, total = self.last, self.total
        for factor, value in zip(fade.tolist(), y.tolist(), strict=True):
            last = last * factor + value
            total = total * factor + 1.0
            smooth.append(last / total)
        out[:] = smooth
        self.last, self.total = last, total

    def even(self, weight: float, y: FloatArray, out: FloatArray) -> None:
        """Points that are equally far apart; the sums have faded already as the first of them comes."""
        n = len(y)
        if weight != self._rows.weight or n > len(self._powers):
            self._rows, self._powers = Rows(weight), _powers(weight, n)
            self._totals, self._scratch = np.empty(n), np.empty(n)
            self._rows.sums(np.ones(n), 0.0, self._totals)
        total = np.multiply(self._powers[:n], self.total, out=self._scratch[:n])
        total += self._totals[:n]
        self._rows.sums(y, self.last, out)
        self.last, self.total = float(out[-1]), float(total[-1])
        out /= total

    def running(
        self, away: FloatArray, grow: Callable[[FloatArray], FloatArray], y: FloatArray, out: FloatArray
    ) -> None:
        """Points at any distance from the first, which must not let `grow` outgrow a float64; the sums have faded."""
        growth = grow(away)
        terms = np.empty(len(y), dtype=np.complex128)
        np.multiply(y, growth, out=terms.real)
        terms.imag = growth
        terms[0] += complex(self.last, self.total)
        sums = np.cumsum(terms)
        np.divide(sums.real, sums.imag, out=out)
        self.last, self.total = (float(one / growth[-1]) for one in (sums[-1].real, sums[-1].imag))


class Rows:
    """The sums `s = s * weight + value`.

    What comes into a row of values from those before, and the values, times the powers of the weight, give the sums of
    the row. What comes in is the same sum again, of what each row adds up to.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        powers = _powers(weight, ROW)
        ahead = np.arange(ROW) - np.arange(ROW)[:, np.newaxis]
        self._matrix = np.vstack((powers, np.where(ahead >= 0, powers[ahead], 0.0)))
        self._of_ends: Rows | None = None
        self._wide = np.empty((0, ROW + 1))

    def sums(self, values: FloatArray, first: float, out: FloatArray) -> None:
        """All of them, beginning with first + value."""
        count = len(values) // ROW
        n = count * ROW
        if count < 2:
            self._loop(values, first, out)
            return
        if self._of_ends is None:
            self._of_ends = Rows(self.weight**ROW)
        if len(self._wide) < count:
            self._wide = np.empty((count, ROW + 1))
        rows, wide = values[:n].reshape(-1, ROW), self._wide[:count]
        coming = np.empty(count + 1)
        ends, fading = self._matrix[1:, -1], float(self._matrix[0, -1])
        self._of_ends.sums(rows @ ends, first * fading, coming[1:])
        coming *= self.weight
        coming[0] = first
        wide[:, 0], wide[:, 1:] = coming[:-1], rows
        np.matmul(wide, self._matrix, out=out[:n].reshape(-1, ROW))
        self._loop(values[n:], float(coming[-1]), out[n:])

    def _loop(self, values: FloatArray, first: float, out: FloatArray) -> None:
        sums = []
        for value in values.tolist():
            sums.append(first + value)
            first = sums[-1] * self.weight
        out[:] = sums


def _powers(weight: float, count: int) -> FloatArray:
    """1, weight, weight squared ...: each half from the one before."""
    found = np.ones(count)
    known = 1
    while known < count:
        more = found[known : 2 * known]
        np.multiply(found[: len(more)], weight**known, out=more)
        known *= 2
    if found[-1] < TINY:
        found[found < TINY] = 0.0
    return found
