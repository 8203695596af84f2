"""The words around the axes (ticks, title, names of the lines), and where the axes themselves are.

Room is measured, never guessed: see `measure` for its units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from . import key, measure
from .key import End
from .measure import PX, UNITS, fitted, widest
from .scale import Scale
from .style import Look
from .ticks import linear_ticks, log_ticks, percent_text, tick_texts, time_ticks, value_text

TITLE, SUBTITLE, TICK, LABEL = 12.0, 8.5, 9.5, 10.0  # font sizes
X_LABEL = 24.0  # points from the axes down to the name of x


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the page, from its lower left corner."""

    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True, slots=True)
class Words:
    """What is written around one pair of axes."""

    title: str
    subtitle: str
    x_label: str
    y_label: str
    whole_x: bool = False  # x counts something
    time_x: bool = False  # x is unix seconds
    key: str = "auto"  # where lines are named: at their ends or beside ("auto"), "above", or "none"
    small: bool = False  # one of many in a figure
    noted: bool = False  # there is room for its subtitle all the same: it, or another in the figure, has one


def page(figure: Figure) -> Box:
    """All of it."""
    width, height = (float(inches) * UNITS for inches in figure.get_size_inches())
    return Box(0.0, 0.0, width, height)


def sides(axes: Axes, box: Box, look: Look, *, words: Words, ends: Sequence[End], axis: Scale) -> tuple[float, float]:
    """How much room there must be left and right of the axes, which get their y ticks."""
    look = _smaller(look, words)
    u = look.scale
    y_texts = y_ticks(axes, axis, look, (box.top - box.bottom) / u - 180.0)
    label = 0.0 if words.small else 2.0 * LABEL * PX * u
    named = _at_ends(ends, box, look, words)
    return label + 38.0 * u + widest(y_texts, TICK * u), 34.0 * u + (widest(named, key.NAME * u) if named else 0.0)


def fit(
    figure: Figure,
    axes: Axes,
    box: Box,
    look: Look,
    *,
    words: Words,
    ends: Sequence[End],
    room: tuple[float, float],
) -> tuple[float, float]:
    """Set ticks and words and place the axes, which have their limits already; gives the size of the axes in units.

    `room` is what `sides` gives, or more if the axes are to stand in line with others.
    """
    look = _smaller(look, words)
    u = look.scale
    left, right = box.left + room[0], box.right - room[1]
    bottom = box.bottom + 86.0 * u
    texts = _at_ends(ends, box, look, words)
    across = box.right - 20.0 * u  # how far to the right it may go
    if words.key == "auto" and not texts:
        most = 0.45 * (box.right - box.left)
        listed = key.beside(figure, ends, look, height=box.top - box.bottom - 60.0 * u, room=most)
        wide, high = key.key_size(figure, listed)
        right = box.right - 28.0 * u - wide
        whole = page(figure)
        listed.set_bbox_to_anchor(((right + 14.0 * u) / whole.right, (box.top + box.bottom) / 2.0 / whole.top))
        if box.top - box.bottom - high < 200.0 * u:  # it begins beside the heading
            across = right
    top = box.top - heading(figure, box, left, across, look, words)
    if words.key == "above" and ends:
        low = bottom + 0.45 * (top - bottom)
        top -= key.above(figure, ends, look, left=left, right=box.right - 28.0 * u, top=top, low=low) + 8.0 * u
    right, top = max(right, left + 60.0 * u), max(top, bottom + 40.0 * u)
    width, height = right - left, top - bottom
    whole = page(figure)
    axes.set_position((left / whole.right, bottom / whole.top, width / whole.right, height / whole.top))
    x_ticks(axes, width, look, words, beside=(left - box.left, box.right - right))
    if texts:
        places = axes.get_yaxis_transform().transform([(1.0, end.at) for end in ends])[:, 1] * UNITS / figure.dpi
        wanted = [min(max(float(place), bottom), top) if math.isfinite(place) else bottom for place in places]
        key.put_at_ends(figure, ends, texts, look, x=right + 18.0 * u, wanted=wanted, low=bottom, high=top)
    _labels(axes, look, words, width=width, height=height, edge=(box.left + 22.0 * u + LABEL * u * PX / 2.0 - left))
    return width, height


def _smaller(look: Look, words: Words) -> Look:
    return replace(look, scale=look.scale * 0.85) if words.small else look


def _at_ends(ends: Sequence[End], box: Box, look: Look, words: Words) -> list[str]:
    """What is written at the ends of the lines, if something is."""
    if not 0 < len(ends) <= key.AT_LINES or not (words.key == "auto" or (words.key == "none" and len(ends) == 1)):
        return []
    return key.at_ends(ends, look, min(key.NAME_ROOM * look.scale, 0.28 * (box.right - box.left)))


