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
        """The columns, and the rows as they come, so many at a time."""
        return self.schema, self._even(rows)

    def _even(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Small batches put together, large ones cut."""
        import pyarrow as pa

        waiting: list[pa.RecordBatch] = []
        count = 0
        for batch in self.found:
            waiting.append(batch)
            count += batch.num_rows
            if count >= rows:
                *full, last = pa.Table.from_batches(waiting, self.schema).combine_chunks().to_batches(rows)
                yield from full
                waiting, count = [last], last.num_rows
        yield from pa.Table.from_batches(waiting, self.schema).combine_chunks().to_batches(rows)


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
