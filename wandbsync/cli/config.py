"""The `config` commands: the settings in force, and a file to begin with."""

from __future__ import annotations

import click

from ..errors import UsageError, WandbsyncError
from ..terminal import echo
from .entry import Settings, as_json, main_group, settings


@main_group.group("config")
def config_group() -> None:
    """Look at the settings."""


@config_group.command("show")
@as_json
@settings
def config_show(on: Settings, /, as_json: bool) -> None:
    """The settings in force, and where they come from."""
    from .. import output
    from ..config import show_value

    values = output.config_fields(on.config)
    if as_json:
        output.show_json(values)
        return
    for name, value in values.items():
        echo(f"{name} = {output.show_cell(show_value(name, value))}")


@config_group.command("check")
@settings
def config_check(on: Settings, /) -> None:
    """Say whether the settings are right; all problems at once."""
    config = on.config
    echo(f"{config.file} is right" if config.file else "there is no settings file; the defaults are in force")


@config_group.command("init")
@click.option("--force", is_flag=True, help="Replace the file that is there.")
@settings
def config_init(on: Settings, /, force: bool) -> None:
    """Write the commented example where the settings are read from."""
    from .. import config

    path = on.config_file or config.default_file()
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", hint="--force replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config.example(), encoding="utf-8")
    except OSError as error:
        raise WandbsyncError(f"cannot write {path}: {error.strerror}") from error
    echo(str(path))
