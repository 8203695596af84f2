"""One picture from the curves of its runs, of one kind or another: what it says, and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from ..errors import UsageError
from . import profile, series, style
from .curves import Curves
from .figure import draw_grid, draw_panel
from .heatmap import HeatMap, draw_heatmap
from .names import PlotRun
from .options import PlotOptions
from .panel import CONTEXT, Panel, Series
from .plan import ON_A_PAGE, natural
from .scale import View
from .short_names import plain, shared, shorten
from .subject import Subject
from .text import drawable
from .units import unit_of

BAND_NAMES = {
    "minmax": "min–max",
    "std": "± std",
    "sem": "± std. error",
    "ci": "95 % CI",
    "bootstrap": "95 % bootstrap CI",
    "iqr": "quartiles",
}
COMMON = 32  # characters of what all names share
LINE_NAMES = {"iqm": "IQM"}


@dataclass(frozen=True, slots=True, eq=False)
class Facets:
    """One metric in several panels, one for each facet, on the same axes."""

    panels: tuple[Panel, ...]
    heading: Panel

    @property
    def series(self) -> Sequence[Series]:
        return [
            replace(one, label=f"{one.label}, {panel.title}") if one.count is not None else one
            for panel in self.panels
            for one in panel.series
            if one.role != CONTEXT
        ]

    @property
    def metric(self) -> str | None:
        return self.heading.metric


Chart = Panel | Facets | HeatMap


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One metric, ready to be drawn, and what is to be said of it."""

    chart: Chart
    runs: tuple[PlotRun, ...]
    points: tuple[int, ...]
    non_finite: tuple[int, ...]
    skipped: tuple[str, ...]
    line: str = ""  # what is drawn of the values


def prepare(
    curves: Curves, subject: Subject, options: PlotOptions, axis: str = "step", chosen: set[int] | None = None
) -> Drawn:
    """What one metric's figure shows. `chosen` lines stand out of the others, if that is decided already."""
    chart = KINDS[options.kind](curves, subject, options, _heading(curves, subject, options, axis), chosen)
    return Drawn(chart, curves.runs, curves.points, curves.non_finite, curves.skipped, curves.line)


def chosen_of(curves: Curves, subject: Subject, options: PlotOptions) -> set[int] | None:
    """The lines that stand out of many."""
    return None if subject.groups else series.standing_out(series.of_runs(curves, subject), options)


def figure_of(
    prepared: Sequence[Drawn], subject: Subject, options: PlotOptions, *, on: Figure | None = None
) -> tuple[Figure, list[str | None]]:
    """One figure of one metric, or a grid of several; and for each why it could not be drawn, or None.

    `on` is the last one, if it is not needed any more: see `draw_panel`.
    """
    look = style.look_of(options)
    grid = partial(draw_grid, look=look, size=options.size, full_res=options.full_res)
    if options.grid:
        who, drawn = _who(subject, len(subject.runs)), {one.line for one in prepared}
        how = drawn.pop() if len(drawn) == 1 else ""
        panels = [
            replace(one.chart, title=one.chart.metric or "", notes=[*([] if how else [one.line]), *one.chart.notes])
            for one in prepared
            if isinstance(one.chart, Panel)
        ]
        stand_out = _standing_out(panels[0].series, f" of {panels[0].metric}")
        told = " · ".join(filter(None, (how, _grouped(subject, options), stand_out)))
        title = who if options.title is None else options.title
        return grid(panels, title=title, subtitle=told, alone=who if len(subject.runs) == 1 else None)
    (one,) = prepared
    chart = one.chart
    if isinstance(chart, HeatMap):
        return draw_heatmap(chart, look=look, size_given=options.size is not None), [None]
    if isinstance(chart, Facets):
        told = " · ".join(filter(None, (chart.heading.subtitle, *chart.heading.notes)))
        return grid(chart.panels, title=chart.heading.title, subtitle=told, alike=chart.heading)[0], [None]
    return draw_panel(chart, look=look, full_res=options.full_res, wider=options.size is None, on=on), [None]


# -- the kinds of pictures


def _lines(
    curves: Curves, subject: Subject, options: PlotOptions, heading: Panel, chosen: set[int] | None
) -> Panel | Facets:
    """A line for each run or group; with facets, a panel for each."""
    if subject.facets is not None:
        return _facets(curves, subject, options, heading)
    if subject.groups is not None:
        return replace(heading, series=(lines := series.of_groups(curves, subject, options)), key=_key(lines))
    lines = series.of_runs(curves, subject)
    chosen = series.standing_out(lines, options) if chosen is None else chosen
    lines = series.behind(lines, chosen)
    told = (heading.subtitle, "" if options.grid or options.title == "" else _standing_out(lines))
    return replace(heading, series=lines, subtitle=" · ".join(filter(None, told)))


