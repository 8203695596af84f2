"""`export`: complete histories as files for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UsageError
from ..formats import write
from .entry import Settings, formatted, main_group, reading, settings


@main_group.command()
@click.argument("target", metavar="ENTITY/PROJECT[/RUN]")
@click.option("--metrics", default="", help="Metrics to export, separated by commas; default: all.")
@formatted("csv")
@click.option("--wide", is_flag=True, help="One row a step with a column for each metric, instead of one row a value.")
@click.option("--system", is_flag=True, help="The machine's metrics; the step counts the samples.")
@reading
@settings
def export(
    on: Settings,
    /,
    target: str,
    metrics: str,
    form: str,
    wide: bool,
    system: bool,
    file: Path | None,
    offline: bool,
    refresh: bool,
    max_age: str | None,
) -> None:
    """Export complete histories of a run, or of all runs of a project, as a file for other programs.

    \b
    Examples: wandbsync export me/demo/3ti4gf13 --metrics loss,acc --wide -o loss.parquet
              wandbsync export me/demo --format csv -o all.csv
    """
    from .. import query
    from ..freshness import Question
    from ..library.export import export as exported
    from ..library.gaps import tell
    from ..model import HISTORY, SYSTEM, RunRef
    from ..targets import parse

    asked = parse(target)
    if asked.is_pattern:
        raise UsageError(f"{target} is more than one project", hint="export them one by one")
    project = "/".join(part for part in (asked.entity, asked.project) if part)
    question = Question(project, () if asked.run is None else (asked.run,), rows=True)
    cache = on.ask(question, offline=offline, refresh=refresh, max_age=max_age)
    found = query.find_project(cache, project, default_entity=on.config.default_entity)
    if asked.run is None:
        refs = [RunRef(*found, run["id"]) for run in query.list_runs(cache, found, limit=None)]
        if evicted := sorted(ref.run_id for ref in cache.evicted().intersection(refs)):
            back = Question(project, tuple(evicted), rows=True)
            cache = on.ask(back, offline=offline, refresh=refresh, max_age=max_age)
    else:
        refs = [query.find_run(cache, found, asked.run)]
    tell(cache, refs, [] if asked.run is None else refs, on.say)
    keys = query.split_names(metrics, query.known_metrics(cache, refs)) if metrics else None
    shown = write(exported(cache, refs, keys, wide=wide, stream=SYSTEM if system else HISTORY), form, file)
    if file:
        on.say(f"{shown.rows:,} rows in {file}")
