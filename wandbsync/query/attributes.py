"""What is known of a run, by the names people use: in labels, in groups and to choose runs.

    name, id, state, group, job_type, tags, ...   as list-runs has them        config.lr, config.opt.name
    summary.loss or loss                           its last value              created_at, runtime, host, ...

A condition is Python's own syntax, of which comparisons, `and`, `or`, `not`, `in` and the names above are understood:
`config.lr < 0.01 and state == "finished" and "best" in tags`. What a run does not have is None, and None is neither
below nor above anything.
"""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import NotFound, UsageError, nearest
from .filters import MISSING, dig

_PLACE = re.compile(r"\{([^{}]*)\}")
_NESTED = ("config", "summary_metrics", "metadata")  # they have names of their own inside
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def attribute(run: Mapping[str, Any], name: str) -> Any:
    """One of them, from a run as `get_run` gives it; None if the run has no such thing."""
    first, _, rest = name.partition(".")
    if first == "config" and rest:
        return _inside(run.get("config") or {}, rest)
    if first == "summary" and rest:
        return _inside(run.get("summary_metrics") or {}, rest)
    if name in run and name not in _NESTED:
        return run[name]
    return _inside(run.get("summary_metrics") or {}, name)


def _inside(nested: Any, path: str) -> Any:
    """What stands under a.b.c, where a dot parts nested names or is in one."""
    found = dig(nested, path)
    return None if found is MISSING else found


def names_in(run: Mapping[str, Any]) -> list[str]:
    """All there are, for a hint."""
    plain = [key for key in run if key not in _NESTED]
    return [*plain, *_names(run.get("config") or {}, "config."), *_names(run.get("summary_metrics") or {}, "summary.")]


def _names(nested: Mapping[str, Any], prefix: str) -> list[str]:
    found = []
    for key, value in nested.items():
        found += _names(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [f"{prefix}{key}"]
    return found


def check_names(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Raises NotFound, with near matches, for a name of something that none of the runs has."""
    for name in names:
        if all(attribute(run, name) is None and (name not in run or name in _NESTED) for run in runs):
            known = list(dict.fromkeys(one for run in runs[:100] for one in names_in(run)))
            raise NotFound(f"no run has {name}", hint=nearest(name, known))


def placeholders(template: str) -> list[str]:
    """The names in a label: `{config.lr} {name}`; a colon begins a format, as in Python."""
    return [one.partition(":")[0].strip() for one in _PLACE.findall(template)]


def filled(template: str, run: Mapping[str, Any]) -> str:
    """A label for a run. Raises UsageError if a value cannot be written as asked."""

    def fill(match: re.Match[str]) -> str:
        name, _, form = match[1].partition(":")
        return shown(attribute(run, name.strip()), form)

    return _PLACE.sub(fill, template)


def group_names(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """For each run what the group is called of those that have these in common: `lr=0.1, adam`.

    Numbers that look alike and are not are written in full: they are two groups.
    """
    short, full = ([_group_name(run, names, exact) for run in runs] for exact in (False, True))
    meanings = Counter(one for one, _ in set(zip(short, full, strict=True)))
    return [a if meanings[a] == 1 else b for a, b in zip(short, full, strict=True)]


def _group_name(run: Mapping[str, Any], names: Sequence[str], exact: bool) -> str:
    parts = []
    for name in names:
        value = attribute(run, name)
        own = isinstance(value, (str, list)) and value
        text = shown(value, exact=exact)
        parts.append(text if own else f"{name.rpartition('.')[2]}={text}")
    return ", ".join(parts)


def shown(value: Any, form: str = "", *, exact: bool = False) -> str:
    """A value as people write it; a float with six digits, or if it is to be exact as many as it takes."""
    if value is None:
        return "–"
    if form:
        try:
            return format(value, form)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{value!r} cannot be written as {form!r} in a label: {error}") from error
    if isinstance(value, float):
        short = f"{value:.6g}"
        return repr(value) if exact and float(short) != value else short
    if isinstance(value, (list, tuple)):
        return ",".join(shown(one, exact=exact) for one in value)
    return str(value)


def matching(runs: Sequence[Mapping[str, Any]], condition: str) -> list[Mapping[str, Any]]:
    """The runs for which a condition holds. Raises UsageError if it is none, NotFound for a name no run has."""
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"--runs-where: {condition!r} is no condition", hint=_EXAMPLE) from error
    for node in ast.walk(tree):
        if not isinstance(node, _UNDERSTOOD):
            raise UsageError(f"--runs-where: {condition!r} is not understood", hint=_EXAMPLE)
    check_names(runs, _outermost(tree))
    return [run for run in runs if _value(tree, run, condition)]


_UNDERSTOOD = (
    *(ast.BoolOp, ast.boolop, ast.Compare, *_COMPARE, ast.UnaryOp, ast.Not, ast.USub),
    *(ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Load),
)
_EXAMPLE = "write it like config.lr < 0.01 and state == 'finished' and 'best' in tags"


def _outermost(node: ast.AST) -> list[str]:
    """The names in a condition: of config.lr, that and not config."""
    name = _name(node)
    if name is not None:
        return [name]
    return [name for inside in ast.iter_child_nodes(node) for name in _outermost(inside)]


def _name(node: ast.AST) -> str | None:
    """config.opt.name, or config["learning rate"]."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inside = _name(node.value)
        return None if inside is None else f"{inside}.{node.attr}"
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        inside, key = _name(node.value), node.slice.value
        return f"{inside}.{key}" if inside is not None and isinstance(key, str) else None
    return None


def _value(node: ast.expr, run: Mapping[str, Any], condition: str) -> Any:
    name = _name(node)
    if name is not None:
        return attribute(run, name)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_value(one, run, condition) for one in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _value(node.operand, run, condition)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand, run, condition)
        return -number if isinstance(number, (int, float)) else None
    if isinstance(node, ast.BoolOp):
        each = (bool(_value(one, run, condition)) for one in node.values)
        return all(each) if isinstance(node.op, ast.And) else any(each)
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        values = [_value(one, run, condition) for one in (node.left, *node.comparators)]
        return all(_compare(op, a, b) for op, a, b in zip(node.ops, values, values[1:], strict=False))
    raise UsageError(f"--runs-where: {ast.unparse(node)} in {condition!r} is not understood", hint=_EXAMPLE)


def _compare(op: ast.cmpop, a: Any, b: Any) -> bool:
    try:
        return bool(_COMPARE[type(op)](a, b))
    except TypeError:  # None < 1, "a" < 1, 1 in 2
        return False
