"""Arrow batches as an answer: what is on its way into a file, a few rows at a time in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ROWS = 8192  # of text at a time: few enough that long ones fit in memory, and in Arrow's 2 GB of a batch


@dataclass(frozen=True, slots=True)
class Batches:
    """Batches of one schema, to be read once; `json` are the columns whose texts are JSON."""

    schema: pa.Schema
    found: Iterator[pa.RecordBatch]
    json: frozenset[str] = frozenset()

    @property
    def columns(self) -> list[str]:
        return list(self.schema.names)

    @property
    def types(self) -> list[Any]:
        """As DuckDB has them."""
        import duckdb

        kinds = duckdb.connect().from_arrow(self.schema.empty_table()).types
        return [
            duckdb.sqltype("JSON") if name in self.json else kind
            for name, kind in zip(self.columns, kinds, strict=True)
        ]

    def batches(self, rows: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The columns, and the rows as they come, so many at a time."""
        return self.schema, self._even(rows)

    def project(self, expression: str) -> Iterator[pa.RecordBatch]:
        """What a DuckDB expression makes of each row, some rows at a time; in it #1 is the first column."""
        import duckdb
        import pyarrow as pa

        with duckdb.connect() as con:
            for batch in self.found:
                yield from arrow_reader(con.from_arrow(pa.Table.from_batches([batch])).project(expression), ROWS)

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


def arrow_reader(relation: duckdb.DuckDBPyRelation, rows: int) -> pa.RecordBatchReader:
    """A relation's rows as they come, about so many at a time."""
    # DuckDB 1.4 has the second only, and 2 the first.
    return (getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader)(rows)
