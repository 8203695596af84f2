"""Parquet exports of the beginning of a history, as W&B makes them some time after the rows were logged."""

from __future__ import annotations

import io
import itertools
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .store import Export, Run


def export(
    run: Run,
    upto_step: int | None = None,
    *,
    files: int = 1,
    shuffle: bool = False,
    double_steps: bool = True,
    append: bool = False,
    row_group_size: int | None = None,
) -> None:
    """Export the rows up to a step (all of them if None) in some files, in place of the exports so far.

    With `append` the files so far stay as they are and the new ones go on from there. With `shuffle` the URLs come in
    another order each time they are asked for. W&B's steps are doubles.
    """
    steps = run.history.steps
    beyond = np.flatnonzero(steps > upto_step) if upto_step is not None else np.empty(0)
    stop = int(beyond[0]) if len(beyond) else len(steps)
    start = run.exported_lines if append else 0
    kept = run.exports if append else []
    table = run.history.table(stop).slice(start) if stop > start else pa.table({})
    if double_steps and table.num_rows:
        place = table.column_names.index("_step")
        table = table.set_column(place, "_step", table["_step"].cast(pa.float64()))
    edges = [round(table.num_rows * part / files) for part in range(files + 1)]
    parts = [table.slice(low, high - low) for low, high in itertools.pairwise(edges) if high > low]
    run.exports = kept + [Export(f"{uuid.uuid4().hex}.parquet", _parquet(part, row_group_size)) for part in parts]
    run.exported_lines, run.shuffled = stop, shuffle


def _parquet(table: pa.Table, row_group_size: int | None) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=row_group_size)
    return buffer.getvalue()
