"""GraphQL's answers, parsed: what has passed through here has the form that the rest of the code relies on.

`sensible` stands around parsing and nothing else, so that a mistake of ours is not told as the server's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import ServerError

Node = dict[str, Any]


@contextlib.contextmanager
def sensible(host: str) -> Iterator[None]:
    """What an answer that is not at all as W&B's are does to whoever parses it, as a ServerError."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        text = f"{host} sent a reply that wandbsync cannot read: {type(error).__name__}: {error}"
        raise ServerError(text, hint="is this a W&B server?") from error


def nodes(connection: Node | None) -> list[Node]:
    """The nodes of a page of a Relay connection."""
    edges = (connection or {}).get("edges") or ()
    return [edge["node"] for edge in edges if edge and edge.get("node")]


def next_cursor(connection: Node) -> str | None:
    """Where the next page begins; empty if the server does not say where, None if this page is the last."""
    page = connection.get("pageInfo") or {}
    if not page.get("hasNextPage"):
        return None
    edges = connection.get("edges") or [None]
    return page.get("endCursor") or (edges[-1] or {}).get("cursor") or ""


def step_of(row: Node) -> int:
    return int(row.get("_step") or 0)


def run(found: Any) -> Node:
    """A run with what was asked of it: a name, rows as dicts, connections whose nodes have names."""
    node = dict(found)
    return node | {part: parse(node[part]) for part, parse in _PARTS.items() if node.get(part) is not None}


def listed(found: Any) -> Node:
    """A node of a listing, which has a name."""
    return dict(found) | {"name": _text(found["name"])}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name is {value!r}")
    return value


def _rows(found: Any) -> list[Node]:
    """Rows that come as JSON texts, or as objects."""
    rows = [json.loads(text, strict=False) if isinstance(text, str) else text for text in found]
    for row in rows:
        if not isinstance(row, dict):
            raise TypeError(f"a row is a {type(row).__name__}")
    return rows


def _history(found: Any) -> list[Node]:
    rows = _rows(found)
    for row in rows:
        step_of(row)
    return rows


def _exports(found: Any) -> Node:
    live = found.get("liveData")
    urls = [_text(url) for url in found.get("parquetUrls") or ()]
    return {"parquetUrls": urls, "liveData": None if live is None else _rows(live)}


def _keys(found: Any) -> Node:
    keys = json.loads(found) if isinstance(found, str) else found
    return keys if isinstance(keys, dict) else {}


def _connection(found: Any, field: str) -> Node:
    edges = [{**edge, "node": node | {field: _text(node.get(field) or "")}} for edge in found.get("edges") or ()
             if edge and (node := edge.get("node"))]  # fmt: skip
    after = next_cursor(found)
    page = {"endCursor": None if after is None else _text(after), "hasNextPage": after is not None}
    return {"edges": edges, "pageInfo": page}


_PARTS: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "history": _history,
    "events": _rows,
    "parquetHistory": _exports,
    "historyKeys": _keys,
    "logLines": lambda found: _connection(found, "line"),
    "files": lambda found: _connection(found, "name"),
}
