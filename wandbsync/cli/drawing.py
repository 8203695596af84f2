"""The options of `generate-plots` that say how to draw, and what they mean as PlotOptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import UsageError

if TYPE_CHECKING:
    from ..plot import PlotOptions

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = [
    click.option("--full-res", is_flag=True, help="Stroke every point. (All are always in the picture.)"),
    click.option("--smooth", type=int, metavar="N", help="Draw the mean of the last N values instead of the EMA."),
    click.option("--ema-weight", type=float, default=0.99, show_default=True, help="Weight of the time-weighted EMA."),
    click.option(
        "--viewport-scale",
        type=float,
        default=1000.0,
        show_default=True,
        help="What the width of the chart counts as, for the EMA.",
    ),
    click.option("--no-ema", is_flag=True, help="Draw no EMA."),
    click.option(
        "--smoothing", metavar="KIND", help="One of W&B's own instead: ema, time-weighted, gaussian, running, none."
    ),
    click.option("--smoothing-param", type=float, metavar="P", help="Its weight, standard deviation or points."),
    click.option("--x", default="auto", show_default=True, help="The x axis: step, time, relative or a metric."),
    click.option("--logx", is_flag=True, help="A logarithmic x axis."),
    click.option("--logy", is_flag=True, help="A logarithmic y axis."),
    click.option("--linear", is_flag=True, help="A linear y axis that fits the values, whatever the metric is called."),
    click.option("--xlim", metavar="LOW,HIGH", help="The ends of the x axis; either may be left out: 100,"),
    click.option("--ylim", metavar="LOW,HIGH", help="The ends of the y axis."),
    click.option("--x-unit", metavar="UNIT", help="Of relative time: s, min, h or d."),
    click.option("--y-unit", default="", metavar="TEXT", help="Stands behind the name of the metric."),
    click.option("--clip-outliers", is_flag=True, help="Fit the y axis to the middle 90 % of the values."),
    click.option("--label", metavar="TEMPLATE", help="What runs are called: 'lr={config.lr} {tags}'."),
    click.option("--group-by", metavar="KEY[,KEY]", help="One line for all runs of one config.lr, group, tags ..."),
    click.option("--line", metavar="KIND", default="mean", show_default=True, help="mean, median, min or max."),
    click.option(
        "--band", metavar="KIND[,KIND]", default="std", show_default=True, help="minmax, std, sem, ci, iqr or none."
    ),
    click.option("--title", metavar="TEXT", help="Instead of the metric's name; '' for none."),
    click.option("--format", default="png", show_default=True, help="png, svg or pdf."),
    click.option("--style", default="screen", show_default=True, help="screen, paper or dark."),
    click.option("--size", metavar="WxH", help="Inches; default 8x4.8, paper 5.5x3.3."),
    click.option("--dpi", type=int, help="Pixels per inch; default 150, paper 300."),
    click.option("--grid", is_flag=True, help="All metrics in one figure."),
    click.option("--data", metavar="FORMAT", help="Also write what is drawn as csv or parquet."),
    click.option("--group-by-prefix", is_flag=True, help="Put a/b into the folder a."),
]


def drawing(command: Command) -> Command:
    """The options of a command that draws."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def plot_options(
    *,
    no_ema: bool,
    logx: bool,
    logy: bool,
    linear: bool,
    xlim: str | None,
    ylim: str | None,
    group_by: str | None,
    band: str,
    size: str | None,
    **others: Any,
) -> PlotOptions:
    """What was asked for. Raises UsageError for what cannot be."""
    from ..plot import PlotOptions

    if logy and linear:
        raise UsageError("--logy and --linear contradict each other")
    return PlotOptions(
        ema=not no_ema,
        log_x=logx,
        log_y=True if logy else False if linear else None,
        x_limits=_limits("--xlim", xlim),
        y_limits=_limits("--ylim", ylim),
        group_by=tuple(_words(group_by or "")),
        bands=tuple(_words(band)),
        size=_size(size),
        **others,
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _limits(option: str, text: str | None) -> tuple[float | None, float | None]:
    """`0,1`, `0,` or `,1`."""
    if text is None:
        return None, None
    parts = text.split(",")
    try:
        low, high = (float(part) if part.strip() else None for part in parts)
    except ValueError as error:
        raise UsageError(f"{option}: {text!r} is not two numbers", hint="write it like 0,100 or 0,") from error
    return low, high


def _size(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        width, height = (float(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError as error:
        raise UsageError(f"--size: {text!r} is no size in inches", hint="write it like 8x4.8") from error
    return width, height
