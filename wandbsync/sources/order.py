"""The rows of writers that wrote to one run at one time, numbered in the order of time.

A log alone numbers what has no step of its own (rows of shared mode, samples of machine metrics, lines of the console)
in the order in which it was written. Of logs one after the other, the later ones count on. Where their times overlap,
the same numbers are dealt out anew, by time: so they follow from the logs alone, whoever was read first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..model import is_time

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(slots=True)
class Counted:
    """What one log counted, stream by stream: the numbers, and when that was (unix seconds, NaN: it does not say)."""

    begun: float | None = None  # unix seconds; nothing in the log is from before that
    numbers: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)
    times: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    shift: int | None = None
    end: int = 0  # byte up to which the log was read

    def add(self, stream: str, numbers: NDArray[np.int64], times: NDArray[np.float64]) -> None:
        if len(numbers):
            self.numbers.setdefault(stream, []).append(numbers)
            self.times.setdefault(stream, []).append(times)


@dataclass(slots=True)
class Order:
    """The numbers that are dealt to one log, in the order of its rows."""

    shift: int | None
    end: int  # byte up to which they go
    numbers: Mapping[str, NDArray[np.int64]]
    dealt: dict[str, int] = field(default_factory=dict)

    def take(self, stream: str, count: int) -> NDArray[np.int64]:
        """The numbers of the next rows."""
        first = self.dealt.get(stream, 0)
        self.dealt[stream] = first + count
        return self.numbers[stream][first : first + count]


def by_time(logs: Sequence[Counted]) -> list[Order]:
    """What these logs counted, one after the other, numbered by time. At one time the earlier log comes first."""
    import numpy as np

    dealt: list[dict[str, NDArray[np.int64]]] = [{} for _ in logs]
    for stream in {stream for log in logs for stream in log.numbers}:
        having = [i for i, log in enumerate(logs) if stream in log.numbers]
        numbers = [np.concatenate(logs[i].numbers[stream]) for i in having]
        times = [_ascending(np.concatenate(logs[i].times[stream]), logs[i].begun) for i in having]
        order = np.argsort(np.concatenate(times), kind="stable")
        all_numbers = np.empty(len(order), np.int64)
        all_numbers[order] = np.sort(np.concatenate(numbers))
        ends = np.cumsum([len(one) for one in numbers])
        for i, part in zip(having, np.split(all_numbers, ends[:-1]), strict=True):
            dealt[i][stream] = part
    return [Order(log.shift, log.end, numbers) for log, numbers in zip(logs, dealt, strict=True)]


def _ascending(times: NDArray[np.float64], begun: float | None) -> NDArray[np.float64]:
    """When each row was written at the earliest: after the one before it, and after the log was begun."""
    import numpy as np

    known = np.where(is_time(times), times, -np.inf)
    return np.maximum(np.maximum.accumulate(known), begun or 0.0)
