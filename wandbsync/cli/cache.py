"""The `cache` commands: how it is, and looking after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .entry import Settings, as_json, main_group, settings

if TYPE_CHECKING:
    from ..cache import Cache
    from ..model import RunRef


@main_group.group("cache")
def cache_group() -> None:
    """Look after the cache."""


@cache_group.command("info")
@as_json
@settings
def cache_info(on: Settings, /, as_json: bool) -> None:
    """What is in the cache, and how large it is."""
    from .. import output, query

    cache = on.filled()
    info = query.cache_info(cache)
    if as_json:
        output.show_json(info)
        return
    for name, value in info.items():
        click.echo(
            f"{name.replace('_', ' '):<16} {output.show_size(value) if 'bytes' in name else output.show_count(value)}"
        )


@cache_group.command("verify")
@click.option("--quick", is_flag=True, help="Compare sizes only.")
@as_json
@settings
def cache_verify(on: Settings, /, quick: bool, as_json: bool) -> int:
    """Check every segment against the catalog, and every metric against a recompute."""
    from .. import output
    from ..cache.verify import verify

    cache = on.filled()
    with output.count_progress("verify", quiet=on.quiet) as progress:
        findings = list(verify(cache, quick=quick, progress=progress))
    wrong = [finding for finding in findings if not finding.harmless]
    if as_json:
        output.show_json({"ok": not wrong, "findings": [output.fields(finding) for finding in findings]})
    else:
        for finding in findings:
            click.echo(str(finding))
        click.echo("the cache is not as the catalog says" if wrong else "the cache is sound")
        if wrong:
            on.say("`wandbsync sync --full` reads again what its sources still have")
        elif findings:
            on.say("`wandbsync cache gc` removes what nothing names")
    return 1 if wrong else 0


@cache_group.command("compact")
@click.option("--all", "everything", is_flag=True, help="Merge whatever can be merged, due or not.")
@settings
def cache_compact(on: Settings, /, everything: bool) -> None:
    """Merge small segments into large ones."""
    from ..cache.compaction import compact
    from ..cache.publish import publish

    cache = on.filled()
    merges = compact(cache, everything=everything)
    for merge in merges:
        click.echo(str(merge))
    if not merges:
        click.echo("nothing to merge")
    publish(cache)


@cache_group.command("gc")
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@settings
def cache_gc(on: Settings, /, dry_run: bool) -> None:
    """Remove segments that were replaced more than ten minutes ago, and files that nothing names."""
    from .. import output
    from ..cache.compaction import gc
    from ..cache.publish import publish

    cache = on.filled()
    if not dry_run:
        publish(cache)  # first: what it names must not be swept
    swept = gc(cache, dry_run=dry_run)
    for file in swept.files:
        click.echo(file)
    click.echo(f"{'would remove' if dry_run else 'removed'} {len(swept.files)} files, {output.show_size(swept.bytes)}")
    if swept.young:
        on.say(f"{swept.young} more are not needed either, but too young: a reader may have them open")


@cache_group.command("forget")
@click.argument("target", metavar="ENTITY/PROJECT/RUN")
@click.option("--force", is_flag=True, help="Even if its rows are nowhere else any more.")
@settings
def cache_forget(on: Settings, /, target: str, force: bool) -> None:
    """Drop a run and its rows. A sync brings back what its source still has."""
    from .. import query
    from ..cache.upkeep import upkeep
    from ..targets import parse

    cache, asked = on.filled(), parse(target)
    if asked.run is None:
        raise UsageError(f"{target} is not a run", hint="write entity/project/run_id")
    project = query.find_project(
        cache, "/".join(part for part in (asked.entity, asked.project) if part), default_entity=on.config.default_entity
    )
    ref = query.find_run(cache, project, asked.run)
    if not force and not _elsewhere(cache, ref):
        raise UsageError(f"the rows of {ref} are nowhere else any more", hint="--force drops them all the same")
    cache.forget(ref)
    upkeep(cache)
    click.echo(f"forgot {ref}")


def _elsewhere(cache: Cache, ref: RunRef) -> bool:
    """Whether a source still has a run: all of its logs, or its server."""
    logs = cache.log_cursors(ref)
    known = cache.mirrored(ref.entity, ref.project)[ref]
    mirrored = known.cursor is not None and known.cursor.described is not None and not known.deleted
    return mirrored or (bool(logs) and all(Path(path).exists() for path in logs))
