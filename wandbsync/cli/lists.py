"""The list commands: the projects, runs, metrics and files in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from ..formats import write
from .entry import Settings, formatted, from_lake, main_group, reading, settings, with_parent


@main_group.command("list-projects")
@click.option("--entity", help="Only this entity's.")
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default="100, in a file all", help="0 for all.")
@formatted("table")
@reading
@settings
def list_projects(on: Settings, /, entity: str | None, limit: int, form: str, file: Path | None, **fresh: Any) -> None:
    """List the projects in the cache."""
    from .. import output, query
    from ..freshness import Question

    found = query.list_projects(on.ask(Question(entity=entity), **fresh), entity=entity, limit=None)
    projects = found[: limit or None]
    _tell_more(on, len(projects), len(found), "projects")
    _show(
        on,
        projects,
        form,
        file,
        ["ENTITY", "PROJECT", "RUNS", "SOURCE", "SYNCED", "DESCRIPTION"],
        [
            [p["entity"], p["name"], p["runs"], p["source"], output.ago(p["synced_at"]), p["description"]]
            for p in projects
        ],
    )


@main_group.command("list-runs")
@click.argument("project", metavar="ENTITY/PROJECT")
@click.option("--state", help="Only runs in this state: running, finished, failed, crashed ...")
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default="100, in a file all", help="0 for all.")
@from_lake
@formatted("table")
@reading
@settings
def list_runs(
    on: Settings,
    /,
    project: str,
    state: str | None,
    limit: int,
    lake: str | None,
    form: str,
    file: Path | None,
    **fresh: Any,
) -> None:
    """List the runs of a project, newest first.

    \b
    Example: wandbsync list-runs me/demo --state running
    """
    from .. import output, query
    from ..freshness import Question

    if lake is None:
        cache = on.ask(Question(project), **fresh)
        found = query.find_projects(cache, project, default_entity=on.config.default_entity)
    else:
        reader = on.lake(lake, **fresh)
        cache, found = reader.cache, [reader.project(project, state=state, limit=limit or None)]
    runs = [run for one in found for run in query.list_runs(cache, one, state=state, limit=limit or None)]
    if len(found) > 1:
        runs = sorted(runs, key=lambda run: run["created_at"] or "", reverse=True)[: limit or None]
        on.say(_of_both(found))
    if limit and len(runs) == limit:
        _tell_more(on, limit, sum(query.count_runs(cache, one, state=state) for one in found), "runs")
    _show(
        on,
        runs,
        form,
        file,
        ["ID", "NAME", "STATE", "CREATED", "ROWS", "SYNCED", "SUMMARY"],
        [
            [
                run["id"],
                output.shorten(run["name"], 40),
                _state(run),
                (run["created_at"] or "")[:19].replace("T", " "),
                run["rows"] if run["complete"] or run["rows"] else None,
                output.ago(run["synced_at"]),
                output.summary_line(run["summary_metrics"]),
            ]
            for run in runs
        ],
    )


def _of_both(projects: Sequence[tuple[str, str]]) -> str:
    return f"these are the runs of {' and of '.join(map('/'.join, projects))}"


@main_group.command("list-metrics")
@click.argument("project", metavar="ENTITY/PROJECT")
@click.argument("run")
@click.option("--include-system", is_flag=True, help="Also _step, _timestamp ... and machine metrics (system.*).")
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default="100, in a file all", help="0 for all.")
@with_parent
@formatted("table")
@reading
@settings
def list_metrics(
    on: Settings,
    /,
    project: str,
    run: str,
    include_system: bool,
    limit: int,
    with_parent: bool,
    form: str,
    file: Path | None,
    **fresh: Any,
) -> None:
    """List what a run logged, with counts and statistics over the whole history."""
    from .. import output, query
    from ..freshness import Question

    statistics = not (include_system or with_parent)
    cache = on.ask(Question(project, (run,), rows=True, statistics=statistics), **fresh)
    ref = query.find_run(cache, query.find_project(cache, project, default_entity=on.config.default_entity), run)
    cache = on.with_parents(cache, [ref], **fresh) if with_parent else cache
    found = query.list_metrics(cache, ref, include_system=include_system)
    metrics = dict(list(found.items())[: limit or None])
    _tell_more(on, len(metrics), len(found), "metrics")
    columns = ["type", "count", "non_null_count", "min", "max", "mean", "std", "last"]
    _show(
        on,
        metrics,
        form,
        file,
        ["METRIC", "TYPE", "COUNT", "NON-NULL", "MIN", "MAX", "MEAN", "STD", "LAST"],
        [
            [key, *(output.shorten(output.show_cell(entry.get(column)), 40) for column in columns)]
            for key, entry in metrics.items()
        ],
    )


@main_group.command("list-files")
@click.argument("project", metavar="ENTITY/PROJECT")
@click.argument("run")
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default="100, in a file all", help="0 for all.")
@formatted("table")
@reading
@settings
def list_files(on: Settings, /, project: str, run: str, limit: int, form: str, file: Path | None, **fresh: Any) -> None:
    """List the files of a run."""
    from .. import output, query
    from ..freshness import Question

    cache = on.ask(Question(project, (run,), files=True), **fresh)
    ref = query.find_run(cache, query.find_project(cache, project, default_entity=on.config.default_entity), run)
    found = query.list_files(cache, ref)
    files = found[: limit or None]
    _tell_more(on, len(files), len(found), "files")
    _show(
        on,
        files,
        form,
        file,
        ["NAME", "SIZE", "TYPE", "UPDATED"],
        [[f["name"], output.show_size(f["size"]), f["mimetype"], (f["updated_at"] or "")[:19]] for f in files],
    )


def _show(
    on: Settings,
    found: Sequence[dict[str, Any]] | dict[str, dict[str, Any]],
    form: str,
    file: Path | None,
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """What was found, as a table for people, which has its own `headers` and `rows`, or in a format for programs."""
    from .. import output
    from ..formats import sink

    if form in ("table", "json"):
        with sink.opened(file) as out:
            if form == "json":
                output.show_json(found, out)
            else:
                output.show_table(headers, rows, out)
    else:
        from ..query.batches import listed

        write(
            listed([{"key": key} | one for key, one in found.items()] if isinstance(found, dict) else found), form, file
        )
    if file:
        on.say(f"{len(found):,} rows in {file}")


def _tell_more(on: Settings, shown: int, total: int, what: str) -> None:
    if shown < total:
        on.say(f"{shown} of {total} {what} shown; --limit 0 shows all")


def _state(run: dict[str, Any]) -> str:
    """The state of a run, and what else people have to know of it."""
    incomplete = not run["complete"] and run["rows"] > 0  # without rows, that is shown for itself
    return ", ".join([run["state"], *["incomplete"] * incomplete, *["deleted"] * (run["deleted_at"] is not None)])
