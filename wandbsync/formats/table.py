"""Aligned columns, for people. All rows are in memory until it is known how wide the columns are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..terminal import echo
from .answer import Answer, Shown, distinct
from .sink import opened

ROWS = 2048  # read at a time


def write(answer: Answer, file: Path | None, limit: int | None = None) -> Shown:
    """The first `limit` rows; None for all."""
    from .. import output

    rows: list[tuple[Any, ...]] = []
    more = False
    with opened(file) as out:
        for row in _rows(answer):
            more = limit is not None and len(rows) == limit
            if more:
                break
            rows.append(row)
        if answer.columns == ["explain_key", "explain_value"]:  # a drawing of many lines
            for line in (line for _, text in rows for line in text.rstrip().split("\n")):
                echo(line, file=out)
        else:
            output.show_table(distinct(answer.columns), rows, out)
    return Shown(len(rows), more)


def _rows(answer: Answer) -> Iterator[tuple[Any, ...]]:
    for batch in answer.batches(ROWS)[1]:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
