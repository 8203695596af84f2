"""The lines of a picture: one for each run, or for each group of runs; of many runs a few stand out of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import groups
from .curves import Curve, Curves
from .options import PlotOptions
from .panel import CONTEXT, TAIL, Series
from .plan import natural
from .subject import Subject
from .text import drawable
from .trace import FloatArray

MANY = 20  # runs; from here on not all can be told apart
STANDING_OUT = 3  # at either end
SAME = 0.01  # of the places of a group; if fewer lack a run, its number is one number


def of_runs(curves: Curves, subject: Subject) -> list[Series]:
    """A line for each run, and for each device of one."""
    alone = len(subject.runs) == 1
    places = {run: i for i, run in enumerate(subject.runs)}
    series = []
    for i, ((run, part), one) in enumerate(zip(curves.of, curves.each, strict=True)):
        name = subject.labels[places[run]]
        series.append(
            Series(
                *(part if part and alone else name, one.x, one.y, one.smooth, curves.x_label),
                note="" if alone else part,
                run_id=run.run_id,
                slot=i if part and alone else _slot(subject, places[run]),
                sorted_x=True,
                smooth_x=one.smooth_x,
            )
        )
    return series


def _slot(subject: Subject, place: int) -> int:
    if subject.facets is not None and subject.groups is None:
        return subject.slots[subject.facets[place]]
    return subject.slots[str(subject.runs[place])]


def standing_out(series: Sequence[Series], options: PlotOptions) -> set[int] | None:
    """Of many lines those that end highest and lowest; None if they are so few that all stand out."""
    drawn = {
        i: last(one.y if one.smooth is None else one.smooth) for i, one in enumerate(series) if np.isfinite(one.y).any()
    }
    most = (STANDING_OUT if len(drawn) >= MANY else 0) if options.highlight is None else options.highlight
    if not most or len(drawn) <= 2 * most:
        return None
    order = sorted(drawn, key=lambda i: drawn[i])
    return {*order[:most], *order[-most:]}


def behind(series: Sequence[Series], chosen: set[int] | None) -> list[Series]:
    """The lines, all but the chosen ones pale."""
    return [
        one if chosen is None or i in chosen else replace(one, role=CONTEXT, slot=0) for i, one in enumerate(series)
    ]


def last(y: FloatArray) -> float:
    """The last value that is a number."""
    return float(y[np.flatnonzero(np.isfinite(y))[-1]])


def of_groups(curves: Curves, subject: Subject, options: PlotOptions, facet: str | None = None) -> list[Series]:
    """A line for each group, of the runs of one facet; where fewer of its runs have values, a line apart."""
    assert subject.groups is not None
    places = {run: i for i, run in enumerate(subject.runs)}
    series: list[Series] = []
    for name in sorted(set(subject.groups), key=natural):
        members: list[tuple[int, Curve]] = []
        for (run, _), one in zip(curves.of, curves.each, strict=True):
            place = places[run]
            here = facet is None or (subject.facets is not None and subject.facets[place] == facet)
            if subject.groups[place] == name and here and np.isfinite(one.y).any():
                members.append((place, one))
        group = groups.combine(
            [(one.x, one.y if one.smooth is None else one.smooth) for _, one in members],
            line=options.line,
            bands=options.drawn_bands(),
            strata=subject.strata and [subject.strata[place] for place, _ in members],
        )
        lines = _lines_of(group, drawable(name), len(members), subject.slots[name], curves.x_label, options)
        smoothed = any(one.smooth is not None for _, one in members)
        series += [replace(line, smoothed=smoothed) for line in lines]
    return series


def _lines_of(group: groups.Group, name: str, runs: int, slot: int, x_label: str, options: PlotOptions) -> list[Series]:
    """A group where all of its runs have values, and where fewer have; the name says how many."""
    most = int(group.count.max(initial=0))
    whole = group.count == most

    def line(there: groups.Places, **more: Any) -> Series:
        near = there.copy()  # a band goes on to the next place, or there would be slits between
        near[1:] |= there[:-1]
        near[:-1] |= there[1:]
        near = near if more.get("role") == TAIL else there
        bands = tuple((np.where(near, low, np.nan), np.where(near, high, np.nan)) for low, high in group.bands)
        y = np.where(there, group.line, np.nan)
        one = Series(name, group.x, y, None, x_label, slot=slot, bands=bands, sorted_x=True, count=group.count)
        return replace(one, **more)

    fewer = float((~whole).mean()) if len(whole) else 0.0
    least = int(group.count.min(initial=most))
    ended = fewer > SAME and not options.require_all
    count = f"n={most}…{least}" if ended else f"n={most}"
    of = "" if most == runs else f" of {runs}"
    lines = [line(whole, note=f"({count}{of})")]
    if least < most and not options.require_all:
        lines.append(line(~whole, role=TAIL))
    return lines
