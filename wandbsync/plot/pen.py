"""One line as it is drawn: its bands, its faint values, its dots and itself, into axes that have their limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch

from . import envelope
from .style import Look, Stroke
from .trace import FloatArray, Trace

FEW = 3  # lines whose values are drawn as such behind their smoothing; of more they are a haze
HAZE = 1  # columns of a pixel, in which that is seen
FAINTEST = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A series as it is drawn: `raw` or `dots` are the values behind a smoothing; `last` is the last value logged."""

    label: str
    run_id: str
    stroke: Stroke
    raw: Trace | None
    dots: Trace | None
    main: Trace
    last: float
    bands: tuple[tuple[Trace, Trace], ...] = ()
    note: str = ""
    named: bool = True
    smoothed: bool = False  # `last` is no logged value

    def each(self, change: Any) -> Line:
        """The line with all its traces changed."""
        raw, dots = (None if trace is None else change(trace) for trace in (self.raw, self.dots))
        bands = tuple((change(low), change(high)) for low, high in self.bands)
        return replace(self, raw=raw, dots=dots, main=change(self.main), bands=bands)

    def drawn(self) -> list[Trace]:
        edges = [edge for band in self.bands for edge in band]
        return [trace for trace in (self.main, self.raw, self.dots, *edges) if trace is not None and len(trace)]


@dataclass(frozen=True, slots=True, eq=False)
class Pen:
    """Draws lines into one pair of axes."""

    axes: Axes
    window: envelope.Window
    look: Look
    full_res: bool
    lines: int = 1  # that will be drawn

    @property
    def faint(self) -> float:
        """How opaque values are behind their smoothing: of many lines, all over each other are no more than half."""
        return self.look.faint if self.lines <= FEW else max(1.0 - 0.5 ** (1.0 / self.lines), FAINTEST)

    def line(self, line: Line, index: int) -> None:
        faint = Stroke(line.stroke.colour, "-", 0.8 * self.look.scale)
        for depth, (low, high) in enumerate(line.bands):
            alpha = (0.2 if depth == 0 else 0.08) * line.stroke.alpha
            self._area(low, high, f"band-{index}-{depth}", line.stroke, alpha=alpha)
        if line.raw is not None and self.lines > FEW and not self.full_res:
            self._ink(line.raw, f"raw-{index}", faint, alpha=self.faint, zorder=2.0, columns=HAZE)
        elif line.raw is not None:
            self._stroke(line.raw, f"raw-{index}", faint, alpha=self.faint, zorder=2.0)
        if line.dots is not None:
            alpha = 0.4 if self.lines <= FEW else 0.25
            self._dots(line.dots.x, line.dots.y, f"dots-{index}", faint, size=3.5, alpha=alpha, zorder=2.0)
        self._stroke(line.main, f"line-{index}", line.stroke, alpha=line.stroke.alpha, zorder=3.0)

    def _stroke(self, trace: Trace, gid: str, stroke: Stroke, *, alpha: float, zorder: float) -> None:
        """A line, and a dot for each point that has no neighbour to be joined with, for it would leave no trace."""
        if len(trace) >= envelope.FROM and not self.full_res:
            if stroke.dashes == "-":
                self._ink(trace, gid, stroke, alpha=alpha, zorder=zorder)
            else:
                thinned = envelope.thinned(trace, envelope.columns_of(trace, self.window, min(2, self.look.columns)))
                self._line(thinned, gid, stroke, alpha=alpha, zorder=zorder)
        else:
            self._line(trace, gid, stroke, alpha=alpha, zorder=zorder)
        alone = trace.alone()
        if not len(alone):
            return
        if len(alone) < envelope.FROM or self.full_res:
            size = 5.0 if len(trace) == 1 else 2.0 * stroke.width / self.look.scale
            self._dots(trace.x[alone], trace.y[alone], f"{gid}-dots", stroke, size=size, alpha=alpha, zorder=zorder)
        else:
            dots = Trace(trace.x[alone], trace.y[alone], np.arange(1, len(alone)))
            wide = replace(stroke, width=2.0 * stroke.width)
            self._ink(dots, f"{gid}-dots", wide, alpha=alpha, zorder=zorder)

    def _line(self, trace: Trace, gid: str, stroke: Stroke, *, alpha: float, zorder: float) -> None:
        x, y = trace.gapped()
        self.axes.plot(
            x,
            y,
            color=stroke.colour,
            linestyle=stroke.dashes,
            linewidth=stroke.width,
            alpha=alpha,
            zorder=zorder,
            gid=gid,
        )

    def _ink(
        self, trace: Trace, gid: str, stroke: Stroke, *, alpha: float, zorder: float, columns: int | None = None
    ) -> None:
        columns = self.look.columns if columns is None else columns
        ink = PathPatch(
            envelope.envelope(trace, self.window, width=stroke.width * self.look.dpi / 72.0, columns=columns),
            facecolor=stroke.colour,
            linewidth=0.0,
            alpha=alpha,
            zorder=zorder,
            gid=gid,
            transform=self.axes.transData,
            snap=False,
        )
        ink.set_clip_path(self.axes.patch)
        self.axes.add_artist(ink)  # add_patch would look at each vertex in Python, for limits that are set

    def _area(self, low: Trace, high: Trace, gid: str, stroke: Stroke, *, alpha: float) -> None:
        x, bottom = low.gapped()
        _, top = high.gapped()
        self.axes.fill_between(
            x, bottom, top, color=stroke.colour, alpha=alpha, linewidth=0.0, zorder=1.5, gid=gid, where=None
        )

    def _dots(
        self,
        x: npt.NDArray[Any],
        y: FloatArray,
        gid: str,
        stroke: Stroke,
        *,
        size: float,
        alpha: float,
        zorder: float,
    ) -> None:
        self.axes.plot(
            x,
            y,
            color=stroke.colour,
            linestyle="none",
            marker="o",
            markersize=size * self.look.scale,
            markeredgewidth=0.0,
            alpha=alpha,
            zorder=zorder,
            gid=gid,
        )
