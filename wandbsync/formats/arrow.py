"""Parquet, and Arrow's own files (IPC, Feather 2): every value as it is, with its type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .answer import Answer, Shown, distinct
from .sink import beside

if TYPE_CHECKING:
    import pyarrow as pa

READ = 2048  # rows at a time: whole runs with their configs and summaries may be among them
ROWS, SIZE = 65_536, 64 << 20  # of a row group: whichever is reached first, rows or bytes


def write_parquet(answer: Answer, file: Path | None, limit: int | None = None) -> Shown:
    import pyarrow.parquet as pq

    return _written(answer, file, "Parquet", lambda path, schema: pq.ParquetWriter(path, schema, compression="zstd"))


def write_arrow(answer: Answer, file: Path | None, limit: int | None = None) -> Shown:
    """Not compressed, so that readers map it into memory as it is."""
    import pyarrow.ipc

    return _written(answer, file, "Arrow", lambda path, schema: pyarrow.ipc.new_file(str(path), schema))


def _written(answer: Answer, file: Path | None, what: str, writer: Callable[[Path, pa.Schema], Any]) -> Shown:
    import pyarrow as pa

    if file is None:
        raise UsageError(f"{what} is not for the terminal", hint="name a file with -o")
    count = 0
    with beside(file) as path:
        schema, batches = answer.batches(READ)
        schema = pa.schema([one.with_name(name) for one, name in zip(schema, distinct(schema.names), strict=True)])
        with writer(path, schema) as out:
            for group in _groups(batches):
                arrays = pa.Table.from_batches(group).combine_chunks().columns
                out.write_table(pa.Table.from_arrays(arrays, schema=schema))
                count += sum(batch.num_rows for batch in group)
    return Shown(count)


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches that are written together."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= ROWS or size >= SIZE:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group
