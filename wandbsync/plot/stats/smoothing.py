"""The smoothings there are: one entry each, with all that is said and computed of it. Loads numpy when it computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..flags import Limits

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..trace import FloatArray

VIEWPORT = 1000.0  # what the width of a chart counts as
LONG = 2_000_000  # points from which an EMA is not kept as a whole
DEFAULT = "auto"
AS_LOGGED = "as logged"


class Chart(NamedTuple):
    """What a smoothing may look at besides its points."""

    span: float  # of all lines in x
    viewport: float = VIEWPORT  # what that counts as
    x: Limits = (None, None)  # the ends of x, where they were asked for
    log_x: bool = False
    columns: int = 0  # in which it will be seen; 0: every value of it is wanted


class Seen(NamedTuple):
    """A smoothing at the places in x that are seen of it."""

    x: npt.NDArray[Any]
    y: FloatArray


@dataclass(frozen=True, slots=True)
class Method:
    """One way to smooth.

    `line` gets x (ascending) and y of a run, the parameter and the chart, and gives a value for each point, NaN where
    there is none; None: the line is drawn through the values. `seen` gives what can be seen of the same for less,
    or None if that is all of it.
    """

    name: str  # in --smoothing, plot.smoothing and metadata.json
    default: float | None  # parameter; None: it has none
    wrong: Callable[[float], str | None]  # what a parameter must be, if it is not that
    text: Callable[[float], str]  # what a figure says of it
    line: Callable[[npt.NDArray[Any], FloatArray, float, Chart], FloatArray | None]
    seen: Callable[[npt.NDArray[Any], FloatArray, float, Chart], Seen | None] | None = None
    lags: bool = False  # it looks back only
    flag: str = "--smoothing"  # that asks for it


@dataclass(frozen=True, slots=True)
class Smoothing:
    """A way to smooth with its parameter."""

    method: Method
    parameter: float = 0.0
    viewport: float = VIEWPORT

    @property
    def text(self) -> str:
        """What a figure says of it."""
        return self.method.text(self.parameter) + (", lags" if self.method.lags else "")

    @property
    def kind(self) -> str | None:
        """Its name in metadata.json."""
        return None if self.method is METHODS["none"] else self.method.name


# -- the default


def _centred(x: npt.NDArray[Any], y: FloatArray, _: float, chart: Chart) -> FloatArray | None:
    import numpy as np

    seen = _centred_seen(x, y, _, chart)
    if seen is None:
        return None
    whole = np.interp(x.astype(np.float64), seen.x, seen.y, left=np.nan, right=np.nan)
    whole[~np.isfinite(y)] = np.nan
    return whole


def _centred_seen(x: npt.NDArray[Any], y: FloatArray, _: float, chart: Chart) -> Seen | None:
    """Of what the picture shows: the narrower its x axis, the finer the line."""
    import numpy as np

    from ..trace import finite
    from . import centred

    if not finite(x):
        keep = np.isfinite(x)
        x, y = x[keep], y[keep]
    low, high = chart.x
    start = 0 if low is None else max(int(np.searchsorted(x, low)) - 1, 0)
    stop = len(x) if high is None else min(int(np.searchsorted(x, high, side="right")) + 1, len(x))
    if chart.log_x:
        start = max(start, int(np.searchsorted(x, 0, side="right")))
    x, y = x[start:stop], y[start:stop]
    if centred.smooth_as_logged(y if finite(y) else y[np.isfinite(y)]):
        return None
    if chart.log_x:
        at, line = centred.centred_mean(np.log10(x), y)
        return Seen(10.0**at, line)
    return Seen(*centred.centred_mean(x, y))


# -- averages that look back


def _ema(_: npt.NDArray[Any], y: FloatArray, weight: float, chart: Chart) -> FloatArray:
    from .ema import ema

    return ema(y, weight=weight)


def _weight(parameter: float) -> float:
    """W&B's, from what its slider says."""
    return min(math.sqrt(parameter), 0.999)


def _weighted(x: npt.NDArray[Any], y: FloatArray, weight: float, viewport: float, span: float | None) -> FloatArray:
    from .ema import time_weighted_ema

    return time_weighted_ema(x, y, weight=weight, viewport_scale=viewport, span=span)


