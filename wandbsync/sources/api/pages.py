"""Rows of a history by their steps: pages of `history`, however many rows the server has where.

A page takes PAGE rows. Of a range with more of them a server gives a sample, the first and the last row among them. A
page that is too much for the server is asked for again with half as many rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...errors import ServerError, TimedOut
from ...model import RunRef
from .client import Api, is_too_much
from .nodes import Node, step_of

PAGE = 1000  # what the SDK asks for, so that every server gives as many
FEWEST = 2  # rows of a page that tell where to cut a range in two
GAPS = 20  # gaps that are looked into


def at_steps(api: Api, ref: RunRef, steps: NDArray[np.int64], wanted: NDArray[np.bool_]) -> Iterator[list[Node]]:
    """The wanted ones of the rows that have these steps, in pages as full as they may be, and what lies between them.

    `steps` ascend, with an entry for each row there is; `wanted` is as long.
    """
    places = np.flatnonzero(wanted)
    at, size = 0, PAGE
    while at < len(places):
        start = int(places[at])
        end = min(start + size, len(steps))
        if end < len(steps) and steps[end] > steps[start]:
            end = int(np.searchsorted(steps[:end], steps[end]))  # rows of one step on one page
        last = steps[end - 1]
        page = _page(api, ref, int(steps[start]), int(last) + 1, PAGE, smallest=end - start == 1)
        if page is None:
            size = max(1, (end - start) // 2)
            continue
        yield _before(int(last) + 1, page)
        at = int(np.searchsorted(steps[places], last, side="right"))


def between(api: Api, ref: RunRef, first: int, stop: int) -> Iterator[list[Node]]:
    """All rows with first <= step < stop, where nobody knows which steps there are: a full page is cut in two."""
    ranges, size = [(first, stop)], PAGE
    while ranges:
        low, high = ranges.pop()
        page = _page(api, ref, low, high, size, smallest=size == FEWEST or high - low <= 1)
        if page is None:
            size //= 2
            ranges.append((low, high))
            continue
        steps = sorted(map(step_of, page))
        if len(page) < size or high - low <= 1 or steps[0] == steps[-1]:
            yield _before(high, page)
            continue
        # What came is a sample of what there is, so its middle is about the middle.
        middle = max(steps[len(steps) // 2], low + 1)
        ranges += [(middle, high), (low, middle)]


def _page(api: Api, ref: RunRef, first: int, stop: int, samples: int, *, smallest: bool) -> list[Node] | None:
    """The rows of a page; None if they are too much for the server, and fewer can be asked for."""
    try:
        return api.page(ref, first, stop, samples, hasty=not smallest)
    except (ServerError, TimedOut) as error:
        if smallest or not is_too_much(error):
            raise
        return None


def _before(stop: int, page: list[Node]) -> list[Node]:
    """A page without the rows of the step at which it should have ended: some servers count it in."""
    return [row for row in page if step_of(row) < stop]


def in_gaps(api: Api, ref: RunRef, steps: NDArray[np.int64], stop: int, missing: int) -> list[Node]:
    """Up to `missing` rows that are not at these steps (ascending): after the last, then in the widest gaps."""
    edges = np.concatenate(([-1], steps, [max(stop, int(steps[-1]) + 1 if len(steps) else 0)]))
    widths = np.diff(edges) - 1
    order = np.argsort(-widths[:-1], kind="stable")[: GAPS - 1]
    found: list[Node] = []
    for i in [len(widths) - 1, *order.tolist()]:
        if widths[i] > 0 and len(found) < missing:
            for page in between(api, ref, int(edges[i]) + 1, int(edges[i + 1])):
                found += page
    return found
