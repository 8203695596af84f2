"""What can be asked of plots: the predecessor's flags, which keep their meaning, and ours; checked all at once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .flags import (
    AXES,
    GROUPS,
    INCHES,
    LIMITS,
    LOOK,
    NAMES,
    NUMBER,
    OUTPUT,
    PATH,
    SMOOTHING,
    WHAT,
    WHOLE,
    Limits,
    flag,
    flags_of,
    option,
    switches,
    written,
)
from .stats.smoothing import DEFAULT, METHODS, ROLLING_MEAN, TIME_WEIGHTED_EMA, VIEWPORT, Smoothing, named

FORMATS = ("png", "svg", "pdf")
STYLES = ("screen", "paper", "dark")
KINDS = ("line", "heatmap", "profile")
SCORES = ("last", "max", "min")
LINES = ("mean", "median", "iqm", "min", "max")
BANDS = ("minmax", "std", "sem", "ci", "bootstrap", "iqr", "none")
DATA = ("csv", "parquet")
X_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotOptions:
    """How to draw. `all_metrics`, `include_system`, `with_parent` are the caller's business, noted here.

    `smoothing` names a smoothing, with its parameter as in "ema:0.9", or in `smoothing_param`. Without it, `smooth`
    above 1 draws the mean of the last `smooth` values, `ema` False the values themselves, and `ema`, `ema_weight` or
    `viewport_scale` the predecessor's time-weighted EMA. If nothing is asked for, the line stays on its data: see
    `stats.centred`. The values stand behind it. Raises UsageError naming each wrong option.
    """

    kind: str = option(
        "line", "--kind KIND", WHAT, "line (default); heatmap: runs by x; profile: the share of runs above each score."
    )
    score: str = option(
        "last", "--score WHICH", WHAT, "What a run scores in a profile: its last (default), max or min."
    )
    grid: bool = option(False, "--grid", WHAT, "All metrics in one figure.")
    all_metrics: bool = option(
        False, "--all-metrics", WHAT, "Draw all numeric metrics, and index.html to look through them."
    )
    include_system: bool = option(False, "--include-system", WHAT, "With --all-metrics: also _timestamp, system.* ...")
    with_parent: bool = option(False, "--with-parent", WHAT, "Of a fork also its parent's rows, up to that step.")

    x: str = option("auto", "--x AXIS", AXES, "step, time, relative or a metric; default: as define_metric says.")
    log_x: bool = option(False, "--logx", AXES, "A logarithmic x axis.")
    log_y: bool | None = switches(  # None: as the metric's name and values have it
        None,
        flag("--logy", AXES, "A logarithmic y axis."),
        flag("--linear", AXES, "A linear y axis, whatever the metric is called.", stands_for=False),
    )
    x_limits: Limits = option(
        (None, None), "--xlim LOW,HIGH", AXES, "The ends of the x axis; either may be left out: 100,", LIMITS
    )
    y_limits: Limits = option((None, None), "--ylim LOW,HIGH", AXES, "The ends of the y axis.", LIMITS)
    x_unit: str | None = option(None, "--x-unit UNIT", AXES, "Of relative time: s, min, h or d.")
    y_unit: str = option("", "--y-unit TEXT", AXES, "Stands behind the name of the metric.")
    clip_outliers: bool | None = switches(  # None: where a few points take nearly all of the axis
        None,
        flag("--clip-outliers", AXES, "Fit the y axis to the middle 90 % of the values."),
        flag("--no-clip", AXES, "Fit it to all of them, though a few take nearly all of it.", stands_for=False),
    )

    smoothing: str | None = option(
        None,
        "--smoothing KIND[:P]",
        SMOOTHING,
        "auto (default: a centred mean, or as logged), time-weighted, ema, gaussian, running, none.",
    )
    smoothing_param: float | None = option(
        None, "--smoothing-param P", SMOOTHING, "Its weight, standard deviation or points.", NUMBER
    )
    smooth: int | None = option(None, "--smooth N", SMOOTHING, "Draw the mean of the last N values.", WHOLE)
    ema: bool | None = switches(
        None,
        flag("--ema", SMOOTHING, "Draw a time-weighted EMA; it lags."),
        flag("--no-ema", SMOOTHING, "Draw the values as logged.", stands_for=False),
    )
    ema_weight: float | None = option(
        None, "--ema-weight W", SMOOTHING, "The weight of that EMA; default 0.99.", NUMBER
    )
    viewport_scale: float | None = option(
        None,
        "--viewport-scale N",
        SMOOTHING,
        "What the width of the chart counts as, for that EMA; default 1000.",
        NUMBER,
    )

    group_by: tuple[str, ...] = option(
        (), "--group-by KEY[,KEY]", GROUPS, "One line for all runs of one config.lr, group, tags ...", NAMES
    )
    line: str = option("mean", "--line KIND", GROUPS, "Of a group: mean (default), median, iqm, min or max.")
    bands: tuple[str, ...] = option(
        ("std",),
        "--band KIND[,KIND]",
        GROUPS,
        "Around it: std (default), sem, ci, bootstrap, iqr, minmax or none.",
        NAMES,
    )
    require_all: bool = option(False, "--require-all", GROUPS, "Draw a group only where all of its runs have values.")
    strata: tuple[str, ...] = option(
        (), "--strata KEY[,KEY]", GROUPS, "Bootstrap within the runs of each config.env ...", NAMES
    )
    facet: tuple[str, ...] = option((), "--facet KEY[,KEY]", GROUPS, "One panel for each config.arch, group ...", NAMES)

    label: str | None = option(None, "--label TEMPLATE", LOOK, "What runs are called: 'lr={config.lr} {tags}'.")
    highlight: int | None = option(
        None, "--highlight N", LOOK, "Of many runs, colour the N highest and lowest; 0: all. Default 3, from 20.", WHOLE
    )
    title: str | None = option(None, "--title TEXT", LOOK, "Instead of the metric's name; '' for none.")
    style: str = option("screen", "--style STYLE", LOOK, "screen (default), paper or dark.")
    size: tuple[float, float] | None = option(None, "--size WxH", LOOK, "Inches; default 8x4.8, paper 5.5x3.3.", INCHES)
    dpi: int | None = option(None, "--dpi N", LOOK, "Pixels per inch; default 150, paper 300.", WHOLE)
    full_res: bool = option(False, "--full-res", LOOK, "Stroke every point; all are in the picture anyway.")

    format: str = option("png", "--format FORMAT", OUTPUT, "png (default), svg or pdf.")
    data: str | None = option(None, "--data FORMAT", OUTPUT, "Also write what is drawn as csv or parquet.")
    group_by_prefix: bool = option(False, "--group-by-prefix", OUTPUT, "Put a/b into the folder a.")
    output: Path | None = option(
        None, "--output DIR", OUTPUT, "Where to write; default wandb_plots/<entity>_<project>/<name>_<run_id>/.", PATH
    )

    def __post_init__(self) -> None:
        for one, its_flag in flags_of(type(self)):  # in Python a single name need not be a tuple
            if its_flag.value is NAMES and isinstance(text := getattr(self, one.name), str):
                object.__setattr__(self, one.name, NAMES.parse(text))
        wrong = [*self._wrong_smoothing(), *self._wrong_axes(), *self._wrong_page()]
        for words, value, known in (
            ("--kind", self.kind, KINDS),
            ("--score", self.score, SCORES),
            ("--format", self.format, FORMATS),
            ("--style", self.style, STYLES),
            ("--line", self.line, LINES),
            ("--data", self.data, (None, *DATA)),
            ("--x-unit", self.x_unit, (None, *X_UNITS)),
            *(("--band", band, BANDS) for band in self.bands),
        ):
            if value not in known:
                wrong.append(f"{words} must be one of {', '.join(filter(None, known))}: {value}")
        if wrong:
            raise UsageError("; ".join(wrong))

    def _wrong_smoothing(self) -> list[str]:
        wrong = []
        if self.smooth is not None and self.smooth < 0:
            wrong.append(f"--smooth must not be negative: {self.smooth}")
        if self.ema_weight is not None and TIME_WEIGHTED_EMA.wrong(self.ema_weight):
            wrong.append(f"--ema-weight must be {TIME_WEIGHTED_EMA.wrong(self.ema_weight)}: {self.ema_weight}")
        scale = self.viewport_scale
        if scale is not None and not (math.isfinite(scale) and scale > 0.0):
            wrong.append(f"--viewport-scale must be a number above 0: {scale}")
        if self.smoothing is not None:
            try:
                named(self.smoothing, self.smoothing_param)
            except ValueError as error:
                wrong.append(f"--smoothing: {error}")
        elif self.smoothing_param is not None:
            wrong.append("--smoothing-param belongs to --smoothing")
        return wrong

    def _wrong_axes(self) -> list[str]:
        wrong = []
        for words, (low, high) in (("--xlim", self.x_limits), ("--ylim", self.y_limits)):
            if any(one is not None and not math.isfinite(one) for one in (low, high)):
                wrong.append(f"{words} must be finite")
            elif low is not None and high is not None and not low < high:
                wrong.append(f"{words} must go upwards: {low:g},{high:g}")
        return wrong

    def _wrong_page(self) -> list[str]:
        wrong = []
        if self.size is not None and not all(1.5 <= inches <= 60.0 for inches in self.size):
            wrong.append(f"--size must be between 1.5 and 60 inches each way: {self.size[0]:g}x{self.size[1]:g}")
        if self.dpi is not None and not 30 <= self.dpi <= 1200:
            wrong.append(f"--dpi must be between 30 and 1200: {self.dpi}")
        if self.grid and (self.kind == "heatmap" or self.facet):
            other = "--facet, which makes panels of its own" if self.facet else "--kind heatmap"
            wrong.append(f"--grid cannot be had with {other}")
        return wrong

    def how(self) -> Smoothing:
        """The smoothing that these options ask for."""
        viewport = VIEWPORT if self.viewport_scale is None else self.viewport_scale
        if self.smoothing is not None:
            return replace(named(self.smoothing, self.smoothing_param), viewport=viewport)
        if self.smooth is not None and self.smooth > 1:
            return Smoothing(ROLLING_MEAN, float(self.smooth))
        if self.ema is False:
            return Smoothing(METHODS["none"])
        if self.ema or self.ema_weight is not None or self.viewport_scale is not None:
            weight = TIME_WEIGHTED_EMA.default if self.ema_weight is None else self.ema_weight
            return Smoothing(TIME_WEIGHTED_EMA, weight or 0.0, viewport)
        return Smoothing(METHODS[DEFAULT])

    def or_smoothing(self, words: str) -> PlotOptions:
        """With a smoothing of somebody's own, as `plot.smoothing` has it, unless these options ask for one."""
        asked = (self.smoothing, self.ema, self.ema_weight, self.viewport_scale)
        if words == DEFAULT or any(one is not None for one in asked) or (self.smooth or 0) > 1:
            return self
        return replace(self, smoothing=words)

    def drawn_bands(self) -> list[str]:
        """The bands around a group, each once, the innermost first."""
        return [band for band in dict.fromkeys(self.bands) if band != "none"]

    def drawing(self) -> dict[str, Any]:
        """All that decides what a picture looks like; not where it goes."""
        elsewhere = ("output", "group_by_prefix", "all_metrics", "include_system", "with_parent", "grid", "data")
        return {name: value for name, value in asdict(self).items() if name not in elsewhere}

    def flags(self) -> list[str]:
        """The words that draw one of the pictures again, in another folder; what is as by default is left out."""
        return written(self, without=("output", "all_metrics", "include_system"))
