"""Draw metrics of runs: `generate` makes the files, `figure.draw` one figure, `smoothing` the smoothed lines.

    PlotRun, PlotOptions --plan--> Plan --load, smooth, draw, write--> PlotResult + metadata.json

    plan, names    what goes where        smoothing        the smoothed lines        scale, ticks    the axes
    plots          carries it out         figure           series -> figure          text, frame     the words
    record         metadata.json                                                     style           the looks

It works offline and on whatever `load` returns: nothing here knows W&B, DuckDB or the cache. matplotlib and numpy are
imported when something is drawn, not when this package is.
"""

from .names import PlotRun
from .plan import PlotOptions, PlotResult
from .plots import generate

__all__ = ["PlotOptions", "PlotResult", "PlotRun", "generate"]
