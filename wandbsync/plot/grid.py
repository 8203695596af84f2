"""Several panels on one page: how large it is and where each stands."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from . import key
from .frame import SUBTITLE, TITLE, Box, page
from .key import End
from .measure import UNITS, fitted
from .style import Look, shrunk

PANEL = (4.0, 2.7)  # inches of a panel in the screen look
LEAST = (2.6, 2.2)  # inches of a panel in which words have their size
HEADING = 0.75
MARGIN = 34.0  # beside the heading


def shape(count: int) -> tuple[int, int]:
    """Rows and columns."""
    columns = {1: 1, 2: 2, 3: 3, 4: 2}.get(count, 3 if count <= 9 else 4)
    return math.ceil(count / columns), columns


def page_size(count: int, ends: Sequence[End], look: Look) -> tuple[float, float]:
    """Inches; higher if the names of the lines need many rows."""
    rows, columns = shape(count)
    width = columns * PANEL[0] * look.scale
    names = key.more_above(ends, look, width * UNITS - 2.0 * MARGIN * look.scale)
    return width, (rows * PANEL[1] + HEADING) * look.scale + names


def look_within(size: tuple[float, float], count: int, look: Look) -> Look:
    """The look with words that are small enough for so many panels on a page of that size."""
    rows, columns = shape(count)
    return shrunk(look, (size[0] / columns, size[1] / rows), LEAST)


def place(figure: Figure, count: int, ends: Sequence[End], look: Look, *, title: str, subtitle: str) -> list[Box]:
    """Write the heading and the names of the lines; the boxes of the panels, row by row."""
    u, whole = look.scale, page(figure)
    left = MARGIN * u
    down = 24.0 * u
    for text, size, colour, weight in (
        (title, TITLE * 1.1 * u, look.bold, "bold"),
        (subtitle, SUBTITLE * u, look.grey, "normal"),
    ):
        if text:
            figure.text(
                left / whole.right,
                (whole.top - down) / whole.top,
                fitted(text, size, whole.right - 2.0 * left, weight=weight),
                fontsize=size,
                fontweight=weight,
                color=colour,
                verticalalignment="top",
                gid="title" if weight == "bold" else "subtitle",
            )
            down += 1.35 * size * UNITS / 72.0
    top = whole.top - down - 8.0 * u
    rows, columns = shape(count)
    if ends:
        low = min(0.7 * whole.top, rows * PANEL[1] * UNITS * u)
        top -= key.above(figure, ends, look, left=left, right=whole.right - left, top=top, low=low)
    wide, high = whole.right / columns, top / rows
    return [
        Box(column * wide, top - (row + 1) * high, (column + 1) * wide, top - row * high)
        for row in range(rows)
        for column in range(columns)
    ][:count]


def in_line(rooms: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The rooms beside the axes of panels, such that all axes of a column begin and end at one place."""
    _, columns = shape(len(rooms))
    widest = [
        (max(left for left, _ in rooms[column::columns]), max(right for _, right in rooms[column::columns]))
        for column in range(min(columns, len(rooms)))
    ]
    return [widest[i % columns] for i in range(len(rooms))]
