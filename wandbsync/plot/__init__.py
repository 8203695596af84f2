"""Draw metrics of runs: `generate` makes the files, `compose` one figure for a notebook.

    PlotRun, PlotOptions, Source --plan--> Plan --load, smooth, draw, write--> PlotResult + metadata.json

    options, plan, names   what goes where              stats, groups, curves       the lines
    plots, studio          carry it out                 trace, envelope, pen         points -> ink
    rendered, colours      what was drawn before        figure, grid, frame, key     the page and its words
    record, sheet, data    files beside the pictures    scale, outliers, ticks, style, text   axes, looks
    flags                  options as words             series, subject, short_names whose line is called what
    picture                one picture, of which kind   heatmap, profile, units      other kinds; units of machines
    recall, crew, source   drawn before, shared, read   png                          pixels -> a file

It works offline and on whatever `Source.load` returns: nothing here knows W&B, DuckDB or the cache. matplotlib and
numpy are imported when something is drawn, not when this package is.
"""

from .names import PlotRun
from .options import PlotOptions
from .plan import PlotResult
from .plots import compose, generate
from .source import Source

__all__ = ["PlotOptions", "PlotResult", "PlotRun", "Source", "compose", "generate"]
