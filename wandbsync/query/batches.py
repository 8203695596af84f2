"""Arrow batches as an answer: what is on its way into a file, a few rows at a time in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ROWS = 512  # at a time, where their texts may be long: Arrow has no room for more than 2 GB in a batch of them


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

        if not self.columns:
            return []
        kinds = duckdb.connect().from_arrow(self.schema.empty_table()).types
        return [
            duckdb.sqltype("JSON") if name in self.json else kind
            for name, kind in zip(self.columns, kinds, strict=True)
        ]

    def batches(self, rows: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The columns, and the rows as they come, so many at a time at the most."""
        slices = (one.slice(start, rows) for one in self.found for start in range(0, one.num_rows, rows))
        return self.schema, slices

    def project(self, expression: str) -> Iterator[pa.RecordBatch]:
        """What a DuckDB expression makes of each row, some rows at a time; in it #1 is the first column."""
        import duckdb
        import pyarrow as pa

        with duckdb.connect() as con:
            con.execute("PRAGMA disable_optimizer")  # of 5,000 columns it takes 8 seconds, for nothing
            for batch in self.found:
                yield from arrow_reader(con.from_arrow(pa.Table.from_batches([batch])).project(expression), ROWS)


def listed(rows: Sequence[dict[str, Any]]) -> Batches:
    """What a list command found: a column for each field, none if it found nothing.

    What is nested, or of several types, is JSON.
    """
    import pyarrow as pa

    from ..cache.catalog import plain

    columns: dict[str, pa.Array] = {}
    texts = set()
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        try:
            if any(isinstance(value, dict) for value in values):
                raise TypeError
            columns[name] = pa.array(values)
        except (pa.ArrowException, TypeError, OverflowError):
            texts.add(name)
            columns[name] = pa.array([None if one is None else json.dumps(plain(one)) for one in values], pa.string())
    table = pa.table(columns)
    return Batches(table.schema, iter(table.to_batches()), frozenset(texts))


def arrow_reader(relation: duckdb.DuckDBPyRelation, rows: int) -> pa.RecordBatchReader:
    """A relation's rows as they come, about so many at a time."""
    # DuckDB 1.4 has the second only, and 2 the first.
    return (getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader)(rows)
