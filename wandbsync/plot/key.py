"""Which line is which: names at the ends of few lines, above the axes, or in a list beside. Never over the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from .measure import PX, UNITS, distinct, fitted, width
from .style import Look, Stroke

AT_LINES = 8  # so many lines are named at their ends; more are listed beside the axes
ROWS = 30  # names per column of that list, and at most two columns
ROOM = (300.0, 270.0)  # for a name there, in one column and in two
NAME_ROOM = 240.0  # for a name at a line
GAP = 11.0 * PX  # between two names at lines
NAME, LISTED = 9.5, 8.0  # font sizes


@dataclass(frozen=True, slots=True)
class End:
    """What is said of a line beside the axes."""

    name: str
    run_id: str  # said as well, if shortened names look alike
    last: float  # in the units of the axis
    text: str  # the same, as it is written
    stroke: Stroke


def at_ends(ends: Sequence[End], look: Look, room: float) -> list[str]:
    """What stands at the ends of the lines; a line that is alone is named by the subtitle."""
    if len(ends) == 1:
        return [ends[0].text]
    names = distinct([e.name for e in ends], [e.run_id for e in ends], NAME * look.scale, room)
    return [f"{name}  {end.text}" for name, end in zip(names, ends, strict=True)]


def put_at_ends(
    figure: Figure,
    ends: Sequence[End],
    texts: Sequence[str],
    look: Look,
    *,
    x: float,
    wanted: Sequence[float],
    low: float,
    high: float,
) -> None:
    """Write them at x, each as near to where its line ends as can be; all in units of the figure."""
    across, up = (float(inches) * UNITS for inches in figure.get_size_inches())
    gap = min(GAP * look.scale, (high - low) / max(len(ends) - 1, 1))
    for y, text, end in zip(apart(wanted, gap, low, high), texts, ends, strict=True):
        figure.text(
            x / across,
            y / up,
            text,
            color=end.stroke.colour,
            fontsize=NAME * look.scale,
            verticalalignment="center",
            gid="name",
        )


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


def beside(figure: Figure, ends: Sequence[End], look: Look, *, height: float, room: float) -> Legend:
    """The list of lines beside the axes, the largest last value first, as tall as the figure allows."""
    size = LISTED * look.scale
    rows = max(min(ROWS, int(height / (1.3 * size * PX))), 1)
    columns = 1 if len(ends) <= rows or room < 1.5 * ROOM[0] * look.scale else 2
    listed = sorted(ends, key=lambda end: end.last, reverse=True)
    more = len(ends) - columns * rows + 1 if len(ends) > columns * rows else 0
    listed = listed[: len(ends) - more]
    handles = [_handle(end.stroke) for end in listed]
    most = min(ROOM[columns - 1] * look.scale, room / columns - 6.0 * size)
    names = distinct([end.name for end in listed], [end.run_id for end in listed], size, most)
    texts = [f"{name}  {end.text}" for name, end in zip(names, listed, strict=True)]
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
        ncols=columns,
        fontsize=size,
        frameon=False,
        handlelength=1.9,
        handletextpad=0.8,
        columnspacing=1.6,
        labelspacing=min(0.5, max(height / (size * PX) / min(len(handles), rows) - 1.12, 0.0)),
        borderpad=0.0,
        borderaxespad=0.0,
    )
    for drawn, text in zip(key.get_texts(), texts, strict=True):
        drawn.set_text(text)
    figure.add_artist(key)
    return key


def key_width(figure: Figure, key: Legend) -> float:
    """How wide a list is, in units."""
    canvas: Any = figure.canvas
    return float(key.get_window_extent(canvas.get_renderer()).width) * UNITS / figure.dpi


def above(figure: Figure, ends: Sequence[End], look: Look, *, left: float, right: float, top: float) -> float:
    """The names of the lines side by side, in rows from `top` downwards; how much room they take."""
    size = NAME * look.scale
    line, gap, next_one = 34.0 * look.scale, 12.0 * look.scale, 30.0 * look.scale
    row = 1.9 * size * PX
    names = distinct(
        [end.name for end in ends], [end.run_id for end in ends], size, (right - left) / min(len(ends), 3) - line - gap
    )
    across, up = (float(inches) * UNITS for inches in figure.get_size_inches())
    x, y = left, top - row / 2.0
    for name, end in zip(names, ends, strict=True):
        wide = line + gap + width(name, size)
        if x > left and x + wide > right:
            x, y = left, y - row
        handle = Line2D(
            [x / across, (x + line) / across],
            [y / up, y / up],
            transform=figure.transFigure,
            color=end.stroke.colour,
            linestyle=end.stroke.dashes,
            linewidth=end.stroke.width,
        )
        handle.set_gid("key")
        figure.add_artist(handle)
        figure.text(
            (x + line + gap) / across,
            y / up,
            fitted(name, size, right - left - line - gap),
            fontsize=size,
            color=look.ink,
            verticalalignment="center_baseline",
            gid="name",
        )
        x += wide + next_one
    return top - y + row / 2.0


def _handle(stroke: Stroke) -> Line2D:
    return Line2D([], [], color=stroke.colour, linestyle=stroke.dashes, linewidth=stroke.width)


def beside_width(lines: int, look: Look) -> float:
    """How many inches wider a figure is for a list of so many lines beside it."""
    if lines <= AT_LINES:
        return 0.0
    return (1.5 if lines <= ROWS else 4.0) * look.scale


__all__ = ["AT_LINES", "End", "above", "apart", "at_ends", "beside", "beside_width", "key_width", "put_at_ends"]
