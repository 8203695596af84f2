"""Aligned columns, for people. All rows are in memory until it is known how wide the columns are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..terminal import echo
from .answer import Answer, Shown, distinct
from .sink import opened

ROWS = 2048  # read at a time


def write(answer: Answer, file: Path | None, limit: int | None = None) -> Shown:
    """The first `limit` rows; None for all. On a terminal no text is wider than half of it."""
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
            most = shutil.get_terminal_size().columns // 2 if out.isatty() else None
            output.show_table(distinct(answer.columns), [[_cut(value, most) for value in row] for row in rows], out)
    return Shown(len(rows), more)


def _cut(value: Any, most: int | None) -> Any:
    """What is long on a terminal, with a mark where it was cut; numbers are never."""
    from .. import output

    if most is None or not isinstance(value, (str, list, dict)):
        return value
    return output.shorten(output.show_cell(value), most)


def _rows(answer: Answer) -> Iterator[tuple[Any, ...]]:
    for batch in answer.batches(ROWS)[1]:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
