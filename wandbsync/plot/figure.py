"""Series in, a matplotlib Figure out. Nothing here knows of runs, files or smoothing methods.

Every panel of a figure is made from four steps: what of each series can be drawn, the scale that holds it, the words
around it, for which the room is measured, and the lines. pyplot is not used: there is no state between two figures.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import UsageError
from . import envelope, frame, grid, key, png, style
from .frame import Words
from .key import End
from .measure import UNITS
from .panel import Panel, Ready, Series, made_ready
from .pen import Line, Pen
from .scale import View
from .style import Look
from .text import drawable


def draw(
    series: Sequence[Series],
    *,
    title: str,
    subtitle: str = "",
    metric: str | None = None,
    view: View | None = None,
    look: Look = style.LOOKS["screen"],
    full_res: bool = False,
    **more: Any,
) -> Figure:
    """A figure of one metric with all its series: a `Panel` on a page of its own.

    Values that are not finite are gaps, as are values <= 0 on a logarithmic axis, and the subtitle counts them.
    A series without a value is left out, but keeps its colour: a run has the same one in every figure of a comparison.
    The values stand faint behind their smoothing: as they are of a few series, as a haze of many.
    Raises UsageError if no series has a finite value.
    """
    return draw_panel(
        Panel(
            series=series,
            title=title,
            subtitle=subtitle,
            metric=metric,
            view=view or View(),
            **more,
        ),
        look=look,
        full_res=full_res,
    )


def draw_panel(
    panel: Panel,
    *,
    look: Look = style.LOOKS["screen"],
    full_res: bool = False,
    wider: bool = True,
    on: Figure | None = None,
) -> Figure:
    """A figure of one panel; `wider` for a long list of lines beside it. Errors as `draw`.

    `on` is a figure made by this function, of the same look, that is no longer needed: it is wiped and used again, for
    new axes with their ticks cost a quarter of a figure's time. The picture is the same to the last bit.
    """
    ready = made_ready(panel, look)
    with style.own_settings(look):
        named = sum(line.named for line in ready.lines)
        more = key.beside_width(named, look) if wider and panel.key == "auto" else 0.0
        if on is None:
            on = _page(look, look.width + more, look.height)
        else:
            _wipe(on, look.width + more, look.height)
        placed, box = _placed(on, ready), frame.page(on)
        placed.draw(on, box, look, placed.sides(box, look), full_res=full_res)
    return on


def _wipe(figure: Figure, width: float, height: float) -> None:
    """Take away all but the axes and their ticks."""
    (axes,) = figure.axes
    for artist in [*axes.lines, *axes.patches, *axes.collections, *figure.texts, *figure.artists, *figure.legends]:
        artist.remove()
    axes.set_yticks([], minor=True)
    axes.set_xticks([], minor=True)
    if tuple(figure.get_size_inches()) != (width, height):
        figure.set_size_inches(width, height)


def draw_grid(
    panels: Sequence[Panel],
    *,
    title: str,
    subtitle: str = "",
    look: Look = style.LOOKS["screen"],
    size: tuple[float, float] | None = None,
    full_res: bool = False,
    alike: Panel | None = None,
    alone: str | None = None,
) -> tuple[Figure, list[str | None]]:
    """A figure of several panels, with one list of the lines above them; all on the axes of `alike`, if that is given.

    A line that is the only one of its panel, and is called `alone`, is not in the list.

    Gives for each panel the reason why it is empty, or None. Raises UsageError if all are.
    """
    look = look if size is None else grid.look_within(size, len(panels), look)
    if alike is not None:
        whole = made_ready(alike, look)
        panels = [replace(one, scale=whole.axis, view=replace(one.view, x=whole.x)) for one in panels]
    ready: list[Ready] = []
    reasons: list[str | None] = []
    for panel in panels:
        try:
            ready.append(made_ready(replace(panel, key="none"), look))
            reasons.append(None)
        except UsageError as error:  # noqa: PERF203
            reasons.append(error.line())
    if not ready:
        raise UsageError(next(reason for reason in reasons if reason))
    with style.own_settings(look):
        shown = _listed([line for one in ready for line in one.lines if line.named and line.label != alone])
        figure = _page(look, *(size or grid.page_size(len(ready), shown, look)))
        boxes = grid.place(figure, len(ready), shown, look, title=title, subtitle=subtitle)
        noted = any(one.notes for one in ready)
        placed = [_placed(figure, one, small=True, noted=noted) for one in ready]
        rooms = grid.in_line([one.sides(box, look) for one, box in zip(placed, boxes, strict=True)])
        for drawn, box, room in zip(placed, boxes, rooms, strict=True):
            drawn.draw(figure, box, look, room, full_res=full_res)
    return figure, reasons


def _listed(lines: Sequence[Line]) -> list[End]:
    """The names of all lines of a grid, if there are several; how many runs one is of if that is so in each panel."""
    devices = {(line.label, line.run_id, line.note): line for line in lines}
    names = {line.label: line for line in lines}
    ends = devices if all(line.run_id for line in lines) or len(devices) == len(names) else names
    if len(ends) < 2:
        return []
    return [
        End(drawable(line.label), line.run_id, 0.0, "", line.stroke, note=line.note if ends is devices else "")
        for line in ends.values()
    ]


def _page(look: Look, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=look.dpi)
    FigureCanvasAgg(figure)
    return figure


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """A panel with its axes, which have limits, and with what is written around them."""

    ready: Ready
    axes: Axes
    words: Words
    ends: list[End]

    def sides(self, box: frame.Box, look: Look) -> tuple[float, float]:
        return frame.sides(self.axes, box, look, words=self.words, ends=self.ends, axis=self.ready.axis)

    def draw(self, figure: Figure, box: frame.Box, look: Look, room: tuple[float, float], *, full_res: bool) -> None:
        panel, axis = self.ready.panel, self.ready.axis
        size = frame.fit(figure, self.axes, box, look, words=self.words, ends=self.ends, room=room)
        pixels = (size[0] * look.dpi / UNITS, size[1] * look.dpi / UNITS)
        window = envelope.Window(self.ready.x, (axis.low, axis.high), pixels, panel.view.log_x, axis.log)
        shown = sum(line.raw is not None or line.dots is not None for line in self.ready.lines)
        pen = Pen(self.axes, window, look, full_res, shown)
        for index, line in enumerate(self.ready.lines):
            pen.line(line, index)


def _placed(figure: Figure, ready: Ready, *, small: bool = False, noted: bool = False) -> _Placed:
    panel, axis = ready.panel, ready.axis
    axes = figure.axes[0] if figure.axes and not small else figure.add_axes((0.1, 0.1, 0.8, 0.8), autoscale_on=False)
    for log, set_scale, now in (
        (panel.view.log_x, axes.set_xscale, axes.get_xscale()),
        (axis.log, axes.set_yscale, axes.get_yscale()),
    ):
        if now != ("log" if log else "linear"):
            set_scale("log" if log else "linear")
    axes.set_xlim(*ready.x)
    axes.set_ylim(axis.low, axis.high)
    axes.set_axisbelow(True)
    axes.grid(True, which="major")
    unit = f" ({panel.y_unit})" if panel.y_unit else ""
    metric = panel.title if panel.metric is None else panel.metric
    words = Words(
        title=drawable(panel.title + unit if small and panel.title else panel.title),  # which has no other name
        subtitle=drawable(" · ".join(note for note in ("" if small else panel.subtitle, *ready.notes) if note)),
        x_label=drawable(panel.series[0].x_label),
        y_label=drawable((panel.y_label or metric) + unit),
        whole_x=all(one.x.dtype.kind in "iu" for one in panel.series if len(one.x)),
        time_x=panel.time_x,
        key=panel.key,
        small=small,
        noted=noted,
    )
    ends = [
        End(
            drawable(line.label),
            line.run_id,
            line.last,
            ("≈ " if line.smoothed else "") + frame.last_text(line.last, axis),
            line.stroke,
            line.main.last,
            line.note,
        )
        for line in ready.lines
        if line.named
    ]
    return _Placed(ready, axes, words, ends)


def written(figure: Figure, form: str = "png", look: Look = style.LOOKS["screen"]) -> bytes:
    """The figure as a file: png, svg or pdf; without time stamps."""
    return developed(figure, form, look)()


def developed(figure: Figure, form: str = "png", look: Look = style.LOOKS["screen"]) -> Callable[[], bytes]:
    """The figure drawn, and what makes a file of it: that does not need the figure, nor Python for long."""
    canvas: Any = figure.canvas
    with style.own_settings(look):
        if form != "png":
            out = io.BytesIO()
            figure.savefig(out, format=form, metadata={"Date" if form == "svg" else "CreationDate": None})
            return out.getvalue
        try:
            canvas.draw()
        except OverflowError:  # more path than Agg can hold at once; in pieces it can, but their ends show
            with mpl.rc_context({"agg.path.chunksize": 1_000}):
                canvas.draw()
        rows, size, dpi = png.rows(np.asarray(canvas.buffer_rgba())), canvas.get_width_height(), figure.dpi
        return lambda: png.encoded(rows, size, dpi)


__all__ = ["Panel", "Series", "developed", "draw", "draw_grid", "draw_panel", "written"]
