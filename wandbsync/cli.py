"""The commands: read arguments, call one library function, print what it returned.

Only this file prints errors and chooses the exit code. What is heavy is imported inside the commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__, errors
from .errors import NothingCached, UsageError, WandbsyncError
from .model import RunRef

if TYPE_CHECKING:
    from .cache import Cache
    from .config import Config

Command = TypeVar("Command", bound=Callable[..., Any])


class Settings:
    """What the global options say; the config is read when a command asks for it."""

    def __init__(self, cache_dir: Path | None, config_file: Path | None, *, quiet: bool, verbose: bool) -> None:
        self.cache_dir = cache_dir
        self.config_file = config_file
        self.quiet = quiet
        self.verbose = verbose

    @property
    def config(self) -> Config:
        from . import config

        return config.load(self.config_file, cache_dir=self.cache_dir)

    def cache(self) -> Cache:
        from .cache import Cache

        return Cache(self.config.cache_dir)

    def say(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)

    def filled(self) -> Cache:
        """The cache as it is. Raises NothingCached if there is nothing in it."""
        cache = self.cache()
        if not cache.exists():
            raise NothingCached(f"nothing is cached in {cache.folder}")
        return cache

    def ask(self, *, offline: bool, refresh: bool, max_age: str | None) -> Cache:
        """The cache, fresh enough to answer from. Raises NothingCached if there is nothing in it."""
        from . import config as settings
        from . import freshness

        if offline and refresh:
            raise UsageError("--offline and --refresh contradict each other")
        try:
            age = None if max_age is None else settings.parse_duration(max_age)
        except ValueError as error:
            raise UsageError(f"--max-age: {error}") from error
        config = self.config
        cache = self.cache()
        freshness.refresh(cache, config, freshness.Wanted(offline, refresh, age), say=self.say)
        if self.verbose:
            self.say(f"answering from {cache.folder}")
        return self.filled()


def reading(command: Command) -> Command:
    """The options of every command that answers from the cache."""
    options = [
        click.option("--offline", is_flag=True, help="Answer from the cache alone."),
        click.option("--refresh", is_flag=True, help="Look at the source first."),
        click.option("--max-age", metavar="DURATION", help="Look at the source if the answer is older (90s, 5m, 2h)."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
settings = click.make_pass_decorator(Settings)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="wandbsync %(version)s")
@click.option("--cache-dir", type=click.Path(path_type=Path, file_okay=False), help="Where the cache is.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="The settings file.")
@click.option("-v", "--verbose", is_flag=True, help="Also say what is done.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
@click.pass_context
def main_group(
    context: click.Context, cache_dir: Path | None, config_file: Path | None, verbose: bool, quiet: bool
) -> None:
    """Mirror Weights & Biases runs into a local cache; list, query and plot complete histories offline.

    Exit codes: 0 done, 1 failed, 2 usage or config, 3 partial, 4 not signed in, 5 nothing cached and no source,
    6 cache busy, 130 interrupted.
    """
    context.obj = Settings(cache_dir, config_file, quiet=quiet, verbose=verbose)


# -- sync


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
    from . import output
    from .cache.upkeep import upkeep
    from .sync import sync_local

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


# -- lists


@main_group.command("list-projects")
@click.option("--entity", help="Only this entity's.")
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default=True, help="0 for all.")
@as_json
@reading
@settings
def list_projects(on: Settings, /, entity: str | None, limit: int, as_json: bool, **fresh: Any) -> None:
    """List the projects in the cache."""
    from . import output, query

    projects = query.list_projects(on.ask(**fresh), entity=entity, limit=limit or None)
    if as_json:
        output.show_json(projects)
        return
    output.show_table(
        ["ENTITY", "PROJECT", "RUNS", "SOURCE", "SYNCED", "DESCRIPTION"],
        [
            [p["entity"], p["name"], p["runs"], p["source"], output.ago(p["synced_at"]), p["description"]]
            for p in projects
        ],
    )


@main_group.command("list-runs")
@click.argument("project", metavar="ENTITY/PROJECT")
@click.option("--state", help="Only runs in this state: running, finished, failed, crashed ...")
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default=True, help="0 for all.")
@as_json
@reading
@settings
def list_runs(on: Settings, /, project: str, state: str | None, limit: int, as_json: bool, **fresh: Any) -> None:
    """List the runs of a project, newest first.

    \b
    Example: wandbsync list-runs me/demo --state running
    """
    from . import output, query

    cache = on.ask(**fresh)
    found = query.find_project(cache, project, default_entity=on.config.default_entity)
    runs = query.list_runs(cache, found, state=state, limit=limit or None)
    if as_json:
        output.show_json(runs)
    else:
        output.show_table(
            ["ID", "NAME", "STATE", "CREATED", "ROWS", "SYNCED", "SUMMARY"],
            [
                [
                    run["id"],
                    output.shorten(run["name"], 40),
                    run["state"] if run["complete"] else f"{run['state']}, incomplete",
                    (run["created_at"] or "")[:19].replace("T", " "),
                    run["rows"],
                    output.ago(run["synced_at"]),
                    output.summary_line(run["summary_metrics"]),
                ]
                for run in runs
            ],
        )
    if limit and len(runs) == limit and (total := query.count_runs(cache, found, state=state)) > limit:
        on.say(f"{limit} of {total} runs shown; --limit 0 shows all")


@main_group.command("list-metrics")
@click.argument("project", metavar="ENTITY/PROJECT")
@click.argument("run")
@click.option("--include-system", is_flag=True, help="Also _step, _timestamp ... and machine metrics (system.*).")
@as_json
@reading
@settings
def list_metrics(on: Settings, /, project: str, run: str, include_system: bool, as_json: bool, **fresh: Any) -> None:
    """List what a run logged, with counts and statistics over the whole history."""
    from . import output, query

    cache = on.ask(**fresh)
    ref = query.find_run(cache, query.find_project(cache, project, default_entity=on.config.default_entity), run)
    metrics = query.list_metrics(cache, ref, include_system=include_system)
    if as_json:
        output.show_json(metrics)
        return
    columns = ["type", "count", "non_null_count", "min", "max", "mean", "std", "last"]
    output.show_table(
        ["METRIC", "TYPE", "COUNT", "NON-NULL", "MIN", "MAX", "MEAN", "STD", "LAST"],
        [
            [key, *(output.shorten(output.show_cell(entry.get(column)), 40) for column in columns)]
            for key, entry in metrics.items()
        ],
    )


@main_group.command("list-files")
@click.argument("project", metavar="ENTITY/PROJECT")
@click.argument("run")
@as_json
@reading
@settings
def list_files(on: Settings, /, project: str, run: str, as_json: bool, **fresh: Any) -> None:
    """List the files of a run."""
    from . import output, query

    cache = on.ask(**fresh)
    ref = query.find_run(cache, query.find_project(cache, project, default_entity=on.config.default_entity), run)
    files = query.list_files(cache, ref)
    if as_json:
        output.show_json(files)
        return
    output.show_table(
        ["NAME", "SIZE", "TYPE", "UPDATED"],
        [[f["name"], output.show_size(f["size"]), f["mimetype"], (f["updated_at"] or "")[:19]] for f in files],
    )


# -- SQL


@main_group.command()
@click.argument("query", required=False)
@click.option("--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table")
@click.option("-o", "--output", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Rows shown by --format table; 0 for all.",
)
@click.option("--schema", is_flag=True, help="Print the tables and their columns.")
@reading
@settings
def sql(
    on: Settings, /, query: str | None, form: str, file: Path | None, limit: int, schema: bool, **fresh: Any
) -> None:
    """Run one read-only SQL query (DuckDB) over the cache; - reads it from stdin.

    \b
    Example: wandbsync sql "SELECT run_id, min(value) FROM history WHERE key = 'loss' GROUP BY run_id"
    """
    from . import query as reader
    from . import tables

    if schema:
        from .cache.layout import describe

        click.echo(describe())
        return
    if query == "-":
        query = sys.stdin.read()
    if not query or not query.strip():
        raise UsageError("there is no query", hint="`wandbsync sql --schema` lists the tables")
    cache = on.ask(**fresh)
    shown = tables.write(reader.sql(cache, query), form, file, limit=limit or None)
    if shown.more:
        on.say(f"the first {shown.rows} rows shown; --limit 0 shows all, --format csv exports them")
    if file:
        on.say(f"{shown.rows:,} rows in {file}")


# -- plots


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

    from . import output, query
    from .plot import PlotOptions, PlotRun, generate

    chosen = PlotOptions(ema=not no_ema, all_metrics=all_metrics, include_system=include_system, **options)
    cache = on.ask(offline=offline, refresh=refresh, max_age=max_age)
    found = query.find_project(cache, project, default_entity=on.config.default_entity)
    refs = list(dict.fromkeys(query.find_run(cache, found, name) for name in _listed(runs)))
    asked = _listed(metrics)
    wanted = query.plot_metrics(cache, refs, asked, all_metrics=all_metrics, include_system=include_system)
    drawn = [PlotRun(ref.entity, ref.project, ref.run_id, query.get_run(cache, ref)["name"]) for ref in refs]
    results = generate(
        drawn,
        wanted,
        chosen,
        load=lambda run, key: query.series(cache, RunRef(run.entity, run.project, run.run_id), key),
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


def _listed(text: str) -> list[str]:
    """The names in a list separated by commas."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