def _weighted_seen(x: npt.NDArray[Any], y: FloatArray, weight: float, chart: Chart, span: float | None) -> Seen | None:
    from .ema import time_weighted_ema_seen

    if len(x) < LONG or chart.log_x or chart.x != (None, None):
        return None
    seen = time_weighted_ema_seen(x, y, weight=weight, viewport_scale=chart.viewport, span=span, columns=chart.columns)
    return None if seen is None else Seen(x[seen[0]], seen[1])


def _rolling(_: npt.NDArray[Any], y: FloatArray, window: float, chart: Chart) -> FloatArray:
    from .ema import rolling_mean

    return rolling_mean(y, int(window))


# -- W&B's that look before and after


def _gaussian(x: npt.NDArray[Any], y: FloatArray, sigma: float, chart: Chart) -> FloatArray:
    from .windows import gaussian

    return gaussian(x, y, sigma=sigma / chart.viewport * chart.span)


def _running(_: npt.NDArray[Any], y: FloatArray, points: float, chart: Chart) -> FloatArray:
    from .windows import running_mean

    return running_mean(y, int(points))


def _share(below_one: bool) -> Callable[[float], str | None]:
    words = "from 0 and below 1" if below_one else "between 0 and 1"
    return lambda value: None if 0.0 <= value < 1.0 or (value == 1.0 and not below_one) else words


def _nothing(_: float) -> str:
    return "left out: there is none"


METHODS = {
    method.name: method
    for method in (
        Method(DEFAULT, None, _nothing, lambda _: "centred mean, ≤ 20 % of the width", _centred, seen=_centred_seen),
        Method("none", None, _nothing, lambda _: AS_LOGGED, lambda x, y, parameter, chart: None),
        Method(
            "time-weighted",
            0.98,
            _share(below_one=False),
            lambda value: f"time-weighted EMA, smoothing {value:g}",
            lambda x, y, value, chart: _weighted(x, y, _weight(value), chart.viewport, chart.span),
            seen=lambda x, y, value, chart: _weighted_seen(x, y, _weight(value), chart, chart.span),
            lags=True,
        ),
        Method("ema", 0.9, _share(below_one=True), lambda value: f"EMA {value:g}", _ema, lags=True),
        Method(
            "gaussian",
            10.0,  # thousandths of the chart's width
            lambda value: None if math.isfinite(value) and value >= 0.0 else "a number from 0",
            lambda value: f"gaussian, σ {value:g}",
            _gaussian,
        ),
        Method(
            "running",
            100.0,
            lambda value: None if math.isfinite(value) and value >= 1.0 and value == int(value) else "a whole number",
            lambda value: f"running average of {value:g} values",
            _running,
        ),
        # The predecessor's, which smooth each run by its own range in x.
        Method(
            "time_weighted_ema",
            0.99,
            _share(below_one=False),
            lambda value: f"time-weighted EMA {value:g}",
            lambda x, y, value, chart: _weighted(x, y, value, chart.viewport, None),
            seen=lambda x, y, value, chart: _weighted_seen(x, y, value, chart, None),
            lags=True,
            flag="--ema-weight",
        ),
        Method(
            "rolling_mean",
            None,
            lambda value: None if value >= 0.0 else "a number from 0",
            lambda value: f"mean of the last {value:g} values",
            _rolling,
            lags=True,
            flag="--smooth",
        ),
    )
}
TIME_WEIGHTED_EMA, ROLLING_MEAN = METHODS["time_weighted_ema"], METHODS["rolling_mean"]
NAMES = tuple(name for name, method in METHODS.items() if method.flag == "--smoothing")


def named(words: str, parameter: float | None = None) -> Smoothing:
    """The smoothing that `ema`, or `ema:0.9`, stands for. Raises ValueError, saying what is known."""
    name, colon, value = words.partition(":")
    if name not in NAMES:
        raise ValueError(f"must be one of {', '.join(NAMES)}: {name}")
    method = METHODS[name]
    if colon:
        if parameter is not None:
            raise ValueError(f"has a parameter of its own: {words}")
        try:
            parameter = float(value)
        except ValueError:
            raise ValueError(f"has no number behind the colon: {words}") from None
    if parameter is None:
        return Smoothing(method, method.default or 0.0)
    wrong = method.wrong(parameter)
    if wrong:
        raise ValueError(f"the parameter of {name} must be {wrong}: {parameter:g}")
    return Smoothing(method, parameter)
