"""Plots of metrics of runs, one figure per metric with all the runs in it: carry out a plan, note what was done.

Only drawing needs numpy and matplotlib: they are imported with the first figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, WandbsyncError
from . import record
from .names import PlotRun
from .plan import ROLLING_MEAN, TIME_WEIGHTED_EMA, PlotOptions, PlotResult, labels, named_as_sampled, plan

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .figure import Series

    # The steps of a run's metric and its numeric values (NaN and infinities included), sorted by step; empty if it has
    # none. A WandbsyncError is taken down as the reason why this run is missing from the figure.
    Load = Callable[[PlotRun, str], tuple[npt.NDArray[Any], npt.NDArray[np.float64]]]


def generate(
    runs: Sequence[PlotRun],
    metrics: Iterable[str],
    options: PlotOptions,
    *,
    load: Load,
    now: datetime,
    sampled: Callable[[str], bool] = named_as_sampled,
) -> list[PlotResult]:
    """Draw each metric to its PNG and note it in the folder's metadata.json; one result per metric, in their order.

    A metric that cannot be drawn is a result with an `error` and does not stop the others. If none can, nothing is
    written. `sampled` tells the metrics of the machine, whose x axis counts samples, from those of the training.
    Raises WandbsyncError if metadata.json cannot be read or written.
    """
    metrics = tuple(metrics)
    first = plan(runs, metrics, options)
    planned = plan(runs, metrics, options, taken=record.owners(_metadata(first.folder)))
    results = [_result(planned.runs, metric, path, options, load, sampled) for metric, path in planned.files.items()]
    if any(result.path for result in results):
        try:
            record.update(planned.folder, record.describe(planned, results, options, now))
        except OSError as error:
            raise WandbsyncError(f"cannot write {planned.folder / record.NAME}: {error.strerror}") from error
    return results


def _metadata(folder: Path) -> dict[str, Any] | None:
    try:
        return record.read(folder)
    except OSError as error:
        raise UsageError(
            f"cannot read {folder / record.NAME}: {error.strerror}", hint="choose another folder with --output"
        ) from error


def _result(
    runs: Sequence[PlotRun], metric: str, path: Path, options: PlotOptions, load: Load, sampled: Callable[[str], bool]
) -> PlotResult:
    try:
        return _plot(runs, metric, path, options, load, x_label="Sample" if sampled(metric) else "Step")
    except Exception as error:  # whatever is wrong with this metric, the others are not to blame
        return PlotResult(metric, None, error=f"{metric} cannot be drawn: {type(error).__name__}: {error}")


def _plot(
    runs: Sequence[PlotRun], metric: str, path: Path, options: PlotOptions, load: Load, *, x_label: str
) -> PlotResult:
    from . import figure, text

    names = labels(runs, shown=text.drawable)
    series, drawn, skipped = [], [], []
    for run, name in zip(runs, names, strict=True):
        try:
            one, bad = _series(name, *load(run, metric), options)
        except WandbsyncError as error:
            one, bad = _series(name, [], [], options)
            skipped.append(f"{metric} of {run}: {error.line()}")
        else:
            if len(one.y) > bad:
                drawn.append((run, len(one.y), bad))
            else:
                skipped.append(f"{metric} of {run}: {'no finite value' if bad else 'no value'}")
        series.append(replace(one, x_label=x_label, run_id=run.run_id))
    if not drawn:
        others = f" (and {len(runs) - 1} more)" if len(runs) > 1 else ""
        return PlotResult(metric, None, skipped=tuple(skipped), error=skipped[0] + others)
    try:
        picture = figure.png(figure.draw(series, title=metric, subtitle=_subtitle(names, len(drawn), options)))
        path.parent.mkdir(parents=True, exist_ok=True)
        record.write_beside(path, picture)
    except (OSError, WandbsyncError) as error:
        reason = f"cannot write {path}: {error.strerror}" if isinstance(error, OSError) else error.line()
        return PlotResult(metric, None, skipped=tuple(skipped), error=reason)
    found, points, non_finite = zip(*drawn, strict=True)
    return PlotResult(metric, path, found, points, non_finite, tuple(skipped))


def _series(label: str, steps: Any, values: Any, options: PlotOptions) -> tuple[Series, int]:
    """The series of one run, smoothed, and how many of its values cannot be drawn."""
    import numpy as np

    from . import smoothing
    from .figure import Series

    x, y = np.asarray(steps), np.asarray(values, dtype=np.float64)
    smooth = None
    if options.smoothing == ROLLING_MEAN:
        smooth = smoothing.rolling_mean(y, options.smooth or 1)
    elif options.smoothing == TIME_WEIGHTED_EMA:
        smooth = smoothing.time_weighted_ema(x, y, weight=options.ema_weight, viewport_scale=options.viewport_scale)
    return Series(label, x, y, smooth), int(np.count_nonzero(~np.isfinite(y)))


def _subtitle(names: Sequence[str], drawn: int, options: PlotOptions) -> str:
    if len(names) == 1:
        who = names[0]
    else:
        who = f"{len(names)} runs" if drawn == len(names) else f"{drawn} of {len(names)} runs"
    if options.smoothing == ROLLING_MEAN:
        return f"{who} · mean of the last {options.smooth} values"
    if options.smoothing == TIME_WEIGHTED_EMA:
        return f"{who} · time-weighted EMA {options.ema_weight:g}"
    return who
