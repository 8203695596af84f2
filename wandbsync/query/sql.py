"""One read-only query, put to DuckDB over the cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ..cache import Cache
from ..cache.disk import GONE
from ..errors import CacheBusy, CacheError, NoRoom, UsageError
from .batches import ROWS, arrow_reader

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")
Errors = Callable[[], AbstractContextManager[None]]  # DuckDB's errors as ours
SEGMENT = re.compile(r"/history/L\d+/\d+-[0-9a-f]+\.parquet")


class Answer:
    """What a query returns: a `duckdb.DuckDBPyRelation` that keeps its connection, which DuckDB 1 would close.

    Fetching raises UsageError if the query fails, and what `errors` makes of that, as CacheError if it is the cache's
    fault.
    """

    def __init__(self, errors: Errors, beside: _Beside, relation: duckdb.DuckDBPyRelation) -> None:
        self.errors = errors
        self.beside = beside
        self.relation = relation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.relation, name)

    @property
    def columns(self) -> list[str]:
        return list(self.relation.columns)

    @property
    def types(self) -> list[Any]:
        return list(self.relation.types)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows."""
        with self.errors():
            return self.beside.call(self.relation.fetchall)

    def batches(self, rows: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The columns, and the rows as they come, about so many at a time."""
        with self.errors():
            reader = self.beside.call(arrow_reader, self.relation, rows)
        return reader.schema, self._read(reader)

    def project(self, expression: str) -> Iterator[pa.RecordBatch]:
        """What a DuckDB expression makes of each row, some rows at a time; in it #1 is the first column."""
        with self.errors():
            reader = self.beside.call(lambda: arrow_reader(self.relation.project(expression), ROWS))
        return self._read(reader)

    def _read(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while True:
            with self.errors():
                batch = self.beside.call(next, reader, None)
            if batch is None:
                return
            yield batch


class _Beside:
    """A connection that works in a thread of its own, so that Ctrl-C stops it at once.

    Left to itself, DuckDB looks for signals only between its tasks, which may take minutes.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.con = con
        self.thread = ThreadPoolExecutor(1)

    def call(self, work: Callable[..., T], *args: Any) -> T:
        """What `work` returns. An exception that comes while it is waited for, as Ctrl-C is, ends the work too."""
        from concurrent.futures import wait

        done = self.thread.submit(work, *args)
        try:
            return done.result()
        finally:
            while not done.done():  # again and again: it may be about to begin
                self.con.interrupt()
                wait([done], 0.02)


def sql(cache: Cache, query: str) -> Answer:
    """Run one read-only query, to be fetched as Arrow or rows. Raises UsageError, CacheError or CacheBusy."""
    from ..cache.publish import connect

    return ask(connect(cache), query, lambda: _errors(cache))


def ask(con: duckdb.DuckDBPyConnection, query: str, errors: Errors) -> Answer:
    """Run one read-only query over a connection. Raises UsageError, and what `errors` raises."""
    import duckdb

    beside = _Beside(con)
    with errors():
        statements = con.extract_statements(query)
        # PIVOT is one statement to people; DuckDB 1 makes several of it, which have no text of their own.
        pivot = len(statements) > 1 and statements[-1].type == duckdb.StatementType.SELECT
        if not (pivot and "pivot" in query.lower() and not any(one.query for one in statements)):
            if len(statements) != 1:
                raise UsageError(f"one query at a time, this is {len(statements)}", hint="leave out the semicolon")
            _only_reads(con, statements[0])
        relation = beside.call(con.sql, query)
    if relation is None:
        raise UsageError("the query returns nothing", hint="`wandbsync sql` takes SELECT, SHOW, DESCRIBE or EXPLAIN")
    return Answer(errors, beside, relation)


@contextmanager
def _errors(cache: Cache) -> Iterator[None]:
    """DuckDB's errors as ours: the first line, and where to look the tables up."""
    import duckdb
    import pyarrow as pa

    from ..cache.publish import check_segments

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # what fails while it is read comes through Arrow
        text = str(error).strip().split("\n\n")[0]
        if SEGMENT.search(text):
            check_segments(cache)
            if "No files found" in text:
                raise CacheBusy("the cache was compacted while the query ran", hint="ask again") from error
            raise CacheError(f"a segment of the cache cannot be read: {text}", hint=GONE) from error
        if "No space left" in text:
            raise NoRoom(f"no room left for what the query puts aside: {text}") from error
        raise UsageError(f"the query failed: {text}", hint="`wandbsync sql --schema` lists the tables") from error


def _only_reads(con: Any, statement: Any) -> None:
    import duckdb

    kind, text = statement.type, statement.query.strip()
    if kind == duckdb.StatementType.SELECT:
        return
    # PIVOT is two statements inside, and so is `COPY (PIVOT ...) TO ...`.
    if kind == duckdb.StatementType.MULTI and re.match(r"(pivot|unpivot|from|select|with)\b", text, re.IGNORECASE):
        return
    if kind == duckdb.StatementType.EXPLAIN and (found := re.match(r"explain\s+(analyze\s+)?", text, re.IGNORECASE)):
        inner = con.extract_statements(text[found.end() :])
        if len(inner) == 1:
            return _only_reads(con, inner[0])
    raise UsageError(f"only queries are allowed, this is {kind.name}", hint="`wandbsync sql` reads; it changes nothing")
