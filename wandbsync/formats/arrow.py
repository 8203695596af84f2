"""Parquet, and Arrow's own files (IPC, Feather 2): every value as it is, with its type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .answer import BATCH, Answer, Shown, distinct
from .sink import beside

if TYPE_CHECKING:
    import pyarrow as pa


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
        schema, batches = answer.batches(BATCH)
        schema = pa.schema([one.with_name(name) for one, name in zip(schema, distinct(schema.names), strict=True)])
        with writer(path, schema) as out:
            for batch in batches:
                out.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                count += batch.num_rows
    return Shown(count)
