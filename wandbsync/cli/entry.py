"""The program around the commands: the global options, what every command can ask for, and how it ends.

Only this file prints errors and chooses the exit code.
"""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from .. import __version__, errors
from ..errors import NotFound, NothingCached, UsageError, WandbsyncError
from ..formats import ENDINGS, FORMATS, chosen
from ..terminal import echo, echo_lines, show_crash
from . import light

if TYPE_CHECKING:
    from ..cache import Cache
    from ..cache.retention import Limits
    from ..config import Config
    from ..freshness import Question
    from ..lake.read import Reader
    from ..model import RunRef
    from ..sources.api.client import Api

Command = TypeVar("Command", bound=Callable[..., Any])


class Settings:
    """What the global options say; the config is read when a command asks for it."""

    def __init__(self) -> None:
        self.cache_dir: Path | None = None
        self.config_file: Path | None = None
        self.quiet = False
        self.verbose = False

    @property
    def config(self) -> Config:
        from .. import config

        return config.load(self.config_file, cache_dir=self.cache_dir)

    @property
    def limits(self) -> Limits:
        """How large the cache may get, and how old what is in it."""
        from ..cache.retention import Limits

        config = self.config
        return Limits(config.max_size, config.keep)

    def cache(self) -> Cache:
        from ..cache import Cache

        return Cache(self.config.cache_dir)

    def say(self, text: str) -> None:
        if not self.quiet:
            with suppress(BrokenPipeError):  # nobody listens; the work goes on
                echo(text, err=True)

    def filled(self) -> Cache:
        """The cache as it is. Raises NothingCached if there is nothing in it."""
        cache = self.cache()
        if not cache.exists():
            raise cache.nothing_cached()
        return cache

    def lake(self, url: str, *, offline: bool, refresh: bool, max_age: str | None) -> Reader:
        """A lake to answer from, until the command ends. Raises NothingCached if there is none."""
        from ..lake.address import parse, require
        from ..lake.read import Reader

        if refresh or max_age is not None:
            raise UsageError("--refresh and --max-age ask a source, and --lake asks a lake")
        require()
        reader = Reader(parse(url), default_entity=self.config.default_entity)
        return click.get_current_context().with_resource(reader)

    def server(self) -> AbstractContextManager[Callable[[], Api]]:
        """Gives a callable that gives the server, connected when first asked for. It raises NotSignedIn."""
        from ..library import who

        return who.on_demand(self.config)

    def ask(self, question: Question, *, offline: bool, refresh: bool, max_age: str | None) -> Cache:
        """The cache, fresh enough to answer a question from. Raises NothingCached if there is nothing in it."""
        from .. import config as settings
        from .. import freshness

        if offline and refresh:
            raise UsageError("--offline and --refresh contradict each other")
        try:
            age = None if max_age is None else settings.parse_duration(max_age)
        except ValueError as error:
            raise UsageError(f"--max-age: {error}") from error
        config = self.config
        cache = self.cache()
        freshness.refresh(cache, config, freshness.Wanted(offline, refresh, age), question, say=self.say)
        if self.verbose:
            self.say(f"answering from {cache.folder}")
        return self.filled()

    def with_parents(self, cache: Cache, refs: Sequence[RunRef], **fresh: Any) -> Cache:
        """A cache, until the command ends, in which forks among these runs have their parents' rows too.

        Raises NothingCached if those are not to be had.
        """
        from ..freshness import Question
        from ..library.lineage import with_parents

        def fetch(parents: Sequence[RunRef]) -> None:
            for ref in parents:
                with suppress(NotFound, NothingCached):
                    self.ask(Question(f"{ref.entity}/{ref.project}", (ref.run_id,), rows=True), **fresh)

        return click.get_current_context().with_resource(with_parents(cache, refs, fetch))


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


