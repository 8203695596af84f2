"""Plots of metrics of runs, all the runs in one figure per metric or grid: carry out a plan, note what was done.

Only drawing needs numpy and matplotlib: see `studio`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, WandbsyncError
from . import record, rendered
from .names import PlotRun
from .options import PlotOptions
from .plan import PlotResult, plan
from .source import Source
from .studio import Studio

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def generate(
    runs: Sequence[PlotRun],
    metrics: Iterable[str],
    options: PlotOptions,
    source: Source,
    *,
    now: datetime,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> list[PlotResult]:
    """Draw each metric to its file and note it in the folder's metadata.json; one result per file, in their order.

    `labels` and `groups` are of the runs, one each; None: their display names, and no groups. A metric that cannot be
    drawn is a result with an `error` and does not stop the others. If none can, nothing is written.
    Raises WandbsyncError if metadata.json cannot be read or written.
    """
    runs, labels, groups = _once(runs, labels, groups)
    metrics = tuple(metrics)
    first = plan(runs, metrics, options)
    before = _metadata(first.folder)
    planned = plan(runs, metrics, options, taken=record.owners(before))
    with Studio(planned, options, source, labels, groups) as studio:
        results = studio.results()
    if source.memory is not None:
        rendered.prune(source.memory)
    if any(result.path for result in results):
        try:
            record.update(planned.folder, record.describe(planned, results, options, now, studio.told()), before)
            if options.all_metrics:
                from . import sheet

                sheet.write(planned.folder, results, studio.names())
        except OSError as error:
            raise WandbsyncError(f"cannot write {planned.folder / record.NAME}: {error.strerror}") from error
    return results


def compose(
    runs: Sequence[PlotRun],
    metrics: Iterable[str],
    options: PlotOptions,
    source: Source,
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> Figure:
    """One figure of one metric, or of several in a grid, not written anywhere. Raises UsageError if it were empty."""
    runs, labels, groups = _once(runs, labels, groups)
    metrics = tuple(dict.fromkeys(metrics))
    planned = plan(runs, metrics, replace(options, grid=len(metrics) > 1))
    with Studio(planned, replace(options, grid=len(metrics) > 1), source, labels, groups) as studio:
        return studio.figure(0)


def _once(
    runs: Sequence[PlotRun], labels: Sequence[str] | None, groups: Sequence[str] | None
) -> tuple[tuple[PlotRun, ...], tuple[str, ...] | None, tuple[str, ...] | None]:
    """Each run once, with its label and its group."""
    place = {run: i for i, run in reversed(list(enumerate(runs)))}
    kept = sorted(place.values())
    chosen = tuple(None if of is None else tuple(of[i] for i in kept) for of in (labels, groups))
    return tuple(runs[i] for i in kept), chosen[0], chosen[1]


def _metadata(folder: Path) -> dict[str, Any] | None:
    try:
        return record.read(folder)
    except OSError as error:
        raise UsageError(
            f"cannot read {folder / record.NAME}: {error.strerror}", hint="choose another folder with --output"
        ) from error