def _facets(curves: Curves, subject: Subject, options: PlotOptions, heading: Panel) -> Facets:
    """Panels of one metric. A run that is not grouped is seen in its own panel, before all the others in grey."""
    assert subject.facets is not None
    of_run = dict(zip(subject.runs, subject.facets, strict=True))
    drawn = [of_run[run] for (run, _), one in zip(curves.of, curves.each, strict=True) if np.isfinite(one.y).any()]
    names = sorted(set(drawn), key=natural)
    if len(names) > ON_A_PAGE:
        raise UsageError(
            f"--facet {','.join(options.facet)} makes {len(names)} panels, and a page has {ON_A_PAGE}",
            hint="choose fewer runs, or use --group-by",
        )
    every = [] if subject.groups is not None else series.of_runs(curves, subject)
    panels = []
    for name in names:
        if subject.groups is not None:
            lines = [replace(one, note="") for one in series.of_groups(curves, subject, options, name)]
        else:
            own = {i for i, (run, _) in enumerate(curves.of) if of_run[run] == name}
            lines = [replace(one, note="", named=False) for one in series.behind(every, own)]
        count = len({run for run in curves.runs if of_run[run] == name})
        panels.append(replace(heading, series=lines, title=f"{drawable(name)} (n={count})", notes=()))
    whole = [one for panel in panels for one in panel.series] if subject.groups is not None else every
    return Facets(tuple(panels), replace(heading, series=whole))


def _heat_map(curves: Curves, subject: Subject, options: PlotOptions, heading: Panel, _: set[int] | None) -> HeatMap:
    places = {run: i for i, run in enumerate(subject.runs)}
    groups = subject.groups and [subject.groups[places[run]] for run, _ in curves.of]
    return HeatMap(replace(heading, series=series.of_runs(curves, _ungrouped(subject))), groups)


def _ungrouped(subject: Subject) -> Subject:
    """The runs by themselves, each with a colour of its own (which a heat map does not show)."""
    return replace(subject, groups=None, facets=None, slots={str(run): 0 for run in subject.runs})


def _profile(curves: Curves, subject: Subject, options: PlotOptions, heading: Panel, _: set[int] | None) -> Panel:
    return profile.panel_of(curves, subject, options, heading)


KINDS: dict[str, Callable[[Curves, Subject, PlotOptions, Panel, set[int] | None], Chart]] = {
    "line": _lines,
    "heatmap": _heat_map,
    "profile": _profile,
}


# -- what is said


def _heading(curves: Curves, subject: Subject, options: PlotOptions, axis: str) -> Panel:
    """A panel without its lines: how they are to be shown, and what is said of them."""
    back, without = curves.backwards, curves.without_x
    lines = options.kind == "line"
    told = [
        _who(subject, len(curves.runs)),
        curves.line if lines else "",
        _grouped(subject, options) if lines else _OF_KIND[options.kind],
    ]
    notes = [
        f"x steps back {back} time{'s'[: back > 1]}: sorted" if back else "",
        f"{without} value{'s'[: without > 1]} without {curves.x_label} not drawn" if without else "",
    ]
    largest = max((float(np.abs(one.y[np.isfinite(one.y)]).max(initial=0.0)) for one in curves.each), default=0.0)
    unit, divisor = unit_of(curves.name, largest)
    return Panel(
        series=(),
        title=curves.name if options.title is None else options.title,
        subtitle="" if options.title == "" else " · ".join(filter(None, told)),
        notes=[note for note in notes if note],
        metric=curves.name,
        view=View(options.log_x, options.log_y, options.x_limits, options.y_limits, options.clip_outliers),
        time_x=axis == "time",
        y_unit=options.y_unit or unit,
        divisor=1.0 if options.y_unit else divisor,
    )


_OF_KIND = {"heatmap": "sorted by the last value", "profile": "share of runs with more than x, 95 % bootstrap CI"}


def _key(lines: Sequence[Series]) -> str:
    """Where groups are named."""
    return "auto" if len({one.label for one in lines}) > 12 else "above"


def _standing_out(lines: Sequence[Series], of: str = "") -> str:
    pale = sum(one.role == CONTEXT for one in lines)
    most = (len(lines) - pale) // 2
    return f"in colour: {most} highest, {most} lowest at the end{of}" if pale else ""


def _who(subject: Subject, drawn: int) -> str:
    count = len(subject.runs)
    if count == 1:
        return subject.labels[0]
    runs = f"{count} runs" if drawn == count else f"{drawn} of {count} runs"
    names = plain(subject.labels, [run.run_id for run in subject.runs])
    common = shorten(shared(names), COMMON, len) if subject.groups is None else ""
    return f"{runs} of {common}" if common else runs


def _grouped(subject: Subject, options: PlotOptions) -> str:
    """What line and bands are, where runs are grouped, and what panels are."""
    by = f"by {', '.join(options.facet) or 'facet'}" if subject.facets is not None else ""
    if subject.groups is None:
        return by and f"{by}, the others in grey"
    names = [BAND_NAMES[band] for band in options.drawn_bands()]
    bands = names if len(names) < 2 else [f"{names[0]} (dark)", *(f"{name} (light)" for name in names[1:])]
    line = LINE_NAMES.get(options.line, options.line)
    return ", ".join([f"{line} by {', '.join(options.group_by) or 'group'}", *bands, *([f"panels {by}"] if by else [])])
