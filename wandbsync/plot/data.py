"""What was drawn, as numbers: every point with its smoothing, or every place of a group, as CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from .options import PlotOptions
from .panel import Series
from .picture import Drawn, Subject

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1_000_000  # written at once


def write(path: Path, prepared: Sequence[Drawn], subject: Subject, options: PlotOptions) -> None:
    """Columns: metric, run_id, label, x, value, smoothed; of groups metric, group, x, value and the edges of each band.

    x is as the axis has it. Floats are written so that they are read back as they were.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    bands = options.drawn_bands()
    whole = all(series.x.dtype.kind == "i" for one in prepared for series in one.panel.series if len(series.x))
    schema = _schema(pa, None if subject.groups is None else bands, pa.int64() if whole else pa.float64())
    files.output_folder(path.parent)
    with files.replacing(path) as beside:
        writer: Any
        if options.data == "csv":
            writer = pyarrow.csv.CSVWriter(beside, schema)
        else:
            writer = pyarrow.parquet.ParquetWriter(beside, schema, compression="zstd")
        with writer:
            for one in prepared:
                for series in one.panel.series:
                    for batch in _batches(pa, schema, one, series):
                        writer.write(batch)


def _schema(pa: Any, bands: Sequence[str] | None, x: Any) -> pa.Schema:
    words = ["metric", "run_id", "label"] if bands is None else ["metric", "group"]
    numbers = ["smoothed"] if bands is None else [f"{band}_{edge}" for band in bands for edge in ("low", "high")]
    fields = [*((name, pa.string()) for name in words), ("x", x)]
    return pa.schema([*fields, *((name, pa.float64()) for name in ("value", *numbers))])


def _batches(pa: Any, schema: pa.Schema, one: Drawn, series: Series) -> Iterator[pa.RecordBatch]:
    if "run_id" in schema.names:
        words = [one.panel.metric, series.run_id, series.label]
        columns = [series.x, series.y, series.smooth]
    else:
        words = [one.panel.metric, series.label]
        columns = [series.x, series.y, *(edge for band in series.bands for edge in band)]
    for start in range(0, len(series.x), ROWS):
        stop = min(start + ROWS, len(series.x))
        arrays = [pa.repeat(pa.scalar(word, pa.string()), stop - start) for word in words]
        for column, field in zip(columns, list(schema)[len(words) :], strict=True):
            rows = pa.nulls(stop - start) if column is None else pa.array(column[start:stop])
            arrays.append(rows.cast(field.type))
        yield pa.record_batch(arrays, schema=schema)
