"""`generate-plots`: metrics as pictures; `download-plots`: the images that a run logged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import errors
from ..errors import NotFound, UsageError, WandbsyncError
from ..model import RunRef
from ..terminal import echo
from .drawing import drawing, plot_options
from .entry import Settings, as_json, from_lake, main_group, reading, settings
from .light import hurry

if TYPE_CHECKING:
    from ..cache import Cache
    from ..lake.read import Reader


@main_group.command("generate-plots")
@click.argument("project", metavar="ENTITY/PROJECT")
@click.argument("runs", metavar="[RUN[,RUN...]]", default="")
@click.option("--metrics", default="", help="Metrics to draw, separated by commas.")
@click.option("--all-metrics", is_flag=True, help="Draw all numeric metrics, and index.html to look through them.")
@click.option("--include-system", is_flag=True, help="With --all-metrics: also _timestamp, system.* ...")
@click.option("--runs-where", metavar="CONDITION", help="Draw the runs for which this holds: config.lr < 0.01.")
@drawing
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to write; default wandb_plots/<entity>_<project>/<name>_<run_id>/.",
)
@from_lake
@as_json
@reading
@settings
def generate_plots(
    on: Settings,
    /,
    project: str,
    runs: str,
    metrics: str,
    all_metrics: bool,
    include_system: bool,
    runs_where: str | None,
    lake: str | None,
    as_json: bool,
    offline: bool,
    refresh: bool,
    max_age: str | None,
    **options: Any,
) -> int:
    """Draw metrics of one run, or of several in one figure each.

    \b
    Examples: wandbsync generate-plots me/demo 3ti4gf13,x8k2v0qa --metrics loss,acc
              wandbsync generate-plots me/demo --runs-where 'config.lr < 0.01' --group-by config.lr --metrics loss
    """
    hurry()

    from datetime import datetime

    from .. import output, query
    from ..figures import shown
    from ..plot import generate

    chosen = plot_options(all_metrics=all_metrics, include_system=include_system, **options)
    fresh: dict[str, Any] = {"offline": offline, "refresh": refresh, "max_age": max_age}
    if lake is None:
        cache, refs = _chosen_runs(on, project, runs, runs_where, fresh)
        read = None
    else:
        reader = on.lake(lake, **fresh)
        refs, cache, read = _runs_of_lake(reader, project, runs, runs_where), reader.cache, reader.series
    asked = query.split_names(metrics, query.known_metrics(cache, refs))
    wanted = query.plot_metrics(cache, refs, asked, all_metrics=all_metrics, include_system=include_system)
    drawn = shown(cache, refs, chosen, read=read, alone=True)
    results = generate(
        drawn.runs, wanted, chosen, drawn.source, now=datetime.now(), labels=drawn.labels, groups=drawn.groups
    )
    if as_json:
        output.show_json([output.plot_fields(result) for result in results])
    else:
        for result in results:
            for path in (result.path, result.data):
                if path:
                    echo(str(path))
        if all_metrics and any(result.path for result in results):
            on.say(f"{next(result.path for result in results if result.path).parent / 'index.html'} shows them all")
    failed = [result for result in results if not result.path]
    for result in results:
        for reason in result.skipped if result.path else [result.error]:
            on.say(f"not drawn: {reason}")
    if failed and len(failed) == len(results):
        raise WandbsyncError("nothing was drawn", hint=failed[0].error)
    # Of all metrics some may well have nothing to draw; of those asked for by name none may be missing.
    empty = {result.metric for result in failed if len(result.skipped) == len(drawn.runs)} - set(asked)
    cache.close()
    return errors.PARTIAL if len(failed) > len(empty) else 0


def _chosen_runs(
    on: Settings, project: str, runs: str, where: str | None, fresh: dict[str, Any]
) -> tuple[Cache, list[RunRef]]:
    """The cache with the rows of the runs that are to be drawn, and which these are."""
    from .. import query
    from ..freshness import Question

    default = on.config.default_entity
    _some(runs, where)
    known = query.run_names(on.cache(), project, default_entity=default) if "," in runs else ()
    named = query.split_names(runs, known)
    if where is not None:
        cache = on.ask(Question(project, tuple(named)), **fresh)
        named = _matching(cache, query.find_project(cache, project, default_entity=default), named, where)
    cache = on.ask(Question(project, tuple(named), rows=True), **fresh)
    found = query.find_project(cache, project, default_entity=default)
    return cache, list(dict.fromkeys(query.find_run(cache, found, name) for name in named))


def _runs_of_lake(reader: Reader, project: str, runs: str, where: str | None) -> list[RunRef]:
    """The same of a lake."""
    from .. import query

    _some(runs, where)
    if where is not None:
        found = reader.project(project)
        named = query.split_names(runs, query.run_names(reader.cache, "/".join(found)))
        runs = ",".join(_matching(reader.cache, found, named, where))
    return reader.runs(project, runs)


def _some(runs: str, where: str | None) -> None:
    if not runs.strip(" ,") and where is None:
        raise UsageError("no run to plot", hint="name some, or choose them with --runs-where")


def _matching(cache: Cache, project: tuple[str, str], named: Sequence[str], where: str) -> list[str]:
    """The run_ids of those of some runs, or of all, for which a condition holds. Raises NotFound if there are none."""
    from .. import query

    refs = [query.find_run(cache, project, name) for name in named] or query.run_refs(cache, project)
    matching = query.matching([query.get_run(cache, ref) for ref in refs], where)
    if not matching:
        raise NotFound(f"none of {len(refs)} runs has {where}")
    return [run["id"] for run in matching]


@main_group.command("download-plots")
@click.argument("project", metavar="ENTITY/PROJECT")
@click.argument("run")
@click.option(
    "--pattern", "patterns", multiple=True, metavar="GLOB", help="Files to take; default: images, wherever they are."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to write; default wandb_plots/<entity>_<project>/<name>_<run_id>/.",
)
@click.option("--force", is_flag=True, help="Fetch also what is there already.")
@as_json
@reading
@settings
def download_plots(
    on: Settings,
    /,
    project: str,
    run: str,
    patterns: tuple[str, ...],
    output: Path | None,
    force: bool,
    as_json: bool,
    **fresh: Any,
) -> int:
    """Download the images of a run, or whatever files a pattern chooses, each checked.

    \b
    Examples: wandbsync download-plots me/demo 3ti4gf13
              wandbsync download-plots me/demo 3ti4gf13 --pattern 'media/images/val/**' --pattern '*.json'
    """
    from datetime import datetime

    from .. import media, query
    from .. import output as shown
    from ..folder.names import NamedRun
    from ..freshness import Question

    cache = on.ask(Question(project, (run,), files=True), **fresh)
    ref = query.find_run(cache, query.find_project(cache, project, default_entity=on.config.default_entity), run)
    named = NamedRun(ref.entity, ref.project, ref.run_id, query.get_run(cache, ref)["name"])
    chosen = media.choose(cache.files(ref), patterns or media.IMAGES)
    if not chosen:
        on.say(
            f"no plot files found in {ref}; `wandbsync list-files` lists its files, generate-plots draws its metrics"
        )
        if as_json:
            shown.show_json([])
        return 0
    with on.server() as server:
        results = media.download(
            named,
            chosen,
            output,
            urls=None if fresh["offline"] else lambda names: server().file_urls(ref, names),
            fetch=lambda url, path: server().download(url, path),
            media=cache.folder / "media",
            now=datetime.now(),
            force=force,
            patterns=patterns,
        )
    if as_json:
        shown.show_json([shown.file_fields(result) for result in results])
    else:
        for result in results:
            if result.path:
                echo(f"{result.path}  ({result.outcome})")
    failed = [result for result in results if result.error]
    for result in results:
        if result.error or result.note:
            on.say(f"{result.file.name}: {result.error.line() if result.error else result.note}")
    if failed and len(failed) == len(results):
        raise failed[0].error or WandbsyncError("nothing was downloaded")
    return errors.PARTIAL if failed else 0
