"""Histories of some runs on their way into a file: batches of long or wide rows, a few at a time in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cache import Cache
from ..model import HISTORY, RunRef

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Export:
    """What `tables.write` takes."""

    schema: pa.Schema
    found: Iterator[pa.RecordBatch]

    @property
    def columns(self) -> list[str]:
        return list(self.schema.names)

    @property
    def types(self) -> list[pa.DataType]:
        return list(self.schema.types)

    def batches(self, rows: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The columns, and the rows as they come, at most so many at a time."""
        return self.schema, (
            batch.slice(start, rows) for batch in self.found for start in range(0, batch.num_rows, rows)
        )


def export(
    cache: Cache,
    refs: Sequence[RunRef],
    keys: Sequence[str] | None = None,
    *,
    wide: bool = False,
    stream: str = HISTORY,
) -> Export:
    """The histories of some runs, run by run: a row a value, or with `wide` a row a step. `keys` None for all.

    Raises NotFound for a key that none of the runs has.
    """
    from .. import query
    from ..query import wide as wider

    found = wider.columns(cache, refs, keys, stream=stream)
    if wide:
        return Export(wider.schema(found), wider.batches(cache, refs, found, stream=stream))
    tables = query.long(cache, refs, keys, stream=stream)
    return Export(query.long_schema(), (batch for table in tables for batch in table.to_batches()))
