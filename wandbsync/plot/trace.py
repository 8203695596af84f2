"""The points of one line as it is drawn: finite, ascending in x, and where between them it is broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
COLUMNS = 6  # of a pixel, in which a long line is seen: see `envelope`


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """No array holds a NaN, and none is copied unless it has to be: a line may have ten million points."""

    x: npt.NDArray[Any]  # int64 or float64
    y: FloatArray
    breaks: npt.NDArray[np.intp]  # before these points the line is broken; ascending

    @classmethod
    def of(cls, x: npt.NDArray[Any], y: FloatArray, *, sorted_x: bool = False) -> Trace:
        """The points that are finite; those that are not leave a gap. Where x goes back, it is sorted."""
        bad = None if finite(y) and finite(x) else ~(np.isfinite(y) & np.isfinite(x))
        if not sorted_x and not ascending(x):
            if bad is not None:  # a gap has no place in a line that is sorted
                x, y, bad = x[~bad], y[~bad], None
            order = np.argsort(x, kind="stable")
            x, y = x[order], y[order]
        whole = cls(x, y, np.empty(0, np.intp))
        return whole if bad is None else whole.only(~bad)

    def __len__(self) -> int:
        return len(self.x)

    def only(self, keep: npt.NDArray[np.bool_]) -> Trace:
        """Some of the points; the line is broken where others were."""
        if keep.all():
            return self
        place = np.flatnonzero(keep)
        pieces = np.zeros(len(self), np.intp)
        pieces[self.breaks] = 1
        piece = np.cumsum(pieces)[place]
        broken = (np.diff(place) > 1) | (np.diff(piece) > 0)
        return Trace(self.x[place], self.y[place], np.flatnonzero(broken) + 1)

    def every(self, turn: int, turns: int) -> Trace:
        """Of the pieces between breaks every so many-th, beginning with one of the first."""
        piece = np.zeros(len(self), np.intp)
        piece[self.breaks] = 1
        return self.only(np.cumsum(piece) % turns == turn)

    def between(self, low: float, high: float) -> Trace:
        """The points within, and the next one on either side."""
        start = max(int(np.searchsorted(self.x, low, side="left")) - 1, 0)
        stop = min(int(np.searchsorted(self.x, high, side="right")) + 1, len(self))
        if start == 0 and stop == len(self):
            return self
        breaks = self.breaks[(self.breaks > start) & (self.breaks < stop)] - start
        return Trace(self.x[start:stop], self.y[start:stop], breaks)

    def changed(self, x: Callable[[Any], Any] | None = None, y: Callable[[Any], Any] | None = None) -> Trace:
        """With other values in the same places."""
        return Trace(self.x if x is None else x(self.x), self.y if y is None else y(self.y), self.breaks)

    def gapped(self) -> tuple[FloatArray, FloatArray]:
        """x and y with a NaN where the line is broken."""
        x, y = self.x.astype(np.float64), self.y
        if not len(self.breaks):
            return x, y
        return np.insert(x, self.breaks, np.nan), np.insert(y, self.breaks, np.nan)

    def alone(self) -> npt.NDArray[np.intp]:
        """The points that have no neighbour to be joined with: a line would leave no trace of them."""
        if not len(self.breaks):
            return np.arange(len(self)) if len(self) == 1 else np.empty(0, np.intp)
        ends: npt.NDArray[np.intp] = np.concatenate(([0], self.breaks, [len(self)]))
        found: npt.NDArray[np.intp] = ends[:-1][np.diff(ends) == 1]
        return found

    def up_to(self, x: float) -> float:
        """The last value that is not beyond a place; NaN if all are."""
        before = int(np.searchsorted(self.x, x, side="right"))
        return float(self.y[before - 1]) if before else math.nan

    @property
    def last(self) -> float:
        return float(self.y[-1]) if len(self) else math.nan


def ascending(x: npt.NDArray[Any]) -> bool:
    """Whether x never goes back."""
    pieces = (slice(start, start + 65_537) for start in range(0, len(x), 65_536))
    return not any((x[piece][1:] < x[piece][:-1]).any() for piece in pieces)


def finite(values: npt.NDArray[Any]) -> bool:
    """Whether there is no NaN and no infinity; without a mask of all of them."""
    if not len(values) or values.dtype.kind in "iu":
        return True
    return math.isfinite(values.min()) and math.isfinite(values.max())
