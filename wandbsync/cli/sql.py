"""`sql`: any question that can be put as one query."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from ..formats import write
from ..terminal import echo_lines
from .entry import Settings, formatted, from_lake, main_group, reading, settings

if TYPE_CHECKING:
    from ..query import Answer


@main_group.command()
@click.argument("query", required=False)
@formatted("table")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default="100, in a file all",
    help="Rows shown by --format table; 0 for all.",
)
@click.option("--schema", is_flag=True, help="Print the tables and their columns.")
@from_lake
@reading
@settings
def sql(
    on: Settings,
    /,
    query: str | None,
    form: str,
    file: Path | None,
    limit: int,
    schema: bool,
    lake: str | None,
    **fresh: Any,
) -> None:
    """Run one read-only SQL query (DuckDB) over the cache; - reads it from stdin.

    \b
    Example: wandbsync sql "SELECT run_id, min(value) FROM history WHERE key = 'loss' GROUP BY run_id"
    """
    if schema:
        _show_schema(form, lake)
        return
    if query == "-":
        query = sys.stdin.read()
    if not query or not query.strip():
        raise UsageError("there is no query", hint="`wandbsync sql --schema` lists the tables")
    answer = on.lake(lake, **fresh).sql(query) if lake is not None else _from_cache(on, query, fresh)
    shown = write(answer, form, file, limit=limit or None)
    if shown.more:
        on.say(f"the first {shown.rows} rows shown; --limit 0 shows all, --format csv exports them")
    if file:
        on.say(f"{shown.rows:,} rows in {file}")


def _show_schema(form: str, lake: str | None) -> None:
    from .. import output
    from ..cache import layout

    tables = layout.VISIBLE
    if lake is not None:
        from ..lake import tables as in_lake

        tables = in_lake.VISIBLE
    if form == "json":
        output.show_json(output.schema_fields(tables))
    else:
        echo_lines(layout.described(tables))


def _from_cache(on: Settings, query: str, fresh: dict[str, Any]) -> Answer:
    from .. import query as reader
    from ..freshness import Question

    cache = on.ask(Question(rows=True), **fresh)
    if re.search(r"\b(history|system|console)\b", query, re.IGNORECASE) and (evicted := cache.evicted()):
        on.say(
            f"without the rows of {len(evicted)} runs that were removed to save space: `incomplete` in runs says whose"
        )
    return reader.sql(cache, query)
