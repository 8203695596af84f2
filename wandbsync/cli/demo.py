"""`demo`: the way from a training job to a plot, shown."""

from __future__ import annotations

from pathlib import Path

import click

from .entry import Settings, main_group, settings


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
    from .. import demo as show

    show.run(output, call=lambda words: main_group(words, standalone_mode=False), say=on.say)
