"""Query results as a table, JSON, CSV or Parquet; streamed, so that their size does not matter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from .cache.catalog import plain
from .errors import UsageError, WandbsyncError
from .files import replacing
from .terminal import echo, json_text, printable

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 65_536  # rows


class Answer(Protocol):
    """What can be written: the answer to a query, or an export."""

    @property
    def columns(self) -> list[str]: ...

    @property
    def types(self) -> list[Any]: ...

    def batches(self, rows: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]: ...


@dataclass(frozen=True, slots=True)
class Shown:
    """How many rows were written, and whether there are more."""

    rows: int
    more: bool = False


def write(answer: Answer, form: str, file: Path | None, *, limit: int | None = None) -> Shown:
    """Write what a query returns; `limit` is for the table alone.

    Raises UsageError if the query fails, CacheError if that is the cache's fault, WandbsyncError if it cannot be
    written.
    """
    if form == "parquet":
        return _parquet(answer, file)
    with _sink(file) as out:
        return {"table": _table, "json": _json, "csv": _csv}[form](answer, out, limit)


def _rows(answer: Answer) -> Iterator[tuple[Any, ...]]:
    for batch in answer.batches(BATCH)[1]:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _names(columns: Sequence[str]) -> list[str]:
    """The names of columns, of which no two are alike: a, a_1, a_2, as DuckDB has it."""
    names: dict[str, str] = {}  # in lower case -> as written
    for column in columns:
        name, number = column, 0
        while name.lower() in names:
            number += 1
            name = f"{column}_{number}"
        names[name.lower()] = name
    return list(names.values())


def _table(answer: Answer, out: TextIO, limit: int | None) -> Shown:
    from . import output

    rows: list[tuple[Any, ...]] = []
    more = False
    for row in _rows(answer):
        more = limit is not None and len(rows) == limit
        if more:
            break
        rows.append(row)
    if answer.columns == ["explain_key", "explain_value"]:  # a drawing of many lines
        for _, text in rows:
            for one in text.rstrip().split("\n"):
                echo(one, file=out)
    else:
        output.show_table(_names(answer.columns), rows, out)
    return Shown(len(rows), more)


def _json(answer: Answer, out: TextIO, limit: int | None) -> Shown:
    count = 0
    names, parse = _names(answer.columns), [str(kind) == "JSON" for kind in answer.types]
    out.write("[")
    for row in _rows(answer):
        cells = [json.loads(v) if js and isinstance(v, str) else v for v, js in zip(row, parse, strict=True)]
        out.write(",\n " if count else "\n ")
        text = json.dumps(plain(dict(zip(names, cells, strict=True))), ensure_ascii=False, default=_plain)
        out.write(json_text(text))
        count += 1
    out.write("\n]\n" if count else "]\n")
    return Shown(count)


def _csv(answer: Answer, out: TextIO, limit: int | None) -> Shown:
    import csv

    writer = csv.writer(out, lineterminator="\n")
    for_people = out.isatty()  # elsewhere every character counts

    def cell(value: Any) -> Any:
        text = json.dumps(plain(value), default=_plain) if isinstance(value, (list, dict)) else value
        return printable(text) if for_people and isinstance(text, str) else text

    writer.writerow(map(cell, _names(answer.columns)))
    count = 0
    for row in _rows(answer):
        writer.writerow(map(cell, row))
        count += 1
    return Shown(count)


def _parquet(answer: Answer, file: Path | None) -> Shown:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file is None:
        raise UsageError("Parquet is not for the terminal", hint="name a file with -o")
    count = 0
    with _beside(file) as beside:
        schema, batches = answer.batches(BATCH)
        schema = pa.schema([one.with_name(name) for one, name in zip(schema, _names(schema.names), strict=True)])
        with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                count += batch.num_rows
    return Shown(count)


def _plain(value: Any) -> Any:
    """What JSON has no word for: sums of integers and decimals are Decimals, dates and times go as ISO 8601."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


@contextmanager
def _sink(file: Path | None) -> Iterator[TextIO]:
    if file is None:
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _drop_stdout()
            raise WandbsyncError(f"cannot write the output: {error.strerror or error}") from error
        return
    with _beside(file) as beside, beside.open("w", encoding="utf-8", newline="") as out:
        yield out


def _drop_stdout() -> None:
    """Let what could not be written go: at its end Python would try again, and say so its own way."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """A file beside, put in place when it is whole."""
    try:
        with replacing(file) as beside:
            yield beside
    except OSError as error:
        raise WandbsyncError(f"cannot write {file}: {error.strerror or error}") from error
