"""What was drawn, as numbers: every point with its smoothing, or every place of a group, as CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files
from .options import PlotOptions
from .panel import Series
from .picture import Drawn

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1_000_000  # written at once


def write(path: Path, prepared: Sequence[Drawn], options: PlotOptions) -> None:
    """Columns: metric, run_id, label, x, value, smoothed; of groups metric, group, x, value, n (of how many runs that
    is) and the edges of each band.

    x is as the axis has it. Floats are written so that they are read back as they were.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    every = [series for one in prepared for series in one.chart.series]
    whole = all(series.x.dtype.kind == "i" for series in every if len(series.x))
    grouped = any(series.count is not None for series in every)
    bands = (options.drawn_bands() if options.kind == "line" else ["bootstrap"]) if grouped else None
    schema = _schema(pa, bands, pa.int64() if whole else pa.float64())
    files.output_folder(path.parent)
    with files.replacing(path) as beside:
        writer: Any
        if options.data == "csv":
            writer = pyarrow.csv.CSVWriter(beside, schema)
        else:
            writer = pyarrow.parquet.ParquetWriter(beside, schema, compression="zstd")
        with writer:
            for one in prepared:
                for series in one.chart.series:
                    for batch in _batches(pa, schema, one, series):
                        writer.write(batch)


def _schema(pa: Any, bands: Sequence[str] | None, x: Any) -> pa.Schema:
    words = ["metric", "run_id", "label"] if bands is None else ["metric", "group"]
    fields = [*((name, pa.string()) for name in words), ("x", x), ("value", pa.float64())]
    if bands is None:
        return pa.schema([*fields, ("smoothed", pa.float64())])
    edges = [f"{band}_{edge}" for band in bands for edge in ("low", "high")]
    return pa.schema([*fields, ("n", pa.int64()), *((edge, pa.float64()) for edge in edges)])


def _batches(pa: Any, schema: pa.Schema, one: Drawn, series: Series) -> Iterator[pa.RecordBatch]:
    x, y = series.x, series.y
    if "run_id" in schema.names:
        words = [one.chart.metric, series.run_id, series.label]
        columns = [x, y, series.smooth]
    else:
        words = [one.chart.metric, series.label]
        there = np.isfinite(y)  # elsewhere is another line of the group
        x = x[there]
        edges = [edge for band in series.bands for edge in band]
        columns = [x, *(None if column is None else column[there] for column in (y, series.count, *edges))]
        columns += [None] * (len(schema) - len(words) - len(columns))
    for start in range(0, len(x), ROWS):
        stop = min(start + ROWS, len(x))
        arrays = [pa.repeat(pa.scalar(word, pa.string()), stop - start) for word in words]
        for column, field in zip(columns, list(schema)[len(words) :], strict=True):
            rows = pa.nulls(stop - start) if column is None else pa.array(column[start:stop])
            arrays.append(rows.cast(field.type))
        yield pa.record_batch(arrays, schema=schema)
