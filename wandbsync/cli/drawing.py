"""The options of `generate-plots`, as `PlotOptions` has them, and a help that shows them in sections."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..plot import PlotOptions

SOURCE = "From where, how fresh"


class Drawing(click.Command):
    """A command that draws: it has an option for each flag of `PlotOptions`, and its help lists options by section.

    They are made when this command is called, so that no other one has to know how pictures look.
    """

    def __init__(self, *words: Any, sections: Mapping[str, str], **more: Any) -> None:
        super().__init__(*words, **more)
        self.sections = dict(sections)  # of the options that are not flags; all others are about the source

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        return [*super().get_params(context), *self._flags]

    @cached_property
    def _flags(self) -> list[click.Parameter]:
        from ..plot.flags import flags_of
        from ..plot.options import PlotOptions

        found: list[click.Parameter] = []
        for _, flag in flags_of(PlotOptions):
            self.sections[flag.name] = flag.section
            switch = True if flag.metavar is None else None  # False would take the -1 of `--ylim -1,` for a flag
            found.append(click.Option([flag.words], metavar=flag.metavar, is_flag=switch, help=flag.help))
        return found

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        from ..plot.flags import SECTIONS

        found: dict[str, list[tuple[str, str]]] = {section: [] for section in (*SECTIONS, SOURCE)}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None:
                found[self.sections.get(parameter.name or "", SOURCE)].append(record)
        for section, records in found.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)


def plot_options(given: Mapping[str, Any]) -> PlotOptions:
    """What was asked for. Raises UsageError for what cannot be."""
    from ..plot.flags import read
    from ..plot.options import PlotOptions

    return PlotOptions(**read(PlotOptions, given))
