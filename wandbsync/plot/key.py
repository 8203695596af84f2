"""Which line is which: names at the ends of few lines, above the axes, or in a list beside. Never over the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from .measure import PX, UNITS, distinct, fitted, widest, width
from .style import Look, Stroke

AT_LINES = 8  # so many lines are named at their ends; more are listed beside the axes
ROWS = 30  # names per column of that list, and at most two columns
ROOM = (300.0, 270.0)  # for a name there, in one column and in two
ABOVE_LINES = 12  # of more, names above the axes are smaller, and as many side by side as fit
ABOVE_ROWS = 12  # of names above the axes
NAME_ROOM = 320.0  # for a name at a line
GAP = 11.0 * PX  # between two names at lines
NAME, LISTED = 9.5, 8.0  # font sizes
_LINE, _SPACE, _NEXT = 34.0, 12.0, 30.0  # above the axes: a piece of a line, from there to its name, and to the next


@dataclass(frozen=True, slots=True)
class End:
    """What is said of a line beside the axes."""

    name: str
    run_id: str  # said as well, if shortened names look alike
    last: float  # the value that was logged last, in the units of the axis
    text: str  # the same, as it is written
    stroke: Stroke
    at: float = 0.0  # where the line ends
    note: str = ""  # said behind the name, however that is shortened


def named(ends: Sequence[End], size: float, room: float) -> list[str]:
    """What the lines are called, each within a room and none like another."""
    room -= widest([f" {end.note}" for end in ends if end.note], size)
    each = list(dict.fromkeys((end.name, end.run_id) for end in ends))  # a run may have a line for each device
    names = dict(zip(each, distinct([name for name, _ in each], [one for _, one in each], size, room), strict=True))
    return [" ".join(filter(None, (names[end.name, end.run_id], end.note))) for end in ends]


def at_ends(ends: Sequence[End], look: Look, room: float) -> list[str]:
    """What stands at the ends of the lines; a line that is alone is named by the subtitle."""
    if len(ends) == 1:
        return [ends[0].text]
    names = named(ends, NAME * look.scale, room)
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
    values = widest(["  " + end.text for end in listed], size)
    most = max(min(ROOM[columns - 1] * look.scale, room / columns - 6.0 * size - values), 3.0 * size)
    names = named(listed, size, most)
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


def key_size(figure: Figure, key: Legend) -> tuple[float, float]:
    """How wide and how high a list is, in units."""
    canvas: Any = figure.canvas
    box = key.get_window_extent(canvas.get_renderer())
    return float(box.width) * UNITS / figure.dpi, float(box.height) * UNITS / figure.dpi


def above(
    figure: Figure, ends: Sequence[End], look: Look, *, left: float, right: float, top: float, low: float
) -> float:
    """The names of the lines side by side, in rows from `top` downwards to `low`; how much room they take."""
    size, row = _above_size(len(ends), look)
    rows = rows_above(ends, look, right - left, max(int((top - low) / row), 1))
    across, up = (float(inches) * UNITS for inches in figure.get_size_inches())
    for i, names in enumerate(rows):
        x, y = left, top - (i + 0.5) * row
        for end, name in names:
            if end is not None:
                handle = Line2D(
                    [x / across, (x + _LINE * look.scale) / across],
                    [y / up, y / up],
                    transform=figure.transFigure,
                    color=end.stroke.colour,
                    linestyle=end.stroke.dashes,
                    linewidth=end.stroke.width,
                )
                handle.set_gid("key")
                figure.add_artist(handle)
                x += (_LINE + _SPACE) * look.scale
            figure.text(
                x / across,
                y / up,
                name,
                fontsize=size,
                color=look.ink,
                verticalalignment="center_baseline",
                gid="name",
            )
            x += width(name, size) + _NEXT * look.scale
    return len(rows) * row


def rows_above(ends: Sequence[End], look: Look, room: float, most: int) -> list[list[tuple[End | None, str]]]:
    """Which names stand in which row above the axes; for those that `most` rows do not hold, how many they are."""
    u, (size, _) = look.scale, _above_size(len(ends), look)
    handle, next_one = (_LINE + _SPACE) * u, _NEXT * u
    aside = min(len(ends), 3) if len(ends) <= ABOVE_LINES else max(int(room / (ROOM[1] * u + handle)), 1)
    whole = named(ends, size, math.inf)
    while aside > 1 and len(ends) <= ABOVE_LINES and named(ends, size, room / aside - handle) != whole:
        aside -= 1
    names = named(ends, size, room / aside - handle)
    rows: list[list[tuple[End | None, str]]] = [[]]
    x = 0.0
    for end, name in zip(ends, names, strict=True):
        name = fitted(name, size, room - handle)
        wide = handle + width(name, size)
        if rows[-1] and x + wide > room:
            rows.append([])
            x = 0.0
        rows[-1].append((end, name))
        x += wide + next_one
    if len(rows) <= most:
        return rows
    rows = rows[:most]
    while True:
        more = fitted(f"… and {len(ends) - sum(map(len, rows))} more", size, room)
        taken = sum(handle + width(name, size) + next_one for _, name in rows[-1])
        if not rows[-1] or taken + width(more, size) <= room:
            rows[-1].append((None, more))
            return rows
        rows[-1].pop()


def _above_size(count: int, look: Look) -> tuple[float, float]:
    """The size of the names of so many lines above the axes, and how high a row of them is."""
    size = (NAME if count <= ABOVE_LINES else LISTED) * look.scale
    return size, 1.9 * size * PX


def more_above(ends: Sequence[End], look: Look, room: float) -> float:
    """How many inches higher a page is for names above its axes that need more than one row."""
    rows = len(rows_above(ends, look, room, ABOVE_ROWS)) if ends else 0
    return 0.0 if rows < 2 else (rows - 0.5) * _above_size(len(ends), look)[1] / UNITS


def _handle(stroke: Stroke) -> Line2D:
    return Line2D([], [], color=stroke.colour, linestyle=stroke.dashes, linewidth=stroke.width)


def beside_width(lines: int, look: Look) -> float:
    """How many inches wider a figure is for a list of so many lines beside it."""
    if lines <= AT_LINES:
        return 0.0
    return (1.5 if lines <= ROWS else 4.0) * look.scale


__all__ = ["AT_LINES", "End", "above", "apart", "at_ends", "beside", "beside_width", "key_size", "put_at_ends"]
