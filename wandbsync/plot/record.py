"""What metadata.json is told of the plots: what was drawn, from which runs and how, so that it can be drawn again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..folder import metadata as file
from ..folder.metadata import NAME, listed, read, table
from .names import PlotRun
from .options import PlotOptions
from .plan import Plan, PlotResult
from .stats.smoothing import ROLLING_MEAN, TIME_WEIGHTED_EMA


def owners(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Which metric each plot listed there shows. A downloaded file is listed as that of a metric nobody has."""
    drawn = table(metadata, "plots")
    downloaded = {*table(metadata, "files"), *listed(metadata, "files_downloaded")}
    foreign = downloaded - {*drawn, *listed(metadata, "plots_generated")}
    return {path: f"\0{path}" for path in foreign} | {
        one: plot["metric"]
        for path, plot in drawn.items()
        for one in (path, plot.get("data"))
        if isinstance(plot.get("metric"), str) and isinstance(one, str)
    }


def describe(
    planned: Plan, results: Sequence[PlotResult], options: PlotOptions, now: datetime, told: Mapping[str, Any]
) -> dict[str, Any]:
    """The predecessor's fields with its meanings, and ours. `told` is what decides the looks besides the options."""
    runs, one = planned.runs, planned.runs[0] if len(planned.runs) == 1 else None
    points: Counter[PlotRun] = Counter()
    plots = {}
    chosen = options.how()
    weighted = chosen.method is TIME_WEIGHTED_EMA
    how = {
        "smoothing": chosen.kind,
        "smoothing_window": int(chosen.parameter) if chosen.method is ROLLING_MEAN else options.smooth,
        "ema_weight": chosen.parameter if weighted else None,
        "viewport_scale": chosen.viewport if weighted else None,
    }
    for result in results:
        if result.path is None:
            continue
        for run, count in zip(result.runs, result.points, strict=True):
            points[run] = max(points[run], count)
        plots[result.path.relative_to(planned.folder).as_posix()] = {
            "metric": result.metric,
            **({"metrics": list(result.metrics)} if result.metrics else {}),
            "axis": result.axis,
            "runs": [str(run) for run in result.runs],
            "points": dict(zip(map(str, result.runs), result.points, strict=True)),
            "non_finite": dict(zip(map(str, result.runs), result.non_finite, strict=True)),
            "skipped": list(result.skipped),
            "data": result.data and result.data.relative_to(planned.folder).as_posix(),
            "generation_timestamp": now.isoformat(),
            **how,
            "command": command(runs, result, options),
            **told,
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
        "ema_enabled": weighted,
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


def command(runs: Sequence[PlotRun], result: PlotResult, options: PlotOptions) -> list[str]:
    """The words that draw a picture again, from the same cache."""
    names = ",".join(result.metrics or (result.metric,))
    project = f"{runs[0].entity}/{runs[0].project}"
    ids = ",".join(run.run_id for run in runs)
    return ["wandbsync", "generate-plots", project, ids, "--metrics", names, *options.flags()]


def update(folder: Path, new: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """Tell metadata.json what is new; if nothing is but the time, it is left alone."""
    if not _told(new, before or {}):
        file.update(folder, new)


def _told(new: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether it says all of this already, times aside."""
    plain: dict[str, Any] = json.loads(json.dumps(new))
    plots, known = plain.pop("plots"), table(before, "plots")
    for told in (plain, *plots.values()):
        del told["generation_timestamp"]
    lists = {name: plain.pop(name) for name in ("plots_generated", "metrics_plotted")}
    return (
        all(name in before and before[name] == value for name, value in plain.items())
        and all(set(value) <= set(listed(before, name)) for name, value in lists.items())
        and all(path in known and {**known[path], **plot} == known[path] for path, plot in plots.items())
    )


__all__ = ["NAME", "describe", "owners", "read", "update"]
