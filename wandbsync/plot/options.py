"""What can be asked of plots: the predecessor's flags, which keep their meaning, and ours; checked all at once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError

# What a smoothing is called in metadata.json.
ROLLING_MEAN = "rolling_mean"
TIME_WEIGHTED_EMA = "time_weighted_ema"

VIEWPORT = 1000.0  # what the width of a chart counts as
# W&B's smoothings by name, and the parameter each has if none is given: weights, a standard deviation in thousandths
# of the chart's width, a number of values.
SMOOTHINGS = {"ema": 0.9, "time-weighted": 0.98, "gaussian": 10.0, "running": 100.0, "none": 0.0}
FORMATS = ("png", "svg", "pdf")
STYLES = ("screen", "paper", "dark")
LINES = ("mean", "median", "min", "max")
BANDS = ("minmax", "std", "sem", "ci", "iqr", "none")
DATA = ("csv", "parquet")
X_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

Limits = tuple["float | None", "float | None"]


@dataclass(frozen=True, slots=True)
class Smoothing:
    """One way to smooth. `kind` None: not at all."""

    kind: str | None
    parameter: float = 0.0
    viewport: float = VIEWPORT

    @property
    def text(self) -> str:
        """What a figure says of it."""
        if self.kind is None:
            return ""
        if self.kind == ROLLING_MEAN:
            return f"mean of the last {self.parameter:g} values"
        if self.kind == TIME_WEIGHTED_EMA:
            return f"time-weighted EMA {self.parameter:g}"
        names = {"ema": "EMA", "time-weighted": "time-weighted EMA, smoothing", "gaussian": "gaussian, σ"}
        return f"{names.get(self.kind, 'running average of')} {self.parameter:g}" + (
            " values" if self.kind == "running" else ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotOptions:
    """How to draw. `all_metrics`, `include_system`, `with_parent` are the caller's business, noted here.

    `smooth` above 1 draws the mean of the last `smooth` values, and no EMA; else the predecessor's time-weighted EMA is
    drawn unless `ema` is False. `smoothing` names one of W&B's own instead. Either way the values themselves stand
    behind it. Raises UsageError naming each wrong option.
    """

    full_res: bool = False
    smooth: int | None = None
    ema: bool = True
    ema_weight: float = 0.99
    viewport_scale: float = VIEWPORT
    smoothing: str | None = None
    smoothing_param: float | None = None

    x: str = "auto"  # the caller's business too: it names the axis of each metric
    log_x: bool = False
    log_y: bool | None = None  # None: as the metric's name and values have it
    x_limits: Limits = (None, None)
    y_limits: Limits = (None, None)
    x_unit: str | None = None  # of relative time
    y_unit: str = ""
    clip_outliers: bool = False

    label: str | None = None
    group_by: tuple[str, ...] = ()
    line: str = "mean"
    bands: tuple[str, ...] = ("std",)

    title: str | None = None
    format: str = "png"
    style: str = "screen"
    size: tuple[float, float] | None = None
    dpi: int | None = None
    grid: bool = False
    data: str | None = None
    group_by_prefix: bool = False
    output: Path | None = None
    all_metrics: bool = False
    include_system: bool = False
    with_parent: bool = False  # forks begin with their parents' rows

    def __post_init__(self) -> None:
        wrong = [*self._wrong_smoothing(), *self._wrong_axes(), *self._wrong_page()]
        for option, value, known in (
            ("--format", self.format, FORMATS),
            ("--style", self.style, STYLES),
            ("--line", self.line, LINES),
            ("--data", self.data, (None, *DATA)),
            ("--x-unit", self.x_unit, (None, *X_UNITS)),
            *(("--band", band, BANDS) for band in self.bands),
        ):
            if value not in known:
                wrong.append(f"{option} must be one of {', '.join(filter(None, known))}: {value}")
        if wrong:
            raise UsageError("; ".join(wrong))

    def _wrong_smoothing(self) -> list[str]:
        wrong = []
        if self.smooth is not None and self.smooth < 0:
            wrong.append(f"--smooth must not be negative: {self.smooth}")
        if not 0.0 <= self.ema_weight <= 1.0:
            wrong.append(f"--ema-weight must be between 0 and 1: {self.ema_weight}")
        if not (math.isfinite(self.viewport_scale) and self.viewport_scale > 0.0):
            wrong.append(f"--viewport-scale must be a number above 0: {self.viewport_scale}")
        if self.smoothing is not None and self.smoothing not in SMOOTHINGS:
            wrong.append(f"--smoothing must be one of {', '.join(SMOOTHINGS)}: {self.smoothing}")
        value = self.smoothing_param
        if value is not None:
            if self.smoothing is None:
                wrong.append("--smoothing-param belongs to --smoothing")
            elif not (math.isfinite(value) and value >= 0.0):
                wrong.append(f"--smoothing-param must be a number from 0: {value}")
            elif self.smoothing == "time-weighted" and value > 1.0:
                wrong.append(f"--smoothing-param of time-weighted must be between 0 and 1: {value:g}")
            elif self.smoothing == "ema" and value >= 1.0:
                wrong.append(f"--smoothing-param of ema must be below 1: {value:g}")
            elif self.smoothing == "running" and (value < 1.0 or value != int(value)):
                wrong.append(f"--smoothing-param of running must be a number of points: {value:g}")
        return wrong

    def _wrong_axes(self) -> list[str]:
        wrong = []
        for option, (low, high) in (("--xlim", self.x_limits), ("--ylim", self.y_limits)):
            if any(one is not None and not math.isfinite(one) for one in (low, high)):
                wrong.append(f"{option} must be finite")
            elif low is not None and high is not None and not low < high:
                wrong.append(f"{option} must go upwards: {low:g},{high:g}")
        return wrong

    def _wrong_page(self) -> list[str]:
        wrong = []
        if self.size is not None and not all(1.5 <= inches <= 60.0 for inches in self.size):
            wrong.append(f"--size must be between 1.5 and 60 inches each way: {self.size[0]:g}x{self.size[1]:g}")
        if self.dpi is not None and not 30 <= self.dpi <= 1200:
            wrong.append(f"--dpi must be between 30 and 1200: {self.dpi}")
        return wrong

    def how(self) -> Smoothing:
        """The smoothing that these options ask for."""
        if self.smoothing is not None:
            kind = None if self.smoothing == "none" else self.smoothing
            value = SMOOTHINGS[self.smoothing] if self.smoothing_param is None else self.smoothing_param
            return Smoothing(kind, value, self.viewport_scale)
        if self.smooth is not None and self.smooth > 1:
            return Smoothing(ROLLING_MEAN, float(self.smooth))
        if self.ema:
            return Smoothing(TIME_WEIGHTED_EMA, self.ema_weight, self.viewport_scale)
        return Smoothing(None)

    def drawn_bands(self) -> list[str]:
        """The bands around a group, each once, the innermost first."""
        return [band for band in dict.fromkeys(self.bands) if band != "none"]

    def drawing(self) -> dict[str, Any]:
        """All that decides what a picture looks like; not where it goes."""
        elsewhere = ("output", "group_by_prefix", "all_metrics", "include_system", "with_parent", "grid", "data")
        return {name: value for name, value in asdict(self).items() if name not in elsewhere}

    def flags(self) -> list[str]:
        """These options as the command line has them, without the folder; those that are as by default left out."""
        words: list[str] = []
        default = PlotOptions()
        for name, flag in _FLAGS.items():
            value = getattr(self, name)
            if value == getattr(default, name):
                continue
            if flag is None:
                words += [{True: "--logy", False: "--linear"}[value]] if name == "log_y" else ["--no-ema"]
            elif value is True:
                words.append(flag)
            elif name in ("x_limits", "y_limits"):
                words += [flag, ",".join("" if one is None else repr(one) for one in value)]
            elif name == "size":
                words += [flag, "x".join(map(repr, value))]
            else:
                words += [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
        return words


_FLAGS = {
    "with_parent": "--with-parent",
    "full_res": "--full-res",
    "smooth": "--smooth",
    "ema": None,
    "ema_weight": "--ema-weight",
    "viewport_scale": "--viewport-scale",
    "smoothing": "--smoothing",
    "smoothing_param": "--smoothing-param",
    "x": "--x",
    "log_x": "--logx",
    "log_y": None,
    "x_limits": "--xlim",
    "y_limits": "--ylim",
    "x_unit": "--x-unit",
    "y_unit": "--y-unit",
    "clip_outliers": "--clip-outliers",
    "label": "--label",
    "group_by": "--group-by",
    "line": "--line",
    "bands": "--band",
    "title": "--title",
    "format": "--format",
    "style": "--style",
    "size": "--size",
    "dpi": "--dpi",
    "grid": "--grid",
    "data": "--data",
    "group_by_prefix": "--group-by-prefix",
}
