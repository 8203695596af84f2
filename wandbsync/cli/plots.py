"""`generate-plots`: metrics as PNG files; `download-plots`: the images that a run logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .. import errors
from ..errors import WandbsyncError
from ..model import RunRef
from .entry import Settings, as_json, from_lake, main_group, reading, settings


@main_group.command("generate-plots")
@click.argument("project", metavar="ENTITY/PROJECT")
@click.argument("runs", metavar="RUN[,RUN...]")
@click.option("--metrics", default="", help="Metrics to draw, separated by commas.")
@click.option("--all-metrics", is_flag=True, help="Draw all numeric metrics.")
@click.option("--full-res", is_flag=True, help="Draw every point. (Figures are always made from the full history.)")
@click.option("--smooth", type=int, metavar="N", help="Draw the mean of the last N values instead of the EMA.")
@click.option("--ema-weight", type=float, default=0.99, show_default=True, help="Weight of the time-weighted EMA.")
@click.option(
    "--viewport-scale",
    type=float,
    default=1000.0,
    show_default=True,
    help="What the width of the chart counts as, for the EMA.",
)
@click.option("--no-ema", is_flag=True, help="Draw no EMA.")
@click.option("--group-by-prefix", is_flag=True, help="Put a/b into the folder a.")
@click.option("--include-system", is_flag=True, help="With --all-metrics: also _timestamp, system.* ...")
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
    no_ema: bool,
    lake: str | None,
    as_json: bool,
    offline: bool,
    refresh: bool,
    max_age: str | None,
    **options: Any,
) -> int:
    """Draw metrics of one run, or of several in one figure each, as PNG files.

    \b
    Example: wandbsync generate-plots me/demo 3ti4gf13,x8k2v0qa --metrics loss,acc
    """
    from datetime import datetime

    from .. import output, query
    from ..freshness import Question
    from ..plot import PlotOptions, PlotRun, generate

    chosen = PlotOptions(ema=not no_ema, all_metrics=all_metrics, include_system=include_system, **options)
    if lake is None:
        known = query.run_names(on.cache(), project, default_entity=on.config.default_entity) if "," in runs else ()
        named = query.split_names(runs, known)
        question = Question(project, tuple(named), rows=True)
        cache = on.ask(question, offline=offline, refresh=refresh, max_age=max_age)
        found = query.find_project(cache, project, default_entity=on.config.default_entity)
        refs = list(dict.fromkeys(query.find_run(cache, found, name) for name in named))

        def load(ref: RunRef, key: str) -> Any:
            return query.series(cache, ref, key)

    else:
        reader = on.lake(lake, offline=offline, refresh=refresh, max_age=max_age)
        refs, cache, load = reader.runs(project, runs), reader.cache, reader.series
    asked = query.split_names(metrics, query.known_metrics(cache, refs))
    wanted = query.plot_metrics(cache, refs, asked, all_metrics=all_metrics, include_system=include_system)
    drawn = [PlotRun(ref.entity, ref.project, ref.run_id, query.get_run(cache, ref)["name"]) for ref in refs]
    results = generate(
        drawn,
        wanted,
        chosen,
        load=lambda run, key: load(RunRef(run.entity, run.project, run.run_id), key),
        now=datetime.now(),
    )
    if as_json:
        output.show_json([output.plot_fields(result) for result in results])
    else:
        for result in results:
            if result.path:
                click.echo(str(result.path))
    failed = [result for result in results if not result.path]
    for result in results:
        for reason in result.skipped if result.path else [result.error]:
            on.say(f"not drawn: {reason}")
    if failed and len(failed) == len(results):
        raise WandbsyncError("nothing was drawn", hint=failed[0].error)
    # Of all metrics some may well have nothing to draw; of those asked for by name none may be missing.
    empty = {result.metric for result in failed if len(result.skipped) == len(drawn)} - set(asked)
    return errors.PARTIAL if len(failed) > len(empty) else 0


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
                click.echo(f"{result.path}  ({result.outcome})")
    failed = [result for result in results if result.error]
    for result in results:
        if result.error or result.note:
            on.say(f"{result.file.name}: {result.error.line() if result.error else result.note}")
    if failed and len(failed) == len(results):
        raise failed[0].error or WandbsyncError("nothing was downloaded")
    return errors.PARTIAL if failed else 0