def formatted(default: str) -> Callable[[Command], Command]:
    """The options of every command that writes rows: in which format, `form`, and to which `file`.

    Of a file it is the one that its ending says, else `default`.
    """
    options = [
        click.option(
            "--format", "form", type=click.Choice(list(FORMATS)), help=f"Default: as FILE ends, or {default}."
        ),
        click.option("--json", "form", flag_value="json", help="The same as --format json."),
        click.option(
            "-o",
            "--output",
            "file",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help=f"Write to this file, which ends in {', '.join(ENDINGS)}, or as you like with --format.",
        ),
    ]

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, form: str | None, file: Path | None, **given: Any) -> Any:
            source = click.get_current_context().get_parameter_source("limit")
            if file is not None and source == click.core.ParameterSource.DEFAULT:
                given["limit"] = 0  # a file is whole, unless somebody says otherwise
            return command(*args, form=chosen(form, file, default), file=file, **given)

        return functools.reduce(lambda one, option: option(one), reversed(options), cast(Command, run))

    return add


from_lake = click.option("--lake", metavar="URL", help="Answer from this lake, as `wandbsync publish` makes one.")
with_parent = click.option("--with-parent", is_flag=True, help="Of a fork also its parent's rows, up to that step.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
settings = click.make_pass_decorator(Settings, ensure=True)


def _set(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value:  # what was said before the command holds where nothing is said after it
        setattr(context.ensure_object(Settings), str(option.name), value)


def _global_options(*, hidden: bool) -> list[click.Parameter]:
    """The options of the program, which may stand after the command as well as before it."""
    path = click.Path(path_type=Path, file_okay=False)
    said: dict[str, Any] = {"expose_value": False, "callback": _set, "hidden": hidden}
    return [
        click.Option(["--cache-dir"], type=path, help="Where the cache is.", **said),
        click.Option(["--config", "config_file"], type=click.Path(path_type=Path), help="The settings file.", **said),
        click.Option(["-v", "--verbose"], is_flag=True, help="Also say what is done.", **said),
        click.Option(["-q", "--quiet"], is_flag=True, help="Say nothing but results and errors.", **said),
    ]


class _ReaderGone(Exception):
    """Whoever read the output wants no more, as `| head -1`; of a BrokenPipeError click makes exit code 1."""


@contextmanager
def _read_to_the_end() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderGone from error


class _Group(click.Group):
    """Commands that all take the global options, which only the help of the program shows."""

    group_class = type

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _read_to_the_end():  # of --help
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _read_to_the_end():
            return super().invoke(ctx)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.params += _global_options(hidden=True)
        super().add_command(cmd, name)


@click.group(cls=_Group, params=_global_options(hidden=False), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="wandbsync %(version)s")
def main_group() -> None:
    """Mirror Weights & Biases runs into a local cache; list, query and plot complete histories offline.

    The options below may stand after the command too.

    Exit codes: 0 done, 1 failed, 2 usage or config, 3 partial, 4 not signed in, 5 nothing cached and no source,
    6 cache busy, 130 interrupted.
    """


def main() -> None:
    """The console script."""
    light.begin()
    sys.excepthook = show_crash
    try:
        code = main_group(standalone_mode=False)
        sys.stdout.flush()  # here a full disk can still be told
    except WandbsyncError as error:
        echo(f"error: {error.line()}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        echo_lines(said.getvalue(), err=True)
        code = UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        echo("interrupted; what was committed stays", err=True)
        code = errors.INTERRUPTED
    except (BrokenPipeError, _ReaderGone):
        _give_up_output()
        code = 0
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and "failed to map" not in str(error):  # a library that found no memory
            raise
        echo("error: there is not enough memory (what was committed stays)", err=True)
        code = WandbsyncError.exit_code
    except OSError as error:
        _give_up_output()
        echo(f"error: {error.filename or 'the output'}: {error.strerror or error}", err=True)
        code = WandbsyncError.exit_code
    code = code if isinstance(code, int) else 0
    light.end(code)


def _give_up_output() -> None:
    """Let what is still to be written go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
