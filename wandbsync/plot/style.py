"""How figures look: three looks, the colours, and settings of our own, whatever the user's matplotlibrc says.

Sizes of fonts, lines and margins are those of the screen look; another look scales them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .options import PlotOptions
from .trace import COLUMNS

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType

# Okabe and Ito without their yellow, which vanishes on white, and three of Tol's "muted": all can be told apart by
# colour-blind readers too. The order is a promise: it is what is remembered of a run (see `colours`).
ON_WHITE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#332288", "#999933"),
)
# The same in the same order, light enough for a dark page.
ON_DARK = (
    *("#3F8FE0", "#E8592B", "#22B585", "#E79AC8", "#F0E442", "#8AD4FF", "#FFFFFF"),
    *("#8A5A8A", "#7A4AE6", "#3A7A58"),
)
DASHES: tuple[LineStyleType, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
WIDTHS = (1.8, 0.9)  # points
SMALLEST = (4.0, 2.7)  # inches of a page on which words have their size; on a smaller one all shrinks with it
VECTOR = 300  # columns of an inch in which long lines are seen, where there are no pixels


@dataclass(frozen=True, slots=True)
class Look:
    """Size in inches, pixels per inch, what fonts and lines are scaled by, and the colours."""

    width: float
    height: float
    dpi: int
    scale: float = 1.0
    page: str = "#ffffff"
    bold: str = "#000000"
    ink: str = "#222222"
    grey: str = "#666666"
    grid: str = "#e3e3e3"
    minor_grid: str = "#f0f0f0"
    colours: tuple[str, ...] = ON_WHITE
    faint: float = 0.22  # how opaque raw values are behind their smoothing
    columns: int = COLUMNS  # of a pixel, in which long lines are seen


_SCREEN = Look(8.0, 4.8, 150)
LOOKS = {
    "screen": _SCREEN,
    "paper": Look(5.5, 3.3, 300, scale=0.8),
    "dark": Look(
        *(8.0, 4.8, 150, 1.0),
        page="#14171c",
        bold="#ffffff",
        ink="#d8dce2",
        grey="#98a0ab",
        grid="#2b3038",
        minor_grid="#20242b",
        colours=ON_DARK,
        faint=0.32,
    ),
}


def look_of(options: PlotOptions) -> Look:
    """How a picture is to look. What has no pixels is seen in columns that are fine enough for paper."""
    look = LOOKS[options.style]
    if options.size is not None:
        look = shrunk(replace(look, width=options.size[0], height=options.size[1]), options.size, SMALLEST)
    look = look if options.dpi is None else replace(look, dpi=options.dpi)
    return look if options.format == "png" else replace(look, columns=max(1, VECTOR // look.dpi))


def shrunk(look: Look, room: tuple[float, float], least: tuple[float, float]) -> Look:
    """The look with words and lines small enough for a room of some inches, if that is less than they need."""
    share = min(inches / (need * look.scale) for inches, need in zip(room, least, strict=True))
    return look if share >= 1.0 else replace(look, scale=look.scale * share)


@dataclass(frozen=True, slots=True)
class Stroke:
    """What tells a line from the others."""

    colour: str
    dashes: LineStyleType = "-"
    width: float = WIDTHS[0]
    alpha: float = 1.0


def strokes(slots: Sequence[int], look: Look = _SCREEN) -> list[Stroke]:
    """A stroke for each line, by its place in the colours: lines of one colour differ by dashes, then by width.

    Eight lines of one colour can be told apart; the ninth looks like the first.
    """
    seen: Counter[int] = Counter()
    found = []
    for slot in slots:
        place = slot % len(look.colours)
        turn = seen[place] % (len(DASHES) * len(WIDTHS))
        seen[place] += 1
        width = WIDTHS[turn // len(DASHES)] * look.scale
        found.append(Stroke(look.colours[place], DASHES[turn % len(DASHES)], width))
    return found


def tail(stroke: Stroke) -> Stroke:
    """What a line goes on as where it is less than it was."""
    return replace(stroke, dashes=(0, (1.5, 1.2)), width=0.7 * stroke.width, alpha=0.6)


def unnamed(slot: int, look: Look) -> Stroke:
    """A line of several that are alike."""
    return Stroke(look.colours[slot % len(look.colours)], width=0.7 * WIDTHS[0] * look.scale, alpha=0.85)


def context(look: Look) -> Stroke:
    """A line that others stand out of."""
    return Stroke(look.grey, width=0.7 * look.scale, alpha=0.3)


@contextmanager
def own_settings(look: Look = _SCREEN) -> Iterator[None]:
    """Matplotlib's defaults plus ours; artists are made and drawn under it, for some settings are read late.

    Within itself it does nothing: whoever draws many figures enters it once, which saves a tenth of their time.
    """
    if _entered and _entered[-1] == look:
        yield
        return
    import matplotlib as mpl

    from . import text

    settings: Any = mpl.rcParams
    with mpl.rc_context():
        # As mpl.rcdefaults, which first reads every style sheet there is. A backend is chosen by being looked at.
        settings.update(
            {
                name: value
                for name, value in mpl.rcParamsDefault.items()
                if name != "backend" and settings[name] != value
            }
        )
        settings.update(
            {
                "axes.edgecolor": look.grey,
                "axes.facecolor": look.page,
                "axes.labelcolor": look.ink,
                "axes.linewidth": 0.8 * look.scale,
                "axes.titley": 1.0,  # there is none: or room would be measured for it at every drawing
                "axes.spines.right": False,
                "axes.spines.top": False,
                "figure.facecolor": look.page,
                "font.family": text.families(),
                "font.size": 10.0 * look.scale,
                "grid.color": look.grid,
                "grid.linewidth": 0.7 * look.scale,
                "lines.solid_capstyle": "round",
                "lines.solid_joinstyle": "round",
                "path.simplify": True,
                "pdf.fonttype": 42,
                "savefig.dpi": "figure",
                "svg.fonttype": "none",
                "svg.hashsalt": "wandbsync",
                "text.color": look.ink,
                "text.parse_math": False,  # a `$` in a metric's name is a dollar
                **{f"{axis}tick.{name}": size * look.scale for axis in "xy" for name, size in _TICKS.items()},
                **{f"{axis}tick.color": look.grey for axis in "xy"},
                **{f"{axis}tick.labelcolor": look.ink for axis in "xy"},
            }
        )
        _entered.append(look)
        try:
            yield
        finally:
            _entered.pop()


_entered: list[Look] = []
_TICKS = {
    "major.size": 3.5,
    "major.width": 0.8,
    "major.pad": 3.5,
    "minor.size": 2.0,
    "minor.width": 0.6,
}