# -- the cache


@main_group.group("cache")
def cache_group() -> None:
    """Look after the cache."""


@cache_group.command("info")
@as_json
@settings
def cache_info(on: Settings, /, as_json: bool) -> None:
    """What is in the cache, and how large it is."""
    from . import output, query

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
    from . import output
    from .cache.verify import verify

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
    return 1 if wrong else 0


@cache_group.command("compact")
@click.option("--all", "everything", is_flag=True, help="Merge whatever can be merged, due or not.")
@settings
def cache_compact(on: Settings, /, everything: bool) -> None:
    """Merge small segments into large ones."""
    from .cache.compaction import compact
    from .cache.publish import publish

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
    from . import output
    from .cache.compaction import gc
    from .cache.publish import publish

    cache = on.filled()
    if not dry_run:
        publish(cache)  # first: what it names must not be swept
    swept = gc(cache, dry_run=dry_run)
    for file in swept.files:
        click.echo(file)
    click.echo(f"{'would remove' if dry_run else 'removed'} {len(swept.files)} files, {output.show_size(swept.bytes)}")


# -- config


@main_group.group("config")
def config_group() -> None:
    """Look at the settings."""


@config_group.command("show")
@as_json
@settings
def config_show(on: Settings, /, as_json: bool) -> None:
    """The settings in force, and where they come from."""
    from . import output

    values = output.config_fields(on.config)
    if as_json:
        output.show_json(values)
    else:
        for name, value in values.items():
            click.echo(f"{name} = {output.show_cell(value)}")


@config_group.command("check")
@settings
def config_check(on: Settings, /) -> None:
    """Say whether the settings are right; all problems at once."""
    config = on.config
    click.echo(f"{config.file} is right" if config.file else "there is no settings file; the defaults are in force")


@config_group.command("init")
@click.option("--force", is_flag=True, help="Replace the file that is there.")
@settings
def config_init(on: Settings, /, force: bool) -> None:
    """Write the commented example where the settings are read from."""
    from . import config

    path = on.config_file or config.default_file()
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", hint="--force replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config.example(), encoding="utf-8")
    except OSError as error:
        raise WandbsyncError(f"cannot write {path}: {error.strerror}") from error
    click.echo(str(path))


@main_group.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Where the runs, the cache and the plots go.",
)
@settings
def demo(on: Settings, /, output: Path) -> None:
    """Train a few small runs with the wandb SDK in offline mode, then sync, list, query and plot them."""
    from . import demo as show

    show.run(output, call=lambda words: main_group(words, standalone_mode=False), say=on.say)


def main() -> None:
    """The console script."""
    try:
        code = main_group(standalone_mode=False)
    except WandbsyncError as error:
        click.echo(f"error: {error.line()}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was committed stays", err=True)
        code = errors.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
