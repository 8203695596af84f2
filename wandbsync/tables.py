"""Query results as a table, JSON, CSV or Parquet; streamed, so that their size does not matter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from .cache.catalog import plain
from .errors import UsageError, WandbsyncError

BATCH = 65_536  # rows


@dataclass(frozen=True, slots=True)
class Shown:
    """How many rows were written, and whether there are more."""

    rows: int
    more: bool = False


def write(relation: Any, form: str, file: Path | None, *, limit: int | None = None) -> Shown:
    """Write what a query returns; `limit` is for the table alone. Raises UsageError if the query fails."""
    if form == "parquet":
        return _parquet(relation, file)
    with _sink(file) as out:
        return {"table": _table, "json": _json, "csv": _csv}[form](relation, out, limit)


def _batches(relation: Any) -> Iterator[Any]:
    import duckdb

    from .query import sql_error

    try:
        yield from (
            relation.fetch_arrow_reader(BATCH)
            if not hasattr(relation, "to_arrow_reader")
            else (relation.to_arrow_reader(BATCH))
        )
    except duckdb.Error as error:
        raise sql_error(error) from error


def _rows(relation: Any) -> Iterator[tuple[Any, ...]]:
    for batch in _batches(relation):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _table(relation: Any, out: TextIO, limit: int | None) -> Shown:
    from . import output

    rows: list[tuple[Any, ...]] = []
    for row in _rows(relation):
        if limit is not None and len(rows) == limit:
            output.show_table(relation.columns, rows, out)
            return Shown(len(rows), more=True)
        rows.append(row)
    output.show_table(relation.columns, rows, out)
    return Shown(len(rows))


def _json(relation: Any, out: TextIO, limit: int | None) -> Shown:
    count = 0
    names, parse = relation.columns, [str(kind) == "JSON" for kind in relation.types]
    out.write("[")
    for row in _rows(relation):
        cells = [json.loads(v) if js and isinstance(v, str) else v for v, js in zip(row, parse, strict=True)]
        out.write(",\n " if count else "\n ")
        out.write(json.dumps(plain(dict(zip(names, cells, strict=True))), ensure_ascii=False, default=_plain))
        count += 1
    out.write("\n]\n" if count else "]\n")
    return Shown(count)


def _csv(relation: Any, out: TextIO, limit: int | None) -> Shown:
    import csv

    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(relation.columns)
    count = 0
    for row in _rows(relation):
        writer.writerow([json.dumps(plain(v), default=_plain) if isinstance(v, (list, dict)) else v for v in row])
        count += 1
    return Shown(count)


def _parquet(relation: Any, file: Path | None) -> Shown:
    import pyarrow.parquet as pq

    if file is None:
        raise UsageError("Parquet is not for the terminal", hint="name a file with -o")
    count = 0
    with _beside(file) as beside:
        writer = None
        for batch in _batches(relation):
            writer = writer or pq.ParquetWriter(beside, batch.schema, compression="zstd")
            writer.write_batch(batch)
            count += batch.num_rows
        if writer is None:
            pq.write_table(
                relation.to_arrow_table() if hasattr(relation, "to_arrow_table") else relation.arrow(), beside
            )
        else:
            writer.close()
    return Shown(count)


def _plain(value: Any) -> Any:
    """What JSON has no word for: sums of integers and decimals are Decimals, dates and times go as ISO 8601."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


@contextmanager
def _sink(file: Path | None) -> Iterator[TextIO]:
    if file is None:
        yield sys.stdout
        return
    with _beside(file) as beside, beside.open("w", encoding="utf-8", newline="") as out:
        yield out


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """A file beside, put in place when it is whole."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(file)
    except OSError as error:
        raise WandbsyncError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
