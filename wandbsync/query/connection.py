"""A DuckDB connection over the cache that may be kept for days: each query is asked of the cache as it stands then.

A connection to `wandb.duckdb` itself reads the file that it opened, and so grows old in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..cache import Cache, catalog
from ..cache.publish import attach
from ..cache.stamps import checked

if TYPE_CHECKING:
    import duckdb


class Connection:
    """A `duckdb.DuckDBPyConnection` whose tables are those of a cache; they cannot be written.

    The tables are projects, runs, metrics, files, cache, history, system and console. Tables, views and macros of one's
    own are made as TEMP. Whatever else DuckDB can read it reads here too.
    """

    def __init__(self, cache: Cache) -> None:
        import duckdb

        self.cache = cache
        self.connection: duckdb.DuckDBPyConnection = duckdb.connect()
        self._version: tuple[int, int] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Have the tables say what the catalog says now. Raises CacheError, Damaged or CacheBusy."""
        with catalog.translated(self.cache.folder):
            version = catalog.version(self.cache.con)
        if version != self._version:
            self._segments, _ = attach(self.connection, self.cache)
            self._version = version
        # DuckDB verifies no checksums; one that changed since it was checked last is read through once.
        checked(self.cache, [one for one in self._segments if self.cache.segment_path(one.file).exists()])

    def execute(self, query: str, parameters: Any = None) -> duckdb.DuckDBPyConnection:
        """Run a query over the cache as it stands now; the rows are fetched from what this returns."""
        if hasattr(self.connection, "abort"):  # DuckDB 2: rows not fetched yet stand in the way of all but `execute`
            self.connection.abort()
        self.refresh()
        return self.connection.execute(query, parameters)

    def sql(self, query: str, **how: Any) -> duckdb.DuckDBPyRelation:
        """The same as a relation, which is asked when its rows are fetched."""
        self.refresh()
        return self.connection.sql(query, **how)

    query = sql

    def close(self) -> None:
        self.connection.close()
        self.cache.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)
