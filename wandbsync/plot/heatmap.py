"""Many runs as a heat map: a row for each, sorted by the last value, a colour for each value, a bar that says which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from ..errors import UsageError
from . import frame, scale, style
from .frame import SUBTITLE, TICK, Box, Words
from .measure import PX, distinct, widest
from .panel import Panel, Series
from .scale import Extent, Scale
from .series import last
from .style import Look
from .text import drawable
from .trace import FloatArray

CELLS = 500  # of a row, at most
ROW = 0.17  # inches of a row whose name is written
ROWS = 80  # so many names make a page longer; of more, not all are written
COLOURS = "viridis"  # brighter is more, also for colour-blind readers and in grey
FAR = 0.2  # if the middle 98 % of the cells span less of all that is spanned, colours end there
NAME = 8.0  # font size
LARGEST = 1e150  # beyond it sums and squares of values are no floats any more


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """What a heat map shows; `groups` has a name for each series, whose rows then stand together."""

    panel: Panel
    groups: Sequence[str] | None = None

    @property
    def series(self) -> Sequence[Series]:
        return self.panel.series

    @property
    def metric(self) -> str | None:
        return self.panel.metric


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The table that is drawn: rows by places in x; NaN where a run had not begun or had ended."""

    order: list[int]  # which series each row is, from the top
    edges: FloatArray
    values: FloatArray


def cells(shown: HeatMap) -> Cells:
    """The mean of a run's values in each cell, and where it has none the one before, from its first value to its last.

    Raises UsageError if there is no value.
    """
    panel = shown.panel
    finite = [np.isfinite(one.y) & np.isfinite(one.x) & ((one.x > 0) | (not panel.view.log_x)) for one in panel.series]
    drawn = [i for i, keep in enumerate(finite) if keep.any()]
    if not drawn:
        raise UsageError(f"{panel.metric or panel.title} has no value that can be drawn")
    if any(np.abs(panel.series[i].y[finite[i]]).max() > LARGEST for i in drawn):
        raise UsageError(
            f"{panel.metric or panel.title} has values beyond {LARGEST:g}, for which there are no colours",
            hint="--kind line draws them",
        )
    order = sorted(drawn, key=lambda i: -last(panel.series[i].y))
    if shown.groups is not None:
        names = shown.groups
        order.sort(key=lambda i: names[i])
    low, high = scale.x_limits(Extent.of(panel.series[i].x[finite[i]] for i in drawn), panel.view)
    count = int(min(CELLS, max(finite[i].sum() for i in drawn)))
    edges = np.geomspace(low, high, count + 1) if panel.view.log_x else np.linspace(low, high, count + 1)
    return Cells(order, edges, np.array([_row(panel.series[i], finite[i], edges) for i in order]))


def _row(one: Series, finite: Any, edges: FloatArray) -> FloatArray:
    x, y = one.x[finite], one.y[finite]
    within = (x >= edges[0]) & (x <= edges[-1])
    count = len(edges) - 1
    if not within.any():
        return np.full(count, np.nan)
    cell = np.minimum(np.searchsorted(edges, x[within], side="right") - 1, count - 1)
    often = np.bincount(cell, minlength=count)
    row: FloatArray = np.bincount(cell, y[within] / often[cell], minlength=count).astype(np.float64)
    filled = np.maximum.accumulate(np.where(often > 0, np.arange(count), -1))
    row = np.where(filled >= 0, row[np.maximum(filled, 0)], np.nan)
    row[cell.max() + 1 :] = np.nan
    return row


def draw_heatmap(shown: HeatMap, *, look: Look, size_given: bool = False) -> Figure:
    """A figure of one heat map. Raises UsageError if there is no value."""
    panel, table = shown.panel, cells(shown)
    rows = len(table.order)
    with style.own_settings(look):
        high = max(look.height, (min(rows, ROWS) * ROW + 1.6) * look.scale)
        figure = Figure(figsize=(look.width, look.height if size_given else high), dpi=look.dpi)
        FigureCanvasAgg(figure)
        axis, ends = _colours(panel, table)
        _page(figure, shown, table, axis, ends, look)
    return figure


def _colours(panel: Panel, table: Cells) -> tuple[Scale, bool]:
    """The scale of the colours, and whether they end before the values do."""
    values = table.values[np.isfinite(table.values)]
    extent = Extent.of([values], positive_too=True)
    metric = panel.metric or panel.title
    axis = scale.choose(metric, extent, extent, panel.view)
    if panel.view.y != (None, None):
        return axis, bool(((values < axis.low) | (values > axis.high)).any())
    if axis.log:
        values = np.log10(values[values > 0])
    low, high = float(values.min()), float(values.max())
    near, far = np.percentile(values, (1.0, 99.0)).tolist()
    ends = far > near and far - near < FAR * (high - low)
    low, high = (near, far) if ends else (low, high)
    if not high > low:
        low, high = scale.padded(low, high)
    if axis.log:
        low, high = 10.0**low, 10.0**high
    return Scale(low, high, log=axis.log, percent=axis.percent), ends


