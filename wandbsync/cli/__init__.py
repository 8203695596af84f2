"""The commands: read arguments, call one library function, print what it returned. One file for each noun.

    entry     the program: global options, errors, exit codes        plots     generate-plots, download-plots
    sync      sync                                                   cache     cache info, verify, compact, gc
    lists     list-projects, -runs, -metrics, -files                 config    config show, check, init
    sql       sql                                                    demo      demo
    status    status                                                 daemon    daemon run, stop, reload
    export    export                                                 lake      publish

What is heavy is imported inside the commands; importing a file here adds its commands to the program.
"""

from . import cache, config, daemon, demo, export, lake, lists, plots, sql, status, sync
from .entry import main, main_group

__all__ = [
    "cache",
    "config",
    "daemon",
    "demo",
    "export",
    "lake",
    "lists",
    "main",
    "main_group",
    "plots",
    "sql",
    "status",
    "sync",
]
