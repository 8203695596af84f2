"""How much room words take. All sizes are in units of 1/150 inch, whatever the resolution of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from .short_names import shorten, told_apart
from .text import families

UNITS = 150  # per inch
PX = UNITS / 72.0  # units per point


@cache
def _ruler() -> Any:
    canvas: Any = FigureCanvasAgg(Figure(figsize=(1.0, 1.0), dpi=UNITS))
    return canvas.get_renderer()


@lru_cache(maxsize=4096)
def _measured(text: str, size: float, weight: str, families: tuple[str, ...]) -> float:
    font = FontProperties(size=size, weight=weight, family=list(families))
    wide: float = _ruler().get_text_width_height_descent(text, font, ismath=False)[0]
    return wide


def width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a text in points of `size`."""
    return _measured(text, size, weight, tuple(families())) if text else 0.0


def widest(texts: Sequence[str], size: float) -> float:
    return max((width(text, size) for text in texts), default=0.0)


def fitted(text: str, size: float, room: float, *, weight: str = "normal") -> str:
    """The text, or as much of it as fits."""
    return shorten(text, room, lambda part: width(part, size, weight))


def distinct(names: Sequence[str], ids: Sequence[str], size: float, room: float) -> list[str]:
    """The names, each within the room and none like another."""
    return told_apart(names, ids, room, lambda part: width(part, size))
