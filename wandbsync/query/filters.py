"""Which runs are meant, and in which order: W&B's Mongo-like filters and its order strings. Pure.

A run is a dict as `all_runs` gives it. A field or operator that is not known is an error, never a filter that silently
fits nothing. Names may be written as the server has them (`displayName`) or as Python does (`display_name`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timezone
from typing import Any

from ..errors import UsageError
from ..model import FIELDS

Run = Mapping[str, Any]

MISSING: Any = object()
_ZULU = re.compile("[Zz]$")
_FIELDS = {one.asked_by: one for one in FIELDS if one.asked_by}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "$eq": operator.eq,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
    "$regex": lambda value, pattern: re.search(pattern, value),
}
_HINT = f"there is config.<key>, summary_metrics.<key>, {', '.join(_FIELDS)}"


def choose(
    runs: Iterable[dict[str, Any]], filters: Mapping[str, Any] | None = None, order: str | None = None
) -> list[dict[str, Any]]:
    """The runs that fit, in an order such as `-summary_metrics.loss` or `+created_at`; None: as they come.

    What is neither number nor text comes last, either way; infinities are numbers. Raises UsageError for what cannot
    be asked.
    """
    found = [run for run in runs if fits(run, filters or {})]
    return found if order is None else _ordered(found, order)


def fits(run: Run, query: Mapping[str, Any]) -> bool:
    """Whether one run fits a filter. Raises UsageError for a field or operator that is not known."""
    if not isinstance(query, Mapping):
        raise UsageError(f"a filter is a dict, this is {query!r}", hint='such as {"config.lr": {"$gt": 0.01}}')
    # Each part is looked at, also after one that says no: an unknown word in the last one is an error too.
    verdicts = [_fits(run, field, condition) for field, condition in query.items()]
    return all(verdicts)


def _fits(run: Run, field: str, condition: Any) -> bool:
    if field in ("$and", "$or", "$nor"):
        verdicts = [fits(run, part) for part in condition]
        return all(verdicts) if field == "$and" else any(verdicts) == (field == "$or")
    if field == "$not":
        return not fits(run, condition)
    value, is_time = _value(run, field)
    if isinstance(condition, Mapping) and any(str(name).startswith("$") for name in condition):
        verdicts = [_holds(value, name, wanted, is_time=is_time) for name, wanted in condition.items()]
        return all(verdicts)
    return _holds(value, "$eq", condition, is_time=is_time)


def _holds(value: Any, name: str, wanted: Any, *, is_time: bool) -> bool:
    if name == "$not":
        return not all(_holds(value, part, item, is_time=is_time) for part, item in wanted.items())
    if name == "$exists":
        return (value is not MISSING) == bool(wanted)
    if name in ("$ne", "$nin"):
        return not _holds(value, "$eq" if name == "$ne" else "$in", wanted, is_time=is_time)
    if name == "$in":
        return any(_holds(value, "$eq", item, is_time=is_time) for item in wanted)
    if name not in _OPERATORS:
        known = ", ".join([*_OPERATORS, "$ne", "$in", "$nin", "$exists", "$not", "$and", "$or", "$nor"])
        raise UsageError(f"there is no operator {name} for a filter", hint=f"there is {known}")
    if value is MISSING:
        return name == "$eq" and wanted is None
    if isinstance(value, list):  # one tag that fits is enough
        return value == wanted or any(_holds(item, name, wanted, is_time=is_time) for item in value)
    if is_time:
        wanted = _seconds(wanted)
    elif isinstance(wanted, (int, float)):
        value = _number(value)
    try:
        return bool(_OPERATORS[name](value, wanted))
    except TypeError:  # a number against a string
        return False
    except re.error as error:
        raise UsageError(f"{wanted!r} is not a regular expression: {error}") from error


def _ordered(runs: Sequence[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """Numbers first, then texts, each in the order asked for; then, as they come, what has no order, such as NaN."""
    descending, field = order.startswith("-"), order.lstrip("+-")
    pairs = [(_number(_value(run, field)[0]), run) for run in runs]
    groups: list[list[tuple[Any, dict[str, Any]]]] = [[], [], []]
    for value, run in pairs:
        is_number = isinstance(value, (int, float)) and value == value
        groups[0 if is_number else 1 if isinstance(value, str) and value != "NaN" else 2].append((value, run))
    for group in groups[:2]:
        group.sort(key=lambda pair: pair[0], reverse=descending)
    return [run for group in groups for _, run in group]


def _number(value: Any) -> Any:
    """A value, infinities as numbers: in JSON they are words."""
    return float(value) if value in ("Infinity", "-Infinity") else value


def _value(run: Run, field: str) -> tuple[Any, bool]:
    """What a run has under a name, and whether that is a time."""
    part, _, path = field.partition(".")
    if part == "config" and path:
        # The server keeps {"lr": {"value": 0.1}}; people write config.lr as well as config.lr.value.
        value = dig({key: {"value": item} for key, item in run["config"].items()}, path)
        if value is MISSING:
            value = dig(run["config"], path)
        return (value["value"] if isinstance(value, dict) and "value" in value else value), False
    if part in ("summary_metrics", "summaryMetrics", "summary") and path:
        return dig(run["summary_metrics"], path), False
    name = re.sub("_(.)", lambda match: match[1].upper(), field)
    if name not in _FIELDS:
        raise UsageError(f"runs cannot be asked for by {field}", hint=_HINT)
    known = _FIELDS[name]
    value, is_time = run[known.in_json], known.type == "TIMESTAMP"
    return (_seconds(value) if is_time else value), is_time


def dig(values: Any, path: str) -> Any:
    """What is under a dotted path, where keys may have dots of their own, and items of lists are counted from 0."""
    if isinstance(values, list):
        first, _, rest = path.partition(".")
        if not first.isdecimal() or int(first) >= len(values):
            return MISSING
        return dig(values[int(first)], rest) if rest else values[int(first)]
    if not isinstance(values, Mapping):
        return MISSING
    if path in values:
        return values[path]
    parts = path.split(".")
    for i in range(1, len(parts)):
        found = dig(values.get(".".join(parts[:i])), ".".join(parts[i:]))
        if found is not MISSING:
            return found
    return MISSING


def _seconds(time: Any) -> Any:
    """A datetime, a date or ISO 8601 text as unix seconds, without a zone it is UTC; anything else as it is."""
    if isinstance(time, date) and not isinstance(time, datetime):
        time = datetime(time.year, time.month, time.day)
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(_ZULU.sub("+00:00", time))
        except ValueError as error:
            raise UsageError(f"{time!r} is not a time", hint="write 2026-01-31 or 2026-01-31T12:00:00Z") from error
    if not isinstance(time, datetime):
        return time
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
