"""One picture from the curves of its runs: what each is called, or all of a group made one, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure

from . import groups, style
from .curves import Curves
from .figure import draw_grid, draw_panel
from .names import PlotRun
from .options import PlotOptions
from .panel import Panel, Series
from .plan import labels as told_apart
from .plan import natural
from .scale import View
from .short_names import shared
from .text import drawable

BAND_NAMES = {"minmax": "min–max", "std": "± std", "sem": "± std. error", "ci": "95 % CI", "iqr": "quartiles"}


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is drawn: the runs, what each is called, its place in the colours and the group it is in, if any."""

    runs: tuple[PlotRun, ...]
    labels: tuple[str, ...]
    slots: Mapping[str, int]  # by run, as it prints, or by group
    groups: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        runs: Sequence[PlotRun],
        slots: Mapping[str, int],
        labels: Sequence[str] | None,
        groups: Sequence[str] | None,
    ) -> Subject:
        names = told_apart(runs, shown=drawable, given=labels)
        return cls(tuple(runs), tuple(names), slots, None if groups is None else tuple(groups))


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One metric, ready to be drawn, and what is to be said of it."""

    panel: Panel
    runs: tuple[PlotRun, ...]
    points: tuple[int, ...]
    non_finite: tuple[int, ...]
    skipped: tuple[str, ...]
    line: str = ""  # what is drawn of the values


def prepare(curves: Curves, subject: Subject, options: PlotOptions, axis: str = "step") -> Drawn:
    """What one metric's figure shows."""
    back, without = curves.backwards, curves.without_x
    told = [
        _who(subject, len(curves.runs)),
        curves.line,
        _grouped(subject, options),
    ]
    notes = [
        f"x steps back {back} time{'s'[: back > 1]}: sorted" if back else "",
        f"{without} value{'s'[: without > 1]} without {curves.x_label} not drawn" if without else "",
    ]
    if subject.groups is None:
        series = [
            Series(
                *(label, one.x, one.y, one.smooth, curves.x_label, run.run_id, subject.slots[str(run)]),
                sorted_x=True,
                smooth_x=one.smooth_x,
            )
            for label, run, one in zip(subject.labels, subject.runs, curves.each, strict=True)
        ]
    else:
        series = _groups(subject, curves, options)
    panel = Panel(
        series=series,
        title=curves.metric if options.title is None else options.title,
        subtitle="" if options.title == "" else " · ".join(filter(None, told)),
        notes=[note for note in notes if note],
        metric=curves.metric,
        view=View(options.log_x, options.log_y, options.x_limits, options.y_limits, options.clip_outliers),
        time_x=axis == "time",
        y_unit=options.y_unit,
        key="auto" if subject.groups is None or len(series) > 12 else "above",
    )
    return Drawn(panel, curves.runs, curves.points, curves.non_finite, curves.skipped, curves.line)


def figure_of(
    prepared: Sequence[Drawn], subject: Subject, options: PlotOptions, *, on: Figure | None = None
) -> tuple[Figure, list[str | None]]:
    """One figure of one metric, or a grid of several; and for each why it could not be drawn, or None.

    `on` is the last one, if it is not needed any more: see `draw_panel`.
    """
    look = style.look_of(options)
    if not options.grid:
        (one,) = prepared
        return draw_panel(one.panel, look=look, full_res=options.full_res, wider=options.size is None, on=on), [None]
    who, lines = _who(subject, len(subject.runs)), {one.line for one in prepared}
    how = lines.pop() if len(lines) == 1 else ""
    panels = [
        replace(one.panel, title=one.panel.metric or "", notes=[*([] if how else [one.line]), *one.panel.notes])
        for one in prepared
    ]
    return draw_grid(
        panels,
        title=who if options.title is None else options.title,
        subtitle=" · ".join(filter(None, (how, _grouped(subject, options)))),
        look=look,
        size=options.size,
        full_res=options.full_res,
    )


def _groups(subject: Subject, curves: Curves, options: PlotOptions) -> list[Series]:
    assert subject.groups is not None
    bands = options.drawn_bands()
    series = []
    for name in sorted(set(subject.groups), key=natural):
        of = [i for i, group in enumerate(subject.groups) if group == name]
        members = [curves.each[i] for i in of]
        drawn = [(one.x, one.y if one.smooth is None else one.smooth) for one in members]
        counted = [(x, y) for x, y in drawn if np.isfinite(y).any()]
        group = groups.combine(counted, line=options.line, bands=bands)
        line = (group.x, group.line, None, curves.x_label)
        count = f"(n={len(counted)})"
        series.append(
            Series(
                *(drawable(name), *line),
                slot=subject.slots[name],
                bands=group.bands,
                sorted_x=True,
                note=count,
                smoothed=any(one.smooth is not None for one in members),
            )
        )
    return series


def _who(subject: Subject, drawn: int) -> str:
    count = len(subject.runs)
    if count == 1:
        return subject.labels[0]
    runs = f"{count} runs" if drawn == count else f"{drawn} of {count} runs"
    common = shared(subject.labels) if subject.groups is None else ""
    return f"{runs} of {common}" if common else runs


def _grouped(subject: Subject, options: PlotOptions) -> str:
    """What line and bands are, where runs are grouped."""
    if subject.groups is None:
        return ""
    names = [BAND_NAMES[band] for band in options.drawn_bands()]
    bands = names if len(names) < 2 else [f"{names[0]} (dark)", *(f"{name} (light)" for name in names[1:])]
    return ", ".join([f"{options.line} by {', '.join(options.group_by) or 'group'}", *bands])
