"""A run's summary, derived from its rows: what the SDK would have said, without reading what it said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..model import Kind, SummaryRules, logged
from .stats import Stat


def summarize(
    stats: Mapping[str, Stat], paths: Mapping[str, Sequence[str]], rules: SummaryRules | None, last_step: int | None
) -> dict[str, Any]:
    """The last value of each key, the aggregates that define_metric asked for, and what was set by hand.

    `paths` has the keys that are nested. A value set by hand stands until the key is logged again, as in the SDK.
    """
    rules = rules or SummaryRules()
    summary: dict[str, Any] = {}
    for key, stat in stats.items():
        if stat.last_kind is None:
            continue
        aggregates = _aggregates(key, rules.definitions)
        if not aggregates or "copy" in aggregates:
            _put(summary, paths.get(key, (key,)), _last(stat))
        elif "none" not in aggregates:
            _put(summary, paths.get(key, (key,)), {name.split("-")[0]: _aggregate(stat, name) for name in aggregates})
    if last_step is not None:
        summary["_step"] = last_step
    keys = {tuple(path): key for key, path in paths.items()}
    for path, (given, after) in rules.explicit.items():
        stat = stats.get(keys.get(path, path[0] if len(path) == 1 else ""), Stat())
        if stat.last_kind is not None and stat.last_step is not None and (after is None or stat.last_step > after):
            continue  # logged after it was set
        if given:
            _put(summary, path, given[0])
        else:
            _remove(summary, path)
    return summary


def _last(stat: Stat) -> Any:
    assert stat.last_kind is not None
    return logged(stat.last_kind, stat.last_value, stat.last_json)


def _aggregates(key: str, definitions: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if key in definitions:
        return definitions[key]
    globs = [name for name in definitions if name.endswith("*") and key.startswith(name[:-1])]
    return definitions[max(globs, key=len)] if globs else ()


def _aggregate(stat: Stat, name: str) -> Any:
    if name in ("min", "best-min"):
        return _number(stat, stat.min)
    if name in ("max", "best-max"):
        return _number(stat, stat.max)
    if name == "mean":
        return stat.mean
    if name == "first":
        assert stat.first_kind is not None
        return logged(stat.first_kind, stat.first_value, stat.first_json)
    return _last(stat)


def _number(stat: Stat, value: float | None) -> float | int | None:
    """A number as it was logged: an integer if all were."""
    return int(value) if value is not None and stat.kinds & ~(1 << Kind.NULL) == 1 << Kind.INT else value


def _put(summary: dict[str, Any], path: Sequence[str], value: Any) -> None:
    place = summary
    for part in path[:-1]:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):  # a value and a nested name at once: show the longer one dotted
            place[".".join(path[path.index(part) :])] = value
            return
        place = inner
    place[path[-1]] = value


def _remove(summary: dict[str, Any], path: Sequence[str]) -> None:
    place: Any = summary
    for part in path[:-1]:
        place = place.get(part)
        if not isinstance(place, dict):
            return
    place.pop(path[-1], None)
