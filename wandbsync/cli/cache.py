"""The `cache` commands: how it is, and looking after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import errors
from ..errors import UsageError
from ..terminal import echo
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
    info = query.cache_info(cache, on.limits)
    if as_json:
        output.show_json(info)
        return
    for name, value in info.items():
        if name == "max_size_bytes" and value is None:
            value = "unlimited"
        shown = output.show_size(value) if "bytes" in name and value != "unlimited" else output.show_count(value)
        echo(f"{name.removesuffix('_bytes').replace('_', ' '):<16} {shown}")


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
            echo(str(finding))
        echo("the cache is not as the catalog says" if wrong else "the cache is sound")
        if wrong:
            on.say("`wandbsync cache repair` reads again what its sources still have")
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
        echo(str(merge))
    if not merges:
        echo("nothing to merge")
    publish(cache)


@cache_group.command("gc")
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@click.option(
    "--max-size", metavar="SIZE", help="Get down to this size (500MB, 20GB) instead of the one in the config."
)
@click.option("--force", is_flag=True, help="If need be also rows and files that are nowhere else any more.")
@as_json
@settings
def cache_gc(on: Settings, /, dry_run: bool, max_size: str | None, force: bool, as_json: bool) -> None:
    """Remove what nothing needs any more and, of a cache that is too large, what can be fetched again.

    What nothing needs: segments that were replaced more than ten minutes ago, and files that nothing names. Of a cache
    that is larger than cache.max_size: derived files, then media, then the rows of runs that were not used for longest,
    if a server has all of them. Their records and statistics stay, and `wandbsync sync` of such a run fetches its rows
    again.

    \b
    Example: wandbsync cache gc --max-size 20GB --dry-run
    """
    from dataclasses import replace

    from .. import output
    from ..cache.upkeep import sweep
    from ..sizes import parse_size

    limits = on.limits
    if max_size is not None:
        try:
            limits = replace(limits, max_size=parse_size(max_size))
        except ValueError as error:
            raise UsageError(f"--max-size: {error}") from error
    freed = sweep(on.filled(), limits, force=force, dry_run=dry_run)
    swept = freed.swept
    if as_json:
        output.show_json(output.freed_fields(freed, limits, dry_run=dry_run))
        return
    for line in (*freed.actions, *swept.files):
        echo(str(line))
    would = "would be" if dry_run else "is"
    echo(f"{'would remove' if dry_run else 'removed'} {len(swept.files)} files, {output.show_size(swept.bytes)}")
    if freed.actions:
        echo(f"the cache {would} {output.show_size(freed.bytes)} smaller")
    if swept.young:
        on.say(f"{swept.young} more are not needed either, but too young: a reader may have them open")
    if freed.short:
        on.say(str(freed.short))


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
    echo(f"forgot {ref}")


def _elsewhere(cache: Cache, ref: RunRef) -> bool:
    """Whether a source still has a run: all of its logs, or its server."""
    logs = cache.log_cursors(ref)
    known = cache.mirrored(ref.entity, ref.project)[ref]
    mirrored = known.cursor is not None and known.cursor.described is not None and not known.deleted
    return mirrored or (bool(logs) and all(Path(path).exists() for path in logs))


@cache_group.command("repair")
@click.option("--offline", is_flag=True, help="Ask no server; logs on this machine are read.")
@click.option("--backup", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Take segments from it.")
@click.option("--give-up", is_flag=True, help="Do without what no source has any more: its runs say what they lack.")
@as_json
@settings
def cache_repair(on: Settings, /, offline: bool, backup: Path | None, give_up: bool, as_json: bool) -> int:
    """Mend a damaged cache: what its sources still have is read again, what is lost is named.

    A damaged catalog is made anew from its daily copy and from what the segments say of themselves. Damaged files are
    kept in the cache's folder `damaged`. Exit code 3 if something is still damaged.

    \b
    Example: wandbsync cache repair --backup /mnt/backups/wandb
    """
    from .. import output
    from ..library.repair import repair_cache

    with output.count_progress("check", quiet=on.quiet) as progress:
        done = repair_cache(
            on.config, on.cache(), on.server, offline=offline, backup=backup, give_up=give_up, progress=progress
        )
    if as_json:
        output.show_json(done.fields())
        return errors.PARTIAL if done.damaged else 0
    for line in done.lines():
        echo(line)
    for problem in done.problems:
        on.say(f"not read: {problem}")
    if done.damaged and not give_up:
        on.say("--give-up does without it: its runs stay with the rest of their rows, and say what they lack")
    return errors.PARTIAL if done.damaged else 0


@cache_group.command("backup")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@as_json
@settings
def cache_backup(on: Settings, /, folder: Path, as_json: bool) -> None:
    """Copy the cache to FOLDER, or bring the copy there up to date; a daemon may go on.

    Segments never change: on one disk they are linked and take no room, on another only new ones are copied. A copy on
    another disk also helps when this one fails. `wandbsync cache restore FOLDER` makes a cache of it.
    """
    from .. import output
    from ..cache.upkeep.backup import backup

    done = backup(on.filled(), folder)
    if as_json:
        output.show_json(output.fields(done))
        return
    echo(f"{done.segments:,} segments in {folder}: {done.added:,} new, {output.show_size(done.bytes)}")


@cache_group.command("restore")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@as_json
@settings
def cache_restore(on: Settings, /, folder: Path, as_json: bool) -> None:
    """Make the cache of a backup, where there is none. Every file is compared with its checksum."""
    from .. import output
    from ..cache.upkeep.backup import restore

    cache = on.cache()
    done = restore(folder, cache.folder)
    if as_json:
        output.show_json(output.fields(done))
        return
    echo(f"{done.segments:,} segments, {output.show_size(done.bytes)}, in {cache.folder}")