def heading(figure: Figure, box: Box, left: float, right: float, look: Look, words: Words) -> float:
    """Title and subtitle, from left to right; how far below the upper edge they end."""
    u = look.scale
    whole = page(figure)
    room = right - left
    down = 32.0 * u if not words.small else 18.0 * u
    if words.title:
        figure.text(
            left / whole.right,
            (box.top - down) / whole.top,
            fitted(words.title, TITLE * u, room, weight="bold"),
            fontsize=TITLE * u,
            fontweight="bold",
            color=look.bold,
            verticalalignment="top",
            gid="title",
        )
        down += 33.0 * u
    if words.small and not words.noted:
        return down + 4.0 * u
    down -= 6.0 * u if words.small else 0.0
    figure.text(
        left / whole.right,
        (box.top - down) / whole.top,
        fitted(words.subtitle, SUBTITLE * u, room),
        fontsize=SUBTITLE * u,
        color=look.grey,
        verticalalignment="top",
        gid="subtitle",
    )
    return down + (30.0 * u if words.subtitle or words.title or words.noted else 0.0)


def _labels(axes: Axes, look: Look, words: Words, *, width: float, height: float, edge: float) -> None:
    size = LABEL * look.scale
    axes.set_xlabel(fitted(words.x_label, size, width), fontsize=size)
    # Below the ticks, their texts and a gap; said here, it need not be measured at every drawing.
    axes.xaxis.set_label_coords(0.5, -(X_LABEL * look.scale * PX) / height)
    if words.small:
        return
    suffix = " (log scale)" if axes.get_yscale() == "log" else ""
    y_label = fitted(words.y_label, size, height - measure.width(suffix, size))
    axes.set_ylabel((y_label + suffix).strip(), fontsize=size)
    axes.yaxis.set_label_coords(edge / width, 0.5)


def y_ticks(axes: Axes, axis: Scale, look: Look, height: float) -> list[str]:
    low, high = axes.get_ylim()
    most = 6 if height > 320.0 else 5 if height > 180.0 else 4 if height > 100.0 else 2
    axes.yaxis.set_minor_formatter(NullFormatter())
    if axis.percent:
        whole = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) if most > 2 else (0.0, 0.5, 1.0)
        ticks = [tick for tick in whole if low <= tick <= high]
        if len(ticks) < 3:
            ticks = linear_ticks(low, high, most)
        texts = [text + "%" for text in tick_texts([tick * 100.0 for tick in ticks])]
    elif axis.log:
        ticks, minor = log_ticks(low, high, 24.0 / max(height, 60.0))
        texts = [tick_texts([tick])[0] for tick in ticks]
        if len(set(texts)) < len(texts):
            texts = tick_texts(ticks)
        axes.set_yticks(minor, minor=True)
        axes.grid(True, which="minor", axis="y", color=look.minor_grid)
    else:
        ticks = linear_ticks(low, high, most)
        texts = tick_texts(ticks, power=axis.power)
    axes.set_yticks(ticks, texts, fontsize=TICK * look.scale)
    return texts


def x_ticks(axes: Axes, room: float, look: Look, words: Words, *, beside: tuple[float, float]) -> None:
    """As many ticks as fit side by side; `beside` is the room left and right of the axes."""
    low, high = axes.get_xlim()
    size = TICK * look.scale
    axes.xaxis.set_minor_formatter(NullFormatter())
    if axes.get_xscale() == "log":
        ticks, minor = log_ticks(low, high)
        every = [tick_texts([tick])[0] for tick in ticks]
        axes.set_xticks(minor, minor=True)
    for most in range(7, 0, -1):
        if words.time_x:
            ticks, texts = time_ticks(low, high, most)
        elif axes.get_xscale() == "log":
            texts = [text if i % (8 - most) == 0 else "" for i, text in enumerate(every)]
        else:
            ticks = linear_ticks(low, high, most, integer=words.whole_x)
            texts = tick_texts(ticks)
        shown, gap = _within(texts, ticks, axes, room, size, beside)
        # The first text of times says the day, or from when the others count.
        if gap >= 16.0 * look.scale and (any(shown[:1]) if words.time_x else any(shown)):
            break
    axes.set_xticks(ticks, shown, fontsize=size)


def _within(
    texts: Sequence[str], ticks: Sequence[float], axes: Axes, room: float, size: float, beside: tuple[float, float]
) -> tuple[list[str], float]:
    """The texts of x ticks, without those that would be cut off at the edges of the page; and the smallest gap."""
    scaled: Callable[[float], float] = math.log10 if axes.get_xscale() == "log" else float
    low, high = (scaled(end) for end in axes.get_xlim())
    kept: list[str] = []
    end, gap = -math.inf, math.inf
    for text, tick in zip(texts, ticks, strict=True):
        place, half = (scaled(tick) - low) / (high - low) * room, measure.width(text, size) / 2.0
        kept.append(text if half <= place + beside[0] and place + half <= room + beside[1] else "")
        if kept[-1]:
            gap, end = min(gap, place - half - end), place + half
    return kept, gap


def last_text(last: float, axis: Scale) -> str:
    """The last value, written as the axis is and exact enough to find it there."""
    if axis.percent:
        return percent_text(last)
    exact = axis.low <= last <= axis.high and not axis.log
    return value_text(last, span=axis.high - axis.low if exact else math.inf, power=axis.power)
