"""Who is drawn: the runs, what each is called, and where each belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .names import PlotRun
from .plan import Names, Sorting
from .plan import labels as told_apart
from .text import drawable


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is drawn: the runs, what each is called, its place in the colours and what it is sorted into."""

    runs: tuple[PlotRun, ...]
    labels: tuple[str, ...]
    slots: Mapping[str, int]  # by run, as it prints, or by group
    groups: Names = None
    facets: Names = None
    strata: Names = None

    @classmethod
    def of(cls, runs: Sequence[PlotRun], slots: Mapping[str, int], by: Sorting) -> Subject:
        names = told_apart(runs, shown=drawable, given=by.labels)
        return cls(tuple(runs), tuple(names), slots, by.groups, by.facets, by.strata)