def _page(figure: Figure, shown: HeatMap, table: Cells, axis: Scale, ends: bool, look: Look) -> None:
    panel, u, page = shown.panel, look.scale, frame.page(figure)
    rows = len(table.order)
    size = NAME * u
    listed = [panel.series[i] for i in table.order]
    room = 0.3 * page.right
    names = distinct([drawable(one.label) for one in listed], [one.run_id for one in listed], size, room)
    groups = None if shown.groups is None else [drawable(shown.groups[i]) for i in table.order]
    if groups is not None and not all(group in name for group, name in zip(groups, names, strict=True)):
        names = [f"{group}: {name}" for group, name in zip(groups, names, strict=True)]
    left = 40.0 * u + min(widest(names, size), 0.4 * page.right)
    right = page.right - 150.0 * u
    bottom = 86.0 * u
    note = "colours end at the middle 98 %" if ends else ""
    subtitle = " · ".join(filter(None, (panel.subtitle, *panel.notes, note)))
    words = Words(
        title=drawable(panel.title),
        subtitle=drawable(subtitle),
        x_label=drawable(panel.series[0].x_label),
        y_label="",
        whole_x=all(one.x.dtype.kind in "iu" for one in listed),
        time_x=panel.time_x,
    )
    top = page.top - frame.heading(figure, page, 40.0 * u, page.right - 20.0 * u, look, words)
    axes = _axes(figure, Box(left, bottom, right, top), page)
    if panel.view.log_x:
        axes.set_xscale("log")
    axes.set_xlim(float(table.edges[0]), float(table.edges[-1]))
    axes.set_ylim(rows, 0.0)
    norm = LogNorm(axis.low, axis.high) if axis.log else Normalize(axis.low, axis.high)
    values = np.ma.masked_invalid(np.where(table.values > 0.0, table.values, np.nan) if axis.log else table.values)
    axes.pcolormesh(table.edges, np.arange(rows + 1), values, norm=norm, cmap=COLOURS, rasterized=True, gid="cells")
    for row in range(1, rows):
        if groups is not None and groups[row] != groups[row - 1]:
            axes.axhline(row, color=look.page, linewidth=2.5 * u, gid="between")
    every = max(1, math.ceil(size * PX * 1.2 * rows / (top - bottom)))
    places = range(0, rows, every)
    axes.set_yticks([place + 0.5 for place in places], [names[place] for place in places], fontsize=size)
    axes.tick_params(axis="y", length=0.0)
    frame.x_ticks(axes, right - left, look, words, beside=(left, page.right - right))
    axes.set_xlabel(words.x_label, fontsize=frame.LABEL * u)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    _bar(figure, axis, norm, Box(right + 22.0 * u, bottom, right + 42.0 * u, top), page, look, panel)


def _bar(figure: Figure, axis: Scale, norm: Normalize, box: Box, page: Box, look: Look, panel: Panel) -> None:
    """The colours beside the map, with the values that they stand for."""
    axes = _axes(figure, box, page)
    if axis.log:
        axes.set_yscale("log")
    axes.set_ylim(axis.low, axis.high)
    edges = np.geomspace(axis.low, axis.high, 257) if axis.log else np.linspace(axis.low, axis.high, 257)
    middle = np.sqrt(edges[:-1] * edges[1:]) if axis.log else (edges[:-1] + edges[1:]) / 2.0
    axes.pcolormesh([0.0, 1.0], edges, middle[:, np.newaxis], norm=norm, cmap=COLOURS, rasterized=True, gid="bar")
    frame.y_ticks(axes, axis, look, box.top - box.bottom)
    axes.grid(False, which="both")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", labelsize=TICK * look.scale, which="both")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    if panel.y_unit:
        figure.text(
            box.left / page.right,
            (box.top + 12.0 * look.scale) / page.top,
            drawable(panel.y_unit),
            fontsize=SUBTITLE * look.scale,
            color=look.grey,
        )


def _axes(figure: Figure, box: Box, page: Box) -> Axes:
    width, height = max(box.right - box.left, 40.0), max(box.top - box.bottom, 40.0)
    place = (box.left / page.right, box.bottom / page.top, width / page.right, height / page.top)
    axes = figure.add_axes(place, autoscale_on=False)
    axes.grid(False)
    return axes


__all__ = ["HeatMap", "cells", "draw_heatmap"]
