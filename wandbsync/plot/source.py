"""Where plots get what they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .names import PlotRun
from .plan import named_as_sampled

if TYPE_CHECKING:
    from .curves import Points

    # x and y of a run's metric against an axis, sorted by step, NaN and infinities included, and how many values have
    # no x; empty if it has none. A WandbsyncError is taken down as the reason why this run is missing from the figure.
    Load = Callable[[PlotRun, str, str], "tuple[Any, Any] | tuple[Any, Any, int] | Points"]


def step_or_sample(metric: str) -> str:
    """The x axis where nobody says anything else."""
    return "sample" if named_as_sampled(metric) else "step"


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be drawn, by run, metric and axis.

    `axis` names the x axis of a metric. `version` says what moves whenever the values of a run's metric do; None: not
    known, so that nothing is drawn from memory. `memory` is a folder for pictures that were drawn, and for colours.
    `anew` makes the same source for a copy of this process, which must not read through what the original has opened;
    None: there are to be no copies.
    """

    load: Load
    axis: Callable[[str], str] = step_or_sample
    version: Callable[[PlotRun, str, str], Any] | None = None
    memory: Path | None = None
    anew: Callable[[], Source] | None = None
