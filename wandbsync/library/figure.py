"""Metrics of runs as one matplotlib Figure: the seam between the library and the `plot` package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import NotFound, WandbsyncError
from ..plot import PlotOptions, PlotRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(
    runs: Sequence[PlotRun], metric: str, options: PlotOptions, *, load: Callable[[PlotRun, str], tuple[Any, Any]]
) -> Figure:
    """One figure of a metric with all the runs that have it, as `generate-plots` draws it. Raises NotFound."""
    from ..plot import figure as drawing
    from ..plot.plan import labels
    from ..plot.plots import _series, _subtitle
    from ..plot.text import drawable

    names = labels(runs, shown=drawable)
    series, reasons = [], []
    for run, name in zip(runs, names, strict=True):
        try:
            one, bad = _series(name, *load(run, metric), options)
        except WandbsyncError as error:
            reasons.append(f"{run}: {error.line()}")
            continue
        if len(one.y) > bad:
            series.append(one)
        else:
            reasons.append(f"{run}: {'no finite value' if bad else 'no value'}")
    if not series:
        raise NotFound(f"{metric} cannot be drawn", hint="; ".join(reasons[:3]))
    return drawing.draw(series, title=metric, subtitle=_subtitle(names, len(series), options))
