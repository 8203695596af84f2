"""What a run logged: the metrics with their types and statistics, and which of them to draw."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ..cache import Cache, catalog
from ..cache.eviction import absence
from ..cache.layout import metric_type
from ..cache.metrics import stream_stats
from ..cache.rows import steps, streams_of
from ..cache.stats import Stat, measure
from ..errors import NotFound, UsageError, nearest_each
from ..model import HISTORY, SYSTEM, Kind, RunRef, logged
from .lists import get_run

_DRAWN = ("numeric", "boolean")  # types

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def list_metrics(cache: Cache, ref: RunRef, *, include_system: bool = False) -> dict[str, dict[str, Any]]:
    """What is known of each metric of a run, over its whole history. Keys as in `generate-plots --metrics`.

    Without `include_system` what begins with `_`, `system/` or `system.` is left out.
    """
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        run = get_run(cache, ref)
        streams, evicted = streams_of(cache, ref), absence(cache, ref)
        known = {name: stream_stats(cache.con, streams.get(name)) for name in (HISTORY, SYSTEM)}
    freshness = {name: run[name] for name in ("source", "synced_at", "complete")}
    result: dict[str, dict[str, Any]] = {}
    for name in (HISTORY, SYSTEM) if include_system else (HISTORY,):
        for key, stat in known[name].items():
            if include_system or not is_system(key):
                result.setdefault(key, _metric(stat) | freshness)
    if include_system and run["rows"] and not evicted:
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
    known = known_metrics(cache, refs)
    names = [one for name in names for one in _fitting(name, known)]
    where = str(refs[0]) if len(refs) == 1 else f"any of the {len(refs)} runs"
    missing = [name for name in names if name not in known]
    if missing:
        shown = [key for key in known if not is_system(key)]
        raise NotFound(f"no metric {', '.join(missing)} in {where}", hint=nearest_each(missing, shown))
    drawn = [key for key, kind in known.items() if kind in _DRAWN]
    every = [key for key in drawn if include_system or not is_system(key)] if all_metrics else []
    if not names and not every:
        raise NotFound(f"no numeric metric in {where}", hint=_what_else(known))
    return list(dict.fromkeys([*names, *every]))


def _fitting(name: str, known: Mapping[str, str]) -> list[str]:
    """The numeric metrics that a pattern stands for: val/*, system.gpu.*.temp. A known name is no pattern."""
    if name in known or not any(char in name for char in "*?["):
        return [name]
    return [key for key, kind in known.items() if kind in _DRAWN and fnmatchcase(key, name)] or [name]


def known_metrics(cache: Cache, refs: Sequence[RunRef]) -> dict[str, str]:
    """Every metric that one of the runs logged, machine metrics too, with its type: numeric if it is so in one."""
    known: dict[str, str] = {}
    for ref in refs:
        for key, kind in metric_types(cache, ref).items():
            if key not in known or kind == "numeric":
                known[key] = kind
    return known


def _what_else(known: Mapping[str, str]) -> str:
    """A hint where no metric is numeric: what there is instead."""
    own = [f"{key} ({kind})" for key, kind in known.items() if not is_system(key)]
    if own:
        return f"there is {', '.join(own[:5])}" + (f" and {len(own) - 5} more" if len(own) > 5 else "")
    return "there are metrics of the machine: see --include-system" if known else "nothing was logged"


def numbers(
    cache: Cache, ref: RunRef, key: str, found: tuple[NDArray[np.int64], NDArray[np.float64]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What `series` has found, for drawing. Raises NotFound, which says what there is instead, if that is nothing."""
    step, value = found
    if not len(value):
        kind = metric_types(cache, ref).get(key)
        if kind is None:
            raise NotFound("not logged")
        raise NotFound("nothing but None was logged" if kind == "null" else f"not numeric, its type is {kind}")
    return step, value


def is_sampled(cache: Cache, refs: Sequence[RunRef], key: str) -> bool:
    """Whether what `series` gives as steps are the numbers of machine samples, in each of the runs."""
    if not key.startswith("system."):
        return False
    with catalog.translated(cache.folder):
        histories = [streams_of(cache, ref).get(HISTORY) for ref in refs]
        asked = "SELECT 1 FROM metrics WHERE stream = ? AND key = ?"
        return not any(cache.con.execute(asked, (stream, key)).fetchone() for stream in histories)


def split_names(text: str, known: Collection[str]) -> list[str]:
    """The names in a list separated by commas, where names may have commas themselves.

    If the whole text is a known name, it is the only one. Else it is split at each comma, and neighbours are joined
    again only where that makes a known name of parts that are not all known. A part that is not known stays a part;
    spaces around names and empty parts do not count.
    """

    def name(part: str) -> str:
        return part if part in known else part.strip()

    if name(text) in known:
        return [name(text)]
    parts = text.split(",")
    longest = 1 + max((one.count(",") for one in known), default=0)
    # The best way to read the parts before each comma: unknown names, commas in names, parts of the last name.
    best = [(0, 0, 0)]
    for stop in range(1, len(parts) + 1):
        ways = []
        for start in range(max(0, stop - longest), stop):
            one = name(",".join(parts[start:stop]))
            if one in known or stop - start == 1:
                unknown, commas, _ = best[start]
                ways.append((unknown + (one != "" and one not in known), commas + stop - start - 1, stop - start))
        best.append(min(ways))
    names: list[str] = []
    stop = len(parts)
    while stop:
        start = stop - best[stop][2]
        names.append(name(",".join(parts[start:stop])))
        stop = start
    return [one for one in reversed(names) if one]


def is_system(key: str) -> bool:
    """Whether a metric is W&B's own: `_step`, `_timestamp`, `system.cpu` ..."""
    return key.startswith(("_", "system/", "system."))
