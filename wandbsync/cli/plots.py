"""`generate-plots`: metrics as pictures; `download-plots`: the images that a run logged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import errors
from ..errors import NotFound, UsageError, WandbsyncError
from ..model import RunRef
from ..targets import parse
from ..terminal import echo
from .drawing import Drawing, plot_options
from .entry import Settings, as_json, from_lake, main_group, reading, settings
from .light import hurry

if TYPE_CHECKING:
    from ..cache import Cache
    from ..lake.read import Reader


@main_group.command(
    "generate-plots",
    cls=Drawing,
    sections={"metrics": "What", "every_run": "Which runs", "runs_where": "Which runs", "as_json": "Output"},
)
@click.argument("project", metavar="ENTITY/PROJECT[/RUN]")
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--metrics", default="", metavar="NAME[,NAME]", help="Metrics to draw, separated by commas.")
@click.option("--all", "every_run", is_flag=True, help="Draw all runs of the project.")
@click.option("--runs-where", metavar="CONDITION", help="Draw the runs for which this holds: config.lr < 0.01.")
@from_lake
@as_json
@reading
@settings
def generate_plots(
    on: Settings,
    /,
    project: str,
    runs: tuple[str, ...],
    metrics: str,
    every_run: bool,
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
    Examples: wandbsync generate-plots me/demo/3ti4gf13 --metrics loss
              wandbsync generate-plots me/demo 3ti4gf13 x8k2v0qa --metrics loss,acc
              wandbsync generate-plots me/demo 'ppo-*' --metrics return --group-by config.env
              wandbsync generate-plots me/demo --all --metrics loss --kind heatmap
              wandbsync generate-plots me/demo --runs-where 'config.lr < 0.01' --all-metrics

    RUN is a run id, a display name, or a pattern of either; several may also be separated by commas.
    """
    hurry()

    from datetime import datetime

    from .. import output, query
    from ..figures import shown
    from ..plot import generate

    chosen = plot_options(options).or_smoothing(on.config.smoothing)
    fresh: dict[str, Any] = {"offline": offline, "refresh": refresh, "max_age": max_age}
    project, names = _asked_for(project, runs)
    if every_run and names:
        raise UsageError("--all draws all runs, so name none of them")
    if not (names or every_run or runs_where is not None):
        raise UsageError("no run to plot", hint="name some, choose them with --runs-where, or draw --all")
    if lake is None:
        cache, refs = _chosen_runs(on, project, names, runs_where, fresh)
        cache = on.with_parents(cache, refs, **fresh) if chosen.with_parent else cache
        read = None
    elif chosen.with_parent:
        raise UsageError("--with-parent asks a cache, and --lake asks a lake")
    else:
        reader = on.lake(lake, **fresh)
        refs, cache, read = _runs_of_lake(reader, project, names, runs_where), reader.cache, reader.series
    asked = query.split_names(metrics, query.known_metrics(cache, refs))
    wanted = query.plot_metrics(
        cache, refs, asked, all_metrics=chosen.all_metrics, include_system=chosen.include_system
    )
    drawn = shown(cache, refs, chosen, read=read, alone=True)
    results = generate(drawn.runs, wanted, chosen, drawn.source, now=datetime.now(), **drawn.sorting)
    if as_json:
        output.show_json([output.plot_fields(result) for result in results])
    else:
        for result in results:
            for path in (result.path, result.data):
                if path:
                    echo(str(path))
        if chosen.all_metrics and any(result.path for result in results):
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


def _asked_for(project: str, runs: Sequence[str]) -> tuple[str, list[str]]:
    """A project, and what names its runs: entity/project/run names one too, wherever it stands."""
    target = parse(project)
    project = str(replace(target, run=None))
    names = [run.removeprefix(f"{project}/") for run in runs]
    return project, [name for name in (target.run, *names) if name is not None and name.strip(" ,")]


def _chosen_runs(
    on: Settings, project: str, names: Sequence[str], where: str | None, fresh: dict[str, Any]
) -> tuple[Cache, list[RunRef]]:
    """The cache with the rows of the runs that are to be drawn, and which these are; no names: all."""
    from .. import query
    from ..freshness import Question

    default = on.config.default_entity
    named = _split(names, lambda: query.run_names(on.cache(), project, default_entity=default))
    open_ended = not named or any(map(query.is_pattern, named))
    if open_ended or where is not None:
        cache = on.ask(Question(project, () if open_ended else tuple(named)), **fresh)
        found, *others = query.find_projects(cache, project, default_entity=default)
        for other in others:
            on.say(
                f"the runs of {'/'.join(found)}; those of {'/'.join(other)} do not say whose they are, ask for it too"
            )
        named = [ref.run_id for ref in _matching(cache, found, named, where)]
    cache = on.ask(Question(project, tuple(named), rows=True), **fresh)
    return cache, query.find_runs(cache, query.find_project(cache, project, default_entity=default), named)


def _runs_of_lake(reader: Reader, project: str, names: Sequence[str], where: str | None) -> list[RunRef]:
    """The same of a lake."""
    from .. import query

    if names and where is None and not any(map(query.is_pattern, names)):
        return reader.runs(project, ",".join(names))
    found = reader.project(project)
    named = _split(names, lambda: query.run_names(reader.cache, "/".join(found)))
    return reader.runs(project, ",".join(ref.run_id for ref in _matching(reader.cache, found, named, where)))


def _split(names: Sequence[str], known: Callable[[], Collection[str]]) -> list[str]:
    """Names of which some may be lists separated by commas."""
    from .. import query

    if not any("," in name for name in names):
        return [name.strip() for name in names]
    there = known()
    return [one for name in names for one in query.split_names(name, there)]


def _matching(cache: Cache, project: tuple[str, str], named: Sequence[str], where: str | None) -> list[RunRef]:
    """Of some runs, or of all, those for which a condition holds. Raises NotFound if there are none."""
    from .. import query

    refs = query.find_runs(cache, project, named) if named else query.run_refs(cache, project)
    if where is None:
        if not refs:
            raise NotFound(f"{'/'.join(project)} has no runs")
        return refs
    matching = query.matching([query.get_run(cache, ref) for ref in refs], where)
    if not matching:
        raise NotFound(f"none of {len(refs)} runs has {where}")
    return [RunRef(*project, run["id"]) for run in matching]


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
    from tempfile import TemporaryDirectory

    from .. import media, query
    from .. import output as shown
    from ..folder.names import NamedRun
    from ..freshness import Question
    from ..library.console import NAME as CONSOLE_LOG
    from ..library.console import write_console
    from ..media.globs import matches

    cache = on.ask(Question(project, (run,), files=True), **fresh)
    ref = query.find_run(cache, query.find_project(cache, project, default_entity=on.config.default_entity), run)
    named = NamedRun(ref.entity, ref.project, ref.run_id, query.get_run(cache, ref)["name"])
    files = cache.files(ref)
    if not any(file.name == CONSOLE_LOG for file in files) and any(matches(CONSOLE_LOG, one) for one in patterns):
        cache = on.ask(Question(project, (ref.run_id,), rows=True, files=True), **fresh)
        made = write_console(cache, ref, Path(click.get_current_context().with_resource(TemporaryDirectory())))
        files += [made] if made else []
    chosen = media.choose(files, patterns or media.IMAGES)
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
