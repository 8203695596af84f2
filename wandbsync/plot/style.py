"""How every figure looks: sizes, colours and matplotlib settings of our own, whatever the user's matplotlibrc says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.typing import LineStyleType

from . import text

DPI = 150
HEIGHT = 4.8  # inches, as all sizes here
WIDTH = 8.0
WIDTH_WITH_KEY = (9.5, 12.0)  # with one and with two columns of names beside the axes

INK = "#222222"
GREY = "#666666"
GRID = "#e3e3e3"
MINOR_GRID = "#f0f0f0"

# Okabe and Ito without their yellow, which vanishes on white; then Tol's "muted". Both are safe for the colour-blind.
FEW = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MANY = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499")
DASHES: tuple[LineStyleType, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
WIDTHS = (1.8, 0.8)  # points


@dataclass(frozen=True, slots=True)
class Stroke:
    """What tells a line from the others."""

    colour: str
    dashes: LineStyleType = "-"
    width: float = WIDTHS[0]


def strokes(count: int) -> list[Stroke]:
    """A stroke for each of `count` lines, distinct up to 72; after that they are taken again from the start."""
    if count <= len(FEW):
        return [Stroke(colour) for colour in FEW[:count]]
    every = [Stroke(colour, dashes, width) for width in WIDTHS for dashes in DASHES for colour in MANY]
    return [every[i % len(every)] for i in range(count)]


@contextmanager
def own_settings() -> Iterator[None]:
    """Matplotlib's defaults plus ours; artists are made and drawn under it, for some settings are read late."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "axes.edgecolor": GREY,
                "axes.labelcolor": INK,
                "axes.linewidth": 0.8,
                "axes.spines.right": False,
                "axes.spines.top": False,
                "figure.dpi": DPI,
                "font.family": text.families(),
                "font.size": 10,
                "grid.color": GRID,
                "grid.linewidth": 0.7,
                "lines.solid_capstyle": "round",
                "lines.solid_joinstyle": "round",
                "path.simplify": True,
                "pdf.fonttype": 42,
                "savefig.dpi": "figure",
                "svg.fonttype": "none",
                "text.color": INK,
                "text.parse_math": False,  # a `$` in a metric's name is a dollar
                "xtick.color": GREY,
                "xtick.labelcolor": INK,
                "ytick.color": GREY,
                "ytick.labelcolor": INK,
            }
        )
        yield
