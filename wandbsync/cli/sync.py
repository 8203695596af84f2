"""`sync`: bring runs into the cache, from local logs and from a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import errors
from ..errors import CacheBusy, NotFound, NotPermitted, ServerError, UsageError, WandbsyncError
from ..terminal import echo
from .entry import Settings, as_json, main_group, settings

if TYPE_CHECKING:
    from ..cache import Cache
    from ..config import Config
    from ..sync import SyncReport


@main_group.command()
@click.argument("targets", nargs=-1, metavar="[ENTITY/PROJECT[/RUN]]...")
@click.option(
    "--local",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Read the runs below DIR; may be given more than once.",
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out projects that ENTITY/* would include.")
@click.option("--state", "states", multiple=True, help="Only runs in this state; may be given more than once.")
@click.option("--tag", "tags", multiple=True, help="Only runs with this tag; may be given more than once.")
@click.option("--newer-than", metavar="DURATION", help="Only runs made in this time (12h, 30d).")
@click.option("--dry-run", is_flag=True, help="Print the plan, do nothing.")
@click.option("--full", is_flag=True, help="Read everything again.")
@as_json
@settings
def sync(
    on: Settings,
    /,
    targets: tuple[str, ...],
    folders: tuple[Path, ...],
    dry_run: bool,
    full: bool,
    as_json: bool,
    **only: Any,
) -> int:
    """Bring runs into the cache. Given nothing: the folders and projects synced before or named in the config.

    \b
    Examples: wandbsync sync --local ~/experiments
              wandbsync sync my-team/vision my-team/audio/3ti4gf13
              wandbsync sync 'my-team/*' --exclude '*/scratch' --newer-than 30d
    """
    from .. import output

    config, cache = on.config, on.cache()
    chosen = _only(config, **only)
    reports: list[SyncReport] = []
    places = list(folders) if targets or folders else _remembered_folders(config, cache)
    if places:
        reports.append(_local(on, config, cache, places, dry_run=dry_run, full=full))
    if targets or not folders:
        reports += _server(on, config, cache, targets, chosen, dry_run=dry_run, full=full)
    if not reports:
        raise UsageError(
            "there is nothing to sync",
            hint="name a folder: `wandbsync sync --local DIR`, or a project: `wandbsync sync ENTITY/PROJECT`",
        )
    if as_json:
        shown = [output.report_fields(report) for report in reports]
        output.show_json(shown[0] if len(shown) == 1 else shown)
    for report in reports:
        _tell(on, report, quiet=as_json)
    if any(report.runs or report.deleted for report in reports):
        from ..cache.upkeep import upkeep

        freed = upkeep(cache, on.limits)
        if freed.runs:
            on.say(f"the rows of {freed.runs} runs were removed to save space; asked for, they are fetched again")
        if freed.short:
            on.say(f"the cache is larger than cache.max_size: {freed.short}")
    if places and len(reports) == 1 and not reports[0].logs and not reports[0].problems:
        raise WandbsyncError(
            f"there is no W&B run below {', '.join(map(str, places))}",
            hint="name the folder that holds `wandb`, or one above it",
        )
    return errors.PARTIAL if any(report.partial for report in reports) else 0


def _tell(on: Settings, report: SyncReport, *, quiet: bool) -> None:
    from .. import output

    if report.dry_run and not quiet:
        for action in report.planned:
            echo(str(action))
        if not report.planned:
            echo("nothing to do")
    elif not quiet:
        echo(output.report_line(report))
    if on.verbose and not report.dry_run:
        for action in report.planned:
            on.say(str(action))
    for note in report.notes:
        on.say(note)
    for problem in report.problems:
        on.say(f"skipped: {problem.reason}" if problem.harmless else f"not read: {problem.reason}")


# -- local logs


def _remembered_folders(config: Config, cache: Cache) -> list[Path]:
    remembered = cache.sources("local") if cache.exists() else {}
    return list(dict.fromkeys([*config.local_folders, *map(Path, remembered)]))


def _local(
    on: Settings, config: Config, cache: Cache, places: Sequence[Path], *, dry_run: bool, full: bool
) -> SyncReport:
    from .. import output
    from ..sync import sync_local

    with output.sync_progress(quiet=on.quiet) as progress:
        return sync_local(cache, places, entity=config.local_entity, dry_run=dry_run, full=full, progress=progress)


# -- a server


def _only(config: Config, *, states: Sequence[str], tags: Sequence[str], newer_than: str | None, **rest: Any) -> Any:
    from ..config import parse_duration
    from ..plan.discovery import RunFilter

    try:
        age = config.newer_than if newer_than is None else parse_duration(newer_than)
    except ValueError as error:
        raise UsageError(f"--newer-than: {error}") from error
    chosen = RunFilter(tuple(states) or config.states, tuple(tags) or config.tags, age)
    return chosen, (*rest["exclude"], *config.exclude)


def _server(
    on: Settings, config: Config, cache: Cache, targets: Sequence[str], only: Any, *, dry_run: bool, full: bool
) -> list[SyncReport]:
    from .. import output
    from ..library import who
    from ..sync import Problem, SyncReport
    from ..sync.files import MirroredFiles
    from ..sync.server import Terms, sync_server

    chosen, exclude = only
    remembered = [] if targets else _remembered_projects(config, cache)
    if not targets and not remembered:
        return []
    with on.server() as server:
        asked = who.asked(server(), config, targets or remembered, exclude)
        reports = []
        for one in asked:
            try:
                with output.sync_progress(quiet=on.quiet) as progress:
                    entity = config.local_entity
                    mirrored = MirroredFiles(config.files, config.files_max_size)
                    terms = Terms(
                        dry_run=dry_run,
                        full=full,
                        only=chosen,
                        local_entity=entity,
                        mirrored=mirrored,
                        progress=progress,
                    )
                    report = sync_server(cache, server(), [one], terms)
            except (NotFound, NotPermitted, ServerError, CacheBusy) as error:
                if len(asked) == 1:
                    raise
                report = SyncReport(problems=[Problem(str(one), error.line())], dry_run=dry_run)
            reports.append(report)
        return reports


def _remembered_projects(config: Config, cache: Cache) -> list[str]:
    synced = cache.sources("api") if cache.exists() else {}
    return list(dict.fromkeys([*config.projects, *(where.split(" ", 1)[1] for where in synced)]))
