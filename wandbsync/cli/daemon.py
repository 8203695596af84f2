"""`daemon`: keep the cache fresh, and what is asked of whoever does."""

from __future__ import annotations

from ..terminal import echo
from .entry import Settings, main_group, settings


@main_group.group("daemon")
def daemon_group() -> None:
    """Keep the cache fresh: follow the runs of this machine, and look at the projects of a server on a schedule."""


@daemon_group.command("run")
@settings
def daemon_run(on: Settings, /) -> None:
    """Keep the cache fresh until SIGTERM or Ctrl-C; in the foreground, for systemd, tmux or Slurm.

    \b
    What is kept: the folders and projects that were synced once, and those in the config.
    Example: tmux new-session -d -s wandbsync 'wandbsync daemon run'
    """
    from ..daemon.process import run

    run(lambda: on.config, verbose=on.verbose, quiet=on.quiet)


@daemon_group.command("stop")
@settings
def daemon_stop(on: Settings, /) -> None:
    """Stop the daemon of this cache, and wait until it is gone."""
    from ..daemon.control import stop

    pid = stop(on.cache().folder)
    echo("no daemon is running" if pid is None else f"stopped {pid}")


@daemon_group.command("reload")
@settings
def daemon_reload(on: Settings, /) -> None:
    """Have the daemon of this cache read its config again. A wrong one is refused, the old stays in force."""
    from ..daemon.control import reload
    from ..errors import UsageError

    found = reload(on.cache().folder)
    if found.config_problem:
        raise UsageError(f"refused, the old config stays in force: {found.config_problem}")
    echo(f"{found.pid} has read {found.config or 'no settings file: the defaults are in force'}")
