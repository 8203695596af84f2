"""What can be written, and what is told of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


class Answer(Protocol):
    """The answer to a query (`query.Answer`), or batches of an export (`query.batches.Batches`); read once."""

    @property
    def columns(self) -> list[str]: ...

    @property
    def types(self) -> list[Any]:
        """DuckDB's."""

    def batches(self, rows: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]: ...

    def project(self, expression: str) -> Iterator[pa.RecordBatch]:
        """What a DuckDB expression makes of each row; in it #1 is the first column."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How many rows were written, and whether there are more."""

    rows: int
    more: bool = False


def distinct(columns: Sequence[str]) -> list[str]:
    """The names of columns, of which no two are alike: a, a_1, a_2, as DuckDB has it."""
    names: dict[str, str] = {}  # in lower case -> as written
    for column in columns:
        name, number = column, 0
        while name.lower() in names:
            number += 1
            name = f"{column}_{number}"
        names[name.lower()] = name
    return list(names.values())
