"""`publish`: bring the cache to the lake of the whole team, and look after that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .. import errors
from ..errors import UsageError
from ..terminal import echo
from .entry import Settings, as_json, main_group, settings

if TYPE_CHECKING:
    from ..lake.address import Address
    from ..lake.upkeep import Looked


@main_group.command()
@click.argument("url", required=False)
@click.option("--dry-run", is_flag=True, help="Print the plan.")
@click.option("--take-over", is_flag=True, help="Publish also projects that another cache publishes, from now on.")
@click.option("--full", is_flag=True, help="Look at every project, changed or not.")
@click.option("--compact", is_flag=True, help="Instead of publishing, merge small files of the lake into large ones.")
@click.option("--vacuum", is_flag=True, help="Instead of publishing, remove files that were replaced long ago.")
@click.option("--keep", default="7d", show_default=True, metavar="DURATION", help="How long --vacuum keeps them.")
@click.option("--force", is_flag=True, help="Keep less than seven days, though others may read or publish now.")
@as_json
@settings
def publish(
    on: Settings, /, url: str | None, dry_run: bool, take_over: bool, full: bool, compact: bool, vacuum: bool,
    keep: str, force: bool, as_json: bool,
) -> int:  # fmt: skip
    """Publish the cache as Delta tables: a folder, s3://, gs:// or az://, for any engine to read.

    Only what changed is written, and nothing twice, however often it is interrupted. Credentials come from the
    environment. Without URL: lake.url in the settings.

    \b
    Example: wandbsync publish s3://lab/wandb
    """
    from .. import output
    from ..lake import address

    where = on.config.lake_url if url is None else url
    if where is None:
        raise UsageError("there is no address of a lake", hint=f"name one, or set lake.url; {address.FORMS}")
    address.require()
    if compact or vacuum:
        looked = _look_after(address.parse(where), keep, compact, vacuum, force=force, dry_run=dry_run)
        if as_json:
            output.show_json([output.fields(one) for one in looked])
        for one in () if as_json else looked:
            echo(str(one))
        return 0
    from ..lake.publish import publish as bring

    with output.count_progress("publish", quiet=on.quiet) as progress:
        report = bring(
            on.filled(),
            address.parse(where),
            machine=on.config.machine,
            dry_run=dry_run,
            take_over=take_over,
            full=full,
            progress=progress,
        )
    if as_json:
        output.show_json(output.published_fields(report))
    else:
        if dry_run:
            for action in report.planned:
                echo(str(action))
        echo(output.published_line(report))
    for line in report.left:
        on.say(f"left alone: {line}")
    if report.left:
        on.say("--take-over publishes them from this cache, and replaces what is there")
    for problem in report.problems:
        echo(f"not published: {problem}", err=True)
    return errors.PARTIAL if report.problems else 0


def _look_after(where: Address, keep: str, compact: bool, vacuum: bool, *, force: bool, dry_run: bool) -> list[Looked]:
    from ..config import parse_duration
    from ..lake.upkeep import look_after

    try:
        hours = parse_duration(keep) / 3600
    except ValueError as error:
        raise UsageError(f"--keep: {error}") from error
    return look_after(where, compact=compact, vacuum=vacuum, hours=hours, force=force, dry_run=dry_run)
