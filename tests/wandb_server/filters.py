"""Which runs a listing shows, and in which order: W&B's Mongo-like filters and its order strings.

A field that the real server does not know is an error here, not a filter that silently matches nothing.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from .history import MISSING, dig
from .store import Run

_FIELDS: dict[str, Callable[[Run], Any]] = {
    "name": lambda run: run.name,
    "displayName": lambda run: run.display_name,
    "state": lambda run: run.state,
    "tags": lambda run: run.tags,
    "createdAt": lambda run: run.created_at,
    "heartbeatAt": lambda run: run.heartbeat_at,
    "group": lambda run: run.group,
    "jobType": lambda run: run.job_type,
    "sweep": lambda run: run.sweep_name,
    "username": lambda run: run.username,
    "notes": lambda run: run.notes,
    "description": lambda run: run.description,
    "historyLineCount": lambda run: len(run.history),
}


def matches(run: Run, query: Mapping[str, Any]) -> bool:
    """Whether a run fits a filter; raises ValueError for an unknown field or operator."""
    # Each part is looked at, also after one that says no: an unknown word in the last one is an error too.
    verdicts = [_matches_one(run, field, condition) for field, condition in query.items()]
    return all(verdicts)


def ordered(runs: list[Run], order: str) -> list[Run]:
    """The runs by an order such as `-summary_metrics.loss`: numbers, then texts; those without either come last."""
    descending, field = order.startswith("-"), order.lstrip("+-")
    pairs = [(_plain(_value(run, field)), run) for run in runs]
    groups: list[list[tuple[Any, Run]]] = [[], [], []]
    for value, run in pairs:
        is_number = isinstance(value, int | float) and value == value
        groups[0 if is_number else 1 if isinstance(value, str) else 2].append((value, run))
    for group in groups[:2]:
        group.sort(key=lambda pair: pair[0], reverse=descending)
    return [run for group in groups for _, run in group]


def _matches_one(run: Run, field: str, condition: Any) -> bool:
    if field in ("$and", "$or", "$nor"):
        verdicts = [matches(run, part) for part in condition]
        return all(verdicts) if field == "$and" else any(verdicts) == (field == "$or")
    if field == "$not":
        return not matches(run, condition)
    value = _value(run, field)
    if isinstance(condition, Mapping) and any(name.startswith("$") for name in condition):
        return all(_holds(value, name, wanted) for name, wanted in condition.items())
    return _holds(value, "$eq", condition)


def _holds(value: Any, name: str, wanted: Any) -> bool:
    if name == "$not":
        return not all(_holds(value, part, item) for part, item in wanted.items())
    if name == "$exists":
        return (value is not MISSING) == bool(wanted)
    if name in ("$ne", "$nin"):
        return not _holds(value, "$eq" if name == "$ne" else "$in", wanted)
    if name == "$in":
        return any(_holds(value, "$eq", item) for item in wanted)
    if name not in _OPERATORS:
        raise ValueError(f"unknown operator {name} in filter")
    if value is MISSING:
        return name == "$eq" and wanted is None
    if isinstance(value, list):  # one tag that fits is enough
        return value == wanted or any(_holds(item, name, wanted) for item in value)
    try:
        return bool(_OPERATORS[name](_plain(value), _as_time(wanted) if isinstance(value, datetime) else wanted))
    except TypeError:  # a number against a string
        return False


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "$eq": operator.eq,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
    "$regex": lambda value, pattern: re.search(pattern, value),
}


def _value(run: Run, field: str) -> Any:
    part, _, path = field.partition(".")
    if part == "config" and path:
        value = dig(run.config, path)
        if value is MISSING:
            value = dig({key: item.get("value") for key, item in run.config.items()}, path)
        return value["value"] if isinstance(value, dict) and "value" in value else value
    if part in ("summary_metrics", "summaryMetrics", "summary") and path:
        return dig(run.summary, path)
    name = re.sub("_(.)", lambda match: match[1].upper(), field)
    if name not in _FIELDS:
        raise ValueError(f"unknown field {field}")
    return _FIELDS[name](run)


def _plain(value: Any) -> Any:
    return None if value is MISSING else value.timestamp() if isinstance(value, datetime) else value


def _as_time(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    time = datetime.fromisoformat(value.replace("Z", "+00:00"))
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
