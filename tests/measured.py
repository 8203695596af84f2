"""What `make bench` is made of: calls that take turns, and one line for each comparison."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One line: `ours` beside `theirs` and what their ratio, or ours alone, should be."""

    what: str
    ours: float
    theirs: float | None
    unit: str  # "s", "MB", "requests"
    goal: str
    note: str = ""

    def __str__(self) -> str:
        peer = "" if self.theirs is None else f" / {self.theirs:9.3f} = {self.ours / self.theirs:7.3f}"
        return f"{self.what:<62} {self.ours:9.3f} {self.unit:<8}{peer:<22} {self.goal:<18} {self.note}"

    @property
    def met(self) -> bool | None:
        """Whether the ratio, or ours alone, is what it should be; None if nobody said."""
        sign, _, most = self.goal.partition(" ")
        if sign not in ("<", "<="):
            return None
        value, limit = self.ours / (self.theirs or 1.0), float(Fraction(most))
        return value < limit or (sign == "<=" and value == limit)

    def facts(self) -> dict[str, Any]:
        ratio = None if self.theirs is None else self.ours / self.theirs
        return {
            "what": self.what,
            "ours": self.ours,
            "peer": self.theirs,
            "ratio": ratio,
            "goal": self.goal,
            "met": self.met,
            "unit": self.unit,
            "note": self.note,
        }


def medians(*calls: Callable[[], list[float]], repeats: int, warm: int = 0) -> list[list[float]]:
    """The medians of the numbers that each call gives, called in turns; the first `warm` of them do not count."""
    found: list[list[list[float]]] = [[] for _ in calls]
    for turn in range(warm + repeats):
        for call, one in zip(calls, found, strict=True):
            numbers = call()
            if turn >= warm:
                one.append(numbers)
    return [[statistics.median(column) for column in zip(*one, strict=True)] for one in found]


def timed(call: Callable[[], object]) -> Callable[[], list[float]]:
    """The wall seconds of a call."""

    def watch() -> list[float]:
        start = time.perf_counter()
        call()
        return [time.perf_counter() - start]

    return watch


def turns(*calls: Callable[[], object], repeats: int = 5, warm: int = 0) -> list[float]:
    """Median wall seconds of each call, called in turns; see `medians`."""
    return [one[0] for one in medians(*map(timed, calls), repeats=repeats, warm=warm)]


def process(*words: str, env: dict[str, str] | None = None) -> Callable[[], object]:
    """A command as a call, quiet, with these variables besides its own."""
    full = os.environ | (env or {})
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=full)
