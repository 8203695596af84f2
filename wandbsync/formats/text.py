"""CSV, TSV, JSON and JSON lines. DuckDB makes the text of each row; here it is only written."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..terminal import json_text, printable
from .answer import Answer, Shown, distinct
from .sink import opened
from .spelling import csv_cell, json_object, json_value, literal

if TYPE_CHECKING:
    import pyarrow as pa


Piece = tuple[int, bytes | memoryview]  # the text of some rows, and how many these are


def write_csv(answer: Answer, file: Path | None, limit: int | None = None) -> Shown:
    return _written(_separated(answer, ",", for_people=_is_terminal(file)), file)


def write_tsv(answer: Answer, file: Path | None, limit: int | None = None) -> Shown:
    return _written(_separated(answer, "\t", for_people=_is_terminal(file)), file)


def write_json(answer: Answer, file: Path | None, limit: int | None = None) -> Shown:
    """One list of objects, an object on each line."""
    return _written(map(_escaped, _listed(answer)), file)


def write_jsonl(answer: Answer, file: Path | None, limit: int | None = None) -> Shown:
    return _written(map(_escaped, _rows(answer, f"concat({_members(answer)}, chr(10))")), file)


def _separated(answer: Answer, separator: str, *, for_people: bool) -> Iterator[Piece]:
    import csv
    import io

    if not answer.columns:
        return
    line = io.StringIO()
    csv.writer(line, delimiter=separator, lineterminator="\n").writerow(distinct(answer.columns))
    header = line.getvalue().encode()
    if for_people:
        header = _printable(header, separator)
    cells = [csv_cell(f"#{i}", kind, separator) for i, kind in enumerate(answer.types, 1)]
    if len(cells) == 1:  # an empty line is no row to many readers
        cells = [f"coalesce({cells[0]}, '\"\"')"]
    row = f"concat({f', {literal(separator)}, '.join(cells)}, chr(10))"
    for number, text in _rows(answer, row):  # where that fails, not even the header is written
        if header:
            yield 0, header
            header = b""
        yield number, _printable(text, separator) if for_people else text
    yield 0, header


def _listed(answer: Answer) -> Iterator[Piece]:
    before = b"["
    for number, text in _rows(answer, f"concat(',', chr(10), ' ', {_members(answer)})"):
        yield 0, before
        yield number, text[len(before) :]  # the first has no comma
        before = b""
    yield 0, before + b"]\n" if before else b"\n]\n"


def _members(answer: Answer) -> str:
    """The pieces of a row's JSON object, for `concat`."""
    values = [json_value(f"#{i}", kind) for i, kind in enumerate(answer.types, 1)]
    return json_object(dict(zip(distinct(answer.columns), values, strict=True)))


def _is_terminal(file: Path | None) -> bool:
    return file is None and sys.stdout.isatty()


def _printable(text: bytes | memoryview, separator: str) -> bytes:
    """Rows of CSV without control characters in their cells; elsewhere than on a terminal every character counts."""
    whole = re.sub(r'"(?:[^"]|"")*"', lambda found: printable(found[0]), bytes(text).decode())
    lines = (separator.join(map(printable, line.split(separator))) for line in whole.split("\n"))
    return "\n".join(lines).encode()


def _escaped(piece: Piece) -> Piece:
    """JSON with every control character as JSON can write it; DuckDB leaves those beyond ASCII."""
    number, text = piece[0], bytes(piece[1])
    return piece if text.isascii() and b"\x7f" not in text else (number, json_text(text.decode()).encode())


def _rows(answer: Answer, expression: str) -> Iterator[Piece]:
    for batch in answer.project(expression):
        if batch.num_rows:
            yield batch.num_rows, _text(batch.column(0))


def _text(texts: pa.Array) -> memoryview:
    """The texts of an Arrow array one after the other, as they lie in memory."""
    import pyarrow as pa

    _, offsets, data = texts.buffers()
    ends = memoryview(offsets).cast("q" if pa.types.is_large_string(texts.type) else "i")
    return memoryview(data)[ends[texts.offset] : ends[texts.offset + len(texts)]]


def _written(pieces: Iterator[Piece], file: Path | None) -> Shown:
    count = 0
    with opened(file) as out:
        out.flush()  # what was printed before is before
        for number, text in pieces:
            out.buffer.write(text)
            count += number
        out.buffer.flush()
    return Shown(count)
