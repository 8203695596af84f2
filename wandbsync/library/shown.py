"""Lists of dicts and dicts that show themselves as tables, at a prompt and in a notebook. Else they are what they are.

The cells are shortened and the rows cut where they are shown, never in the values.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

SHOWN = 20  # rows
WIDTH = 40  # characters of a cell


class Rows(list[dict[str, Any]]):
    """A list of dicts with the same keys; `columns` are those a table of them shows."""

    def __init__(self, rows: Iterable[dict[str, Any]] = (), *, columns: Sequence[str] = ()) -> None:
        super().__init__(rows)
        self.columns = tuple(columns)

    def _shown(self) -> tuple[list[str], list[list[str]]]:
        names = list(self.columns or (self[0] if self else ()))
        return names, [[_cell(row.get(name)) for name in names] for row in self[:SHOWN]]

    @property
    def _more(self) -> str:
        return f"... and {len(self) - SHOWN} more" if len(self) > SHOWN else ""

    def __repr__(self) -> str:
        if not self:
            return "[]"
        names, rows = self._shown()
        return "\n".join([*_lines(names, rows), *([self._more] if self._more else [])])

    def _repr_html_(self) -> str:
        names, rows = self._shown()
        return _table(names, rows) + (f"<p>{self._more}</p>" if self._more else "")


class Record(dict[str, Any]):
    """A dict that shows one key a line."""

    def __repr__(self) -> str:
        return "\n".join(_lines(["", ""], [[key, _cell(value, 100)] for key, value in self.items()])[2:])

    def _repr_html_(self) -> str:
        return _table([], [[key, _cell(value, 100)] for key, value in self.items()])


def _cell(value: Any, width: int = WIDTH) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (dict, list, tuple)):
        value = json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= width else text[: width - 1] + "…"


def _lines(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max([len(name), *(len(row[i]) for row in rows)]) for i, name in enumerate(names)]
    ruled = ["-" * width for width in widths]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (names, ruled, *rows)
    ]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    head = f"<thead>{line(names, 'th')}</thead>" if names else ""
    return f"<table>{head}<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"
