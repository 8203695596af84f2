"""`sync`: bring runs into the cache."""

from __future__ import annotations

from pathlib import Path

import click

from .. import errors
from ..errors import UsageError, WandbsyncError
from .entry import Settings, as_json, main_group, settings


@main_group.command()
@click.option(
    "--local",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Read the runs below DIR; may be given more than once.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan, do nothing.")
@click.option("--full", is_flag=True, help="Read everything again.")
@as_json
@settings
def sync(on: Settings, /, folders: tuple[Path, ...], dry_run: bool, full: bool, as_json: bool) -> int:
    """Bring runs into the cache. Without --local: all folders synced before or named in the config.

    \b
    Example: wandbsync sync --local ~/experiments
    """
    from .. import output
    from ..cache.upkeep import upkeep
    from ..sync import sync_local

    config, cache = on.config, on.cache()
    places = list(folders)
    if not places:
        remembered = cache.sources("local") if cache.exists() else {}
        places = list(dict.fromkeys([*config.local_folders, *map(Path, remembered)]))
        places = [place for place in places if place.exists()]
    if not places:
        raise UsageError("there is nothing to sync", hint="name a folder: `wandbsync sync --local DIR`")
    with output.sync_progress(quiet=on.quiet) as progress:
        report = sync_local(cache, places, entity=config.local_entity, dry_run=dry_run, full=full, progress=progress)
    if on.verbose and not dry_run:
        for action in report.planned:
            on.say(str(action))
    if as_json:
        output.show_json(output.report_fields(report))
    elif dry_run:
        for action in report.planned:
            click.echo(str(action))
        if not report.planned:
            click.echo("nothing to do")
    else:
        click.echo(output.report_line(report))
    if report.runs:
        upkeep(cache)
    for note in report.notes:
        on.say(note)
    for problem in report.problems:
        on.say(f"skipped: {problem.reason}" if problem.harmless else f"not read: {problem.reason}")
    if not report.logs and not report.problems:
        raise WandbsyncError(
            f"there is no W&B run below {', '.join(map(str, places))}",
            hint="name the folder that holds `wandb`, or one above it",
        )
    return errors.PARTIAL if report.partial else 0
