"""One read-only query, put to DuckDB over the cache."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..cache import Cache
from ..errors import UsageError

if TYPE_CHECKING:
    import duckdb


class Answer:
    """What a query returns: a `duckdb.DuckDBPyRelation` that keeps its connection, which DuckDB 1 would close."""

    def __init__(self, con: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation) -> None:
        self.con = con
        self.relation = relation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.relation, name)


def sql(cache: Cache, query: str) -> Answer:
    """Run one read-only query, to be fetched as Arrow or rows. Raises UsageError."""
    import duckdb

    from ..cache.publish import connect

    con = connect(cache)
    try:
        statements = con.extract_statements(query)
        # PIVOT is one statement to people; DuckDB 1 makes several of it, which have no text of their own.
        pivot = len(statements) > 1 and statements[-1].type == duckdb.StatementType.SELECT
        if not (pivot and "pivot" in query.lower() and not any(one.query for one in statements)):
            if len(statements) != 1:
                raise UsageError(f"one query at a time, this is {len(statements)}", hint="leave out the semicolon")
            _only_reads(con, statements[0])
        relation = con.sql(query)
    except duckdb.Error as error:
        raise sql_error(error) from error
    if relation is None:
        raise UsageError("the query returns nothing", hint="`wandbsync sql` takes SELECT, SHOW, DESCRIBE or EXPLAIN")
    return Answer(con, relation)


def sql_error(error: Exception) -> UsageError:
    """DuckDB's error as ours: its first line, and where to look the tables up."""
    text = str(error).strip().split("\n\n")[0]
    return UsageError(f"the query failed: {text}", hint="`wandbsync sql --schema` lists the tables")


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
