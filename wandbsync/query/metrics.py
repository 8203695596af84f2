"""What a run logged: the metrics with their types and statistics, and which of them to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..cache import Cache, catalog
from ..cache.layout import metric_type
from ..cache.metrics import stream_stats
from ..cache.rows import steps, streams_of
from ..cache.stats import Stat, measure
from ..errors import NotFound, UsageError
from ..model import HISTORY, SYSTEM, Kind, RunRef, logged
from .lists import get_run
from .names import nearest


def list_metrics(cache: Cache, ref: RunRef, *, include_system: bool = False) -> dict[str, dict[str, Any]]:
    """What is known of each metric of a run, over its whole history. Keys as in `generate-plots --metrics`.

    Without `include_system` what begins with `_`, `system/` or `system.` is left out.
    """
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        run = get_run(cache, ref)
        streams = streams_of(cache, ref)
        known = {name: stream_stats(cache.con, streams.get(name)) for name in (HISTORY, SYSTEM)}
    freshness = {name: run[name] for name in ("source", "synced_at", "complete")}
    result: dict[str, dict[str, Any]] = {}
    for name in (HISTORY, SYSTEM) if include_system else (HISTORY,):
        for key, stat in known[name].items():
            if include_system or not is_system(key):
                result.setdefault(key, _metric(stat) | freshness)
    if include_system and run["rows"]:
        result["_step"] = _metric(_step_stat(cache, ref)) | freshness
    return dict(sorted(result.items()))


def _metric(stat: Stat) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": metric_type(stat.kinds, stat.last_json),
        "count": stat.count,
        "non_null_count": stat.non_null,
    }
    if entry["type"] == "numeric":
        entry |= {"min": stat.min, "max": stat.max, "mean": stat.mean, "std": stat.std}
        entry |= {"nan_count": stat.nans, "infinite_count": stat.infinities}
    last = None if stat.last_kind is None else logged(stat.last_kind, stat.last_value, stat.last_json)
    return entry | {"last": last, "first_step": stat.first_step, "last_step": stat.last_step}


def _step_stat(cache: Cache, ref: RunRef) -> Stat:
    """The step is the rows' own column; seen as a metric it has one value a row."""
    import numpy as np

    step = steps(cache, ref)
    value = step.astype("float64")
    return next(measure(np.zeros(1, np.int64), step, value, np.full(len(step), Kind.INT, np.uint8), None))


def metric_types(cache: Cache, ref: RunRef) -> dict[str, str]:
    """The type of each metric of a run, machine metrics and `_step` included; from the catalog alone."""
    types: dict[str, str] = {}
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        streams = streams_of(cache, ref)
        for name in (HISTORY, SYSTEM):
            rows = cache.con.execute(
                "SELECT key, kinds, last_json FROM metrics WHERE stream = ? ORDER BY key", (streams.get(name),)
            )
            for key, kinds, last_json in rows:
                types.setdefault(key, metric_type(kinds, last_json))
    return {"_step": "numeric", **types} if types else {}


def plot_metrics(
    cache: Cache, refs: Sequence[RunRef], names: Sequence[str], *, all_metrics: bool, include_system: bool
) -> list[str]:
    """The metrics to draw: those named, or all numeric ones. Raises NotFound for one that none of the runs logged."""
    if not names and not all_metrics:
        raise UsageError("there is no metric to draw", hint="name some with --metrics, or use --all-metrics")
    known: dict[str, str] = {}
    for ref in refs:
        for key, kind in metric_types(cache, ref).items():
            if key not in known or kind == "numeric":
                known[key] = kind
    missing = [name for name in names if name not in known]
    if missing:
        where = str(refs[0]) if len(refs) == 1 else f"any of the {len(refs)} runs"
        shown = [key for key in known if not is_system(key)]
        raise NotFound(f"no metric {', '.join(missing)} in {where}", hint=nearest(missing[0], shown))
    drawn = [key for key, kind in known.items() if kind in ("numeric", "boolean")]
    every = [key for key in drawn if include_system or not is_system(key)] if all_metrics else []
    return list(dict.fromkeys([*names, *every]))


def is_system(key: str) -> bool:
    """Whether a metric is W&B's own: `_step`, `_timestamp`, `system.cpu` ..."""
    return key.startswith(("_", "system/", "system."))
