"""metadata.json beside the plots: what was drawn there, from which runs and how. Plots listed before stay listed."""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from wandbsync import __version__
from wandbsync.plot.names import PlotRun
from wandbsync.plot.plan import TIME_WEIGHTED_EMA, Plan, PlotOptions, PlotResult

NAME = "metadata.json"
DAMAGED = "metadata.json.damaged"

_LISTS = ("plots_generated", "metrics_plotted")  # new entries are added to these


def read(folder: Path) -> dict[str, Any] | None:
    """What metadata.json says; {} if there is none, None if it is damaged."""
    try:
        found = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, IsADirectoryError):
        return None
    return found if isinstance(found, dict) else None


def owners(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Which metric each plot listed there shows."""
    plots = (metadata or {}).get("plots")
    if not isinstance(plots, dict):
        return {}
    return {
        path: plot["metric"]
        for path, plot in plots.items()
        if isinstance(plot, dict) and isinstance(plot.get("metric"), str)
    }


def merged(before: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` over `before`; what the lists and `plots` held before stays in them."""
    both = {**before, **new}
    for key in _LISTS:
        old = before.get(key)
        both[key] = list(
            dict.fromkeys([*(str(one) for one in old if one), *new[key]] if isinstance(old, list) else new[key])
        )
    old = before.get("plots")
    both["plots"] = {**old, **new["plots"]} if isinstance(old, dict) else dict(new["plots"])
    both["plot_count"] = len(both["plots_generated"])
    return both


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


def update(folder: Path, new: Mapping[str, Any]) -> Path:
    """Merge `new` into metadata.json; a damaged one is first set aside under another name."""
    before = read(folder)
    if before is None:
        before = {"damaged_metadata": _set_aside(folder).name}
    text = json.dumps(merged(before, new), indent=2)
    write_beside(folder / NAME, text.encode() + b"\n")
    return folder / NAME


def write_beside(path: Path, content: bytes) -> None:
    """Replace a file in one step: whoever looks sees the old one or the new one, whole."""
    beside = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _set_aside(folder: Path) -> Path:
    free, number = folder / DAMAGED, 1
    while free.exists() or free.is_symlink():
        number += 1
        free = folder / f"{DAMAGED}-{number}"
    return (folder / NAME).rename(free)
