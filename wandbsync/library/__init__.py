"""`import wandbsync`: what notebooks, scripts and other programs ask the cache for, as Python and Arrow.

    connect() -> DuckDB over the cache as it stands at each query
    open() -> Mirror --freshness--> sources if the answer would be too old
                     --query--> Rows, Record, pyarrow.Table          --plot--> Figure

    mirror   the object that answers            shown    lists and dicts that show themselves as tables
    who      server, login, whose projects      gaps     histories that are not here, or not whole
    export   histories into files              lineage  forks with their parents' rows
    console  output.log from the console lines

The commands are faces over the same functions. Nothing here prints, and nothing imports the wandb SDK; Arrow, DuckDB
and matplotlib are imported when they are needed.
"""

from .mirror import Mirror, connect, open
from .shown import Record, Rows

__all__ = ["Mirror", "Record", "Rows", "connect", "open"]
