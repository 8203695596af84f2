"""A performance profile: which share of the runs has a score above each value, as Agarwal et al. (2021) draw it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .curves import Curves
from .options import PlotOptions
from .panel import Panel, Series
from .plan import natural
from .scale import Scale, View, limited
from .series import last
from .stats.resampling import bootstrap, profile
from .subject import Subject
from .text import drawable
from .trace import FloatArray

SCORES: dict[str, Callable[[FloatArray], float]] = {
    "last": last,
    "max": lambda y: float(y[np.isfinite(y)].max()),
    "min": lambda y: float(y[np.isfinite(y)].min()),
}
SHARE = Scale(-0.03, 1.03, percent=True)


def panel_of(curves: Curves, subject: Subject, options: PlotOptions, heading: Panel) -> Panel:
    """A line for each group of runs, or one for all: the share above a score, with its bootstrap interval."""
    scores: dict[str, list[float]] = {}
    strata: dict[str, list[str]] = {}
    places = {run: i for i, run in enumerate(subject.runs)}
    for (run, _), one in zip(curves.of, curves.each, strict=True):
        if np.isfinite(one.y).any():
            place = places[run]
            name = "all runs" if subject.groups is None else subject.groups[place]
            scores.setdefault(name, []).append(SCORES[options.score](one.y))
            strata.setdefault(name, []).append("" if subject.strata is None else subject.strata[place])
    low, high = min(map(min, scores.values())), max(map(max, scores.values()))
    series = []
    for i, name in enumerate(sorted(scores, key=natural)):
        x, above = profile(np.array(scores[name]))
        ends = ((low, 1.0), (high, 0.0))  # so that all lines go over the whole of x
        lower, upper = bootstrap(above, "mean", strata=strata[name])
        whole = [
            np.concatenate(([first], middle, [last_one]))
            for middle, first, last_one in (
                (x, ends[0][0], ends[1][0]),
                (above.mean(axis=0), 1.0, 0.0),
                (lower, 1.0, 0.0),
                (upper, 1.0, 0.0),
            )
        ]
        x, share, lower, upper = whole
        slot = i if subject.groups is None else subject.slots[name]
        bands = () if len(scores[name]) < 2 or "none" in options.bands else ((lower, upper),)
        count = np.full(len(x), len(scores[name]))
        label = f"{options.score.replace('last', 'last value')} of {curves.name}"
        series.append(
            Series(
                drawable(name), x, share, None, label, slot=slot, bands=bands, sorted_x=True,
                note=f"(n={len(scores[name])})", count=count,
            )
        )  # fmt: skip
    view = View(log_x=options.log_x, x=options.x_limits)
    return Panel(
        series=series,
        title=heading.title,
        subtitle=heading.subtitle,
        notes=heading.notes,
        metric=heading.metric,
        view=view,
        y_label="share of runs",
        key="above",
        scale=limited(SHARE, options.y_limits, heading.metric or ""),
    )
