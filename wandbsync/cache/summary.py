"""A run's summary, derived from its rows: what the SDK would have said, without reading what it said."""

from __future__ import annotations

import re
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
    definitions = {_parts(name): aggregates for name, aggregates in rules.definitions.items()}
    summary: dict[str, Any] = {}
    last_steps: dict[tuple[str, ...], int] = {}
    for key, stat in stats.items():
        if stat.last_kind is None or stat.last_step is None:
            continue
        path = tuple(paths.get(key, (key,)))
        last_steps[path] = stat.last_step
        aggregates = _aggregates(path, definitions)
        by_hand = rules.explicit.get(path, ((), None))[0]
        if not aggregates or "copy" in aggregates or (by_hand and not isinstance(by_hand[0], dict)):
            _put(summary, path, _last(stat))  # what was set by hand once is copied from then on, as in the SDK
        elif "none" not in aggregates:
            _put(summary, path, {name.split("-")[0]: _aggregate(stat, name) for name in aggregates})
    if last_step is not None:
        summary["_step"] = last_step
    for path, (given, after) in rules.explicit.items():
        logged_at = max((last_steps[path[:n]] for n in range(1, len(path) + 1) if path[:n] in last_steps), default=None)
        if logged_at is not None and (after is None or logged_at > after):
            continue  # logged after it was set
        if given:
            _put(summary, path, given[0])
        else:
            _remove(summary, path)
    return summary


def _last(stat: Stat) -> Any:
    assert stat.last_kind is not None
    return logged(stat.last_kind, stat.last_value, stat.last_json)


def _parts(name: str) -> tuple[str, ...]:
    """The path that a name given to define_metric means: a dot parts nested names, unless a backslash is before it."""
    return tuple(part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name))


def _aggregates(path: tuple[str, ...], definitions: Mapping[tuple[str, ...], Sequence[str]]) -> Sequence[str]:
    if path in definitions:
        return definitions[path]
    key = ".".join(path)
    globs = {".".join(name)[:-1]: asked for name, asked in definitions.items() if name[-1].endswith("*")}
    fitting = [start for start in globs if key.startswith(start)]
    return globs[max(fitting, key=len)] if fitting else ()


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
