"""The words around the axes (ticks, title, names of the lines) and the room they take, measured, never guessed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from . import style
from .scale import Scale
from .text import shorten, told_apart
from .ticks import linear_ticks, log_ticks, percent_text, tick_texts, value_text

PX = style.DPI / 72.0  # pixels per point
NAMES_AT_LINES = 8  # so many lines are named at their ends; more are listed beside the axes
ROWS = 30  # names per column of that list, and at most two columns
KEY_ROOM = (300.0, 270.0)  # pixels for a name there, in one column and in two
NAME_ROOM = 240.0  # pixels for a name at a line
GAP = 11.0 * PX  # between two names at lines
TITLE, SUBTITLE, NAME, KEY, TICK, LABEL = 12.0, 8.5, 9.5, 8.0, 9.5, 10.0  # font sizes


@dataclass(frozen=True, slots=True)
class End:
    """What is said of a line beside the axes."""

    name: str
    run_id: str  # said as well, if shortened names look alike
    last: float  # in the units of the axis
    stroke: style.Stroke


def width(lines: int) -> float:
    """The width in inches of a figure with so many lines."""
    if lines <= NAMES_AT_LINES:
        return style.WIDTH
    return style.WIDTH_WITH_KEY[0 if lines <= ROWS else 1]


def fit(
    figure: Figure,
    axes: Axes,
    *,
    ends: Sequence[End],
    title: str,
    subtitle: str,
    x_label: str,
    y_label: str,
    whole_x: bool,
    axis: Scale,
) -> None:
    """Set ticks and words and place the axes; `axes` has its limits and its lines already."""
    full_width, full_height = figure.get_size_inches() * style.DPI
    top, bottom = full_height - 95.0, 86.0
    at_lines = len(ends) <= NAMES_AT_LINES

    y_texts = _y_ticks(axes, axis)
    left = 2.0 * LABEL * PX + 34.0 + max((_width(text, TICK) for text in y_texts), default=0.0)
    beside = _end_texts(ends, axis) if at_lines else []
    key = None if at_lines else _key(figure, ends, axis)
    if key is None:
        right = full_width - 34.0 - max((_width(text, NAME) for text in beside), default=0.0)
    else:
        right = full_width - 28.0 - key.get_window_extent(_renderer(figure)).width
        key.set_bbox_to_anchor(((right + 14.0) / full_width, (top + bottom) / 2.0 / full_height))
    axes.set_position(
        (left / full_width, bottom / full_height, (right - left) / full_width, (top - bottom) / full_height)
    )
    _x_ticks(axes, right - left, whole=whole_x)
    if at_lines:
        _name_ends(figure, axes, ends, beside, x=(right + 18.0) / full_width)

    axes.set_xlabel(_fitted(x_label, LABEL, right - left), fontsize=LABEL, labelpad=6.0)
    suffix = " (log scale)" if axes.get_yscale() == "log" else ""
    axes.set_ylabel(_fitted(y_label, LABEL, top - bottom - _width(suffix, LABEL)) + suffix, fontsize=LABEL)
    axes.yaxis.set_label_coords((16.0 + LABEL * PX / 2.0 - left) / (right - left), 0.5)
    room = full_width - left - 20.0
    figure.text(
        left / full_width,
        1.0 - 32.0 / full_height,
        _fitted(title, TITLE, room, weight="bold"),
        fontsize=TITLE,
        fontweight="bold",
        color="black",
        verticalalignment="top",
        gid="title",
    )
    figure.text(
        left / full_width,
        1.0 - 65.0 / full_height,
        _fitted(subtitle, SUBTITLE, room),
        fontsize=SUBTITLE,
        color=style.GREY,
        verticalalignment="top",
        gid="subtitle",
    )


def _y_ticks(axes: Axes, axis: Scale) -> list[str]:
    low, high = axes.get_ylim()
    if axis.percent:
        ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        texts = [f"{tick:.0%}" for tick in ticks]
    elif axis.log:
        ticks, minor = log_ticks(low, high)
        texts = [tick_texts([tick])[0] for tick in ticks]
        if len(set(texts)) < len(texts):
            texts = tick_texts(ticks)
        axes.set_yticks(minor, minor=True)
        axes.grid(True, which="minor", axis="y", color=style.MINOR_GRID)
    else:
        ticks = linear_ticks(low, high, 6)
        texts = tick_texts(ticks, power=axis.power)
    axes.set_yticks(ticks, texts, fontsize=TICK)
    return texts


def _x_ticks(axes: Axes, room: float, *, whole: bool) -> None:
    """As many ticks as fit side by side."""
    low, high = axes.get_xlim()
    for most in range(7, 0, -1):
        ticks = linear_ticks(low, high, most, integer=whole)
        texts = tick_texts(ticks)
        if sum(_width(text, TICK) + 16.0 for text in texts) <= room:
            break
    axes.set_xticks(ticks, texts, fontsize=TICK)


def _end_texts(ends: Sequence[End], axis: Scale) -> list[str]:
    """What stands at the ends of the lines; a line that is alone is named by the subtitle."""
    if len(ends) == 1:
        return [_last_text(ends[0], axis)]
    names = _told_apart(ends, NAME, NAME_ROOM)
    return [f"{name}  {_last_text(end, axis)}" for name, end in zip(names, ends, strict=True)]


def _last_text(end: End, axis: Scale) -> str:
    """The last value, written as the axis is and exact enough to find it there."""
    if axis.percent:
        return percent_text(end.last)
    return value_text(end.last, span=math.inf if axis.log else axis.high - axis.low, power=axis.power)


def _name_ends(figure: Figure, axes: Axes, ends: Sequence[End], texts: Sequence[str], *, x: float) -> None:
    height = float(figure.get_size_inches()[1]) * style.DPI
    wanted = [float(axes.transData.transform((axes.get_xlim()[1], end.last))[1]) for end in ends]
    low, high = (edge * height for edge in axes.get_position().intervaly)
    for y, text, end in zip(apart(wanted, GAP, low, high), texts, ends, strict=True):
        figure.text(x, y / height, text, color=end.stroke.colour, fontsize=NAME, verticalalignment="center", gid="name")


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to the wanted ones as can be, `gap` from each other, between low and high if there is room."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[list[float]] = []  # of touching places: [centre, how many]
    for i in order:
        groups.append([wanted[i], 1])
        while True:
            centre, count = groups[-1]
            half = (count - 1) * gap / 2.0
            groups[-1][0] = centre = max(min(centre, high - half), low + half)
            if len(groups) == 1:
                break
            below, others = groups[-2]
            if centre - half - (below + (others - 1) * gap / 2.0) >= gap:
                break
            groups[-2:] = [[(below * others + centre * count) / (others + count), others + count]]
    places = [centre + (k - (count - 1) / 2.0) * gap for centre, count in groups for k in range(int(count))]
    return [place for _, place in sorted(zip(order, places, strict=True))]


def _key(figure: Figure, ends: Sequence[End], axis: Scale) -> Legend:
    """The list of lines beside the axes, the largest last value first, as tall as the figure allows."""
    listed = sorted(ends, key=lambda end: end.last, reverse=True)
    more = len(ends) - 2 * ROWS + 1 if len(ends) > 2 * ROWS else 0
    listed = listed[: len(ends) - more]
    strokes = [end.stroke for end in listed]
    handles = [Line2D([], [], color=one.colour, linestyle=one.dashes, linewidth=one.width) for one in strokes]
    names = _told_apart(listed, KEY, KEY_ROOM[0 if len(ends) <= ROWS else 1])
    texts = [f"{name}  {_last_text(end, axis)}" for name, end in zip(names, listed, strict=True)]
    if more:
        handles.append(Line2D([], [], linestyle="none"))
        texts.append(f"… and {more} more")
    key = Legend(
        figure,
        handles,
        ["-"] * len(handles),  # a label given here that starts with "_" would be dropped
        loc="center left",
        bbox_to_anchor=(0.5, 0.5),
        bbox_transform=figure.transFigure,
        ncols=math.ceil(len(handles) / ROWS),
        fontsize=KEY,
        frameon=False,
        handlelength=1.9,
        handletextpad=0.8,
        columnspacing=1.6,
        labelspacing=min(0.5, 18.0 / min(len(handles), ROWS) - 0.38),
        borderpad=0.0,
        borderaxespad=0.0,
    )
    for drawn, text in zip(key.get_texts(), texts, strict=True):
        drawn.set_text(text)
    figure.add_artist(key)
    return key


def _renderer(figure: Figure) -> Any:
    canvas: Any = figure.canvas
    return canvas.get_renderer()


@cache
def _ruler() -> Any:
    return _renderer(FigureCanvasAgg(Figure(figsize=(1.0, 1.0), dpi=style.DPI)).figure)


def _width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a text in pixels."""
    if not text:
        return 0.0
    font = FontProperties(size=size, weight=weight)
    measured: float = _ruler().get_text_width_height_descent(text, font, ismath=False)[0]
    return measured


def _told_apart(ends: Sequence[End], size: float, room: float) -> list[str]:
    return told_apart([end.name for end in ends], [end.run_id for end in ends], room, lambda part: _width(part, size))


def _fitted(text: str, size: float, room: float, *, weight: str = "normal") -> str:
    return shorten(text, room, lambda part: _width(part, size, weight))
