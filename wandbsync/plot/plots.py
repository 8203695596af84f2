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
from .plan import PlotResult, Sorting, overlaid, plan
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
    facets: Sequence[str] | None = None,
    strata: Sequence[str] | None = None,
) -> list[PlotResult]:
    """Draw each metric to its file and note it in the folder's metadata.json; one result per file, in their order.

    `labels`, `groups`, `facets` and `strata` are of the runs, one each: see `Sorting`. A metric that cannot be drawn is
    a result with an `error` and does not stop the others. If none can, nothing is written.
    Raises WandbsyncError if metadata.json cannot be read or written.
    """
    runs, by = _once(runs, Sorting.of(labels=labels, groups=groups, facets=facets, strata=strata))
    metrics = tuple(metrics)
    first = plan(runs, metrics, options)
    before = _metadata(first.folder)
    planned = plan(runs, metrics, options, taken=record.owners(before))
    with Studio(planned, options, source, by) as studio:
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
    facets: Sequence[str] | None = None,
    strata: Sequence[str] | None = None,
) -> Figure:
    """One figure of one metric, or of several in a grid, not written anywhere. Raises UsageError if it were empty."""
    runs, by = _once(runs, Sorting.of(labels=labels, groups=groups, facets=facets, strata=strata))
    metrics = tuple(dict.fromkeys(metrics))
    options = replace(options, grid=len(overlaid(metrics)) > 1)
    planned = plan(runs, metrics, options)
    with Studio(planned, options, source, by) as studio:
        return studio.figure(0)


def _once(runs: Sequence[PlotRun], by: Sorting) -> tuple[tuple[PlotRun, ...], Sorting]:
    """Each run once, with its names."""
    place = {run: i for i, run in reversed(list(enumerate(runs)))}
    kept = sorted(place.values())
    return tuple(runs[i] for i in kept), by.only(kept)


def _metadata(folder: Path) -> dict[str, Any] | None:
    try:
        return record.read(folder)
    except OSError as error:
        raise UsageError(
            f"cannot read {folder / record.NAME}: {error.strerror}", hint="choose another folder with --output"
        ) from error
