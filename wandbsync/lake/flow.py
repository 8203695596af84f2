"""The rows of some streams on their way into the lake, counted against what the catalog says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import here, tables
from .here import Project, Stream
from .plan import Reach

if TYPE_CHECKING:
    import pyarrow as pa


class Moved(Exception):
    """A signal: the cache has moved on since the plan, or these runs are not as the lake says."""

    def __init__(self, runs: Sequence[str] = ()) -> None:
        self.runs = frozenset(runs)


class Flow:
    """The rows of some streams on their way, counted against what the catalog says."""

    def __init__(
        self, project: Project, name: str, streams: Sequence[Stream], paths: Sequence[Path], check: Callable[[], None]
    ) -> None:
        self.project, self.name, self.streams, self.paths, self.check = project, name, streams, paths, check
        self.schema = tables.schema(name)
        self.reaches: list[Reach] = []
        self.broken: BaseException | None = None  # what went wrong inside of delta-rs

    def _blocks(self) -> Iterator[tuple[Any, Any]]:
        import numpy as np

        counts = np.array([one.after.values for one in self.streams], np.int64)
        lasts = np.full(len(self.streams), np.iinfo(np.int64).min)
        for i, one in enumerate(self.streams):
            lasts[i] = lasts[i] if one.after.last_step is None else one.after.last_step
        for block, index in here.blocks(self.paths, self.streams):
            self.check()
            counts += np.bincount(index, minlength=len(self.streams))
            np.maximum.at(lasts, index, block.step)
            yield block, index
        wrong = [one.run_id for one, count in zip(self.streams, counts.tolist(), strict=True) if count != one.count]
        if wrong:
            raise Moved(wrong)
        self.reaches = [Reach(one.count, last) for one, last in zip(self.streams, lasts.tolist(), strict=True)]

    def gathered(self) -> Callable[[], Any]:
        """All rows in memory, sorted by run, key and step."""
        import numpy as np
        import pyarrow as pa

        parts = [here.arrow(self.project, self.streams, block, index, self.schema) for block, index in self._blocks()]
        table = pa.concat_tables(parts).unify_dictionaries() if parts else self.schema.empty_table()
        if len(self.streams) > 1 and parts:
            order = np.argsort(_codes(table.column("run_id")), kind="stable")
            table = table.take(pa.array(order))
        return lambda: self._reader(self._plain(table))

    def streamed(self) -> pa.RecordBatchReader:
        """The same of one run, as it is asked for."""
        return self._reader(self._batches())

    def _reader(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self.schema, batches)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for block, index in self._blocks():
                for start in range(0, len(block), tables.ROW_GROUP):  # as Arrow rows are several times as large
                    some = slice(start, start + tables.ROW_GROUP)
                    part = here.some(block, some)
                    yield from self._plain(here.arrow(self.project, self.streams, part, index[some], self.schema))
        except BaseException as error:
            self.broken = error
            raise

    def _plain(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        """Rows with text as plain text: that a column was a dictionary is written down, and confuses some engines."""
        for batch in table.to_batches(max_chunksize=tables.ROW_GROUP):
            yield from _cast(batch, self.schema)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows as others of the same columns; in pieces if they have more text than fits into one."""
    import pyarrow as pa

    try:
        yield batch.cast(schema)
    except pa.ArrowInvalid:
        if len(batch) == 1:
            raise
        half = len(batch) // 2
        yield from _cast(batch.slice(0, half), schema)
        yield from _cast(batch.slice(half), schema)


def _codes(column: Any) -> Any:
    """The place of each row's text among all of them, sorted."""
    import numpy as np
    import pyarrow as pa

    parts = column.chunks
    names = parts[0].dictionary.to_pylist()
    rank = np.argsort(np.argsort(np.array(names, object)))
    codes = np.concatenate([part.indices.to_numpy() for part in parts]) if parts else np.empty(0, np.int64)
    assert isinstance(column, pa.ChunkedArray)
    return rank[codes]
