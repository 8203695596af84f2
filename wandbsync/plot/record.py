"""What metadata.json is told of the plots: what was drawn, from which runs and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from .. import __version__
from ..folder.metadata import NAME, listed, read, table, update, write_beside
from .names import PlotRun
from .plan import TIME_WEIGHTED_EMA, Plan, PlotOptions, PlotResult


def owners(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Which metric each plot listed there shows. A downloaded file is listed as that of a metric nobody has."""
    drawn = table(metadata, "plots")
    downloaded = {*table(metadata, "files"), *listed(metadata, "files_downloaded")}
    foreign = downloaded - {*drawn, *listed(metadata, "plots_generated")}
    return {path: f"\0{path}" for path in foreign} | {
        path: plot["metric"] for path, plot in drawn.items() if isinstance(plot.get("metric"), str)
    }


def describe(planned: Plan, results: Sequence[PlotResult], options: PlotOptions, now: datetime) -> dict[str, Any]:
    """The predecessor's fields with its meanings, and ours."""
    runs, one = planned.runs, planned.runs[0] if len(planned.runs) == 1 else None
    points: Counter[PlotRun] = Counter()
    plots = {}
    ema = options.smoothing == TIME_WEIGHTED_EMA
    how = {
        "smoothing": options.smoothing,
        "smoothing_window": options.smooth,
        "ema_weight": options.ema_weight if ema else None,
        "viewport_scale": options.viewport_scale if ema else None,
    }
    for result in results:
        if result.path is None:
            continue
        for run, count in zip(result.runs, result.points, strict=True):
            points[run] = max(points[run], count)
        plots[result.path.relative_to(planned.folder).as_posix()] = {
            "metric": result.metric,
            "runs": [str(run) for run in result.runs],
            "points": dict(zip(map(str, result.runs), result.points, strict=True)),
            "non_finite": dict(zip(map(str, result.runs), result.non_finite, strict=True)),
            "skipped": list(result.skipped),
            "generation_timestamp": now.isoformat(),
            **how,
        }
    return {
        "run_id": one and one.run_id,
        "run_name": one and one.display_name,
        "run_ids": [run.run_id for run in runs],
        "run_names": [run.display_name for run in runs],
        "entity": runs[0].entity,
        "project": runs[0].project,
        "generation_timestamp": now.isoformat(),
        "full_resolution": options.full_res,
        "ema_enabled": ema,
        **how,
        "group_by_prefix": options.group_by_prefix,
        "all_metrics": options.all_metrics,
        "include_system": options.include_system,
        "metrics_plotted": [result.metric for result in results if result.path],
        "plots_generated": list(plots),
        "data_points": [points[run] for run in runs],
        "runs": [asdict(run) for run in runs],
        "plots": plots,
        "wandbsync_version": __version__,
    }


__all__ = ["NAME", "describe", "owners", "read", "update", "write_beside"]
